"""How text that others wrote is shown: names, labels, and the words of hosts, registries and archives. Pure.

A terminal obeys control characters, hides some characters, and shows some as others. Data keeps such text exactly as
it is, so that a name can be looked up and removed. Whatever a person reads passes through here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ctr_ferry.ranges import folded

_FEW = 3  # hosts or ranges that are named; more hosts are counted
# Unicode calls them letters or marks, and they show nothing: fillers, joiners, variation selectors.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_MOST_READ = 1 << 16  # characters from the end in which `tail` looks for lines
# Two forms: in a file, and at a terminal.
_LOG_LINE = re.compile(r'time="[^"]*" level=(?:trace|debug|info|warning) |(?:TRAC|DEBU|INFO|WARN)\[\d+\] ')


def shown(text: str) -> str:
    r"""The text with invisible characters escaped, such as ``\u202e``; line breaks and tabs stay.

    Invisible are C0 and C1 controls, marks that turn the direction of writing, characters without width, Unicode's own
    line breaks, and halves of surrogate pairs.
    """
    return "\n".join(line if line.isascii() and line.isprintable() else _line(line) for line in text.split("\n"))


def _line(line: str) -> str:
    visible = "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in line)
    return _UNSEEN.sub(lambda found: _escaped(found[0]), visible)


def names(hosts: Iterable[str], *, every: bool = False) -> str:
    """Hosts as text, in ranges: a few names or ranges, more as the number of hosts; with ``every`` all of them."""
    listed = list(hosts)
    found = folded(listed)
    return ", ".join(found) if every or len(found) <= _FEW else f"{len(listed)} hosts"


def size(number: int) -> str:
    """Bytes as text, in the units that ctr prints: ``734 B``, ``3.3 MiB``, ``10.0 GiB``."""
    value, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if round(value, 1) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


def shown_name(name: str) -> str:
    r"""A name as one word of ASCII, in which no two names look alike: all else is escaped, the backslash is doubled.

    References are ASCII by their grammar; containerd takes any text for a name.
    """
    if name.isascii() and name.isprintable() and " " not in name and "\\" not in name:
        return name
    return "".join(r"\\" if c == "\\" else c if "!" <= c <= "~" else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 1 << 8 else f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def printable(line: str) -> str:
    """A line without escape sequences, and with a space for each control character."""
    return "".join(c if c.isprintable() else " " for c in _ESCAPE.sub("", line)).rstrip()


def tail(text: str, lines: int = 6, width: int = 400) -> str:
    """The last ``lines`` of what a host printed, printable, each with at most ``width`` characters.

    Log lines below level error are left out if others remain.
    """
    found = [line for line in map(printable, text[-_MOST_READ:].splitlines()) if line]
    found = [line for line in found if not _LOG_LINE.match(line)] or found
    return "\n".join(_shortened(line, width) for line in found[-lines:])


def _shortened(line: str, width: int) -> str:
    """The two ends of a line that is too long: ctr writes the reason last."""
    half = (width - 1) // 2
    return line if len(line) <= width else f"{line[:half]}…{line[-half:]}"
