"""An image that gets a second name on one host: what is asked, what is planned, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import FerryError, ReferenceExists, UsageError
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.report.outcome import Status
from ctr_ferry.text import shown_name

ALREADY = "it is there already, with this digest"


@dataclass(slots=True)
class Retag:
    """What became of one image.

    Attributes:
        digest: what the new name points at; ``src_digest`` differs where only the platform's manifest can be named.
        previous_digest: what the name pointed at before it was, or would be, moved; empty where it is new.
        method: how it was, or would be, named; empty where nothing is to be done.
        note: what a person should know of it.
        error: why it could not be done.
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


@dataclass(slots=True)
class Plan:
    """One image on one host: from what was asked to what is to be done."""

    report: Retag
    source: Image
    dst: Reference
    existing: Image | None
    target: Descriptor | None = None
    error: FerryError | None = None
    duplicate_of: Plan | None = None

    @property
    def open(self) -> bool:
        """Whether there is something to do, and nothing against it so far."""
        return self.error is None and self.report.status is Status.CHANGED

    @property
    def is_platform_manifest(self) -> bool:
        """Whether one platform's manifest of an index gets the name."""
        return self.report.digest != self.source.digest

    @property
    def moves(self) -> bool:
        """Whether the name points elsewhere so far."""
        return self.existing is not None and self.existing.digest != self.report.digest

    def unchanged(self, note: str) -> None:
        """Nothing is to be done."""
        self.report.status, self.report.method, self.report.note = Status.UNCHANGED, "", note
        self.report.previous_digest = ""

    def fail(self, error: FerryError) -> None:
        """It cannot be, or was not, done."""
        self.error = error
        self.report.status, self.report.error = Status.FAILED, error.to_json()


def refuse_collisions(plans: Sequence[Plan], *, within_namespace: bool) -> None:
    """Two images cannot both get one name (``a/x:1`` and ``b/x:1`` to one registry), nor can names swap.

    Args:
        plans: of one host; those that collide fail.
        within_namespace: whether sources and new names are names of one namespace.
    """
    sources = {plan.source.name for plan in plans} if within_namespace else set()
    for number, plan in enumerate(plans):
        rivals = [p for p in plans if p.report.dst == plan.report.dst and p is not plan]
        if others := [rival.source.name for rival in rivals if rival.source.digest != plan.source.digest]:
            both = f"{shown_name(plan.source.name)} and {shown_name(others[0])}"
            plan.fail(_collision(f"{both} would both become {plan.dst}"))
        elif any(rival in plans[:number] for rival in rivals) and plan.open:
            plan.duplicate_of = rivals[0]
            plan.unchanged(f"the same image gets that name from {shown_name(rivals[0].source.name)}")
        elif plan.open and plan.report.dst in sources:
            plan.fail(_collision(f"{plan.dst} is the source of another line"))


def _collision(message: str) -> ReferenceExists:
    return ReferenceExists(message, hint="name them apart with --map, or in two runs")


def tag_of(name: str) -> str:
    """The tag of a source's name; ``latest`` where it has none."""
    try:
        return (None if is_digest(name) else Reference.parse(name).tag) or "latest"
    except UsageError:
        return "latest"
