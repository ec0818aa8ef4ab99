"""The command lines in blocks that are not run, and whether our own programs would understand them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from fabric.main import program
from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser import Parser, ParserContext
from transcripts import Block, joined

import fabfile

CLONE = Path(__file__).resolve().parents[2]
OURS = ("fab", "ctr-ferry")
_BETWEEN = {"|", "||", "&&", ";", ";;", "&", "(", ")", "{", "}", "!"}
_BEFORE = {"do", "then", "else", "if", "while", "until", "exec", "env", "sudo", "time"}
_ALONE = {"for", "case", "done", "fi", "esac"}  # what follows is no command
_SETTING = re.compile(r"^[A-Za-z_]\w*=")


def simple_commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """Yield the simple commands of a block of shell lines: the number of the line on the page, and the words.

    Settings of variables, redirections and the words of compound commands are left out, and so is a `…` that is no
    option's value.
    """
    for place, lines in joined(block.lines):
        text = lines[0] if "<<" in lines[0] else "\n".join(lines).replace("\\\n", " ")
        parts = shlex.shlex(text, posix=True, punctuation_chars=True)
        parts.whitespace_split, parts.commenters = True, "#"
        words: list[str] = []
        for word in [*parts, ";"]:
            if word not in _BETWEEN:
                words.append(word)
                continue
            if kept := _command(words):
                yield block.line + place, kept
            words = []


def fault(words: Sequence[str]) -> str:
    """Return what one of our programs, or make, would not understand in a command; empty for nothing.

    Raises:
        LookupError: the command is none of these.
    """
    name = words[0] if words[0].startswith("runbooks/") else Path(words[0]).name
    if name == "make":
        unknown = [word for word in words[1:] if not _SETTING.match(word) and word not in _targets()]
        return f"there is no make {unknown[0]}" if unknown else ""
    if name.startswith("runbooks/"):
        taken = re.findall(r"^\s+(-[-\w]+)(?: \|.*)?\)", (CLONE / name).read_text(), re.MULTILINE)
        unknown = [word for word in words[1:] if re.match(r"-[-\w]", word) and word not in taken]
        return f"{name} has no {unknown[0]}" if unknown else ""
    if name not in OURS:
        raise LookupError(name)
    ours = words[1 : words.index("--")] if "--" in words else words[1:]
    contexts = Collection.from_module(fabfile).to_contexts()
    try:  # in two steps, as Invoke does it
        core = Parser(initial=_core(), ignore_unknown=True).parse_argv(list(ours))
        asked_about = core[0].args.help.value
        if asked_about not in (None, "COMMAND", *(each.name for each in contexts)):
            return f"there is no {asked_about}"
        Parser(contexts, _core()).parse_argv(core.unparsed)
    except ParseError as error:
        return str(error)
    return ""


def _command(words: Sequence[str]) -> list[str]:
    """Return the words of a simple command, without what stands before it and what it is redirected to."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif re.fullmatch(r"[<>&]+", word):
            skip = True
            if kept and kept[-1] in ("1", "2"):
                kept.pop()
        elif (word != "…" or (kept and kept[-1].startswith("-"))) and (
            kept or not (_SETTING.match(word) or word in _BEFORE)
        ):
            kept.append(word)
    return [] if kept and kept[0] in _ALONE else kept


def _core() -> ParserContext:
    """Return the options that stand before any command."""
    return ParserContext(args=[*program.core_args(), *program.task_args()])


def _targets() -> set[str]:
    """Return the targets of the Makefile."""
    found = re.findall(r"^(?:\.PHONY: )?([\w -]+?)(?::|$)", (CLONE / "Makefile").read_text(), re.MULTILINE)
    benches = [*(path.stem for path in (CLONE / "bench").glob("*.py")), "NAME"]
    return {word for line in found for word in line.split()} | {f"bench-{name}" for name in benches}
