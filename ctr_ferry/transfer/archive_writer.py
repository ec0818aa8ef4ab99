"""The archive that `save` writes: planned from what a host has, written on the control machine.

Each blob is checked while it is streamed into a new file. The complete file takes the archive's name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ctr_ferry.ctr.failures import content_missing
from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import BadArchive, CannotWrite, ContentMissing
from ctr_ferry.images.content import Content
from ctr_ferry.oci import archive, layout, tar
from ctr_ferry.oci.descriptor import Descriptor, Manifest, Platform
from ctr_ferry.ssh.host import Moved
from ctr_ferry.transfer import checksum, copy_request, new_file


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image of the archive, and the platforms whose content is there; none if the image does not say."""

    reference: str
    digest: str
    platforms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one archive is to have: images, by name the files that are no blobs, and each blob once, in order."""

    images: tuple[SavedImage, ...]
    documents: Mapping[str, bytes]
    blobs: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """The size of the archive in bytes."""
        sizes = [len(document) for document in self.documents.values()] + [blob.size for blob in self.blobs]
        return sum(len(tar.header("", size)) + size + len(tar.padding(size)) for size in sizes) + len(tar.END)


def plan(
    images: Iterable[Image], content: Content, host: Platform, wanted: Platform | None = None, *, every: bool = False
) -> Plan:
    """Chooses the blobs of an archive.

    Args:
        content: what the host has of the images, with the manifests that indexes list.
        host, wanted: the host's platform; and the one whose manifest is saved, or None for all that are there.
        every: whether all platforms must be there.

    Raises:
        ContentMissing: the host lacks blobs of an image.
        PlatformMissing: an image has no manifest for the wanted platform.
    """
    saved: list[SavedImage] = []
    listed: list[tuple[str, Descriptor, Manifest | None]] = []
    blobs: dict[str, Descriptor] = {}
    for image in images:
        target = content.choose(image, wanted, host, partial_index=True).target
        try:
            needed = copy_request.blobs_to_copy(content, image, target, wanted or host, every=every)
        except ContentMissing as error:
            if error in content.bad.values():
                raise
            raise content_missing(image.name, error.detail) from error
        there = {blob.digest: blob for blob in needed}
        manifests = _whole(content, target, there)
        images_ = [each for each in manifests if not content.is_artifact(each)]
        # manifest.json names one platform, and no artifact
        first = next((each for each in images_ if each.platform == host), next(iter(images_), None))
        listed.append((image.name, target, content.manifest(first.digest) if first else None))
        platforms = [str(each.platform) for each in manifests if each.platform] or image.platforms.split(",")
        saved.append(SavedImage(image.name, target.digest, tuple(p for p in platforms if p != "-")))
        blobs |= there
    ordered = tuple(blobs[digest] for digest in sorted(blobs))
    return Plan(tuple(saved), layout.documents(listed), ordered)


def _whole(content: Content, target: Descriptor, there: Collection[str]) -> list[Descriptor]:
    """Returns the manifests that are whole: the target itself, or those of an index."""
    tree = content.tree(target)
    read = [manifest for manifest in tree.manifests if manifest.digest in tree.listed]
    return [each for each in read if all(blob.digest in there for blob in (each, *tree.blobs(each)))]


def has_all(file: Path, plan: Plan) -> bool:
    """Tells whether an archive has exactly what is to be saved."""
    if not file.is_file():  # opening a pipe would wait for a writer
        return False
    try:
        with file.open("rb") as opened:
            there, _ = archive.read(opened, lambda found: found.check(found.entries, opened))
    except (BadArchive, OSError):
        return False
    names = {(entry.name, entry.target.digest) for entry in there.entries}
    return names == {(i.reference, i.digest) for i in plan.images} and there.digests == {b.digest for b in plan.blobs}


def sha256_of(file: Path) -> str:
    """Hashes a complete archive and returns its SHA-256, in hex.

    A check sum file that has another SHA-256 for the archive is written anew, as is one that a killed run had no time
    to write. A check sum file that names other files stays: it may belong to somebody.

    Raises:
        CannotWrite: the archive cannot be read any more.
    """
    with new_file.trouble(file), file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        # Another run may have written another archive meanwhile, with a check sum file of its own.
        mine = os.path.samestat(file.stat(), os.fstat(opened.fileno()))
    with suppress(OSError, BadArchive, CannotWrite):  # the folder may only be read, or the check sum file is not ours
        expected = checksum.expected(file)
        if mine and expected != sha256 and (expected or not os.path.lexists(checksum.beside(file))):
            checksum.write(file, sha256)
    return sha256


def write(planned: Plan, file: Path, blobs: Iterable[tuple[Descriptor, Iterable[bytes]]], moved: Moved) -> str:
    """Writes the archive and, beside it, its check sum file; returns the SHA-256 in hex. A failure leaves nothing.

    Args:
        blobs: the blobs of the plan, in its order, each with its bytes.
        moved: is called after each piece.

    Raises:
        CannotWrite: the control machine's disk refuses the archive.
        FerryError: what ``blobs`` raises.
    """
    sha, done = hashlib.sha256(), 0
    with new_file.trouble(file):
        file.parent.mkdir(exist_ok=True)
    with new_file.replacing(file) as part:
        for data in _pieces(planned, blobs):
            with new_file.trouble(file):
                part.write(data)
            sha.update(data)
            done += len(data)
            moved(done, planned.size)
        with new_file.trouble(file):
            part.write(tar.END)
            checksum.beside(file).unlink(missing_ok=True)  # it belongs to the archive that was there before
    sha.update(tar.END)
    with new_file.trouble(checksum.beside(file)):
        checksum.write(file, sha.hexdigest())
    return sha.hexdigest()


def _pieces(planned: Plan, blobs: Iterable[tuple[Descriptor, Iterable[bytes]]]) -> Iterator[bytes]:
    """Yields the bytes of the archive up to its end."""
    documents = ((name, len(document), [document]) for name, document in planned.documents.items())
    files = ((layout.blob_path(blob.digest), blob.size, chunks) for blob, chunks in blobs)
    for name, size, chunks in chain(documents, files):
        yield tar.header(name, size)
        yield from chunks
        yield tar.padding(size)
