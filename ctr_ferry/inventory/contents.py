"""What an inventory's files have, before anything is merged: variables, groups, hosts and their names."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ctr_ferry.errors import BadInventory

_RANGE = re.compile(r"\[(\w+):(\w+)(?::(\d+))?\]")
_HOST_PORT = re.compile(
    r"(?:\[(?P<inside>[^\[\]]+)\]|(?P<plain>(?![.-])(?:[\w.-]|\[[^\]]*\])+(?<![-_]))):(?P<port>[0-9]{1,9})"
)
MOST_HOSTS = 100_000  # of one pattern; a range with a digit too many would take all memory
_LONGEST_NUMBER = 20  # digits of a range


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value that only Ansible can read: ``!vault``."""

    text: str


class Plain(str):
    """Text that is no template, whatever it has in it: ``!unsafe``."""

    __slots__ = ()


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


@dataclass(slots=True)
class Contents:
    """What an inventory file has.

    Attributes:
        groups: the groups by name; ``all`` and ``ungrouped`` always exist.
        hosts: the variables that each host has in the file itself, in the file's order.
        lines: the file and the line where each host stands first.
    """

    groups: dict[str, Group] = field(default_factory=lambda: {name: Group(name) for name in ("all", "ungrouped")})
    hosts: dict[str, Vars] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)

    def group(self, name: str) -> Group:
        """The group of a name, made if it is new."""
        return self.groups.setdefault(name, Group(name))

    def add_hosts(self, group: Group, pattern: str, own: Vars, where: str) -> None:
        """Adds the hosts of a pattern such as ``node[01:20]:2222`` to a group. A port counts where a host is new.

        Raises:
            BadInventory: a range is wrong.
        """
        name, port = _host_and_port(pattern)
        try:
            hosts = expand(name)
        except BadInventory as error:
            raise BadInventory(f"{where}: {error.message}", hint=error.hint) from error
        for host in hosts:
            group.hosts.add(host)
            if host not in self.hosts:
                self.lines[host] = where
                self.hosts[host] = {"ansible_port": Var(port, where)} if port else {}
            self.hosts[host].update(own)


def read_text(file: Path) -> str:
    """The text of a file of the inventory.

    Raises:
        BadInventory: the file is not there, or is no text.
    """
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BadInventory(
            f"there is no inventory at {file}",
            hint="write one, or name another with CTR_FERRY_INVENTORY or fleet.inventory in fabric.yaml",
        ) from error
    except IsADirectoryError as error:
        raise BadInventory(
            f"the inventory {file} is a folder", hint=f"name the file in it: CTR_FERRY_INVENTORY={file / 'hosts.yaml'}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInventory(
            f"the inventory {file} cannot be read: {error}", hint="check its permissions and encoding"
        ) from error


def _host_and_port(pattern: str) -> tuple[str, int | None]:
    """Splits ``host:22`` and ``[2001:db8::1]:22``; the port is None if there is none."""
    match = _HOST_PORT.fullmatch(pattern)
    return (match["inside"] or match["plain"], int(match["port"])) if match else (pattern, None)


def expand(pattern: str) -> list[str]:
    """Writes out Ansible's ranges: ``node[01:20]``, ``db[a:f]``, ``node[1:9:2]``, also several in one name.

    Raises:
        BadInventory: a range is wrong, or is of too many hosts.
    """
    found = list(islice(_expand(pattern), MOST_HOSTS + 1))
    if len(found) > MOST_HOSTS:
        raise BadInventory(f"{pattern!r} is more than {MOST_HOSTS} hosts", hint="write a smaller range")
    return found


def _expand(pattern: str) -> Iterator[str]:
    match = _RANGE.search(pattern)
    if not match:
        yield pattern
        return
    first, last, step = match[1], match[2], match[3] or "1"
    head, rest = pattern[: match.start()], pattern[match.end() :]
    for middle in _sequence(first, last, step, pattern):
        for tail in _expand(rest):
            yield f"{head}{middle}{tail}"


def _sequence(first: str, last: str, step: str, pattern: str) -> Iterator[str]:
    letters, span, found = string.ascii_letters, range(0), iter(list[str]())
    by = int(step[:_LONGEST_NUMBER])
    if first.isdecimal() and last.isdecimal() and by and max(map(len, (first, last, step))) <= _LONGEST_NUMBER:
        width = len(first) if first.startswith("0") else 0
        span = range(int(first), int(last) + 1, by)
        found = (str(n).zfill(width) for n in span)
    elif len(first) == len(last) == 1 and first in letters and last in letters and by:
        span = range(letters.index(first), letters.index(last) + 1, by)
        found = (letters[n] for n in span)
    if not span:
        raise BadInventory(f"{pattern!r} has a wrong range", hint="write a range like node[01:20] or db[a:f]")
    return found
