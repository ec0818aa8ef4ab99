"""What became of a copy on one host: the result that ``copy`` and ``load`` report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ctr_ferry.report.outcome import Status, error_lines


@dataclass(slots=True)
class CopiedImage:
    """What became of one image on one host.

    Attributes:
        src, dst: the image's name at the source, and on this host.
        digest: what the name points at; ``src_digest`` differs if only the platform's manifest can be named.
        previous_digest: what the name pointed at before it was, or would be, moved; empty if the name is new.
        method: ``blobs``; ``link``; ``index`` if nothing had to come; empty if nothing is to be done.
        blobs_sent, bytes_sent: what was, or would be, sent.
        blobs_saved, bytes_saved: what the host had already.
    """

    src: str
    dst: str
    digest: str = ""
    src_digest: str = ""
    previous_digest: str = ""
    method: str = ""
    status: Status = Status.UNCHANGED
    blobs_sent: int = 0
    bytes_sent: int = 0
    blobs_saved: int = 0
    bytes_saved: int = 0
    note: str = ""
    error: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class CopyResult:
    """One host's result.

    Attributes:
        source: the name of the source.
        ctr, containerd: the versions on this host.
        bytes_sent, seconds, rate: the bytes that were sent, how long that took, and bytes per second.
        notices: what the user should know besides, such as that the host has little room.
    """

    source: str
    namespace: str
    ctr: str
    containerd: str
    images: tuple[CopiedImage, ...]
    bytes_sent: int = 0
    seconds: float = 0.0
    rate: int = 0
    notices: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """``changed`` if any image was copied."""
        return Status.of_all(image.status for image in self.images)

    def given(self) -> list[tuple[str, str, str]]:
        """Returns each name that an image has now, with its digest and the digest at the source."""
        return [(i.dst, i.digest, i.src_digest) for i in self.images if i.status is not Status.FAILED]

    def lines(self) -> list[str]:
        """Returns a line for each image, with its digest and bytes below."""
        lines = [line for image in self.images for line in _image_lines(image, self)]
        rate = [f"{_bytes(self.rate)}/s over {self.seconds:.1f} s"] if self.rate else []
        return [*lines, *self.notices, *rate]


def _image_lines(image: CopiedImage, result: CopyResult) -> Iterator[str]:
    how = f"  ({image.method}, ctr {result.ctr})" if image.method else ""
    state = f"  {image.status}" if len(result.images) > 1 else ""
    yield f"{result.source}: {image.src} -> {image.dst} in {result.namespace}{how}{state}"
    if image.digest:
        yield f"  {image.digest}"
    if image.previous_digest:
        yield f"  replaces {image.previous_digest}"
    if image.method:
        sent, saved = _count(image.blobs_sent, image.bytes_sent), _count(image.blobs_saved, image.bytes_saved)
        yield f"  {sent} over the wire, {saved} here already"
    if image.note:
        yield f"  {image.note}"
    if image.error:
        yield from (f"  {line}" for line in error_lines(image.error))


def _count(blobs: int, size: int) -> str:
    return f"{blobs} blob{'s' * (blobs != 1)} ({_bytes(size)})"


def _bytes(size: int) -> str:
    from rich.filesize import decimal

    return decimal(size)
