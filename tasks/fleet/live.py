"""How a run goes on, on stderr: a line for each busy host on a terminal, a line for each finished one elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tasks.fleet.crew import Answer
from tasks.fleet.outcome import Outcome

_REFRESHES = 4  # a second


class Quiet:
    """For one host, whose result says it all."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def busy(self, host: str) -> None:
        """Nothing to show."""

    def rest(self, host: str) -> None:
        """Nothing to show."""

    def done(self, host: str, seconds: float, answer: Answer) -> None:
        """Nothing to show."""

    def paused(self) -> AbstractContextManager[object]:
        """Nothing that could be in the way."""
        return nullcontext()


class Lines(Quiet):
    """One line a finished host."""

    def done(self, host: str, seconds: float, answer: Answer) -> None:
        """Prints it, in one write, so that lines of several threads never mix."""
        sys.stderr.write(f"{host}: {Outcome.of(host, seconds, answer).status} ({seconds:.1f} s)\n")


class Busy(Quiet):
    """The busy hosts, each with its time, and how many are done; gone when the command ends."""

    def __init__(self, command: str, total: int, console: Console) -> None:
        self._command, self._total, self._console = command, total, console
        self._since: dict[str, float] = {}
        self._done = 0
        self._lock = threading.Lock()
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=_REFRESHES, transient=True)

    def __enter__(self) -> Busy:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def busy(self, host: str) -> None:
        """A line more."""
        with self._lock:
            self._since[host] = time.monotonic()

    def rest(self, host: str) -> None:
        """A line less."""
        with self._lock:
            self._since.pop(host, None)

    def done(self, host: str, seconds: float, answer: Answer) -> None:  # noqa: ARG002
        """A line less, and a host more that is done."""
        with self._lock:
            self._since.pop(host, None)
            self._done += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Gone from the terminal for a while."""
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def _draw(self) -> Table:
        with self._lock:
            busy, done = dict(self._since), self._done
        rows = Table.grid(padding=(0, 2))
        room = max(1, self._console.size.height - 2)
        now = time.monotonic()
        for host, since in list(busy.items())[:room]:
            rows.add_row(host, self._command, f"{now - since:.0f} s")
        rows.add_row(f"{done} of {self._total} done", f"{len(busy)} at work", "")
        return rows


def watch(command: str, hosts: int) -> Quiet:
    """What fits: nothing for one host, a live display on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        return Busy(command, hosts, Console(stderr=True))
    return Lines() if hosts > 1 else Quiet()
