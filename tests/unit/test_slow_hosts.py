"""A slow host costs the others little: its queue is bounded, and it is detached in the end.

Events and a clock that the tests move decide, never how long something takes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest
from fan_outs import (
    BLOBS,
    DATA,
    MOMENT,
    PATIENCE,
    PATIENT,
    Box,
    Clock,
    FakeSource,
    Later,
    Sink,
    begin,
    blob,
    jumping_clock,
    send,
    until,
)

from ctr_ferry.errors import CommandFailed
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.transfer import fan_out, receiver
from ctr_ferry.transfer.fan_out import FanOut
from ctr_ferry.transfer.policy import Pace, Policy


@pytest.fixture
def short_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue of a few chunks for each host, and readers that check often whether it has room."""
    monkeypatch.setattr(receiver, "_QUEUE", 8 << 10)
    monkeypatch.setattr(fan_out, "_MOMENT", MOMENT)


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Has one more for each time that a reader waits for a host whose queue is full."""
    times, wait = threading.Semaphore(0), receiver.Receiver.wait_for_room

    def noted(self: receiver.Receiver, seconds: float) -> bool:
        if self.full:
            times.release()
        return wait(self, seconds)

    monkeypatch.setattr(receiver.Receiver, "wait_for_room", noted)
    return times


@pytest.mark.usefixtures("short_queue")
def test_a_slow_host_holds_up_the_others_by_its_queue_alone(blocked: threading.Semaphore) -> None:
    gate = threading.Event()
    slow, quick = Box("slow", on_write=lambda _box, _each: gate.wait(PATIENCE)), Box("quick")
    source = FakeSource(DATA)
    running = begin(source, [(slow, BLOBS), (quick, BLOBS)])
    assert blocked.acquire(timeout=PATIENCE)
    assert quick.taken <= (8 << 10) + 4 * 1024  # in memory: the queue, and what is on its way in each reader
    assert source.given <= (8 << 10) + 4 * 1024
    gate.set()
    assert {name: later.result() for name, later in running.items()} == {"slow": {}, "quick": {}}
    assert slow.came == quick.came == DATA
    assert source.read_how_often == dict.fromkeys(BLOBS, 1)


@pytest.mark.usefixtures("short_queue")
@pytest.mark.parametrize("policy", [Policy(), Policy(stuck_after=float("inf"))], ids=["stuck", "moving"])
def test_a_host_that_holds_up_the_others_for_long_is_served_alone(policy: Policy) -> None:
    gate, clock = threading.Event(), Clock()
    slow, quick = Box("slow", on_write=lambda _box, _each: gate.wait(PATIENCE)), Box("quick")
    running = begin(FakeSource(DATA), [(slow, BLOBS), (quick, BLOBS)], clock, policy)
    clock.run_until(lambda: not running["quick"].is_alive())
    assert running["quick"].result() == {}
    assert quick.came == DATA and running["slow"].is_alive()
    assert slow.taken == 0 and clock.now > policy.patience
    gate.set()
    assert running["slow"].result() == {}
    assert slow.came == DATA


@pytest.mark.usefixtures("short_queue")
def test_no_host_is_detached_while_no_time_passes() -> None:
    clock, gate = Clock(), threading.Semaphore(0)
    slow = Box("slow", on_write=lambda _box, _each: gate.acquire(timeout=PATIENCE))
    source, quick = FakeSource(DATA), Box("quick")
    running = begin(source, [(slow, BLOBS), (quick, BLOBS)], clock)
    until(lambda: not running["slow"].is_alive(), step=gate.release)
    assert [later.result() for later in running.values()] == [{}, {}]
    assert source.read_how_often == dict.fromkeys(BLOBS, 1)


class Impatient(Policy):
    """A policy by which a host is too slow as soon as it has cost others anything."""

    def is_too_slow(self, pace: Pace, began: float, now: float) -> bool:  # noqa: ARG002
        return pace.delay > 0


@dataclass(frozen=True)
class NotedPolicy(Impatient):
    """Notes how many hosts are detached, and when one may not be."""

    detached: list[int] = field(default_factory=list)
    refused: threading.Event = field(default_factory=threading.Event)

    def may_detach(self, pace: Pace, now: float, *, full: bool, detached: int) -> bool:
        may = super().may_detach(pace, now, full=full, detached=detached)
        self.detached.append(detached + may)
        if not may:
            self.refused.set()
        return may


@pytest.mark.usefixtures("short_queue")
@pytest.mark.parametrize("writes", ["short", "long"])
def test_no_more_hosts_are_detached_than_are_served_at_once_where_they_still_move(writes: str) -> None:
    """A long write lasts until a host may not be detached."""
    policy = NotedPolicy(stuck_after=float("inf"))

    def write(_box: Box, _each: Descriptor) -> bool:
        return writes == "short" or policy.refused.wait(PATIENCE)

    boxes = [*(Box(f"slow{n}", on_write=write) for n in range(6)), Box("quick")]
    running = begin(FakeSource(DATA), [(box, BLOBS) for box in boxes], jumping_clock(), policy)
    assert [later.result() for later in running.values()] == [{}] * 7
    assert all(box.came == DATA for box in boxes)
    assert max(policy.detached, default=0) <= 3
    assert writes == "short" or (policy.refused.is_set() and max(policy.detached) == 3)


@pytest.mark.usefixtures("short_queue")
def test_what_a_detached_host_is_stuck_with_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, clock = threading.Event(), Clock()
    pipes: list[receiver.Pipe] = []
    begun = receiver.Receiver.begun

    def noted(host: receiver.Receiver, pipe: receiver.Pipe) -> None:
        pipes.append(pipe)
        begun(host, pipe)

    monkeypatch.setattr(receiver.Receiver, "begun", noted)
    big = {blob(bytes(1 << 20)): bytes(1 << 20)}
    slow, quick = Box("slow", on_write=lambda _box, _each: gate.wait(PATIENCE)), Box("quick")
    running = begin(FakeSource(big), [(slow, list(big)), (quick, list(big))], clock)
    clock.run_until(lambda: not running["quick"].is_alive())
    assert running["quick"].result() == {}
    assert sum(len(chunk or b"") for pipe in pipes for chunk in pipe._chunks) <= 10 << 10
    gate.set()
    assert running["slow"].result() == {}


@pytest.mark.usefixtures("short_queue")
def test_a_write_that_fails_leaves_room_for_others() -> None:
    refused = set(BLOBS[:4])

    def refuse(_box: Box, each: Descriptor) -> bool:
        if each in refused:
            raise CommandFailed("no")
        return True

    box = Box("a", on_write=refuse)
    detail = send(FakeSource(DATA), [(box, BLOBS)])
    assert isinstance(detail["a"], dict) and set(detail["a"]) == {each.digest for each in refused}
    assert set(box.came) == set(BLOBS[4:])


@pytest.mark.usefixtures("short_queue")
def test_a_host_is_not_blamed_for_what_it_waited_for_itself(blocked: threading.Semaphore) -> None:
    class Lazy(Box):
        """Opens a blob only when a reader has waited for it."""

        def sink(self, each: Descriptor) -> Sink:
            assert blocked.acquire(timeout=PATIENCE)
            return super().sink(each)

    box = Lazy("a", on_write=lambda _box, _each: False)  # as where all is there already
    source = FakeSource({blob(data): data for data in (bytes([n]) * 10_000 for n in range(40))})
    running = begin(source, [(box, list(source.has))], jumping_clock(), Impatient())
    assert running["a"].result() == {}
    assert set(box.came) == set(source.has)
    assert source.read_how_often == dict.fromkeys(source.has, 1)


@pytest.mark.usefixtures("short_queue")
def test_a_host_that_lacks_a_blob_in_the_end_does_not_wait_for_slow_ones() -> None:
    detached, gate, clock = threading.Event(), threading.Event(), Clock()

    def write(box: Box, each: Descriptor) -> bool:
        return (detached if box.opened[each] == 1 else gate).wait(PATIENCE)

    slow, quick = [Box(f"slow{n}", on_write=write) for n in range(5)], Box("quick")
    together = FanOut([box.name for box in (*slow, quick)], FakeSource(DATA), PATIENT, clock)
    running = [Later(partial(together.send, box.name, BLOBS, box.sink)) for box in (*slow, quick)]
    clock.run_until(lambda: not running[-1].is_alive())
    detached.set()
    until(lambda: sum(max(box.opened.values()) > 1 for box in slow) == 3)  # all that are served alone at once
    again = Later(partial(together.send, "quick", BLOBS[:1], quick.sink))
    assert again.result() == {} and all(later.is_alive() for later in running[:-1])
    gate.set()
    assert [later.result() for later in running] == [{}] * 6


@pytest.mark.usefixtures("short_queue")
def test_a_slow_host_does_not_keep_the_readers_busy_with_blobs_that_it_alone_wants() -> None:
    gate, clock = threading.Event(), Clock()
    slow, quick = Box("slow", on_write=lambda _box, _each: gate.wait(PATIENCE)), Box("quick")
    running = begin(FakeSource(DATA), [(slow, BLOBS[3:]), (quick, BLOBS[:3])], clock)
    clock.run_until(lambda: not running["quick"].is_alive())
    assert running["quick"].result() == {}
    assert running["slow"].is_alive()
    gate.set()
    assert running["slow"].result() == {}
    assert set(slow.came) == set(BLOBS[3:])


@pytest.mark.usefixtures("short_queue")
def test_detached_hosts_take_no_more_of_the_source_than_leaves_the_others_their_readers() -> None:
    gate, clock, reading, most, lock = threading.Event(), Clock(), 0, 0, threading.Lock()

    class Counted(FakeSource):
        def _chunks(self, each: Descriptor) -> Iterator[bytes]:
            nonlocal reading, most
            with lock:
                reading, most = reading + 1, max(most, reading + 1)
            try:
                yield from super()._chunks(each)
            finally:
                with lock:
                    reading -= 1

    slow = [Box(f"slow{n}", on_write=lambda _box, _each: gate.wait(PATIENCE)) for n in range(7)]
    quick = Box("quick")
    running = begin(Counted(DATA), [(box, BLOBS) for box in [*slow, quick]], clock)
    clock.run_until(lambda: not running["quick"].is_alive())
    assert running["quick"].result() == {}
    gate.set()
    assert [later.result() for later in running.values()] == [{}] * 8
    assert all(box.came == DATA for box in slow)
    assert most <= 2 + 4


def test_thousands_of_tiny_blobs_take_no_thousands_of_threads(blocked: threading.Semaphore) -> None:
    tiny = {blob(data): data for data in (str(n).encode() for n in range(2000))}
    gate, most = threading.Event(), 0

    def count(_each: Descriptor, _at: int) -> None:
        nonlocal most
        most = max(most, threading.active_count())

    before = threading.active_count()
    box = Box("a", on_write=lambda _box, _each: gate.wait(PATIENCE))
    running = begin(FakeSource(tiny, break_in=count), [(box, list(tiny))])
    assert blocked.acquire(timeout=PATIENCE)
    gate.set()
    assert running["a"].result() == {}
    assert box.came == tiny
    assert most - before < 50
