"""An Ansible inventory such as ``hosts.yaml``: its files, merged in Ansible's order."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ctr_ferry.errors import BadInventory
from ctr_ferry.inventory import ini_file, yaml_file
from ctr_ferry.inventory.contents import Contents, Vars, read_text
from ctr_ferry.inventory.yaml_file import compose, read_vars
from ctr_ferry.ssh.local_path import local_path

_IMPLICIT = ("all", "ungrouped")
_VAULT = b"$ANSIBLE_VAULT;"
_YAML_SUFFIXES = (".yml", ".yaml", ".json")
_SUFFIXES = ("", *_YAML_SUFFIXES)
_LIKE_YAML = re.compile(r"---|[{]|[^\s:=]+:(\s|$)")


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
        if file.is_file() and _is_vault(file):
            raise BadInventory(
                f"the inventory {file} is encrypted",
                hint="name a plain file with CTR_FERRY_INVENTORY; it may have encrypted values",
            )
        contents = _read(file)
        self.groups, self.hosts, self._lines = contents.groups, contents.hosts, contents.lines
        self._fill_ungrouped()
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
        found = Variables(where=self._lines[host])
        for name in groups:
            found.vars |= self.groups[name].vars
        for each in (*(self._group_files[name] for name in groups), Variables(self.hosts[host]), own):
            found.vars |= each.vars
            found.encrypted += each.encrypted
        return found

    def of_all(self) -> Variables:
        """The variables of the group ``all``: for hosts that are not in the inventory, too."""
        files = self._group_files.get("all") or self._files("group_vars", "all")
        return Variables(self.groups["all"].vars | files.vars, list(files.encrypted))

    def _files(self, folder: str, name: str) -> Variables:
        """The variables that a group or host has beside the inventory: in the first of its paths that exists."""
        found = Variables()
        paths = (self.file.parent / folder / f"{name}{suffix}" for suffix in _SUFFIXES)
        try:
            path = next((path for path in paths if path.exists()), None)
        except OSError as error:  # a folder of another user, or a name that is too long
            raise BadInventory(f"{folder} cannot be read: {error}", hint="check its permissions") from error
        if path:
            for file in _below(path) if path.is_dir() else [path]:
                if _is_vault(file):
                    found.encrypted.append(str(file.relative_to(self.file.parent)))
                elif node := compose(file):
                    found.vars |= read_vars(node, str(file), file)
        return found

    def _fill_ungrouped(self) -> None:
        """Makes hosts that are in no group members of ``ungrouped``, and no others."""
        grouped = set[str]().union(*(group.hosts for name, group in self.groups.items() if name not in _IMPLICIT))
        self.groups["ungrouped"].hosts = self.hosts.keys() - grouped

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

        try:
            for name in self.groups:
                visit(name, ())
        except RecursionError as error:
            raise BadInventory(f"the groups of {self.file} are nested too deeply") from error
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
        where: the file and the line where the host stands first; empty for what is no host of the inventory.
    """

    vars: Vars = field(default_factory=dict)
    encrypted: list[str] = field(default_factory=list)
    where: str = ""


def inventory_file(configured: str | None, folder: Path) -> Path:
    """The inventory file: ``CTR_FERRY_INVENTORY``, else ``fleet.inventory`` of fabric.yaml, else ``hosts.yaml``.

    Args:
        configured: ``fleet.inventory``; a relative path starts from ``folder``.
        folder: the folder of fabfile.py.

    Raises:
        BadInventory: ``CTR_FERRY_INVENTORY`` names a file that does not exist.
    """
    named = os.environ.get("CTR_FERRY_INVENTORY")
    file = local_path(named) if named else folder / local_path(configured or "hosts.yaml")
    if named and not file.exists():
        raise BadInventory(
            f"CTR_FERRY_INVENTORY names {file}, which does not exist",
            hint="correct it, or take hosts.yaml: unset CTR_FERRY_INVENTORY",
        )
    return file


def _read(file: Path) -> Contents:
    """What an inventory file has, whatever its format."""
    if file.suffix == ".toml":
        raise yaml_file.only_ansible(file, "TOML")
    text = read_text(file)
    if text.startswith("#!") and os.access(file, os.X_OK):
        raise yaml_file.only_ansible(file, "a program")
    lines = map(str.strip, text.splitlines())
    first = next((line for line in lines if line and line[0] not in ";#"), "")
    in_yaml = file.suffix in _YAML_SUFFIXES or not first or _LIKE_YAML.match(first)
    return yaml_file.read(file) if in_yaml and not ini_file.SECTION.fullmatch(first) else ini_file.read(file)


def _below(folder: Path) -> Iterator[Path]:
    """The files of a folder that Ansible reads, in its order: hidden files, backups and folders with a dot are not."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise BadInventory(f"{folder} cannot be read: {error}", hint="check its permissions") from error
    for path in paths:
        if path.name.startswith(".") or path.name.endswith("~"):
            continue
        if path.is_dir() and not path.suffix:
            yield from _below(path)
        elif path.is_file() and path.suffix in _SUFFIXES:
            yield path


def _is_vault(file: Path) -> bool:
    with contextlib.suppress(OSError), file.open("rb") as start:  # the reader of the file reports the error
        return start.read(len(_VAULT)) == _VAULT
    return False
