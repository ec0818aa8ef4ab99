"""Works out templates that are plain references to variables, such as ``-J {{ bastion }}``. The rest is Ansible's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ctr_ferry.errors import BadInventory
from ctr_ferry.inventory.contents import Opaque, Plain, Vars

_REFERENCE = re.compile(r"\{\{-?\s*([A-Za-z_]\w*)\s*-?\}\}", re.ASCII)
_MARK = re.compile(r"\{[{%#].*", re.DOTALL)
_MOST = 4096  # characters of a value
_MOST_PARTS = 100_000  # of a host's values, each alias of YAML written out


class Templates:
    """The values of one host's variables.

    Args:
        variables: the host's merged variables.
        magic: the variables that Ansible itself sets.
    """

    def __init__(self, variables: Vars, magic: Mapping[str, Any]) -> None:
        self._given = {name: var.value for name, var in variables.items()} | dict(magic)
        self._known: dict[str, Any] = {}
        self._parts = 0

    def value(self, given: Any) -> Any:
        """A value with the values of the variables that it refers to.

        Raises:
            BadInventory: only Ansible can work it out; the message is what is needed for it.
        """
        try:
            return self._value(given)
        except RecursionError as error:
            raise BadInventory("too many other variables") from error

    def _value(self, given: Any) -> Any:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise BadInventory(f"more than {_MOST_PARTS} values")
        if isinstance(given, Opaque):
            raise BadInventory("a value of a vault, which only Ansible can read")
        if isinstance(given, Plain):
            return str(given)
        if isinstance(given, str):
            return self._text(given) if "{" in given else given
        if isinstance(given, list):
            return [self._value(each) for each in given]
        if isinstance(given, dict):
            return {key: self._value(each) for key, each in given.items()}
        return given

    def _text(self, text: str) -> Any:
        if rest := _MARK.search(_REFERENCE.sub("", text)):
            raise BadInventory(f"{rest[0][:80]!r}, which only Ansible can work out")
        if whole := _REFERENCE.fullmatch(text.strip()):
            return self._variable(whole[1])
        found = _REFERENCE.sub(lambda match: str(self._variable(match[1])), text)
        if len(found) > _MOST:
            raise BadInventory(f"a template that becomes longer than {_MOST} characters")
        return found

    def _variable(self, name: str) -> Any:
        if name not in self._given:
            raise BadInventory(f"the variable {name!r}, which no file gives in plain words")
        if name not in self._known:
            given = self._given.pop(name)  # so that a variable that refers to itself is not found
            try:
                self._known[name] = self._value(given)
            finally:
                self._given[name] = given
        return self._known[name]
