"""An image that gets a second name on a host: its plan and its result. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import FerryError, ReferenceExists, UsageError
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.report.outcome import Status, error_lines
from ctr_ferry.text import shown_name

ALREADY = "it is there already, with this digest"


@dataclass(slots=True)
class Retag:
    """The result for one image; its fields are keys of the JSON output.

    Attributes:
        digest: what the new name points at. ``src_digest`` is another one where only one platform's manifest got the
            name.
        previous_digest: what an existing name pointed at before; empty for a new name.
        method: how the name was, or in a dry run would be, given; empty where nothing changes.
        note: one line for a person; may be empty.
        error: why the name was not given.
    """

    src: str
    dst: str
    digest: str = ""
    src_digest: str = ""
    previous_digest: str = ""
    method: str = ""
    status: Status = Status.UNCHANGED
    note: str = ""
    error: dict[str, str] | None = None

    def lines(self, where: str, ctr: str, *, several: bool) -> Iterator[str]:
        """What a person reads: one line, and below it, indented, the digest and the notes.

        Args:
            where: the namespace of the new name, in words; may be empty.
            ctr: its version.
            several: whether the image is one of several, so that its status is shown.
        """
        how = f"  ({self.method}, ctr {ctr})" if self.method else ""
        status = f"  {self.status}" if several else ""
        yield f"{shown_name(self.src)} -> {self.dst}{where}{how}{status}"
        if self.digest:
            yield f"  {self.digest}"
        if self.previous_digest:
            yield f"  replaces {self.previous_digest}"
        if self.note:
            yield f"  {self.note}"
        if self.error:
            yield from (f"  {line}" for line in error_lines(self.error))


@dataclass(slots=True)
class Plan:
    """One image on one host: what is asked and what is planned.

    Attributes:
        report: the result so far.
        dst: the new name, with its tag.
        existing: the image that has the new name already.
        target: what the name is to point at; None where `images tag` gives the name.
        duplicate_of: an earlier plan that gives the same name to the same image.
    """

    report: Retag
    source: Image
    dst: Reference
    existing: Image | None
    target: Descriptor | None = None
    error: FerryError | None = None
    duplicate_of: Plan | None = None

    @property
    def open(self) -> bool:
        """Whether the name is still to be given: nothing failed, and nothing made it unnecessary."""
        return self.error is None and self.report.status is Status.CHANGED

    @property
    def is_platform_manifest(self) -> bool:
        """Whether one platform's manifest of an index gets the name."""
        return self.report.digest != self.source.digest

    @property
    def moves(self) -> bool:
        """Whether the name exists and points at another digest."""
        return self.existing is not None and self.existing.digest != self.report.digest

    def unchanged(self, note: str) -> None:
        """Marks the plan as done without a change, and says why."""
        self.report.status, self.report.method, self.report.note = Status.UNCHANGED, "", note
        self.report.previous_digest = ""

    def fail(self, error: FerryError) -> None:
        """Marks the plan as failed."""
        self.error = error
        self.report.status, self.report.error = Status.FAILED, error.to_json()


def refuse_collisions(plans: Sequence[Plan], *, within_namespace: bool) -> None:
    """Fails the plans that would give one name to two images, or a name that is the source of another plan.

    ``a/x:1`` and ``b/x:1`` would both become ``c/x:1`` on registry ``c``. If both have the same digest, the second plan
    becomes a duplicate of the first.

    Args:
        plans: all plans of one host, in order.
        within_namespace: whether sources and new names are in the same namespace.
    """
    sources = {plan.source.name for plan in plans} if within_namespace else set()
    by_name: dict[str, list[Plan]] = {}
    for plan in plans:
        by_name.setdefault(plan.report.dst, []).append(plan)
    for plan in plans:
        same_name = by_name[plan.report.dst]
        if others := [rival.source.name for rival in same_name if rival.source.digest != plan.source.digest]:
            both = f"{shown_name(plan.source.name)} and {shown_name(others[0])}"
            plan.fail(_collision(f"{both} would both become {plan.dst}"))
        elif plan is not same_name[0] and plan.open:
            plan.duplicate_of = same_name[0]
            plan.unchanged(f"the same image gets that name from {shown_name(same_name[0].source.name)}")
        elif plan.open and plan.report.dst in sources:
            plan.fail(_collision(f"{plan.dst} is the source of another line"))


def _collision(message: str) -> ReferenceExists:
    return ReferenceExists(message, hint="give each a name of its own with --map, or retag them in two runs")


def tag_of(name: str) -> str:
    """Returns the tag of an image name, or ``latest`` if it has none."""
    try:
        return (None if is_digest(name) else Reference.parse(name).tag) or "latest"
    except UsageError:
        return "latest"
