"""The commands that `fab -l` lists."""

from tasks.retag import retag

__all__ = ["retag"]
