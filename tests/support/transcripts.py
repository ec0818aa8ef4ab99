"""The commands that a page shows, and what the page says that they print."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

PROMPT = "$ "
_INDENT = "    "  # of a block of code in Markdown
# What differs from run to run, in the order in which it is replaced.
_VARIABLE = (
    (re.compile(r"\b\d{8}T\d{6}Z-[\w-]+-[0-9a-f]{4}\b"), "RUN"),
    (re.compile(r"\bsha256:[0-9a-f]{12,64}\b…?"), "DIGEST"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:bytes?|[kKMGT]i?B)\b"), "SIZE"),
    (re.compile(r"\b\d+(?:\.\d+)? s\b"), "TIME"),
    # Columns of tables have numbers alone: bytes, and seconds with one decimal place.
    (re.compile(r"(?<=\s)\d{4,}(?=\s)"), "SIZE"),
    (re.compile(r"(?<=\s)\d+\.\d(?=\s)"), "TIME"),
)


@dataclass
class Shown:
    """One command of a page.

    Attributes:
        line: the number of its line on the page.
        command: the command line, without the prompt.
        output: the lines that it prints, by the page; empty where the page does not show them.
    """

    line: int
    command: str
    output: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        """The words of the command line. Only quotes and comments of the shell are understood."""
        return shlex.split(self.command, comments=True)


def commands(page: str, program: str) -> list[Shown]:
    """Return the commands of one program that a page shows in its blocks of code, in the order of the page.

    A backslash at the end of a line joins it with the next. The lines up to the next prompt, or to the end of the
    block, are the output.
    """
    found: list[Shown] = []
    current: Shown | None = None
    for number, line in enumerate(page.splitlines(), 1):
        if not line.startswith(_INDENT):
            current = None if line.strip() else current  # an empty line does not end a block
            continue
        text = line.removeprefix(_INDENT)
        if current and not current.output and current.command.endswith("\\"):
            current.command = current.command.removesuffix("\\") + text.strip()
        elif text.startswith(PROMPT):
            current = Shown(number, text.removeprefix(PROMPT))
            found.append(current)
        elif current:
            current.output.append(text)
    return [each for each in found if each.words[0] == program]


def normalised(text: str) -> list[str]:
    """Return the lines of a text with words for times, digests, sizes and run ids, and without layout.

    Columns are as wide as what is in them. So every run of spaces is one space. Empty lines are dropped.
    """
    for pattern, word in _VARIABLE:
        text = pattern.sub(word, text)
    return [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]
