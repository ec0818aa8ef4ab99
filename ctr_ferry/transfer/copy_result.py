"""What became of a copy on one host: the result that ``copy`` and ``load`` report."""

from __future__ import annotations

from dataclasses import dataclass

from ctr_ferry.images.item import ImageResult, NamedImages
from ctr_ferry.text import size


@dataclass(slots=True)
class CopiedImage(ImageResult):
    """What became of one image on one host. Its method is ``blobs``, ``link``, or ``index`` if nothing had to come.

    Attributes:
        blobs, bytes: what was, or would be, sent.
        blobs_there, bytes_there: what the host had already.
    """

    blobs: int = 0
    bytes: int = 0
    blobs_there: int = 0
    bytes_there: int = 0

    @property
    def moved(self) -> str:
        """What was, or would be, sent; in words."""
        sent, saved = _count(self.blobs, self.bytes), _count(self.blobs_there, self.bytes_there)
        return f"{sent} over the wire, {saved} here already" if self.method else ""


@dataclass(frozen=True, slots=True)
class CopyResult(NamedImages):
    """One host's result.

    Attributes:
        ctr, containerd: the versions on this host.
        origin: the host, or the hosts, or the archive that gave the blobs.
        bytes, seconds, rate: the bytes that were sent, how long that took, and bytes per second.
        notes: what the user should know besides, such as that the host has little room.
    """

    origin: str
    namespace: str
    ctr: str
    containerd: str
    images: tuple[CopiedImage, ...]
    bytes: int = 0
    seconds: float = 0.0
    rate: int = 0
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Returns a line for each image, with its digest and bytes below."""
        origin, where, several = f"{self.origin}: ", f" in {self.namespace}", len(self.images) > 1
        lines = [
            line
            for image in self.images
            for line in image.lines(origin=origin, where=where, ctr=self.ctr, several=several, moved=image.moved)
        ]
        rate = [f"{size(self.rate)}/s over {self.seconds:.1f} s"] if self.rate else []
        return [*lines, *self.notes, *rate]


def _count(blobs: int, bytes_: int) -> str:
    return f"{blobs} blob{'s' * (blobs != 1)} ({size(bytes_)})"
