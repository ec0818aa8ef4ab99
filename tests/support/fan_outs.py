"""A source and hosts for a fan-out, in memory, and a clock that a test moves."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from ctr_ferry.errors import FerryError
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.transfer import fan_out, receiver
from ctr_ferry.transfer.fan_out import FanOut
from ctr_ferry.transfer.policy import Policy

PATIENT = Policy(absent=float("inf"))  # a batch begins with all hosts, however fast a test's clock runs
PATIENCE = 60  # seconds until a test that hangs fails
MOMENT = 0.002  # seconds between two checks of a condition


def blob(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


@dataclass
class FakeSource:
    """A source. It gives the blobs in `has`, in chunks of 1 KiB.

    Attributes:
        read_how_often: for each blob, how many reads began.
        given: bytes that were read.
        break_in: called before each chunk with the blob and the offset; may raise.
        stalls: whether the source gives no bytes at this blob and offset now.
    """

    has: dict[Descriptor, bytes]
    readers: int = 2
    name: str = "origin"
    remedy: str = "from another one"
    read_how_often: dict[Descriptor, int] = field(default_factory=dict)
    given: int = 0
    break_in: Callable[[Descriptor, int], None] = lambda _blob, _at: None
    stalls: Callable[[Descriptor, int], bool] = lambda _blob, _at: False

    def holder(self, blob: Descriptor) -> str:  # noqa: ARG002
        return self.name

    def distrust(self, blob: Descriptor) -> bool:  # noqa: ARG002
        return False

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
    """A host.

    Attributes:
        on_write, on_end, on_cut: called by the host's sinks. `on_write` returns whether the host takes more.
        came: the blobs that arrived.
        cut: the blobs that were cut off.
        opened: for each blob, how many sinks were opened.
        taken: bytes that all sinks got.
    """

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
    """Work in a daemon thread, so that no test waits at its end for work that hangs."""

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
        assert not self.is_alive(), "the work hangs"
        return self.detail


@dataclass
class Clock:
    """A clock that stands still until a test moves it."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def run_until(self, over: Callable[[], bool]) -> None:
        """Move the clock second by second until a condition is true."""
        until(over, step=self.tick)

    def tick(self) -> None:
        self.now += 1.0


def until(over: Callable[[], bool], step: Callable[[], None] = lambda: None) -> None:
    """Wait until a condition is true."""
    for _ in range(int(PATIENCE / MOMENT)):
        if over():
            return
        step()
        threading.Event().wait(MOMENT)
    pytest.fail("the condition never became true")


def jumping_clock() -> Callable[[], float]:
    """Return a clock that moves 1000 seconds at each reading."""
    readings = itertools.count(0.0, 1000.0)
    return lambda: next(readings)


def begin(
    source: fan_out.Source,
    boxes: Iterable[tuple[Box, list[Descriptor]]],
    clock: Callable[[], float] | None = None,
    policy: Policy = PATIENT,
    slots: int = receiver.SLOTS,
) -> dict[str, Later]:
    """Start the transfer to all hosts at once."""
    wanted, policy = list(boxes), replace(policy, absent=PATIENT.absent)
    together = FanOut([box.name for box, _ in wanted], source, policy, clock or Clock())
    return {box.name: Later(partial(together.send, box.name, blobs, box.sink, slots)) for box, blobs in wanted}


def send(
    source: fan_out.Source, boxes: Iterable[tuple[Box, list[Descriptor]]]
) -> dict[str, dict[str, FerryError] | FerryError | None]:
    """Send to all hosts, and wait for the end; return by host what `FanOut.send` returned or raised."""
    return {name: later.result() for name, later in begin(source, boxes).items()}


DATA = {blob(data): data for data in (bytes([n]) * n * 10_000 for n in range(1, 8))}
BLOBS = list(DATA)
