"""One image on one host, from its route to its result; and the command that mends what went wrong."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace

from ctr_ferry import shell
from ctr_ferry.delivery.request import DeliverRequest, Via
from ctr_ferry.delivery.results import DeliveredImage
from ctr_ferry.delivery.routes import Choice, Route
from ctr_ferry.errors import ContentMissing, FerryError
from ctr_ferry.images.item import ImageResult, Item
from ctr_ferry.registry.results import RegistryTransferResult
from ctr_ferry.report.hints import PASTEABLE, at_hosts
from ctr_ferry.report.outcome import Status
from ctr_ferry.transfer.copy_request import ImageCopy
from ctr_ferry.transfer.copy_result import CopiedImage
from ctr_ferry.transfer.source_inventory import ANY


@dataclass(slots=True)
class Entry:
    """One image on one host.

    Attributes:
        route: None if the image cannot come.
        over_ssh: why it cannot come over SSH; None if it can.
        error: why it did not come, where the reason is not only in the result.
        done: whether the host has said what came of it.
    """

    result: DeliveredImage
    route: Route | None = None
    over_ssh: FerryError | None = None
    error: FerryError | None = None
    done: bool = False

    @classmethod
    def planned(
        cls, image_copy: ImageCopy, item: Item[CopiedImage], choice: Choice | FerryError | None, origin: str
    ) -> Entry:
        """An image by what was found on the host, and by its route; without a route, the item has the error."""
        found, image = item.result, image_copy.image
        result = DeliveredImage(
            source=found.source,
            reference=found.reference,
            digest=found.digest,
            source_digest=image.digest,
            previous_digest=item.existing.digest if item.existing and item.moves else "",
            method=found.method,
            status=Status.CHANGED,
            notes=found.notes,
            bytes=found.bytes,
        )
        entry = cls(result, over_ssh=item.error)
        if not isinstance(choice, Choice):
            result.method, result.bytes = "", 0
            entry.fail(choice or item.error or FerryError(f"{found.reference} has no route to this host"))
            return entry
        entry.take(choice, origin)
        if choice.route is Route.THERE:
            result.status, result.method = Status.UNCHANGED, ""
        return entry

    @classmethod
    def missing(cls, src: str, dst: str, error: FerryError) -> Entry:
        """An image that no source has."""
        entry = cls(DeliveredImage(src, dst))
        entry.fail(error)
        return entry

    @property
    def failed(self) -> bool:
        """Whether the image did not come."""
        return self.result.status is Status.FAILED

    def goes(self, *routes: Route) -> bool:
        """Whether the image has one of these routes, and has yet to come."""
        return self.route in routes and self.result.status is Status.CHANGED and not self.done

    def take(self, choice: Choice, origin: str) -> None:
        """Sets the route."""
        result = self.result
        self.route, result.route, result.why = choice.route, str(choice.route), choice.why
        if choice.route is Route.REGISTRY:
            result.method, result.origin = "pull", result.reference.partition("/")[0]
        elif choice.route is Route.SSH:
            result.origin = origin

    def fail(self, error: FerryError) -> None:
        """Marks the image as failed. The error may be that of other hosts, too: it is copied."""
        self.error = copy.copy(error)
        self.result.status, self.result.error = Status.FAILED, error.to_json()

    def pulled(self, pull: RegistryTransferResult) -> None:
        """Notes what the host has after a pull."""
        result = self.result
        result.digest, result.status, result.method = pull.digest, pull.status, pull.method
        result.previous_digest, result.seconds, self.done = pull.previous_digest, pull.seconds, True
        if pull.status is Status.UNCHANGED:  # somebody else brought it meanwhile
            result.bytes = 0

    def copied(self, image: CopiedImage, seconds: float) -> None:
        """Notes what the host has after a copy."""
        result = self.result
        result.digest, result.status, result.method, result.notes = (
            image.digest,
            image.status,
            image.method,
            image.notes,
        )
        result.previous_digest, result.error = image.previous_digest, image.error
        result.bytes, result.seconds, self.done = image.bytes, seconds, True

    def named(self, image: ImageResult) -> None:
        """Notes that the host's own names gave this one, if the copy found nothing left to do."""
        if self.result.status is Status.UNCHANGED:
            self.result.status, self.result.method = Status.CHANGED, image.method
            self.result.previous_digest, self.result.notes = image.previous_digest, image.notes

    def mend(self, request: DeliverRequest, host: str) -> None:
        """Adds to the error's hint the command that mends it."""
        error = self.result.error
        if error is None:
            return
        src, dst = self.result.source, self.result.reference
        hint = error["hint"]
        if error["kind"] == ContentMissing.kind and "--from any" in hint:
            if request.archive:
                request = replace(request, archive=None)
            elif ANY in request.sources:
                hint = f"see which host lacks which blobs: {shell.join(['fab', '-H', 'all', 'check', '--ref', src])}"
        if request.via is Via.REGISTRY and error["kind"].startswith(("registry-", "repository-")):
            hint = f"{hint}{', or ' if hint else ''}deliver it with --via ssh"
        hint = mended(hint, request, host, ("--ref", src) if src == dst else ("--src", src, "--dst", dst))
        self.result.error = {**error, "hint": hint}
        if self.error:
            self.error.hint = hint


_GIVEN = re.compile(r"--via ssh|--force|--from [^ ]+")  # an option that a hint says to give
_LEFT_OUT = re.compile(r"leave (--[a-z]+) out")


def mended(hint: str, request: DeliverRequest, host: str, images: tuple[str, ...] = ()) -> str:
    """A hint with the command line that follows it: with the option that it names, or without the one to leave out."""
    if PASTEABLE.search(hint) and " first: " not in hint:  # it has such a command line itself
        return at_hosts(hint, [host])
    if left_out := _LEFT_OUT.search(hint):
        return f"{hint}: {request.command(host, images, without=left_out[1])}"
    if given := _GIVEN.search(hint):
        return f"{hint}: {request.command(host, images, *given[0].split())}"
    return f"{hint}; then: {request.command(host, images)}" if hint else request.command(host, images)
