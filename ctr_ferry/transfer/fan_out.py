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
from ctr_ferry.transfer.policy import Policy
from ctr_ferry.transfer.receiver import DetachedError, Pipe, QueuedPipe, Receiver, Sink

_AGAIN = 1  # hosts served alone at a time that lack something in the end, beside those that were detached
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
        self,
        source: Source,
        receivers: Collection[Receiver],
        readers: int,
        *,
        policy: Policy,
        clock: Callable[[], float],
        detach: Callable[[Receiver, float], None] = lambda *_: None,
    ) -> None:
        self._source, self._receivers, self._readers = source, list(receivers), readers
        self._policy, self._clock, self._detach = policy, clock, detach
        takers = Counter(digest for receiver in receivers for digest in receiver.wanted)
        blobs = {digest: blob for receiver in receivers for digest, blob in receiver.wanted.items()}
        self._in_order = iter(sorted(blobs.values(), key=lambda blob: (-takers[blob.digest], -blob.size)))
        self._unread = dict(blobs)
        self._lock = threading.Lock()
        self._began = clock()

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
                if chunk:
                    self._wait_for_room(pipe, pipes)
                pipe.put(chunk)
        for pipe in pipes:
            pipe.put(None)

    def _wait_for_room(self, pipe: Pipe, pipes: Sequence[Pipe]) -> None:
        """Waits for one host, and charges all that are behind with what the others lose meanwhile."""
        room, since = False, self._clock()
        while not room:
            room = pipe.wait_for_room(_MOMENT)
            now = self._clock()
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
        self._policy.charge([receiver.pace for receiver in behind], others, since, now)
        for receiver in behind:
            if self._policy.is_too_slow(receiver.pace, self._began, now):
                self._detach(receiver, now)


class FanOut:
    """Hosts that are served together. Every one of them must come, or be said to be gone.

    Args:
        hosts: their names.
        policy: when a slow host is detached.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        source: Source,
        policy: Policy = Policy(),  # noqa: B008  (a value)
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._policy, self._clock = source, policy, clock
        self._awaited = set(hosts)
        self._receivers: list[Receiver] = []
        self._lock, self._detaching = threading.Lock(), threading.Lock()
        self._detached, self._again = threading.Semaphore(policy.slots), threading.Semaphore(_AGAIN)

    def deliver(
        self, host: str, wanted: Collection[Descriptor], sink: Callable[[Descriptor], Sink]
    ) -> dict[str, FerryError]:
        """Waits for the others, then until each blob has arrived or failed. A host that comes again is served alone.

        Returns:
            By digest, why a blob did not arrive.

        Raises:
            FerryError: what ended the host.
        """
        receiver = Receiver(wanted, sink, self._clock)
        if not self._join(host, receiver):
            return self._serve(receiver, self._again)
        try:
            rest = receiver.wait()
            if not rest:
                return receiver.failed
            return receiver.failed | self._serve(Receiver(rest, sink, self._clock), self._detached)
        finally:
            receiver.over = True

    def _serve(self, receiver: Receiver, turn: threading.Semaphore) -> dict[str, FerryError]:
        """Alone, by one lane, so that the others still get their blobs."""
        with turn:
            _Round(self._source, [receiver], 1, policy=self._policy, clock=self._clock).start()
            rest = receiver.wait()
        return receiver.failed | {blob.digest: DetachedError("it was left alone") for blob in rest}

    def _detach(self, receiver: Receiver, now: float) -> None:
        with self._detaching:  # two readers may see the last free slot
            detached = sum(each.is_detached for each in self._receivers)
            may = self._policy.may_detach(receiver.pace, now, full=receiver.full, detached=detached)
            if may and not receiver.lost:
                receiver.lose(DetachedError("it is slower than the others"))

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
            _Round(
                self._source,
                self._receivers,
                self._source.readers,
                policy=self._policy,
                clock=self._clock,
                detach=self._detach,
            ).start()
        return True
