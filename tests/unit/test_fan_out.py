"""Blobs to many hosts at once, without hosts: what is read how often, and what a fault costs."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from functools import partial

import pytest
from fan_outs import BLOBS, DATA, PATIENCE, Box, Clock, FakeSource, Later, begin, blob, send

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


def test_each_blob_is_read_once_and_each_host_gets_its_own_alone() -> None:
    source, boxes = FakeSource(DATA), [Box("a"), Box("b"), Box("c")]
    wanted = [BLOBS, BLOBS[:3], [BLOBS[5]]]
    detail = send(source, zip(boxes, wanted, strict=True))
    assert detail == {"a": {}, "b": {}, "c": {}}
    for box, blobs in zip(boxes, wanted, strict=True):
        assert box.came == {each: DATA[each] for each in blobs}
    assert source.read_how_often == dict.fromkeys(BLOBS, 1)


def test_a_host_that_is_gone_is_not_waited_for_and_one_that_comes_again_is_served_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[fan_out._Round] = []
    waits, begin_to_wait, start = threading.Event(), FanOut._begin, fan_out._Round.start

    def noted_wait(together: FanOut) -> None:
        waits.set()
        begin_to_wait(together)

    def noted_start(one: fan_out._Round) -> None:
        started.append(one)
        start(one)

    monkeypatch.setattr(FanOut, "_begin", noted_wait)
    monkeypatch.setattr(fan_out._Round, "start", noted_start)
    source, box = FakeSource(DATA), Box("a")
    together = FanOut(["a", "b", "c"], source)
    together.gone("b")
    done = Later(partial(together.send, "a", BLOBS[:1], box.sink))
    assert waits.wait(PATIENCE) and not started
    together.gone("c")
    assert done.result() == {} and len(started) == 1
    assert together.send("a", BLOBS[1:2], box.sink) == {}
    assert set(box.came) == set(BLOBS[:2])


@pytest.mark.parametrize("error", [ConnectionLost("gone"), DiskFull("full")])
def test_a_host_that_dies_is_dropped_and_the_others_go_on(error: FerryError) -> None:
    def die(box: Box, _each: Descriptor) -> bool:
        if box.taken > 30_000:
            raise error
        return True

    dying, well = Box("dying", on_write=die), Box("well")
    source = FakeSource(DATA)
    detail = send(source, [(dying, BLOBS), (well, BLOBS)])
    assert detail == {"dying": error, "well": {}}
    assert well.came == DATA
    assert source.read_how_often == dict.fromkeys(BLOBS, 1)


@pytest.fixture(params=["handed on", "straight"])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How what is large goes to a host that is alone."""
    monkeypatch.setattr(fan_out, "_LARGE", 0 if request.param == "straight" else fan_out._LARGE)


@pytest.mark.usefixtures("large")
def test_a_host_that_dies_while_the_source_gives_nothing_is_noticed_at_once() -> None:
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
    detail = send(source, [(box, BLOBS)])
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
    detail = send(source, [(Box("a", on_write=lost, on_end=tell), BLOBS)])
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
    detail = send(FakeSource(DATA), [(down, BLOBS[5:]), *([(well, BLOBS)] if others else [])])
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
    for detail in send(FakeSource(DATA), [(box, BLOBS) for box in boxes]).values():
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
    detail = send(FakeSource(DATA), [(box, BLOBS)])["a"]
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
    detail = send(FakeSource(DATA), [(Box("a"), BLOBS)])["a"]
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
    detail = send(source, [(Box("a", on_write=die), list(big))])
    assert isinstance(detail["a"], ConnectionLost)
    assert source.given <= 2 << 10  # the first chunk, and the one in the middle of which the host died


def test_a_blob_that_one_host_does_not_take_fails_there_alone() -> None:
    def refuse(_box: Box, each: Descriptor) -> None:
        if each == BLOBS[2]:
            raise CommandFailed("no")

    picky, well = Box("picky", on_write=lambda _box, each: each != BLOBS[2], on_end=refuse), Box("well")
    detail = send(FakeSource(DATA), [(picky, BLOBS), (well, BLOBS)])
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
    detail = send(source, [(box, BLOBS) for box in boxes])
    for box in boxes:
        failed = detail[box.name]
        assert isinstance(failed, dict) and isinstance(failed[BLOBS[4].digest], ContentCorrupt), failed
        assert BLOBS[4].digest in failed[BLOBS[4].digest].message and "origin" in failed[BLOBS[4].digest].message
        assert failed[BLOBS[4].digest].hint == source.remedy
        assert box.cut == [BLOBS[4]]
        assert set(box.came) == set(BLOBS) - {BLOBS[4]}


def test_a_source_that_gives_more_than_it_announced_is_not_read_to_its_end() -> None:
    short = blob(b"x" * 2048)
    source, box = FakeSource({short: bytes(8 << 20)}), Box("a")
    detail = send(source, [(box, [short])])["a"]
    assert isinstance(detail, dict) and isinstance(detail[short.digest], ContentCorrupt)
    assert box.taken <= 2048 and source.given <= 4 * 1024


def test_a_blob_that_cannot_be_read_fails_and_the_others_come() -> None:
    def vanish(each: Descriptor, at: int) -> None:
        if each == BLOBS[6] and at:
            raise ContentMissing("gone")

    box = Box("a")
    detail = send(FakeSource(DATA, break_in=vanish), [(box, BLOBS)])
    assert isinstance(detail["a"], dict) and list(detail["a"]) == [BLOBS[6].digest]
    assert set(box.came) == set(BLOBS[:6])


class Archive(FakeSource):
    """A source that gives blobs in its own order, and breaks off."""

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
    detail = send(archive, [(box, BLOBS)])
    assert isinstance(detail["a"], dict) and len(detail["a"]) == len(BLOBS) - 1
    assert {type(error) for error in detail["a"].values()} == {kind}
    assert len(box.came) == 1


def test_a_fault_of_ours_in_the_middle_of_a_blob_is_reported() -> None:
    def fail(_each: Descriptor, _at: int) -> None:
        raise ZeroDivisionError

    box = Box("a")
    detail = send(FakeSource(DATA, break_in=fail), [(box, BLOBS)])
    assert isinstance(detail["a"], dict)
    assert {type(error) for error in detail["a"].values()} == {InternalError}


def test_what_most_hosts_want_is_read_first() -> None:
    sequence: list[Descriptor] = []

    def note(each: Descriptor, at: int) -> None:
        if not at:
            sequence.append(each)

    send(FakeSource(DATA, readers=1, break_in=note), [(Box("a"), BLOBS), (Box("b"), BLOBS[:2])])
    assert sequence == [BLOBS[1], BLOBS[0], *reversed(BLOBS[2:])]


def test_a_batch_begins_without_a_host_that_stays_away_and_serves_it_alone_when_it_comes() -> None:
    source, quick, late, clock = FakeSource(DATA), Box("quick"), Box("late"), Clock()
    together = FanOut(["quick", "late"], source, clock=clock)
    done = Later(partial(together.send, "quick", BLOBS, quick.sink))
    clock.run_until(lambda: not done.is_alive())
    assert done.result() == {} and quick.came == DATA
    assert together.send("late", BLOBS, late.sink) == {} and late.came == DATA
    assert source.read_how_often == dict.fromkeys(BLOBS, 2)


def test_hosts_that_take_one_blob_at_a_time_get_all_and_block_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_QUEUE", 2 << 10)  # less than any blob

    def one_at_a_time(box: Box, _each: Descriptor) -> bool:
        assert sum(box.opened.values()) - len(box.came) == 1
        return True

    boxes = [Box(f"narrow{n}", on_write=one_at_a_time) for n in range(3)]
    running = begin(FakeSource(DATA), [(box, BLOBS) for box in boxes], slots=1)
    assert [later.result() for later in running.values()] == [{}] * 3
    assert all(box.came == DATA for box in boxes)


@pytest.mark.parametrize("most", [0, 1])
def test_where_not_all_readers_get_a_thread_the_others_read_or_the_hosts_are_told(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    start, started = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "reader":
            started.append(thread)
            if len(started) > most:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for failed in send(FakeSource(DATA), [(Box("a"), BLOBS), (Box("b"), BLOBS)]).values():
        assert isinstance(failed, dict) and len(failed) == (0 if most else len(BLOBS))
        assert all(isinstance(error, InternalError) and "thread" in error.message for error in failed.values())


def test_a_fault_of_ours_as_the_reading_begins_ends_all_hosts_with_the_reason() -> None:
    class Broken(FakeSource):
        @property
        def readers(self) -> int:
            raise ValueError("broken")

        @readers.setter
        def readers(self, _: int) -> None: ...

    answers = send(Broken(DATA), [(Box("a"), BLOBS), (Box("b"), BLOBS)])
    assert [type(answer) for answer in answers.values()] == [InternalError] * 2


def test_a_fault_of_ours_as_a_blob_begins_fails_this_blob(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = receiver.Receiver.begun

    def refuse(self: receiver.Receiver, pipe: receiver.Pipe) -> None:
        if pipe.blob == BLOBS[0]:
            raise MemoryError
        begun(self, pipe)

    monkeypatch.setattr(receiver.Receiver, "begun", refuse)
    answers = send(FakeSource(DATA), [(Box("a"), BLOBS), (Box("b"), BLOBS)])
    assert [isinstance(failed, dict) and set(failed) for failed in answers.values()] == [{BLOBS[0].digest}] * 2
