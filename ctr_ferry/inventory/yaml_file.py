"""Reads YAML files of an inventory as Ansible reads them; errors name the file and the line."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer

from ctr_ferry.errors import BadInventory
from ctr_ferry.inventory.contents import Contents, Group, Opaque, Plain, Var, Vars, read_text

_NULL, _TEXT = "tag:yaml.org,2002:null", "tag:yaml.org,2002:str"
_GROUP_KEYS = {"hosts", "children", "vars"}

# libyaml reads fast. The composer stays PyYAML's own, since libyaml's crashes on what is nested too deeply.
_BASES: Any = (Composer, yaml.CSafeLoader) if yaml.__with_libyaml__ else (yaml.SafeLoader,)


class _Loader(*_BASES):  # type: ignore[misc]
    """Safe YAML, with opaque values for Ansible's own tags."""

    def __init__(self, text: str) -> None:
        _BASES[-1].__init__(self, text)
        Composer.__init__(self)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """PyYAML's hook: merges. Of equal names the last one stays, so that merges of merges do not multiply."""
        super().flatten_mapping(node)
        last = {key.value if isinstance(key, yaml.ScalarNode) else key: (key, value) for key, value in node.value}
        node.value = list(last.values())


for _tag in ("!vault", "!vault-encrypted"):
    _Loader.add_constructor(_tag, lambda _, node: Opaque(str(node.value)))
_Loader.add_constructor("!unsafe", lambda _, node: Plain(node.value))


def read(file: Path) -> Contents:
    """What an inventory in YAML has.

    Raises:
        BadInventory: the file cannot be read, or its content is wrong.
    """
    top = compose(file)
    if top is None:
        raise BadInventory(f"{file} is empty", hint="it needs at least one host, such as all: {hosts: {node1: {}}}")
    found, seen = Contents(), set[tuple[str, int]]()
    for name, node in pairs(top, "the inventory", file):
        if name == "plugin" and isinstance(node, yaml.ScalarNode):
            raise only_ansible(file, f"the settings of Ansible's plugin {node.value}")
        try:
            _read_group(found, found.group(name), node, file, seen)
        except RecursionError as error:
            raise BadInventory(f"{file} is nested too deeply") from error
    return found


def only_ansible(file: Path, what: str) -> BadInventory:
    """The error for an inventory that only Ansible can read."""
    return BadInventory(
        f"the inventory {file} is {what}",
        hint=f"let Ansible make a plain file of it: ansible-inventory -i {shlex.quote(str(file))} "
        "--list --yaml --output hosts.yaml",
    )


def _read_group(found: Contents, group: Group, node: yaml.Node, file: Path, seen: set[tuple[str, int]]) -> None:
    if (group.name, id(node)) in seen:  # an alias, of which there may be many, also within itself
        return
    seen.add((group.name, id(node)))
    for key, value in pairs(node, f"group {group.name!r}", file):
        if key == "hosts":
            what = f"the hosts of {group.name!r}"
            for pattern, body in _names(value, what, file):
                found.add_hosts(group, pattern, read_vars(body, f"host {pattern!r}", file), where(file, body))
        elif key == "children":
            for child, body in _names(value, f"the children of {group.name!r}", file):
                group.children.append(child)
                _read_group(found, found.group(child), body, file, seen)
        elif key == "vars":
            group.vars |= read_vars(value, f"the vars of {group.name!r}", file)
        else:
            near = difflib.get_close_matches(key, _GROUP_KEYS, n=1)
            raise BadInventory(
                f"{where(file, value)}: group {group.name!r} has an unknown key {key!r}",
                hint=f"write {near[0]!r}, if you meant that" if near else "use one of hosts, children, vars",
            )


def _names(node: yaml.Node, what: str, file: Path) -> Iterator[tuple[str, yaml.Node]]:
    """Names with what they have. Ansible also takes a single name without a colon."""
    if isinstance(node, yaml.ScalarNode) and node.tag == _TEXT:
        yield node.value, yaml.ScalarNode(_NULL, "", node.start_mark)
        return
    yield from pairs(node, what, file)


def compose(file: Path) -> yaml.Node | None:
    """The YAML document of a file; None if the file is empty or has only comments."""
    text = read_text(file)
    try:
        try:
            return yaml.compose(text, Loader=_Loader)
        except yaml.YAMLError:  # PyYAML's own scanner has the better words and lines
            return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise BadInventory(f"{file}{line}: not YAML: {problem}", hint="correct it, then try: fab hosts") from error
    except RecursionError as error:
        raise BadInventory(f"{file} is nested too deeply") from error


def where(file: Path, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}"


def pairs(node: yaml.Node, what: str, file: Path) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.ScalarNode) and node.tag == _NULL:
        return
    if not isinstance(node, yaml.MappingNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "single value"
        raise BadInventory(
            f"{where(file, node)}: {what} must be a mapping, not a {kind}",
            hint="write each name with a colon, such as node1: {}",
        )
    try:
        _Loader("").flatten_mapping(node)  # merge keys
    except yaml.constructor.ConstructorError as error:
        raise BadInventory(f"{where(file, node)}: {what}: {error.problem}") from error
    for key, value in node.value:
        yield str(key.value), value


def read_vars(node: yaml.Node, what: str, file: Path) -> Vars:
    loader = _Loader("")
    try:
        return {
            key: Var(loader.construct_object(value, deep=True), where(file, value))
            for key, value in pairs(node, what, file)
        }
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise BadInventory(f"{file}:{mark.line + 1 if mark else '?'}: {getattr(error, 'problem', error)}") from error
    except RecursionError as error:
        raise BadInventory(f"{file} is nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits, or a wrong date
        raise BadInventory(f"{where(file, node)}: {what}: {error}") from error
