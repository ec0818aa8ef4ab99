"""What a namespace has of an image: its manifests, read, and which blobs are there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.ctr.failures import content_missing
from tasks.ctr.images import Image
from tasks.errors import PlatformMissing
from tasks.oci.descriptor import INDEXES, Descriptor, Manifest, Platform


@dataclass(frozen=True, slots=True)
class Choice:
    """What a new name can point at.

    Attributes:
        target: the image's own target, or one platform's manifest of its index.
        note: why it is not the image's own target; empty where it is.
    """

    target: Descriptor
    note: str = ""


@dataclass(slots=True)
class Content:
    """One namespace's content store, as far as it was read.

    Attributes:
        visible: every digest that the namespace sees.
        blobs: manifests and indexes by digest.
    """

    visible: frozenset[str] = frozenset()
    blobs: dict[str, bytes] = field(default_factory=dict)

    def manifest(self, digest: str) -> Manifest:
        """The manifest or index of this digest; an empty one where it was not, or cannot be, read."""
        try:
            return Manifest.parse(self.blobs[digest])
        except (KeyError, ValueError):
            return Manifest()

    def below(self, target: Descriptor) -> Mapping[str, Descriptor]:
        """The target and all that it points at, by digest, whether it is there or not."""
        found = {target.digest: target} | {child.digest: child for child in self.manifest(target.digest).children}
        for digest in list(found):
            found |= {blob.digest: blob for blob in self.manifest(digest).blobs}
        return found

    def needed(self, target: Descriptor, platform: Platform) -> list[Descriptor]:
        """What a container of this platform needs of the target; all of it, where it is for other platforms."""
        child = self.manifest(target.digest).child_for(platform) if target.is_index else target
        if child is None:
            return list(self.below(target).values())
        return list(dict.fromkeys([target, child, *self.manifest(child.digest).blobs]))

    def cargo(self, target: Descriptor) -> list[Descriptor]:
        """What there is of the target, itself first: of an index, the manifests that are there and all whole platforms.

        Manifests alone are tiny, and ctr 1.2 cannot name an index without them.
        """
        manifests = [child for child in self.manifest(target.digest).children if child.digest in self.visible]
        found = [target, *manifests]
        for each in manifests or [target]:
            blobs = self.manifest(each.digest).blobs
            found += blobs if all(blob.digest in self.visible for blob in blobs) else ()
        return list({blob.digest: blob for blob in found}.values())

    def rest(self, index: Descriptor, kept: Platform) -> dict[str, tuple[str, ...]]:
        """By parent, what is there of an index besides one platform: other manifests, and what they point at."""
        others = [c for c in self.manifest(index.digest).children if c.digest in self.visible and c.platform != kept]
        blobs = {other.digest: self.manifest(other.digest).blobs for other in others}
        found = {index.digest: tuple(other.digest for other in others)}
        return found | {
            parent: tuple(blob.digest for blob in below if blob.digest in self.visible)
            for parent, below in blobs.items()
        }

    def choose(self, image: Image, asked: Platform | None, host: Platform, *, partial_index: bool) -> Choice:
        """Decides what a new name of the image shall point at.

        Args:
            asked: the platform whose manifest is wanted, None for all of the image.
            host: the host's platform.
            partial_index: whether this ctr can name an index with absent platforms.

        Raises:
            ContentMissing, PlatformMissing.
        """
        raw = self.blobs.get(image.digest)
        if raw is None:
            raise content_missing(image.name, image.digest)
        whole = Descriptor(image.media_type, image.digest, len(raw))
        if image.media_type not in INDEXES:
            if asked and not image.is_for(asked):
                raise PlatformMissing(
                    f"{image.name} is for {image.platforms}, not for {asked}", hint="leave --platform out"
                )
            return Choice(whole)
        there = [child for child in self.manifest(image.digest).children if child.digest in self.visible]
        if not asked and (partial_index or len(there) == len(self.manifest(image.digest).children)):
            return Choice(whole)
        wanted = asked or host
        child = self.manifest(image.digest).child_for(wanted)
        if child is None or child not in there:
            raise PlatformMissing(
                f"{image.name} has no content for {wanted} on this host",
                said=f"there: {', '.join(str(child.platform) for child in there) or 'none'}",
                hint="choose one that is there with --platform",
            )
        note = f"the manifest of {wanted} in index {image.digest}"
        return Choice(child, note if asked else f"{note}: this ctr cannot name an index with absent platforms")
