"""Prints what people and scripts see: a table or one JSON document on stdout, notes and errors on stderr."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from ctr_ferry import __version__
from ctr_ferry.errors import FerryError
from ctr_ferry.report.agreement import Disagreement, HostNote
from ctr_ferry.report.hints import at_hosts, document_as_started
from ctr_ferry.report.outcome import Outcome, Status, Table, View, error_lines
from ctr_ferry.text import names, shown

_COLOURS = {
    Status.CHANGED: "yellow",
    Status.WOULD_CHANGE: "cyan",
    Status.UNCHANGED: "green",
    Status.OK: "green",
    Status.FAILED: "bold red",
    Status.UNREACHABLE: "bold red",
    Status.SKIPPED: "dim",
}
_RIGHT_ALIGNED = "TIME"  # this column is aligned to the right
_LEAST_WIDTH = 16  # characters that a folded column keeps
_MOST_FOLDED = 2000  # rows; fitting more to a terminal takes minutes
_DIGEST = re.compile(r"\b(sha256:[0-9a-f]{12})[0-9a-f]{52}\b")
SCHEMA = 1  # of the JSON document; a field that is removed or renamed makes it 2
_lost: list[OSError] = []


@dataclass(frozen=True, slots=True)
class Styled:
    """Text of ours in a colour of Rich's, for a terminal."""

    text: str
    style: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Done:
    """One command of a run: what it did on every host, or what a command on the control machine returned.

    Attributes:
        table: one table of all answers, shown instead of one row per host.
        failure: why the command as a whole failed; None if it did not.
        view: what a command on the control machine returned.
        warnings: names that now point at different images on different hosts.
    """

    command: str
    arguments: dict[str, Any]
    outcomes: list[Outcome]
    dry_run: bool = False
    table: Table | None = None
    failure: FerryError | None = None
    view: View | None = None
    warnings: Sequence[Disagreement | HostNote] = ()

    def to_json(self) -> dict[str, Any]:
        """The command as ``--json`` has it."""
        document: dict[str, Any] = {"command": self.command, "arguments": self.arguments}
        failure = {"error": self.failure.to_json()} if self.failure else {}
        if self.view:
            return document | {"result": self.view.data} | failure
        document |= {"dry_run": self.dry_run, "outcomes": [outcome.to_json() for outcome in self.outcomes]}
        document["warnings"] = [warning.to_json() for warning in self.warnings]
        return document | failure


def table(done: Done) -> None:
    """Prints a command for people: its table or view on stdout, its warnings and failure on stderr."""
    if done.view and done.view.table:
        _print_table(done.view.table)
    elif done.view:
        _print_text(done.view.text)
    elif done.table and done.arguments.get("csv"):
        _print_csv(done.table)
        for outcome in done.outcomes:
            for line in error_lines(outcome.error.to_json()) if outcome.error else ():
                note(f"{outcome.host}: {at_hosts(line, [outcome.host])}")
    elif done.table:
        _print_table(done.table)
        troubled = [o for o in done.outcomes if o.error]
        if troubled:
            if done.table.rows or done.table.notes:
                _print_text("")
            _print_outcomes(done, troubled, results=False)
    else:
        _print_outcomes(done, done.outcomes)
    for warning in done.warnings:
        note("\n".join(warning.lines()))
    if done.failure:
        note("\n".join(error_lines(done.failure.to_json())))


def _print_outcomes(done: Done, outcomes: list[Outcome], *, results: bool = True) -> None:
    """Prints a row for each host with its error and, if wanted, its results; hosts with equal rows share one."""
    alike: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        lines = [
            *(outcome.lines() if results else ()),
            *(error_lines(outcome.error.to_json()) if outcome.error else ()),
        ]
        alike.setdefault((str(outcome.status), *lines), []).append(outcome)
    rows = []
    for (status, *lines), group in alike.items():
        seconds = f"{max(o.seconds for o in group):.1f} s"
        hosts = names((o.host for o in group), every=group[0].error is not None)
        text = at_hosts("\n".join(lines), (o.host for o in group), status)
        rows.append((hosts, Styled(status, _COLOURS[group[0].status]), seconds, text))
    _print_rows(("HOST", "STATUS", "TIME", done.command.upper()), rows)


def _print_table(table: Table) -> None:
    if table.rows:
        _print_rows(table.columns, table.rows)
    for line in table.notes:
        _print_text(line)


def _print_rows(columns: Sequence[str], rows: Sequence[Sequence[str | Styled]]) -> None:
    safe = [[cell if isinstance(cell, Styled) else shown(cell) for cell in row] for row in rows]
    folds = sys.stdout.isatty() and len(rows) <= _MOST_FOLDED
    put(sys.stdout, _folded(columns, safe) if folds else _plain(columns, safe))


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str | Styled]]) -> str:
    """Rows as text for grep: a row is one line, and only its last cell may continue on further lines."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in list(zip(*cells, strict=True))[:-1]]
    lines = []
    for *first, last in cells:
        head = "  ".join(
            cell.rjust(width) if name == _RIGHT_ALIGNED else cell.ljust(width)
            for name, cell, width in zip(columns, first, widths, strict=False)
        )
        top, *below = last.split("\n")
        lines += [f"{head}  {top}".rstrip(), *(f"{' ' * len(head)}  {line}".rstrip() for line in below)]
    return "\n".join(lines)


def _folded(columns: Sequence[str], rows: Sequence[Sequence[str | Styled]]) -> str:
    """Rows as text for a terminal: cells with spaces are folded; if that does not suffice, digests are shortened."""
    import rich.table
    from rich.console import Console
    from rich.text import Text

    widths = [max(len(str(cell)) for cell in column) for column in zip(columns, *rows, strict=True)]
    prose = [any(" " in str(row[n]) or "\n" in str(row[n]) for row in rows) for n in range(len(columns))]
    least = [min(width, _LEAST_WIDTH) if folds else width for width, folds in zip(widths, prose, strict=True)]
    terminal = Console().width
    if sum(least) + 2 * len(least) > terminal and any(_DIGEST.search(str(cell)) for row in rows for cell in row):
        return _folded(columns, [[_shortened(cell) for cell in row] for row in rows])
    table = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, folds, width in zip(columns, prose, least, strict=True):
        right: Literal["right", "left"] = "right" if name == _RIGHT_ALIGNED else "left"
        table.add_column(name, no_wrap=not folds, min_width=width, overflow="fold", justify=right)
    for row in rows:
        table.add_row(*(Text(cell.text, cell.style) if isinstance(cell, Styled) else Text(cell) for cell in row))
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=max(terminal, sum(least) + 2 * len(least))).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().removesuffix("\n").split("\n"))


def _shortened(cell: str | Styled) -> str | Styled:
    return _DIGEST.sub(r"\1", cell) if isinstance(cell, str) else cell


def _print_csv(table: Table) -> None:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(column.lower() for column in table.columns)
    lines.writerows(table.apart or table.rows)
    _print_text(text.getvalue().removesuffix("\n"))


def document(done: Iterable[Done], code: int, run_id: str | None = None) -> None:
    """Prints the one JSON document of an invocation on stdout; without hosts there is no run."""
    _print_json({**_head(code, run_id), "commands": [each.to_json() for each in done]})


def failure(error: FerryError, *, as_json: bool) -> None:
    """Prints an error that came before any host was touched."""
    note("\n".join(error_lines(error.to_json())))
    if as_json:
        failure_document(error, error.exit_code)


def failure_document(error: FerryError, code: int) -> None:
    """Prints the JSON document of an invocation that started nothing."""
    _print_json({**_head(code, None), "commands": [], "error": error.to_json()})


def _head(code: int, run_id: str | None) -> dict[str, Any]:
    return {"schema": SCHEMA, "ctr_ferry": __version__, "run": run_id, "exit": code}


def note(text: str) -> None:
    """Prints a line on stderr."""
    put(sys.stderr, shown(text))


def _print_json(document: dict[str, Any]) -> None:
    """Prints JSON in ASCII: scripts get names exactly as they are, and a terminal gets no control characters."""
    put(sys.stdout, json.dumps(document_as_started(document), indent=2, default=str).replace("\x7f", "\\u007f"))


def _print_text(text: str) -> None:
    put(sys.stdout, shown(text))


def put(stream: TextIO, text: str) -> None:
    """Writes a text and a newline at once. If the stream cannot be written to any more, work on hosts goes on."""
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            _lost.append(error)
            note(f"stdout cannot be written to: {error.strerror}")


def unwritten() -> bool:
    """Whether output for stdout was lost, other than by a reader that closed its pipe."""
    return bool(_lost)


def open_streams() -> None:
    """Opens /dev/null for a standard stream that is closed; escapes characters that the locale cannot write."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
