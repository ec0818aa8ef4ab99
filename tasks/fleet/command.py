"""How a command is declared: its options in one signature, its work on one host in one function.

``fab -l`` loads this file and the commands; what only a run needs (Rich, YAML, validation) is the executor's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import fabric
from invoke.parser.argument import Argument

_COMMON = {
    "json": "Print one JSON document on stdout.",
    "dry_run": "Look at every host, show what would be done, change nothing.",
}


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """What every command takes."""

    json: bool = False
    dry_run: bool = False


class Command(fabric.Task):  # type: ignore[misc]
    """A per-host command: ``parse(**options)`` once, then ``body(host, request)`` on every host.

    The options on the command line are those of ``parse``'s signature and the common ones.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        *,
        parse: Callable[..., Any],
        help: Mapping[str, str],
        iterable: Iterable[str] = (),
    ) -> None:
        self.parse = parse
        super().__init__(body, positional=[], auto_shortflags=False, help={**help, **_COMMON}, iterable=list(iterable))

    def argspec(self, body: Callable[..., Any]) -> inspect.Signature:  # noqa: ARG002
        """Invoke's hook: the signature that options are made from."""
        own = list(inspect.signature(self.parse).parameters.values())
        common = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False) for name in _COMMON]
        return inspect.Signature([*own, *common])

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Invoke's hook: ``-n`` is the namespace; nothing else is short."""
        arguments: list[Argument] = super().get_arguments(ignore_unknown_help)
        for argument in arguments:
            if argument.name == "namespace":
                argument.names = (*argument.names, "n")
        return arguments

    def split(self, options: Mapping[str, Any]) -> tuple[CommonOptions, dict[str, Any]]:
        """Parts the common options from the command's own."""
        common = {name: bool(options.get(name)) for name in _COMMON}
        return CommonOptions(**common), {name: value for name, value in options.items() if name not in _COMMON}


def per_host(
    parse: Callable[..., Any], *, help: Mapping[str, str], iterable: Iterable[str] = ()
) -> Callable[[Callable[..., Any]], Command]:
    """Declares ``f(host, request) -> Result`` as a command that runs on all its hosts at once.

    Args:
        parse: takes the options by keyword, each None or a list by default; returns the request.
        help: option to help text.
        iterable: options that may be given several times.
    """
    return lambda body: Command(body, parse=parse, help=help, iterable=iterable)
