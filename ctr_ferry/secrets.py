"""The type of all passwords, and a filter that keeps passwords out of the logs of Fabric and Invoke."""

from __future__ import annotations

import logging
import re

_KEY = re.compile(r"""(['"])([^'"\\\n]{1,200})\1\s*:\s*""")  # a key of a printed dictionary
_SECRET = re.compile("pass|pwd|secret|token|credential", re.IGNORECASE)
_LITERAL = re.compile(r"""'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[^'"]""", re.DOTALL)  # a string, or one other character


class Secret:
    """A value that no log, error, record or traceback shows. `reveal` is the only way to the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for a connection."""
        return self._value

    def __str__(self) -> str:
        return "***"

    __repr__ = __str__


def keep_out_of_log(name: str) -> None:
    """Filters passwords out of a logger's records: Invoke's debug log prints its whole configuration."""
    logging.getLogger(name).addFilter(_redacted)


def _redacted(record: logging.LogRecord) -> bool:
    record.msg, record.args = redact(record.getMessage()), ()
    return True


def redact(text: str) -> str:
    """Returns the text with ``***`` in place of each value whose key, such as ``'password':``, names a secret."""
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
    """Returns the end of the value that begins at ``start``, as `repr` writes it; at the latest the end of the text."""
    depth = 0
    for part in _LITERAL.finditer(text, start):
        depth += (part[0] in "([{") - (part[0] in ")]}")
        if depth < 0 or (part[0] == "," and not depth):
            return part.start()
    return len(text)
