"""What ``ctr images ls`` says: parsed rows, and looking names up in them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from sys import intern

from ctr_ferry.ctr.commands import CRI_MANAGED
from ctr_ferry.errors import BadReference, GarbledAnswer
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.text import shown_name

_DIGEST_CELL = re.compile(r" (sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128}))(?= |$)")  # as is_digest
_TWO_WORDS = re.compile(r" *[^ ]+ +[^ ]+")
_PLATFORM = re.compile(r"[^/]+/[^/]+(?:/[^/]+)?")
_MOST_COMPARED = 2000  # names that are looked at for one that is alike


@dataclass(frozen=True, slots=True)
class Image:
    """One record of a namespace: a name and what it points at.

    Attributes:
        media_type: of the target; ``digest`` is the target's digest.
        name: exactly as it is, with whatever characters; `shown_name` is for people.
        size: as ctr prints it, of the host's platform alone; only to be shown.
        platforms: all that the index names, though their content may be absent.
    """

    name: str
    media_type: str
    digest: str
    size: str
    platforms: str
    labels: frozenset[str]

    @property
    def cri_managed(self) -> bool:
        """Whether CRI knows it, so that kubelet sees the name."""
        return CRI_MANAGED in self.labels

    def is_for(self, platform: Platform) -> bool:
        """Whether ctr lists the platform; where it lists none ("-"), that is not known, and nothing is ruled out."""
        return not self.listed or platform in self.listed

    @property
    def listed(self) -> tuple[Platform, ...]:
        """The platforms that ctr lists."""
        return tuple(Platform.parse(each) for each in self.platforms.split(",") if _PLATFORM.fullmatch(each))

    @property
    def user_named(self) -> bool:
        """False for the ``sha256:<config>`` record that CRI keeps beside the names."""
        return not is_digest(self.name)


def parse_images(text: str) -> tuple[Image, ...]:
    """Parses ``images ls``: REF TYPE DIGEST SIZE(two words) PLATFORMS LABELS (1.0 to 2.1).

    A line break in a name or label splits a row, and its second half may look like the row of another image. ctr pads
    every row to the width of the header, which gives such a half away, unless the name or label also has the tabs or
    spaces that make it as wide. With tabs the table is byte for byte that of two images, and nothing in it can tell.

    Raises:
        GarbledAnswer: where the header or a row has another shape. Then no row can be trusted: with a line break in
            a name, a part of that name looks like another one, and what seems absent may be there.
    """
    header, *lines = text.removesuffix("\n").split("\n")  # an empty namespace has its header, too
    if header.split() != ["REF", "TYPE", "DIGEST", "SIZE", "PLATFORMS", "LABELS"]:
        raise GarbledAnswer("`ctr images ls` did not print its table", detail=f"it printed {header[:200]!r}")
    labels: dict[str, frozenset[str]] = {}
    return tuple(_parse_row(line, header, labels) for line in lines)


def _parse_row(line: str, header: str, alike: dict[str, frozenset[str]]) -> Image:
    """What many rows have in common is kept once: a host may have a hundred thousand."""
    row = split_row(line, header.index("DIGEST"))
    if row is None or len(row[3]) < 4 or not _is_aligned(line, header):
        raise GarbledAnswer("a row of `ctr images ls` has another shape", detail=f"the row {line[:200]!r}")
    name, media_type, digest, (number, unit, platforms, *labels) = row
    text = " ".join(labels)
    if text not in alike:
        alike[text] = frozenset(text.split(",")) - {"-"}
    return Image(
        name,
        intern(media_type),
        digest,
        f"{shown_name(number)} {shown_name(unit)}",
        intern(shown_name(platforms)),
        alike[text],
    )


def _is_aligned(line: str, header: str) -> bool:
    """Whether a row is as wide as its header, which ends with a space where ctr's own tabwriter padded it.

    A byte that is no UTF-8 is one character to ctr, and four here.
    """
    wider = range(0, 3 * line.count("\\x") + 1, 3)
    return not header.endswith(" ") or len(line) - len(header) in wider


def split_row(line: str, column: int | None = None) -> tuple[str, str, str, list[str]] | None:
    """Name, type, digest, and the words behind it, of a row of a table of images; None for another shape.

    Names and labels may have spaces and digests in them; then the target is the digest in its column. Words end at
    spaces alone: of Unicode's others a name may have any, and two names that differ in them are two.
    """
    first = _TWO_WORDS.match(line)
    found = list(_DIGEST_CELL.finditer(line, first.end())) if first else []
    if len(found) > 1:
        found = [digest for digest in found if digest.start(1) == column]
    if len(found) != 1:
        return None
    name, _, media_type = line[: found[0].start()].rstrip(" ").rpartition(" ")
    return name.rstrip(" "), media_type, found[0][1], [word for word in line[found[0].end() :].split(" ") if word]


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of one namespace of one host."""

    namespace: str
    images: tuple[Image, ...]

    @classmethod
    def parse(cls, namespace: str, text: str) -> Listing:
        """From what ``images ls`` says of a namespace.

        Raises:
            GarbledAnswer: with the namespace, and how to find what is in the way.
        """
        try:
            return cls(namespace, parse_images(text))
        except GarbledAnswer as error:
            raise GarbledAnswer(
                f"the images of namespace {namespace} cannot be read: {error.message}",
                detail=error.detail,
                hint="a name or label there may have a line break: find it with "
                f"`ctr -n {namespace} images ls | cat -A` and remove that name by hand",
            ) from error

    def get(self, name: str) -> Image | None:
        """The record of exactly this name."""
        return next((image for image in self.images if image.name == name), None)

    def find(self, wanted: str) -> Image | None:
        """The image that a user means: the exact name, else one of the same full form, else a digest's.

        ``repository@digest`` means that content under any name, the same repository's first.
        """
        if exact := self.get(wanted):
            return exact
        if is_digest(wanted):
            return next((i for i in self._by_digest(wanted)), None)
        reference = Reference.parse(wanted)
        if reference.digest:
            alike = sorted(self._by_digest(reference.digest), key=lambda i: not _same_repository(i, reference))
            return alike[0] if alike else None
        full = str(reference if reference.tag else reference.with_tag("latest"))
        return self.get(full) or next((i for i in self.images if i.user_named and _full_name(i) == full), None)

    def _by_digest(self, digest: str) -> Iterator[Image]:
        alike = [image for image in self.images if image.digest == digest]
        yield from sorted(alike, key=lambda image: not image.user_named)

    def match(self, glob: str) -> tuple[Image, ...]:
        """The ordinary images whose name the glob fits; a glob never names CRI's own records."""
        return tuple(i for i in self.images if i.user_named and fnmatchcase(i.name, glob))

    def tagged(self, glob: str) -> tuple[Image, ...]:
        """Those of `match` that have a tag: kubelet's pull leaves ``repository@sha256:…``, too."""
        return tuple(image for image in self.match(glob) if "@" in glob or "@" not in image.name)

    def close_to(self, wanted: str, most: int = 3) -> list[str]:
        """Names that a user may have meant: the same repository name first, then alike ones."""
        names = [image.name for image in self.images if image.user_named][:_MOST_COMPARED]
        last = _last_component(wanted)
        same = [name for name in names if last and _last_component(name) == last]
        alike = difflib.get_close_matches(wanted, names, n=most, cutoff=0.75)
        return list(dict.fromkeys([*same, *alike]))[:most]


def _full_name(image: Image) -> str:
    try:
        return str(Reference.parse(image.name))
    except BadReference:
        return image.name


def _same_repository(image: Image, reference: Reference) -> bool:
    try:
        return Reference.parse(image.name).repository == reference.repository
    except BadReference:
        return False


def _last_component(name: str) -> str:
    return name.partition("@")[0].rpartition("/")[2].partition(":")[0]


def parse_digests(lines: Iterable[str]) -> frozenset[str]:
    """The digests of ``content ls -q``."""
    return frozenset(word for line in lines if is_digest(word := line.strip()))
