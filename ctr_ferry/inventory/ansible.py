"""Reads an Ansible YAML inventory such as ``hosts.yaml``; errors name the file and the line."""

from __future__ import annotations

import contextlib
import difflib
import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer

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
    hosts: set[str] = field(default_factory=set)
    children: list[str] = field(default_factory=list)
    vars: Vars = field(default_factory=dict)


class Inventory:
    """The hosts, groups and variables of an inventory file and the ``group_vars``, ``host_vars`` beside it.

    Attributes:
        file: the inventory file.
        groups: the groups by name; ``all`` always exists.
        hosts: the variables that each host has in the file itself, in the file's order.

    Raises:
        BadInventory: a file cannot be read, or its content is wrong.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.groups: dict[str, Group] = {"all": Group("all")}
        self.hosts: dict[str, Vars] = {}
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
        inside = self._hosts_by_group()
        used = [name for name in self.groups if inside[name]]
        self._groups_by_host: dict[str, list[str]] = {host: [] for host in self.hosts}
        for name in used:
            for host in inside[name]:
                self._groups_by_host[host].append(name)
        self._ranks = self._ranks_of(used, reversed(inside))
        self._group_files = {name: self._files("group_vars", name) for name in used}

    def members(self, group: str) -> list[str]:
        """The hosts of a group and of its children, in the file's order."""
        return [host for host, groups in self._groups_by_host.items() if group in groups]

    def groups_of(self, host: str) -> list[str]:
        """The groups of a host, ``all`` first; none for an unknown host."""
        return self._groups_by_host.get(host, [])

    def variables(self, host: str) -> Variables:
        """The variables of a host, merged in Ansible's order.

        The order is: the file's group vars, group_vars/all, group_vars/*, the host's vars, host_vars.

        Raises:
            BadInventory: a file of the host in ``host_vars`` cannot be read, or its content is wrong.
        """
        groups = sorted(self._groups_by_host[host], key=self._ranks.__getitem__)
        own = self._files("host_vars", host)
        found = Variables()
        for name in groups:
            found.vars |= self.groups[name].vars
        for each in (*(self._group_files[name] for name in groups), Variables(self.hosts[host]), own):
            found.vars |= each.vars
            found.encrypted += each.encrypted
        return found

    def _files(self, folder: str, name: str) -> Variables:
        """The variables that a group or host has in files beside the inventory."""
        found = Variables()
        for suffix in _SUFFIXES:
            path = self.file.parent / folder / f"{name}{suffix}"
            files = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES) if path.is_dir() else [path]
            for file in filter(Path.is_file, files):
                if _is_vault(file):
                    found.encrypted.append(str(file.relative_to(self.file.parent)))
                elif node := _compose(file):
                    found.vars |= _vars(node, str(file), file)
        return found

    def _read_group(self, name: str, node: yaml.Node) -> None:
        group = self.groups.setdefault(name, Group(name))
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
            own = _vars(body, f"host {pattern!r}", self.file)
            for host in expand(pattern):
                group.hosts.add(host)
                self.hosts.setdefault(host, {}).update(own)

    def _adopt_orphans(self) -> None:
        """Makes top-level groups without a parent children of ``all``, as Ansible does."""
        adopted = {child for group in self.groups.values() for child in group.children}
        self.groups["all"].children += [n for n in self.groups if n != "all" and n not in adopted]

    def _hosts_by_group(self) -> dict[str, set[str]]:
        """The hosts of each group and of its children; a group comes after its children."""
        found: dict[str, set[str]] = {}

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                raise BadInventory(
                    f"{self.file}: groups contain each other: {' > '.join((*path, name))}",
                    hint="remove one of them from the children of another",
                )
            if name not in found:
                group = self.groups[name]
                for child in group.children:
                    visit(child, (*path, name))
                found[name] = group.hosts.union(*(found[child] for child in group.children))

        for name in self.groups:
            visit(name, ())
        return found

    def _ranks_of(self, groups: list[str], parents_first: Iterable[str]) -> dict[str, tuple[int, int, str]]:
        """What Ansible sorts groups by: the depth, then the priority, then the name."""
        depths = dict.fromkeys(self.groups, 0)
        for name in parents_first:
            for child in self.groups[name].children:
                depths[child] = max(depths[child], depths[name] + 1)
        ranks = {}
        for name in groups:
            priority = self.groups[name].vars.get("ansible_group_priority") if name != "all" else None
            if priority and not str(priority.value).isdecimal():
                raise BadInventory(
                    f"{priority.where}: ansible_group_priority of {name!r} is no number", hint="give a whole number"
                )
            ranks[name] = depths[name], int(priority.value) if priority else 1, name
        return ranks


@dataclass(slots=True)
class Variables:
    """The variables of a host, or of one of its sources.

    Attributes:
        vars: the variables that can be read.
        encrypted: the files with more of them, relative to the inventory's folder, that only Ansible can read.
    """

    vars: Vars = field(default_factory=dict)
    encrypted: list[str] = field(default_factory=list)


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


# libyaml reads fast. The composer stays PyYAML's own, since libyaml's crashes on what is nested too deeply.
_BASES: Any = (Composer, yaml.CSafeLoader) if yaml.__with_libyaml__ else (yaml.SafeLoader,)


class _Loader(*_BASES):  # type: ignore[misc]
    """Safe YAML, with opaque values for Ansible's own tags."""

    def __init__(self, text: str) -> None:
        _BASES[-1].__init__(self, text)
        Composer.__init__(self)


for _tag in ("!vault", "!unsafe", "!vault-encrypted"):
    _Loader.add_constructor(_tag, lambda _, node: Opaque(str(node.value)))


def _compose(file: Path) -> yaml.Node | None:
    """The YAML document of a file; None if the file is empty or has only comments."""
    try:
        text = file.read_text(encoding="utf-8")
        try:
            return yaml.compose(text, Loader=_Loader)
        except yaml.YAMLError:  # PyYAML's own scanner has the better words and lines
            return yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError as error:
        raise BadInventory(
            f"there is no inventory at {file}",
            hint="write one, or name another with CTR_FERRY_INVENTORY or fleet.inventory in fabric.yaml",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInventory(
            f"the inventory {file} cannot be read: {error}", hint="check its permissions and encoding"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise BadInventory(f"{file}{line}: not YAML: {problem}") from error
    except RecursionError as error:
        raise BadInventory(f"{file} is nested too deeply") from error


def _where(file: Path, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}"


def _pairs(node: yaml.Node, what: str, file: Path) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return
    if not isinstance(node, yaml.MappingNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "single value"
        raise BadInventory(
            f"{_where(file, node)}: {what} must be a mapping, not a {kind}",
            hint="write each name with a colon, such as node1: {}",
        )
    try:
        _Loader("").flatten_mapping(node)  # merge keys
    except yaml.constructor.ConstructorError as error:
        raise BadInventory(f"{_where(file, node)}: {what}: {error.problem}") from error
    for key, value in node.value:
        yield str(key.value), value


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
    except RecursionError as error:
        raise BadInventory(f"{file} is nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits, or a wrong date
        raise BadInventory(f"{_where(file, node)}: {what}: {error}") from error


def _template(value: Any) -> Any:
    return Opaque(value) if isinstance(value, str) and "{{" in value else value
