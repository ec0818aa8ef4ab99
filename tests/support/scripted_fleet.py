"""A fleet of machines that only note what happens to them, for tests of the scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any, cast

from ctr_ferry.report.outcome import Answer, Outcome, Status
from ctr_ferry.run.command import CommonOptions
from ctr_ferry.run.scheduler import Fleet
from ctr_ferry.ssh.host import Host


@dataclass(frozen=True)
class Did:
    what: object = None
    status: Status = Status.OK

    def lines(self) -> list[str]:
        return []


@dataclass
class Machine:
    """The part of a host that a fleet uses."""

    name: str
    asked: int = 0
    failed: bool = False
    dry_run: bool = False
    closed: int = 0
    cut: threading.Event = field(default_factory=threading.Event)

    def begin(self, *, dry_run: bool, moved: Callable[[int, int | None], None]) -> None:
        self.dry_run, self.moved = dry_run, moved

    def mark_failed(self) -> None:
        self.failed = True

    @property
    def abandoned(self) -> bool:
        return self.cut.is_set()

    def abandon(self) -> None:
        self.cut.set()

    def close_quietly(self) -> None:
        self.closed += 1


@dataclass
class Notebook:
    """An observer and a record that note what they are called with."""

    begun: list[str] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    ended: dict[str, Answer] = field(default_factory=dict)
    has_ended: dict[str, threading.Event] = field(
        default_factory=lambda: {name: threading.Event() for name in ascii_lowercase}
    )
    bytes: tuple[str, int, int | None] | None = None

    def on_start(self, host: str) -> None:
        self.begun.append(host)

    def on_progress(self, host: str, done: int, total: int | None) -> None:
        self.bytes = (host, done, total)

    def on_pause(self, host: str) -> None:
        pass

    def record(self, outcome: Outcome) -> None:
        self.recorded.append(outcome.host)

    def on_end(self, outcome: Outcome) -> None:
        assert outcome.seconds >= 0
        self.ended[outcome.host] = outcome.error or outcome.result
        self.has_ended[outcome.host].set()


class ScriptedFleet:
    """A fleet of machines a, b, c…"""

    def __init__(self, count: int, workers: int = 32) -> None:
        self.machines = {name: Machine(name) for name in ascii_lowercase[:count]}
        self.notebook, self.workers = Notebook(), workers
        self.gone = {name: threading.Event() for name in self.machines}  # by host; a test's own work sets them

    def begin(self, *, last: bool = True, **options: Any) -> Fleet:
        """Begins one command of the line."""
        self.fleet = Fleet(
            cast(dict[str, Host], self.machines),
            CommonOptions(**options),
            cast(Any, self.notebook),
            self.notebook.record,
            workers=self.workers,
            last=last,
            further=lambda pattern: cast(Any, [Machine(name) for name in pattern]),
        )
        return self.fleet

    def each(
        self,
        work: Callable[[Any], Any],
        *,
        last: bool = True,
        close: bool = True,
        looks: bool = False,
        done: dict[str, Answer] | None = None,
        **options: Any,
    ) -> dict[str, Answer]:
        return self.begin(last=last, **options).each(work, close=close, looks=looks, done=done)
