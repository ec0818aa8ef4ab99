"""Pairs of source and destination, from the command line and from map files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import UsageError
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.ssh.local_path import local_path, ls_line


@dataclass(frozen=True, slots=True)
class Pair:
    """A source and its destination; a destination with neither tag nor digest takes the source's tag."""

    src: str
    dst: Reference

    @classmethod
    def parse(cls, src: str, dst: str) -> Pair:
        """Parses the destination; raises BadReference if it is no reference. The source may be any name."""
        return cls(src, Reference.parse(dst).for_cri)

    @property
    def named(self) -> Reference:
        """The destination with the source's tag, if the source's text has one and the destination has none."""
        source = self.source
        return self.dst.or_tagged(source.tag) if source and source.tag else self.dst

    @property
    def same(self) -> bool:
        """Whether source and destination are the same name."""
        source = self.source
        return source is not None and str(source.or_latest) == str(self.dst.or_tagged(source.or_latest.tag or ""))

    @property
    def source(self) -> Reference | None:
        """The source as a reference by tag; None if it is another name, or a digest, which means any name."""
        source = None if is_digest(self.src) else Reference.of_name(self.src)
        return source if source and not source.digest else None


def read_map(file: Path, *, apart: bool = False) -> tuple[Pair, ...]:
    """Reads a map file: a source and a destination per line, ``#`` comments; raises UsageError with every wrong line.

    Args:
        apart: whether sources and destinations are in different namespaces, so that a name may be both.
    """
    try:
        lines = local_path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the map {file} cannot be read: {error}", hint=f"see what is there: {ls_line(file)}"
        ) from error
    pairs: dict[str, Pair] = {}
    wrong = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            if len(words) != 2:
                raise UsageError(f"{len(words)} columns, not 2")
            pair = Pair.parse(*words)
            if pairs.setdefault(str(pair.named), pair).src != pair.src:
                raise UsageError(f"{pair.named} is the destination of another line, too")
        except UsageError as error:
            wrong.append(f"{file}:{number}: {error.message}")
    chained = [] if apart else _chained(pairs.values())
    wrong += [f"{file}: {name} is a source and a destination" for name in chained]
    if wrong:
        count = f"{len(wrong)} wrong line{'s' * (len(wrong) != 1)}"
        raise UsageError(
            f"the map {file} has {count}",
            detail="\n".join(wrong),
            hint="correct these lines, then run the command again",
        )
    if not pairs:
        raise UsageError(
            f"the map {file} names no image",
            hint="write one source and one destination on each line, then run the command again",
        )
    return tuple(pairs.values())


def _chained(pairs: Iterable[Pair]) -> list[str]:
    """Names that are a destination in one line and a source in another: the order would decide what they mean."""
    destinations = {str(pair.named) for pair in pairs}
    return sorted(destinations & {str(pair.source) for pair in pairs if pair.source})


def moved_to(registry: str, images: Iterable[Image]) -> tuple[Pair, ...]:
    """Pairs each image with its name on another registry host, but none that is there."""
    return tuple(
        Pair(image.name, reference.with_domain(registry).for_cri)
        for image in images
        if (reference := image.reference) and reference.domain != registry
    )
