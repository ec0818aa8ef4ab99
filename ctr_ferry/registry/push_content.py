"""What of a host's image a push takes along: all of it, or of an index one platform's manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry.ctr.failures import content_missing
from ctr_ferry.ctr.listing import Image
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.errors import MethodUnsupported, PlatformMissing
from ctr_ferry.images import inspect
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import Descriptor, Platform

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host


@dataclass(frozen=True, slots=True)
class PushContent:
    """What of the image is pushed.

    Attributes:
        target: what the name will point at; of an image that is no index, its own, with no size.
        part: the platform, where it is one manifest of an index.
        sizes: of all blobs by digest, as far as they were read.
    """

    target: Descriptor
    part: Platform | None = None
    sizes: dict[str, int] | None = None
    notices: tuple[str, ...] = ()


def choose(
    host: Host, facts: Facts, namespace: str, image: Image, asked: Platform | None, *, all_platforms: bool
) -> PushContent:
    """Decides what goes; an index, and what is asked for by platform, is read first.

    Args:
        asked: this platform alone.
        all_platforms: all of them or nothing.

    Raises:
        FerryError: it is not there, or this ctr cannot push it.
    """
    whole = Descriptor(image.media_type, image.digest, 0)
    if not whole.is_index:
        if asked and str(asked) not in image.platforms.split(","):
            raise PlatformMissing(
                f"{image.name} is for {image.platforms}, not for {asked}", hint="leave --platform out"
            )
        content = inspect.content(host, facts, namespace, [image.digest], deep=False)[0]
        return PushContent(whole, sizes=_sizes(content, whole))
    content = inspect.content(host, facts, namespace, [image.digest], deep=True)[0]
    if image.digest not in content.blobs:
        raise content_missing(image.name, image.digest)
    absent = _absent(content, whole)
    if not asked and not absent and facts.ctr.capabilities.piped:
        return PushContent(whole, sizes=_sizes(content, whole))
    if all_platforms:
        raise _insists(image, facts, absent)
    return _part(image, facts, content, asked)


def _absent(content: Content, index: Descriptor) -> list[str]:
    """The platforms of an index of which not everything is there."""
    children = content.manifest(index.digest).children
    lack = [child for child in children if not content.below(child).keys() <= content.visible]
    return [str(child.platform or child.digest) for child in lack]


def _insists(image: Image, facts: Facts, absent: Sequence[str]) -> PlatformMissing | MethodUnsupported:
    if not absent:
        return MethodUnsupported(
            f"ctr {facts.client} cannot push an index", hint="leave --all-platforms out: one platform goes"
        )
    return PlatformMissing(
        f"{image.name} cannot be pushed whole: not everything is here of {', '.join(absent)}",
        hint="pull it here with --all-platforms, or leave --all-platforms out",
    )


def _part(image: Image, facts: Facts, content: Content, asked: Platform | None) -> PushContent:
    index, platform, piped = image.digest, asked or facts.platform, facts.ctr.capabilities.piped
    if not piped and platform != facts.platform:
        raise MethodUnsupported(
            f"ctr {facts.client} can push no platform but the host's own, {facts.platform}",
            hint="push it from a host with a later ctr",
        )
    child = content.manifest(index).child_for(platform)
    if child is None or child.digest not in content.visible:
        there = [str(c.platform) for c in content.manifest(index).children if c.digest in content.visible]
        raise PlatformMissing(
            f"{image.name} has no content for {platform} on this host",
            detail=f"there: {', '.join(there) or 'none'}",
            hint="choose one that is there with --platform",
        )
    if absent := content.below(child).keys() - content.visible:
        raise content_missing(image.name, "\n".join(sorted(absent)))
    notice = f"the manifest of {platform} in index {index}"
    if not asked:
        notice += ": other platforms of it are not all here" if piped else ""
    return PushContent(child, platform, _sizes(content, child), (notice,))


def _sizes(content: Content, target: Descriptor) -> dict[str, int]:
    """The sizes of all that a target needs, itself included."""
    sizes = {digest: blob.size for digest, blob in content.below(target).items()}
    return sizes | {target.digest: len(content.blobs.get(target.digest, b""))}
