"""The signals that end a run: Ctrl-C, SIGTERM, and SIGHUP of a terminal that was closed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType

_MOMENT = 5.0  # seconds after a signal in which further ones change nothing: the run writes down how it ended


class Terminated(BaseException):
    """SIGTERM or SIGHUP, as an exception in the main thread. Like KeyboardInterrupt, it passes ``except Exception``."""


class Interrupts:
    """A block in which such a signal raises KeyboardInterrupt or Terminated, once.

    A signal that is ignored, as under nohup, stays ignored. Once a signal came, the block's end changes nothing, so
    that a second Ctrl-C cannot change the exit status.

    Args:
        clock: tells the time, in seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._came = clock, float("-inf")
        signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        self._before = {number: handler for number, handler in signals.items() if handler is not signal.SIG_IGN}

    def __enter__(self) -> Interrupts:
        for number in self._before:
            signal.signal(number, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        if self._came == float("-inf"):
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def over(self) -> None:
        """Says that the run has its verdict: a signal within a moment changes nothing any more."""
        self._came = self._clock()

    def _end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now = self._clock()
        if now < self._came + _MOMENT:
            return
        self._came = now
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated
