"""Blobs to many hosts at once, without hosts: what is read how often, who waits for whom, what a fault costs."""

from __future__ import annotations

import hashlib
import threading
import time
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

PATIENCE = 20  # seconds, after which a test that hangs says so


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
                time.sleep(0.01)
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
    taken: int = 0

    def sink(self, each: Descriptor) -> Sink:
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


def begin(source: fan_out.Source, boxes: Iterable[tuple[Box, list[Descriptor]]]) -> dict[str, Later]:
    """All hosts at once."""
    wanted = list(boxes)
    together = FanOut([box.name for box, _ in wanted], source)
    return {box.name: Later(partial(together.deliver, box.name, blobs, box.sink)) for box, blobs in wanted}


def deliver(
    source: fan_out.Source, boxes: Iterable[tuple[Box, list[Descriptor]]]
) -> dict[str, dict[str, FerryError] | FerryError | None]:
    """All hosts, to the end; by name what each got back, or raised."""
    return {name: later.result() for name, later in begin(source, boxes).items()}


DATA = {blob(data): data for data in (bytes([n]) * n * 10_000 for n in range(1, 8))}
BLOBS = list(DATA)


def test_each_blob_is_read_once_and_each_host_gets_its_own_alone() -> None:
    source, boxes = FakeSource(DATA), [Box("a"), Box("b"), Box("c")]
    wanted = [BLOBS, BLOBS[:3], [BLOBS[5]]]
    detail = deliver(source, zip(boxes, wanted, strict=True))
    assert detail == {"a": {}, "b": {}, "c": {}}
    for box, blobs in zip(boxes, wanted, strict=True):
        assert box.came == {each: DATA[each] for each in blobs}
    assert source.read_how_often == dict.fromkeys(BLOBS, 1)


def test_a_host_that_is_gone_is_not_waited_for_and_one_that_comes_again_is_served_alone() -> None:
    source, box = FakeSource(DATA), Box("a")
    together = FanOut(["a", "b", "c"], source)
    together.gone("b")
    done = Later(partial(together.deliver, "a", BLOBS[:1], box.sink))
    time.sleep(0.05)
    assert done.is_alive() and not source.read_how_often
    together.gone("c")
    assert done.result() == {}
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
    waiting = threading.Event()

    def end(box: Box, each: Descriptor) -> None:
        if each == BLOBS[6]:
            waiting.wait(PATIENCE)
            time.sleep(0.1)
            raise DaemonUnreachable("down")
        if each == BLOBS[5]:
            waiting.set()
            while BLOBS[5] not in box.cut:
                time.sleep(0.01)
            raise ConnectionLost("cut")

    down, well = Box("down", on_end=end), Box("well")
    detail = deliver(FakeSource(DATA), [(down, BLOBS[5:]), *([(well, BLOBS)] if others else [])])
    assert not others or (detail["well"] == {} and well.came == DATA)
    assert isinstance(detail["down"], dict) and len(detail["down"]) == 2
    assert {type(error) for error in detail["down"].values()} == {DaemonUnreachable}


@pytest.mark.parametrize("error", [ConnectionLost("gone"), DaemonUnreachable("down")])
def test_what_ends_a_host_finds_a_blob_that_is_just_beginning(
    monkeypatch: pytest.MonkeyPatch, error: FerryError
) -> None:
    begun = receiver.Receiver.begun

    def slowly(self: receiver.Receiver, pipe: receiver.Pipe) -> None:
        begun(self, pipe)
        time.sleep(0.02)

    def fail(_box: Box, _each: Descriptor) -> None:
        raise error

    monkeypatch.setattr(receiver.Receiver, "begun", slowly)
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


def test_where_nobody_takes_the_rest_of_a_blob_it_is_not_read() -> None:
    def die(_box: Box, _each: Descriptor) -> bool:
        raise ConnectionLost("gone")

    big = {blob(bytes(32 << 20)): bytes(32 << 20)}
    source = FakeSource(big)
    detail = deliver(source, [(Box("a", on_write=die), list(big))])
    assert isinstance(detail["a"], ConnectionLost)
    assert source.given < 16 << 20


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


def test_a_slow_host_holds_up_the_others_by_its_queue_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 8 << 10)
    gate = threading.Event()
    slow, quick = Box("slow", on_write=lambda _box, _each: gate.wait(PATIENCE)), Box("quick")
    source = FakeSource(DATA)
    running = begin(source, [(slow, BLOBS), (quick, BLOBS)])
    time.sleep(0.3)
    assert quick.taken <= (8 << 10) + 4 * 1024  # in memory: the queue, and what is on its way in each lane
    assert source.given <= (8 << 10) + 4 * 1024
    gate.set()
    assert {name: later.result() for name, later in running.items()} == {"slow": {}, "quick": {}}
    assert slow.came == quick.came == DATA
    assert source.read_how_often == dict.fromkeys(BLOBS, 1)


def test_a_host_that_holds_up_the_others_for_long_is_served_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 8 << 10)
    monkeypatch.setattr(fan_out, "_PATIENCE", 0.2)
    monkeypatch.setattr(fan_out, "_MOMENT", 0.05)
    gate = threading.Event()
    slow, quick = Box("slow", on_write=lambda _box, _each: gate.wait(PATIENCE)), Box("quick")
    running = begin(FakeSource(DATA), [(slow, BLOBS), (quick, BLOBS)])
    assert running["quick"].result() == {}
    assert quick.came == DATA and running["slow"].is_alive()
    gate.set()
    assert running["slow"].result() == {}
    assert slow.came == DATA


def test_a_slow_host_that_still_moves_is_served_alone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 8 << 10)
    monkeypatch.setattr(fan_out, "_PATIENCE", 0.2)
    slow, quick = Box("slow", on_write=lambda _box, _each: not time.sleep(0.02)), Box("quick")
    running = begin(FakeSource(DATA), [(slow, BLOBS), (quick, BLOBS)])
    assert running["quick"].result() == {}
    assert running["slow"].is_alive() and slow.taken < sum(map(len, DATA.values())) / 2
    slow.on_write = lambda _box, _each: True
    assert running["slow"].result() == {}
    assert slow.came == quick.came == DATA


def test_hosts_of_one_speed_stay_together_though_the_source_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 16 << 10)
    monkeypatch.setattr(fan_out, "_PATIENCE", 0.1)
    boxes = [Box(name, on_write=lambda _box, _each: not time.sleep(0.003)) for name in "abc"]
    source = FakeSource(DATA)
    assert deliver(source, [(box, BLOBS) for box in boxes]) == {"a": {}, "b": {}, "c": {}}
    assert source.read_how_often == dict.fromkeys(BLOBS, 1)


def test_a_host_that_is_a_little_slower_stays_with_others_that_are_as_good_as_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 16 << 10)
    monkeypatch.setattr(fan_out, "_PATIENCE", 0.1)
    waits = {"slow": 0.004, "quick": 0.003}
    boxes = [Box(name, on_write=lambda box, _each: not time.sleep(waits[box.name])) for name in waits]
    source = FakeSource(DATA)
    assert deliver(source, [(box, BLOBS) for box in boxes]) == {"slow": {}, "quick": {}}
    assert source.read_how_often == dict.fromkeys(BLOBS, 1)


@pytest.mark.parametrize("writes", ["short", "long"])
def test_no_more_hosts_leave_than_are_served_at_once_where_they_still_move(
    monkeypatch: pytest.MonkeyPatch, writes: str
) -> None:
    """Who is too slow is said here, so that no clock has a part in it; a long write lasts until one may not leave."""
    monkeypatch.setattr(receiver, "_QUEUE", 8 << 10)
    monkeypatch.setattr(receiver, "_STUCK", float("inf"))
    monkeypatch.setattr(fan_out, "_INSTANT", -1.0)  # whoever is waited for, however shortly, is blamed
    refused, apart, leave = threading.Event(), [0], FanOut._leave
    slow = [Box(f"slow{n}", on_write=lambda _box, _each: writes == "short" or refused.wait(PATIENCE)) for n in range(6)]
    source, quick = FakeSource(DATA), Box("quick")

    def is_slow(_round: fan_out._Round, one: receiver.Receiver, _now: float) -> bool:
        return one.sink != quick.sink

    def noted(self: FanOut, one: receiver.Receiver) -> None:
        leave(self, one)
        apart.append(sum(each.is_apart for each in self._receivers))
        if not one.lost:
            refused.set()

    monkeypatch.setattr(fan_out._Round, "_too_long", is_slow)
    monkeypatch.setattr(FanOut, "_leave", noted)
    assert set(map(str, deliver(source, [(box, BLOBS) for box in [*slow, quick]]).values())) == {"{}"}
    assert all(box.came == DATA for box in [*slow, quick])
    assert 1 <= max(apart) <= 3
    assert writes == "short" or (refused.is_set() and max(apart) == 3)


def test_what_a_host_that_left_is_stuck_with_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 8 << 10)
    monkeypatch.setattr(fan_out, "_PATIENCE", 0.1)
    monkeypatch.setattr(fan_out, "_MOMENT", 0.05)
    gate = threading.Event()
    pipes: list[receiver.Pipe] = []
    begun = receiver.Receiver.begun
    monkeypatch.setattr(receiver.Receiver, "begun", lambda host, pipe: (pipes.append(pipe), begun(host, pipe)))
    big = {blob(bytes(1 << 20)): bytes(1 << 20)}
    slow, quick = Box("slow", on_write=lambda _box, _each: gate.wait(PATIENCE)), Box("quick")
    running = begin(FakeSource(big), [(slow, list(big)), (quick, list(big))])
    assert running["quick"].result() == {}
    assert sum(len(chunk or b"") for pipe in pipes for chunk in pipe._chunks) <= 10 << 10
    gate.set()
    assert running["slow"].result() == {}


def test_a_write_that_fails_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 2 << 10)
    refused = set(BLOBS[:4])

    def refuse(_box: Box, each: Descriptor) -> bool:
        if each in refused:
            raise CommandFailed("no")
        return True

    box = Box("a", on_write=refuse)
    detail = deliver(FakeSource(DATA), [(box, BLOBS)])
    assert isinstance(detail["a"], dict) and set(detail["a"]) == {each.digest for each in refused}
    assert set(box.came) == set(BLOBS[4:])


def test_a_host_is_not_blamed_for_what_it_waited_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 4 << 10)
    monkeypatch.setattr(fan_out, "_PATIENCE", 0.1)

    class Lazy(Box):
        def sink(self, each: Descriptor) -> Sink:
            time.sleep(0.03)
            return super().sink(each)

    box = Lazy("a", on_write=lambda _box, _each: False)  # as where all is there already
    source = FakeSource({blob(data): data for data in (bytes([n]) * 10_000 for n in range(40))})
    assert deliver(source, [(box, list(source.has))]) == {"a": {}}
    assert set(box.came) == set(source.has)
    assert source.read_how_often == dict.fromkeys(source.has, 1)


def test_a_host_that_lacks_a_blob_in_the_end_does_not_wait_for_slow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 8 << 10)
    monkeypatch.setattr(fan_out, "_PATIENCE", 0.1)
    monkeypatch.setattr(fan_out, "_MOMENT", 0.05)
    gate = threading.Event()
    boxes = [Box(f"slow{n}", on_write=lambda _box, _each: bool(gate.wait(0.1)) or True) for n in range(5)]
    boxes.append(Box("quick"))
    together = FanOut([box.name for box in boxes], FakeSource(DATA))
    running = [Later(partial(together.deliver, box.name, BLOBS, box.sink)) for box in boxes]
    assert running[-1].result() == {}
    time.sleep(0.3)  # until those that left are served alone
    again = Later(partial(together.deliver, "quick", BLOBS[:1], boxes[-1].sink))
    assert again.result() == {} and all(later.is_alive() for later in running[:-1])
    gate.set()
    assert [later.result() for later in running] == [{}] * 6


def test_a_slow_host_does_not_hold_the_lanes_with_blobs_that_it_alone_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 8 << 10)
    monkeypatch.setattr(fan_out, "_PATIENCE", 0.2)
    gate = threading.Event()
    slow, quick = Box("slow", on_write=lambda _box, _each: gate.wait(PATIENCE)), Box("quick")
    running = begin(FakeSource(DATA), [(slow, BLOBS[3:]), (quick, BLOBS[:3])])
    assert running["quick"].result() == {}
    assert running["slow"].is_alive()
    gate.set()
    assert running["slow"].result() == {}
    assert set(slow.came) == set(BLOBS[3:])


def test_what_most_hosts_want_is_read_first() -> None:
    order: list[Descriptor] = []

    def note(each: Descriptor, at: int) -> None:
        order.extend([] if at else [each])

    deliver(FakeSource(DATA, readers=1, break_in=note), [(Box("a"), BLOBS), (Box("b"), BLOBS[:2])])
    assert order == [BLOBS[1], BLOBS[0], *reversed(BLOBS[2:])]


def test_those_who_left_take_no_more_of_the_source_than_leaves_the_others_their_lanes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 8 << 10)
    monkeypatch.setattr(fan_out, "_PATIENCE", 0.1)
    monkeypatch.setattr(fan_out, "_MOMENT", 0.05)
    gate, reading, most, lock = threading.Event(), 0, 0, threading.Lock()

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
    running = begin(Counted(DATA), [(box, BLOBS) for box in [*slow, quick]])
    assert running["quick"].result() == {}
    gate.set()
    assert [later.result() for later in running.values()] == [{}] * 8
    assert all(box.came == DATA for box in slow)
    assert most <= 2 + 4


def test_thousands_of_tiny_blobs_take_no_thousands_of_threads() -> None:
    tiny = {blob(data): data for data in (str(n).encode() for n in range(2000))}
    gate, most = threading.Event(), 0

    def count(_each: Descriptor, _at: int) -> None:
        nonlocal most
        most = max(most, threading.active_count())

    before = threading.active_count()
    box = Box("a", on_write=lambda _box, _each: gate.wait(PATIENCE))
    running = begin(FakeSource(tiny, break_in=count), [(box, list(tiny))])
    time.sleep(0.3)
    gate.set()
    assert running["a"].result() == {}
    assert box.came == tiny
    assert most - before < 50
