"""``ctr images ls``: its rows parsed, and names looked up in them. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from sys import intern

from ctr_ferry.ctr.commands import CRI_MANAGED
from ctr_ferry.errors import GarbledAnswer
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.oci.reference import Reference, is_digest, is_glob
from ctr_ferry.text import shown_name

_DIGEST_CELL = re.compile(r" (sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128}))(?= |$)")  # as is_digest
_TWO_WORDS = re.compile(r" *[^ ]+ +[^ ]+")
_PLATFORM = re.compile(r"[^/]+/[^/]+(?:/[^/]+)?")
_UNITS = {"B": 1, **{f"{letter}iB": 1 << 10 * (n + 1) for n, letter in enumerate("KMGTPE")}}
_MOST_COMPARED = 2000  # names that are compared for a similar one


@dataclass(frozen=True, slots=True)
class Image:
    """One record of a namespace: a name and its target.

    Attributes:
        name: exactly as ctr prints it, with any characters; use `shown_name` before a person sees it.
        size: as ctr prints it, for the host's platform alone; only for people.
        platforms: all platforms that the index names; their content may be absent.
    """

    name: str
    media_type: str
    digest: str
    size: str
    platforms: str
    labels: frozenset[str]

    @property
    def bytes(self) -> int | None:
        """The size in bytes, as exactly as ctr prints it; None where that is no size."""
        number, _, unit = self.size.partition(" ")
        known = re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,3})?", number) and unit in _UNITS
        return round(float(number) * _UNITS[unit]) if known else None

    @property
    def cri_managed(self) -> bool:
        """Whether CRI knows the name, so that kubelet sees it."""
        return CRI_MANAGED in self.labels

    @property
    def others_labels(self) -> tuple[str, ...]:
        """The labels that CRI did not set; none where a value has a comma in it, so that nobody can tell them apart."""
        labels = sorted(self.labels - {CRI_MANAGED, ""})
        return tuple(labels) if all("=" in label for label in labels) else ()

    def is_for(self, platform: Platform) -> bool:
        """Whether ctr lists the platform; True if ctr lists none ("-"), since then nobody knows."""
        return not self.listed or platform in self.listed

    @property
    def listed(self) -> tuple[Platform, ...]:
        """The platforms that ctr lists."""
        return tuple(Platform.parse(each) for each in self.platforms.split(",") if _PLATFORM.fullmatch(each))

    @property
    def user_named(self) -> bool:
        """False for the ``sha256:<config>`` record that CRI keeps beside the names."""
        return not is_digest(self.name)

    @property
    def reference(self) -> Reference | None:
        """The name as a reference; None for CRI's record and for a name that is no reference."""
        return Reference.of_name(self.name) if self.user_named else None

    @property
    def repository(self) -> str | None:
        """The repository in the name; None where `reference` is None."""
        return self.reference.repository if self.reference else None


def parse_images(text: str) -> tuple[Image, ...]:
    """Parses ``images ls``: REF TYPE DIGEST SIZE(two words) PLATFORMS LABELS (1.0 to 2.3).

    A line break in a name or label splits a row, and the second half may look like the row of another image. ctr pads
    every row to the width of the header, so a half is found by its width. It is not found if the name or label also
    has the tabs or spaces that give the right width: with tabs the table is byte for byte that of two images, and
    nothing in the table tells the difference.

    Raises GarbledAnswer if the header or a row has another shape. Then no row can be trusted: a name may be a part of
    another name, and a name that seems absent may be there.
    """
    header, *lines = text.removesuffix("\n").split("\n")  # an empty namespace has its header, too
    if header.split() != ["REF", "TYPE", "DIGEST", "SIZE", "PLATFORMS", "LABELS"]:
        raise GarbledAnswer("`ctr images ls` did not print its table", detail=f"it printed {header[:200]!r}")
    labels: dict[str, frozenset[str]] = {}
    return tuple(_parse_row(line, header, labels) for line in lines)


def _parse_row(line: str, header: str, alike: dict[str, frozenset[str]]) -> Image:
    """Parses a row; equal labels of many rows share memory, since a host may have a hundred thousand images."""
    row = split_row(line, header.index("DIGEST"))
    if row is None or len(row[3]) < 4 or not _is_aligned(line, header):
        raise GarbledAnswer("a row of `ctr images ls` has another shape", detail=f"the row {line[:200]!r}")
    name, media_type, digest, (number, unit, platforms, *labels) = row
    text = " ".join(labels)
    if text not in alike:
        alike[text] = frozenset(text.split(",")) - {"-"}
    return Image(
        name=name,
        media_type=intern(media_type),
        digest=digest,
        size=f"{shown_name(number)} {shown_name(unit)}",
        platforms=intern(shown_name(platforms)),
        labels=alike[text],
    )


def _is_aligned(line: str, header: str) -> bool:
    """Whether a row is as wide as the header. A header that does not end with a space was not padded by ctr.

    A byte that is no UTF-8 is one character to ctr, and four characters (``\\xff``) here.
    """
    wider = range(0, 3 * line.count("\\x") + 1, 3)
    return not header.endswith(" ") or len(line) - len(header) in wider


def split_row(line: str, column: int | None = None) -> tuple[str, str, str, list[str]] | None:
    """Splits a row into name, type, digest and the words after it; returns None if the row has another shape.

    Names and labels may have spaces and digests in them. Of several digests, the target is the one at ``column``.
    Only plain spaces separate words: a name may have other Unicode spaces, and they belong to the name.
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
        """Parses ``images ls``; raises GarbledAnswer, which says how to find the wrong row."""
        try:
            return cls(namespace, parse_images(text))
        except GarbledAnswer as error:
            raise GarbledAnswer(
                f"the images of namespace {shown_name(namespace)} cannot be read: {error.message}",
                detail=error.detail,
                hint="a name or label there may have a line break: fab -H HOST doctor",
            ) from error

    def get(self, name: str) -> Image | None:
        """Returns the record of exactly this name; None if there is none."""
        return next((image for image in self.images if image.name == name), None)

    def find(self, wanted: str) -> Image | None:
        """Returns the image that a user means: by exact name, by the name's full form, or by digest.

        ``repository@digest`` means that digest under any name; names of that repository come first.
        """
        return self.find_all([wanted])[wanted]

    def find_all(self, wanted: Iterable[str]) -> dict[str, Image | None]:
        """Returns what `find` returns for each text, in one pass over the images."""
        texts = list(wanted)
        named = {image.name: image for image in reversed(self.images)}
        asked = {t: Reference.of_name(t) for t in texts if t not in named and not is_digest(t)}
        references = {text: reference.or_latest for text, reference in asked.items() if reference}
        known = all(reference.digest or str(reference) in named for reference in references.values())
        full = {} if known else {str(image.reference or ""): image for image in reversed(self.images)}

        def find(text: str) -> Image | None:
            if text in named or text not in references:
                return named.get(text) or next(iter(self.by_digest(text)), None)
            reference = references[text]
            if not reference.digest:
                return named.get(str(reference)) or full.get(str(reference))
            alike = self.by_digest(reference.digest)
            return min(alike, key=lambda image: image.repository != reference.repository, default=None)

        return {text: find(text) for text in texts}

    def meant(self, wanted: Iterable[str]) -> dict[str, tuple[Image, ...]]:
        """Returns the images that each text means to a command that gives names: of a glob, those of `carried`."""
        texts = list(wanted)
        named = self.find_all(text for text in texts if not is_glob(text))
        return {t: self.carried(t) if is_glob(t) else tuple(filter(None, [named[t]])) for t in texts}

    def select(self, wanted: Iterable[str]) -> dict[str, tuple[Image, ...]]:
        """Returns the images that each text means to a command that lists them: every name of a glob or a digest."""
        texts = list(wanted)
        globs = {text: self.match(text) for text in texts if is_glob(text)}
        digests = {t: tuple(i for i in self.by_digest(t) if i.user_named) for t in texts if is_digest(t)}
        return self.meant(text for text in texts if text not in globs | digests) | globs | digests

    def by_digest(self, digest: str) -> list[Image]:
        """Returns the images that point at a digest: names with a tag first, then other references, CRI's own last."""
        alike = [image for image in self.images if image.digest == digest]
        return sorted(alike, key=lambda image: (not image.user_named, image.reference is None, "@" in image.name))

    def match(self, glob: str) -> tuple[Image, ...]:
        """Returns the images whose names the glob fits; a glob never fits CRI's own records."""
        return tuple(i for i in self.images if i.user_named and fnmatchcase(i.name, glob))

    def search(self, text: str) -> tuple[Image, ...]:
        """Returns the images whose names a glob fits, or have a text that is no glob anywhere in them."""
        return self.match(text if is_glob(text) else f"*{text}*")

    def carried(self, glob: str) -> tuple[Image, ...]:
        """Returns the images whose names the glob fits, under the names that another place gets.

        These are references. Of an image that has a fitting name with a tag, names with a digest are left out:
        kubelet's pull leaves such a name beside each tag. A glob with ``@`` means them all.
        """
        fitting = [image for image in self.match(glob) if image.reference]
        tagged = {image.digest for image in fitting if "@" not in image.name and "@" not in glob}
        return tuple(image for image in fitting if "@" not in image.name or image.digest not in tagged)

    def close_to(self, wanted: str, most: int = 3) -> list[str]:
        """Returns names that a user may have meant: first those with the same last component, then similar ones."""
        names = [image.name for image in self.images if image.user_named][:_MOST_COMPARED]
        last = _last_component(wanted)
        same = [name for name in names if last and _last_component(name) == last]
        alike = difflib.get_close_matches(wanted, names, n=most, cutoff=0.75)
        return list(dict.fromkeys([*same, *alike]))[:most]


def _last_component(name: str) -> str:
    return name.partition("@")[0].rpartition("/")[2].partition(":")[0]


def parse_digests(lines: Iterable[str]) -> frozenset[str]:
    """Parses ``content ls -q``; lines that are no digest are left out."""
    return frozenset(word for line in lines if is_digest(word := line.strip()))
