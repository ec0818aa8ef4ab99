"""What one run did on one host, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from tasks.errors import FerryError, Unreachable


class Status(StrEnum):
    """Ansible's words, where it has them."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    OK = "ok"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    SKIPPED = "skipped"


@runtime_checkable
class Result(Protocol):
    """What a command returns for one host: a dataclass that says of itself whether anything changed."""

    @property
    def status(self) -> Status:
        """changed, unchanged, or ok for a command that only reads."""

    def lines(self) -> list[str]:
        """What a person reads of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One command on one host."""

    host: str
    status: Status
    seconds: float
    result: Any = None
    error: FerryError | None = None

    @classmethod
    def of(cls, host: str, seconds: float, result: Result) -> Outcome:
        """A command that came to its end."""
        return cls(host, result.status, seconds, result)

    @classmethod
    def of_error(cls, host: str, seconds: float, error: FerryError) -> Outcome:
        """A command that did not."""
        status = Status.UNREACHABLE if isinstance(error, Unreachable) else Status.FAILED
        return cls(host, status, seconds, error.result, error)

    def to_json(self) -> dict[str, Any]:
        """The shape that ``--json`` and run.json have."""
        document: dict[str, Any] = {
            "host": self.host,
            "status": self.status,
            "seconds": round(self.seconds, 3),
        }
        if self.result is not None:
            document["result"] = dataclasses.asdict(self.result)
        if self.error:
            document["error"] = self.error.to_json()
        return document


def exit_code(outcomes: list[Outcome]) -> int:
    """0 all well · 1 some failed · 4 some unreachable, none failed."""
    statuses = {outcome.status for outcome in outcomes}
    if Status.FAILED in statuses:
        return 1
    return 4 if Status.UNREACHABLE in statuses else 0
