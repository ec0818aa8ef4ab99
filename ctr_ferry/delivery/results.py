"""What a delivery came to on one host, and one table of all hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ctr_ferry.delivery.routes import told
from ctr_ferry.errors import ErrorData
from ctr_ferry.images.item import ImageResult, NamedImages
from ctr_ferry.report.answers import grouped, results
from ctr_ferry.report.outcome import Answer, Status, Table
from ctr_ferry.text import names, shown_name, size


@dataclass(slots=True)
class DeliveredImage(ImageResult):
    """What became of one image on one host.

    Attributes:
        route, why: how it came, or would come, and why by that route.
        origin: who gave it: hosts, an archive, or a registry.
        bytes: what was, or would be, moved.
        seconds: how long that took, together with what came by the same route at the same time.
    """

    route: str = ""
    why: str = ""
    origin: str = ""
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """What was done besides on a host that has the image: it was ``named`` there, or ``pushed`` from there.

    Attributes:
        action: ``named`` or ``pushed``.
        bytes: of the image; None where they are not known.
        notes: as in `PushedImage`, of an image that was pushed.
    """

    host: str
    action: str
    reference: str
    digest: str
    bytes: int | None = None
    status: Status = Status.CHANGED
    error: ErrorData | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeliverResult(NamedImages):
    """One host's result.

    Attributes:
        ctr, containerd: the versions on this host.
        bytes, seconds: what was, or would be, moved to this host, and how long that took.
        steps: what was done, or would be done, besides on sources; the same for all hosts.
        notes: what the user should know.
    """

    namespace: str
    ctr: str
    containerd: str
    images: tuple[DeliveredImage, ...]
    bytes: int = 0
    seconds: float = 0.0
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Returns a line for each image, with its digest and why it came by that route below."""
        where, several = f" in {self.namespace}", len(self.images) > 1
        lines = [
            line
            for image in self.images
            for line in image.lines(
                where=where,
                ctr=self.ctr,
                several=several,
                moved=f"{told(image.route)}: {image.why}, {size(image.bytes)}",
            )
        ]
        return [*lines, *self.notes]


Found = Sequence[tuple[str, DeliverResult]]
_MOST_STEPS = 3  # of one kind on one host that are told one by one
_MOST_HINTS = 10  # of single images; the hint of a host is for all of its images


def tabulate(answers: Mapping[str, Answer]) -> Table:
    """One row for each image and route, with all hosts that it came to by that route."""
    found = list(results(answers, DeliverResult))
    rows = grouped((_row(image), (host, image.seconds)) for host, result in found for image in result.images)
    return Table(
        ("HOST", "STATUS", "ROUTE", "SIZE", "TIME", "DIGEST", "IMAGE", "WHY"),
        tuple(
            (names((host for host, _ in on), every=True), *row[:3], f"{max(s for _, s in on):.1f} s", *row[3:])
            for row, on in rows.items()
        ),
        (*_steps(found), *_sums(found), *_notes(found), *_hints(found)),
    )


def _row(image: DeliveredImage) -> tuple[str, ...]:
    name = image.reference
    if image.source != name:
        name = f"{shown_name(image.source)} -> {name}"
    why = f"{image.error['kind']}: {image.error['message']}" if image.error else image.why
    return str(image.status), told(image.route) or "-", size(image.bytes), image.digest or "-", name, why


def _steps(found: Found) -> Iterator[str]:
    """What was done besides; many steps of one kind on one host share a line. All hosts tell the same steps."""
    steps = {(step.host, step.action, step.reference): step for _, result in found for step in result.steps}
    for on in grouped(((s.host, s.action, s.status, _message(s)), s) for s in steps.values()).values():
        if len(on) > _MOST_STEPS:
            yield _step_line(on, f"{len(on)} images")
        else:
            yield from (_step_line([step], f"{step.reference} {step.digest}") for step in on)


def _step_line(steps: Sequence[Step], images: str) -> str:
    first, moved = steps[0], sum(step.bytes or 0 for step in steps)
    how_much = f", {size(moved)}" if moved else ""
    return f"{first.host}: {first.action} {images} ({first.status}{how_much}){_message(first)}"


def _message(step: Step) -> str:
    return f": {step.error['message']}" if step.error else "".join(f"; {note}" for note in step.notes)


def _sums(found: Found) -> list[str]:
    """How many images came by each route, and with how many bytes; nothing for one image, or if none comes."""
    images = [image for _, result in found for image in result.images]
    by_route = grouped((image.route, image) for image in images if image.route)
    if len(images) < 2 or not by_route:
        return []
    each = (f"{len(on)} {told(route)} ({size(sum(i.bytes for i in on))})" for route, on in sorted(by_route.items()))
    return [f"in all: {', '.join(each)}"]


def _hints(found: Found) -> list[str]:
    """What mends each image of hosts with several; the error of a host with one image is shown with the host."""
    failed = [(host, image.error) for host, result in found if len(result.images) > 1 for image in result.images]
    hints = [f"{host}: {error['message']}\n  try: {error['hint']}" for host, error in failed if error]
    more = len(hints) - _MOST_HINTS
    return [*hints[:_MOST_HINTS], *([f"… and {more} more: --json has them all"] if more > 0 else [])]


def _notes(found: Found) -> list[str]:
    hosts = grouped((note, host) for host, result in found for note in result.notes)
    return [f"{names(on, every=True)}: {note}" for note, on in hosts.items()]
