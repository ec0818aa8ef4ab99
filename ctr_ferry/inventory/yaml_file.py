"""Reads YAML files of an inventory; errors name the file and the line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer

from ctr_ferry.errors import BadInventory
from ctr_ferry.inventory.contents import Opaque, Var, Vars

# libyaml reads fast. The composer stays PyYAML's own, since libyaml's crashes on what is nested too deeply.
_BASES: Any = (Composer, yaml.CSafeLoader) if yaml.__with_libyaml__ else (yaml.SafeLoader,)


class _Loader(*_BASES):  # type: ignore[misc]
    """Safe YAML, with opaque values for Ansible's own tags."""

    def __init__(self, text: str) -> None:
        _BASES[-1].__init__(self, text)
        Composer.__init__(self)


for _tag in ("!vault", "!unsafe", "!vault-encrypted"):
    _Loader.add_constructor(_tag, lambda _, node: Opaque(str(node.value)))


def compose(file: Path) -> yaml.Node | None:
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


def where(file: Path, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}"


def pairs(node: yaml.Node, what: str, file: Path) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
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
            key: Var(_template(loader.construct_object(value, deep=True)), where(file, value))
            for key, value in pairs(node, what, file)
        }
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise BadInventory(f"{file}:{mark.line + 1 if mark else '?'}: {getattr(error, 'problem', error)}") from error
    except RecursionError as error:
        raise BadInventory(f"{file} is nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits, or a wrong date
        raise BadInventory(f"{where(file, node)}: {what}: {error}") from error


def _template(value: Any) -> Any:
    return Opaque(value) if isinstance(value, str) and "{{" in value else value
