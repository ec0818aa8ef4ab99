"""Prints what people and scripts see: a table or one JSON document on stdout, notes and errors on stderr."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ctr_ferry import __version__
from ctr_ferry.errors import FerryError
from ctr_ferry.report import layout
from ctr_ferry.report.agreement import Disagreement, HostNote
from ctr_ferry.report.hints import as_started, at_hosts, document_as_started
from ctr_ferry.report.outcome import BAD, Outcome, Status, Table, View, error_lines
from ctr_ferry.report.outcome import recap as recap_of
from ctr_ferry.text import names, shown

_COLOURS = {  # parameters of escape sequences
    Status.CHANGED: "33",
    Status.WOULD_CHANGE: "36",
    Status.UNCHANGED: "32",
    Status.OK: "32",
    Status.FAILED: "1;31",
    Status.UNREACHABLE: "1;31",
    Status.SKIPPED: "2",
}
SCHEMA = 1  # of the JSON document; a field that is removed or renamed makes it 2
_ROOM = 80  # columns of a terminal that does not tell
_COUNT = re.compile(rf"(?<!\S)({'|'.join(Status)})=\d+(?!\S)")  # in a recap
_lost: list[OSError] = []


@dataclass(frozen=True, slots=True)
class Done:
    """One command of a run: what it did on every host, or what a command on the control machine returned.

    Attributes:
        looks: whether it changes no host; like a dry run, such a run is none that ``-H @failed`` means.
        table: one table of all answers, shown instead of one row per host.
        failure: why the command as a whole failed; None if it did not.
        view: what a command on the control machine returned.
        warnings: names that now point at different images on different hosts.
    """

    command: str
    arguments: dict[str, Any]
    outcomes: list[Outcome]
    dry_run: bool = False
    looks: bool = False
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
    room = _room(sys.stdout, wide=bool(done.arguments.get("wide")))
    if done.view and done.view.table:
        _print_table(done.view.table, room)
    elif done.view:
        _print_text(done.view.text, room if done.view.folds else None)
    elif done.table and done.arguments.get("csv"):
        _print_csv(done.table)
        for outcome in done.outcomes:
            for line in error_lines(outcome.error.to_json()) if outcome.error else ():
                note(f"{outcome.host}: {at_hosts(line, [outcome.host])}")
    elif done.table:
        _print_table(done.table, room)
        troubled = [o for o in done.outcomes if o.error]
        if troubled:
            if done.table.rows or done.table.notes:
                _print_text("")
            _print_outcomes(done, troubled, room, results=False)
    else:
        _print_outcomes(done, done.outcomes, room)
    wide = bool(done.arguments.get("wide"))
    for warning in done.warnings:
        note("\n".join(warning.lines()), wide=wide)
    if done.failure:
        note("\n".join(error_lines(done.failure.to_json())), wide=wide)


def _room(stream: TextIO, *, wide: bool) -> int | None:
    """The columns of the terminal that a stream is; None for a pipe or a file, and with ``--wide``."""
    if wide or not stream.isatty():
        return None
    given = os.environ.get("COLUMNS", "")
    with suppress(OSError):
        return (
            int(given) if given.isdecimal() and int(given) else os.get_terminal_size(stream.fileno()).columns or _ROOM
        )
    return _ROOM


def _styled(status: Status) -> str:
    """A status in its colour, on a terminal that shows colours to a person who wants them."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return str(status) if plain else layout.Styled(str(status), _COLOURS[status])


def _print_outcomes(done: Done, outcomes: list[Outcome], room: int | None, *, results: bool = True) -> None:
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
        text = at_hosts("\n".join(lines), (o.host for o in group), "" if done.dry_run or done.looks else status)
        rows.append((hosts, _styled(group[0].status), seconds, text))
    verbatim = any(getattr(outcome.result, "verbatim", False) for outcome in outcomes)
    _print_rows(("HOST", "STATUS", "TIME", done.command.upper()), rows, None if verbatim else room)


def _print_table(table: Table, room: int | None) -> None:
    if table.rows:
        _print_rows(table.columns, table.rows, room)
    for line in table.notes:
        _print_text(line, room if table.columns else None)  # without columns, the lines are for a file


def _print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], room: int | None) -> None:
    safe = [[cell if isinstance(cell, layout.Styled) else shown(cell) for cell in row] for row in rows]
    put(sys.stdout, layout.plain(columns, safe) if room is None else layout.fitted(columns, safe, room))


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


def note(text: str, *, wide: bool = False) -> None:
    """Prints a text on stderr, folded for a terminal unless it is to be ``wide``."""
    room = _room(sys.stderr, wide=wide)
    put(sys.stderr, shown(text) if room is None else layout.lines_that_fit(shown(text), room))


def recap(done: Sequence[Done], run_id: str) -> None:
    """Prints how many hosts ended how, as the last line of a run; on stderr where stdout has lines for a file.

    Args:
        run_id: the run whose record has the logs; empty where there is none.
    """
    ends = recap_of(outcome for each in done for outcome in each.outcomes)
    if not ends:
        return
    stream = sys.stderr if any(each.table and not each.table.columns for each in done) else sys.stdout
    counts = (f"{status}={len(hosts)}{_named(status, hosts)}" for status, hosts in ends.items())
    room = _room(stream, wide=any(each.arguments.get("wide") for each in done))
    text = f"RECAP {' '.join(counts)}"
    text = text if room is None else "\n".join(layout.wrapped(text, room))
    logs = [as_started(f"logs: fab show --log --run {run_id}")] if run_id and ends.keys() & BAD else []
    put(stream, "\n".join([*logs, _COUNT.sub(_painted, text)]))


def _named(status: Status, hosts: Sequence[str]) -> str:
    return f" ({names(hosts, every=True)})" if status in BAD else ""


def _painted(count: re.Match[str]) -> str:
    styled = _styled(Status(count[1]))
    return layout.Styled(count[0], styled.sgr).painted if isinstance(styled, layout.Styled) else count[0]


def _print_json(document: dict[str, Any]) -> None:
    """Prints JSON in ASCII: scripts get names exactly as they are, and a terminal gets no control characters."""
    put(sys.stdout, json.dumps(document_as_started(document), indent=2, default=str).replace("\x7f", "\\u007f"))


def _print_text(text: str, room: int | None = None) -> None:
    put(sys.stdout, shown(text) if room is None else layout.lines_that_fit(shown(text), room))


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
