"""The content of images in one namespace: their manifests, and which blobs are visible. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ctr_ferry import shell
from ctr_ferry.ctr.commands import MOST_DOCUMENT
from ctr_ferry.ctr.failures import content_missing, daemon_trouble
from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import ContentCorrupt, ContentMissing, FerryError, MethodUnsupported, PlatformMissing
from ctr_ferry.oci.descriptor import (
    DOCUMENTS,
    IMAGE_CONFIGS,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA_1,
    Descriptor,
    Manifest,
    Platform,
)
from ctr_ferry.oci.tree import Tree
from ctr_ferry.shell import Answer
from ctr_ferry.text import shown_name, tail

_FAILED = re.compile("^ctr: ", re.MULTILINE)  # other lines of stderr may be warnings


@dataclass(frozen=True, slots=True)
class Choice:
    """What a new name will point at: the image's own target, or a platform's manifest, with a note that says why."""

    target: Descriptor
    note: str = ""


def refuse_unknown(image: Image) -> None:
    """Raises MethodUnsupported if the target of an image is of a type that is neither a manifest's nor an index's."""
    if image.media_type not in DOCUMENTS:
        what = "Docker's schema 1" if image.media_type in SCHEMA_1 else f"the type {image.media_type}"
        raise MethodUnsupported(
            f"{shown_name(image.name)} is of {what}, which is no image to containerd",
            hint=f"push the image again with a current tool; then: fab -H HOST pull --ref {shell.join([image.name])}",
        )


def checked(digest: str, answer: Answer, holder: str) -> bytes:
    """Returns the bytes of a manifest or index that ``holder`` gave, if they have its digest and can be parsed.

    Raises:
        ContentMissing, DaemonUnreachable, PermissionDenied: the host gave nothing.
        ContentCorrupt: the host gave something else.
    """
    raw, what = answer.stdout, f"manifest {digest}"
    found = _digest_of(raw, like=digest)
    if found != digest and (not raw or not answer.ok or _FAILED.search(answer.stderr)):
        raise daemon_trouble(answer.stderr) or ContentMissing(
            f"{holder} did not give {what}",
            detail=tail(answer.stderr) or "it gave no content and no reason",
            hint="where this stays, copy or pull the image there again; first run the command again",
        )
    if found != digest:
        size = f"more than {MOST_DOCUMENT}" if len(raw) > MOST_DOCUMENT else len(raw)
        raise _corrupt(f"{what} on {holder} has another digest than its name says", f"{found}, {size} bytes")
    try:
        Manifest.parse(raw)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt(f"{what} on {holder} is neither a manifest nor an index", str(error)[:400]) from error
    return raw


def _digest_of(raw: bytes, *, like: str) -> str:
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"


def described(digest: str, answer: Answer, holder: str) -> Descriptor:
    """Describes a manifest or index by the bytes that ``holder`` gave: length, and media type as stated or implied.

    Raises:
        ContentMissing, ContentCorrupt: as `checked`; or the stated media type contradicts the bytes.
    """
    raw = checked(digest, answer, holder)
    types, default = (MANIFESTS, OCI_MANIFEST) if Manifest.parse(raw).blobs else (INDEXES, OCI_INDEX)
    media_type = json.loads(raw).get("mediaType") or default
    if not isinstance(media_type, str) or media_type not in types:
        raise _corrupt(f"manifest {digest} on {holder} is not what its mediaType says", ascii(media_type)[:400])
    return Descriptor(media_type, digest, len(raw))


def _corrupt(message: str, detail: str) -> ContentCorrupt:
    return ContentCorrupt(
        message,
        detail=detail,
        hint="remove the image there, then bring it from another host",
    )


@dataclass(slots=True)
class Content:
    """What was read of one namespace's content.

    Attributes:
        visible: every digest that the namespace sees.
        blobs: checked manifests and indexes, by digest.
        bad: why a visible manifest or index cannot be read, by digest.
        platforms: what configs tell, by digest of the config, for manifests whose index tells no platform.
        zstd: blobs that are known to be compressed with zstd, whatever their media type says.
    """

    visible: frozenset[str] = frozenset()
    blobs: dict[str, bytes] = field(default_factory=dict)
    bad: dict[str, FerryError] = field(default_factory=dict)
    platforms: dict[str, Platform | None] = field(default_factory=dict)
    zstd: frozenset[str] = frozenset()
    _parsed: dict[str, Manifest] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def merged(cls, contents: Iterable[Content]) -> Content:
        """Merges what several hosts have; a manifest that one host gave correctly is not bad."""
        found = cls()
        for each in contents:
            found.visible |= each.visible
            found.zstd |= each.zstd
            found.blobs = each.blobs | found.blobs
            found.bad = each.bad | found.bad
            found.platforms |= each.platforms
        found.bad = {digest: error for digest, error in found.bad.items() if digest not in found.blobs}
        return found

    def take(self, digest: str, answer: Answer, holder: str) -> None:
        """Adds the answer of ``holder`` to `Ctr.document`: to ``blobs`` if it is correct, else to ``bad``."""
        try:
            self.blobs[digest] = checked(digest, answer, holder)
        except FerryError as error:
            self.bad[digest] = error

    def take_config(self, digest: str, answer: Answer) -> None:
        """Adds the platform that a config tells; none if the answer is not that config."""
        raw = answer.stdout
        self.platforms[digest] = Platform.of_config(raw) if _digest_of(raw, like=digest) == digest else None

    def see(self, digests: frozenset[str]) -> None:
        """Sets the visible digests. A manifest that is not visible is absent, and no longer bad."""
        self.visible = digests
        self.bad = {digest: error for digest, error in self.bad.items() if digest in digests}

    def manifest(self, digest: str) -> Manifest | None:
        """The manifest or index; None if it is absent, unread, or cannot be read."""
        if digest not in self.blobs:
            return None
        if digest not in self._parsed:
            self._parsed[digest] = Manifest.parse(self.blobs[digest])
        return self._parsed[digest]

    def unread(self, tops: Iterable[str]) -> list[str]:
        """Returns the visible indexes and manifests, below those that were read, that are still to be read."""
        children = [child for top in tops if (read := self.manifest(top)) for child in read.children]
        known = self.blobs.keys() | self.bad.keys()
        wanted = (c.digest for c in children if c.media_type in DOCUMENTS and c.digest in self.visible)
        return [digest for digest in dict.fromkeys(wanted) if digest not in known]

    @property
    def tells_platforms(self) -> bool:
        """Whether the indexes that were read tell the platforms of all that they list."""
        indexes = [index for top in self.blobs if (index := self.manifest(top))]
        return all(child.platform and not child.is_index for index in indexes for child in index.children)

    def untold(self) -> list[str]:
        """Returns the visible configs that are to be read: an index lists their manifests without a platform."""
        children = [c for top in list(self.blobs) if (read := self.manifest(top)) for c in read.children]
        manifests = (self.manifest(child.digest) for child in children if not child.platform)
        configs = (found.blobs[0] for found in manifests if found and found.blobs)
        wanted = (c.digest for c in configs if c.media_type in IMAGE_CONFIGS and c.digest in self.visible)
        return [digest for digest in dict.fromkeys(wanted) if digest not in self.platforms]

    def tree(self, target: Descriptor) -> Tree:
        """Walks from a target to all that is below it, as far as that was read.

        Raises:
            ContentCorrupt: the documents contradict one another, or are nested too deeply.
        """
        try:
            return Tree.of(target, self.manifest, self.platforms.get)
        except ValueError as error:
            raise _corrupt(f"{target.digest} is no image that containerd takes", str(error)) from error

    def refuse_bad(self, documents: Iterable[Descriptor]) -> None:
        """Raises why one of these cannot be read, if that is so."""
        for each in documents:
            if each.digest in self.bad:
                raise self.bad[each.digest]

    def below(self, target: Descriptor) -> Mapping[str, Descriptor]:
        """Returns the target and all that is below it, by digest, present or absent; raises if it cannot be read."""
        tree = self.tree(target)
        self.refuse_bad(tree.unread)
        return tree.all

    def needed(self, target: Descriptor, platform: Platform) -> list[Descriptor]:
        """Returns the blobs that a container of this platform needs; all blobs if the target lacks the platform."""
        tree = self.tree(target)
        manifest = tree.manifest_for(platform) if target.is_index else target
        if manifest is None:
            return list(self.below(target).values())
        self.refuse_bad([*tree.way(manifest), manifest])
        return tree.whole(manifest)

    def is_artifact(self, target: Descriptor) -> bool:
        """Whether a target is an artifact, such as a chart: nothing of it is an image that containerd could unpack."""
        found = [self.manifest(each.digest) for each in self.tree(target).manifests if each.media_type in MANIFESTS]
        return bool(found) and all(each and each.is_artifact for each in found)

    def blobs_to_copy(self, target: Descriptor) -> list[Descriptor]:
        """Returns the blobs to copy, the target first: of an index, visible documents and whole platforms."""
        # A manifest is copied even if its layers are absent: it is tiny, and ctr 1.2 cannot name an index without it.
        tree = self.tree(target)
        self.refuse_bad(tree.unread)
        found = [each for each in tree.documents if each.digest == target.digest or each.digest in self.visible]
        for blobs in map(tree.blobs, [each for each in found if not each.is_index]):
            if all(blob.digest in self.visible for blob in blobs):
                found += blobs
        return list({blob.digest: blob for blob in found}.values())

    def rest(self, index: Descriptor, kept: Platform) -> dict[str, tuple[str, ...]]:
        """Returns what is visible of an index besides one platform, by parent: other manifests and their blobs."""
        tree = self.tree(index)
        there = self.visible - {each.digest for each in tree.manifests if each.platform == kept}
        parents = (*tree.indexes, *(each for each in tree.manifests if each.digest in there))
        return {
            parent.digest: tuple(each.digest for each in tree.listed.get(parent.digest, ()) if each.digest in there)
            for parent in parents
        }

    def choose(self, image: Image, asked: Platform | None, host: Platform, *, partial_index: bool) -> Choice:
        """Decides what a new name of the image will point at.

        Args:
            asked: the platform whose manifest gets the name; None for the whole image.
            host: the host's platform.
            partial_index: whether this ctr can name an index with absent platforms, or with types that nobody knows.

        Raises:
            ContentMissing: the target itself is absent.
            ContentCorrupt: the target is not what the image's record says.
            MethodUnsupported: the target is of a type that is neither a manifest's nor an index's.
            PlatformMissing: the platform is not there.
        """
        name = shown_name(image.name)
        refuse_unknown(image)
        self.refuse_bad([Descriptor(image.media_type, image.digest, 0)])
        top, raw = self.manifest(image.digest), self.blobs.get(image.digest)
        if raw is None or top is None:
            raise content_missing(name, image.digest)
        whole = Descriptor(image.media_type, image.digest, len(raw))
        if whole.is_index == bool(top.blobs):
            raise _corrupt(f"{name} should be {image.media_type}, but {image.digest} is something else", "")
        if not whole.is_index:
            if asked and not image.is_for(asked):
                raise PlatformMissing(f"{name} is for {image.platforms}, not for {asked}", hint="leave --platform out")
            return Choice(whole)
        tree = self.tree(whole)
        unknown = any(each.media_type not in DOCUMENTS and not each.platform for each in tree.manifests)
        every = all(each.digest in self.visible for each in tree.documents)
        if not asked and (partial_index or (every and not unknown)):
            return Choice(whole)
        wanted = asked or host
        child = tree.manifest_for(wanted)
        if child is None or child.digest not in self.visible:
            raise PlatformMissing(
                f"{name} has no content for {wanted} on this host",
                detail=f"there: {self.told(tree)}",
                hint="choose one that is there with --platform",
            )
        note = f"the manifest of {wanted} in index {image.digest}"
        why = "types that nobody knows" if every else "absent platforms"
        return Choice(child, note if asked else f"{note}: this ctr cannot name an index with {why}")

    def told(self, tree: Tree) -> str:
        """The platforms of visible manifests, for people."""
        there = (each.platform for each in tree.manifests if each.digest in self.visible)
        return ", ".join(dict.fromkeys(str(platform) for platform in there if platform)) or "none"
