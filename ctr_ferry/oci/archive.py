"""Image archives: OCI layouts in a tar (image-spec, image-layout.md), and what ``docker save`` writes.

`read` reads every byte once: it notes where each blob is, compares digests, and finds the images. What is chosen of
them is checked then. `blobs` reads the archive a second time and gives the wanted blobs in the order of the archive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import IO, Any, TypeVar

from ctr_ferry.errors import BadArchive, BadReference
from ctr_ferry.oci import docker_archive, tar
from ctr_ferry.oci.archive_files import CUT, MOST_DOCUMENTS, MOST_JSON, File, Files, json_list, json_object
from ctr_ferry.oci.descriptor import DOCKER_MANIFEST, DOCUMENTS, SCHEMA_1, Descriptor, Manifest, Platform
from ctr_ferry.oci.docker_archive import DockerImage
from ctr_ferry.oci.layout import NAME, REF_NAME
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.oci.tree import DEEPEST, Tree

_MOST_LISTED = 500_000  # what the images of an archive list, all together; many may list the same
_NO_NAME = "<none>:<none>"  # what docker writes for an image without a name
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of an archive under one of its full names.

    Attributes:
        name: empty if the archive gives it no full name.
        tag: what the archive calls an image without a full name: a tag, as a rule.
        fault: why the archive's name for it cannot be given.
    """

    name: str
    target: Descriptor
    tag: str = ""
    fault: str = ""

    @property
    def asked(self) -> str:
        """How to ask for it: its name if that is a reference, else its digest."""
        with suppress(BadReference):
            return str(Reference.parse(self.name))
        return self.target.digest


@dataclass(frozen=True, slots=True)
class Archive:
    """The content of an archive.

    Attributes:
        entries: every image under every name, in the order of the archive.
        files: each blob, by digest.
        documents: the indexes, manifests and configs of the images, by digest.
        made: by digest, manifests that the archive lacks and that `read` made.
    """

    entries: tuple[Entry, ...]
    files: Mapping[str, File]
    documents: Mapping[str, bytes]
    made: Mapping[str, bytes] = field(default_factory=dict)
    _docker: Mapping[str, DockerImage] = field(default_factory=dict, repr=False, compare=False)
    _plain: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    _parsed: dict[str, Manifest] = field(default_factory=dict, repr=False, compare=False)
    _trees: dict[tuple[str, str], Tree] = field(default_factory=dict, repr=False, compare=False)
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)
    _work: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

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

    def tree(self, target: Descriptor) -> Tree:
        """Returns an image's target and all that is below it; raises BadArchive if its documents are none."""
        key = target.digest, target.media_type
        if key not in self._trees:
            try:
                self._trees[key] = Tree.of(target, self._manifest, self._platform)
            except ValueError as error:
                raise BadArchive(f"{target.digest} is no image", detail=str(error)[:400]) from error
            self._spend(sum(map(len, self._trees[key].listed.values())))
        return self._trees[key]

    def _spend(self, listed: int) -> None:
        self._work[0] += listed
        if self._work[0] > _MOST_LISTED:
            raise BadArchive(f"its images list more than {_MOST_LISTED} manifests and layers, all together")

    def _manifest(self, digest: str) -> Manifest | None:
        if digest not in self._parsed:
            if not self.has(digest):
                return None
            if digest not in self.documents:
                raise ValueError(f"{digest} is no manifest: it is no JSON, or larger than {MOST_JSON >> 20} MiB")
            self._parsed[digest] = Manifest.parse(self.documents[digest])
        return self._parsed[digest]

    def _platform(self, config: str) -> Platform | None:
        return Platform.of_config(self.documents.get(config, b""))

    def absent(self, manifest: Descriptor, tree: Tree) -> list[str]:
        """Returns the digests that a manifest needs and the archive lacks; the manifest's own may be among them."""
        return [blob.digest for blob in (manifest, *tree.blobs(manifest)) if not self.has(blob.digest)]

    def odd(self, entry: Entry) -> str:
        """Returns why an entry is nothing that containerd can have as an image, whatever its name; empty if it can."""
        target, kind = entry.target, entry.target.media_type
        if kind in SCHEMA_1:
            return "one of its images is of docker's schema 1, which containerd cannot import"
        if kind not in DOCUMENTS:
            return f"what it has is of type {kind[:200]!r}, which is no image that containerd takes"
        with suppress(ValueError):  # `check` tells it
            if target.is_index and self._manifest(target.digest) == Manifest():
                return "one of its images is an index that lists nothing"
        return ""

    def check(self, entries: Iterable[Entry], file: IO[bytes]) -> None:
        """Refuses images that are no images or not whole, and names that two images have.

        An index may lack platforms, as after a pull, but not all of them.

        Raises:
            BadArchive: says what is wrong.
        """
        named: dict[str, str] = {}
        entries = dict.fromkeys(entries)
        docker = {digest: self._docker[digest] for entry in entries if (digest := entry.target.digest) in self._docker}
        docker_archive.unpack(docker.values(), file, self._plain)
        whole: set[Descriptor] = set()  # an image may have very many names
        for entry in entries:
            if entry.name and named.setdefault(entry.name, entry.target.digest) != entry.target.digest:
                raise BadArchive(
                    f"it has two images under the name {entry.name}",
                    detail=f"{named[entry.name]}\n{entry.target.digest}",
                    hint="save them under names of their own, or choose one: --ref DIGEST --as REF",
                )
            if why := self.odd(entry):
                raise BadArchive(why, detail=entry.target.digest)
            if entry.target in whole:
                continue
            whole.add(entry.target)
            self._check_image(entry.target)
            if entry.target.digest in docker:
                docker_archive.check(docker[entry.target.digest], self._plain)

    def _check_image(self, target: Descriptor) -> None:
        self._check_size(target)
        tree = self.tree(target)
        for parent, listed in tree.listed.items():
            if parent not in self._checked:
                self._checked.add(parent)
                for each in listed:
                    self._check_descriptor(each, parent)
        missing = [self.absent(manifest, tree) for manifest in tree.manifests]
        if all(missing):
            raise BadArchive(
                "an image is not whole: blobs that it needs are not in the archive",
                detail="\n".join(islice(chain.from_iterable(missing), 10)) or target.digest,
                hint=CUT,
            )

    def _check_descriptor(self, descriptor: Descriptor, where: str) -> None:
        if not is_digest(descriptor.digest):
            raise BadArchive(f"{where} names something that is no blob: {descriptor.digest[:200]!r}")
        self._check_size(descriptor)

    def _check_size(self, descriptor: Descriptor) -> None:
        digest = descriptor.digest
        if self.has(digest) and self.size(digest) != descriptor.size:
            raise BadArchive(
                f"{digest} has another size than its descriptor says",
                detail=f"descriptor {descriptor.size} bytes\nblob       {self.size(digest)} bytes",
            )


def read(file: IO[bytes], choose: Callable[[Archive], _T]) -> tuple[Archive, _T]:
    """Reads a whole archive: compares the digest of every blob, and lets the caller choose and check images.

    An archive may have an index.json and a manifest.json that differ in use: an index.json may name nothing. The first
    one counts of which ``choose`` takes what it wants.

    Args:
        file: seekable; plain, or compressed with gzip or zstd, as its first bytes say.
        choose: takes the archive; raises BadArchive if that does not have what is wanted.

    Raises:
        BadArchive: says what is wrong.
    """
    files = Files(file)
    forms = [form for name, form in (("index.json", _of_layout), ("manifest.json", _of_docker)) if name in files]
    errors: list[BadArchive] = []
    for form in forms:
        try:
            found = form(files)
            if not found.entries:
                raise BadArchive("it has no image", hint=CUT)
            return found, choose(found)
        except BadArchive as error:
            errors.append(error)
    if errors:
        raise errors[0]
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
    index = json_object(files.document("index.json"), "index.json")
    listed = json_list(index.get("manifests"), "the manifests of index.json")
    entries = [entry for each in listed for entry in _entries(_descriptor(each), each.get("annotations"))]
    blobs = files.blobs
    return Archive(tuple(entries), blobs, _documents(files, blobs, [entry.target for entry in entries]))


def _documents(files: Files, blobs: Mapping[str, File], targets: Iterable[Descriptor]) -> dict[str, bytes]:
    """Returns the indexes, manifests and configs of images, level by level: a level is read in one go."""
    found: dict[str, bytes] = {}
    wanted = {target.digest for target in targets if target.media_type in DOCUMENTS}
    for _ in range(DEEPEST + 2):  # a manifest below the deepest index, and its config
        new, had = wanted - found.keys(), sum(map(len, found.values()))
        level = files.documents((blobs[digest] for digest in new if digest in blobs), had)
        found |= level
        wanted = {digest for raw in level.values() for digest in _below(raw)}
    return found


def _below(raw: bytes) -> Iterator[str]:
    """Yields the digests of the documents that a document lists; none for a config, and for what is no manifest."""
    try:
        manifest = Manifest.parse(raw)
    except ValueError:
        return  # told where an image needs it
    yield from (child.digest for child in manifest.children if child.media_type in DOCUMENTS)
    yield from (config.digest for config in manifest.blobs[:1])


def _entries(target: Descriptor, annotations: Any) -> list[Entry]:
    """Reads an image's names as containerd does from 1.3 on; a tag alone is no name."""
    if not isinstance(annotations or {}, dict):
        return [Entry("", target, fault="its annotations in index.json are no JSON object")]
    name, ref = (str((annotations or {}).get(key) or "") for key in (NAME, REF_NAME))
    text = name or (ref if set(ref) & set(":/") else "")
    return _named(text, target) if text and not is_digest(text) else [Entry("", target, tag=ref)]


def _named(text: str, target: Descriptor) -> list[Entry]:
    """Returns an entry for each name that a text means: of a tag and a digest, each that kubelet looks for."""
    try:
        reference = Reference.parse(text)
    except BadReference as error:
        return [Entry("", target, fault=error.message)]
    if reference.digest and reference.digest != target.digest:
        return [Entry("", target, fault=f"it gives the name {text} to another digest")]
    tagged = [replace(reference, digest=None)] if reference.tag and reference.digest else []
    return [Entry(str(each), target) for each in (*tagged, reference.or_latest.for_cri)]


def _of_docker(files: Files) -> Archive:
    entries: list[Entry] = []
    found: dict[str, File] = {}
    images: dict[str, DockerImage] = {}
    size = 0
    for image in docker_archive.images(files):
        digest = f"sha256:{hashlib.sha256(image.manifest).hexdigest()}"
        target = Descriptor(DOCKER_MANIFEST, digest, len(image.manifest))
        found |= {each.digest: each for each in (image.config, *image.layers)}
        size += len(image.manifest)
        if size > MOST_DOCUMENTS:
            raise BadArchive(f"its images have more than {MOST_DOCUMENTS >> 20} MiB of manifests")
        images[digest] = image
        tags = (tag for tag in image.tags if tag != _NO_NAME)
        entries += [entry for tag in tags for entry in _named(tag, target)] or [Entry("", target)]
    made = {digest: image.manifest for digest, image in images.items()}
    configs = files.documents(image.config for image in images.values())
    return Archive(tuple(entries), found, configs | made, made, images)


def _descriptor(data: Any) -> Descriptor:
    try:
        found = Descriptor.of_json(data)
    except ValueError as error:
        raise BadArchive("index.json lists something that is no descriptor", detail=str(error)[:400]) from error
    if not is_digest(found.digest):
        raise BadArchive(f"index.json names something that is no blob: {found.digest[:200]!r}")
    return found
