"""What is done besides on hosts that have the images: they are named there, and pushed from there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ctr_ferry.ctr.listing import Image
from ctr_ferry.delivery.inspection import Inspection
from ctr_ferry.delivery.request import DeliverRequest
from ctr_ferry.delivery.results import Step
from ctr_ferry.delivery.routes import Decision
from ctr_ferry.errors import FerryError
from ctr_ferry.images.mappings import Pair
from ctr_ferry.images.retag import RetagJob, RetagRequest, RetagResult
from ctr_ferry.registry.push import PushRequest, PushSet
from ctr_ferry.report.answers import grouped
from ctr_ferry.report.outcome import Status
from ctr_ferry.transfer.copy_request import ImageCopy

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host

Decisions = Mapping[ImageCopy, Decision]


def names_to_give(found: Inspection, decisions: Decisions) -> list[tuple[ImageCopy, Step]]:
    """The names that hosts lack which give images and are no targets. A target gets its name by its own route."""
    return [
        (image_copy, Step(source.name, "named", str(image_copy.dst), image_copy.image.digest))
        for image_copy, decision in decisions.items()
        if decision.leads
        for source in found.givers(image_copy)
        if source.name not in found.targets and not _has(source.session.here.get(str(image_copy.dst)), image_copy)
    ]


def _has(existing: Image | None, image_copy: ImageCopy) -> bool:
    return existing is not None and existing.digest == image_copy.image.digest


def pushes_to_make(decisions: Decisions) -> list[tuple[ImageCopy, Step]]:
    """What is pushed, and from where. An image that no host gets is not pushed either."""
    return [
        (image_copy, Step(decision.pusher, "pushed", str(image_copy.dst), image_copy.image.digest))
        for image_copy, decision in decisions.items()
        if decision.pusher and decision.leads
    ]


def name(fleet: Fleet, request: DeliverRequest, planned: Iterable[tuple[ImageCopy, Step]]) -> list[Step]:
    """Gives the names, all hosts at once; returns what came of each."""
    by_host = grouped((step.host, (image_copy, step)) for image_copy, step in planned)

    def work(host: Host) -> RetagResult:
        pairs = tuple(Pair(image_copy.image.name, image_copy.dst) for image_copy, _ in by_host[host.name])
        return RetagJob(host, RetagRequest(pairs, namespace=request.namespace, force=request.force)).run()

    answers = fleet.beside(by_host, work)
    return [_named(step, answers[host]) for host, on_it in by_host.items() for _, step in on_it]


def _named(step: Step, answer: RetagResult | FerryError) -> Step:
    result = answer.result if isinstance(answer, FerryError) else answer
    for image in result.images if isinstance(result, RetagResult) else ():
        if image.reference == step.reference:
            return replace(step, status=image.status, error=image.error)
    return replace(step, status=Status.FAILED, error=answer.to_json() if isinstance(answer, FerryError) else None)


def push(
    fleet: Fleet, request: DeliverRequest, planned: Iterable[tuple[ImageCopy, Step]]
) -> dict[ImageCopy, Step | FerryError]:
    """Pushes each image, all hosts at once; returns by image what came of it, or why it was not pushed."""
    by_host = grouped((step.host, (image_copy, step)) for image_copy, step in planned)
    done: dict[ImageCopy, Step | FerryError] = {}

    def work(host: Host) -> None:
        pushes = PushSet(host, [_request(request, each) for each, _ in by_host[host.name]], alone=True)
        error = None
        try:
            pushes.run()
        except FerryError as failed:
            error = failed
        for (image_copy, step), item in zip(by_host[host.name], pushes.items, strict=True):
            if reason := item.error or (error if item.image.status is Status.SKIPPED else None):
                done[image_copy] = reason
            else:
                image = item.image
                notes = image.notes if image.status is Status.CHANGED else ()
                done[image_copy] = replace(step, status=image.status, bytes=image.size, notes=notes)

    for host, answer in fleet.beside(by_host, work).items():
        if isinstance(answer, FerryError):  # no image of this host was dealt with
            done |= {image_copy: answer for image_copy, _ in by_host[host]}
    return done


def _request(request: DeliverRequest, image_copy: ImageCopy) -> PushRequest:
    return PushRequest(
        ref=image_copy.image.digest,
        target=image_copy.dst,
        all_platforms=True,
        namespace=request.namespace,
        force=request.force,
        foreign_layers=request.foreign_layers,
    )
