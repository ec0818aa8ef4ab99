"""An archive on the control machine as a source of blobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ctr_ferry.errors import SourceLost
from ctr_ferry.oci import archive
from ctr_ferry.oci.archive import Archive
from ctr_ferry.oci.descriptor import Descriptor


class ArchiveSource:
    """An archive as a source of blobs; what `FanOut` calls a source. It is read front to back, once for each batch.

    Attributes:
        name: for messages.
        readers: how many threads may read at once.
    """

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
