"""``save``: brings images of a host to the control machine, as an archive that ctr, skopeo and docker read.

Plan from what the host has, stream each blob into ``FILE.part`` while it is checked, then give the file its name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO

from tasks.ctr.content import Content
from tasks.ctr.failures import content_missing
from tasks.ctr.images import Image, Listing
from tasks.ctr.probe import Facts
from tasks.errors import (
    BadArchive,
    CannotWrite,
    ContentMissing,
    FerryError,
    ImageNotFound,
    NotStarted,
    SourceLost,
    UsageError,
)
from tasks.fleet import look, options, parcels
from tasks.fleet.command import fleet_wide
from tasks.fleet.convoy import checked
from tasks.fleet.crew import Fleet
from tasks.fleet.outcome import Result, Status
from tasks.fleet.sources import HostSource
from tasks.oci import archive, layout, tar
from tasks.oci.descriptor import Descriptor, Platform
from tasks.oci.layout import Saved
from tasks.oci.reference import Reference, is_digest, is_glob
from tasks.ssh.host import Host, Moved


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for, checked before any host is touched.

    Attributes:
        out: the archive, or the folder that gets one for each host.
        platform: the one whose manifest is saved; None is all that are there.
    """

    refs: tuple[str, ...]
    out: Path
    folder: bool
    namespace: str | None = None
    platform: Platform | None = None
    all_platforms: bool = False
    force: bool = False

    def file(self, host: str) -> Path:
        """Where a host's images go."""
        return self.out / f"{host.replace('/', '_')}.tar" if self.folder else self.out


def parse(
    *,
    ref: Sequence[str] | None = None,
    out: str | None = None,
    namespace: str | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    force: bool = False,
) -> Request:
    """Options to a request.

    Raises:
        UsageError: or BadReference, with the option that is wrong.
    """
    if not (ref and out):
        raise UsageError(
            "save needs --ref REF, which may be repeated, and --out FILE or DIR",
            hint="fab -H node1 save --ref r.example/app:1 --out app.tar",
        )
    for each in ref:
        if not (is_digest(each) or is_glob(each)):
            Reference.parse(each)
    file = Path(out).expanduser()
    folder = file.is_dir() or out.endswith("/")
    if not (file if file.is_dir() else file.parent).is_dir():
        raise UsageError(f"--out {out}: there is no folder {file.parent}", hint="make it first")
    return Request(
        tuple(dict.fromkeys(ref)),
        file,
        folder,
        options.namespace(namespace),
        options.platform(platform, every=all_platforms),
        all_platforms,
        force,
    )


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image that is in the archive.

    Attributes:
        platforms: whose content is there; empty where the image does not say.
    """

    name: str
    digest: str
    platforms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SaveResult:
    """One host's archive.

    Attributes:
        size: of the archive, in bytes.
        sha256: of the archive, in hex; empty where it was not written.
    """

    namespace: str
    file: str
    status: Status
    size: int
    sha256: str
    images: tuple[SavedImage, ...]

    def lines(self) -> list[str]:
        """The archive, its images below."""
        from rich.filesize import decimal

        state = "  it has these already" if self.status is Status.UNCHANGED else ""
        return [f"{self.file}  {decimal(self.size)}{state}"] + [
            f"  {image.name} {image.digest}" + (f"  {', '.join(image.platforms)}" if image.platforms else "")
            for image in self.images
        ]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one archive is to have.

    Attributes:
        blobs: each once, in the order in which they are written.
    """

    images: tuple[SavedImage, ...]
    documents: Mapping[str, bytes]
    blobs: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """Of the archive, in bytes."""
        sizes = [len(document) for document in self.documents.values()] + [blob.size for blob in self.blobs]
        return sum(len(tar.header("", size)) + size + len(tar.padding(size)) for size in sizes) + len(tar.END)


def plan(request: Request, host: Platform, images: Iterable[Image], content: Content) -> Plan:
    """Chooses the blobs.

    Args:
        host: the host's platform.
        content: what the host has of the images, indexes read deeply.

    Raises:
        ContentMissing, PlatformMissing.
    """
    saved: list[SavedImage] = []
    listed: list[Saved] = []
    blobs: dict[str, Descriptor] = {}
    for image in images:
        target = content.choose(image, request.platform, host, partial_index=True).target
        cargo = {blob.digest: blob for blob in _cargo(request, host, image, target, content)}
        manifests = _whole(content, target, cargo.keys())
        first = next((each for each in manifests if each.platform == host), manifests[0])
        listed.append(Saved(image.name, target, content.manifest(first.digest)))
        platforms = [str(each.platform) for each in manifests if each.platform] or image.platforms.split(",")
        saved.append(SavedImage(image.name, target.digest, tuple(p for p in platforms if p != "-")))
        blobs |= cargo
    ordered = tuple(blobs[digest] for digest in sorted(blobs))
    return Plan(tuple(saved), layout.documents(listed), ordered)


def _cargo(request: Request, host: Platform, image: Image, target: Descriptor, content: Content) -> list[Descriptor]:
    try:
        return parcels.cargo(content, image, target, request.platform or host, every=request.all_platforms)
    except ContentMissing as error:
        raise content_missing(image.name, error.said) from error


def _whole(content: Content, target: Descriptor, there: Collection[str]) -> list[Descriptor]:
    """The target, or those of an index's manifests, with all that they point at."""
    manifests = content.manifest(target.digest).children if target.is_index else (target,)
    return [m for m in manifests if {m.digest, *(b.digest for b in content.manifest(m.digest).blobs)} <= set(there)]


class _Writer:
    """The archive while it is written; hashes what goes into it."""

    def __init__(self, file: Path, part: IO[bytes]) -> None:
        self._file, self._part = file, part
        self._sha = hashlib.sha256()

    def member(self, name: str, size: int, chunks: Iterable[bytes]) -> Iterator[int]:
        """Writes a file of the archive.

        Yields:
            The length of every piece, once it is written.
        """
        for data in chain([tar.header(name, size)], chunks, [tar.padding(size)]):
            yield self.write(data)

    def write(self, data: bytes) -> int:
        """Writes bytes.

        Raises:
            CannotWrite.
        """
        with _local_trouble(self._file):
            self._part.write(data)
        self._sha.update(data)
        return len(data)

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""
        return self._sha.hexdigest()


@contextmanager
def _replacing(file: Path) -> Iterator[_Writer]:
    """``FILE.part``, which takes the file's place if all goes well, and is gone if not.

    Raises:
        CannotWrite.
    """
    part = file.with_name(f"{file.name}.part")
    with _local_trouble(file):
        file.parent.mkdir(exist_ok=True)
        opened = part.open("ab")
    with opened:
        if not _alone(part, opened):
            raise CannotWrite(f"another run is writing {part}", hint="wait until it has ended")
        try:
            opened.truncate(0)  # what a run that was killed has left
            yield _Writer(file, opened)
            with _local_trouble(file):
                opened.close()  # some disks tell only now that they are full
                part.rename(file)
        except BaseException:
            part.unlink(missing_ok=True)
            with suppress(OSError):  # a full disk refuses once more what is still to be written
                opened.close()
            raise


def _alone(part: Path, opened: IO[bytes]) -> bool:
    """Locks the part; False where another run has it, or has just made the archive of it."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(part.stat(), os.fstat(opened.fileno()))
    except (BlockingIOError, FileNotFoundError):
        return False


@contextmanager
def _local_trouble(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"{file} cannot be written on the control machine",
            said=error.strerror or str(error),
            hint="make room there, or choose another --out",
        ) from error


def holds(file: Path, plan: Plan) -> bool:
    """Whether an archive has exactly what is to be saved."""
    try:
        with file.open("rb") as opened:
            there = archive.read(opened)
    except (BadArchive, OSError):
        return False
    names = {(entry.name, entry.target.digest) for entry in there.entries}
    return names == {(i.name, i.digest) for i in plan.images} and there.digests == {b.digest for b in plan.blobs}


def write(planned: Plan, file: Path, blobs: Iterable[tuple[Descriptor, Iterable[bytes]]], moved: Moved) -> str:
    """Writes the archive and, beside it, its SHA-256 as sha256sum does.

    Args:
        blobs: the plan's, in its order, each with its bytes.
        moved: told of every piece.

    Returns:
        The SHA-256, in hex.

    Raises:
        CannotWrite: or what ``blobs`` raises; then nothing is left.
    """
    beside = file.with_name(f"{file.name}.sha256")
    done = 0
    with _replacing(file) as writer:
        for name, document in planned.documents.items():
            done += sum(writer.member(name, len(document), [document]))
        for blob, chunks in blobs:
            for length in writer.member(layout.blob_path(blob.digest), blob.size, chunks):
                done += length
                moved(done, planned.size)
        writer.write(tar.END)
        with _local_trouble(beside):
            beside.unlink(missing_ok=True)  # or it would tell of the archive that was there before
    with _local_trouble(beside):
        beside.write_text(f"{writer.sha256}  {file.name}\n")
    return writer.sha256


def _images(host: Host, facts: Facts, here: Listing, refs: Iterable[str]) -> list[Image]:
    """The images that are asked for, each once."""
    found: dict[str, Image] = {}
    for ref in refs:
        one = None if is_glob(ref) else here.find(ref)
        fit = here.tagged(ref) if is_glob(ref) else (one,) if one else ()
        if not fit:
            raise _not_found(host, facts, here, ref)
        found |= {image.name: image for image in fit}
    return list(found.values())


def _not_found(host: Host, facts: Facts, here: Listing, ref: str) -> ImageNotFound:
    if is_glob(ref):
        hint = "a glob fits whole names, such as '*/app:*'"
        return ImageNotFound(f"no image of namespace {here.namespace} fits {ref}", hint=hint)
    return look.not_found(host, facts, here, [ref])[0]


def _save(host: Host, request: Request) -> SaveResult:
    """Plans, and writes where there is not already what would be written.

    Raises:
        FerryError.
    """
    namespace = request.namespace or host.target.ctr.namespace
    facts = host.facts((namespace,))
    here = facts.listings[namespace]
    images = _images(host, facts, here, request.refs)
    content, _ = look.content(host, facts, namespace, [image.digest for image in images], deep=True)
    planned = plan(request, facts.platform, images, content)
    file = request.file(host.name)
    result = SaveResult(namespace, str(file), Status.CHANGED, planned.size, "", planned.images)
    if file.exists() and not request.force:
        if holds(file, planned):
            return replace(result, status=Status.UNCHANGED)
        raise CannotWrite(f"{file} exists, and has something else", hint="choose another --out, or add --force")
    if host.dry_run:
        return result
    read = HostSource(host, facts, namespace).read(planned.blobs)
    blobs = ((blob, checked(blob, chunks, host.name)) for blob, chunks in read)
    try:
        return replace(result, sha256=write(planned, file, blobs, host.moved))
    except SourceLost as error:  # the source is the host itself
        raise (error.__cause__ if isinstance(error.__cause__, FerryError) else error) from None


@fleet_wide(
    parse,
    iterable=["ref"],
    help={
        "ref": "An image: a name, its short form, a digest, or a glob on whole names; may be repeated.",
        "out": "The archive to write; or a folder, which gets HOST.tar for each host.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "platform": "Save this platform's manifest of a multi-platform image alone.",
        "all_platforms": "Insist that all platforms are there (default: those that are).",
        "force": "Write over an archive that has something else.",
    },
)
def save(fleet: Fleet, request: Request) -> dict[str, Result | FerryError]:
    """Bring images of a host to the control machine, as an archive for ctr, skopeo and docker load."""
    if not request.folder and len(fleet.hosts) > 1:
        raise UsageError(
            f"--out {request.out} is one file, and there are {len(fleet.hosts)} hosts",
            hint=f"give one host, or a folder: --out {request.out}/",
            result=dict.fromkeys(fleet.hosts, NotStarted("nothing was started")),
        )
    return dict(fleet.each(lambda host: _save(host, request)))
