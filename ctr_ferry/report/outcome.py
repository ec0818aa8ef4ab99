"""What one run did on one host, as data."""

from __future__ import annotations

import copy
import dataclasses
import json
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from ctr_ferry.errors import FerryError, InternalError, NotStarted, Unreachable

_MOST_OF_A_FAULT = 400  # characters; Python puts into it what it could not read


class Status(StrEnum):
    """Ansible's words, where it has them."""

    CHANGED = "changed"
    WOULD_CHANGE = "would-change"  # of a dry run
    UNCHANGED = "unchanged"
    OK = "ok"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    SKIPPED = "skipped"

    @classmethod
    def of_all(cls, statuses: Iterable[Status]) -> Status:
        """Of one host's images together: changed where any was, or would be."""
        seen = set(statuses)
        return next((status for status in (cls.CHANGED, cls.WOULD_CHANGE) if status in seen), cls.UNCHANGED)


@runtime_checkable
class Result(Protocol):
    """What a command returns for one host: a dataclass that says of itself whether anything changed."""

    @property
    def status(self) -> Status:
        """changed, unchanged, or ok for a command that only reads; a dry run's changed becomes would-change."""

    def lines(self) -> list[str]:
        """What a person reads of it."""


Answer = Result | FerryError  # what a command returned for a host, or the error that ended it there


@dataclass(frozen=True, slots=True)
class Table:
    """What a person reads of many results, and what ``--csv`` writes: text, one cell a column.

    Attributes:
        apart: the rows for ``--csv``, where ``rows`` group hosts.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    apart: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What a command at the desk returns: data for scripts, and a table or text for people."""

    data: Any
    table: Table | None = None
    text: str = ""


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
        """From what a command returned for a host, or raised."""
        if not isinstance(answer, FerryError):
            return cls(host, answer.status, seconds, answer)
        status = Status.UNREACHABLE if isinstance(answer, Unreachable) else Status.FAILED
        status = Status.SKIPPED if isinstance(answer, NotStarted) else status
        return cls(host, status, seconds, answer.result, answer)

    def checked(self) -> Outcome:
        """Itself, where it can be shown and recorded; else the host's failure: its answer is the matter of no other."""
        try:
            if self.result is not None:
                self.result.lines()
            json.dumps(self.to_json(), default=str)
        except Exception as error:  # noqa: BLE001  (shown, with where it happened)
            return Outcome(self.host, Status.FAILED, self.seconds, error=unforeseen(error))
        return self

    def to_json(self) -> dict[str, Any]:
        """The shape that ``--json`` and run.json have."""
        document: dict[str, Any] = {"host": self.host, "status": self.status, "seconds": round(self.seconds, 3)}
        if self.result is not None:
            document["result"] = dataclasses.asdict(self.result)
        if self.error:
            document["error"] = self.error.to_json()
        return document


_T = TypeVar("_T")


def as_dry_run(value: _T) -> _T:
    """The same result or error, where all that says ``changed`` says ``would-change``: nothing was done."""
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
    """The error that a fault of ours becomes."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return InternalError(
        f"{type(error).__name__}: {str(error)[:_MOST_OF_A_FAULT]}",
        detail=f"at {Path(place.filename).name}:{place.lineno} in {place.name}",
        hint="this is a fault of ctr-ferry: report it with the command line and this message",
    )


def error_lines(error: Mapping[str, str]) -> list[str]:
    """An error's three parts, as a person reads them; ``error`` in the shape that it has in ``--json``."""
    lines = [f"{error['kind']}: {error['message']}"]
    lines += [f"  said: {line}" for line in error["said"].splitlines()]
    return lines + ([f"  try: {error['hint']}"] if error["hint"] else [])


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0 all well · 1 some failed · 4 some unreachable, none failed."""
    statuses = {outcome.status for outcome in outcomes}
    if Status.FAILED in statuses:
        return 1
    return 4 if Status.UNREACHABLE in statuses else 0


def counts(outcomes: Iterable[Outcome]) -> str:
    """How many of each: ``3 changed, 1 failed``."""
    statuses = [outcome.status for outcome in outcomes]
    return ", ".join(f"{statuses.count(status)} {status}" for status in Status if status in statuses)
