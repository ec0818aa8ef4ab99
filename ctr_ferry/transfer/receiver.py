"""One host of a fan-out: the blobs that it still lacks, its bounded queue, and each blob on its way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from ctr_ferry.errors import DaemonUnreachable, DiskFull, FerryError, Unreachable
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.report.outcome import unforeseen
from ctr_ferry.transfer.policy import Pace

_QUEUE = 4 << 20  # bytes that wait for one host, in all readers together
SLOTS = 4  # blobs that one host takes at a time, where its sshd lets that many further sessions run (MaxSessions)
_CHECK = 1.0  # seconds without data after which an empty write shows whether the host is still there
_PIPES = 32  # blobs that wait for one host or are on their way to it, each in a thread


class Sink(Protocol):
    """One blob that one host is taking in."""

    def write(self, data: bytes) -> bool:
        """Sends data, or none to find out whether the host is there; returns False if it takes no more: see `end`."""

    def end(self) -> None:
        """Ends the data, and waits until the host has taken the blob in; raises why it did not."""

    def cut(self) -> None:
        """Ends the command on the host: the data will never be complete."""


class SentAgainError(FerryError):
    """A blob on its way is sent again from its beginning."""


class DetachedError(SentAgainError):
    """A slow host was detached from the others. Blobs that were on their way are sent again, to this host alone."""


def as_ours(error: Exception) -> FerryError:
    """Returns an error of ours as it is, and any other one as a fault of ours."""
    return error if isinstance(error, FerryError) else unforeseen(error)


class Receiver:
    """One host of a fan-out, and the blobs that it still lacks.

    Attributes:
        wanted: by digest, the blobs that the host asked for.
        failed: by digest, why a blob did not come.
        lost: why nothing more comes in this round; None while blobs may come.
        over: whether the host has all that it will get.
        most: how many blobs the host takes at a time.
    """

    def __init__(
        self,
        wanted: Iterable[Descriptor],
        sink: Callable[[Descriptor], Sink],
        clock: Callable[[], float],
        slots: int = SLOTS,
    ) -> None:
        self.wanted = {blob.digest: blob for blob in wanted}
        self.sink, self._clock = sink, clock
        self.failed: dict[str, FerryError] = {}
        self.lost: FerryError | None = None
        self.pace = Pace(clock())
        self.over = False
        self.most, self.slots = slots, threading.Semaphore(slots)
        self._change = threading.Condition()
        self._pipes: set[Pipe] = set()
        self._open = set(self.wanted)

    @property
    def full(self) -> bool:
        """Whether the host's queue has no room."""
        return (self.pace.waiting >= _QUEUE or len(self._pipes) >= _PIPES) and not self.lost

    @property
    def is_detached(self) -> bool:
        """Whether the host was detached from the others, and does not have all yet."""
        return isinstance(self.lost, DetachedError) and not self.over

    def wait_for_room(self, seconds: float) -> bool:
        """Waits until the queue has room or the host is lost; returns False if neither came within these seconds."""
        with self._change:
            return self._change.wait_for(lambda: not self.full, seconds)

    def queued(self, size: int) -> None:
        """Counts bytes that wait for the host from now on; a negative size counts bytes that it has taken."""
        with self._change:
            self.pace.add(size, self._clock())
            self._change.notify_all()

    def lacks(self, digest: str) -> bool:
        """Whether a blob is wanted here, and it is not yet settled whether it comes."""
        with self._change:
            return digest in self._open

    def begun(self, pipe: Pipe) -> None:
        """Notes that a blob is on its way."""
        with self._change:
            self._pipes.add(pipe)

    def ended(self, pipe: Pipe, error: FerryError | None) -> None:
        """Notes that a blob has arrived, or why not."""
        if isinstance(error, Unreachable | DiskFull):
            self.lose(error)
        if not isinstance(error, SentAgainError):
            self.settle(pipe.blob.digest, error)
        with self._change:
            self._pipes.discard(pipe)
            self._change.notify_all()
            others = list(self._pipes)
        if isinstance(error, DaemonUnreachable):  # a ctr that is opening a blob would wait for containerd for ever
            for other in others:
                other.cut(error)

    def settle(self, digest: str, error: FerryError | None) -> None:
        """Notes that a blob is there, or why it will not come."""
        with self._change:
            if error and digest in self._open:
                self.failed[digest] = error
            self._open.discard(digest)
            self._change.notify_all()

    def lose(self, error: FerryError) -> None:
        """Drops the host from this round, and all blobs on their way to it."""
        with self._change:
            self.lost = self.lost or error
            self._change.notify_all()
            pipes = list(self._pipes)
        for pipe in pipes:
            pipe.fail(self.lost)

    def wait(self) -> list[Descriptor]:
        """Waits until every blob is settled; returns those that are still to be sent, because the host was detached.

        Raises:
            FerryError: why nothing more can be sent to the host.
        """
        with self._change:
            self._change.wait_for(lambda: not self._open or (self.lost and not self._pipes))
        if self.lost and not isinstance(self.lost, DetachedError):
            raise self.lost
        return [self.wanted[digest] for digest in self._open]


class Pipe:
    """One blob on its way to one host, until it is ``over``. The caller of `put` waits while the host takes nothing."""

    def __init__(self, blob: Descriptor, receiver: Receiver) -> None:
        self.blob, self.receiver = blob, receiver
        self.over = False
        self._error: FerryError | None = None
        self._sink: Sink | None = None
        self._has_slot = False
        receiver.begun(self)

    def put(self, chunk: bytes | None) -> None:
        """Sends a chunk. An empty chunk finds out whether the host is still there; None ends the blob."""
        try:
            if not self.over and not self._pour(chunk):
                self._end(None)
        except Exception as raised:  # noqa: BLE001  (shown, with where it happened)
            self.cut(as_ours(raised))
            self._end(self._error)

    def wait_for_room(self, seconds: float) -> bool:  # noqa: ARG002
        """Waits until there is room for a chunk; a pipe without a queue always has room."""
        return True

    def fail(self, error: FerryError) -> None:
        """Notes why the blob will not be complete; the next chunk ends it."""
        self._error = self._error or error

    def cut(self, error: FerryError) -> None:
        """Fails the blob, and ends the command on the host."""
        self.fail(error)
        if self._sink:
            self._sink.cut()

    def _pour(self, chunk: bytes | None) -> bool:
        """Sends a chunk; returns whether more may come."""
        self._has_slot = self._has_slot or self.receiver.slots.acquire()
        if error := self._error or self.receiver.lost:
            raise error
        self._sink = self._sink or self.receiver.sink(self.blob)
        if chunk is not None and self._sink.write(chunk):
            return True
        self._sink.end()
        return False

    def _end(self, error: FerryError | None) -> None:
        self.over = True
        if self._has_slot:
            self.receiver.slots.release()
        self.receiver.ended(self, error)


class QueuedPipe(Pipe):
    """A pipe with a thread of its own, which takes chunks from the host's queue, so that no host waits for another."""

    def __init__(self, blob: Descriptor, receiver: Receiver) -> None:
        self._chunks: deque[bytes | None] = deque()
        self._ready = threading.Condition()
        super().__init__(blob, receiver)
        try:
            threading.Thread(target=self._run, name="pipe", daemon=True).start()
        except RuntimeError as error:  # there are too many already
            self._end(unforeseen(error))

    def put(self, chunk: bytes | None) -> None:
        """Queues a chunk; the caller has waited for room."""
        with self._ready:
            if self.over or self._error or self.receiver.lost:
                return  # the thread may be stuck in a write, and would not empty the queue
            self._chunks.append(chunk)
            self._ready.notify()
        self.receiver.queued(len(chunk or b""))

    def wait_for_room(self, seconds: float) -> bool:
        """Waits until the host's queue has room."""
        return self.receiver.wait_for_room(seconds)

    def fail(self, error: FerryError) -> None:
        """Notes why the blob will not be complete, and wakes the thread."""
        with self._ready:
            super().fail(error)
            self._ready.notify()

    def _run(self) -> None:
        super().put(b"")  # opens the blob on the host while the source opens it, too
        while not self.over:
            chunk = self._next()
            super().put(chunk)
            self.receiver.queued(-len(chunk or b""))

    def _next(self) -> bytes | None:
        with self._ready:
            self._ready.wait_for(lambda: self._chunks or self._error, _CHECK)
            return self._chunks.popleft() if self._chunks and not self._error else b""

    def _end(self, error: FerryError | None) -> None:
        with self._ready:
            self.over = True
            waiting = sum(len(chunk or b"") for chunk in self._chunks)
            self._chunks.clear()
        self.receiver.queued(-waiting)
        super()._end(error)
