"""What a page shows: its blocks of code, the commands in them, and what the page says that they print."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

PROMPT = "$ "
CONSOLE = "console"  # the info string of blocks whose commands are run
MORE = "…"  # a line that stands for any further lines
_FENCE = re.compile(r"^( *)(`{3,})(.*)$")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\r")
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
# What differs from run to run, in the order in which it is replaced.
_VARIABLE = (
    (re.compile(r"\b\d{8}T\d{6}Z-[\w-]+-[0-9a-f]{4}\b"), "RUN"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?\b"), "DATE"),
    (re.compile(r"\bsha256:[0-9a-f]{12,64}\b…?"), "DIGEST"),
    (re.compile(r"(?<![\w:])(?:[0-9a-f]{64}|[0-9a-f]{12})\b"), "DIGEST"),
    (re.compile(r"\"(\w*(?:seconds|bytes|size))\": \d+(?:\.\d+)?"), r'"\1": NUMBER'),
    (re.compile(r"\b\d+(?:\.\d+)? (?:bytes?|[kKMGT]i?B)\b"), "SIZE"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:s|ms|min)\b"), "TIME"),
    # Columns of tables have numbers alone: bytes, and seconds with one decimal place.
    (re.compile(r"(?<= )\d{4,}(?= )"), "SIZE"),
    (re.compile(r"(?<= )\d+\.\d(?= )"), "TIME"),
    (re.compile(r"(?<= )[-─━=]{3,}(?= )"), "RULE"),
)


@dataclass
class Block:
    """A fenced block of code.

    Attributes:
        info: the info string, such as `console`.
        line: the number of the block's first line on the page, below the fence.
        lines: its lines, without the indentation of the fence.
        indent: the number of spaces before the fence.
    """

    info: str
    line: int
    lines: list[str] = field(default_factory=list)
    indent: int = 0


@dataclass
class Shown:
    """One command of a page.

    Attributes:
        line: the number of its line on the page.
        command: the command as a shell reads it, of one line or several, without the prompt.
        begins: the number of the line below the command.
        output: the lines that it prints, by the page.
        indent: the number of spaces before each line of its block.
    """

    line: int
    command: str
    begins: int
    output: list[str] = field(default_factory=list)
    indent: int = 0

    def fits(self, printed: str) -> bool:
        """Tell whether a command that printed this text printed what the page shows, by words."""
        if MORE not in self.output:
            page = "\n".join(self.output)
            return words(printed) == words(page) or _in_cells(printed) == _in_cells(page)
        first, *middle, last = (words(part) for part in re.split(f"^{MORE}$", "\n".join(self.output), flags=re.M))
        found = words(printed)
        begin, end = len(first), len(found) - len(last)
        if begin > end or found[:begin] != first or found[end:] != last:
            return False
        for part in middle:
            places = (place for place in range(begin, end - len(part) + 1) if found[place : place + len(part)] == part)
            if (place := next(places, None)) is None:
                return False
            begin = place + len(part)
        return True


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page. One that does not end goes on to the end of the page."""
    found: list[Block] = []
    fence = ""
    for number, line in enumerate(page.splitlines(), 1):
        match = _FENCE.match(line)
        if fence and match and match[2].startswith(fence) and not match[3].strip():
            fence = ""
        elif fence:
            indent = found[-1].indent
            found[-1].lines.append(line[indent:] if not line[:indent].strip() else line)
        elif match:
            fence = match[2]
            found.append(Block(match[3].strip(), number + 1, indent=len(match[1])))
    return found


def prose(page: str) -> list[str]:
    """Return the lines of a page, with an empty one in place of each that belongs to a fenced block."""
    lines = page.splitlines()
    for block in blocks(page):
        for number in range(block.line - 2, min(block.line + len(block.lines), len(lines))):
            lines[number] = ""
    return lines


def commands(page: str) -> list[Shown]:
    """Return the commands in the console blocks of a page, in the order of the page.

    The lines up to the next prompt, or to the end of the block, are the output. Lines before the first prompt are a
    fault of the page, which `stray` finds.
    """
    found: list[Shown] = []
    for block in blocks(page):
        if block.info == CONSOLE:
            found += _of_block(block)
    return found


def stray(block: Block) -> bool:
    """Tell whether a console block does not begin with a command."""
    return block.info == CONSOLE and not (block.lines and block.lines[0].startswith(PROMPT))


def joined(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each command of some lines, which may take several of them, with the place of its first line."""
    place = 0
    while place < len(lines):
        end = place + 1
        while end < len(lines) and _unfinished(lines[place:end]):
            end += 1
        yield place, list(lines[place:end])
        place = end


def rewritten(page: str, printed: Sequence[str]) -> str:
    """Return a page that shows what its commands have printed.

    What differs only in times, sizes and the like is left alone. Where the writer has put a line `…`, as many lines
    stay before and behind it as the writer left there. Several stay as they are, or become one.

    Args:
        page: the text of the page.
        printed: what each command of `commands(page)` printed, in the same order; fewer leave the rest alone.
    """
    lines = page.splitlines()
    for shown, text in reversed(list(zip(commands(page), printed, strict=False))):
        if shown.output.count(MORE) > 1 and shown.fits(text):
            continue
        told = [line.rstrip() for line in ESCAPE.sub("", text).rstrip().splitlines()]
        if MORE in shown.output:
            place = shown.output.index(MORE)
            behind = shown.output[::-1].index(MORE)
            told = [*told[:place], MORE, *(told[-behind:] if behind else [])]
        if [words(line) for line in told] != [words(line) for line in shown.output]:
            begins = shown.begins - 1
            lines[begins : begins + len(shown.output)] = [(" " * shown.indent + line).rstrip() for line in told]
    return "\n".join(lines) + "\n"


def words(text: str) -> list[str]:
    """Return the words of a text, with one word for each time, date, digest, size and run id, and without layout.

    Columns are as wide as what is in them, and lines break where they are too long, so no space and no line break
    counts.
    """
    text = f" {' '.join(ESCAPE.sub('', text).split())} "
    for pattern, word in _VARIABLE:
        text = pattern.sub(word, text)
    return text.split()


def _in_cells(text: str) -> tuple[list[list[str]], list[str]]:
    """Return what stays the same where the cells of a table break elsewhere: how its rows begin, and all words."""
    rows = [line for line in ESCAPE.sub("", text).splitlines() if line.strip() and not line.startswith(" ")]
    return [words(row)[:2] for row in rows], sorted(words(text))


def _of_block(block: Block) -> Iterator[Shown]:
    """Yield the commands of a console block."""
    current: Shown | None = None
    place = 0
    while place < len(block.lines):
        line = block.lines[place]
        if line.startswith(PROMPT):
            _, taken = next(joined([line.removeprefix(PROMPT), *block.lines[place + 1 :]]))
            if current:
                yield current
            place += len(taken)
            current = Shown(block.line + place - len(taken), "\n".join(taken), block.line + place, indent=block.indent)
            continue
        if current:
            current.output.append(line)
        place += 1
    if current:
        yield current


def _unfinished(lines: Sequence[str]) -> bool:
    """Tell whether a shell would read on: a line that ends with a backslash or a pipe, an open quote, a here-document.

    Of the shell's words, only quotes are understood.
    """
    text = "\n".join(lines)
    if (here := _HEREDOC.search(text)) and here[2] not in lines[1:]:
        return True
    return text.endswith(("\\", "|", "&&")) or (not here and _open_quote(text))


def _open_quote(text: str) -> bool:
    """Tell whether a quote is open at the end of a text; a comment has none."""
    quote, skip, before = "", False, " "
    for letter in text:
        if skip:
            skip = False
        elif quote == "#":
            quote = "" if letter == "\n" else quote
        elif letter == "\\" and quote != "'":
            skip = True
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" or (letter == "#" and before.isspace()):
            quote = letter
        before = letter
    return quote in ("'", '"')
