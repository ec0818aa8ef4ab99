"""Image archives: OCI layouts in a tar (image-spec, image-layout.md), and what ``docker save`` writes.

`read` looks at every byte once: what lies where, whether each blob is what its name says, and which images there
are. `blobs` then goes through the archive again, for the blobs that are wanted, in the order in which they lie.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import IO, Any

from ctr_ferry.errors import BadArchive, BadReference
from ctr_ferry.oci import docker_archive, tar
from ctr_ferry.oci.archive_files import CUT, MOST_DOCUMENTS, MOST_JSON, Extent, Files, Part, json_list, json_object
from ctr_ferry.oci.descriptor import DOCKER_MANIFEST, INDEXES, MANIFESTS, Descriptor, Manifest, Platform
from ctr_ferry.oci.layout import NAME, REF_NAME
from ctr_ferry.oci.reference import Reference, is_digest


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of an archive under one of its names.

    Attributes:
        name: in its full form; empty where the archive gives it none.
    """

    name: str
    target: Descriptor


@dataclass(frozen=True, slots=True)
class Archive:
    """What an archive has.

    Attributes:
        entries: every image under every name, in the archive's order.
        documents: indexes, manifests and configs by digest.
        extents: where each blob lies, by digest.
        made: manifests that the archive lacks and that were made of what it says, by digest.
    """

    entries: tuple[Entry, ...]
    documents: Mapping[str, bytes]
    extents: Mapping[str, Extent]
    made: Mapping[str, bytes] = field(default_factory=dict)
    _parsed: dict[str, Manifest] = field(default_factory=dict, repr=False, compare=False)

    @property
    def digests(self) -> frozenset[str]:
        """Every blob that is there."""
        return frozenset(self.extents) | frozenset(self.made)

    def has(self, digest: str) -> bool:
        """Whether a blob is there."""
        return digest in self.extents or digest in self.made

    def size(self, digest: str) -> int:
        """A blob's length in bytes."""
        return len(self.made[digest]) if digest in self.made else self.extents[digest].size

    def manifest(self, digest: str) -> Manifest:
        """The manifest or index of this digest; an empty one where it is not there."""
        if digest not in self._parsed:
            self._parsed[digest] = Manifest.parse(self.documents[digest]) if digest in self.documents else Manifest()
        return self._parsed[digest]

    def platform(self, manifest: Descriptor) -> Platform | None:
        """What a manifest is for, by its index or its config; None where neither says."""
        if manifest.platform:
            return manifest.platform
        try:
            config = self.manifest(manifest.digest).blobs[0]
            document = json.loads(self.documents[config.digest])
            return Platform.of_json(document) if document["architecture"] else None
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    def manifests(self, target: Descriptor) -> tuple[Descriptor, ...]:
        """The manifests of an index, or the target itself."""
        return self.manifest(target.digest).children if target.is_index else (target,)

    def absent(self, manifest: Descriptor) -> list[str]:
        """What a manifest needs and the archive lacks, itself included."""
        needed = [manifest, *self.manifest(manifest.digest).blobs]
        return [blob.digest for blob in needed if not self.has(blob.digest)]


def read(file: IO[bytes]) -> Archive:
    """Reads all of an archive and checks it: every blob's digest and size, and that every image is whole.

    Args:
        file: seekable; plain, or compressed with gzip or zstd, as its first bytes say.

    Raises:
        BadArchive.
    """
    stream = tar.Stream(file)
    files = Files()
    for member in tar.members(stream):
        files.add(member, stream)
    if "index.json" in files:
        return _checked(_of_layout(files))
    if "manifest.json" in files:
        return _checked(_of_docker(files, lambda extent: Part(file, extent)))
    raise BadArchive(
        "it has neither an index.json nor a manifest.json",
        hint="it is no image archive, or was cut off when it was saved: save it again",
    )


def blobs(file: IO[bytes], archive: Archive, wanted: Collection[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The wanted blobs, each with its bytes, in the order in which they lie in the archive.

    The bytes are as they are now; whoever takes them hashes them.
    """
    for digest in archive.made.keys() & wanted:
        yield digest, iter((archive.made[digest],))
    stream = tar.Stream(file)
    there = [digest for digest in archive.extents if digest in wanted]
    for digest in sorted(there, key=lambda digest: archive.extents[digest].offset):
        extent = archive.extents[digest]
        stream.skip_to(extent.offset)
        yield digest, stream.chunks(extent.size)


def _of_layout(files: Files) -> Archive:
    found = files.blobs
    index = json_object(files.document("index.json"), "index.json")
    documents = {digest: file.document for digest, file in found.items() if file.document is not None}
    extents = {digest: file.extent for digest, file in found.items()}
    entries = []
    for each in json_list(index.get("manifests"), "the manifests of index.json"):
        target = _descriptor(each, "index.json")
        if target.digest not in found:
            raise BadArchive("index.json names a blob that is not in the archive", detail=target.digest, hint=CUT)
        entries.append(Entry(_name_of(each.get("annotations") or {}, target), target))
    return Archive(tuple(entries), documents, extents)


def _name_of(annotations: Any, target: Descriptor) -> str:
    """The image's full name, as containerd reads it from 1.3 on; a tag alone is no name."""
    if not isinstance(annotations, dict):
        raise BadArchive("index.json has annotations that are none")
    name, ref = (str(annotations.get(key) or "") for key in (NAME, REF_NAME))
    text = name or (ref if set(ref) & set(":/") else "")
    return "" if is_digest(text) or not text else _full(text, target)


def _full(text: str, target: Descriptor) -> str:
    try:
        reference = Reference.parse(text)
    except BadReference as error:
        raise BadArchive(f"it names an image {text[:200]!r}, which is no reference", detail=error.message) from error
    if reference.digest and reference.digest != target.digest:
        raise BadArchive(f"it gives the name {text} to another digest", detail=target.digest)
    if reference.digest:  # nothing looks an image up so, and no tool gives such a name
        return str(replace(reference, digest=None)) if reference.tag else ""
    return str(reference if reference.tag else reference.with_tag("latest"))


def _of_docker(files: Files, part: Callable[[Extent], Part]) -> Archive:
    entries: list[Entry] = []
    documents: dict[str, bytes] = {}
    extents: dict[str, Extent] = {}
    made: dict[str, bytes] = {}
    for image in docker_archive.images(files, part):
        digest = f"sha256:{hashlib.sha256(image.manifest).hexdigest()}"
        target = Descriptor(DOCKER_MANIFEST, digest, len(image.manifest))
        extents |= {file.digest: file.extent for file in (image.config, *image.layers)}
        made[digest] = image.manifest
        if sum(map(len, made.values())) > MOST_DOCUMENTS:
            raise BadArchive(f"its images have more than {MOST_DOCUMENTS >> 20} MiB of manifests")
        documents |= {digest: image.manifest, image.config.digest: image.document}
        entries += [Entry(_full(tag, target), target) for tag in image.tags] or [Entry("", target)]
    return Archive(tuple(entries), documents, extents, made)


def _checked(archive: Archive) -> Archive:
    """Refuses images that cannot be used, and names that mean two of them."""
    if not archive.entries:
        raise BadArchive("it has no image", hint=CUT)
    named: dict[str, str] = {}
    whole: dict[tuple[str, bool], bool] = {}
    for entry in archive.entries:
        if entry.name and named.setdefault(entry.name, entry.target.digest) != entry.target.digest:
            raise BadArchive(
                f"it has two images under the name {entry.name}",
                detail=f"{named[entry.name]}\n{entry.target.digest}",
                hint="save them under names of their own",
            )
        _check_image(archive, entry.target, whole)
    return archive


def _check_image(archive: Archive, target: Descriptor, whole: dict[tuple[str, bool], bool]) -> None:
    """An index may lack platforms, as one that was pulled does, but not all of them.

    Args:
        whole: what was looked at before: an archive may name one document a thousand times.
    """
    if not _is_whole(archive, target, INDEXES | MANIFESTS, whole):
        missing = (digest for manifest in archive.manifests(target) for digest in archive.absent(manifest))
        raise BadArchive(
            "an image is not whole: blobs that it needs are not in the archive",
            detail="\n".join(islice(missing, 10)),
            hint=CUT,
        )


def _is_whole(
    archive: Archive, target: Descriptor, types: Collection[str], whole: dict[tuple[str, bool], bool]
) -> bool:
    _check_type(archive, target, types)
    key = target.digest, target.is_index
    if key not in whole:
        _check_document(archive, target)
        for blob in archive.manifest(target.digest).blobs:
            _check_size(archive, blob)
        there = [each for each in archive.manifest(target.digest).children if archive.has(each.digest)]
        parts = [_is_whole(archive, each, MANIFESTS, whole) for each in there]
        whole[key] = any(parts) if target.is_index else not archive.absent(target)
    return whole[key]


def _check_type(archive: Archive, descriptor: Descriptor, types: Collection[str]) -> None:
    _check_size(archive, descriptor)
    if descriptor.media_type not in types:
        raise BadArchive(
            f"{descriptor.digest} is of type {descriptor.media_type[:200]!r}, which is no image that containerd takes"
        )


def _check_document(archive: Archive, descriptor: Descriptor) -> None:
    if descriptor.digest not in archive.documents:
        raise BadArchive(f"{descriptor.digest} is no JSON of {MOST_JSON >> 20} MiB at most, as a manifest is")
    json_object(archive.documents[descriptor.digest], descriptor.digest)
    try:
        parsed = archive.manifest(descriptor.digest)
    except (ValueError, TypeError, AttributeError) as error:
        raise BadArchive(f"{descriptor.digest} is no manifest", detail=str(error)[:400]) from error
    if bool(parsed.blobs) == descriptor.is_index:
        raise BadArchive(f"{descriptor.digest} is not of the type that it is said to be", detail=descriptor.media_type)
    for each in (*parsed.children, *parsed.blobs):
        _check_descriptor(each, descriptor.digest)


def _check_size(archive: Archive, descriptor: Descriptor) -> None:
    if archive.has(descriptor.digest) and archive.size(descriptor.digest) != descriptor.size:
        raise BadArchive(
            f"the size of {descriptor.digest} is not the one that it is said to have",
            detail=f"said {descriptor.size}\nis   {archive.size(descriptor.digest)}",
        )


def _check_descriptor(descriptor: Descriptor, where: str) -> Descriptor:
    if not is_digest(descriptor.digest) or descriptor.size < 0:
        raise BadArchive(f"{where} names something that is no blob: {descriptor.digest[:200]!r}")
    return descriptor


def _descriptor(data: Any, where: str) -> Descriptor:
    try:
        return _check_descriptor(Descriptor.of_json(data), where)
    except ValueError as error:
        raise BadArchive(f"{where} lists something that is no descriptor", detail=str(error)[:400]) from error
