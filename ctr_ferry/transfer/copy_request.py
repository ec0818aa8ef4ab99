"""What is to be copied, the same for every host: values that ``copy``, ``load`` and ``save`` share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import ContentMissing
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.text import shown_name

_SOURCE = "the source"


@dataclass(frozen=True, slots=True)
class ImageCopy:
    """One image as the source lists it, and the name to give, with a tag."""

    image: Image
    dst: Reference


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How images are copied.

    Attributes:
        namespace: where the images go; None means each host's own namespace.
        platform: the platform whose manifest is to be named; None means all that are there.
        every: whether all platforms must be there.
        own: whether of an index, no more than the host's own platform is to come.
        unpack: whether containerd is to unpack the images.
        force: whether a name that is another image already may be moved.
        pin: whether kubelet is to keep the images.
    """

    namespace: str | None = None
    platform: Platform | None = None
    every: bool = False
    own: bool = False
    unpack: bool = True
    force: bool = False
    pin: bool = False


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """The images to copy, and how; ``content`` has the manifests, and what the source has; users see ``notices``.

    Attributes:
        remedy: what a user can do where the source lacks a part of an image.
        origin, verb: what the source is called, and what becomes of an image, in messages.
    """

    image_copies: tuple[ImageCopy, ...]
    content: Content
    options: CopyOptions = CopyOptions()
    notices: tuple[str, ...] = ()
    remedy: str = "take them from all hosts that have any of it, with --from any"
    origin: str = _SOURCE
    verb: str = "copied"


def blobs_to_have(content: Content, target: Descriptor, platform: Platform, *, every: bool) -> Iterable[Descriptor]:
    """Returns the blobs of a target that some source must have: those of one platform, or of every one."""
    return content.below(target).values() if every else content.needed(target, platform)


def blobs_to_copy(
    content: Content, image: Image, target: Descriptor, platform: Platform, *, every: bool, origin: str = _SOURCE
) -> list[Descriptor]:
    """Returns the blobs of a target that must be at the destination, the target first.

    Args:
        platform: the platform that must be whole.
        every: whether all platforms must be.
        origin: what the source is called in the error.

    Raises:
        ContentMissing: some of these blobs are nowhere; the error lists their digests.
    """
    needed = blobs_to_have(content, target, platform, every=every)
    if absent := [blob.digest for blob in needed if blob.digest not in content.visible]:
        raise lacking(image, absent, origin)
    return content.blobs_to_copy(target)


def lacking(image: Image, absent: Iterable[str], origin: str = _SOURCE) -> ContentMissing:
    """Returns the error for an image of which the source lacks blobs that this host must have."""
    return ContentMissing(f"{origin} lacks blobs of {shown_name(image.name)}", detail="\n".join(absent))
