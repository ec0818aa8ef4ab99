"""One image that a command deals with on one host: its state, what was planned, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ctr_ferry import shell
from ctr_ferry.ctr.checks import Check
from ctr_ferry.ctr.listing import Image
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.errors import Drift, ErrorData, FerryError, MethodUnsupported, SomeFailed
from ctr_ferry.oci.reference import Reference
from ctr_ferry.oci.registry import Registries
from ctr_ferry.report.answers import way
from ctr_ferry.report.outcome import Result, Status, error_lines
from ctr_ferry.shell import Answer
from ctr_ferry.text import shown_name

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageState:
    """One name on one host. ``check`` has ctr's words, such as ``complete (4/4)``, about the host's platform alone."""

    reference: str
    namespace: str
    digest: str
    check: str
    complete: bool
    unpacked: bool
    platforms: tuple[str, ...]

    @classmethod
    def of(cls, image: Image, namespace: str, check: Check, **more: Any) -> Self:
        """The state of a listed image, with the further fields of a subclass."""
        return cls(
            reference=image.name,
            namespace=namespace,
            digest=image.digest,
            check=check.status,
            complete=check.complete,
            unpacked=check.unpacked,
            platforms=tuple(each for each in image.platforms.split(",") if each not in ("", "-")),
            **more,
        )


@dataclass(slots=True)
class ImageResult:
    """The result for one image; its fields are keys of the JSON output.

    Attributes:
        source, reference: the image's name before, or at the source; and the name that it gets.
        digest: what the new name points at.
        source_digest: the image's; another one than ``digest`` if the name means one platform's manifest of an index.
        previous_digest: what an existing name pointed at before; empty for a new name.
        method: how the name was, or in a dry run would be, given; empty where nothing changes.
        notes: what the user should know.
        error: why the name was not given.
    """

    source: str
    reference: str
    digest: str = ""
    source_digest: str = ""
    previous_digest: str = ""
    method: str = ""
    status: Status = Status.UNCHANGED
    notes: tuple[str, ...] = ()
    error: ErrorData | None = None

    def lines(self, *, origin: str = "", where: str = "", ctr: str, several: bool, moved: str = "") -> Iterator[str]:
        """What a person reads: one line, and below it, indented, the digest and the notes.

        Args:
            origin, where, moved: the source of the bytes, the namespace of the new name, and what moved, in words.
            ctr: its version.
            several: whether the image is one of several, so that its status is shown.
        """
        how = f"  ({way(self.method, ctr)})" if self.method else ""
        status = f"  {self.status}" if several else ""
        yield f"{origin}{shown_name(self.source)} -> {self.reference}{where}{how}{status}"
        replaced = f"replaces {self.previous_digest}" if self.previous_digest else ""
        errors = error_lines(self.error) if self.error else []
        yield from (f"  {line}" for line in (self.digest, replaced, moved, *self.notes, *errors) if line)


class NamedImages:
    """What results of images that got names have in common."""

    __slots__ = ()
    images: Sequence[ImageResult]

    @property
    def status(self) -> Status:
        """``changed`` if any image got a name."""
        return Status.of_all(image.status for image in self.images)

    def given(self) -> list[tuple[str, str, str]]:
        """Returns each name that an image has now, with its digest and the digest at the source."""
        there = (image for image in self.images if image.status not in (Status.FAILED, Status.SKIPPED))
        return [(image.reference, image.digest, image.source_digest) for image in there]


R = TypeVar("R", bound=ImageResult)


@dataclass(slots=True)
class Item(Generic[R]):
    """One image on one host, from its plan to its result; ``existing`` is the image that has the new name already."""

    result: R
    existing: Image | None
    error: FerryError | None = None

    @property
    def pending(self) -> bool:
        """Whether there is something to do, and nothing against it so far."""
        return self.error is None and self.result.status is Status.CHANGED

    @property
    def moves(self) -> bool:
        """Whether the name exists and points at another digest."""
        return self.existing is not None and self.existing.digest != self.result.digest

    def unchanged(self, note: str) -> None:
        """Marks the image as done without a change, and says why."""
        self.result.status, self.result.notes = Status.UNCHANGED, (note,)
        self.result.method = self.result.previous_digest = ""

    def fail(self, error: FerryError) -> None:
        """Marks the image as failed."""
        self.error = error
        self.result.status, self.result.error = Status.FAILED, error.to_json()

    def not_named(self, error: FerryError) -> None:
        """Takes the error of an attempt to give the name."""
        self.fail(error)

    def add_note(self, note: str) -> None:
        """Adds a note for the user, unless it is empty."""
        self.result.notes += (note,) if note else ()

    def note_answers(self, number: int, answers: Mapping[str, Answer]) -> None:
        """Takes notes of the answers to the script that gave the name, in a subclass."""


def refuse_wrong_digest(name: Reference, result: ImageResult, facts: Facts) -> None:
    """Refuses a name by digest for anything else.

    Raises:
        Drift: the image, and the part of it that is to get the name, have another digest.
        MethodUnsupported: the host's ctr cannot give the name, or only to a part of the image.
    """
    if name.digest and name.digest not in (result.digest, result.source_digest):
        raise Drift(
            f"{shown_name(result.source)} has another digest than its new name says",
            detail=f"image    {result.source_digest}\nnew name {name.digest}",
            hint=f"give it the name {name.repository}@{result.source_digest}, or one with a tag",
        )
    if name.digest and facts.ctr.capabilities.oci_name:
        raise MethodUnsupported(
            f"ctr {facts.client} cannot give the name {name}: up to 1.1 a name has a tag",
            hint="give the image a name with a tag",
        )
    if name.digest and name.digest != result.digest:
        raise MethodUnsupported(
            f"the name {name} means the whole image, and this host would get one platform's manifest",
            detail=result.digest,
            hint="bring all platforms of the image to that host first, or give it a name with a tag",
        )


def refuse_artifact(image: str, facts: Facts) -> None:
    """Raises MethodUnsupported if the host's ctr cannot name an artifact by import."""
    able = facts.ctr.capabilities
    if not (able.no_unpack or able.fails_on_foreign):  # up to 1.1 it names what it then fails to unpack
        raise MethodUnsupported(
            f"{shown_name(image)} is an artifact, not an image, and ctr {facts.client} must unpack what it names",
            hint=f"pull it there from a registry instead: fab -H HOST pull --ref {shell.join([image])}",
        )


def doubt(name: Reference, source: str, host: Host) -> str:
    """Asks whether a new name has a typo in its registry, by those that the inventory describes; empty for none."""
    meant = host.target.variables_of(Registries).instead_of(name.domain) if str(name) != source else ""
    return f"{name.domain} is not in ctr_registries: did you mean {meant}?" if meant else ""


def settle(result: Result, total: int, errors: Sequence[FerryError], what: str, hint: str) -> None:
    """Raises the only image's error, or one for all: so many of ``total`` had ``what`` happen, with the result."""
    if errors and total == 1:
        raise errors[0]
    if errors:
        raise SomeFailed(f"{len(errors)} of {total} {what}", hint=hint, result=result)
