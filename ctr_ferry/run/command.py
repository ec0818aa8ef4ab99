"""How a command is declared: its options in one signature, its work in one function.

``fab -l`` loads this file and all commands, so neither imports what only a run needs: Rich, YAML, validation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

import fabric
from invoke.parser.argument import Argument

from ctr_ferry.errors import UsageError
from ctr_ferry.run import stock

if TYPE_CHECKING:
    from ctr_ferry.inventory.selector import HostSelector
    from ctr_ferry.report.past_runs import Runs

# Fabric would parse ssh_config before any code of ours runs. ssh/openssh.py reads it when a connection needs it.
fabric.Config._load_ssh_files = lambda _self: None
stock.extend()
_OUTPUT = {
    "json": "Print one JSON document on stdout.",
    "wide": "Print whole digests and all columns, and fold no line, as it is in a pipe.",
}
_RUN = {
    "dry_run": "Inspect every host, show what would be done, change nothing.",
    "serial": "Work on this many hosts at a time, one batch after the other.",
    "limit_failures": "Start no further host once this many have failed: a number, or a percentage such as 10%.",
}


class Kind(Enum):
    """What a command's body works on."""

    HOST = "one host; runs on all of them at once"
    FLEET = "the whole fleet; runs once"
    CONTROL_MACHINE = "the control machine alone; connects to nothing"


@dataclass(frozen=True, slots=True)
class ControlMachine:
    """What is known without a connection: the inventory, the words of ``-H``, if any, and the records of past runs."""

    selector: HostSelector
    patterns: tuple[str, ...]
    runs: Runs


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """The options that every command has; a command on the control machine has ``json`` and ``wide`` alone.

    ``limit_failures`` is a number of hosts (int) or a share of all hosts (float). None means that there is no limit.
    """

    json: bool = False
    wide: bool = False
    dry_run: bool = False
    serial: int | None = None
    limit_failures: int | float | None = None

    @classmethod
    def parse(
        cls,
        json: bool = False,
        wide: bool = False,
        dry_run: bool = False,
        serial: str | None = None,
        limit_failures: str | None = None,
    ) -> CommonOptions:
        """Parses the words of the command line.

        Raises:
            UsageError: ``--serial`` or ``--limit-failures`` has a value that is no number of hosts.
        """
        if serial is not None and not (serial.isdecimal() and int(serial)):
            raise UsageError(
                f"--serial {serial!r} is no number of hosts", hint="give a number from 1, such as --serial 5"
            )
        return cls(json, wide, dry_run, int(serial) if serial else None, _limit(limit_failures))


def _limit(text: str | None) -> int | float | None:
    if text is None:
        return None
    number = text.removesuffix("%")
    if not number.isdecimal() or (text.endswith("%") and int(number) > 100) or not int(number):
        raise UsageError(
            f"--limit-failures {text!r} is neither a number from 1 nor a percentage from 1% to 100%",
            hint="give a number, such as --limit-failures 3, or a percentage",
        )
    return int(number) / 100 if text.endswith("%") else int(number)


class Command(fabric.Task):  # type: ignore[misc]
    """A command: ``parse(**options)`` makes a request once, then ``body`` works on it.

    The options on the command line are the parameters of ``parse`` and the common options.

    Args:
        body: takes a host, the fleet or the control machine (see ``kind``), and the request.
        help: the help text of each option of ``parse``.
        iterable: options that may be given more than once.
        positional: options that are given without their name.
        read_only: whether the command changes no host, or a function that tells it from the request.
        if_cut: what to do where the command was interrupted at work on a host; empty if nothing special.

    Attributes:
        tabulate: makes one table of the answers of a fleet command; None means one row per host.
        before: takes the request and the targets before any host is touched; raises if they do not fit.
        own_hosts: takes the request and returns the hosts that are meant without ``-H``; None if ``-H`` must name them.
    """

    help: dict[str, str]

    def __init__(
        self,
        body: Callable[..., Any],
        *,
        kind: Kind,
        parse: Callable[..., Any],
        help: Mapping[str, str],
        iterable: Iterable[str] = (),
        positional: Iterable[str] = (),
        tabulate: Callable[..., Any] | None = None,
        before: Callable[..., None] | None = None,
        own_hosts: Callable[..., Iterable[str]] | None = None,
        read_only: bool | Callable[[Any], bool] = False,
        if_cut: str = "",
    ) -> None:
        self.kind, self.parse, self.tabulate, self.before = kind, parse, tabulate, before
        self._read_only, self.own_hosts, self.if_cut = read_only, own_hosts, if_cut
        self._common = _OUTPUT if kind is Kind.CONTROL_MACHINE else _OUTPUT | _RUN
        super().__init__(
            body,
            positional=list(positional),
            auto_shortflags=False,
            help={**help, **self._common},
            iterable=list(iterable),
        )

    def argspec(self, body: Callable[..., Any]) -> inspect.Signature:  # noqa: ARG002
        """Invoke's hook: the signature that options are made from."""
        own = list(inspect.signature(self.parse).parameters.values())
        common = [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
            for field in fields(CommonOptions)
            if field.name in self._common
        ]
        return inspect.Signature([*own, *common])

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Invoke's hook: ``-n`` is the namespace; nothing else is short."""
        texts = dict(self.help)  # Invoke takes them out of it
        arguments: list[Argument] = super().get_arguments(ignore_unknown_help)
        self.help = texts
        for argument in arguments:
            if argument.name == "namespace":
                argument.names = (*argument.names, "n")
        return arguments

    def read(self, options: Mapping[str, Any]) -> tuple[CommonOptions, Any]:
        """Parses the options of the command line: the common ones, and the command's own into its request.

        Raises:
            UsageError: an option is wrong; the message names it.
        """
        for name, value in options.items():  # an unset shell variable would count as an option that was not given
            if name not in self.positional and (value == "" or (isinstance(value, list) and "" in value)):
                option = f"--{name.rstrip('_').replace('_', '-')}"
                raise UsageError(f"{option} is empty", hint=f"give a value, or leave {option} out")
        common = {name: value for name, value in options.items() if name in self._common}
        own = {name: value for name, value in options.items() if name not in self._common}
        return CommonOptions.parse(**common), self.parse(**own)

    def read_only(self, request: Any) -> bool:
        """Whether the command changes no host, whatever it finds there."""
        return self._read_only(request) if callable(self._read_only) else self._read_only


def _declares(kind: Kind) -> Callable[..., Callable[[Callable[..., Any]], Command]]:
    """A decorator that takes ``parse`` and the options of `Command`."""
    return lambda parse, **options: lambda body: Command(body, kind=kind, parse=parse, **options)


per_host = _declares(Kind.HOST)  # f(host, request) -> Result, on all hosts at once
fleet_wide = _declares(Kind.FLEET)  # f(fleet, request) -> {host: Result or FerryError}, called once
on_control_machine = _declares(Kind.CONTROL_MACHINE)  # f(control_machine, request) -> View, connects to no host
