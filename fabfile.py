"""The commands that `fab -l` lists."""

from tasks.check import check
from tasks.doctor import doctor
from tasks.find import find
from tasks.hosts import hosts
from tasks.images import images
from tasks.push import push
from tasks.remove import remove
from tasks.retag import retag
from tasks.run import run
from tasks.runs import runs
from tasks.show import show

__all__ = ["check", "doctor", "find", "hosts", "images", "push", "remove", "retag", "run", "runs", "show"]
