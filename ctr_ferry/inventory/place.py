"""Values of an inventory and where they stand: conversions, and errors with file, line and host."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ctr_ferry.errors import BadInventory

_YES_NO = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Place:
    """The file and line of a variable, and its host."""

    where: str
    host: str

    def wrong(self, path: str, what: str, value: Any) -> BadInventory:
        """The error for a wrong value. The value is shown unless it may be, or have in it, a password."""
        has_login = "pass" in path or "@" in str(value)  # as in http://user:password@proxy
        shown = isinstance(value, (str, int, float)) and not has_login
        return BadInventory(
            f"{self.where}: {path} of host {self.host!r} is wrong: {what}",
            hint=f"change the value {value!r}" if shown else "",
        )

    def unread(self, name: str, reason: str) -> BadInventory:
        """The error for a value that only Ansible can read."""
        return BadInventory(
            f"{self.where}: {name} of host {self.host!r} needs {reason}",
            hint=f"write the value of {name} in plain words at {self.where}",
        )

    def convert(self, path: str, value: Any, kind: Any) -> Any:
        """Returns a value of a type. YAML reads a name such as 12345 as a number, and people quote numbers and yes."""
        words = str(value).lower()
        if kind is bool and isinstance(value, str) and words in _YES_NO:
            return _YES_NO[words]
        if isinstance(value, str) and words.isdecimal() and kind == int | None:
            return int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and kind not in (bool, int | None):
            value = str(value)
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise self.wrong(path, str(error), value) from None

    def refuse_unknown(self, path: str, name: Any, known: Sequence[str]) -> None:
        """Refuses a name that is none of ours, and says which one was probably meant."""
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise BadInventory(
                f"{self.where}: unknown {path} {name!r}",
                hint=f"write {near[0]!r}, if you meant that" if near else f"use one of {', '.join(known)}",
            )
