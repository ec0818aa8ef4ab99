"""What an image's target points at, through indexes that list indexes: one walk of bounded depth. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ctr_ferry.oci.descriptor import DOCUMENTS, Descriptor, Manifest, Platform

DEEPEST = 8  # indexes on the way to a manifest; tools write one or two


def _unknown(_config: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Tree:
    """A target, and all that is below it as far as its documents were read. Each digest is there once.

    Attributes:
        target: an index, a manifest, or a blob of another type, which has nothing below it.
        indexes: the target, if it is an index, and the indexes below it; an outer one before its inner ones.
        manifests: what the indexes list besides indexes, in order: manifests of images, attestations, artifacts, and
            blobs of types that nobody knows. Of a target that is no index, the target itself. A manifest without a
            platform of its own has that of its config, where the walk was told.
        listed: by digest, what each index and each manifest that was read lists: of a manifest, config and layers.
        unread: indexes and manifests that were not read.
    """

    target: Descriptor
    indexes: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    listed: Mapping[str, tuple[Descriptor, ...]]
    unread: tuple[Descriptor, ...]
    _above: Mapping[str, Descriptor]

    @classmethod
    def of(
        cls,
        target: Descriptor,
        read: Callable[[str], Manifest | None],
        platform: Callable[[str], Platform | None] = _unknown,
    ) -> Tree:
        """Walks from a target to all that is below it.

        Args:
            read: takes the digest of an index or manifest; returns None if it is not there.
            platform: takes the digest of a config; returns the platform that the config tells, None for none.

        Raises:
            ValueError: indexes are nested more than `DEEPEST` deep, or a document has another type than its descriptor
                says.
            Exception: what ``read`` raises.
        """
        indexes: list[Descriptor] = []
        manifests: list[Descriptor] = []
        listed: dict[str, tuple[Descriptor, ...]] = {}
        unread: list[Descriptor] = []
        above: dict[str, Descriptor] = {}
        seen: set[str] = set()

        def visit(each: Descriptor, depth: int) -> None:
            seen.add(each.digest)
            document = read(each.digest) if each.media_type in DOCUMENTS else None
            if document is None:
                unread.extend([each] if each.media_type in DOCUMENTS else [])
            elif bool(document.blobs) == each.is_index:
                raise ValueError(f"{each.digest} has another type than its descriptor says, {each.media_type}")
            else:
                listed[each.digest] = document.children or document.blobs
            if not each.is_index:
                config = document.blobs[0].digest if document else ""
                told = each.platform or (platform(config) if config else None)
                manifests.append(replace(each, platform=told))
                return
            indexes.append(each)
            if depth == DEEPEST and listed.get(each.digest):
                raise ValueError(f"its indexes are nested more than {DEEPEST} deep")
            for child in listed.get(each.digest, ()):
                if child.digest not in seen:
                    above[child.digest] = each
                    visit(child, depth + 1)

        visit(target, 0)
        return cls(target, tuple(indexes), tuple(manifests), listed, tuple(unread), above)

    @property
    def documents(self) -> tuple[Descriptor, ...]:
        """The indexes and what they list, without configs and layers; the target first."""
        return (*self.indexes, *self.manifests)

    @property
    def all(self) -> dict[str, Descriptor]:
        """The target and everything below it, by digest."""
        documents = {each.digest: each for each in self.documents}
        blobs = {blob.digest: blob for each in self.manifests for blob in self.blobs(each)}
        return documents | blobs | documents

    def blobs(self, manifest: Descriptor) -> tuple[Descriptor, ...]:
        """Returns a manifest's config and layers; none if it was not read, or has a type that nobody knows."""
        return self.listed.get(manifest.digest, ())

    def way(self, manifest: Descriptor) -> list[Descriptor]:
        """Returns the indexes that lead to a manifest, the target first; none if the manifest is the target."""
        found: list[Descriptor] = []
        while parent := self._above.get((found[0] if found else manifest).digest):
            found.insert(0, parent)
        return found

    def whole(self, manifest: Descriptor) -> list[Descriptor]:
        """Returns all that a container of one manifest needs, each once: the way to it, itself, config and layers."""
        return list({each.digest: each for each in (*self.way(manifest), manifest, *self.blobs(manifest))}.values())

    def manifest_for(self, platform: Platform) -> Descriptor | None:
        """Returns the manifest for exactly this platform, the first of several; None if there is none."""
        return next((each for each in self.manifests if each.platform == platform), None)
