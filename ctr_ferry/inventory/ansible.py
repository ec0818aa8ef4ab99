"""Reads an Ansible YAML inventory such as ``hosts.yaml``; errors name the file and the line."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ctr_ferry.errors import BadInventory
from ctr_ferry.inventory.contents import Group, Vars, expand
from ctr_ferry.inventory.yaml_file import compose, pairs, read_vars, where

_GROUP_KEYS = {"hosts", "children", "vars"}
_VAULT = b"$ANSIBLE_VAULT;"
_SUFFIXES = ("", ".yml", ".yaml", ".json")


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
        top = compose(file)
        if top is None:
            raise BadInventory(f"{file} is empty", hint="it needs at least one host, such as all: {hosts: {node1: {}}}")
        for name, node in pairs(top, "the inventory", file):
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
                elif node := compose(file):
                    found.vars |= read_vars(node, str(file), file)
        return found

    def _read_group(self, name: str, node: yaml.Node) -> None:
        group = self.groups.setdefault(name, Group(name))
        for key, value in pairs(node, f"group {name!r}", self.file):
            if key == "hosts":
                self._read_hosts(group, value)
            elif key == "children":
                for child, body in pairs(value, f"the children of {name!r}", self.file):
                    group.children.append(child)
                    self._read_group(child, body)
            elif key == "vars":
                group.vars |= read_vars(value, f"the vars of {name!r}", self.file)
            else:
                near = difflib.get_close_matches(key, _GROUP_KEYS, n=1)
                raise BadInventory(
                    f"{where(self.file, value)}: group {name!r} has an unknown key {key!r}",
                    hint=f"did you mean {near[0]!r}?" if near else "a group has hosts, children and vars",
                )

    def _read_hosts(self, group: Group, node: yaml.Node) -> None:
        for pattern, body in pairs(node, f"the hosts of {group.name!r}", self.file):
            own = read_vars(body, f"host {pattern!r}", self.file)
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
