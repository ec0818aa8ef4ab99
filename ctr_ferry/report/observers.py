"""What a command's progress is reported to: the protocol, and the observer that also writes the record."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from ctr_ferry.report.outcome import Answer, Outcome
from ctr_ferry.report.record import Record


class Observer(Protocol):
    """Is called as the work on each host goes on, from the thread that works on the host."""

    def on_start(self, host: str) -> None:
        """Work on a host begins."""

    def on_progress(self, host: str, done: int, total: int | None) -> None:
        """A host has moved ``done`` bytes in this command, of ``total`` if the total is known; from any thread."""

    def on_pause(self, host: str) -> None:
        """Work on a host has ended for now; the command will work on it again."""

    def on_end(self, host: str, seconds: float, answer: Answer) -> None:
        """The command's work on a host has ended after so many seconds, with this answer."""

    def while_asking(self) -> AbstractContextManager[object]:
        """Leaves the terminal to a question as long as the context lasts."""


class RecordingObserver:
    """Passes all on to another observer, and writes each host's outcome into the record as soon as it is known.

    Args:
        show: the observer that shows progress to the operator.
        record: the record of the run.
    """

    def __init__(self, show: Observer, record: Record) -> None:
        self._show, self._record = show, record

    def on_start(self, host: str) -> None:
        """Shows that work on a host begins."""
        self._show.on_start(host)

    def on_progress(self, host: str, done: int, total: int | None) -> None:
        """Shows how many bytes a host has moved."""
        self._show.on_progress(host, done, total)

    def on_pause(self, host: str) -> None:
        """Shows that work on a host has ended for now."""
        self._show.on_pause(host)

    def on_end(self, host: str, seconds: float, answer: Answer) -> None:
        """Records and shows a host's outcome; a fleet command may still replace it when all hosts have ended."""
        outcome = Outcome.of(host, seconds, answer).checked()
        self._record.outcome(outcome)
        self._show.on_end(host, seconds, outcome.error or answer)

    def while_asking(self) -> AbstractContextManager[object]:
        """Leaves the terminal to a question as long as the context lasts."""
        return self._show.while_asking()
