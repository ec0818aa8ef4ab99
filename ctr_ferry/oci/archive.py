"""Image archives: OCI layouts in a tar (image-spec, image-layout.md), and what ``docker save`` writes.

`read` reads every byte once: it notes where each blob is, compares digests, and finds the images. `blobs` reads the
archive a second time and gives the wanted blobs in the order of the archive.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import IO, Any

from ctr_ferry.errors import BadArchive, BadReference
from ctr_ferry.oci import docker_archive, tar
from ctr_ferry.oci.archive_files import CUT, MOST_DOCUMENTS, MOST_JSON, File, Files, json_list, json_object
from ctr_ferry.oci.descriptor import DOCKER_MANIFEST, INDEXES, MANIFESTS, Descriptor, Manifest, Platform
from ctr_ferry.oci.layout import NAME, REF_NAME
from ctr_ferry.oci.reference import Reference, is_digest


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of an archive under one of its full names; under an empty one if the archive gives it none."""

    name: str
    target: Descriptor


@dataclass(frozen=True, slots=True)
class Archive:
    """The content of an archive.

    Attributes:
        entries: every image under every name, in the order of the archive.
        files: each blob, by digest.
        made: by digest, manifests that the archive lacks and that `read` made.
    """

    entries: tuple[Entry, ...]
    files: Mapping[str, File]
    made: Mapping[str, bytes] = field(default_factory=dict)
    _parsed: dict[str, Manifest] = field(default_factory=dict, repr=False, compare=False)

    @property
    def digests(self) -> frozenset[str]:
        """The digests of all blobs."""
        return frozenset(self.files) | frozenset(self.made)

    def has(self, digest: str) -> bool:
        """Whether the archive has a blob."""
        return digest in self.files or digest in self.made

    def size(self, digest: str) -> int:
        """Returns the size of a blob in bytes."""
        return len(self.made[digest]) if digest in self.made else self.files[digest].size

    def document(self, digest: str) -> bytes | None:
        """Returns the bytes of an index, manifest or config; None if the archive lacks it, or if it is no JSON."""
        return self.made.get(digest) or (self.files[digest].document if digest in self.files else None)

    def manifest(self, digest: str) -> Manifest:
        """Returns the manifest or index of this digest; an empty one if the archive lacks it."""
        if digest not in self._parsed:
            raw = self.document(digest)
            self._parsed[digest] = Manifest() if raw is None else Manifest.parse(raw)
        return self._parsed[digest]

    def platform(self, manifest: Descriptor) -> Platform | None:
        """Returns the platform of a manifest, by its index or its config; None if neither tells."""
        if manifest.platform:
            return manifest.platform
        try:
            config = self.manifest(manifest.digest).blobs[0]
            document = json.loads(self.document(config.digest) or b"")
            return Platform.of_json(document) if document["architecture"] else None
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    def manifests(self, target: Descriptor) -> tuple[Descriptor, ...]:
        """Returns the manifests of an index, or the target itself."""
        return self.manifest(target.digest).children if target.is_index else (target,)

    def absent(self, manifest: Descriptor) -> list[str]:
        """Returns the digests that a manifest needs and the archive lacks; the manifest's own may be among them."""
        needed = [manifest, *self.manifest(manifest.digest).blobs]
        return [blob.digest for blob in needed if not self.has(blob.digest)]


def read(file: IO[bytes]) -> Archive:
    """Reads and checks a whole archive: the digest and size of every blob, and that every image is whole.

    Args:
        file: seekable; plain, or compressed with gzip or zstd, as its first bytes say.

    Raises:
        BadArchive: says what is wrong.
    """
    stream = tar.Stream(file)
    files = Files()
    for member in tar.members(stream):
        files.add(member, stream)
    if "index.json" in files:
        return _Checker(_of_layout(files)).check()
    if "manifest.json" in files:
        return _Checker(_of_docker(files, file)).check()
    raise BadArchive(
        "it has neither an index.json nor a manifest.json",
        hint="it is no image archive, or was cut off when it was saved: save it again",
    )


def blobs(file: IO[bytes], archive: Archive, wanted: Collection[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yields the digest and the bytes of each wanted blob, in the order of the archive.

    The file may have changed since `read`, so the caller must compare the digests.
    """
    for digest in archive.made.keys() & wanted:
        yield digest, iter((archive.made[digest],))
    stream = tar.Stream(file)
    there = [each for digest, each in archive.files.items() if digest in wanted]
    for each in sorted(there, key=lambda each: each.offset):
        stream.skip_to(each.offset)
        yield each.digest, stream.chunks(each.size)


def _of_layout(files: Files) -> Archive:
    found = files.blobs
    index = json_object(files.document("index.json"), "index.json")
    entries = []
    for each in json_list(index.get("manifests"), "the manifests of index.json"):
        target = _descriptor(each, "index.json")
        if target.digest not in found:
            raise BadArchive("index.json names a blob that is not in the archive", detail=target.digest, hint=CUT)
        entries += [Entry(name, target) for name in _names_of(each.get("annotations") or {}, target)]
    return Archive(tuple(entries), found)


def _names_of(annotations: Any, target: Descriptor) -> list[str]:
    """Reads an image's full names as containerd does from 1.3 on; a tag alone is no name: then the name is empty."""
    if not isinstance(annotations, dict):
        raise BadArchive("the annotations of an image in index.json are no JSON object")
    name, ref = (str(annotations.get(key) or "") for key in (NAME, REF_NAME))
    text = name or (ref if set(ref) & set(":/") else "")
    return [""] if is_digest(text) or not text else _full(text, target)


def _full(text: str, target: Descriptor) -> list[str]:
    """Returns the full names that a text means: of one with a tag and a digest, each name that kubelet looks for."""
    try:
        reference = Reference.parse(text)
    except BadReference as error:
        raise BadArchive(f"it names an image {text[:200]!r}, which is no reference", detail=error.message) from error
    if reference.digest and reference.digest != target.digest:
        raise BadArchive(f"it gives the name {text} to another digest", detail=target.digest)
    tagged = [replace(reference, digest=None)] if reference.tag and reference.digest else []
    return [str(each) for each in (*tagged, reference.or_latest.for_cri)]


def _of_docker(files: Files, file: IO[bytes]) -> Archive:
    entries: list[Entry] = []
    found: dict[str, File] = {}
    made: dict[str, bytes] = {}
    for image in docker_archive.images(files, file):
        digest = f"sha256:{hashlib.sha256(image.manifest).hexdigest()}"
        target = Descriptor(DOCKER_MANIFEST, digest, len(image.manifest))
        found |= {each.digest: each for each in (image.config, *image.layers)}
        made[digest] = image.manifest
        if sum(map(len, made.values())) > MOST_DOCUMENTS:
            raise BadArchive(f"its images have more than {MOST_DOCUMENTS >> 20} MiB of manifests")
        entries += [Entry(name, target) for tag in image.tags for name in _full(tag, target)] or [Entry("", target)]
    return Archive(tuple(entries), found, made)


class _Checker:
    """Refuses images that are not whole, and names that two images have."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._whole: dict[tuple[str, bool], bool] = {}  # an archive may name one document a thousand times

    def check(self) -> Archive:
        if not self._archive.entries:
            raise BadArchive("it has no image", hint=CUT)
        named: dict[str, str] = {}
        for entry in self._archive.entries:
            if entry.name and named.setdefault(entry.name, entry.target.digest) != entry.target.digest:
                raise BadArchive(
                    f"it has two images under the name {entry.name}",
                    detail=f"{named[entry.name]}\n{entry.target.digest}",
                    hint="save them under names of their own",
                )
            self._check_image(entry.target)
        return self._archive

    def _check_image(self, target: Descriptor) -> None:
        """Refuses an image that is not whole. An index may lack platforms, as after a pull, but not all of them."""
        if not self._is_whole(target, INDEXES | MANIFESTS):
            manifests = self._archive.manifests(target)
            missing = (digest for manifest in manifests for digest in self._archive.absent(manifest))
            raise BadArchive(
                "an image is not whole: blobs that it needs are not in the archive",
                detail="\n".join(islice(missing, 10)),
                hint=CUT,
            )

    def _is_whole(self, target: Descriptor, types: Collection[str]) -> bool:
        self._check_size(target)
        if target.media_type not in types:
            raise BadArchive(
                f"{target.digest} is of type {target.media_type[:200]!r}, which is no image that containerd takes"
            )
        key = target.digest, target.is_index
        if key not in self._whole:
            self._check_document(target)
            manifest = self._archive.manifest(target.digest)
            for blob in manifest.blobs:
                self._check_size(blob)
            there = [child for child in manifest.children if self._archive.has(child.digest)]
            children_whole = [self._is_whole(child, MANIFESTS) for child in there]
            self._whole[key] = any(children_whole) if target.is_index else not self._archive.absent(target)
        return self._whole[key]

    def _check_document(self, descriptor: Descriptor) -> None:
        digest = descriptor.digest
        raw = self._archive.document(digest)
        if raw is None:
            raise BadArchive(f"{digest} is no manifest: it is no JSON, or larger than {MOST_JSON >> 20} MiB")
        json_object(raw, digest)
        try:
            parsed = self._archive.manifest(digest)
        except (ValueError, TypeError, AttributeError) as error:
            raise BadArchive(f"{digest} is no manifest", detail=str(error)[:400]) from error
        if bool(parsed.blobs) == descriptor.is_index:
            raise BadArchive(f"{digest} has another type than its descriptor says", detail=descriptor.media_type)
        for each in (*parsed.children, *parsed.blobs):
            _check_descriptor(each, digest)

    def _check_size(self, descriptor: Descriptor) -> None:
        digest = descriptor.digest
        if self._archive.has(digest) and self._archive.size(digest) != descriptor.size:
            raise BadArchive(
                f"{digest} has another size than its descriptor says",
                detail=f"descriptor {descriptor.size} bytes\nblob       {self._archive.size(digest)} bytes",
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
