"""Shows progress on a terminal: a live line for each busy host, and one for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ctr_ferry.report.observer import Observer
from ctr_ferry.report.outcome import Outcome
from ctr_ferry.text import shown

_REFRESHES = 4  # per second


@dataclass(frozen=True, slots=True)
class _Bytes:
    """The bytes that a host has moved, their total (None if unknown), and when the first of them moved."""

    done: int
    total: int | None
    since: float

    @classmethod
    def all(cls, each: Collection[_Bytes]) -> _Bytes:
        totals = [one.total for one in each if one.total is not None]
        since = min((one.since for one in each), default=0.0)
        return cls(sum(one.done for one in each), sum(totals) if len(totals) == len(each) else None, since)

    def cells(self, now: float) -> tuple[RenderableType, ...]:
        """The cells for bar, bytes, rate and time left; none if no bytes move."""
        if not self.done and not self.total:
            return ()
        rate = self.done / max(now - self.since, 0.1)
        size = decimal(self.done) + (f" of {decimal(self.total)}" if self.total else "")
        left = f"{(self.total - self.done) / rate:.0f} s left" if self.total and rate else ""
        bar = ProgressBar(total=self.total, completed=self.done, width=20) if self.total else ""
        return bar, size, f"{decimal(int(rate))}/s", left


class LiveDisplay(Observer):
    """Shows all busy hosts with their times, and how many hosts are done, as long as the command runs."""

    def __init__(self, command: str, total: int, console: Console | None = None) -> None:
        self._command, self._total, self._console = command, total, console or Console(stderr=True)
        self._since: dict[str, float] = {}
        self._moved: dict[str, _Bytes] = {}
        self._done = 0
        self._lock = threading.Lock()
        self._live = Live(
            console=self._console, get_renderable=self._draw, refresh_per_second=_REFRESHES, transient=True
        )

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the terminal may be closed
            self._live.stop()

    def on_start(self, host: str) -> None:
        """Adds the host's line."""
        with self._lock:
            self._since[host] = time.monotonic()

    def on_progress(self, host: str, done: int, total: int | None) -> None:
        """Notes the host's bytes for its line."""
        with self._lock:
            first = self._moved.get(host)
            self._moved[host] = _Bytes(done, total, first.since if first else time.monotonic())

    def on_pause(self, host: str) -> None:
        """Removes the host's line for now."""
        with self._lock:
            self._since.pop(host, None)

    def on_end(self, outcome: Outcome) -> None:
        """Removes the host's line, and counts the host as done."""
        with self._lock:
            self._since.pop(outcome.host, None)
            self._moved.pop(outcome.host, None)
            self._done += 1

    @contextmanager
    def while_asking(self) -> Iterator[None]:
        """Clears the display from the terminal as long as the context lasts."""
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def _draw(self) -> Table:
        with self._lock:
            busy, done, moved = dict(self._since), self._done, dict(self._moved)
        rows = Table.grid(padding=(0, 2))
        room = max(1, self._console.size.height - 2)
        now = time.monotonic()
        for host, since in list(busy.items())[:room]:
            cells = moved[host].cells(now) if host in moved else ()
            rows.add_row(Text(shown(host)), self._command, f"{now - since:.0f} s", *cells)  # a name is no markup
        rows.add_row(
            f"{done} of {self._total} done", f"{len(busy)} at work", "", *_Bytes.all(moved.values()).cells(now)
        )
        return rows
