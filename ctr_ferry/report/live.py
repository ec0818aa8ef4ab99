"""Shows progress on a terminal: a live line for each busy host, and one for all."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ctr_ferry.report.observer import Observer
from ctr_ferry.report.outcome import Outcome
from ctr_ferry.text import shown, size

_REFRESHES = 4  # per second
_WINDOW = 5.0  # seconds over which a rate is taken
_BETWEEN_SAMPLES = 0.25  # seconds
_NARROW = 100  # columns; narrower terminals have no room for a bar


class _Bytes:
    """The bytes that a host has moved, their total (None if unknown), and how they came in the last seconds."""

    def __init__(self, done: int, total: int | None, now: float) -> None:
        self.done, self.total = done, total
        self._samples = deque([(now, done)])

    def update(self, done: int, total: int | None, now: float) -> None:
        """Takes the host's new numbers. Bytes that became fewer are those of something else."""
        if done < self.done:
            self._samples.clear()
        self.done, self.total = done, total
        if not self._samples or now - self._samples[-1][0] >= _BETWEEN_SAMPLES:
            self._samples.append((now, done))

    def rate(self, now: float) -> float:
        """Bytes per second, over the last seconds."""
        while len(self._samples) > 1 and self._samples[1][0] <= now - _WINDOW:
            self._samples.popleft()
        since, done = self._samples[0]
        return (self.done - done) / max(now - since, _BETWEEN_SAMPLES)


def _cells(each: Collection[_Bytes], now: float, *, bar: bool) -> tuple[RenderableType, ...]:
    """The cells for bar, bytes, rate and time left, of one host or of all; none if no bytes move."""
    done, rate = sum(one.done for one in each), sum(one.rate(now) for one in each)
    totals = [one.total for one in each if one.total is not None]
    total = sum(totals) if len(totals) == len(each) else None
    if not done and not total:
        return ()
    moved = size(done) + (f" of {size(total)}" if total else "")
    left = f"{_clock((total - done) / rate)} left" if total and rate >= 1 and total >= done else ""
    cells = Text(moved, justify="right"), Text(f"{size(int(rate))}/s", justify="right"), Text(left, justify="right")
    bars = [ProgressBar(total=total, completed=done, width=16) if total else ""] if bar else []
    return *bars, *cells


def _clock(seconds: float) -> str:
    """A time such as ``0:07``, ``1:23`` or ``1:02:03``."""
    minutes, rest = divmod(min(int(seconds), 359_999), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


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
            now = time.monotonic()
            if host in self._moved:
                self._moved[host].update(done, total, now)
            else:
                self._moved[host] = _Bytes(done, total, now)

    def on_pause(self, host: str) -> None:
        """Removes the host's line for now."""
        with self._lock:
            self._since.pop(host, None)

    def on_end(self, outcome: Outcome) -> None:
        """Removes the host's line, and counts the host as done. What it moved still counts for the whole."""
        with self._lock:
            self._since.pop(outcome.host, None)
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
        """A line for each busy host: its bytes, or else what is being done and for how long; and a line for all."""
        bar = self._console.size.width >= _NARROW
        rows = Table.grid(padding=(0, 2))
        rows.add_column(overflow="ellipsis")  # the one column that may be cut
        for _ in range(4 + bar):
            rows.add_column(no_wrap=True)
        room = max(1, self._console.size.height - 2)
        now = time.monotonic()
        with self._lock:
            for host, since in list(self._since.items())[:room]:
                name = Text(shown(host), no_wrap=True, overflow="ellipsis")  # a name is no markup
                cells = _cells([self._moved[host]], now, bar=bar) if host in self._moved else ()
                rows.add_row(name, self._command if cells else f"{self._command} {_clock(now - since)}", *cells)
            whole = _cells(self._moved.values(), now, bar=bar)
            rows.add_row(f"{self._done} of {self._total} done", f"{len(self._since)} busy", *whole)
        return rows
