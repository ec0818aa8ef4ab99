"""How a command is declared: its options in one signature, its work in one function.

``fab -l`` loads this file and the commands; what only a run needs (Rich, YAML, validation) is the executor's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import fabric
from invoke.parser.argument import Argument

from ctr_ferry.errors import UsageError

_OUTPUT = {"json": "Print one JSON document on stdout."}
_RUN = {
    "dry_run": "Look at every host, show what would be done, change nothing.",
    "serial": "So many hosts at a time, one batch after the other.",
    "limit_failures": "Start no new host once so many have failed: a number, or a percentage such as 10%.",
}


class Kind(Enum):
    """What a command's body works on."""

    HOST = "one host; runs on all of them at once"
    FLEET = "the whole fleet; runs once"
    CONTROL_MACHINE = "the control machine alone; connects to nothing"


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """What every command takes; those about hosts, only if it has hosts.

    Attributes:
        serial: hosts at a time; None is all.
        limit_failures: failed hosts after which none is started, as a number or a share of all; None is no limit.
    """

    json: bool = False
    dry_run: bool = False
    serial: int | None = None
    limit_failures: int | float | None = None

    @classmethod
    def parse(cls, json: bool, dry_run: bool, serial: str | None, limit_failures: str | None) -> CommonOptions:
        """From the command line's text.

        Raises:
            UsageError.
        """
        if serial is not None and not (serial.isdecimal() and int(serial)):
            raise UsageError(f"--serial {serial!r} is no number of hosts", hint="such as --serial 5")
        return cls(json, dry_run, int(serial) if serial else None, _limit(limit_failures))


def _limit(text: str | None) -> int | float | None:
    if text is None:
        return None
    number = text.removesuffix("%")
    if not number.isdecimal() or (text.endswith("%") and int(number) > 100) or not int(number):
        raise UsageError(
            f"--limit-failures {text!r} is neither a number from 1 on nor a percentage", hint="such as 3 or 10%"
        )
    return int(number) / 100 if text.endswith("%") else int(number)


class Command(fabric.Task):  # type: ignore[misc]
    """A command: ``parse(**options)`` once, then ``body(host or fleet or desk, request)``.

    The options on the command line are those of ``parse``'s signature and the common ones.

    Attributes:
        kind: what the body works on.
        tabulate: of a fleet command, from its results by host to what a person reads; None is a row a host.
        before: is told request and targets before any host is touched; raises what is wrong with them.
        read_only: whether it only looks, so that no host can be changed by it; tells by the request where that depends.
    """

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
        read_only: bool | Callable[[Any], bool] = False,
    ) -> None:
        self.kind, self.parse, self.tabulate, self.before = kind, parse, tabulate, before
        self._read_only = read_only
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
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False if name in _FLAGS else None)
            for name in self._common
        ]
        return inspect.Signature([*own, *common])

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Invoke's hook: ``-n`` is the namespace; nothing else is short."""
        arguments: list[Argument] = super().get_arguments(ignore_unknown_help)
        for argument in arguments:
            if argument.name == "namespace":
                argument.names = (*argument.names, "n")
        return arguments

    def read(self, options: Mapping[str, Any]) -> tuple[CommonOptions, Any]:
        """The common options, and the request that the command's own ones make.

        Raises:
            UsageError: with the option that is wrong.
        """
        _refuse_empty(options, self.positional)
        common = {name: options.get(name) for name in _FLAGS | {"serial", "limit_failures"}}
        own = {name: value for name, value in options.items() if name not in self._common}
        return CommonOptions.parse(
            bool(common["json"]), bool(common["dry_run"]), common["serial"], common["limit_failures"]
        ), self.parse(**own)

    def read_only(self, request: Any) -> bool:
        """Whether it changes nothing on any host, whatever it finds."""
        return self._read_only(request) if callable(self._read_only) else self._read_only


def _refuse_empty(options: Mapping[str, Any], positional: Iterable[str]) -> None:
    """An empty value is a variable of somebody's shell that was not set; it would mean that nothing was given."""
    for name, value in options.items():
        if name not in positional and (value == "" or (isinstance(value, list) and "" in value)):
            option = f"--{name.rstrip('_').replace('_', '-')}"
            raise UsageError(f"{option} is empty", hint=f"give a value, or leave {option} out")


_FLAGS = {"json", "dry_run"}


def per_host(parse: Callable[..., Any], **options: Any) -> Callable[[Callable[..., Any]], Command]:
    """Declares ``f(host, request) -> Result`` as a command that runs on all its hosts at once.

    Args:
        parse: takes the options by keyword, each None or a list by default; returns the request.
        options: ``help`` (option to text), ``iterable`` (options that may be repeated), ``positional``, ``before``,
            ``read_only``.
    """
    return lambda body: Command(body, kind=Kind.HOST, parse=parse, **options)


def fleet_wide(parse: Callable[..., Any], **options: Any) -> Callable[[Callable[..., Any]], Command]:
    """Declares ``f(fleet, request) -> {host: Result or FerryError}`` as a command that is called once.

    Args:
        parse, options: as for `per_host`; ``tabulate`` makes one table of the results of all hosts.
    """
    return lambda body: Command(body, kind=Kind.FLEET, parse=parse, **options)


def on_control_machine(parse: Callable[..., Any], **options: Any) -> Callable[[Callable[..., Any]], Command]:
    """Declares ``f(desk, request) -> View`` as a command that connects to no host."""
    return lambda body: Command(body, kind=Kind.CONTROL_MACHINE, parse=parse, **options)
