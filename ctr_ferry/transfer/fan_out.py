"""Blobs from one source to a batch of hosts at once: each blob is read once, and goes to all hosts that lack it.

Each host says which blobs it wants. When all hosts of the batch have said so, or nobody has come for long, readers read
the blobs side by side, and put each chunk into the bounded queue of each host. A host that fails is dropped. The
readers wait for a host whose queue is full. A host that delays the others for too long (`Policy`) is detached: one
reader serves it alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from typing import Protocol

from ctr_ferry.errors import ContentCorrupt, FerryError, SourceLost
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.transfer.policy import Policy
from ctr_ferry.transfer.receiver import SLOTS, DetachedError, Pipe, QueuedPipe, Receiver, SentAgainError, Sink, as_ours

_AGAIN = 1  # hosts served at once that still lack something at the end; detached hosts have their own slots
_LARGE = 16 << 20  # bytes; the reader thread itself sends a larger blob to a single host, since a queue costs time
_INSTANT = 0.001  # seconds; a shorter wait for a host counts as none
_MOMENT = 0.2  # seconds after which a reader that waits for a host decides anew who is too slow


class Source(Protocol):
    """Where blobs come from.

    Attributes:
        name: for messages.
        readers: how many threads call `read` at once for a batch; each host that is served alone is one more.
        remedy: what a user can do where a blob came damaged.
    """

    name: str
    readers: int
    remedy: str

    def read(self, wanted: Iterable[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        """Yields each wanted blob once, with its bytes, in the source's own order.

        The chunks of one blob are used up or dropped before the next blob is asked for. An error that they raise
        concerns this blob alone. A source that has to wait may give empty chunks: they let the fan-out notice that
        a host is gone.

        Args:
            wanted: is shared by all readers: each blob goes to one reader.

        Raises:
            FerryError: why no further blob can be read.
        """

    def holder(self, blob: Descriptor) -> str:
        """Returns the host or file that gave a blob, for messages."""

    def distrust(self, blob: Descriptor) -> bool:
        """Notes that the holder of a blob gave it damaged; returns whether `read` will take it from another one."""


def checked(blob: Descriptor, chunks: Iterable[bytes], source: Source) -> Generator[bytes, None, None]:
    """Yields the same chunks, and hashes them as they pass; ``source`` tells which host or file gave them.

    Raises:
        ContentCorrupt: after the last chunk, if digest or size differ; before a chunk that exceeds the size.
    """
    algorithm = blob.digest.partition(":")[0]
    digest, size = hashlib.new(algorithm), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        if size > blob.size:
            break
        yield chunk
    found = f"{algorithm}:{digest.hexdigest()}"
    if (found, size) != (blob.digest, blob.size):
        raise ContentCorrupt(
            f"blob {blob.digest} from {source.holder(blob)} does not match its digest",
            detail=f"{found}, {size} bytes; {blob.size} were expected",
            hint=source.remedy,
        )


class _Round:
    """The blobs that some receivers lack, read once each: first those that most receivers want, the largest first."""

    def __init__(self, fan_out: FanOut, receivers: Collection[Receiver], readers: int) -> None:
        self._fan_out, self._receivers = fan_out, list(receivers)
        # A reader whose blob waits for a slot of a host may wait for another reader: each needs a slot of its own.
        self._readers = min([readers, *(receiver.most for receiver in receivers)])
        takers = Counter(digest for receiver in receivers for digest in receiver.wanted)
        blobs = {digest: blob for receiver in receivers for digest, blob in receiver.wanted.items()}
        self._in_order = iter(sorted(blobs.values(), key=lambda blob: (-takers[blob.digest], -blob.size)))
        self._unread = dict(blobs)
        self._lock = threading.Lock()
        self._began = fan_out.clock()

    def start(self) -> None:
        """Starts to read, in threads of its own; where there are no threads for all readers, by fewer readers."""
        for _ in range(self._readers):
            try:
                threading.Thread(target=self._reader, name="reader", daemon=True).start()
            except RuntimeError as error:
                self._reader_ended(as_ours(error))

    def _wanted(self) -> Iterator[Descriptor]:
        while True:
            with self._lock:
                blob = next(self._in_order, None)
            if blob is None:
                return
            yield blob

    def _reader(self) -> None:
        error: FerryError | None = None
        try:
            for blob, chunks in self._fan_out.source.read(self._wanted()):
                self._tee(blob, chunks)
        except Exception as raised:  # noqa: BLE001  (shown, with where it happened)
            self._give_up(error := as_ours(raised))
        self._reader_ended(error)

    def _reader_ended(self, error: FerryError | None) -> None:
        """Fails what is still to be read after the last reader."""
        with self._lock:
            self._readers -= 1
            if self._readers:
                return
        name = self._fan_out.source.name
        self._give_up(error or SourceLost(f"{name} did not give all blobs", hint="run the command again"))

    def _give_up(self, error: FerryError) -> None:
        """Fails all blobs that are still to be read; a blob that another reader is reading may still come."""
        with self._lock:
            unread, self._unread = self._unread, {}
        for digest in unread:
            for receiver in self._receivers:
                if digest in receiver.wanted and not receiver.lost:
                    receiver.settle(digest, error)

    def _tee(self, blob: Descriptor, chunks: Iterable[bytes]) -> None:
        with self._lock:
            if not self._unread.pop(blob.digest, None):
                return
        while self._came_damaged(blob, chunks):
            ((_, chunks),) = self._fan_out.source.read([blob])

    def _came_damaged(self, blob: Descriptor, chunks: Iterable[bytes]) -> bool:
        """Gives a blob to all that lack it; returns whether it has to be read once more, from somebody else."""
        takers = [receiver for receiver in self._receivers if receiver.lacks(blob.digest) and not receiver.lost]
        kind = Pipe if len(self._receivers) == 1 and blob.size > _LARGE else QueuedPipe
        pipes: list[Pipe] = []
        again = False
        try:
            pipes += (kind(blob, receiver) for receiver in takers)
            with contextlib.closing(checked(blob, chunks, self._fan_out.source)) as passing:
                self._pass_on(passing, list(pipes))
        except Exception as raised:  # noqa: BLE001  (shown, with where it happened)
            error = as_ours(raised)
            again = isinstance(error, ContentCorrupt) and self._fan_out.source.distrust(blob)
            for pipe in pipes:
                pipe.fail(SentAgainError(error.message) if again else error)
                pipe.put(b"")
            for receiver in set(takers) - {pipe.receiver for pipe in pipes}:
                receiver.settle(blob.digest, error)
        return again

    def _pass_on(self, chunks: Iterator[bytes], pipes: list[Pipe]) -> None:
        """Gives chunks to all receivers that still take the blob; if none does, the rest is not read."""
        while pipes and (chunk := next(chunks, None)) is not None:
            pipes[:] = [pipe for pipe in pipes if not pipe.over]
            for pipe in pipes:
                if chunk:
                    self._wait_for_room(pipe, pipes)
                pipe.put(chunk)
        for pipe in pipes:
            pipe.put(None)

    def _wait_for_room(self, pipe: Pipe, pipes: Sequence[Pipe]) -> None:
        """Waits for one host, and charges all that are behind with what the others lose meanwhile."""
        room, since = False, self._fan_out.clock()
        while not room:
            room = pipe.wait_for_room(_MOMENT)
            now = self._fan_out.clock()
            if now - since > _INSTANT:
                behind = {pipe.receiver, *(other.receiver for other in pipes if other.receiver.full)}
                self._charge(behind, pipes, since, now)
            since = now

    def _charge(self, behind: Collection[Receiver], pipes: Iterable[Pipe], since: float, now: float) -> None:
        """Charges hosts with the time that others lost, and detaches the ones that have cost too much."""
        takers = {pipe.receiver for pipe in pipes}
        with self._lock:
            unread = self._unread.keys()
            others = [
                receiver.pace
                for receiver in self._receivers
                if receiver not in behind
                and not receiver.lost
                and (receiver in takers or not unread.isdisjoint(receiver.wanted))
            ]
        self._fan_out.policy.charge([receiver.pace for receiver in behind], others, since, now)
        for receiver in behind:
            if self._fan_out.policy.is_too_slow(receiver.pace, self._began, now):
                self._fan_out.detach(receiver, now)


class FanOut:
    """A batch of hosts that are served together. For each of their names, `send` or `gone` must be called.

    Args:
        policy: decides when a slow host is detached.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        source: Source,
        policy: Policy = Policy(),  # noqa: B008  (a value)
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source, self.policy, self.clock = source, policy, clock
        self._awaited, self._late = set(hosts), set[str]()
        self._receivers: list[Receiver] = []
        self._change, self._detaching = threading.Condition(), threading.Lock()
        self._last_came, self._has_begun = clock(), False
        self._detached, self._again = threading.Semaphore(policy.slots), threading.Semaphore(_AGAIN)

    def send(
        self, host: str, wanted: Collection[Descriptor], sink: Callable[[Descriptor], Sink], slots: int = SLOTS
    ) -> dict[str, FerryError]:
        """Sends blobs to one host. When each blob has arrived or failed, returns by digest why a blob did not arrive.

        The first call waits until all other hosts of the batch have called, unless nobody calls for long
        (`Policy.absent`). A host that calls later than that, or again, is served alone.

        Args:
            sink: opens one blob on the host.
            slots: how many blobs the host takes at a time, at most `SLOTS`.

        Raises:
            FerryError: why nothing more can be sent to the host.
        """
        receiver = Receiver(wanted, sink, self.clock, slots)
        if not self._join(host, receiver):
            return self._serve_alone(receiver, self._detached if host in self._late else self._again)
        self._begin()
        try:
            rest = receiver.wait()
            if not rest:
                return receiver.failed
            return receiver.failed | self._serve_alone(Receiver(rest, sink, self.clock, slots), self._detached)
        finally:
            receiver.over = True

    def _serve_alone(self, receiver: Receiver, slots: threading.Semaphore) -> dict[str, FerryError]:
        """Serves one host by one reader, so that the others still get their blobs."""
        with slots:
            self._read_for([receiver], lambda: 1)
            receiver.wait()
        return receiver.failed

    def detach(self, receiver: Receiver, now: float) -> None:
        """Detaches a host that is too slow, if the policy allows that."""
        with self._detaching:  # two readers may see the last free slot
            detached = sum(each.is_detached for each in self._receivers)
            may = self.policy.may_detach(receiver.pace, now, full=receiver.full, detached=detached)
            if may and not receiver.lost:
                receiver.lose(DetachedError("it is slower than the others"))

    def gone(self, host: str) -> None:
        """Notes that a host wants nothing, or nothing any more."""
        self._join(host, None)

    def _join(self, host: str, receiver: Receiver | None) -> bool:
        with self._change:
            if host not in self._awaited:
                return False
            self._awaited.remove(host)
            self._last_came = self.clock()
            if receiver:
                self._receivers.append(receiver)
            self._change.notify_all()
        return True

    def _begin(self) -> None:
        """Waits for the other hosts, and begins to read unless another host has begun."""
        with self._change:
            while self._awaited and self.clock() <= self._last_came + self.policy.absent:
                self._change.wait(_MOMENT)
            self._late |= self._awaited
            self._awaited.clear()
            has_begun, self._has_begun = self._has_begun, True
        if not has_begun:
            self._read_for(self._receivers, lambda: self.source.readers)

    def _read_for(self, receivers: Sequence[Receiver], readers: Callable[[], int]) -> None:
        """Starts to read for hosts. Where that fails, they all know it: none waits for blobs that will never come."""
        try:
            _Round(self, receivers, readers()).start()
        except Exception as error:  # noqa: BLE001  (shown, with where it happened)
            for receiver in receivers:
                receiver.lose(as_ours(error))
