"""What ``ctr images ls`` says: parsed rows, and looking names up in them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tasks.ctr.commands import CRI_MANAGED
from tasks.errors import BadReference, GarbledAnswer
from tasks.oci.descriptor import Platform
from tasks.oci.reference import Reference, is_digest


@dataclass(frozen=True, slots=True)
class Image:
    """One record of a namespace: a name and what it points at.

    Attributes:
        media_type: of the target; ``digest`` is the target's digest.
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
    def managed(self) -> bool:
        """Whether CRI knows it, so that kubelet sees the name."""
        return CRI_MANAGED in self.labels

    def is_for(self, platform: Platform) -> bool:
        """Whether ctr lists the platform; where it lists none ("-"), that is not known, and nothing is ruled out."""
        return not self.listed or platform in self.listed

    @property
    def listed(self) -> tuple[Platform, ...]:
        """The platforms that ctr lists."""
        return tuple(Platform.parse(each) for each in self.platforms.split(",") if each.count("/") in (1, 2))

    @property
    def ordinary(self) -> bool:
        """False for the ``sha256:<config>`` record that CRI keeps beside the names."""
        return not is_digest(self.name)


def parse_images(text: str) -> tuple[Image, ...]:
    """Parses ``images ls``: REF TYPE DIGEST SIZE(two words) PLATFORMS LABELS (1.0 to 2.1).

    Raises:
        GarbledAnswer: where the header or a row has another shape. Then no row can be trusted: with a line break in
            a name, a part of that name looks like another one, and what seems absent may be there.
    """
    header, *lines = text.removesuffix("\n").split("\n")  # an empty namespace has its header, too
    if header.split() != ["REF", "TYPE", "DIGEST", "SIZE", "PLATFORMS", "LABELS"]:
        raise GarbledAnswer("`ctr images ls` did not print its table", said=f"it printed {header[:200]!r}")
    return tuple(_parse_row(line, header.index("DIGEST")) for line in lines)


def _parse_row(line: str, column: int) -> Image:
    """Names and labels may have spaces and digests in them; then the target is the digest in its column."""
    cells = list(re.finditer(r"\S+", line))
    words = [cell[0] for cell in cells]
    digests = [i for i, word in enumerate(words) if is_digest(word) and i >= 2]
    if len(digests) > 1:
        digests = [i for i in digests if cells[i].start() == column]
    if len(digests) != 1 or len(words) < digests[0] + 5:
        raise GarbledAnswer("a row of `ctr images ls` has another shape", said=f"the row {line[:200]!r}")
    at = digests[0]
    number, unit, platforms, *labels = words[at + 1 :]
    return Image(
        line[: cells[at - 2].end()],
        words[at - 1],
        words[at],
        f"{number} {unit}",
        platforms,
        frozenset(" ".join(labels).split(",")) - {"-"},
    )


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
                said=error.said,
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
        return self.get(full) or next((i for i in self.images if i.ordinary and _full_name(i) == full), None)

    def _by_digest(self, digest: str) -> Iterator[Image]:
        alike = [image for image in self.images if image.digest == digest]
        yield from sorted(alike, key=lambda image: not image.ordinary)

    def match(self, glob: str) -> tuple[Image, ...]:
        """The ordinary images whose name the glob fits; a glob never names CRI's own records."""
        return tuple(i for i in self.images if i.ordinary and fnmatchcase(i.name, glob))

    def tagged(self, glob: str) -> tuple[Image, ...]:
        """Those of `match` that have a tag: kubelet's pull leaves ``repository@sha256:…``, too."""
        return tuple(image for image in self.match(glob) if "@" in glob or "@" not in image.name)

    def close_to(self, wanted: str, most: int = 3) -> list[str]:
        """Names that a user may have meant: the same repository name first, then alike ones."""
        names = [image.name for image in self.images if image.ordinary]
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
