"""The content of images in one namespace: their manifests, and which blobs are visible. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ctr_ferry.ctr.commands import MOST_DOCUMENT
from ctr_ferry.ctr.failures import content_missing, daemon_trouble
from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import ContentCorrupt, ContentMissing, FerryError, PlatformMissing
from ctr_ferry.oci.descriptor import INDEXES, MANIFESTS, OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, Platform
from ctr_ferry.shell import Answer
from ctr_ferry.text import shown_name, tail

_FAILED = re.compile("^ctr: ", re.MULTILINE)  # other lines of stderr may be warnings


@dataclass(frozen=True, slots=True)
class Choice:
    """What a new name will point at: the image's own target, or a platform's manifest, with a note that says why."""

    target: Descriptor
    note: str = ""


def checked(digest: str, answer: Answer, holder: str) -> bytes:
    """Returns the bytes of a manifest or index that ``holder`` gave, if they have its digest and can be parsed.

    Raises:
        ContentMissing, DaemonUnreachable, PermissionDenied: the host gave nothing.
        ContentCorrupt: the host gave something else.
    """
    raw, what = answer.stdout, f"manifest {digest}"
    algorithm = digest.partition(":")[0]
    found = f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"
    if found != digest and (not raw or not answer.ok or _FAILED.search(answer.stderr)):
        raise daemon_trouble(answer.stderr) or ContentMissing(
            f"{holder} did not give {what}",
            detail=tail(answer.stderr) or "it gave no content and no reason",
            hint="run the command again; if that does not help, copy or pull the image there again",
        )
    if found != digest:
        size = f"more than {MOST_DOCUMENT}" if len(raw) > MOST_DOCUMENT else len(raw)
        raise _corrupt(f"{what} on {holder} has another digest than its name says", f"{found}, {size} bytes")
    try:
        Manifest.parse(raw)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt(f"{what} on {holder} is neither a manifest nor an index", str(error)[:400]) from error
    return raw


def described(digest: str, answer: Answer, holder: str) -> Descriptor:
    """Describes a manifest or index by the bytes that ``holder`` gave: length, and media type as stated or implied.

    Raises:
        ContentMissing, ContentCorrupt: as `checked`; or the stated media type contradicts the bytes.
    """
    raw = checked(digest, answer, holder)
    document = json.loads(raw)
    types, default = (INDEXES, OCI_INDEX) if "manifests" in document else (MANIFESTS, OCI_MANIFEST)
    media_type = document.get("mediaType") or default
    if not isinstance(media_type, str) or media_type not in types:
        raise _corrupt(f"manifest {digest} on {holder} is not what its mediaType says", ascii(media_type)[:400])
    return Descriptor(media_type, digest, len(raw))


def _corrupt(message: str, detail: str) -> ContentCorrupt:
    return ContentCorrupt(
        message, detail=detail, hint="copy or pull the image there again, or use it from another host"
    )


@dataclass(slots=True)
class Content:
    """What was read of one namespace's content.

    Attributes:
        visible: every digest that the namespace sees.
        blobs: checked manifests and indexes, by digest.
        bad: why a visible manifest cannot be read, by digest.
    """

    visible: frozenset[str] = frozenset()
    blobs: dict[str, bytes] = field(default_factory=dict)
    bad: dict[str, FerryError] = field(default_factory=dict)

    @classmethod
    def merged(cls, contents: Iterable[Content]) -> Content:
        """Merges what several hosts have; a manifest that one host gave correctly is not bad."""
        found = cls()
        for each in contents:
            found.visible |= each.visible
            found.blobs = each.blobs | found.blobs
            found.bad = each.bad | found.bad
        found.bad = {digest: error for digest, error in found.bad.items() if digest not in found.blobs}
        return found

    def take(self, digest: str, answer: Answer, holder: str) -> None:
        """Adds the answer of ``holder`` to `Ctr.document`: to ``blobs`` if it is correct, else to ``bad``."""
        try:
            self.blobs[digest] = checked(digest, answer, holder)
        except FerryError as error:
            self.bad[digest] = error

    def see(self, digests: frozenset[str]) -> None:
        """Sets the visible digests. A manifest that is not visible is absent, and no longer bad."""
        self.visible = digests
        self.bad = {digest: error for digest, error in self.bad.items() if digest in digests}

    def manifest(self, digest: str) -> Manifest:
        """The manifest or index, or an empty one if it is absent or unread; raises its error if it cannot be read."""
        if digest in self.bad:
            raise self.bad[digest]
        return Manifest.parse(self.blobs[digest]) if digest in self.blobs else Manifest()

    def below(self, target: Descriptor) -> Mapping[str, Descriptor]:
        """Returns the target and all that it points at, by digest, present or absent."""
        found = {target.digest: target} | {child.digest: child for child in self.manifest(target.digest).children}
        for digest in list(found):
            found |= {blob.digest: blob for blob in self.manifest(digest).blobs}
        return found

    def needed(self, target: Descriptor, platform: Platform) -> list[Descriptor]:
        """Returns the blobs that a container of this platform needs; all blobs if the target lacks the platform."""
        child = self.manifest(target.digest).child_for(platform) if target.is_index else target
        if child is None:
            return list(self.below(target).values())
        return list(dict.fromkeys([target, child, *self.manifest(child.digest).blobs]))

    def blobs_to_copy(self, target: Descriptor) -> list[Descriptor]:
        """Returns the blobs to copy, the target first: of an index, visible manifests and whole platforms."""
        # A manifest is copied even if its layers are absent: it is tiny, and ctr 1.2 cannot name an index without it.
        manifests = [child for child in self.manifest(target.digest).children if child.digest in self.visible]
        found = [target, *manifests]
        for each in manifests or [target]:
            blobs = self.manifest(each.digest).blobs
            if all(blob.digest in self.visible for blob in blobs):
                found += blobs
        return list({blob.digest: blob for blob in found}.values())

    def rest(self, index: Descriptor, kept: Platform) -> dict[str, tuple[str, ...]]:
        """Returns what is visible of an index besides one platform, by parent: other manifests and their blobs."""
        others = [c for c in self.manifest(index.digest).children if c.digest in self.visible and c.platform != kept]
        blobs = {other.digest: self.manifest(other.digest).blobs for other in others}
        found = {index.digest: tuple(other.digest for other in others)}
        return found | {
            parent: tuple(blob.digest for blob in below if blob.digest in self.visible)
            for parent, below in blobs.items()
        }

    def choose(self, image: Image, asked: Platform | None, host: Platform, *, partial_index: bool) -> Choice:
        """Decides what a new name of the image will point at.

        Args:
            asked: the platform whose manifest gets the name; None for the whole image.
            host: the host's platform.
            partial_index: whether this ctr can name an index with absent platforms.

        Raises:
            ContentMissing: the target itself is absent.
            ContentCorrupt: the target is not what the image's record says.
            PlatformMissing: the platform is not there.
        """
        top, raw = self.manifest(image.digest), self.blobs.get(image.digest)
        if raw is None:
            raise content_missing(shown_name(image.name), image.digest)
        whole = Descriptor(image.media_type, image.digest, len(raw))
        if whole.is_index == bool(top.blobs):
            name = shown_name(image.name)
            raise _corrupt(f"{name} should be {image.media_type}, but {image.digest} is something else", "")
        if not whole.is_index:
            if asked and not image.is_for(asked):
                raise PlatformMissing(
                    f"{shown_name(image.name)} is for {image.platforms}, not for {asked}", hint="leave --platform out"
                )
            return Choice(whole)
        there = [child for child in top.children if child.digest in self.visible]
        if not asked and (partial_index or len(there) == len(top.children)):
            return Choice(whole)
        wanted = asked or host
        child = top.child_for(wanted)
        if child is None or child not in there:
            raise PlatformMissing(
                f"{shown_name(image.name)} has no content for {wanted} on this host",
                detail=f"there: {', '.join(str(child.platform) for child in there) or 'none'}",
                hint="choose one that is there with --platform",
            )
        note = f"the manifest of {wanted} in index {image.digest}"
        return Choice(child, note if asked else f"{note}: this ctr cannot name an index with absent platforms")
