"""The images of an archive, read and checked before any host is touched: what `load` and `deliver` share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import BadArchive, UsageError
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.oci.reference import Reference, is_digest, is_glob, pinned
from ctr_ferry.transfer import checksum
from ctr_ferry.transfer.copy_request import ImageCopy
from ctr_ferry.transfer.source_inventory import ImageSelector

if TYPE_CHECKING:
    from ctr_ferry.oci.archive import Archive, Entry
    from ctr_ferry.transfer.fan_out import Source


@dataclass(frozen=True, slots=True)
class ArchiveImages:
    """Images of an archive, each with the name that it gets."""

    file: Path
    archive: Archive
    image_copies: tuple[ImageCopy, ...]

    @property
    def content(self) -> Content:
        """What the archive has."""
        return content(self.archive)

    @property
    def source(self) -> Source:
        """Where blobs come from."""
        from ctr_ferry.transfer.sources import ArchiveSource

        return ArchiveSource(self.file, self.archive)


def archive_images(file: Path, selectors: Sequence[ImageSelector], platform: Platform | None) -> ArchiveImages:
    """Reads an archive, and chooses images of it; without selectors, all of them.

    Raises:
        BadArchive: it is broken, or lacks what is asked for.
        UsageError: it cannot be read, or one name is for several images.
    """
    with telling(file):
        found = read(file)
        pairs = [(chosen(found.entries, (each.ref,)), each.dst) for each in selectors]
        pairs = pairs or [(chosen(found.entries, ()), None)]
        copies = dict.fromkeys(each for images, name in pairs for each in image_copies(found, images, name))
        for images, _ in pairs:
            check_platforms(found, images, platform, every=False)
    return ArchiveImages(file, found, tuple(copies))


@contextmanager
def telling(file: Path) -> Iterator[None]:
    """A block in which an error of an archive gets the file's name."""
    try:
        yield
    except BadArchive as error:
        hint = error.hint or "save the images again: fab -H HOST save --ref REF --out FILE"
        raise BadArchive(f"{file}: {error.message}", detail=error.detail, hint=hint) from error


def content(archive: Archive) -> Content:
    """Returns what the archive has. Configs, and layers that are JSON, are blobs like others, not documents."""
    tops = [entry.target for entry in archive.entries]
    read = {manifest.digest for top in tops for manifest in (top, *archive.manifests(top))}
    return Content(archive.digests, {digest: raw for digest in read if (raw := archive.document(digest))})


def read(file: Path) -> Archive:
    """Reads the archive. If a check sum lies beside it, that is compared first. Raises BadArchive, UsageError."""
    from ctr_ferry.oci import archive

    try:
        with file.open("rb") as opened:
            _compare_checksum(file, opened)
            return archive.read(opened)
    except OSError as error:
        raise UsageError(
            f"--archive {file} cannot be read: {error.strerror or error}", hint="check the path and its permissions"
        ) from error


def _compare_checksum(file: Path, opened: BufferedReader) -> None:
    expected = checksum.expected(file)
    if expected and (found := hashlib.file_digest(opened, "sha256").hexdigest()) != expected:
        raise BadArchive(
            f"it does not match {file.name}.sha256",
            detail=f"expected {expected}\nfound    {found}",
            hint="copy the archive here again",
        )


def chosen(entries: Sequence[Entry], refs: Sequence[str]) -> tuple[Entry, ...]:
    """Returns the entries that fit any of the references: a name in any form, a glob on whole names, or a digest.

    An image that is asked for by repository and digest gets that very name.
    """
    if not refs:
        return tuple(dict.fromkeys(entries))
    fitting = {ref: _fitting(entries, ref) for ref in refs}
    if absent := [ref for ref, fit in fitting.items() if not fit]:
        names = ", ".join(dict.fromkeys(entry.name or entry.target.digest for entry in entries))
        what = absent[0] if len(refs) == 1 else f"for {len(absent)} of {len(refs)} references"
        raise BadArchive(
            f"it has no image {what}",
            detail="\n".join([*(absent if len(refs) > 1 else ()), f"it has {names}"]),
            hint="choose one of these with --ref",
        )
    return tuple(dict.fromkeys(entry for fit in fitting.values() for entry in fit))


def _fitting(entries: Sequence[Entry], ref: str) -> list[Entry]:
    if is_digest(ref):
        return [entry for entry in entries if entry.target.digest == ref]
    if is_glob(ref):
        return [entry for entry in entries if fnmatchcase(entry.name, ref)]
    if name := pinned(ref):
        return [replace(entry, name=str(name)) for entry in entries if entry.target.digest == name.digest][:1]
    return [entry for entry in entries if entry.name == str(Reference.parse(ref).or_latest)]


def image_copies(found: Archive, images: Sequence[Entry], name: Reference | None) -> tuple[ImageCopy, ...]:
    """Returns each image with the name that it gets."""
    if name:
        targets = {entry.target for entry in images}
        if len(targets) > 1:
            raise UsageError(
                f"--as is for one image, and there are {len(targets)}", hint="choose one of them with --ref"
            )
        (target,) = targets
        if name.digest not in (None, target.digest, *(each.digest for each in found.manifests(target))):
            raise UsageError(f"--as {name} has another digest than the image", hint=f"the image has {target.digest}")
        return (ImageCopy(_listed(found, images[0]), name.or_latest),)
    if nameless := [entry.target.digest for entry in images if not entry.name]:
        raise BadArchive("it does not name its image", detail="\n".join(nameless), hint="give it a name with --as REF")
    return tuple(ImageCopy(_listed(found, entry), Reference.parse(entry.name)) for entry in images)


def check_platforms(found: Archive, images: Sequence[Entry], wanted: Platform | None, *, every: bool) -> None:
    """Refuses a platform that is not, or not whole, in the archive, whatever the hosts have."""
    for entry in images:
        manifests = found.manifests(entry.target)
        if wanted:
            manifests = tuple(each for each in manifests if found.platform(each) == wanted)
            if not manifests:
                raise BadArchive(
                    f"{entry.name or 'its image'} is not for {wanted}",
                    detail=", ".join(_platforms(found, entry)),
                    hint="leave --platform out, or choose another one",
                )
        absent = [digest for each in manifests for digest in found.absent(each)]
        if absent and (every or wanted):
            raise BadArchive(
                f"{entry.name or 'its image'}: blobs of {wanted or 'some platforms'} are not in the archive",
                detail="\n".join(absent[:10]),
                hint="the archive was saved without them: leave the option out, or save it again with --all-platforms",
            )


def _platforms(found: Archive, entry: Entry) -> list[str]:
    return [str(p) for each in found.manifests(entry.target) if (p := found.platform(each))]


def _listed(found: Archive, entry: Entry) -> Image:
    """Returns the image as a host that had it would list it."""
    return Image(
        name=entry.name or entry.target.digest,
        media_type=entry.target.media_type,
        digest=entry.target.digest,
        size="",
        platforms=",".join(_platforms(found, entry)) or "-",
        labels=frozenset(),
    )
