"""Which hosts of a fan-out are too slow for the others, and which of these are detached, to be served alone.

Nothing here reads a clock: each method takes the time, in seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class Pace:
    """How one host keeps up.

    Attributes:
        waiting: bytes that wait for the host.
        delay: seconds that other hosts have lost because of it; a second that two readers report counts once.
    """

    def __init__(self, now: float) -> None:
        self.waiting, self.delay = 0, 0.0
        self._idle_since = self._taken_at = self._charged_until = now

    def add(self, size: int, now: float) -> None:
        """Counts bytes that wait for the host from now on; a negative size counts bytes that it has taken."""
        if size < 0 or not self.waiting:
            self._taken_at = now
        self.waiting += size
        if size and not self.waiting:
            self._idle_since = now

    def idle(self, since: float, now: float) -> float:
        """Returns how many of these seconds nothing waited for the host (its sshd may still have had something)."""
        return 0.0 if self.waiting else max(0.0, now - max(since, self._idle_since))

    def unmoved(self, now: float) -> float:
        """Returns for how many seconds the host has taken nothing."""
        return now - self._taken_at

    def charge(self, since: float, now: float) -> None:
        """Counts these seconds as lost by others because of the host."""
        self.delay += max(0.0, now - max(since, self._charged_until))
        self._charged_until = max(now, self._charged_until)


@dataclass(frozen=True, slots=True)
class Policy:
    """When a host is detached, and when it is waited for no more.

    Attributes:
        patience: seconds that a host may cost the others; half of the time so far is always allowed.
        stuck_after: seconds without taking anything after which a host whose queue is full counts as stuck.
        slots: how many detached hosts are served at once.
        absent: seconds without a newcomer after which a batch begins without the hosts that are not there yet.
    """

    patience: float = 10.0
    stuck_after: float = 5.0
    slots: int = 3
    absent: float = 20.0

    def charge(self, behind: Iterable[Pace], others: Iterable[Pace], since: float, now: float) -> None:
        """Charges hosts that a reader waited for with the time that others were idle; the longest idle one counts.

        Args:
            behind: the hosts whose queues were full.
            others: the hosts that could have been given something.
            since, now: when the wait began and ended.
        """
        lost = max((pace.idle(since, now) for pace in others), default=0.0)
        for pace in behind:
            pace.charge(now - lost, now)

    def is_too_slow(self, pace: Pace, began: float, now: float) -> bool:
        """Tells whether a host has cost the others too much since the fan-out began."""
        return pace.delay > max(self.patience, (now - began) / 2)

    def may_detach(self, pace: Pace, now: float, *, full: bool, detached: int) -> bool:
        """Tells whether a host that is too slow can be detached: if it is stuck, or if a slot is free.

        A host that still moves would be worse off while it waits for a slot.

        Args:
            full: whether the host's queue is full.
            detached: how many hosts are detached and not yet served.
        """
        return (full and pace.unmoved(now) > self.stuck_after) or detached < self.slots
