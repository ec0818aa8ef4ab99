"""Blobs to many hosts at once, without hosts: what is read how often, who waits for whom, what a fault costs.

Events and a clock that the tests move decide, never how long something takes.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest

from ctr_ferry.errors import (
    CommandFailed,
    ConnectionLost,
    ContentCorrupt,
    ContentMissing,
    DaemonUnreachable,
    DiskFull,
    FerryError,
    InternalError,
    RemoteTimeout,
    SourceLost,
)
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.transfer import fan_out, receiver
from ctr_ferry.transfer.fan_out import FanOut
from ctr_ferry.transfer.policy import Pace, Policy

PATIENCE = 60  # seconds, after which a test that hangs says so
MOMENT = 0.002  # seconds between two looks at something that is about to be true


def blob(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


@dataclass
class FakeSource:
    """A source; ``has`` is what it gives, in chunks of a KiB."""

    has: dict[Descriptor, bytes]
    readers: int = 2
    name: str = "shelf"
    read_how_often: dict[Descriptor, int] = field(default_factory=dict)
    given: int = 0
    break_in: Callable[[Descriptor, int], None] = lambda _blob, _at: None
    stalls: Callable[[Descriptor, int], bool] = lambda _blob, _at: False

    def holder(self, blob: Descriptor) -> str:  # noqa: ARG002
        return self.name

    def read(self, wanted: Iterable[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        for each in wanted:
            self.read_how_often[each] = self.read_how_often.get(each, 0) + 1
            yield each, self._chunks(each)

    def _chunks(self, each: Descriptor) -> Iterator[bytes]:
        data = self.has[each]
        for at in range(0, len(data), 1024):
            self.break_in(each, at)
            while self.stalls(each, at):
                threading.Event().wait(MOMENT)
                yield b""
            self.given += 1024
            yield data[at : at + 1024]


@dataclass(eq=False)
class Box:
    """A host: what came, and how its sinks behave."""

    name: str
    on_write: Callable[[Box, Descriptor], bool] = lambda _box, _blob: True
    on_end: Callable[[Box, Descriptor], None] = lambda _box, _blob: None
    came: dict[Descriptor, bytes] = field(default_factory=dict)
    cut: list[Descriptor] = field(default_factory=list)
    on_cut: Callable[[Descriptor], None] = lambda _blob: None
    opened: Counter[Descriptor] = field(default_factory=Counter)
    taken: int = 0

    def sink(self, each: Descriptor) -> Sink:
        self.opened[each] += 1
        return Sink(self, each)


class Sink:
    def __init__(self, box: Box, each: Descriptor) -> None:
        self.box, self.blob, self.data = box, each, b""

    def write(self, data: bytes) -> bool:
        taken = self.box.on_write(self.box, self.blob)
        self.data += data
        self.box.taken += len(data)
        return taken

    def end(self) -> None:
        self.box.on_end(self.box, self.blob)
        self.box.came[self.blob] = self.data

    def cut(self) -> None:
        self.box.cut.append(self.blob)
        self.box.on_cut(self.blob)


class Later(threading.Thread):
    """Work in a thread that no test waits for at its end, should it hang."""

    def __init__(self, work: Callable[[], dict[str, FerryError]]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.detail: dict[str, FerryError] | FerryError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.detail = self.work()
        except FerryError as error:
            self.detail = error

    def result(self) -> dict[str, FerryError] | FerryError | None:
        self.join(PATIENCE)
        assert not self.is_alive(), "it hangs"
        return self.detail


@dataclass
class Clock:
    """A clock that stands still until a test moves it."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def run_until(self, over: Callable[[], bool]) -> None:
        """Goes on, second by second, until something is true."""
        until(over, step=self.tick)

    def tick(self) -> None:
        self.now += 1.0


def until(over: Callable[[], bool], step: Callable[[], None] = lambda: None) -> None:
    """Waits until something is true."""
    for _ in range(int(PATIENCE / MOMENT)):
        if over():
            return
        step()
        threading.Event().wait(MOMENT)
    pytest.fail("it never came true")


def jumping_clock() -> Callable[[], float]:
    """A clock by which every wait is a long one."""
    readings = itertools.count(0.0, 1000.0)
    return lambda: next(readings)


def begin(
    source: fan_out.Source,
    boxes: Iterable[tuple[Box, list[Descriptor]]],
    clock: Callable[[], float] | None = None,
    policy: Policy = Policy(),  # noqa: B008
) -> dict[str, Later]:
    """All hosts at once."""
    wanted = list(boxes)
    together = FanOut([box.name for box, _ in wanted], source, policy, clock or Clock())
    return {box.name: Later(partial(together.deliver, box.name, blobs, box.sink)) for box, blobs in wanted}


def deliver(
    source: fan_out.Source, boxes: Iterable[tuple[Box, list[Descriptor]]]
) -> dict[str, dict[str, FerryError] | FerryError | None]:
    """All hosts, to the end; by name what each got back, or raised."""
    return {name: later.result() for name, later in begin(source, boxes).items()}


DATA = {blob(data): data for data in (bytes([n]) * n * 10_000 for n in range(1, 8))}
BLOBS = list(DATA)


@pytest.fixture
def short_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue of a few chunks for each host, and readers who look often whether it has room."""
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


def test_each_blob_is_read_once_and_each_host_gets_its_own_alone() -> None:
    source, boxes = FakeSource(DATA), [Box("a"), Box("b"), Box("c")]
    wanted = [BLOBS, BLOBS[:3], [BLOBS[5]]]
    detail = deliver(source, zip(boxes, wanted, strict=True))
    assert detail == {"a": {}, "b": {}, "c": {}}
    for box, blobs in zip(boxes, wanted, strict=True):
        assert box.came == {each: DATA[each] for each in blobs}
    assert source.read_how_often == dict.fromkeys(BLOBS, 1)


def test_a_host_that_is_gone_is_not_waited_for_and_one_that_comes_again_is_served_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[fan_out._Round] = []
    waits, wait, start = threading.Event(), receiver.Receiver.wait, fan_out._Round.start

    def noted_wait(host: receiver.Receiver) -> list[Descriptor]:
        waits.set()
        return wait(host)

    def noted_start(one: fan_out._Round) -> None:
        started.append(one)
        start(one)

    monkeypatch.setattr(receiver.Receiver, "wait", noted_wait)
    monkeypatch.setattr(fan_out._Round, "start", noted_start)
    source, box = FakeSource(DATA), Box("a")
    together = FanOut(["a", "b", "c"], source)
    together.gone("b")
    done = Later(partial(together.deliver, "a", BLOBS[:1], box.sink))
    assert waits.wait(PATIENCE) and not started
    together.gone("c")
    assert done.result() == {} and len(started) == 1
    assert together.deliver("a", BLOBS[1:2], box.sink) == {}
    assert set(box.came) == set(BLOBS[:2])


@pytest.mark.parametrize("error", [ConnectionLost("gone"), DiskFull("full")])
def test_a_host_that_dies_is_dropped_and_the_others_go_on(error: FerryError) -> None:
    def die(box: Box, _each: Descriptor) -> bool:
        if box.taken > 30_000:
            raise error
        return True

    dying, well = Box("dying", on_write=die), Box("well")
    source = FakeSource(DATA)
    detail = deliver(source, [(dying, BLOBS), (well, BLOBS)])
    assert detail == {"dying": error, "well": {}}
    assert well.came == DATA
    assert source.read_how_often == dict.fromkeys(BLOBS, 1)


@pytest.fixture(params=["handed on", "straight"])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How what is large goes to a host that is alone."""
    monkeypatch.setattr(fan_out, "_LARGE", 0 if request.param == "straight" else fan_out._LARGE)


@pytest.mark.usefixtures("large")
def test_a_host_that_dies_while_the_source_gives_nothing_is_told_at_once() -> None:
    over, under_way = threading.Event(), threading.Event()

    def note(_box: Box, each: Descriptor) -> bool:
        if each == BLOBS[6]:
            under_way.set()
        return True

    def die(_box: Box, each: Descriptor) -> None:
        if each == BLOBS[0]:
            under_way.wait(PATIENCE)
            raise ConnectionLost("gone")

    box = Box("a", on_write=note, on_end=die)
    source = FakeSource(DATA, stalls=lambda each, at: bool(at) and each == BLOBS[6] and not over.is_set())
    detail = deliver(source, [(box, BLOBS)])
    assert isinstance(detail["a"], ConnectionLost)
    assert BLOBS[6] in box.cut
    over.set()


@pytest.mark.usefixtures("large")
def test_a_host_that_is_lost_while_the_source_gives_nothing_is_noticed() -> None:
    over = threading.Event()

    def lost(box: Box, _each: Descriptor) -> bool:
        return not box.taken

    def tell(_box: Box, _each: Descriptor) -> None:
        raise ConnectionLost("gone")

    source = FakeSource(DATA, stalls=lambda _each, at: bool(at) and not over.is_set())
    detail = deliver(source, [(Box("a", on_write=lost, on_end=tell), BLOBS)])
    assert isinstance(detail["a"], ConnectionLost)
    over.set()


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("others", [True, False], ids=["of two", "alone"])
def test_a_containerd_that_is_down_ends_what_waits_for_it_on_that_host_alone(others: bool) -> None:
    """ctr that is about to open a blob asks again and again until containerd is back (seen with 1.7)."""
    waiting, cut = threading.Event(), threading.Event()

    def end(_box: Box, each: Descriptor) -> None:
        if each == BLOBS[6]:
            waiting.wait(PATIENCE)
            raise DaemonUnreachable("down")
        if each == BLOBS[5]:
            waiting.set()
            assert cut.wait(PATIENCE)
            raise ConnectionLost("cut")

    def note_cut(each: Descriptor) -> None:
        if each == BLOBS[5]:
            cut.set()

    down, well = Box("down", on_end=end, on_cut=note_cut), Box("well")
    detail = deliver(FakeSource(DATA), [(down, BLOBS[5:]), *([(well, BLOBS)] if others else [])])
    assert not others or (detail["well"] == {} and well.came == DATA)
    assert isinstance(detail["down"], dict) and len(detail["down"]) == 2
    assert {type(error) for error in detail["down"].values()} == {DaemonUnreachable}


@pytest.mark.parametrize("error", [ConnectionLost("gone"), DaemonUnreachable("down")])
def test_what_ends_a_host_finds_a_blob_that_is_just_beginning(
    monkeypatch: pytest.MonkeyPatch, error: FerryError
) -> None:
    begun, ended = receiver.Receiver.begun, receiver.Receiver.ended
    first: dict[receiver.Receiver, threading.Event] = {}

    def begin_second_when_first_has_ended(self: receiver.Receiver, pipe: receiver.Pipe) -> None:
        begun(self, pipe)
        if first.setdefault(self, mine := threading.Event()) is not mine:
            assert first[self].wait(PATIENCE)

    def note(self: receiver.Receiver, pipe: receiver.Pipe, why: FerryError | None) -> None:
        ended(self, pipe, why)
        if self in first:  # not the end of a thread of another test
            first[self].set()

    def fail(_box: Box, _each: Descriptor) -> None:
        raise error

    monkeypatch.setattr(receiver.Receiver, "begun", begin_second_when_first_has_ended)
    monkeypatch.setattr(receiver.Receiver, "ended", note)
    boxes = [Box("a", on_end=fail), Box("b", on_end=fail)]
    for detail in deliver(FakeSource(DATA), [(box, BLOBS) for box in boxes]).values():
        assert detail is error or (
            isinstance(detail, dict) and set(detail.values()) == {error} and len(detail) == len(BLOBS)
        )


@pytest.mark.usefixtures("large")
def test_what_a_host_does_not_take_is_ended_there() -> None:
    def stuck(_box: Box, each: Descriptor) -> bool:
        if each == BLOBS[3]:
            raise RemoteTimeout("nothing moves")
        return True

    box = Box("a", on_write=stuck)
    detail = deliver(FakeSource(DATA), [(box, BLOBS)])["a"]
    assert isinstance(detail, dict) and list(detail) == [BLOBS[3].digest]
    assert box.cut == [BLOBS[3]]


def test_a_blob_that_gets_no_thread_fails_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    start, refused = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "pipe" and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    detail = deliver(FakeSource(DATA), [(Box("a"), BLOBS)])["a"]
    assert isinstance(detail, dict) and len(detail) == 1
    (error,) = detail.values()
    assert isinstance(error, InternalError) and "thread" in error.message


def test_where_nobody_takes_the_rest_of_a_blob_it_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    over, ended = threading.Event(), receiver.Receiver.ended

    def die(_box: Box, _each: Descriptor) -> bool:
        raise ConnectionLost("gone")

    def note(self: receiver.Receiver, pipe: receiver.Pipe, error: FerryError | None) -> None:
        ended(self, pipe, error)
        over.set()

    def wait(_blob: Descriptor, at: int) -> None:
        assert not at or over.wait(PATIENCE)

    monkeypatch.setattr(receiver.Receiver, "ended", note)
    big = {blob(bytes(1 << 20)): bytes(1 << 20)}
    source = FakeSource(big, break_in=wait)
    detail = deliver(source, [(Box("a", on_write=die), list(big))])
    assert isinstance(detail["a"], ConnectionLost)
    assert source.given <= 2 << 10  # the first chunk, and the one in the middle of which the host died


def test_a_blob_that_one_host_does_not_take_fails_there_alone() -> None:
    def refuse(_box: Box, each: Descriptor) -> None:
        if each == BLOBS[2]:
            raise CommandFailed("no")

    picky, well = Box("picky", on_write=lambda _box, each: each != BLOBS[2], on_end=refuse), Box("well")
    detail = deliver(FakeSource(DATA), [(picky, BLOBS), (well, BLOBS)])
    assert detail["well"] == {}
    assert isinstance(detail["picky"], dict) and list(detail["picky"]) == [BLOBS[2].digest]
    assert set(picky.came) == set(BLOBS) - {BLOBS[2]}


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("names", ["ab", "a"])
@pytest.mark.parametrize("what", ["flipped", "short", "long"])
def test_a_wrong_blob_never_ends_well_and_names_who_has_it(what: str, names: str) -> None:
    right = DATA[BLOBS[4]]
    wrong = {"flipped": b"x" + right[1:], "short": right[:-1], "long": right + b"x"}[what]
    source, boxes = FakeSource({**DATA, BLOBS[4]: wrong}), [Box(name) for name in names]
    detail = deliver(source, [(box, BLOBS) for box in boxes])
    for box in boxes:
        failed = detail[box.name]
        assert isinstance(failed, dict) and isinstance(failed[BLOBS[4].digest], ContentCorrupt), failed
        assert BLOBS[4].digest in failed[BLOBS[4].digest].message and "shelf" in failed[BLOBS[4].digest].message
        assert box.cut == [BLOBS[4]]
        assert set(box.came) == set(BLOBS) - {BLOBS[4]}


def test_a_source_that_gives_more_than_it_told_is_not_read_to_its_end() -> None:
    short = blob(b"x" * 2048)
    source, box = FakeSource({short: bytes(8 << 20)}), Box("a")
    detail = deliver(source, [(box, [short])])["a"]
    assert isinstance(detail, dict) and isinstance(detail[short.digest], ContentCorrupt)
    assert box.taken <= 2048 and source.given <= 4 * 1024


def test_a_blob_that_cannot_be_read_fails_and_the_others_come() -> None:
    def vanish(each: Descriptor, at: int) -> None:
        if each == BLOBS[6] and at:
            raise ContentMissing("gone")

    box = Box("a")
    detail = deliver(FakeSource(DATA, break_in=vanish), [(box, BLOBS)])
    assert isinstance(detail["a"], dict) and list(detail["a"]) == [BLOBS[6].digest]
    assert set(box.came) == set(BLOBS[:6])


class Archive(FakeSource):
    """A source that decides its own order, and breaks off."""

    how: FerryError | Exception | None = None

    def read(self, wanted: Iterable[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        first, *_ = list(wanted)
        yield first, self._chunks(first)
        if self.how:
            raise self.how


@pytest.mark.parametrize(
    ("how", "kind"), [(SourceLost("cut off"), SourceLost), (ValueError("a fault"), InternalError), (None, SourceLost)]
)
def test_a_source_that_breaks_off_fails_all_that_is_left(how: Exception | None, kind: type[FerryError]) -> None:
    archive = Archive(DATA, readers=1)
    archive.how = how
    box = Box("a")
    detail = deliver(archive, [(box, BLOBS)])
    assert isinstance(detail["a"], dict) and len(detail["a"]) == len(BLOBS) - 1
    assert {type(error) for error in detail["a"].values()} == {kind}
    assert len(box.came) == 1


def test_a_fault_of_ours_in_the_middle_of_a_blob_is_told() -> None:
    def fail(_each: Descriptor, _at: int) -> None:
        raise ZeroDivisionError

    box = Box("a")
    detail = deliver(FakeSource(DATA, break_in=fail), [(box, BLOBS)])
    assert isinstance(detail["a"], dict)
    assert {type(error) for error in detail["a"].values()} == {InternalError}


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
    detail = deliver(FakeSource(DATA), [(box, BLOBS)])
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
    together = FanOut([box.name for box in (*slow, quick)], FakeSource(DATA), clock=clock)
    running = [Later(partial(together.deliver, box.name, BLOBS, box.sink)) for box in (*slow, quick)]
    clock.run_until(lambda: not running[-1].is_alive())
    detached.set()
    until(lambda: sum(max(box.opened.values()) > 1 for box in slow) == 3)  # all that are served alone at once
    again = Later(partial(together.deliver, "quick", BLOBS[:1], quick.sink))
    assert again.result() == {} and all(later.is_alive() for later in running[:-1])
    gate.set()
    assert [later.result() for later in running] == [{}] * 6


@pytest.mark.usefixtures("short_queue")
def test_a_slow_host_does_not_hold_the_readers_with_blobs_that_it_alone_wants() -> None:
    gate, clock = threading.Event(), Clock()
    slow, quick = Box("slow", on_write=lambda _box, _each: gate.wait(PATIENCE)), Box("quick")
    running = begin(FakeSource(DATA), [(slow, BLOBS[3:]), (quick, BLOBS[:3])], clock)
    clock.run_until(lambda: not running["quick"].is_alive())
    assert running["quick"].result() == {}
    assert running["slow"].is_alive()
    gate.set()
    assert running["slow"].result() == {}
    assert set(slow.came) == set(BLOBS[3:])


def test_what_most_hosts_want_is_read_first() -> None:
    order: list[Descriptor] = []

    def note(each: Descriptor, at: int) -> None:
        if not at:
            order.append(each)

    deliver(FakeSource(DATA, readers=1, break_in=note), [(Box("a"), BLOBS), (Box("b"), BLOBS[:2])])
    assert order == [BLOBS[1], BLOBS[0], *reversed(BLOBS[2:])]


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
