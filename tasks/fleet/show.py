"""All that people and scripts see: a table on stdout, or one JSON document; notes and errors on stderr."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks.errors import FerryError
from tasks.fleet.outcome import Outcome, Status

_COLOURS = {
    Status.CHANGED: "yellow",
    Status.UNCHANGED: "green",
    Status.OK: "green",
    Status.FAILED: "bold red",
    Status.UNREACHABLE: "bold red",
    Status.SKIPPED: "dim",
}
_WIDE = 10_000  # no terminal, no folding: a line stays a line for grep


@dataclass(frozen=True, slots=True)
class Done:
    """One command of a run, with what it did on every host."""

    command: str
    arguments: dict[str, Any]
    outcomes: list[Outcome]
    dry_run: bool


def table(done: Done) -> None:
    """One row a host."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE, color_system=None)
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    rows.add_column("HOST", no_wrap=True)
    rows.add_column("STATUS", no_wrap=True)
    rows.add_column("TIME", justify="right", no_wrap=True)
    rows.add_column(done.command.upper(), overflow="fold")
    for outcome in done.outcomes:
        status = Text(_status(outcome, dry_run=done.dry_run), style=_COLOURS[outcome.status])
        rows.add_row(Text(outcome.host), status, f"{outcome.seconds:.1f} s", Text("\n".join(_lines(outcome))))
    with console.capture() as drawn:
        console.print(rows)
    for line in drawn.get().splitlines():
        print(line.rstrip())


def _status(outcome: Outcome, *, dry_run: bool) -> str:
    return "would change" if dry_run and outcome.status is Status.CHANGED else str(outcome.status)


def _lines(outcome: Outcome) -> list[str]:
    lines = list(outcome.result.lines()) if outcome.result is not None else []
    return lines + (error_lines(outcome.error) if outcome.error else [])


def error_lines(error: FerryError) -> list[str]:
    """An error's three parts, as a person reads them."""
    lines = [f"{error.kind}: {error.message}"]
    lines += [f"  said: {line}" for line in error.said.splitlines()]
    return lines + ([f"  try: {error.hint}"] if error.hint else [])


def document(done: list[Done], code: int) -> None:
    """The one JSON document of an invocation, on stdout."""
    _print_json(
        {
            "exit": code,
            "commands": [
                {
                    "command": each.command,
                    "arguments": each.arguments,
                    "dry_run": each.dry_run,
                    "outcomes": [outcome.to_json() for outcome in each.outcomes],
                }
                for each in done
            ],
        }
    )


def failure(error: FerryError, *, as_json: bool) -> None:
    """An error before any host was touched."""
    for line in error_lines(error):
        note(line)
    if as_json:
        _print_json({"exit": error.exit_code, "commands": [], "error": error.to_json()})


def note(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr)


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False, default=str))
