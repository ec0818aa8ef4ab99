"""Reads an INI file of an inventory as Ansible reads it; errors name the file and the line."""

from __future__ import annotations

import ast
import re
import shlex
import warnings
from pathlib import Path
from typing import Any

from ctr_ferry.errors import BadInventory
from ctr_ferry.inventory.contents import Contents, Plain, Var, read_text

SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_GROUP = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")


def read(file: Path) -> Contents:
    """What an inventory in INI has.

    Raises:
        BadInventory: the file cannot be read, or its content is wrong.
    """
    found, group, kind = Contents(), "ungrouped", "hosts"
    declared, mentioned = set(found.groups), dict[str, str]()  # a group needs a section of its own, also a later one
    for number, line in enumerate(map(str.strip, read_text(file).splitlines()), 1):
        where = f"{file}:{number}"
        if not line or line[0] in ";#":
            continue
        if section := SECTION.fullmatch(line):
            group, kind = section[1], section[2] or "hosts"
            if kind not in ("hosts", "children", "vars"):
                raise BadInventory(f"{where}: [{group}:{kind}] is no section", hint=_SECTIONS)
            found.group(group)
            if kind == "vars":
                mentioned.setdefault(group, where)
            else:
                declared.add(group)
        elif line.startswith("[") and line.endswith("]"):
            raise BadInventory(f"{where}: {line} is no section", hint=_SECTIONS)
        elif kind == "hosts":
            _read_hosts(found, group, line, where)
        elif kind == "vars":
            name, value = map(str.strip, _assignment(line, where))
            found.groups[group].vars[name] = Var(_value(value), where)
        elif child := _GROUP.fullmatch(line):
            found.group(group).children.append(found.group(child[1]).name)
            mentioned.setdefault(child[1], where)
        else:
            raise BadInventory(f"{where}: {line!r} is no name of a group", hint="write one group on each line")
    for name in (each for each in mentioned if each not in declared):
        raise BadInventory(f"{mentioned[name]}: there is no group {name!r}", hint=f"add a section [{name}]")
    return found


_SECTIONS = "write a section as [group], [group:children] or [group:vars]"


def _read_hosts(found: Contents, group: str, line: str, where: str) -> None:
    """Reads a line such as ``node[1:3]:22 ansible_user=ops x="a b"``."""
    try:
        pattern, *words = shlex.split(line, comments=True)
    except ValueError as error:
        raise BadInventory(f"{where}: {error}", hint="check the quotes of the line") from error
    if pattern.endswith(":") or pattern == "---":
        raise BadInventory(f"{where}: {pattern!r} is no name of a host", hint="is the file YAML? Call it hosts.yaml")
    own = {name: Var(_value(value), where) for name, value in (_assignment(word, where) for word in words)}
    found.add_hosts(found.group(group), pattern, own, where)


def _assignment(text: str, where: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadInventory(f"{where}: {text!r} is no variable", hint="write it as name=value")
    return name, value


def _value(text: str) -> Any:
    """A value that is a literal of Python is that, any other is text: so Ansible reads INI."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return _as_data(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _as_data(value: Any) -> Any:
    """The types that YAML has, too."""
    if isinstance(value, (list, tuple, set)):
        return [_as_data(each) for each in value]
    if isinstance(value, dict):
        return {key: _as_data(each) for key, each in value.items()}
    if isinstance(value, bytes):
        return Plain(value.decode(errors="replace"))
    if value is ...:
        return "..."
    return str(value) if isinstance(value, complex) else value
