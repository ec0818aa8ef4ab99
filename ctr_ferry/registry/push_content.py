"""What of a host's image is pushed: all of it, or one platform's manifest of an index."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctr_ferry import shell
from ctr_ferry.ctr.failures import content_missing
from ctr_ferry.ctr.listing import Image
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.errors import MethodUnsupported, PlatformMissing
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.text import shown_name


@dataclass(frozen=True, slots=True)
class PushContent:
    """What of the image is pushed.

    Attributes:
        target: what the name in the registry will point at. Its size is 0 where the whole image is pushed.
        platform: the platform, where one manifest of an index is pushed; else None.
        listed: whether ``ctr push --platform`` finds that manifest: the index itself lists it with the platform.
        sizes: bytes of all blobs by digest, as far as the manifests were read.
    """

    target: Descriptor
    platform: Platform | None = None
    listed: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def choose(facts: Facts, image: Image, content: Content, asked: Platform | None, *, all_platforms: bool) -> PushContent:
    """Decides what of the image is pushed.

    Args:
        content: the image's manifests, as far as the host has them.
        asked: the one platform to push; None for the whole image.
        all_platforms: whether the host's own platform is not pushed alone where others are not on the host.

    Raises:
        FerryError: the content is not on the host, or this ctr cannot push it.
    """
    whole = Descriptor(image.media_type, image.digest, 0)
    if not whole.is_index:
        if asked and str(asked) not in image.platforms.split(","):
            raise PlatformMissing(
                f"{shown_name(image.name)} is for {image.platforms}, not for {asked}; nothing was pushed",
                hint="leave --platform out",
            )
        return PushContent(whole, sizes=_sizes(content, whole))
    if image.digest not in content.blobs:
        raise content_missing(image.name, image.digest)
    lack = _lacking(content, whole)
    if not asked and not lack and facts.ctr.capabilities.push_index:
        return PushContent(whole, sizes=_sizes(content, whole))
    if all_platforms and lack:
        absent = ", ".join(str(child.platform or child.digest) for child in lack)
        raise PlatformMissing(
            f"{shown_name(image.name)} cannot be pushed whole: this host lacks content of {absent}; nothing was pushed",
            hint=f"pull all of it first: fab -H HOST pull --ref {shell.join([image.name])} --all-platforms",
        )
    if all_platforms:
        raise MethodUnsupported(
            f"ctr {facts.client} cannot push a multi-platform image; nothing was pushed",
            hint="leave --all-platforms out: then the host's own platform is pushed",
        )
    return _one_platform(image, facts, content, asked)


def _one_platform(image: Image, facts: Facts, content: Content, asked: Platform | None) -> PushContent:
    index, platform, whole = image.digest, asked or facts.platform, facts.ctr.capabilities.push_index
    if not whole and platform != facts.platform:
        raise MethodUnsupported(
            f"ctr {facts.client} pushes only the host's own platform, {facts.platform}; nothing was pushed",
            hint="push the image from a host with ctr 1.1 or later",
        )
    tree = content.tree(Descriptor(image.media_type, index, 0))
    child = tree.manifest_for(platform)
    if child is None or child.digest not in content.visible:
        raise PlatformMissing(
            f"{shown_name(image.name)} has no content for {platform} on this host; nothing was pushed",
            detail=f"on this host: {content.told(tree)}",
            hint="choose one of these with --platform",
        )
    if absent := content.below(child).keys() - content.visible:
        raise content_missing(image.name, "\n".join(sorted(absent)))
    notice = f"the manifest of {platform} in index {index}"
    if whole and not asked:
        notice += ": this host lacks content of other platforms"
    listed = any(each.platform == platform and each.digest == child.digest for each in tree.listed[index])
    return PushContent(target=child, platform=platform, listed=listed, sizes=_sizes(content, child), notices=(notice,))


def _lacking(content: Content, index: Descriptor) -> list[Descriptor]:
    """What an index lists, at any depth, and the host lacks or has in part."""
    tree = content.tree(index)
    content.below(index)  # raises what cannot be read
    return [
        each
        for each in tree.documents
        if each in tree.unread or not {each.digest, *(blob.digest for blob in tree.blobs(each))} <= content.visible
    ]


def _sizes(content: Content, target: Descriptor) -> dict[str, int]:
    """Bytes of the target and of all that it points at, by digest."""
    sizes = {digest: blob.size for digest, blob in content.below(target).items()}
    return sizes | {target.digest: len(content.blobs.get(target.digest, b""))}
