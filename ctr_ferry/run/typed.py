"""The line that a person types, as the shell takes it apart, and words as that shell wants them back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_BLANK = " \t\n"
_PATTERN = re.compile(r"[][!*?]")  # of the characters in our words, those that bash would expand
_TAKEN_ALONG = "@$"  # bash parts words before them, not behind
_ESCAPED_IN_QUOTES = '$`"\\'


@dataclass(frozen=True, slots=True)
class Typed:
    """A line up to the cursor.

    Attributes:
        words: the whole words, without their quotes; the first one is the program.
        word: the word at the cursor, without its quotes; empty after a blank.
        kept: the beginning of `word` that bash keeps, because it parts words there for the completion.
        quote: the quote that is open at the cursor, if any.
    """

    words: tuple[str, ...]
    word: str
    kept: str = ""
    quote: str = ""


def split(line: str, breaks: str = "") -> Typed:
    """Takes a line apart as a shell does, as far as quotes and blanks go.

    Args:
        line: what was typed up to the cursor.
        breaks: bash's COMP_WORDBREAKS.
    """
    words: list[str] = []
    word, kept, quote, begun, after = "", 0, "", False, ""
    for char in line:
        if after:  # a backslash
            word += char if quote != '"' or char in _ESCAPED_IN_QUOTES else after + char
            after = ""
        elif quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"':
                after = char
            else:
                word += char
        elif char in _BLANK:
            words += [word] if begun else []
            word, kept, begun = "", 0, False
        else:
            begun = True
            if char == "\\":
                after = char
            elif char in "'\"":
                quote, kept = char, len(word)
            else:
                word += char
                kept = len(word) - (char in _TAKEN_ALONG) if char in breaks else kept
    return Typed(tuple(words), word, word[:kept], quote)


def for_bash(typed: Typed, found: Iterable[str]) -> list[str]:
    """The words as bash puts them into the line: without what it keeps of the word, and quoted where it must be."""
    if typed.quote:
        fit = [word for word in found if "!" not in word or typed.quote == "'"]  # bash expands ! in double quotes
        return [word.removeprefix(typed.kept) for word in fit]
    return [_PATTERN.sub(r"\\\g<0>", word.removeprefix(typed.kept)) for word in found]
