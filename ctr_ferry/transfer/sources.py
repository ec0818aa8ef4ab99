"""Sources of blobs: hosts, whose content stores are read straight, and archives."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ctr_ferry.ctr import ingest
from ctr_ferry.ctr.failures import failure
from ctr_ferry.errors import CommandFailed, ContentMissing, FerryError, SourceLost, Unreachable
from ctr_ferry.images.session import Session
from ctr_ferry.oci import archive
from ctr_ferry.oci.archive import Archive
from ctr_ferry.oci.descriptor import Descriptor

_READERS = 2  # while containerd writes one blob to disk, the next is on its way
_SIGNAL = 128  # an exit status above it means that a signal ended the command
_SESSIONS = 6  # downloads at a time: readers, and hosts served alone; sshd lets ten sessions run (MaxSessions)


class HostSource:
    """One namespace of one host; what `FanOut` calls a source."""

    readers = _READERS

    def __init__(self, session: Session) -> None:
        self.name = session.host.name
        self._host, self._facts, self._namespace = session.host, session.facts, session.here.namespace
        self._sessions = threading.Semaphore(_SESSIONS)
        self._lost: FerryError | None = None

    def read(self, wanted: Iterable[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        """Yields each blob in the order wanted, with its bytes."""
        for blob in wanted:
            yield blob, self.chunks(blob)

    def holder(self, blob: Descriptor) -> str:  # noqa: ARG002
        """Returns the host's name."""
        return self.name

    def distrust(self, blob: Descriptor) -> bool:  # noqa: ARG002
        """Returns False: no other host has the blob."""
        return False

    def chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """Yields one blob's bytes.

        Raises:
            ContentMissing: the host does not have the blob, or not all of it.
            CommandFailed, RemoteTimeout: the host stopped sending; another attempt may go well.
            SourceLost: the host cannot be reached any more.
        """
        if self._lost:
            raise self._lost
        with self._sessions:
            try:
                yield from self._chunks(blob)
            except Unreachable as error:
                self._lost = SourceLost(
                    f"the connection to the source {self.name} was lost",
                    detail=": ".join(filter(None, (error.message, error.detail))),
                    hint="run the same command again: blobs that arrived whole stay, and only the rest is sent",
                )
                raise self._lost from error

    def _chunks(self, blob: Descriptor) -> Iterator[bytes]:
        facts, host = self._facts, self._host
        step = ingest.read(facts.ctr, self._namespace, facts.content_root, blob)
        download = host.download(step, limit=ingest.time_for(blob.size, host.target.limits.command))
        with host.lost_connection():
            yield from download.chunks(blob.size)
        if download.answer and not download.answer.ok:
            error = failure(download.answer, f"blob {blob.digest}")
            if download.answer.exit > _SIGNAL:
                raise CommandFailed(
                    f"a signal on {self.name} ended the command that was reading blob {blob.digest}",
                    detail=error.detail,
                    hint="read that host's log: it may lack memory",
                )
            raise ContentMissing(
                f"{self.name} cannot read blob {blob.digest}",
                detail=error.detail,
                hint="the image was removed or damaged there meanwhile: run check on that host, or name another source",
            )


class Sources:
    """Several hosts, each with the digests that it has: a blob comes from the first that has it and gives it."""

    readers = _READERS

    def __init__(self, sources: Sequence[tuple[HostSource, Collection[str]]]) -> None:
        self.name = ", ".join(source.name for source, _ in sources)
        self._sources = sources
        self._left: dict[str, list[HostSource]] = {}
        self._gives: dict[str, str] = {}

    def read(self, wanted: Iterable[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        """Yields each blob in the order wanted, with its bytes."""
        for blob in wanted:
            yield blob, self._chunks(blob)

    def holder(self, blob: Descriptor) -> str:
        """Returns the host that gave a blob, or else the host that will be asked first."""
        first = next((each.name for each in self._holders(blob.digest)), self.name)
        return self._gives.get(blob.digest, first)

    def distrust(self, blob: Descriptor) -> bool:
        """Asks the host that gave a blob no more for it, unless it is the last; returns whether others have it."""
        holders, gave = self._holders(blob.digest), self._gives.get(blob.digest)
        if others := [holder for holder in holders if holder.name != gave]:
            holders[:] = others
        return bool(others)

    def _holders(self, digest: str) -> list[HostSource]:
        """The hosts that have a blob, without those that failed to give it."""
        return self._left.setdefault(digest, [source for source, visible in self._sources if digest in visible])

    def _chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """Yields a blob from the next host if one gives nothing at all; raises if a host breaks off in the middle."""
        holders = self._holders(blob.digest)
        for holder in list(holders):
            started = False
            self._gives[blob.digest] = holder.name
            try:
                for chunk in holder.chunks(blob):
                    started = started or bool(chunk)
                    yield chunk
                return
            except (ContentMissing, SourceLost):
                with suppress(ValueError):  # another reader was faster
                    holders.remove(holder)
                if not holders or started:
                    raise
        raise ContentMissing(f"no source has blob {blob.digest}", hint="name further hosts with --from")


class ArchiveSource:
    """An archive; what `FanOut` calls a source. It is read front to back, once for each batch."""

    readers = 1

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
        with self._readable(), self._file.open("rb") as opened:
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
