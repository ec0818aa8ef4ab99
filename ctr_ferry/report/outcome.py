"""What one command did on one host, as data."""

from __future__ import annotations

import copy
import dataclasses
import json
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from ctr_ferry.errors import ErrorData, FerryError, InternalError, NotStarted, Unreachable
from ctr_ferry.report import hints
from ctr_ferry.report.hints import as_started

_MOST_OF_A_FAULT = 400  # characters; Python's message may quote all of the text that it could not read


class Status(StrEnum):
    """How a command ended on a host, in Ansible's words where Ansible has them."""

    CHANGED = "changed"
    WOULD_CHANGE = "would-change"  # of a dry run
    UNCHANGED = "unchanged"
    OK = "ok"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    SKIPPED = "skipped"

    @classmethod
    def of_all(cls, statuses: Iterable[Status]) -> Status:
        """The status of a host from those of its images: changed if any image was changed, or would be."""
        seen = set(statuses)
        return next((status for status in (cls.CHANGED, cls.WOULD_CHANGE) if status in seen), cls.UNCHANGED)


BAD = frozenset({Status.FAILED, Status.UNREACHABLE})
_WORST_FIRST = [
    *(Status.FAILED, Status.UNREACHABLE, Status.SKIPPED),
    *(Status.CHANGED, Status.WOULD_CHANGE, Status.UNCHANGED, Status.OK),
]


@runtime_checkable
class Result(Protocol):
    """What a command returns for one host: a dataclass that knows whether anything changed."""

    @property
    def status(self) -> Status:
        """changed or unchanged; ok for a command that only reads. A dry run turns changed into would-change."""

    def lines(self) -> list[str]:
        """The lines that a person reads."""


Answer = Result | FerryError  # what a command returned for a host, or the error that ended it there


@dataclass(frozen=True, slots=True)
class Table:
    """One table of many results, for people and for ``--csv``.

    Attributes:
        columns: the headings.
        rows: the cells of each row, one per column.
        notes: lines below the table.
        apart: the rows for ``--csv``, if ``rows`` group several hosts in one.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    apart: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What a command on the control machine returns: data for scripts, and a table or text for people.

    Attributes:
        folds: whether the text may be folded on a terminal, and its digests be shortened.
        failure: what is wrong with what is shown; it gives the exit status.
    """

    data: Any
    table: Table | None = None
    text: str = ""
    folds: bool = True
    failure: FerryError | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One command on one host."""

    host: str
    status: Status
    seconds: float
    result: Any = None
    error: FerryError | None = None

    @classmethod
    def of(cls, host: str, seconds: float, answer: Answer) -> Outcome:
        """The outcome of a command that took so many seconds on a host."""
        if not isinstance(answer, FerryError):
            return cls(host, answer.status, seconds, result=answer)
        status = Status.FAILED
        if isinstance(answer, Unreachable):
            status = Status.UNREACHABLE
        elif isinstance(answer, NotStarted):
            status = Status.SKIPPED
        return cls(host, status, seconds, result=answer.result, error=answer)

    def lines(self) -> list[str]:
        """The lines of the result, if there is one."""
        return [] if self.result is None else list(self.result.lines())

    def lines_there(self) -> list[str]:
        """The lines, with the host in their hints."""
        return [hints.at_hosts(line, [self.host]) for line in self.lines()]

    def checked(self) -> Outcome:
        """This outcome, if it can be shown and recorded; else a failed one, so that other hosts keep theirs."""
        try:
            self.lines()
            json.dumps(self.to_json(), default=str)
        except Exception as error:  # noqa: BLE001  (shown, with where it happened)
            return Outcome(self.host, Status.FAILED, self.seconds, error=unforeseen(error))
        return self

    def to_json(self) -> dict[str, Any]:
        """The outcome as ``--json`` and run.json have it."""
        document: dict[str, Any] = {"host": self.host, "status": self.status, "seconds": round(self.seconds, 3)}
        if self.result is not None:
            document["result"] = dataclasses.asdict(self.result)
        if self.error:
            document["error"] = self.error.to_json()
        return hints.for_host(document, self.host)


_T = TypeVar("_T")


def as_dry_run(value: _T) -> _T:
    """The same result or error, with ``would-change`` for every ``changed``, since nothing was done."""
    if value is Status.CHANGED:
        return Status.WOULD_CHANGE  # type: ignore[return-value]
    if type(value) in (tuple, list):
        return type(value)(map(as_dry_run, value))  # type: ignore[call-arg,call-overload]
    if isinstance(value, FerryError):
        value.result = as_dry_run(value.result)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    changed = copy.copy(value)
    for field in dataclasses.fields(value):
        object.__setattr__(changed, field.name, as_dry_run(getattr(value, field.name)))
    return changed


def unforeseen(error: Exception) -> InternalError:
    """The error that stands for a fault of ours, with the place where it happened."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return InternalError(
        f"{type(error).__name__}: {str(error)[:_MOST_OF_A_FAULT]}",
        detail=f"at {Path(place.filename).name}:{place.lineno} in {place.name}",
        hint="this is a fault of ctr-ferry: report it with this message and the log: fab show --log",
    )


def error_lines(error: ErrorData) -> list[str]:
    """The lines of an error that a person reads; takes the error as ``--json`` has it."""
    lines = [f"{error['kind']}: {error['message']}"]
    lines += [f"  said: {line}" for line in error["said"].splitlines()]
    if error["hint"]:
        lines.append(f"  try: {as_started(error['hint'])}")
    return lines


def recap(outcomes: Iterable[Outcome]) -> dict[Status, list[str]]:
    """The hosts of a run that ended with each status. A host of several commands counts once, with its worst status."""
    worst: dict[str, Status] = {}
    for outcome in outcomes:
        before = worst.get(outcome.host, outcome.status)
        worst[outcome.host] = min(before, outcome.status, key=_WORST_FIRST.index)
    hosts = {status: [host for host, its in worst.items() if its is status] for status in Status}
    return {status: its for status, its in hosts.items() if its}


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0 if all is well, 1 if some host failed, 4 if some host was unreachable and none failed."""
    statuses = {outcome.status for outcome in outcomes}
    if Status.FAILED in statuses:
        return 1
    return 4 if Status.UNREACHABLE in statuses else 0
