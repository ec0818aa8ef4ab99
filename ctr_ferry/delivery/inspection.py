"""What sources and targets have, before anything changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ctr_ferry.delivery.request import DeliverRequest
from ctr_ferry.errors import FerryError, Unreachable
from ctr_ferry.images.content import Content
from ctr_ferry.images.item import Item
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.report.outcome import Status
from ctr_ferry.text import names
from ctr_ferry.transfer.archive_images import REMEDY
from ctr_ferry.transfer.copy_request import CopyRequest, ImageCopy
from ctr_ferry.transfer.copy_result import CopiedImage
from ctr_ferry.transfer.destination import Destination
from ctr_ferry.transfer.plan import pending
from ctr_ferry.transfer.source_inventory import SourceInventory, chosen, find_images, parts, source_of

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.transfer.fan_out import Source


@dataclass(frozen=True, slots=True)
class TargetHost:
    """One target, and what is to be done there with each image, in the order of the images."""

    destination: Destination
    items: list[Item[CopiedImage]]
    notices: tuple[str, ...]

    def plan_whole(self, number: int) -> None:
        """Plans an image anew with all of its platforms: this host is to push it."""
        planned = self.destination.copy_request
        options = replace(planned.options, own=False)
        request = replace(planned, image_copies=(planned.image_copies[number],), options=options)
        (self.items[number],) = replace(self.destination, copy_request=request).plan_images()


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        copies: the images, and what all sources together have of them.
        source: where blobs come from.
        holders: the hosts that have any of the images, the best first; none if an archive is the source.
        missing: why an image is on no source, by its name there and the name to give.
        targets: the targets that answered, by name; ``answers`` has an error for each other one.
        sessions: every host that was probed, by name.
    """

    request: DeliverRequest
    copies: CopyRequest
    source: Source
    holders: tuple[SourceInventory, ...] = ()
    missing: Mapping[tuple[str, str], FerryError] = field(default_factory=dict)
    targets: dict[str, TargetHost] = field(default_factory=dict)
    answers: dict[str, FerryError] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)

    def has_all(self, image_copy: ImageCopy, digests: Collection[str]) -> bool:
        """Whether the digests include all platforms of an image, as far as its manifests tell."""
        image, content = image_copy.image, self.copies.content
        return all(blob in digests for blob in content.below(Descriptor(image.media_type, image.digest, 0)))

    def givers(self, image_copy: ImageCopy) -> list[SourceInventory]:
        """The hosts that give an image: the first that has all of it, or else all that have some of it."""
        having = [source for source in self.holders if _lists(source, image_copy)]
        whole = [source for source in having if self.has_all(image_copy, source.content.visible)]
        return whole[:1] or having

    def giver(self, image_copy: ImageCopy) -> str:
        """Who gives an image over SSH, in words."""
        if self.request.archive:
            return str(self.request.archive.file)
        return names((source.name for source in self.givers(image_copy)), every=True)


@dataclass(frozen=True, slots=True)
class Looked:
    """The result of a target that was only inspected so far."""

    status = Status.OK

    def lines(self) -> list[str]:
        """No line."""
        return []


def inspect(fleet: Fleet, request: DeliverRequest) -> Inspection:
    """Inspects sources and targets; a host that is both is probed once. Raises FerryError if no source answered."""
    found, troubles = _sources(fleet, request)
    targets: dict[str, TargetHost] = {}

    def look(host: Host) -> Looked:
        if isinstance(trouble := troubles.get(host.name), Unreachable):
            raise trouble
        destination = Destination.inspect(host, found.copies, session=found.sessions.get(host.name))
        items = destination.plan_images()
        if host.dry_run:
            destination = destination.without_isolated(pending(items))
        notices = destination.check_room(pending(items), dry_run=host.dry_run)
        targets[host.name] = TargetHost(destination, items, (*found.copies.notices, *notices))
        return Looked()

    answers = fleet.each(look, close=False, looks=True)
    found.answers.update({name: answer for name, answer in answers.items() if isinstance(answer, FerryError)})
    for name in found.answers:
        fleet.hosts[name].mark_failed()  # a host that was not looked at, as too many others failed, is not worked on
    found.targets.update({name: targets[name] for name in answers if name in targets})
    found.sessions.update({name: target.destination.session for name, target in found.targets.items()})
    return found


def _sources(fleet: Fleet, request: DeliverRequest) -> tuple[Inspection, Mapping[str, FerryError]]:
    """What the sources have, and why some did not answer."""
    if request.archive:
        given, how = request.archive, request.options
        copies = CopyRequest(given.image_copies, given.content, how, remedy=REMEDY, origin="the archive")
        return Inspection(request, copies, request.archive.source), {}
    images = find_images(fleet, request.source_request)

    having = [source for source in images.sources if source.found]
    listed = [each.image for each in images.image_copies]
    first = chosen(having, listed, request.source_request)
    fleet.disconnect(source.name for source in having if source not in first)  # these may be the whole inventory
    content = Content.merged(source.content for source in having)
    wanted = parts(content, listed, request.source_request.options)

    def lacks(source: SourceInventory) -> int:
        return sum(not source.has(part) for part in wanted)

    holders = tuple(sorted(having, key=lacks))
    found = Inspection(
        request,
        CopyRequest(images.image_copies, content, request.options, images.notices),
        source_of(holders),
        holders,
        {(selector.ref, str(selector.dst or selector.ref)): error for selector, error in images.missing.items()},
        sessions={source.name: source.session for source in images.sources},
    )
    return found, images.troubles


def _lists(source: SourceInventory, image_copy: ImageCopy) -> bool:
    return any(image_copy.image.digest == image.digest for images in source.found.values() for image in images)
