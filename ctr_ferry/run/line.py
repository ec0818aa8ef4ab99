"""The command line, once its options are parsed, and what is refused of it before any host is touched."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import takewhile
from typing import Any

from ctr_ferry import __version__, shell
from ctr_ferry.errors import UsageError
from ctr_ferry.report.hints import Asked
from ctr_ferry.run.command import Command, CommonOptions, Kind

_HOSTS = re.compile(r"(-H|--hosts)=?")
USELESS = ("--warn-only", "--pty", "--echo", "--hide")  # options of Fabric for its own `run`


@dataclass(frozen=True, slots=True)
class Line:
    """One command of the command line, with its options parsed; ``asked`` is what hints repeat of it."""

    command: Command
    arguments: dict[str, Any]
    common: CommonOptions
    request: Any
    asked: Asked


def refuse_foreign_tasks(calls: Sequence[Any]) -> None:
    """Refuses a line that has tasks of the user's own beside commands; raises UsageError."""
    if not all(isinstance(call.task, Command) for call in calls):
        raise UsageError(
            "commands of ctr-ferry and tasks of your own cannot share one line",
            hint="run fab once for each: fab --list",
        )


def refuse_useless(args: Mapping[str, Any]) -> None:
    """Refuses options of Fabric's own that change how its `run` works, which no command of ours calls.

    Args:
        args: the parsed options before the commands.
    """
    for option in USELESS:
        if args[option.removeprefix("--")].value:
            raise UsageError(f"{option} of Fabric changes nothing here", hint=f"leave {option} out")


def refuse_hosts_given_twice(words: Sequence[str]) -> None:
    """Refuses a second ``-H``: Invoke takes one before and one after a command's name, and obeys only the last.

    Raises:
        UsageError: there is a second one.
    """
    before = [*takewhile(lambda word: word != "--", words)]
    pairs = zip(before, [*before[1:], ""], strict=True)
    given = [word[found.end() :] or after for word, after in pairs if (found := _HOSTS.match(word))]
    if len(given) > 1:
        hosts = ",".join(filter(None, (each.strip(" ,") for each in given)))
        such = f", such as -H {shell.join([hosts])}" if hosts else ""
        raise UsageError("-H is given twice", hint=f"name all hosts in one{such}")


def read(call: Any, asked: Asked, *, dry: bool, as_json: bool) -> Line:
    """Parses one command's options. ``--json`` on one command counts for all: stdout is one document or none.

    Raises:
        UsageError: an option is wrong; the message names it.
    """
    if as_json and call.kwargs.get("csv"):
        raise UsageError("--csv and --json exclude each other: stdout is one or the other", hint="leave --csv out")
    common, request = call.task.read(call.kwargs)
    arguments = {name.rstrip("_"): value for name, value in call.kwargs.items()}  # --as is `as_` in Python
    common = replace(common, dry_run=common.dry_run or dry, json=as_json)
    return Line(command=call.task, arguments=arguments, common=common, request=request, asked=asked)


def record_head(lines: Sequence[Line], patterns: Sequence[str], hosts: Sequence[str]) -> dict[str, Any]:
    """What the record of a run says of its line before any command has begun."""
    asked = [
        {"command": each.command.name, "dry_run": each.common.dry_run, "looks": each.command.read_only(each.request)}
        for each in lines
        if each.command.kind is not Kind.CONTROL_MACHINE
    ]
    versions = {name: version(name) for name in ("fabric", "invoke", "paramiko")} | {"ctr_ferry": __version__}
    return {
        "commands_asked": [line.command.name for line in lines],
        "asked": asked,
        "patterns": patterns,
        "options": [*lines[0].asked.fabrics],
        "hosts": hosts,
        "versions": {"python": platform.python_version(), **versions},
    }
