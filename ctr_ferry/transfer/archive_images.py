"""The images of an archive, read and checked before any host is touched: what `load` and `deliver` share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ctr_ferry import shell
from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import ITSELF, BadArchive, BadReference, UsageError
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference, is_digest, is_glob, pinned
from ctr_ferry.report.answers import grouped
from ctr_ferry.ssh.local_path import ls_line
from ctr_ferry.text import shown_name
from ctr_ferry.transfer import archive_file, checksum
from ctr_ferry.transfer.copy_request import ImageCopy

if TYPE_CHECKING:
    from ctr_ferry.oci.archive import Archive, Entry
    from ctr_ferry.transfer.fan_out import Source
    from ctr_ferry.transfer.source_inventory import ImageSelector

_MOST_NOTES = 10
REMEDY = "the archive has a part of that image: save it again, with --all-platforms, on a host that has all of it"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of an archive.

    Attributes:
        groups: references of images, none for all of them, and the name to give if they are one image.
        base_name: the repository of images that the archive calls by a tag alone.
        platform: the platform that must be there.
        every: whether all platforms must be.
    """

    groups: Sequence[tuple[Sequence[str], Reference | None]] = (((), None),)
    base_name: Reference | None = None
    platform: Platform | None = None
    every: bool = False


@dataclass(frozen=True, slots=True)
class ArchiveImages:
    """Images of an archive, each with the name that it gets.

    Attributes:
        notes: what of the archive is passed by, and why; and a tag that was not given.
    """

    file: Path
    archive: Archive
    image_copies: tuple[ImageCopy, ...]
    targets: tuple[Descriptor, ...]
    notes: tuple[str, ...]

    @property
    def content(self) -> Content:
        """What the archive has. Configs, and layers that are JSON, are blobs like others, not documents."""
        zstd = frozenset(digest for digest, file in self.archive.files.items() if file.packed == "zstd")
        found = Content(self.archive.digests, zstd=zstd)  # docker archives and their manifests do not tell it
        for tree in map(self.archive.tree, self.targets):
            documents = {each.digest: self.archive.documents.get(each.digest) for each in tree.documents}
            found.blobs |= {digest: raw for digest, raw in documents.items() if raw}
            found.platforms |= {
                blobs[0].digest: each.platform for each in tree.manifests if (blobs := tree.blobs(each))
            }
        return found

    @property
    def source(self) -> Source:
        """Where blobs come from."""
        from ctr_ferry.transfer.sources import ArchiveSource

        return ArchiveSource(self.file, self.archive)


def archive_images(file: Path, wanted: Wanted) -> ArchiveImages:
    """Reads an archive or a folder, and chooses and checks images of it.

    If a check sum lies beside an archive, that is compared first.

    Raises:
        BadArchive: it is broken, or lacks what is wanted.
        UsageError: it cannot be read, or one name is for several images.
    """
    from ctr_ferry.oci import archive

    with _telling(file):
        try:
            with archive_file.opened(file) as opened:
                _compare_checksum(file, opened)
                found, (chosen, copies, notes) = archive.read(opened, lambda found: _choose(found, wanted, opened))
        except OSError as error:
            raise UsageError(
                f"--archive {file} cannot be read: {error.strerror or error}",
                hint=f"see what is there: {ls_line(file)}",
            ) from error
    targets = tuple({entry.target.digest: entry.target for entry in chosen}.values())
    return ArchiveImages(file, found, copies, targets, tuple(f"{file}: {note}" for note in notes))


def by_selectors(selectors: Sequence[ImageSelector], platform: Platform | None) -> Wanted:
    """What selectors want; without selectors, all images."""
    return Wanted(tuple(((each.ref,), each.dst) for each in selectors) or (((), None),), platform=platform)


@contextmanager
def _telling(file: Path) -> Iterator[None]:
    """A block in which an error of an archive gets the file's name."""
    try:
        yield
    except BadArchive as error:
        hint = (
            error.hint.replace(ITSELF, shell.join([str(file)]))
            or f"save the images again: fab -H all save --ref r.example/app:1 --out {shell.join([str(file)])}"
        )
        raise BadArchive(f"{file}: {error.message}", detail=error.detail, hint=hint) from error


def _compare_checksum(file: Path, opened: IO[bytes]) -> None:
    expected = None if file.is_dir() else checksum.expected(file)
    if expected and (found := hashlib.file_digest(opened, "sha256").hexdigest()) != expected:  # type: ignore[arg-type]
        raise BadArchive(
            f"it does not match {file.name}.sha256",
            detail=f"expected {expected}\nfound    {found}",
            hint="copy the archive here again",
        )


def _choose(
    found: Archive, wanted: Wanted, opened: IO[bytes]
) -> tuple[list[Entry], tuple[ImageCopy, ...], tuple[str, ...]]:
    """Returns the images that are wanted, each with the name that it gets, and notes on what nobody may expect."""
    entries = _Entries(_based(entry, wanted.base_name) for entry in found.entries)
    platforms = cache(lambda target: ",".join(_platforms(found, target)) or "-")  # an image may have many names
    chosen: list[Entry] = []
    copies: dict[tuple[str, str], ImageCopy] = {}
    notes: list[str] = []
    named: list[str] = []
    for refs, name in wanted.groups:
        images = _meant(found, entries, refs, name, notes)
        found.check(images, opened)
        if name:
            _check_name(found, images, name)
        tagged = _tagged(name, images, named) if name else None
        for entry in images[:1] if name else images:
            given = tagged or Reference.parse(entry.name)
            copies.setdefault(
                (str(given), entry.target.digest), ImageCopy(_listed(entry, platforms(entry.target)), given)
            )
        chosen += images
    _check_platforms(found, chosen, wanted)
    more = [f"{len(notes) - _MOST_NOTES} more"] if len(notes) > _MOST_NOTES else []
    passed_by = [f"passed by: {note}" for note in (*notes[:_MOST_NOTES], *more)]
    return chosen, tuple(copies.values()), (*named, *passed_by)


def _tagged(name: Reference, images: Sequence[Entry], notes: list[str]) -> Reference:
    """Gives a name without a tag the image's own one or, if it has none or several, ``latest`` with a note."""
    if name.tag or name.digest:
        return name
    names = [(Reference.of_name(each.name), each.tag) for each in images]
    own = {tag for reference, alone in names if (tag := reference.tag if reference else alone)}
    if len(own) == 1:
        return name.with_tag(own.pop())
    why = f"its image has several: {', '.join(sorted(own))}" if own else "neither has its image"
    notes.append(f"{name.text} has no tag, and {why}; the name is {name.or_latest}")
    return name.or_latest


class _Entries:
    """The entries of an archive, found by what people call them."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.all = list(entries)
        self._by_name = grouped((entry.name, entry) for entry in self.all)
        self._by_tag = grouped((entry.tag, entry) for entry in self.all)
        self._by_digest = grouped((entry.target.digest, entry) for entry in self.all)

    def fitting(self, refs: Sequence[str]) -> dict[str, list[Entry]]:
        """Returns by reference the entries that fit it; raises BadArchive if one fits none."""
        found = {ref: self._fitting(ref) for ref in refs}
        absent = [ref for ref, fit in found.items() if not fit]
        if absent:
            names = ", ".join(dict.fromkeys(shown_name(e.name or e.tag or e.target.digest) for e in self.all))
            raise BadArchive(
                f"it has no image {absent[0] if len(refs) == 1 else f'for {len(absent)} of {len(refs)} references'}",
                detail="\n".join([*(absent if len(refs) > 1 else ()), f"it has {names}"]),
                hint=f"choose one, such as with --ref {self.all[0].asked}",
            )
        return found

    def _fitting(self, ref: str) -> list[Entry]:
        """Those of a name in any form, of a tag that stands alone, of a glob on these, or of a digest.

        An image that is asked for by repository and digest gets that very name.
        """
        if is_digest(ref):
            return self._by_digest.get(ref, [])
        if is_glob(ref):
            return [entry for entry in self.all if fnmatchcase(entry.name or entry.tag, ref)]
        if name := pinned(ref):
            return [replace(entry, name=str(name)) for entry in self._by_digest.get(name.digest or "", [])[:1]]
        return self._by_name.get(str(Reference.parse(ref).or_latest), []) or self._by_tag.get(ref, [])


def _check_name(found: Archive, images: Sequence[Entry], name: Reference) -> None:
    targets = {entry.target.digest: entry.target for entry in images}
    if len(targets) > 1:
        raise UsageError(
            f"{name} is for one image, and there are {len(targets)}",
            hint=f"choose one, such as with --ref {images[0].asked}",
        )
    (target,) = targets.values()
    if name.digest not in (None, *(each.digest for each in found.tree(target).documents)):
        raise UsageError(
            f"{name} has another digest than the image", hint=f"the image has another, such as --digest {target.digest}"
        )


def _based(entry: Entry, base_name: Reference | None) -> Entry:
    """Gives an entry that has a tag alone its full name, as ctr does."""
    if not base_name or not entry.tag:
        return entry
    try:
        return replace(entry, name=str(Reference.parse(f"{base_name.repository}:{entry.tag}")))
    except BadReference as error:
        return replace(entry, fault=error.message)


def _meant(
    found: Archive, entries: _Entries, refs: Sequence[str], name: Reference | None, notes: list[str]
) -> list[Entry]:
    """Returns the entries that references mean; without references, all of them.

    Of what no reference names by itself, entries are passed by that cannot be given, unless none is left.
    """
    fitting = entries.fitting(refs)
    named = {entry: ref for ref, fit in fitting.items() if not is_glob(ref) for entry in fit}
    loose = [entry for ref, fit in fitting.items() if is_glob(ref) for entry in fit] if refs else entries.all
    why = {entry: _why_not(found, entry, name) for entry in (*named, *loose)}
    given = [entry for entry in why if entry in named or not why[entry]]
    alone = len({entry.target.digest for entry in found.entries}) == 1
    if bad := [entry for entry in given or why if why[entry]]:
        digests = dict.fromkeys(entry.target.digest for entry in bad)
        raise BadArchive(why[bad[0]], detail="\n".join([*digests][:10]), hint=_what_to_do(found, bad[0], alone=alone))
    notes += [
        f"{reason}: {entry.target.digest}; {_what_to_do(found, entry, alone=alone)}"
        for entry, reason in why.items()
        if reason
    ]
    return given


def _why_not(found: Archive, entry: Entry, name: Reference | None) -> str:
    """Returns why an entry cannot be given; empty if it can."""
    if odd := found.odd(entry):
        return odd
    if name or entry.name:
        return ""
    if entry.fault:
        return entry.fault
    return f"it calls its image {shown_name(entry.tag)!r} alone" if entry.tag else "it does not name its image"


def _what_to_do(found: Archive, entry: Entry, *, alone: bool) -> str:
    if found.odd(entry):
        return "save the image again, with a current tool"
    based = "give the repository with --base-name REPO, or " if entry.tag and not entry.fault else ""
    return f"{based}give it a name with {'' if alone else f'--ref {entry.target.digest} '}--as REF"


def _check_platforms(found: Archive, images: Sequence[Entry], wanted: Wanted) -> None:
    """Refuses a platform that is not, or not whole, in the archive, whatever the hosts have."""
    if not (wanted.platform or wanted.every):
        return
    for entry in {entry.target: entry for entry in images}.values():
        tree = found.tree(entry.target)
        manifests = [each for each in tree.manifests if wanted.every or each.platform == wanted.platform]
        if not manifests:
            raise BadArchive(
                f"{entry.name or 'its image'} is not for {wanted.platform}",
                detail=", ".join(_platforms(found, entry.target)),
                hint="leave --platform out",
            )
        if absent := [digest for each in manifests for digest in found.absent(each, tree)]:
            raise BadArchive(
                f"{entry.name or 'its image'}: blobs of {wanted.platform or 'some platforms'} are not in the archive",
                detail="\n".join(absent[:10]),
                hint="the archive was saved without them; leave --platform and --all-platforms out",
            )


def _platforms(found: Archive, target: Descriptor) -> list[str]:
    return [str(each.platform) for each in found.tree(target).manifests if each.platform]


def _listed(entry: Entry, platforms: str) -> Image:
    """Returns the image as a host that had it would list it."""
    return Image(
        name=entry.name or entry.target.digest,
        media_type=entry.target.media_type,
        digest=entry.target.digest,
        size="",
        platforms=platforms,
        labels=frozenset(),
    )
