"""All that people and scripts see: a table on stdout, or one JSON document; notes and errors on stderr."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import rich.table
from rich.console import Console
from rich.text import Text

from tasks.errors import FerryError
from tasks.fleet.outcome import Outcome, Status, Table, View, names

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
    """One command of a run: what it did on every host, or what a command at the desk returned.

    Attributes:
        table: what is read instead of a row a host.
        failure: why the command as a whole failed.
    """

    command: str
    arguments: dict[str, Any]
    outcomes: list[Outcome]
    dry_run: bool = False
    table: Table | None = None
    failure: FerryError | None = None
    view: View | None = None

    def to_json(self) -> dict[str, Any]:
        """The shape that it has in ``--json``."""
        document: dict[str, Any] = {"command": self.command, "arguments": self.arguments}
        if self.view:
            return document | {"result": self.view.data}
        document |= {"dry_run": self.dry_run, "outcomes": [outcome.to_json() for outcome in self.outcomes]}
        return document | ({"error": self.failure.to_json()} if self.failure else {})


def table(done: Done) -> None:
    """What a person reads of a command, on stdout; why it failed as a whole, on stderr."""
    if done.view:
        _draw(done.view.table) if done.view.table else print(done.view.text)
    elif done.table and done.arguments.get("csv"):
        _csv(done.table)
        for outcome in done.outcomes:
            for line in error_lines(outcome.error) if outcome.error else ():
                note(f"{outcome.host}: {line}")
    elif done.table:
        _draw(done.table)
        troubled = [o for o in done.outcomes if o.error]
        if troubled:
            print()
            _rows(done, troubled)
    else:
        _rows(done, done.outcomes)
    if done.failure:
        for line in error_lines(done.failure):
            note(line)


def _rows(done: Done, outcomes: list[Outcome]) -> None:
    """One row a host; hosts of which the same is to be said share one."""
    alike: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        said = (_status(outcome, dry_run=done.dry_run), *_lines(outcome))
        alike.setdefault(said, []).append(outcome)
    rows = _grid("HOST", "STATUS", "TIME", done.command.upper())
    for (status, *lines), group in alike.items():
        seconds = f"{max(o.seconds for o in group):.1f} s"
        style = _COLOURS[group[0].status]
        rows.add_row(Text(names(o.host for o in group)), Text(status, style=style), seconds, Text("\n".join(lines)))
    _print(rows)


def _grid(*columns: str) -> rich.table.Table:
    rows = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns[:-1]:
        rows.add_column(column, no_wrap=True, justify="right" if column == "TIME" else "left")
    rows.add_column(columns[-1], overflow="fold")
    return rows


def _draw(table: Table) -> None:
    rows = _grid(*table.columns)
    for row in table.rows:
        rows.add_row(*map(Text, row))
    if table.rows:
        _print(rows)
    for line in table.notes:
        print(line)


def _csv(table: Table) -> None:
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(column.lower() for column in table.columns)
    lines.writerows(table.apart or table.rows)


def _print(rows: rich.table.Table) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE, color_system=None)
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


def document(done: Iterable[Done], code: int) -> None:
    """The one JSON document of an invocation, on stdout."""
    _print_json({"exit": code, "commands": [each.to_json() for each in done]})


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
