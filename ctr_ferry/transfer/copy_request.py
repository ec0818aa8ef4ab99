"""What is to be delivered to hosts, and what became of it: values that ``copy``, ``save`` and ``load`` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import ContentMissing, MethodUnsupported
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.report.outcome import Status, error_lines


@dataclass(frozen=True, slots=True)
class ImageCopy:
    """One image, to be delivered under one name.

    Attributes:
        image: as the source lists it.
        dst: with a tag.
    """

    image: Image
    dst: Reference


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """What is to be delivered, the same for every host.

    Attributes:
        content: the manifests, and what the source has.
        namespace: None is each host's own.
        platform: whose manifest is to be named; None is all that is there.
        every: whether all platforms must be there.
        pin: whether kubelet is to keep it.
    """

    image_copies: tuple[ImageCopy, ...]
    content: Content
    namespace: str | None = None
    platform: Platform | None = None
    every: bool = False
    unpack: bool = True
    force: bool = False
    pin: bool = False


@dataclass(slots=True)
class Delivered:
    """What became of one image on one host.

    Attributes:
        src, dst: its name at the source, and here.
        digest: what the name points at; ``src_digest`` differs where only the platform's manifest can be named.
        previous_digest: what the name pointed at before it was, or would be, moved; empty where it is new.
        method: blobs, link, or index where nothing had to come; empty where nothing is to be done.
        blobs_sent, bytes_sent: what went, or would go, over the wire.
        blobs_saved, bytes_saved: what was here already.
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
class DeliveryResult:
    """One host's result.

    Attributes:
        bytes_sent, seconds, rate: over the wire, how long that took, and bytes a second.
        notices: what a person should know of all of it, such as that the host has little room.
    """

    source: str
    namespace: str
    ctr: str
    containerd: str
    images: tuple[Delivered, ...]
    bytes_sent: int = 0
    seconds: float = 0.0
    rate: int = 0
    notices: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """changed where any image came."""
        return Status.of_all(image.status for image in self.images)

    def given(self) -> list[tuple[str, str, str]]:
        """Each name that an image has now, with its digest and the source's."""
        return [(i.dst, i.digest, i.src_digest) for i in self.images if i.status is not Status.FAILED]

    def lines(self) -> list[str]:
        """A line an image, its digest and bytes below."""
        lines = [line for image in self.images for line in _image_lines(image, self)]
        rate = [f"{_bytes(self.rate)}/s over {self.seconds:.1f} s"] if self.rate else []
        return [*lines, *self.notices, *rate]


def _image_lines(image: Delivered, result: DeliveryResult) -> Iterator[str]:
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


def blobs_to_copy(
    content: Content, image: Image, target: Descriptor, platform: Platform, *, every: bool
) -> list[Descriptor]:
    """The blobs of a target that are to be at the destination, the target first.

    Args:
        platform: what must be whole.
        every: whether all platforms must be.

    Raises:
        ContentMissing: with the digests that are nowhere.
        MethodUnsupported: an index lists another one.
    """
    if nested := [c.digest for c in content.manifest(target.digest).children if c.is_index]:
        raise MethodUnsupported(f"{image.name} is an index of indexes", detail="\n".join(nested), hint="use --platform")
    needed = content.below(target).values() if every else content.needed(target, platform)
    if absent := [blob.digest for blob in needed if blob.digest not in content.visible]:
        raise ContentMissing(
            f"the source has not all of {image.name}",
            detail="\n".join(absent),
            hint="take it from where it is whole; copy takes several --from, and --from any",
        )
    return content.blobs_to_copy(target)
