"""The ways to give a name to content that a host already has: a class for each. Pure.

What each of them does on each version of ctr was measured on 1.0.3 to 2.3.4.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar, NamedTuple

from ctr_ferry import shell
from ctr_ferry.ctr import programs, roll_back, templates
from ctr_ferry.ctr.commands import GC_REF
from ctr_ferry.ctr.gc_root import Root, finish_ingests
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.templates import fill
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference

TAKEN = 75  # exit status of a step if somebody else gave the name meanwhile


class Method(StrEnum):
    """How to give a name."""

    AUTO = "auto"
    TAG = "tag"
    INDEX = "index"
    ARCHIVE = "archive"
    LINK = "link"  # chosen by ctr-ferry for another namespace
    STREAM = "stream"  # chosen by ctr-ferry where linking failed
    BLOBS = "blobs"  # for content that was transferred blob by blob


class Step(NamedTuple):
    """Sh text, and sh text that cleans up after it, whatever happened."""

    text: str
    cleanup: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming(ABC):
    """One name to give.

    Attributes:
        staged: whether a name that is moved first needs a temporary name, so that it changes only after all went well.
        name: the name, with a tag.
        replaces: whether the name exists and is to be moved.
        complete: whether ``images check`` must say that the image is whole, and unpacked if ``unpack``.
        unpack: whether containerd is to unpack the image; from another namespace it does so in any case.
        pin: whether to pin the image as well.
        labels: what others labelled the name with that is moved; the name keeps these labels.
        blobs: digests that the namespace must have afterwards.
    """

    staged: ClassVar[bool] = True
    name: Reference
    replaces: bool = False
    complete: bool = False
    unpack: bool = False
    pin: bool = False
    labels: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()

    @property
    @abstractmethod
    def digest(self) -> str:
        """What the name will point at."""

    def before(self, place: Place, number: int) -> Step | None:  # noqa: ARG002
        """A step that goes before all names are given; None for none."""
        return None

    @abstractmethod
    def give(self, place: Place, number: int) -> Step:
        """The step that gives the name. Import moves a name that exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByTag(Naming):
    """By ``images tag`` (from 1.3) of ``source``, a name in ``from_namespace``. It fails if the new name exists."""

    source: str
    target_digest: str

    @property
    def digest(self) -> str:
        return self.target_digest

    def give(self, place: Place, number: int) -> Step:
        return Step(by_tag(place, place.from_namespace, self.source, self.name, number))


@dataclass(frozen=True, slots=True, kw_only=True)
class ByIndex(Naming):
    """By import of an index-only archive: in constant time, with every version of ctr.

    Attributes:
        target: what the name will point at, with the exact size of that blob in bytes.
        whole: whether every blob of every platform is there.
        foreign: whether the content is for another platform than the host's.
        rest: for a partial index, by parent, the blobs that are there and that import itself would not keep.
        only: the one platform of the index that is there, if it is not the host's platform.
    """

    staged = False  # one update moves the name
    target: Descriptor
    whole: bool = False
    foreign: bool = False
    rest: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    only: Platform | None = None

    @property
    def digest(self) -> str:
        return self.target.digest

    def give(self, place: Place, number: int) -> Step:
        # The labels come first, since import drops what it does not keep.
        text = " &&\n".join([*self.keep_rest(place, number), self.by_index(place, number)])
        return Step(text, self.let_rest_go(place, number))

    def by_index(self, place: Place, number: int, *, unpack: bool = True) -> str:
        """The import alone, as sh text; ``unpack`` is False if the image is unpacked already."""
        step = import_index(place, [self], self.flags(place, unpack=unpack))
        return step if self.replaces else fill(templates.CREATE, step=step, number=number)

    def flags(self, place: Place, *, unpack: bool = True) -> tuple[str, ...]:
        """The flags of ``images import``."""
        able, flags = place.ctr.capabilities, []
        if able.import_all_platforms and ((self.whole and self.target.is_index) or self.foreign):
            flags.append("--all-platforms")
        if able.import_platform and self.only:
            flags += ["--platform", str(self.only)]
        if able.no_unpack and (not unpack or self.foreign or not (place.crosses or self.unpack)):
            flags.append("--no-unpack")
        return tuple(flags)

    def keep_rest(self, place: Place, number: int) -> list[str]:
        """Labels that keep a partial index's other platforms, as sh text."""
        return [f"{each} >/dev/null" for each in self._label_rest(place, number, lambda key, digest: f"{key}={digest}")]

    def let_rest_go(self, place: Place, number: int) -> str:
        """Takes these labels off if the name was not verified; as sh text, empty without labels."""
        off = "; ".join(self._label_rest(place, number, lambda key, _: f"{key}="))
        return f'[ -n "$kept_{number}" ] || {{ {off}; }} >/dev/null 2>&1' if off else ""

    def _label_rest(self, place: Place, number: int, label: Callable[[str, str], str]) -> list[str]:
        """Labels of this naming alone: another run that names the same index has its own."""
        if not place.ctr.capabilities.import_all_platforms:
            return []
        key = f"{GC_REF}.rest.{hashlib.sha256(f'{place.owner} {number}'.encode()).hexdigest()[:8]}"
        return [
            place.ctr.label(place.namespace, parent, *(label(f"{key}.{n}", each) for n, each in enumerate(digests)))
            for parent, digests in self.rest.items()
            if digests
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByBlobs(ByIndex):
    """By an index-only archive, for content that came blob by blob and that nothing keeps yet."""

    staged = True  # unpacking may fail

    def give(self, place: Place, number: int) -> Step:
        # The labels come last: until then, a protection keeps the content.
        text = " &&\n".join([self.by_index(place, number), *self.keep_rest(place, number)])
        return Step(text, self.let_rest_go(place, number))


@dataclass(frozen=True, slots=True, kw_only=True)
class ByArchive(ByIndex):
    """In the classic way: export piped into import on the host itself, then the exact name by an index.

    Export up to 1.2.13 writes the wanted name. Later versions write the source's own name, so import gives that name
    here as well, and an index-only archive must give the wanted name.

    Attributes:
        source: the image's own name in ``from_namespace``.
        source_digest: what the source's own name points at.
        source_stays: whether the namespace has the source's own name before, so that this name stays.
        may_stream: False if the source's name is another image here, which a stream would replace.
        brings: a new name that the stream gives besides, since the source has it; None for none.
    """

    staged = True  # a stream takes its time, and may fail in the middle
    source: str
    source_digest: str
    source_stays: bool = True
    may_stream: bool = True
    brings: Reference | None = None

    def give(self, place: Place, number: int) -> Step:
        text, cleanup = self.stream(place, number)
        keep = [] if place.crosses else self.keep_rest(place, number)
        return Step(" &&\n".join([*keep, text]), _both(cleanup, self.let_rest_go(place, number) if keep else ""))

    def stream(self, place: Place, number: int) -> Step:
        """The stream, and the clean-up that removes the source's own name if the namespace did not have it before."""
        if not self.may_stream:
            return Step(f"echo {shell.join([f'{self.source} is another image in {place.namespace}'])} >&2; false")
        ctr, able = place.ctr, place.ctr.capabilities
        ref_name = (self.name.tag if able.oci_name else str(self.name)) if able.oci_ref_name else None
        every = bool(able.import_all_platforms and self.whole and self.target.is_index)
        repository = self.name.repository if able.oci_name else None
        exact = self.by_index(place, number)
        if able.oci_ref_name:
            # Up to 1.2.13, import has given the wanted name already.
            moved = replace(self, replaces=True).by_index(place, number)
            exact = f'[ -n "$({ctr.existing(place.namespace, self.name)})" ] || {moved}'
        pipe = fill(
            templates.STREAM,
            number=number,
            exported=ctr.export_stdout(place.from_namespace, self.source, all_platforms=every, ref_name=ref_name),
            imported=ctr.import_stdin(place.namespace, *(["--all-platforms"] if every else []), oci_name=repository),
            exact=exact,
        )
        if self.brings:
            pipe = unless_taken(place, self.brings, number, pipe)
        if self.source_stays:
            return Step(pipe)
        brought = f'name=="{self.source}",target.digest=="{self.source_digest}"'
        left = f'[ -z "$({ctr.line(place.namespace, "images", "ls", "-q", brought)} 2>/dev/null)" ]'
        remove = f"{ctr.remove(place.namespace, self.source)} >/dev/null 2>&1"
        return Step(pipe, f'[ -z "$streamed_{number}" ] || {left} || {remove}')


@dataclass(frozen=True, slots=True, kw_only=True)
class ByLink(ByArchive):
    """From another namespace: ``links``, the target first, are linked, not moved. Else a stream.

    From 1.1 on an empty file links a blob; 1.0 reads the blob's own file.
    """

    links: tuple[Descriptor, ...] = ()

    def before(self, place: Place, number: int) -> Step:
        """Links the blobs, and cleans up the GC root that protected them meanwhile."""
        root = Root(place, self.links, number)
        empty = empty_file(place.owner)
        opened = [empty.text] if place.ctr.capabilities.link else []
        steps = " &&\n".join([*opened, root.prepare(), *(ingest_link(place, blob) for blob in self.links)])
        return Step(
            fill(templates.LINK, number=number, steps=steps),
            fill(
                templates.UNLINK,
                number=number,
                remove=root.remove(),
                open=empty.text,
                finish=finish_ingests(place),
                close=empty.cleanup,
            ),
        )

    def give(self, place: Place, number: int) -> Step:
        stream, cleanup = self.stream(place, number)
        linked = " &&\n".join([self.by_index(place, number), *self.keep_rest(place, number)])
        text = f"if [ $linked = 0 ]; then {linked}; else\n{stream}; fi"
        return Step(text, _both(cleanup, self.let_rest_go(place, number)))


def _both(*cleanups: str) -> str:
    return "\n".join(filter(None, cleanups))


def by_tag(place: Place, namespace: str, source: str, name: Reference, number: int) -> str:
    """Gives a new name by ``images tag``, as sh text."""
    return unless_taken(
        place, name, number, fill(templates.BY_TAG, step=place.ctr.tag(namespace, source, str(name)), number=number)
    )


def import_index(place: Place, namings: Sequence[ByIndex], flags: Sequence[str]) -> str:
    """Imports an index-only archive with names; up to 1.1 all of them are of one repository. As sh text."""
    from ctr_ferry.oci import layout

    oci_name = place.ctr.capabilities.oci_name
    named = [
        (str(each.name), (each.name.tag or "latest") if oci_name else str(each.name), each.target) for each in namings
    ]
    take = place.ctr.import_stdin(place.namespace, *flags, oci_name=namings[0].name.repository if oci_name else None)
    return f"{shell.printf(layout.index_only(named))} | {take}"


def unless_taken(place: Place, name: Reference, number: int, step: str) -> str:
    """Does a step that gives a new name, unless somebody else gave it meanwhile. As sh text."""
    there = place.ctr.existing(place.namespace, name)
    return fill(templates.UNLESS_TAKEN, listing=there, taken=TAKEN, number=number, step=step)


def empty_file(owner: str) -> Step:
    """Opens an empty regular file as descriptor 5 and removes it at once; its name begins with ``owner``.

    The clean-up, for a step that is cut off in the middle, needs globbing (no ``set -f``).
    """
    name = f"{owner}.empty"
    new, all_of_them = programs.temporary_file(name), f"{programs.TEMPORARY}/{shell.join([name])}.*"
    return Step(f'empty=$({new}) && exec 5<"$empty" && rm -f "$empty"', f"rm -f {all_of_them}")


def ingest_link(place: Place, blob: Descriptor) -> str:
    """Makes one blob of another namespace visible here; descriptor 5 must be an empty regular file."""
    algorithm, _, value = blob.digest.partition(":")
    file = f"{place.content_root}/blobs/{algorithm}/{value}"
    source = "<&5" if place.ctr.capabilities.link else f"< {shell.join([file])}"
    return f"{place.ctr.ingest(place.namespace, blob.digest, blob.size, f'{place.owner}-{value[:12]}')} {source}"


def keep_children(place: Place, index: str) -> str:
    """Labels an index so that all manifests that it names are kept; import keeps those of the host's platform."""
    if not place.ctr.capabilities.import_all_platforms:
        return ":"
    return fill(
        templates.KEEP_CHILDREN,
        get=place.ctr.content(place.namespace, index),
        digest=shell.join([roll_back.DIGEST]),
        key=GC_REF,
        label=place.ctr.label(place.namespace, index),
    )
