"""Rows as text that fits a terminal, or for a pipe. Pure.

No word is ever cut: a cell is folded between its words alone. Where that does not suffice, the column with the longest
word, which is a reference as a rule, stands on lines of its own: above the others if it is the first one, else below.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

GAP = "  "  # between columns
_LEAST_WIDTH = 16  # characters; a cell that is no longer is not folded
_NUMBER = re.compile(r"(?:-?|\d+(?:\.\d+)?(?: (?:B|[KMGT]iB|m?s))?)")
_WORD = re.compile(r"[^\s,]*,|[^\s,]+|\s+")
_DIGEST = re.compile(r"(?<![@\w])sha256:([0-9a-f]{12})[0-9a-f]{52}\b")
_PROGRAM = re.compile(r"\b(?:fab|ctr-ferry) ")
_TRY = re.compile(r"\btry: ")

Rows = Sequence[Sequence[str]]


class Styled(str):
    """A cell of one word in a colour of a terminal's."""

    sgr: str

    def __new__(cls, text: str, sgr: str) -> Styled:
        """A text with the parameters of its escape sequence, such as ``1;31``."""
        cell = super().__new__(cls, text)
        cell.sgr = sgr
        return cell

    @property
    def painted(self) -> str:
        """The text between escape sequences."""
        return f"\x1b[{self.sgr}m{self}\x1b[0m"


def plain(columns: Sequence[str], rows: Rows) -> str:
    """Rows as text for grep: a row is one line, and only its last cell may continue on further lines."""
    right, widths = _right_aligned(columns, rows), _widths(columns, rows)
    start = _total([*widths[:-1], 0])
    lines: list[str] = []
    for row in [columns, *rows]:
        top, *below = row[-1].split("\n")
        head = GAP.join(_padded(*each) for each in zip([*row[:-1], top], widths, right, strict=True))
        lines += [head.rstrip(), *(f"{' ' * start}{line}".rstrip() for line in below)]
    return "\n".join(lines)


def fitted(columns: Sequence[str], rows: Rows, room: int) -> str:
    """Rows as text for a terminal of so many columns; digests are shortened, and cells folded where they must."""
    rows = [[short(cell) for cell in row] for row in rows]
    columns, rows, told = _without_equals(columns, rows, room)
    own = _own_lines(columns, rows, room)
    grid = _Grid.of(columns, rows, own, room)
    lines = [*wrapped(told, room)] if told else []
    for row in [columns, *rows]:
        lines += grid.lines(row)
    return "\n".join(line.rstrip() for line in lines)


def short(text: str) -> str:
    """A text with its digests as docker shows them, 12 digits long; those of references and of commands stay whole."""
    if "sha256:" not in text:
        return text
    return "\n".join(line if _has_command(line) else _DIGEST.sub(r"\1", line) for line in text.split("\n"))


def wrapped(line: str, room: int, hang: int = 4) -> list[str]:
    """A line as lines that fit, broken between words; what follows the first one is indented by ``hang`` more.

    A word that is longer than all the room stays whole, and so does a command to paste.
    """
    if width(line) <= room:
        return [line]
    prose, command = _parted(line.rstrip())
    indent = " " * (len(line) - len(line.lstrip()))
    found, now = [], indent
    for word in [*_WORD.findall(prose.lstrip()), *filter(None, [command])]:
        if width(now) + width(word.rstrip()) > room and now.strip():
            found.append(now.rstrip())
            now = indent + " " * max(0, min(hang, room - width(indent) - width(word)))
        now += word if now.strip() or not word.isspace() else ""
    return [*found, now.rstrip()]


def _has_command(line: str) -> bool:
    """Whether a line has a command to paste."""
    return _command_of_ours(line) >= 0 or bool(_TRY.search(line))


def _command_of_ours(line: str) -> int:
    """Where a command line of ours with an option begins; -1 without one. Takes time that grows with the line alone."""
    found = _PROGRAM.search(line)
    return found.start() if found and "-" in line[found.end() :] else -1


def _parted(line: str) -> tuple[str, str]:
    """What stands before a command to paste, and the command; the line and nothing where there is none."""
    if not _has_command(line):
        return line, ""
    at = _command_of_ours(line)
    at = line.rindex(": ") + 2 if at < 0 else at
    return ("", line.lstrip()) if line[:at].strip() == "try:" else (line[:at], line[at:])


def lines_that_fit(text: str, room: int) -> str:
    """A text of several lines, with its digests shortened, and each line folded between words."""
    return "\n".join(part for line in short(text).split("\n") for part in wrapped(line, room))


def width(text: str) -> int:
    """The columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _padded(cell: str, columns: int, right: bool) -> str:
    space = " " * (columns - width(cell))
    text = cell.painted if isinstance(cell, Styled) else cell
    return space + text if right else text + space


def _widths(columns: Sequence[str], rows: Rows) -> list[int]:
    """The columns that each column takes where nothing is folded; a line with a command may be longer."""
    return [
        max(width(line) for cell in each for line in cell.split("\n") if line is cell or not _has_command(line))
        for each in zip(columns, *rows, strict=True)
    ]


def _right_aligned(columns: Sequence[str], rows: Rows) -> list[bool]:
    """Whether all cells of a column are numbers, perhaps with a unit."""
    cells = zip(*rows, strict=True) if rows else [()] * len(columns)
    return [any(any(map(str.isdigit, c)) for c in each) and all(map(_NUMBER.fullmatch, each)) for each in cells]


def _without_equals(columns: Sequence[str], rows: Rows, room: int) -> tuple[Sequence[str], Rows, str]:
    """The table without columns that say the same in every row, as many as it takes to fit; they are told once."""
    told: list[str] = []
    for name in (each for each in columns if each != "TIME"):  # times are the same by chance
        if len(rows) < 2 or len(columns) == 2 or _total(_widths(columns, rows)) <= room:
            break
        at = columns.index(name)
        cells = {row[at] for row in rows}
        if len(cells) == 1 and name != "STATUS" and not _is_prose(cell := cells.pop()):
            told += [f"{name} {cell}"] if cell else []
            columns = [each for each in columns if each != name]
            rows = [[*row[:at], *row[at + 1 :]] for row in rows]
    return columns, rows, f"in every row: {', '.join(told)}" if told else ""


def _is_prose(cell: str) -> bool:
    """Whether a cell is a sentence, which a reader looks for in its row; a list of names is none."""
    return "\n" in cell or (len(cell) > _LEAST_WIDTH and " " in cell.replace(", ", ",").replace(" -> ", "->"))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _least(columns: Sequence[str], rows: Rows) -> list[int]:
    """The width that each column must have so that no word is cut, and no short cell folded."""
    natural = _widths(columns, rows)
    found = []
    for each, most in zip(zip(columns, *rows, strict=True), natural, strict=True):
        lines = [line for cell in each for line in cell.split("\n") if not _has_command(line)]
        longest = max((width(word.strip()) for line in lines for word in _WORD.findall(line)), default=0)
        found.append(max(longest, min(most, _LEAST_WIDTH)))
    return found


def _own_lines(columns: Sequence[str], rows: Rows, room: int) -> list[int]:
    """The columns that stand on lines of their own, because the rest would not fit beside them."""
    least = dict(enumerate(_least(columns, rows)))
    own: list[int] = []
    while len(least) > 1 and _total(list(least.values())) > room - (len(GAP) if own else 0):
        own.append(max(least, key=least.__getitem__))
        del least[own[-1]]
    return sorted(own)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Which columns stand beside one another with which widths, and which on lines of their own, above and below."""

    beside: list[int]
    widths: list[int]
    right: list[bool]
    above: list[int]
    below: list[int]
    room: int

    @classmethod
    def of(cls, columns: Sequence[str], rows: Rows, own: list[int], room: int) -> _Grid:
        beside = [n for n in range(len(columns)) if n not in own]
        above, below = [n for n in own if n == 0], [n for n in own if n > 0]
        natural, least = _widths(columns, rows), _least(columns, rows)
        widths = _shrunk([natural[n] for n in beside], [least[n] for n in beside], room - len(GAP) * bool(above))
        right = _right_aligned(columns, rows)
        return cls(beside, widths, [right[n] for n in beside], above, below, room)

    def lines(self, row: Sequence[str]) -> Iterator[str]:
        """The lines of one row."""
        indent = GAP if self.above else ""
        for n in self.above:
            yield from (part for line in row[n].split("\n") for part in wrapped(line, self.room))
        yield from (indent + line for line in self._beside([row[n] for n in self.beside]))
        for n in self.below:
            for line in row[n].split("\n"):
                yield from (GAP + part for part in wrapped(line, self.room - len(GAP)))

    def _beside(self, cells: Sequence[str]) -> Iterator[str]:
        """The lines of cells that stand side by side. A line with a command that is too long starts further left."""
        folds = [self._folded(cell, most) for cell, most in zip(cells, self.widths, strict=True)]
        *first, last = folds
        heads = [
            GAP.join(_padded(*each) for each in zip(parts, self.widths, self.right, strict=False))
            for parts in zip_longest(*first, fillvalue="")
        ]
        start = _total(self.widths[:-1]) + len(GAP) if first else 0
        waiting = iter(heads)
        for line in last:
            if _has_command(line) and start + width(line) > self.room and (line is not last[0] or not first):
                yield GAP + line.strip()
                continue
            head = next(waiting, " " * (start - len(GAP))) + GAP if first else ""
            yield head + (_padded(line, self.widths[-1], True) if self.right[-1] else line)
        yield from waiting

    @staticmethod
    def _folded(cell: str, most: int) -> list[str]:
        if isinstance(cell, Styled):
            return [cell]
        hang = 4 if "\n" in cell else 0  # lines below the first one are indented by 2
        return [part for line in cell.split("\n") for part in wrapped(line, most, hang)]


def _shrunk(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """The widths, with the widest columns made narrower until all fit."""
    widths = [min(most, max(few, room)) for most, few in zip(natural, least, strict=True)]
    while _total(widths) > room and (can := [n for n, each in enumerate(widths) if each > least[n]]):
        widths[max(can, key=widths.__getitem__)] -= 1
    return widths
