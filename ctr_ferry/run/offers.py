"""What fits at the cursor of a line of ``fab`` or ``ctr-ferry``: words, or names of files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ctr_ferry.run.typed import Typed

SHELLS = ("bash", "zsh", "fish")
CHOICES = {
    "method": ("auto", "tag", "index", "archive"),
    "via": ("auto", "registry", "ssh"),
    "shell": SHELLS,
    "print-completion-script": SHELLS,
    "list-format": ("flat", "nested", "json"),
}
_STATUSES = ("failed", "unreachable", "skipped", "changed", "unchanged", "would-change", "ok")
_FILES = {"archive", "set", "map", "out", "plan", "manifests", "config", "identity", "ssh-config"}
_FOLDERS = {"search-root"}
_IMAGES = {"ref", "src", "dst", "as"}
_SAFE = re.compile(r"[\w.:/@+%\[\]!,=-]+")  # what a shell takes as plain text, or `for_bash` makes plain


class Known(Protocol):
    """What may be offered for a value; each is looked up when it is asked for."""

    @property
    def hosts(self) -> Sequence[str]:
        """The hosts of the inventory."""

    @property
    def groups(self) -> Sequence[str]:
        """The groups of the inventory that have hosts."""

    @property
    def registries(self) -> Sequence[str]:
        """The registries of the inventory."""

    @property
    def images(self) -> Sequence[str]:
        """Names of images in the newest records."""

    @property
    def runs(self) -> Sequence[str]:
        """Ids of the newest runs."""


class Commands(Protocol):
    """The commands, with Invoke's own description of the options of each."""

    @property
    def core(self) -> Any:
        """The options that stand before a command."""

    def names(self) -> Iterable[str]:
        """The names of all commands."""

    def get(self, name: str) -> Any:
        """The options of a command; None if there is no such command."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the shell is to offer: these words, or its own names of files or folders after ``head``."""

    kind: str = "words"
    words: tuple[str, ...] = ()
    head: str = ""


@dataclass(slots=True)
class _Place:
    """Where in the line the cursor is: the command, the option that waits for its value, what was given already."""

    context: Any
    waiting: Any = None
    given: set[str] = field(default_factory=set)
    values: int = 0  # without an option

    @property
    def positional(self) -> list[Any]:
        """The options of the command whose values stand without their name."""
        return [argument for argument in self.context.args.values() if argument.positional]

    @property
    def flags(self) -> list[str]:
        """The flags that may still be given."""
        flags = {flag: self.context.flags[flag] for flag in self.context.flag_names()}
        return [flag for flag, each in flags.items() if each.kind is list or each.name not in self.given]


@dataclass(frozen=True, slots=True)
class Completion:
    """What fits at the cursor of a line, by the commands and by what is known."""

    commands: Commands
    known: Known

    def offer(self, typed: Typed) -> Offer:
        """What fits at the cursor."""
        if "--" in typed.words:
            return Offer()
        place, word = self._place(typed.words[1:]), typed.word
        if place.waiting:
            return self._values(place, place.waiting, word)
        if word.startswith("-"):
            argument, head = self._with_value(place, word)
            return self._values(place, argument, word.removeprefix(head), head) if head else starting(word, place.flags)
        if place.values < len(place.positional):
            return self._values(place, place.positional[place.values], word)
        return starting(word, self.commands.names())

    def _place(self, words: Iterable[str]) -> _Place:
        place = _Place(self.commands.core)
        for word in words:
            if place.waiting:
                place.waiting = None
            elif word.startswith("-"):
                argument, head = self._with_value(place, word)
                argument = argument or self._argument(place, word)
                place.given.add(argument and argument.name)
                if argument and argument.takes_value and not argument.optional and not head:
                    place.waiting = argument
            elif place.values < len(place.positional):
                place.values += 1
            elif found := self.commands.get(word):
                place = _Place(found)
        return place

    def _with_value(self, place: _Place, word: str) -> tuple[Any, str]:
        """The option of a word such as ``--src=x`` or ``-Hx``, and its part before the value; empty for other words."""
        flag, equals, _ = word.partition("=")
        if equals and (argument := self._argument(place, flag)):
            return argument, f"{flag}="
        short = None if word.startswith("--") or len(word) <= 2 else self._argument(place, word[:2])
        return (short, word[:2]) if short and short.takes_value else (None, "")

    def _argument(self, place: _Place, flag: str) -> Any:
        """The option of a flag: the command's, else one of those that may stand anywhere."""
        contexts = (place.context, self.commands.core)
        return next((each.flags[flag] for each in contexts if flag in each.flags), None)  # `get` knows no second names

    def _values(self, place: _Place, argument: Any, word: str, head: str = "") -> Offer:
        """The values of an option that begin with a word."""
        name, command = _long(argument), place.context.name
        if name in _FILES or name in _FOLDERS:
            return Offer("files" if name in _FILES else "folders", head=head)
        found: Iterable[str] = CHOICES.get(name, ())
        if name == "hosts":
            found = _patterns(word, self.known)
        elif name in _IMAGES:
            found = self.known.images
        elif name == "from":
            found = ("any", *self.known.hosts)
        elif (command, name) == ("show", "host"):
            found = self.known.hosts
        elif (command, name) == ("show", "run"):
            found = ("last", *self.known.runs)
        elif name == "to-registry" or (command, name) == ("registry", "name"):
            found = self.known.registries
        elif name == "help":
            found = self.commands.names()
        return starting(word, found, head)


def _long(argument: Any) -> str:
    return str(max(argument.names, key=len)).strip("-_").replace("_", "-")


def starting(word: str, found: Iterable[str], head: str = "") -> Offer:
    return Offer(words=tuple(f"{head}{each}" for each in found if each.startswith(word) and _SAFE.fullmatch(each)))


def _patterns(word: str, known: Known) -> list[str]:
    """What ``-H`` may have in place of a word: each host or group after the last comma."""
    before, comma, last = word.rpartition(",")
    excluded = "!" if last.startswith("!") else ""
    name = last.removeprefix("!")
    if name.startswith("@"):
        runs = (f"@{run}:" for run in known.runs) if name[1:2].isdigit() else ("@",)
        found = [f"{run}{status}" for run in runs for status in _STATUSES]
    else:
        user, at, _ = name.rpartition("@")
        found = [f"{user}{at}{host}" for host in known.hosts]
        found += [] if at else known.groups
    named = set(before.split(","))
    return [f"{before}{comma}{excluded}{each}" for each in dict.fromkeys(found) if f"{excluded}{each}" not in named]
