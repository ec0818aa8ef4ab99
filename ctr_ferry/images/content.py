"""What a namespace has of an image: its manifests, read, and which blobs are there. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ctr_ferry.ctr.commands import MOST_DOCUMENT
from ctr_ferry.ctr.failures import content_missing, daemon_trouble
from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import ContentCorrupt, ContentMissing, FerryError, PlatformMissing
from ctr_ferry.oci.descriptor import Descriptor, Manifest, Platform
from ctr_ferry.shell import Answer
from ctr_ferry.text import tail

_FAILED = re.compile("^ctr: ", re.MULTILINE)  # other lines may be warnings


@dataclass(frozen=True, slots=True)
class Choice:
    """What a new name can point at.

    Attributes:
        target: the image's own target, or one platform's manifest of its index.
        note: why it is not the image's own target; empty where it is.
    """

    target: Descriptor
    note: str = ""


def checked(digest: str, answer: Answer, holder: str) -> bytes:
    """A manifest or index, if it is what its digest says and can be parsed.

    Raises:
        ContentMissing, ContentCorrupt, DaemonUnreachable, PermissionDenied: what the holder gave instead.
    """
    raw, what = answer.stdout, f"manifest {digest}"
    algorithm = digest.partition(":")[0]
    found = f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"
    if found != digest and (not raw or not answer.ok or _FAILED.search(answer.stderr)):
        raise daemon_trouble(answer.stderr) or ContentMissing(
            f"{holder} does not give {what}",
            detail=tail(answer.stderr) or "it gave nothing, and no reason",
            hint="run it again; if it stays, bring the image there once more",
        )
    if found != digest:
        size = f"more than {MOST_DOCUMENT}" if len(raw) > MOST_DOCUMENT else len(raw)
        raise _corrupt(f"{what} as {holder} gives it is not what its digest says", f"{found}, {size} bytes")
    try:
        Manifest.parse(raw)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt(f"{what} as {holder} has it is neither a manifest nor an index", str(error)[:400]) from error
    return raw


def _corrupt(message: str, detail: str) -> ContentCorrupt:
    return ContentCorrupt(message, detail=detail, hint="bring the image there once more, or take it from another host")


@dataclass(slots=True)
class Content:
    """One namespace's content store, as far as it was read.

    Attributes:
        visible: every digest that the namespace sees.
        blobs: manifests and indexes by digest, each of them checked.
        bad: why one that is there cannot be read.
    """

    visible: frozenset[str] = frozenset()
    blobs: dict[str, bytes] = field(default_factory=dict)
    bad: dict[str, FerryError] = field(default_factory=dict)

    @classmethod
    def merged(cls, contents: Iterable[Content]) -> Content:
        """What several hosts have together; what one of them has in order is in order."""
        found = cls()
        for each in contents:
            found.visible |= each.visible
            found.blobs = each.blobs | found.blobs
            found.bad = each.bad | found.bad
        found.bad = {digest: error for digest, error in found.bad.items() if digest not in found.blobs}
        return found

    def take(self, digest: str, answer: Answer, holder: str) -> None:
        """Takes in a manifest or index as `Ctr.document` gave it, or why it is none.

        Args:
            holder: the host that has it, for messages.
        """
        try:
            self.blobs[digest] = checked(digest, answer, holder)
        except FerryError as error:
            self.bad[digest] = error

    def see(self, digests: frozenset[str]) -> None:
        """Takes in what the namespace sees: what it does not see is absent, and not bad."""
        self.visible = digests
        self.bad = {digest: error for digest, error in self.bad.items() if digest in digests}

    def manifest(self, digest: str) -> Manifest:
        """The manifest or index of this digest; an empty one where it is absent, or was not asked for.

        Raises:
            FerryError: it is there, and cannot be read.
        """
        if digest in self.bad:
            raise self.bad[digest]
        return Manifest.parse(self.blobs[digest]) if digest in self.blobs else Manifest()

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

    def blobs_to_copy(self, target: Descriptor) -> list[Descriptor]:
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
            ContentMissing, ContentCorrupt, PlatformMissing.
        """
        top, raw = self.manifest(image.digest), self.blobs.get(image.digest)
        if raw is None:
            raise content_missing(image.name, image.digest)
        whole = Descriptor(image.media_type, image.digest, len(raw))
        if whole.is_index == bool(top.blobs):
            raise _corrupt(f"{image.name} is said to be {image.media_type}, and {image.digest} is something else", "")
        if not whole.is_index:
            if asked and not image.is_for(asked):
                raise PlatformMissing(
                    f"{image.name} is for {image.platforms}, not for {asked}", hint="leave --platform out"
                )
            return Choice(whole)
        there = [child for child in top.children if child.digest in self.visible]
        if not asked and (partial_index or len(there) == len(top.children)):
            return Choice(whole)
        wanted = asked or host
        child = top.child_for(wanted)
        if child is None or child not in there:
            raise PlatformMissing(
                f"{image.name} has no content for {wanted} on this host",
                detail=f"there: {', '.join(str(child.platform) for child in there) or 'none'}",
                hint="choose one that is there with --platform",
            )
        note = f"the manifest of {wanted} in index {image.digest}"
        return Choice(child, note if asked else f"{note}: this ctr cannot name an index with absent platforms")
