"""Sources of blobs: hosts, whose content stores are read straight, and archives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ctr_ferry.ctr import ingest
from ctr_ferry.ctr.failures import failure
from ctr_ferry.errors import (
    LACKS_MEMORY,
    CommandFailed,
    ContentCorrupt,
    ContentMissing,
    FerryError,
    HostError,
    Interrupted,
    SessionRefused,
    SourceLost,
    Unreachable,
)
from ctr_ferry.images.session import Session
from ctr_ferry.oci import archive
from ctr_ferry.oci.archive import Archive
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.report.hints import at_hosts
from ctr_ferry.ssh.stream import Download
from ctr_ferry.transfer import archive_file

_READERS = 2  # while containerd writes one blob to disk, the next is on its way
_SIGNAL = 128  # an exit status above it means that a signal ended the command
_SESSIONS = 6  # downloads at a time: readers, and hosts served alone; fewer where sshd allows fewer (MaxSessions)


class _Downloads:
    """The downloads from one host that run at a time."""

    def __init__(self) -> None:
        self._running, self._most = 0, _SESSIONS
        self._change = threading.Condition()

    def __enter__(self) -> None:
        with self._change:
            self._change.wait_for(lambda: self._running < self._most)
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._running -= 1
            self._change.notify_all()

    def start(self, begin: Callable[[], Download]) -> Download:
        """Begins a download; where sshd refuses it, when another one has ended. From then on fewer run at a time."""
        while True:
            try:
                return begin()
            except SessionRefused:
                with self._change:
                    if self._running == 1:
                        raise
                    self._most = min(self._most, self._running - 1)
                self.__exit__()
                self.__enter__()


class HostSource:
    """One namespace of one host.

    Attributes:
        lost: why the host cannot be reached any more. It is asked again where this is taken away.
    """

    def __init__(self, session: Session) -> None:
        self.name = session.host.name
        self._host, self._facts, self._namespace = session.host, session.facts, session.here.namespace
        self._downloads = _Downloads()
        self._host.is_source = True
        self.lost: FerryError | None = None

    def chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """Yields one blob's bytes.

        Raises:
            ContentMissing: the host does not have the blob, or not all of it.
            CommandFailed, RemoteTimeout: the host stopped sending; another attempt may go well.
            SourceLost: the host cannot be reached any more.
        """
        if self.lost:
            raise self.lost
        with self._downloads:
            try:
                yield from self._chunks(blob)
            except Unreachable as error:
                self.lost = SourceLost(
                    f"the connection to the source {self.name} was lost",
                    detail=": ".join(filter(None, (error.message, error.detail))),
                    hint="blobs that arrived whole stay, and only the rest is sent: run the same command again",
                )
                raise self.lost from error

    def _chunks(self, blob: Descriptor) -> Iterator[bytes]:
        facts, host = self._facts, self._host
        step = ingest.read(facts.ctr, self._namespace, facts.content_root, blob)
        limit = ingest.time_for(blob.size, host.target.limits.command)
        download = self._downloads.start(lambda: host.download(step, limit=limit))
        with host.lost_connection():
            yield from download.chunks(blob.size)
        if download.answer and not download.answer.ok:
            error = failure(download.answer, f"blob {blob.digest}")
            if download.answer.exit > _SIGNAL:
                raise CommandFailed(
                    f"a signal on {self.name} ended the command that was reading blob {blob.digest}",
                    detail=error.detail,
                    hint=at_hosts(LACKS_MEMORY, [self.name]),
                )
            raise ContentMissing(
                f"{self.name} cannot read blob {blob.digest}",
                detail=error.detail,
                hint="the image was removed or damaged there meanwhile: take it from any host with --from any",
            )


class Sources:
    """Hosts, each with the digests that it has; what `FanOut` calls a source.

    A blob comes from the first host that has it. Where that host gives it not, or breaks off, the next one gives the
    rest: what has come is read again and dropped. One more attempt is made with the first host. Whoever takes the blob
    compares its digest, so it does not matter that it came in parts.
    """

    readers = _READERS
    remedy = "the blob is damaged there: take it from any host with --from any"

    def __init__(self, sources: Sequence[tuple[HostSource, Collection[str]]]) -> None:
        self.name = ", ".join(source.name for source, _ in sources)
        self._sources = sources
        self._troubled: set[str] = set()  # hosts that broke off: they are asked last
        self._damaged: set[tuple[str, str]] = set()  # hosts, and the digests of blobs that they gave damaged
        self._gave: dict[
            str, list[str]
        ] = {}  # by digest, the hosts that gave something of a blob when it was last read

    def read(self, wanted: Iterable[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        """Yields each blob in the order wanted, with its bytes. A host that was lost earlier is asked again."""
        for source, _ in self._sources:
            source.lost = None
        for blob in wanted:
            yield blob, self._chunks(blob)

    def holder(self, blob: Descriptor) -> str:
        """Returns the host or hosts that gave a blob, or else the host that will be asked first."""
        first = next((each.name for each in self._holders(blob.digest)), self.name)
        return ", ".join(self._gave.get(blob.digest, ())) or first

    def distrust(self, blob: Descriptor) -> bool:
        """Asks the host that gave a blob no more for it, unless it is the last; returns whether others have it."""
        holders = self._holders(blob.digest)
        gave = next(iter(self._gave[blob.digest]), "")  # nobody, if another reader has asked for the blob in vain since
        if others := [holder for holder in holders if holder.name != gave]:
            self._damaged.add((gave, blob.digest))
        return bool(others)

    def _holders(self, digest: str) -> list[HostSource]:
        """The hosts that have a blob, without those that gave it damaged; first those that gave all so far."""
        having = [
            source
            for source, visible in self._sources
            if digest in visible and (source.name, digest) not in self._damaged
        ]
        return sorted(having, key=lambda source: source.name in self._troubled)

    def _chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """Yields a blob's bytes; raises the last host's error where no host gives the rest."""
        holders = self._holders(blob.digest)
        gave = self._gave[blob.digest] = []
        given, troubles = 0, dict[str, FerryError]()
        for holder in (*holders, *holders[:1]):
            if isinstance(troubles.get(holder.name), (ContentMissing, SourceLost)):
                continue  # it would not go better
            before, gave[:] = given, [*(name for name in gave if name != holder.name), holder.name]
            try:
                for chunk in _rest(holder.chunks(blob), given):
                    given += len(chunk)
                    yield chunk
                return
            except HostError as error:
                if isinstance(error, (ContentCorrupt, Interrupted)):
                    raise
                troubles[holder.name] = error
                self._troubled.add(holder.name)
                if given == before:
                    gave.pop()
        raise _none_gave(blob, troubles)


def _rest(chunks: Iterator[bytes], given: int) -> Iterator[bytes]:
    """Yields the chunks without so many bytes at the beginning; an empty piece for each chunk of these."""
    for chunk in chunks:
        rest = chunk[given:]
        given -= len(chunk) - len(rest)
        yield rest


def _none_gave(blob: Descriptor, troubles: Mapping[str, FerryError]) -> FerryError:
    """The error for a blob that none of the hosts gave; each had its chance, so another attempt is of no use."""
    if not troubles:
        return ContentMissing(f"no source has blob {blob.digest}", hint="take it from any host with --from any")
    error = list(troubles.values())[-1]
    if len(troubles) == 1 and isinstance(error, (ContentMissing, SourceLost)):
        return error
    lost = SourceLost if not isinstance(error, ContentMissing) else ContentMissing
    found = lost(
        f"{', '.join(troubles)} did not give blob {blob.digest}",
        detail="\n".join(f"{name}: {': '.join(filter(None, (e.message, e.detail)))}" for name, e in troubles.items()),
        hint=error.hint,
    )
    found.__cause__ = error
    return found


class ArchiveSource:
    """An archive; what `FanOut` calls a source. It is read front to back, once for each batch."""

    readers = 1
    remedy = "see that nothing writes the archive meanwhile, then run the command again"

    def __init__(self, file: Path, found: Archive) -> None:
        self.name = str(file)
        self._file, self._archive = file, found

    def read(self, wanted: Iterable[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        """Yields each wanted blob with its bytes, in the archive's order.

        Raises:
            BadArchive: the file is not what it was.
            SourceLost: the file cannot be read any more.
        """
        blobs = {blob.digest: blob for blob in wanted}
        with self._readable(), archive_file.opened(self._file) as opened:
            for digest, chunks in archive.blobs(opened, self._archive, blobs):
                yield blobs[digest], self._readable_chunks(chunks)

    def holder(self, blob: Descriptor) -> str:  # noqa: ARG002
        """Returns the file."""
        return self.name

    def distrust(self, blob: Descriptor) -> bool:  # noqa: ARG002
        """Returns False: nobody else has the blob."""
        return False

    def _readable_chunks(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        with self._readable():
            yield from chunks

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceLost(
                f"{self.name} cannot be read any more",
                detail=error.strerror or str(error),
                hint="check the file and its disk, then run the command again",
            ) from error
