"""What is to be done with each image on one host: decided from what the host was found to have. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ctr_ferry.ctr import checks, free_space
from ctr_ferry.ctr.checks import Check
from ctr_ferry.ctr.commands import PINNED
from ctr_ferry.ctr.ingest import ImageBlobs
from ctr_ferry.ctr.verdict import exists
from ctr_ferry.ctr.version import DaemonCapabilities
from ctr_ferry.errors import ContentCorrupt, ContentMissing, DiskFull, FerryError, MethodUnsupported, SourceLost
from ctr_ferry.images.item import Item
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.report.outcome import Status
from ctr_ferry.transfer.copy_request import CopyRequest, ImageCopy, blobs_to_copy
from ctr_ferry.transfer.copy_result import CopiedImage
from ctr_ferry.transfer.destination import Destination

_FINAL = (ContentCorrupt, ContentMissing, SourceLost)  # errors that another attempt would meet again


@dataclass(slots=True, kw_only=True)
class Plan(Item[CopiedImage]):
    """One image on one host that can be copied.

    Attributes:
        image_copy: what is asked for.
        target: what the name shall point at.
        needed: all blobs that must be there.
        again: why the image is to be tried once more.
        done: whether the image is named and was verified.
    """

    image_copy: ImageCopy
    target: Descriptor
    needed: ImageBlobs
    again: FerryError | None = None
    done: bool = False

    @property
    def ready(self) -> bool:
        """Whether nothing has gone wrong with the image so far."""
        return self.pending and not self.again

    def stop(self, error: FerryError) -> None:
        """Notes an error. Unless it is final, the image is tried once more."""
        if isinstance(error, _FINAL):
            self.fail(error)
        else:
            self.again = error

    def fail(self, error: FerryError) -> None:
        """Marks the image as failed."""
        self.again = None
        Item.fail(self, error)


def plan_images(copy_request: CopyRequest, found: Destination) -> list[Item[CopiedImage]]:
    """Decides what is to be done with each image; one that cannot be copied is no `Plan`, and has its error."""
    items = [_plan(image_copy, copy_request, found) for image_copy in copy_request.image_copies]
    _count_blobs(pending(items), found)
    return items


def pending(items: Iterable[Item[CopiedImage]]) -> list[Plan]:
    """The plans that are still to be carried out."""
    return [item for item in items if isinstance(item, Plan) and item.pending]


def _plan(image_copy: ImageCopy, copy_request: CopyRequest, found: Destination) -> Item[CopiedImage]:
    image, dst = image_copy.image, str(image_copy.dst)
    result = CopiedImage(src=image.name, dst=dst, digest=image.digest, src_digest=image.digest, status=Status.CHANGED)
    item: Item[CopiedImage] = Item(result, found.session.there.get(dst))
    try:
        item = _decide(item, image_copy, copy_request, found)
        _compare_with_existing(item, copy_request, found)
    except FerryError as error:
        item.fail(error)
    return item


def _decide(item: Item[CopiedImage], image_copy: ImageCopy, copy_request: CopyRequest, found: Destination) -> Plan:
    """Settles what the name shall point at, and which blobs it needs.

    Raises:
        FerryError: why the image cannot be copied.
    """
    if copy_request.pin:
        _refuse_pin_without_cri(found)
    image, facts, capabilities = image_copy.image, found.facts, found.facts.ctr.capabilities
    choice = found.content.choose(
        image, copy_request.platform, facts.platform, partial_index=capabilities.partial_index
    )
    item.result.digest, item.result.note = choice.target.digest, choice.note
    platform = copy_request.platform or facts.platform
    blobs = blobs_to_copy(found.content, image, choice.target, platform, every=copy_request.every)
    documents = {blob.digest: found.content.blobs[blob.digest] for blob in blobs if blob.digest in found.content.blobs}
    return Plan(
        result=item.result,
        existing=item.existing,
        image_copy=image_copy,
        target=choice.target,
        needed=ImageBlobs(tuple(blobs), documents),
    )


def _compare_with_existing(plan: Plan, copy_request: CopyRequest, found: Destination) -> None:
    result, image = plan.result, plan.image_copy.image
    if plan.existing and plan.moves:
        if not copy_request.force:
            raise exists(result.dst, found.place.namespace, plan.existing.digest, result.digest)
        result.previous_digest = plan.existing.digest
    elif plan.existing and _is_whole(plan, copy_request, found):
        is_part = result.digest != image.digest
        plan.unchanged(f"same (platform manifest of index {image.digest})" if is_part else "it is there already")
    if plan.pending and not copy_request.unpack and not found.facts.ctr.capabilities.no_unpack:
        plan.add_note(f"ctr {found.facts.client} always unpacks")


def _refuse_pin_without_cri(found: Destination) -> None:
    if not (found.place.cri_managed and DaemonCapabilities.of(found.facts.server).pins):
        raise MethodUnsupported(
            f"containerd {found.facts.server} does not pin {found.place.namespace}'s images",
            detail="CRI heeds the label from containerd 1.7 on, in k8s.io alone",
            hint="leave --pin out for this host",
        )


def _is_whole(plan: Plan, copy_request: CopyRequest, found: Destination) -> bool:
    """Tells whether the existing name has all of its content: a failed import may have left the name without."""
    there = all(blob.digest in found.store.here for blob in plan.needed.blobs)
    pinned = not copy_request.pin or (plan.existing is not None and PINNED in plan.existing.labels)
    return there and pinned and is_usable(plan, copy_request, found, found.checks.get(plan.result.dst, checks.UNKNOWN))


def is_usable(plan: Plan, copy_request: CopyRequest, found: Destination, check: Check) -> bool:
    """Tells whether containerd says that an image is complete and unpacked, as far as this host's platform goes."""
    unpacked = check.unpacked or not copy_request.unpack
    return is_foreign(plan, found) or (check.complete and unpacked)


def is_foreign(plan: Plan, found: Destination) -> bool:
    """Tells whether an image is of another platform than the host's, so that containerd does not unpack it."""
    if plan.target.platform:
        return plan.target.platform != found.facts.platform
    image = plan.image_copy.image
    return image.platforms == "-" or not image.is_for(found.facts.platform)


def stop_incomplete(plan: Plan, failed: Mapping[str, FerryError]) -> None:
    """Stops an image whose blobs have not all come.

    Args:
        failed: by digest, why a blob did not come.
    """
    errors = [failed[blob.digest] for blob in plan.needed.blobs if blob.digest in failed]
    if errors:
        plan.stop(next((error for error in errors if isinstance(error, _FINAL)), errors[0]))


def _count_blobs(plans: Sequence[Plan], found: Destination) -> None:
    """Counts what is to be sent. A blob that several images need counts for the first."""
    counted: set[str] = set()
    for plan in plans:
        result, has = plan.result, found.store.here | found.store.elsewhere | counted
        sent = [blob for blob in plan.needed.blobs if blob.digest not in has]
        saved = [blob for blob in plan.needed.blobs if blob.digest in has]
        counted |= {blob.digest for blob in sent}
        result.blobs_sent, result.bytes_sent = len(sent), sum(blob.size for blob in sent)
        result.blobs_saved, result.bytes_saved = len(saved), sum(blob.size for blob in saved)
        linked = any(blob.digest in found.store.elsewhere - found.store.here for blob in saved)
        result.method = "blobs" if sent else "link" if linked else "index"


def check_room(
    todo: Sequence[Plan], copy_request: CopyRequest, found: Destination, *, dry_run: bool
) -> tuple[str, ...]:
    """Fails the images that surely do not fit, before anything is sent.

    Returns:
        What the user should know: what may not fit, and in a dry run how much room is needed.
    """
    coming, unpacked = sum(plan.result.bytes_sent for plan in todo), _growth(todo, copy_request, found)
    verdict = free_space.judge(found.room, coming, unpacked)
    if isinstance(verdict, DiskFull):
        for plan in todo:
            if plan.result.bytes_sent:
                plan.fail(verdict)
        return ()
    needs = free_space.needs(found.room, coming, unpacked) if dry_run and todo else ""
    return tuple(filter(None, (verdict, needs)))


def _growth(todo: Sequence[Plan], copy_request: CopyRequest, found: Destination) -> int:
    """Estimates the bytes that unpacking takes. Layers that are here already are mostly unpacked."""
    if not copy_request.unpack:
        return 0
    platform = copy_request.platform or found.facts.platform
    targets = [plan.target for plan in todo if not is_foreign(plan, found)]
    layers = {blob.digest: blob for target in targets for blob in found.content.needed(target, platform)}
    return free_space.growth(blob for digest, blob in layers.items() if digest not in found.store.here)
