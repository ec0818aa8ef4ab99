"""One image that gets a second name on one host: its plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctr_ferry.ctr.listing import Image
from ctr_ferry.ctr.methods import Method
from ctr_ferry.errors import ReferenceExists
from ctr_ferry.images.item import ImageResult, Item
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.oci.reference import Reference
from ctr_ferry.report.answers import grouped
from ctr_ferry.shell import Answer
from ctr_ferry.text import shown_name, tail

ALREADY = "it is there already, with this digest"


@dataclass(slots=True, kw_only=True)
class Plan(Item[ImageResult]):
    """One image on one host: what is asked and what is planned; ``dst`` has its tag.

    Attributes:
        target: what the name is to point at; None where `images tag` gives the name, which needs no content.
        duplicate_of: an earlier plan that gives the same name to the same image.
    """

    source: Image
    dst: Reference
    target: Descriptor | None = None
    duplicate_of: Plan | None = None

    @property
    def is_platform_manifest(self) -> bool:
        """Whether one platform's manifest of an index gets the name."""
        return self.result.digest != self.source.digest

    def note_answers(self, number: int, answers: Mapping[str, Answer]) -> None:
        """Notes that content was streamed, where linking failed."""
        link = answers.get(f"link-{number}")
        if link and not link.ok:
            self.result.method = Method.STREAM
            self.result.note = "linking failed: " + tail(link.stderr, lines=1)


def refuse_collisions(plans: Sequence[Plan], *, within_namespace: bool) -> None:
    """Fails the plans that would give one name to two images, or a name that is the source of another plan.

    ``a/x:1`` and ``b/x:1`` would both become ``c/x:1`` on registry ``c``. If both have the same digest, the second plan
    becomes a duplicate of the first. A name in another namespace is no source.
    """
    sources = {plan.source.name for plan in plans} if within_namespace else set()
    by_name = grouped((plan.result.dst, plan) for plan in plans)
    for plan in plans:
        same_name = by_name[plan.result.dst]
        if others := [rival.source.name for rival in same_name if rival.source.digest != plan.source.digest]:
            both = f"{shown_name(plan.source.name)} and {shown_name(others[0])}"
            plan.fail(_collision(f"{both} would both become {plan.dst}"))
        elif plan is not same_name[0] and plan.pending:
            plan.duplicate_of = same_name[0]
            plan.unchanged(f"the same image gets that name from {shown_name(same_name[0].source.name)}")
        elif plan.pending and plan.result.dst in sources:
            plan.fail(_collision(f"{plan.dst} is the source of another line"))


def _collision(message: str) -> ReferenceExists:
    return ReferenceExists(message, hint="give each a name of its own with --map, or retag them in two runs")
