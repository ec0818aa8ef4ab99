"""What an inventory's files have, before anything is merged: variables, groups, names of hosts and their ranges."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ctr_ferry.errors import BadInventory

_RANGE = re.compile(r"\[(\w+):(\w+)(?::(\d+))?\]")


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value that only Ansible can read: ``!vault``, ``!unsafe`` or a ``{{ template }}``."""

    text: str


@dataclass(frozen=True, slots=True)
class Var:
    """A variable's value, and its file and line for messages."""

    value: Any
    where: str


Vars = dict[str, Var]


@dataclass(slots=True)
class Group:
    """A group as the files have it, before anything is merged."""

    name: str
    hosts: set[str] = field(default_factory=set)
    children: list[str] = field(default_factory=list)
    vars: Vars = field(default_factory=dict)


def expand(pattern: str) -> Iterator[str]:
    """Writes out Ansible's ranges: ``node[01:20]``, ``db[a:f]``, ``node[1:9:2]``, also several in one name.

    Raises:
        BadInventory: a range is wrong.
    """
    match = _RANGE.search(pattern)
    if not match:
        yield pattern
        return
    first, last, step = match[1], match[2], int(match[3] or 1)
    head, rest = pattern[: match.start()], pattern[match.end() :]
    for middle in _sequence(first, last, step, pattern):
        for tail in expand(rest):
            yield f"{head}{middle}{tail}"


def _sequence(first: str, last: str, step: int, pattern: str) -> list[str]:
    letters, found = string.ascii_letters, list[str]()
    if first.isdecimal() and last.isdecimal() and step:
        width = len(first) if first.startswith("0") else 0
        found = [str(n).zfill(width) for n in range(int(first), int(last) + 1, step)]
    elif len(first) == len(last) == 1 and first in letters and last in letters and step:
        found = list(letters[letters.index(first) : letters.index(last) + 1 : step])
    if not found:
        raise BadInventory(f"{pattern!r} has a wrong range", hint="write a range like node[01:20] or db[a:f]")
    return found
