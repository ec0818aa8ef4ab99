"""The one type that passwords live in."""

from __future__ import annotations


class Secret:
    """A value that no log, error, record or traceback shows; `reveal` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the wire."""
        return self._value

    def __str__(self) -> str:
        return "***"

    __repr__ = __str__
