"""One host of a convoy: what it is still to get, its bounded queue, and each blob on its way to it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from ctr_ferry.errors import DaemonUnreachable, DiskFull, FerryError, Unreachable
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.report.outcome import unforeseen
from ctr_ferry.transfer.policy import Pace

_QUEUE = 4 << 20  # bytes that wait for one host, in all lanes together
_SLOTS = 4  # blobs that one host takes at a time; sshd lets ten sessions run on a connection (MaxSessions)
_GLANCE = 1.0  # seconds without data after which it is seen whether the host is there
_PIPES = 32  # blobs that wait for one host or are on their way to it, each a thread


class Sink(Protocol):
    """Where one blob goes on one host."""

    def write(self, data: bytes) -> bool:
        """Sends data, or none to see whether the host is there; False where it takes no more: `end` tells why."""

    def end(self) -> None:
        """The data is complete.

        Raises:
            FerryError: why the host did not take it.
        """

    def cut(self) -> None:
        """The data will never be complete."""


class DetachedError(FerryError):
    """A slow host was detached from the others: what was on its way is sent again, to this host alone."""


class Receiver:
    """One host of a convoy, and the blobs that it is still to get.

    Attributes:
        failed: by digest, why a blob did not come.
        lost: why nothing more comes in this round.
        pace: how it keeps up with the others.
        over: whether it has all that it will get.
    """

    def __init__(
        self, wanted: Iterable[Descriptor], sink: Callable[[Descriptor], Sink], clock: Callable[[], float]
    ) -> None:
        self.wanted = {blob.digest: blob for blob in wanted}
        self.sink, self._clock = sink, clock
        self.failed: dict[str, FerryError] = {}
        self.lost: FerryError | None = None
        self.pace = Pace(clock())
        self.over = False
        self.slots = threading.Semaphore(_SLOTS)
        self._change = threading.Condition()
        self._pipes: set[Pipe] = set()
        self._open = set(self.wanted)

    @property
    def full(self) -> bool:
        """Whether its queue has no room."""
        return (self.pace.waiting >= _QUEUE or len(self._pipes) >= _PIPES) and not self.lost

    @property
    def is_detached(self) -> bool:
        """Whether it was detached from the others, and does not have all yet."""
        return isinstance(self.lost, DetachedError) and not self.over

    def wait_for_room(self, seconds: float) -> bool:
        """Waits until its queue has room, or it is lost."""
        with self._change:
            return self._change.wait_for(lambda: not self.full, seconds)

    def queued(self, size: int) -> None:
        """So many bytes more wait for it; negative, fewer."""
        with self._change:
            self.pace.add(size, self._clock())
            self._change.notify_all()

    def begun(self, pipe: Pipe) -> None:
        """A blob is on its way."""
        with self._change:
            self._pipes.add(pipe)

    def ended(self, pipe: Pipe, error: FerryError | None) -> None:
        """A blob that was on its way has arrived, or has not."""
        if isinstance(error, Unreachable | DiskFull):
            self.lose(error)
        if not isinstance(error, DetachedError):
            self.settle(pipe.blob.digest, error)
        with self._change:
            self._pipes.discard(pipe)
            self._change.notify_all()
            others = list(self._pipes)
        if isinstance(error, DaemonUnreachable):  # a ctr that is opening a blob waits for its return without end
            for other in others:
                other.cut(error)

    def settle(self, digest: str, error: FerryError | None) -> None:
        """A blob is there, or will not come."""
        with self._change:
            if error and digest in self._open:
                self.failed[digest] = error
            self._open.discard(digest)
            self._change.notify_all()

    def lose(self, error: FerryError) -> None:
        """Nothing more comes in this round."""
        with self._change:
            self.lost = self.lost or error
            self._change.notify_all()
            pipes = list(self._pipes)
        for pipe in pipes:
            pipe.fail(self.lost)

    def wait(self) -> list[Descriptor]:
        """Waits until every blob is settled.

        Returns:
            What is still to be sent, because the host has left the others.

        Raises:
            FerryError: what ended the host.
        """
        with self._change:
            self._change.wait_for(lambda: not self._open or (self.lost and not self._pipes))
        if self.lost and not isinstance(self.lost, DetachedError):
            raise self.lost
        return [self.wanted[digest] for digest in self._open]


class Pipe:
    """One blob on its way to one member; who gives the bytes waits while the host takes none.

    Attributes:
        over: whether it takes no more.
    """

    def __init__(self, blob: Descriptor, receiver: Receiver) -> None:
        self.blob, self.receiver = blob, receiver
        self.over = False
        self._error: FerryError | None = None
        self._sink: Sink | None = None
        receiver.begun(self)

    def put(self, chunk: bytes | None) -> None:
        """A chunk more; an empty one sees whether the host is there, and None is the end."""
        try:
            if not self.over and not self._pour(chunk):
                self._end(None)
        except FerryError as raised:
            self.cut(raised)
            self._end(self._error)
        except Exception as raised:  # noqa: BLE001  (shown, with where it happened)
            self.cut(unforeseen(raised))
            self._end(self._error)

    def wait_for_room(self, seconds: float) -> bool:  # noqa: ARG002
        """Waits until there is room for a chunk."""
        return True

    def fail(self, error: FerryError) -> None:
        """The blob will not be complete; seen with the next chunk."""
        self._error = self._error or error

    def cut(self, error: FerryError) -> None:
        """The same, and what the host is at is ended."""
        self.fail(error)
        if self._sink:
            self._sink.cut()

    def _pour(self, chunk: bytes | None) -> bool:
        """Whether more is to come."""
        if error := self._error or self.receiver.lost:
            raise error
        self._sink = self._sink or self.receiver.sink(self.blob)
        if chunk is not None and self._sink.write(chunk):
            return True
        self._sink.end()
        return False

    def _end(self, error: FerryError | None) -> None:
        self.over = True
        self.receiver.ended(self, error)


class QueuedPipe(Pipe):
    """One whose bytes wait for a thread of its own, so that nobody waits for another's host."""

    def __init__(self, blob: Descriptor, receiver: Receiver) -> None:
        self._chunks: deque[bytes | None] = deque()
        self._ready = threading.Condition()
        super().__init__(blob, receiver)
        try:
            threading.Thread(target=self._run, name="pipe", daemon=True).start()
        except RuntimeError as error:  # there are too many already
            self._end(unforeseen(error))

    def put(self, chunk: bytes | None) -> None:
        """The same, at once; the caller has waited for room."""
        with self._ready:
            if self.over or self._error or self.receiver.lost:
                return  # a write that is stuck may keep the thread for long
            self._chunks.append(chunk)
            self._ready.notify()
        self.receiver.queued(len(chunk or b""))

    def wait_for_room(self, seconds: float) -> bool:
        """The same, in the queue of its host."""
        return self.receiver.wait_for_room(seconds)

    def fail(self, error: FerryError) -> None:
        """The same; the thread sees it at once, unless it is writing."""
        with self._ready:
            super().fail(error)
            self._ready.notify()

    def _run(self) -> None:
        with self.receiver.slots:
            super().put(b"")  # begins on the host while the source does
            while not self.over:
                chunk = self._next()
                super().put(chunk)
                self.receiver.queued(-len(chunk or b""))

    def _next(self) -> bytes | None:
        with self._ready:
            self._ready.wait_for(lambda: self._chunks or self._error, _GLANCE)
            return self._chunks.popleft() if self._chunks and not self._error else b""

    def _end(self, error: FerryError | None) -> None:
        with self._ready:
            self.over = True
            waiting = sum(len(chunk or b"") for chunk in self._chunks)
            self._chunks.clear()
        self.receiver.queued(-waiting)
        super()._end(error)
