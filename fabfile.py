"""The commands that `fab -l` lists."""

from tasks.apply import apply
from tasks.check import check
from tasks.completion import completion
from tasks.copy import copy
from tasks.deliver import deliver
from tasks.doctor import doctor
from tasks.find import find
from tasks.hosts import hosts
from tasks.images import images
from tasks.load import load
from tasks.needs import needs
from tasks.pull import pull
from tasks.push import push
from tasks.registry import registry
from tasks.remove import remove
from tasks.retag import retag
from tasks.run import run
from tasks.runs import runs
from tasks.save import save
from tasks.show import show

__all__ = [
    "apply",
    "check",
    "completion",
    "copy",
    "deliver",
    "doctor",
    "find",
    "hosts",
    "images",
    "load",
    "needs",
    "pull",
    "push",
    "registry",
    "remove",
    "retag",
    "run",
    "runs",
    "save",
    "show",
]
