"""Shows how work on hosts goes on, on stderr: live lines on a terminal, elsewhere a line for each finished host."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext

from ctr_ferry.report.outcome import Outcome
from ctr_ferry.report.render import put
from ctr_ferry.text import shown


class Observer:
    """Is called as the work on each host goes on, from the thread that works on the host. This one shows nothing."""

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def on_start(self, host: str) -> None:
        """Work on a host begins."""

    def on_progress(self, host: str, done: int, total: int | None) -> None:
        """A host has moved ``done`` bytes in this command, of ``total`` if the total is known; from any thread."""

    def on_pause(self, host: str) -> None:
        """Work on a host has ended for now; the command will work on it again."""

    def on_end(self, outcome: Outcome) -> None:
        """The command's work on a host has ended."""

    def while_asking(self) -> AbstractContextManager[object]:
        """Leaves the terminal to a question as long as the context lasts."""
        return nullcontext()


class LineDisplay(Observer):
    """Prints one line for each finished host."""

    def on_end(self, outcome: Outcome) -> None:
        """Prints the host's line in one write, so that lines of several threads never mix."""
        put(sys.stderr, f"{shown(outcome.host)}: {outcome.status} ({outcome.seconds:.1f} s)")


def display(command: str, hosts: int) -> Observer:
    """The observer that fits: live lines on a terminal; elsewhere plain lines, and nothing for one host."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from ctr_ferry.report.live import LiveDisplay  # imports Rich, which a script does not need

        return LiveDisplay(command, hosts)
    return LineDisplay() if hosts > 1 else Observer()
