"""Blobs from one source to many hosts at once: each is read once, and goes to all that lack it.

The hosts of a convoy say what they want; when all have, the blobs are read, in lanes side by side, and every chunk is
given to each host's own bounded queue. A host that dies leaves. One that is slow is waited for while its queue is
full; where it has held up the others for long, it leaves as well, and is served alone, by one lane.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from typing import Protocol

from tasks.errors import ContentCorrupt, DaemonUnreachable, DiskFull, FerryError, SourceLost, Unreachable
from tasks.fleet.crew import unforeseen
from tasks.oci.descriptor import Descriptor

_QUEUE = 4 << 20  # bytes that wait for one host, in all lanes together
_SLOTS = 4  # blobs that one host takes at a time; sshd lets ten sessions run on a connection (MaxSessions)
_PIPES = 32  # blobs that wait for one host or are on their way to it, each a thread
_ALONE, _AGAIN = 3, 1  # hosts served alone at a time: that left the others, and that lack something in the end
_PATIENCE = 10.0  # seconds that a host may hold up others, and half of the time so far, before it is served alone
_INSTANT, _MOMENT, _GLANCE = 0.001, 0.2, 1.0  # seconds


class Source(Protocol):
    """Where blobs come from.

    Attributes:
        name: for messages.
        lanes: how many threads call `read` at once for a convoy; each host that is served alone is one more.
    """

    name: str
    lanes: int

    def read(self, wanted: Iterable[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        """Each wanted blob once, with its bytes, in the source's own order.

        ``wanted`` is shared by all lanes: what one has taken, no other gets. The chunks of one blob are used up or
        dropped before the next blob is asked for; they raise what keeps this blob alone from being read.

        Raises:
            FerryError: what keeps all blobs that are left from being read.
        """

    def holder(self, blob: Descriptor) -> str:
        """The host or file that a blob is read from, for messages."""


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


def checked(blob: Descriptor, chunks: Iterable[bytes], holder: str) -> Generator[bytes, None, None]:
    """The same bytes, hashed as they pass.

    Args:
        holder: the host or file that they come from.

    Raises:
        ContentCorrupt: behind the last one, where digest or size is another.
    """
    algorithm = blob.digest.partition(":")[0]
    digest, size = hashlib.new(algorithm), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        yield chunk
    found = f"{algorithm}:{digest.hexdigest()}"
    if (found, size) != (blob.digest, blob.size):
        raise ContentCorrupt(
            f"blob {blob.digest} as {holder} has it is not what its digest says",
            said=f"{found}, {size} bytes; {blob.size} were expected",
            hint="it is damaged there: bring it there once more, or name another source",
        )


class _LeftError(FerryError):
    """A slow host has left the others: what was on its way is sent again, to it alone."""


class Member:
    """One host of a convoy, and the blobs that it is still to get.

    Attributes:
        failed: by digest, why a blob did not come.
        lost: why nothing more comes in this round.
        held: seconds that others have lost by it; what several lanes see at once counts once.
    """

    def __init__(self, wanted: Iterable[Descriptor], sink: Callable[[Descriptor], Sink]) -> None:
        self.wanted = {blob.digest: blob for blob in wanted}
        self.sink = sink
        self.failed: dict[str, FerryError] = {}
        self.lost: FerryError | None = None
        self.held = self._held_until = 0.0
        self.slots = threading.Semaphore(_SLOTS)
        self._change = threading.Condition()
        self._queued, self._idle_since = 0, 0.0
        self._pipes: set[_Pipe] = set()
        self._open = set(self.wanted)

    @property
    def full(self) -> bool:
        """Whether its queue has no room."""
        return (self._queued >= _QUEUE or len(self._pipes) >= _PIPES) and not self.lost

    def starved(self, since: float, now: float) -> float:
        """For how many of these last seconds nothing waited for it; what its sshd has taken in it may still be at."""
        return 0.0 if self._queued or self.lost else now - max(since, self._idle_since)

    def wait_for_room(self, seconds: float) -> bool:
        """Waits until its queue has room, or it is lost."""
        with self._change:
            return self._change.wait_for(lambda: not self.full, seconds)

    def held_up(self, since: float, now: float) -> None:
        """Others have had nothing to do between two readings of the clock, because of it."""
        with self._change:
            self.held += max(0.0, now - max(since, self._held_until))
            self._held_until = max(now, self._held_until)

    def queued(self, size: int) -> None:
        """So many bytes more wait for it; negative, fewer."""
        with self._change:
            self._queued += size
            if size and not self._queued:
                self._idle_since = time.monotonic()
            self._change.notify_all()

    def begun(self, pipe: _Pipe) -> None:
        """A blob is on its way."""
        with self._change:
            self._pipes.add(pipe)

    def ended(self, pipe: _Pipe, error: FerryError | None) -> None:
        """A blob that was on its way has arrived, or has not."""
        if isinstance(error, Unreachable | DiskFull):
            self.lose(error)
        with self._change:
            self._pipes.discard(pipe)
            self._change.notify_all()
            others = list(self._pipes)
        if isinstance(error, DaemonUnreachable):  # a ctr that is opening a blob waits for its return without end
            for other in others:
                other.cut(error)
        if not isinstance(error, _LeftError):
            self.settle(pipe.blob.digest, error)

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
        _fail(pipes, self.lost)

    def wait(self) -> list[Descriptor]:
        """Waits until every blob is settled.

        Returns:
            What is still to be sent, because the host has left the others.

        Raises:
            FerryError: what ended the host.
        """
        with self._change:
            self._change.wait_for(lambda: not self._open or (self.lost and not self._pipes))
        if self.lost and not isinstance(self.lost, _LeftError):
            raise self.lost
        return [self.wanted[digest] for digest in self._open]


class _Pipe:
    """One blob on its way to one member, in a thread of its own, so that nobody waits for another.

    Attributes:
        over: whether it takes no more.
    """

    def __init__(self, blob: Descriptor, member: Member) -> None:
        self.blob, self.member = blob, member
        self._chunks: deque[bytes | None] = deque()
        self._ready = threading.Condition()
        self._error: FerryError | None = None
        self._sink: Sink | None = None
        self.over = False
        member.begun(self)
        threading.Thread(target=self._run, name="pipe", daemon=True).start()

    def put(self, chunk: bytes | None) -> None:
        """A chunk more; None is the end."""
        with self._ready:
            if self.over or self._error or self.member.lost:
                return  # a write that is stuck may keep the thread for long
            self._chunks.append(chunk)
            self._ready.notify()
        self.member.queued(len(chunk or b""))

    def fail(self, error: FerryError) -> None:
        """The blob will not be complete."""
        with self._ready:
            self._error = self._error or error
            self._ready.notify()

    def cut(self, error: FerryError) -> None:
        """The same, and what the host is at is ended."""
        self.fail(error)
        if self._sink:
            self._sink.cut()

    def _run(self) -> None:
        error: FerryError | None = None
        try:
            with self.member.slots:
                self._pour()
        except FerryError as raised:
            error = self._error or raised
        except Exception as raised:  # noqa: BLE001  (shown, with where it happened)
            error = unforeseen(raised)
        finally:
            self._close()
            self.member.ended(self, error)

    def _pour(self) -> None:
        if error := self._error or self.member.lost:
            raise error
        self._sink = sink = self.member.sink(self.blob)
        while (chunk := self._next(sink)) is not None:
            try:
                taken = sink.write(chunk)
            finally:
                self.member.queued(-len(chunk))
            if not taken:
                break
        sink.end()

    def _next(self, sink: Sink) -> bytes | None:
        with self._ready:
            waited = self._ready.wait_for(lambda: self._chunks or self._error, _GLANCE)
            if self._error:
                sink.cut()
                raise self._error
            if not waited:
                return b""  # while the source gives nothing, the host may be lost
            return self._chunks.popleft()

    def _close(self) -> None:
        with self._ready:
            self.over = True
            waiting = sum(len(chunk or b"") for chunk in self._chunks)
            self._chunks.clear()
        self.member.queued(-waiting)


class _Round:
    """The blobs that some members lack, read once each: first what most of them want, and of that the largest."""

    def __init__(
        self, source: Source, members: Collection[Member], lanes: int, may_leave: Callable[[bool], bool]
    ) -> None:
        self._source, self._members, self._lanes, self._may_leave = source, list(members), lanes, may_leave
        takers = Counter(digest for member in members for digest in member.wanted)
        blobs = {digest: blob for member in members for digest, blob in member.wanted.items()}
        self._in_order = iter(sorted(blobs.values(), key=lambda blob: (-takers[blob.digest], -blob.size)))
        self._unread = dict(blobs)
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def start(self) -> None:
        """Reads in threads of its own."""
        lanes = [threading.Thread(target=self._lane, name="lane", daemon=True) for _ in range(self._lanes)]
        for lane in lanes:
            lane.start()
        threading.Thread(target=self._finish, args=(lanes,), name="round", daemon=True).start()

    def _wanted(self) -> Iterator[Descriptor]:
        while True:
            with self._lock:
                blob = next(self._in_order, None)
            if blob is None:
                return
            yield blob

    def _lane(self) -> None:
        try:
            for blob, chunks in self._source.read(self._wanted()):
                self._tee(blob, chunks)
        except FerryError as error:
            self._give_up(error)
        except Exception as error:  # noqa: BLE001  (shown, with where it happened)
            self._give_up(unforeseen(error))

    def _finish(self, lanes: Sequence[threading.Thread]) -> None:
        for lane in lanes:
            lane.join()
        self._give_up(SourceLost(f"{self._source.name} did not give all blobs", hint="run it again"))

    def _give_up(self, error: FerryError) -> None:
        """What is still to be read will not come; what another lane is at may."""
        with self._lock:
            unread, self._unread = self._unread, {}
        for digest in unread:
            for member in self._members:
                if digest in member.wanted and not member.lost:
                    member.settle(digest, error)

    def _tee(self, blob: Descriptor, chunks: Iterable[bytes]) -> None:
        with self._lock:
            if not self._unread.pop(blob.digest, None):
                return
        takers = [m for m in self._members if blob.digest in m.wanted and not m.lost]
        pipes = [_Pipe(blob, member) for member in takers]
        try:
            with contextlib.closing(checked(blob, chunks, self._source.holder(blob))) as passing:
                self._pass_on(passing, pipes)
        except FerryError as error:
            _fail(pipes, error)
        except Exception as error:  # noqa: BLE001  (shown, with where it happened)
            _fail(pipes, unforeseen(error))

    def _pass_on(self, chunks: Iterator[bytes], pipes: list[_Pipe]) -> None:
        """To all that still take it; where nobody does, the rest is not read."""
        while pipes and (chunk := next(chunks, None)) is not None:
            pipes[:] = [pipe for pipe in pipes if not pipe.over]
            for pipe in pipes:
                self._put(pipe, chunk, pipes)
        for pipe in pipes:
            pipe.put(None)

    def _put(self, pipe: _Pipe, chunk: bytes, pipes: Sequence[_Pipe]) -> None:
        room = False
        while not room:
            since = time.monotonic()
            room = pipe.member.wait_for_room(_MOMENT)
            if (now := time.monotonic()) - since > _INSTANT:
                slow = {pipe.member, *(other.member for other in pipes if other.member.full)}
                lost = self._lost_by_others(slow, pipes, since, now)
                for member in slow:
                    self._blame(member, now - lost, now, stuck=not room)
        pipe.put(chunk)

    def _lost_by_others(self, slow: Collection[Member], pipes: Iterable[_Pipe], since: float, now: float) -> float:
        """The seconds that another could have used: for this blob, or for one that nobody reads yet."""
        takers = {pipe.member for pipe in pipes}
        with self._lock:
            unread = self._unread.keys()
            others = [m for m in self._members if m not in slow and (m in takers or not unread.isdisjoint(m.wanted))]
        return max((member.starved(since, now) for member in others), default=0.0)

    def _blame(self, member: Member, since: float, now: float, *, stuck: bool) -> None:
        """Counts what others lost by a member; too much, and it leaves, if it may."""
        member.held_up(since, now)
        if member.held > max(_PATIENCE, (now - self._began) / 2) and not member.lost and self._may_leave(stuck):
            member.lose(_LeftError("it is slower than the others"))


def _fail(pipes: Iterable[_Pipe], error: FerryError) -> None:
    for pipe in pipes:
        pipe.fail(error)


class Convoy:
    """Hosts that are served together. Every one of them must come, or be said to be gone.

    Args:
        hosts: their names.
    """

    def __init__(self, hosts: Iterable[str], source: Source) -> None:
        self._source = source
        self._awaited = set(hosts)
        self._members: list[Member] = []
        self._lock = threading.Lock()
        self._left = 0
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
        member = Member(wanted, sink)
        if not self._join(host, member):
            return self._serve(member, self._again)
        try:
            rest = member.wait()
            return member.failed | (self._serve(Member(rest, sink), self._alone) if rest else {})
        finally:
            with self._lock:
                self._left -= isinstance(member.lost, _LeftError)

    def _serve(self, member: Member, turn: threading.Semaphore) -> dict[str, FerryError]:
        """Alone, by one lane, so that the others still get their blobs."""
        with turn:
            _Round(self._source, [member], 1, lambda _: False).start()
            rest = member.wait()
        return member.failed | {blob.digest: _LeftError("it was left alone") for blob in rest}

    def _may_leave(self, stuck: bool) -> bool:
        """One that still moves leaves only to be served at once: waiting for its turn, it would be worse off."""
        with self._lock:
            may = stuck or self._left < _ALONE
            self._left += may
            return may

    def gone(self, host: str) -> None:
        """A host wants nothing, or nothing any more."""
        self._join(host, None)

    def _join(self, host: str, member: Member | None) -> bool:
        with self._lock:
            if host not in self._awaited:
                return False
            self._awaited.remove(host)
            self._members += [member] if member else []
            complete = not self._awaited
        if complete and self._members:
            _Round(self._source, self._members, self._source.lanes, self._may_leave).start()
        return True
