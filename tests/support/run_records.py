"""A folder of records of runs, for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctr_ferry.report.outcome import Outcome, Status
from ctr_ferry.report.past_runs import Run
from ctr_ferry.report.record import Record

ID = "20261124T031500Z-retag-1f2e"


@dataclass(frozen=True)
class Did:
    what: object = None
    status: Status = Status.CHANGED

    def lines(self) -> list[str]:
        return []


def whole(folder: Path) -> dict[str, Any]:
    """Read the record in a run's folder."""
    run = Run.read(folder / "run.json")
    assert run
    return run.whole()


class Book:
    """A folder of runs, and the warnings about it. By its clock, no time passes while something is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock: Callable[[], float] = lambda: 0.0
        self.warnings: list[str] = []

    def record(self, run_id: str = ID, hosts: tuple[str, ...] = ("a", "b")) -> Record:
        head = {"hosts": list(hosts), "commands_asked": ["retag"]}
        return Record(self.root / run_id, head, self.warnings.append, self.clock)

    def read(self, run_id: str = ID) -> dict[str, Any]:
        """Read a whole record."""
        return whole(self.root / run_id)

    def run(self, run_id: str, *, dry_run: bool = False, looks: bool = False, **statuses: str) -> None:
        """Write a whole run."""
        record = self.record(run_id, tuple(statuses))
        record._head["asked"] = [{"command": "retag", "dry_run": dry_run, "looks": looks}]
        record.command("retag", {}, dry_run=dry_run)
        record.outcomes([Outcome(host, Status(status), 1.0) for host, status in statuses.items()])
        record.end(0)
