"""What became of a copy on one host: the result that ``copy`` and ``load`` report."""

from __future__ import annotations

from dataclasses import dataclass

from ctr_ferry.images.item import ImageResult, NamedImages


@dataclass(slots=True)
class CopiedImage(ImageResult):
    """What became of one image on one host. Its method is ``blobs``, ``link``, or ``index`` if nothing had to come.

    Attributes:
        blobs_sent, bytes_sent: what was, or would be, sent.
        blobs_saved, bytes_saved: what the host had already.
    """

    blobs_sent: int = 0
    bytes_sent: int = 0
    blobs_saved: int = 0
    bytes_saved: int = 0

    @property
    def moved(self) -> str:
        """What was, or would be, sent; in words."""
        sent, saved = _count(self.blobs_sent, self.bytes_sent), _count(self.blobs_saved, self.bytes_saved)
        return f"{sent} over the wire, {saved} here already" if self.method else ""


@dataclass(frozen=True, slots=True)
class CopyResult(NamedImages):
    """One host's result.

    Attributes:
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

    def lines(self) -> list[str]:
        """Returns a line for each image, with its digest and bytes below."""
        source, where, several = f"{self.source}: ", f" in {self.namespace}", len(self.images) > 1
        lines = [
            line
            for image in self.images
            for line in image.lines(source=source, where=where, ctr=self.ctr, several=several, moved=image.moved)
        ]
        rate = [f"{_bytes(self.rate)}/s over {self.seconds:.1f} s"] if self.rate else []
        return [*lines, *self.notices, *rate]


def _count(blobs: int, size: int) -> str:
    return f"{blobs} blob{'s' * (blobs != 1)} ({_bytes(size)})"


def _bytes(size: int) -> str:
    from rich.filesize import decimal

    return decimal(size)
