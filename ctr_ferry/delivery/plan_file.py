"""Plans: what a delivery would do, as a file that another person can review, and what has changed since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from ctr_ferry import shell
from ctr_ferry.ctr.ingest import Store, to_send
from ctr_ferry.delivery.request import DeliverRequest, Via
from ctr_ferry.delivery.routes import Choice, Decision, Route
from ctr_ferry.errors import FerryError, PlanOutdated, UsageError
from ctr_ferry.images.item import Item
from ctr_ferry.oci.reference import is_digest
from ctr_ferry.run import options
from ctr_ferry.ssh.local_path import local_path, ls_line
from ctr_ferry.transfer.copy_result import CopiedImage
from ctr_ferry.transfer.plan import Plan
from ctr_ferry.transfer.source_inventory import ImageSelector

if TYPE_CHECKING:
    from ctr_ferry.delivery.inspection import Inspection
    from ctr_ferry.delivery.results import DeliveredImage, Step
    from ctr_ferry.transfer.copy_request import ImageCopy

_VERSION = 2  # 1 had src, dst, src_digest and source for source, reference, source_digest and origin
HEAD = '{\n  "version": '  # how every plan begins
_MOST = 64 << 20  # bytes of a plan that is read


class _Versioned(msgspec.Struct, frozen=True):
    """What plans of all versions have."""

    version: int


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a plan. It has nothing that `apply` would not heed."""


class Wanted(_Part, frozen=True):
    """One image that was asked for, and the name to give if it is not its own."""

    source: str
    reference: str | None = None


class Request(_Part, frozen=True, kw_only=True):
    """What was asked for, as `DeliverRequest` has it."""

    images: tuple[Wanted, ...]
    sources: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    archive: Annotated[str, msgspec.Meta(pattern=r"\A[^\0]+\Z")] | None
    via: Via
    namespace: str | None
    platform: str | None
    digest: str | None
    force: bool
    foreign_layers: bool = False
    words: tuple[str, ...]


class Blob(_Part, frozen=True):
    """One blob that a host lacks."""

    digest: str
    size: int


class PlannedImage(_Part, frozen=True, kw_only=True):
    """One image on one host: as `DeliveredImage`, and the blobs that it has there and lacks.

    Attributes:
        before: what the name points at on the host; None if the host does not have it.
    """

    source: str
    reference: str
    digest: str
    source_digest: str
    route: Route
    why: str
    origin: str
    before: str | None
    held: tuple[str, ...]
    needed: tuple[Blob, ...]
    bytes: int


class PlannedHost(_Part, frozen=True):
    """One host, with the versions that it had."""

    ctr: str
    containerd: str
    namespace: str
    images: tuple[PlannedImage, ...]


class Besides(_Part, frozen=True):
    """What is done besides with an image: a host in whose ``namespace`` it is names it there, or pushes it."""

    host: str
    namespace: str
    reference: str
    digest: str


class Push(Besides, frozen=True):
    """A push; a ``relay`` gets the image over SSH first."""

    relay: bool


class DeliveryPlan(_Part, frozen=True):
    """What a delivery would do, host by host, and besides on sources."""

    version: int
    request: Request
    hosts: dict[str, PlannedHost]
    names: tuple[Besides, ...]
    pushes: tuple[Push, ...]

    def to_json(self) -> bytes:
        """The file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def request_for(self, file: str) -> DeliverRequest:
        """What was asked for, to inspect the hosts once more; reads the archive, if that is the source.

        Raises:
            UsageError: the plan has something that `deliver` would refuse.
        """
        from ctr_ferry.transfer.archive_images import archive_images, by_selectors

        asked = self.request
        if not (asked.images or asked.archive):
            raise UsageError(f"{file} names no image")
        options.references([each.source for each in asked.images], ())
        selectors = tuple(ImageSelector(each.source, options.new_name(each.reference)) for each in asked.images)
        platform = options.platform(asked.platform)
        if asked.digest and not is_digest(asked.digest):
            raise UsageError(f"{file}: {asked.digest!r} is no digest")
        return DeliverRequest(
            selectors=selectors,
            sources=asked.sources,
            archive=archive_images(Path(asked.archive), by_selectors(selectors, platform)) if asked.archive else None,
            via=asked.via,
            namespace=options.namespace(asked.namespace),
            platform=platform,
            digest=asked.digest,
            force=asked.force,
            foreign_layers=asked.foreign_layers,
            plan=file,
            words=asked.words,
        )

    def decisions(self, found: Inspection) -> list[Decision]:
        """The planned route of each image to each host; an error where a host is not as it was."""
        pushes = {push.reference: push for push in self.pushes}
        planned = {host: {image.reference: image for image in on.images} for host, on in self.hosts.items()}
        decisions = []
        for number, image_copy in enumerate(found.copies.image_copies):
            dst = str(image_copy.dst)
            push = pushes.get(dst)
            holds = push is not None and _holds(push, image_copy, found)
            choices = {
                host: self._choice(host, planned.get(host, {}).get(dst), found, number) for host in found.targets
            }
            if push and not holds:
                choices = {host: _without_push(push, choice, found) for host, choice in choices.items()}
            if push and holds and any(isinstance(choice, Choice) for choice in choices.values()):
                decisions.append(Decision(choices, push.host, push.relay))
            else:
                decisions.append(Decision(choices))
        return decisions

    def has_name(self, image_copy: ImageCopy, host: str, found: Inspection) -> bool:
        """Whether a host is to name an image besides, and is as it was."""
        names = (name for name in self.names if (name.host, name.reference) == (host, str(image_copy.dst)))
        return any(_holds(name, image_copy, found) for name in names)

    def _choice(self, host: str, image: PlannedImage | None, found: Inspection, number: int) -> Choice | FerryError:
        target, image_copy = found.targets[host], found.copies.image_copies[number]
        item, destination = target.items[number], target.destination
        if image is None:
            return PlanOutdated(f"the plan does not bring {image_copy.dst} to {host}", hint="make a new plan")
        facts, before = destination.session.facts, self.hosts[host]
        elsewhere = _changed("namespace", before.namespace, destination.session.place.namespace)
        if not elsewhere and not item.pending and not item.error and item.result.digest == image.digest:
            return Choice(Route.THERE, "it is there already, as planned")
        changes = [
            *_changed("ctr", before.ctr, facts.client),
            *_changed("containerd", before.containerd, facts.server),
            *elsewhere,
            *_changed("the source's image", image.source_digest, image_copy.image.digest),
            *(_changed("source", image.origin, found.giver(image_copy)) if image.route is Route.SSH else ()),
            *changes_of(image, item, destination.store),
        ]
        return _outdated(host, image.reference, changes) if changes else Choice(image.route, image.why)


def _outdated(host: str, dst: str, changes: Sequence[str]) -> PlanOutdated:
    return PlanOutdated(
        f"{host} is not as it was when {dst} was planned; nothing was changed there",
        detail="\n".join(changes),
        hint="make a new plan",
    )


def _holds(planned: Besides, image_copy: ImageCopy, found: Inspection) -> bool:
    """Whether the host that is to name or push an image answered, still means the same image, and has or gets it."""
    session = found.sessions.get(planned.host)
    return (
        session is not None
        and session.place.namespace == planned.namespace
        and image_copy.image.digest == planned.digest
        and (planned.host in found.targets or bool(session.here.by_digest(planned.digest)))
    )


def _without_push(push: Push, choice: Choice | FerryError, found: Inspection) -> Choice | FerryError:
    if isinstance(choice, FerryError) or choice.route is not Route.REGISTRY:
        return choice
    if push.relay and push.host not in found.targets:
        return PlanOutdated(
            f"{push.host} has to get {push.reference} and to push it first, and -H leaves that host out; "
            "nothing was changed",
            hint=shell.join(["fab", "-H", push.host, "apply", "--plan", str(found.request.plan)]),
        )
    return _outdated(push.host, push.reference, ["it was to push the image first"])


def changes_of(image: PlannedImage, item: Item[CopiedImage], store: Store) -> Iterator[str]:
    """What of an image on a host is not as it was planned. Blobs that came meanwhile do no harm."""
    existing = item.existing.digest if item.existing else None
    yield from _changed("the name", image.before, existing)
    yield from _changed("the image", image.digest, item.result.digest)
    if item.error and image.route is not Route.REGISTRY:
        yield item.error.message
    if image.route is Route.THERE:
        yield "the image is no longer complete, unpacked and known there"
    lost = {blob.digest for blob in needed(item, store)} - {blob.digest for blob in image.needed}
    if image.route is Route.NAMED and isinstance(item, Plan):
        lost |= {blob.digest for blob in to_send([item.needed], store)}
    if image.route is not Route.REGISTRY or not item.error:
        yield from (f"blob {digest} is no longer there" for digest in sorted(lost))


def _changed(what: str, before: str | None, now: str | None) -> list[str]:
    return [] if before == now else [f"{what} was {before or 'nothing'}, and is {now or 'nothing'}"]


def needed(item: Item[CopiedImage], store: Store) -> list[Blob]:
    """The blobs that a host lacks for an image."""
    has = store.here | store.elsewhere
    blobs = item.needed.blobs if isinstance(item, Plan) else ()
    return [Blob(blob.digest, blob.size) for blob in blobs if blob.digest not in has]


def planned(
    found: Inspection,
    decisions: Sequence[Decision],
    names: Iterable[tuple[ImageCopy, Step]],
    results: Mapping[str, Iterable[DeliveredImage]],
) -> DeliveryPlan:
    """Makes a plan. What has failed already is no part of it.

    Args:
        names: which hosts name images besides.
        results: what each host would report of each image, in the order of the images.
    """
    asked = found.request
    hosts = {}
    for host, images in results.items():
        target = found.targets[host]
        session, store = target.destination.session, target.destination.store
        hosts[host] = PlannedHost(
            session.facts.client,
            session.facts.server,
            session.place.namespace,
            tuple(
                _planned_image(result, item, store)
                for result, item in zip(images, target.items, strict=True)
                if not result.error
            ),
        )
    request = Request(
        images=tuple(Wanted(each.ref, str(each.dst) if each.dst else None) for each in asked.selectors),
        sources=asked.sources,
        archive=str(asked.archive.file.absolute()) if asked.archive else None,
        via=asked.via,
        namespace=asked.namespace,
        platform=str(asked.platform) if asked.platform else None,
        digest=asked.digest,
        force=asked.force,
        foreign_layers=asked.foreign_layers,
        words=asked.words,
    )
    pairs = zip(found.copies.image_copies, decisions, strict=True)
    pushes = tuple(Push(*_besides(found, each.pusher, copy), each.relay) for copy, each in pairs if each.pusher)
    named = tuple(Besides(*_besides(found, step.host, image_copy)) for image_copy, step in names)
    return DeliveryPlan(_VERSION, request, hosts, named, pushes)


def _besides(found: Inspection, host: str, image_copy: ImageCopy) -> tuple[str, str, str, str]:
    return host, found.sessions[host].place.namespace, str(image_copy.dst), image_copy.image.digest


def _planned_image(result: DeliveredImage, item: Item[CopiedImage], store: Store) -> PlannedImage:
    lacks = tuple(needed(item, store))
    blobs = item.needed.blobs if isinstance(item, Plan) else ()
    return PlannedImage(
        source=result.source,
        reference=result.reference,
        digest=result.digest,
        source_digest=result.source_digest,
        route=Route(result.route),
        why=result.why,
        origin=result.origin,
        before=item.existing.digest if item.existing else None,
        held=tuple(blob.digest for blob in blobs if blob.digest not in {lack.digest for lack in lacks}),
        needed=lacks,
        bytes=result.bytes,
    )


def read(file: str) -> DeliveryPlan:
    """Reads a plan; raises UsageError if the file is none."""
    try:
        with local_path(file).open("rb") as opened:
            text = opened.read(_MOST)
        version = msgspec.json.decode(text, type=_Versioned).version
        plan = msgspec.json.decode(text, type=DeliveryPlan) if version == _VERSION else None
    except OSError as error:
        raise UsageError(
            f"--plan {file} cannot be read: {error.strerror or error}",
            hint=f"see what is there: {ls_line(file)}",
        ) from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UsageError(
            f"{file} is no plan of deliver: {error}",
            hint=f"make one: fab -H all deliver --ref r.example/app:1 --plan {shell.join([file])}",
        ) from error
    if plan is None:
        raise UsageError(
            f"{file} is a plan of version {version}, and this ctr-ferry carries out version {_VERSION}",
            hint="make a new plan with this ctr-ferry, as the run did that made this one: fab runs",
        )
    return plan
