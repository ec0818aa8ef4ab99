"""Blobs from one source to many hosts at once: each is read once, and goes to all that lack it.

The hosts of a convoy say what they want; when all have, the blobs are read, in lanes side by side, and every chunk is
given to each host's own bounded queue; a large one for a host that is alone goes straight to it. A host that dies
leaves. One that is slow is waited for while its queue is full; where it has held up the others for long, it leaves as
well, and is served alone, by one lane.
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
from ctr_ferry.report.outcome import unforeseen
from ctr_ferry.transfer.receiver import LeftError, Pipe, QueuedPipe, Receiver, Sink

_ALONE, _AGAIN = 3, 1  # hosts served alone at a time: that left the others, and that lack something in the end
_PATIENCE = 10.0  # seconds that a host may hold up others, and half of the time so far, before it is served alone
_LARGE = 16 << 20  # bytes; what is larger goes to a host alone from the hand that reads it: handing on costs time
_INSTANT, _MOMENT = 0.001, 0.2  # seconds


class Source(Protocol):
    """Where blobs come from.

    Attributes:
        name: for messages.
        readers: how many threads call `read` at once for a convoy; each host that is served alone is one more.
    """

    name: str
    readers: int

    def read(self, wanted: Iterable[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        """Each wanted blob once, with its bytes, in the source's own order.

        ``wanted`` is shared by all lanes: what one has taken, no other gets. The chunks of one blob are used up or
        dropped before the next blob is asked for; they raise what keeps this blob alone from being read. An empty
        one may come while there is nothing, so that it is seen whether a host is still there that waits for it.

        Raises:
            FerryError: what keeps all blobs that are left from being read.
        """

    def holder(self, blob: Descriptor) -> str:
        """The host or file that a blob is read from, for messages."""


def checked(blob: Descriptor, chunks: Iterable[bytes], holder: str) -> Generator[bytes, None, None]:
    """The same bytes, hashed as they pass.

    Args:
        holder: the host or file that they come from.

    Raises:
        ContentCorrupt: behind the last one, where digest or size is another; before the first one that is too much.
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
            f"blob {blob.digest} as {holder} has it is not what its digest says",
            detail=f"{found}, {size} bytes; {blob.size} were expected",
            hint="it is damaged there: bring it there once more, or name another source",
        )


class _Round:
    """The blobs that some members lack, read once each: first what most of them want, and of that the largest."""

    def __init__(
        self, source: Source, receivers: Collection[Receiver], readers: int, leave: Callable[[Receiver], None]
    ) -> None:
        self._source, self._receivers, self._readers, self._leave = source, list(receivers), readers, leave
        takers = Counter(digest for receiver in receivers for digest in receiver.wanted)
        blobs = {digest: blob for receiver in receivers for digest, blob in receiver.wanted.items()}
        self._in_order = iter(sorted(blobs.values(), key=lambda blob: (-takers[blob.digest], -blob.size)))
        self._unread = dict(blobs)
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def start(self) -> None:
        """Reads in threads of its own."""
        readers = [threading.Thread(target=self._reader, name="lane", daemon=True) for _ in range(self._readers)]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._finish, args=(readers,), name="round", daemon=True).start()

    def _wanted(self) -> Iterator[Descriptor]:
        while True:
            with self._lock:
                blob = next(self._in_order, None)
            if blob is None:
                return
            yield blob

    def _reader(self) -> None:
        try:
            for blob, chunks in self._source.read(self._wanted()):
                self._tee(blob, chunks)
        except FerryError as error:
            self._give_up(error)
        except Exception as error:  # noqa: BLE001  (shown, with where it happened)
            self._give_up(unforeseen(error))

    def _finish(self, readers: Sequence[threading.Thread]) -> None:
        for reader in readers:
            reader.join()
        self._give_up(SourceLost(f"{self._source.name} did not give all blobs", hint="run it again"))

    def _give_up(self, error: FerryError) -> None:
        """What is still to be read will not come; what another lane is at may."""
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
        takers = [m for m in self._receivers if blob.digest in m.wanted and not m.lost]
        kind = Pipe if len(self._receivers) == 1 and blob.size > _LARGE else QueuedPipe
        pipes = [kind(blob, receiver) for receiver in takers]
        try:
            with contextlib.closing(checked(blob, chunks, self._source.holder(blob))) as passing:
                self._pass_on(passing, pipes)
        except FerryError as error:
            self._break_off(pipes, error)
        except Exception as error:  # noqa: BLE001  (shown, with where it happened)
            self._break_off(pipes, unforeseen(error))

    def _break_off(self, pipes: Iterable[Pipe], error: FerryError) -> None:
        for pipe in pipes:
            pipe.fail(error)
            pipe.put(b"")

    def _pass_on(self, chunks: Iterator[bytes], pipes: list[Pipe]) -> None:
        """To all that still take it; where nobody does, the rest is not read."""
        while pipes and (chunk := next(chunks, None)) is not None:
            pipes[:] = [pipe for pipe in pipes if not pipe.over]
            for pipe in pipes:
                self._put(pipe, chunk, pipes)
        for pipe in pipes:
            pipe.put(None)

    def _put(self, pipe: Pipe, chunk: bytes, pipes: Sequence[Pipe]) -> None:
        room = not chunk
        while not room:
            since = time.monotonic()
            room = pipe.wait_for_room(_MOMENT)
            if (now := time.monotonic()) - since > _INSTANT:
                slow = {pipe.receiver, *(other.receiver for other in pipes if other.receiver.full)}
                lost = self._lost_by_others(slow, pipes, since, now)
                for receiver in slow:
                    self._blame(receiver, now - lost, now)
        pipe.put(chunk)

    def _lost_by_others(self, slow: Collection[Receiver], pipes: Iterable[Pipe], since: float, now: float) -> float:
        """The seconds that another could have used: for this blob, or for one that nobody reads yet."""
        takers = {pipe.receiver for pipe in pipes}
        with self._lock:
            unread = self._unread.keys()
            others = [m for m in self._receivers if m not in slow and (m in takers or not unread.isdisjoint(m.wanted))]
        return max((receiver.starved(since, now) for receiver in others), default=0.0)

    def _blame(self, receiver: Receiver, since: float, now: float) -> None:
        """Counts what others lost by a member; too much, and it leaves, if it may."""
        receiver.held_up(since, now)
        if self._too_long(receiver, now):
            self._leave(receiver)

    def _too_long(self, receiver: Receiver, now: float) -> bool:
        return receiver.held > max(_PATIENCE, (now - self._began) / 2)


class FanOut:
    """Hosts that are served together. Every one of them must come, or be said to be gone.

    Args:
        hosts: their names.
    """

    def __init__(self, hosts: Iterable[str], source: Source) -> None:
        self._source = source
        self._awaited = set(hosts)
        self._receivers: list[Receiver] = []
        self._lock, self._leaving = threading.Lock(), threading.Lock()
        self._alone, self._again = threading.Semaphore(_ALONE), threading.Semaphore(_AGAIN)

    def deliver(
        self, host: str, wanted: Collection[Descriptor], sink: Callable[[Descriptor], Sink]
    ) -> dict[str, FerryError]:
        """Waits for the others, then until each blob has arrived or failed. A host that comes again is served alone.

        Returns:
            By digest, why a blob did not arrive.

        Raises:
            FerryError: what ended the host.
        """
        receiver = Receiver(wanted, sink)
        if not self._join(host, receiver):
            return self._serve(receiver, self._again)
        try:
            rest = receiver.wait()
            return receiver.failed | (self._serve(Receiver(rest, sink), self._alone) if rest else {})
        finally:
            receiver.over = True

    def _serve(self, receiver: Receiver, turn: threading.Semaphore) -> dict[str, FerryError]:
        """Alone, by one lane, so that the others still get their blobs."""
        with turn:
            _Round(self._source, [receiver], 1, lambda _: None).start()
            rest = receiver.wait()
        return receiver.failed | {blob.digest: LeftError("it was left alone") for blob in rest}

    def _leave(self, receiver: Receiver) -> None:
        """One that still moves leaves only to be served at once: waiting for its turn, it would be worse off."""
        with self._leaving:  # two lanes may see the last free place
            if not receiver.lost and (receiver.is_stuck or sum(each.is_apart for each in self._receivers) < _ALONE):
                receiver.lose(LeftError("it is slower than the others"))

    def gone(self, host: str) -> None:
        """A host wants nothing, or nothing any more."""
        self._join(host, None)

    def _join(self, host: str, receiver: Receiver | None) -> bool:
        with self._lock:
            if host not in self._awaited:
                return False
            self._awaited.remove(host)
            self._receivers += [receiver] if receiver else []
            complete = not self._awaited
        if complete and self._receivers:
            _Round(self._source, self._receivers, self._source.readers, self._leave).start()
        return True
