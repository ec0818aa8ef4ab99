"""Sources and destinations as the command line and map files name them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import BadReference, UsageError
from ctr_ferry.oci.reference import Reference, is_digest


@dataclass(frozen=True, slots=True)
class Pair:
    """One image to be named again; ``dst`` without a tag takes the source's."""

    src: str
    dst: Reference

    @classmethod
    def parse(cls, src: str, dst: str) -> Pair:
        """Checks both.

        Raises:
            BadReference, UsageError.
        """
        if not is_digest(src):
            Reference.parse(src)
        reference = Reference.parse(dst)
        if reference.digest:
            raise UsageError(f"the destination {dst!r} has a digest", hint="a name to give has a tag alone")
        return cls(src, reference)

    @property
    def named(self) -> Reference:
        """The destination with the tag that it takes from the source, as far as the source's own text tells."""
        tag = None if is_digest(self.src) else Reference.parse(self.src).tag
        return self.dst if self.dst.tag or not tag else self.dst.with_tag(tag)

    @property
    def same(self) -> bool:
        """Whether both are one name."""
        if is_digest(self.src):
            return False
        source = Reference.parse(self.src)
        tag = source.tag or "latest"
        return not source.digest and source.repository == self.dst.repository and (self.dst.tag or tag) == tag


def refuse_same(pairs: Sequence[Pair]) -> None:
    """Raises UsageError where a source is its own destination."""
    for pair in pairs:
        if pair.same:
            raise UsageError(f"source and destination are the same name, {pair.src}", hint="give another one")


def read_map(file: Path, *, apart: bool = False) -> tuple[Pair, ...]:
    """Reads a map file: source and destination a line, blank lines and ``#`` comments aside.

    Args:
        apart: whether destinations lie elsewhere than sources, so that no name can be both.

    Raises:
        UsageError: with every line that is wrong, so that one more look at the file does.
    """
    try:
        lines = file.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the map {file} cannot be read: {error}") from error
    pairs: dict[str, Pair] = {}
    wrong = []
    for number, line in enumerate(lines, 1):
        try:
            if pair := _parse_line(line):
                before = pairs.setdefault(str(pair.named), pair)
                if before.src != pair.src:
                    raise UsageError(f"{pair.named} is the destination of another line, too")
        except UsageError as error:
            wrong.append(f"{file}:{number}: {error.message}")
    chained = [] if apart else _chained(pairs.values())
    wrong += [f"{file}: {name} is a source and a destination" for name in chained]
    if wrong:
        raise UsageError(f"the map {file} has {len(wrong)} wrong lines", detail="\n".join(wrong))
    if not pairs:
        raise UsageError(f"the map {file} names no image")
    return tuple(pairs.values())


def _chained(pairs: Iterable[Pair]) -> list[str]:
    """Names that one line gives and another takes: which of them would be meant depends on the order."""
    destinations = {str(pair.named) for pair in pairs}
    sources = {str(Reference.parse(pair.src)) for pair in pairs if not is_digest(pair.src)}
    return sorted(destinations & sources)


def moved_to(registry: str, images: Iterable[Image]) -> tuple[Pair, ...]:
    """The same name on another registry host, for each image whose name is one and is not there already."""
    pairs = []
    for image in images:
        try:
            reference = Reference.parse(image.name)
        except BadReference:
            continue
        if not reference.digest and reference.domain != registry:
            pairs.append(Pair(image.name, reference.with_domain(registry)))
    return tuple(pairs)


def _parse_line(line: str) -> Pair | None:
    words = line.partition("#")[0].split()
    if not words:
        return None
    if len(words) != 2:
        raise UsageError(f"{len(words)} columns, not 2")
    return Pair.parse(*words)
