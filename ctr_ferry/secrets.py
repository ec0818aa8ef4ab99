"""The one type that passwords live in, and what keeps them out of the logs of others."""

from __future__ import annotations

import logging
import re

_KEY = re.compile(r"""(['"])([^'"\\\n]{1,200})\1\s*:\s*""")  # of a printed dictionary
_SECRET = re.compile("pass|pwd|secret|token|credential", re.IGNORECASE)
_LITERAL = re.compile(r"""'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[^'"]""", re.DOTALL)  # a string, or one other character


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


def keep_out_of_log(name: str) -> None:
    """Takes passwords out of what a logger says: Invoke's debug log prints its whole configuration."""
    logging.getLogger(name).addFilter(_redacted)


def _redacted(record: logging.LogRecord) -> bool:
    record.msg, record.args = redact(record.getMessage()), ()
    return True


def redact(text: str) -> str:
    """A text without the values that stand behind ``'password':`` and its like."""
    shown, done = [], 0
    while key := _KEY.search(text, done):
        end = key.end()
        shown.append(text[done:end])
        if _SECRET.search(key[2]):
            end = _end_of_value(text, key.end())
            shown.append("None" if text[key.end() : end] == "None" else "***")
        done = end
    return "".join((*shown, text[done:]))


def _end_of_value(text: str, start: int) -> int:
    """Where the value ends that begins there, as `repr` writes it; one that is cut off ends with the text."""
    depth = 0
    for part in _LITERAL.finditer(text, start):
        depth += (part[0] in "([{") - (part[0] in ")]}")
        if depth < 0 or (part[0] == "," and not depth):
            return part.start()
    return len(text)
