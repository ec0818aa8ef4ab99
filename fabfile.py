"""The commands that `fab -l` lists."""

from tasks.hosts import hosts
from tasks.retag import retag
from tasks.run import run
from tasks.runs import runs
from tasks.show import show

__all__ = ["hosts", "retag", "run", "runs", "show"]
