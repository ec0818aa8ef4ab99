"""Reads an Ansible YAML inventory such as ``hosts.yaml``; errors name the file and the line."""

from __future__ import annotations

import contextlib
import difflib
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ctr_ferry.errors import BadInventory

_GROUP_KEYS = {"hosts", "children", "vars"}
_RANGE = re.compile(r"\[(\w+):(\w+)(?::(\d+))?\]")
_VAULT = b"$ANSIBLE_VAULT;"
_SUFFIXES = ("", ".yml", ".yaml", ".json")


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
    hosts: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    vars: Vars = field(default_factory=dict)


class Inventory:
    """The hosts, groups and merged variables of an inventory file and the ``group_vars``, ``host_vars`` beside it.

    Attributes:
        file: the inventory file.
        groups: the groups by name; ``all`` always exists.
        hosts: the merged variables by host, in the file's order.

    Raises:
        BadInventory: a file cannot be read, or its content is wrong.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.groups: dict[str, Group] = {"all": Group("all")}
        self._host_vars: dict[str, Vars] = {}
        self._own_files_cache: dict[tuple[str, str], _OwnFiles] = {}
        self._encrypted: dict[str, list[Path]] = {}
        if file.is_file() and _is_vault(file):
            raise BadInventory(
                f"the inventory {file} is encrypted",
                hint="name a plain file with CTR_FERRY_INVENTORY; it may have encrypted values",
            )
        top = _compose(file)
        if top is None:
            raise BadInventory(f"{file} is empty", hint="it needs at least one host, such as all: {hosts: {node1: {}}}")
        for name, node in _pairs(top, "the inventory", file):
            self._read_group(name, node)
        self._adopt_orphans()
        depths = self._depths()
        self.hosts = {host: self._merge(host, depths) for host in self._host_vars}

    def members(self, group: str) -> list[str]:
        """The hosts of a group and of its children, in the file's order."""
        if group == "all":
            return list(self.hosts)
        inside = {host for name in self._below(group) for host in self.groups[name].hosts}
        return [host for host in self.hosts if host in inside]

    def encrypted(self, host: str) -> tuple[str, ...]:
        """The encrypted files with a host's variables, relative to the inventory's folder."""
        return tuple(str(file.relative_to(self.file.parent)) for file in self._encrypted[host])

    def _below(self, group: str) -> set[str]:
        found: set[str] = set()
        waiting = [group]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.groups[name].children
        return found

    def _read_group(self, name: str, node: yaml.Node) -> None:
        group = self.groups.setdefault(name, Group(name))
        if _is_null(node):
            return
        for key, value in _pairs(node, f"group {name!r}", self.file):
            if key == "hosts":
                self._read_hosts(group, value)
            elif key == "children":
                for child, body in _pairs(value, f"the children of {name!r}", self.file):
                    group.children.append(child)
                    self._read_group(child, body)
            elif key == "vars":
                group.vars |= _vars(value, f"the vars of {name!r}", self.file)
            else:
                near = difflib.get_close_matches(key, _GROUP_KEYS, n=1)
                raise BadInventory(
                    f"{_where(self.file, value)}: group {name!r} has an unknown key {key!r}",
                    hint=f"did you mean {near[0]!r}?" if near else "a group has hosts, children and vars",
                )

    def _read_hosts(self, group: Group, node: yaml.Node) -> None:
        for pattern, body in _pairs(node, f"the hosts of {group.name!r}", self.file):
            for host in expand(pattern):
                if host not in group.hosts:
                    group.hosts.append(host)
                own = self._host_vars.setdefault(host, {})
                if not _is_null(body):
                    own |= _vars(body, f"host {host!r}", self.file)

    def _adopt_orphans(self) -> None:
        """Makes top-level groups without a parent children of ``all``, as Ansible does."""
        adopted = {child for group in self.groups.values() for child in group.children}
        self.groups["all"].children += [n for n in self.groups if n != "all" and n not in adopted]

    def _depths(self) -> dict[str, int]:
        depths: dict[str, int] = {}

        def visit(name: str, depth: int, path: tuple[str, ...]) -> None:
            if name in path:
                raise BadInventory(f"{self.file}: groups contain each other: {' > '.join((*path, name))}")
            depths[name] = max(depth, depths.get(name, 0))
            for child in self.groups[name].children:
                visit(child, depth + 1, (*path, name))

        for name in ("all", *self.groups):
            if name not in depths:  # a circle of groups that no other group contains
                visit(name, 0, ())
        return depths

    def _merge(self, host: str, depths: dict[str, int]) -> Vars:
        """Merges in Ansible's order: the file's group vars, group_vars/all, group_vars/*, host's vars, host_vars."""
        groups = [name for name in self.groups if name != "all" and host in self.members_of(name)]

        def order(name: str) -> tuple[int, int, str]:
            priority = self.groups[name].vars.get("ansible_group_priority")
            if priority and not str(priority.value).isdecimal():
                raise BadInventory(
                    f"{priority.where}: ansible_group_priority of {name!r} is no number", hint="give a whole number"
                )
            return depths[name], int(priority.value) if priority else 1, name

        groups.sort(key=order)
        merged: Vars = dict(self.groups["all"].vars)
        for name in groups:
            merged |= self.groups[name].vars
        shared = [self._own_files("group_vars", name) for name in ("all", *groups)]
        for each in shared:
            merged |= each.vars
        own = self._own_files("host_vars", host)
        self._encrypted[host] = [file for each in (*shared, own) for file in each.encrypted]
        return merged | self._host_vars[host] | own.vars

    def members_of(self, group: str) -> set[str]:
        """Like `members`, as a set, and before the variables are merged."""
        return {host for name in self._below(group) for host in self.groups[name].hosts}

    def _own_files(self, folder: str, name: str) -> _OwnFiles:
        if (folder, name) not in self._own_files_cache:
            self._own_files_cache[folder, name] = _read_own_files(self.file.parent / folder / name)
        return self._own_files_cache[folder, name]


@dataclass(slots=True)
class _OwnFiles:
    """The variables that a group or host has in files beside the inventory.

    Attributes:
        vars: those of the plain files.
        encrypted: files that are encrypted as a whole, so that only Ansible can read them.
    """

    vars: Vars = field(default_factory=dict)
    encrypted: list[Path] = field(default_factory=list)


def _read_own_files(base: Path) -> _OwnFiles:
    found = _OwnFiles()
    for suffix in _SUFFIXES:
        path = base.with_name(base.name + suffix)
        files = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES) if path.is_dir() else [path]
        for file in filter(Path.is_file, files):
            if _is_vault(file):
                found.encrypted.append(file)
            elif (node := _compose(file)) and not _is_null(node):
                found.vars |= _vars(node, str(file), file)
    return found


def _is_vault(file: Path) -> bool:
    with contextlib.suppress(OSError), file.open("rb") as start:  # the reader of the file reports the error
        return start.read(len(_VAULT)) == _VAULT
    return False


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


class _Loader(yaml.SafeLoader):
    """Safe YAML, with opaque values for Ansible's own tags."""


def _opaque(loader: yaml.SafeLoader, node: yaml.Node) -> Opaque:  # noqa: ARG001
    return Opaque(str(node.value))


_Loader.add_constructor("!vault", _opaque)
_Loader.add_constructor("!unsafe", _opaque)
_Loader.add_constructor("!vault-encrypted", _opaque)


def _compose(file: Path) -> yaml.Node | None:
    """The YAML document of a file; None if the file is empty or has only comments."""
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
    except FileNotFoundError as error:
        raise BadInventory(
            f"there is no inventory at {file}",
            hint="write one, or name another with CTR_FERRY_INVENTORY or fleet.inventory in fabric.yaml",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInventory(f"the inventory {file} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise BadInventory(f"{file}{line}: not YAML: {problem}") from error
    except RecursionError as error:
        raise BadInventory(f"{file} is nested too deeply") from error
    return node


def _where(file: Path, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}"


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _pairs(node: yaml.Node, what: str, file: Path) -> Iterator[tuple[str, yaml.Node]]:
    if _is_null(node):
        return
    if not isinstance(node, yaml.MappingNode):
        raise BadInventory(
            f"{_where(file, node)}: {what} must be a mapping, not a {_kind(node)}",
            hint="write each name with a colon, such as node1: {}",
        )
    try:
        _Loader("").flatten_mapping(node)  # merge keys
    except yaml.constructor.ConstructorError as error:
        raise BadInventory(f"{_where(file, node)}: {what}: {error.problem}") from error
    for key, value in node.value:
        yield str(key.value), value


def _kind(node: yaml.Node) -> str:
    return "list" if isinstance(node, yaml.SequenceNode) else "single value"


def _vars(node: yaml.Node, what: str, file: Path) -> Vars:
    loader = _Loader("")
    try:
        return {
            key: Var(_template(loader.construct_object(value, deep=True)), _where(file, value))
            for key, value in _pairs(node, what, file)
        }
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise BadInventory(f"{file}:{mark.line + 1 if mark else '?'}: {getattr(error, 'problem', error)}") from error
    except ValueError as error:  # a number of thousands of digits, or a wrong date
        raise BadInventory(f"{_where(file, node)}: {what}: {error}") from error
    finally:
        loader.dispose()


def _template(value: Any) -> Any:
    return Opaque(value) if isinstance(value, str) and "{{" in value else value
