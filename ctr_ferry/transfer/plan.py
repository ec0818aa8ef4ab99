"""What is to be done with each image on one host: decided from what the host was found to have. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctr_ferry.ctr import checks, free_space
from ctr_ferry.ctr.checks import Check
from ctr_ferry.ctr.commands import PINNED
from ctr_ferry.ctr.ingest import ImageBlobs
from ctr_ferry.ctr.listing import Image
from ctr_ferry.ctr.verdict import exists
from ctr_ferry.ctr.version import DaemonCapabilities
from ctr_ferry.errors import ContentCorrupt, ContentMissing, DiskFull, FerryError, MethodUnsupported, SourceLost
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.report.outcome import Status
from ctr_ferry.transfer.copy_request import CopyRequest, ImageCopy, blobs_to_copy
from ctr_ferry.transfer.copy_result import CopiedImage
from ctr_ferry.transfer.destination import Destination

_FINAL = (ContentCorrupt, ContentMissing, SourceLost)  # errors that another attempt would meet again


@dataclass(slots=True)
class Plan:
    """One image on one host.

    Attributes:
        existing: what has the name already.
        target: what the name shall point at; None until it is known.
        needed: all blobs that must be there; None until they are known.
        error: why the image cannot be, or was not, copied.
        again: why the image is to be tried once more.
        done: whether the image is named and was verified.
    """

    report: CopiedImage
    image_copy: ImageCopy
    existing: Image | None
    target: Descriptor | None = None
    needed: ImageBlobs | None = None
    error: FerryError | None = None
    again: FerryError | None = None
    done: bool = False

    @property
    def open(self) -> bool:
        """Whether there is something to do, and nothing against it so far."""
        return self.error is None and self.report.status is Status.CHANGED

    @property
    def ready(self) -> bool:
        """Whether nothing has gone wrong with the image so far."""
        return self.open and not self.again

    def stop(self, error: FerryError) -> None:
        """Notes an error. Unless it is final, the image is tried once more."""
        if isinstance(error, _FINAL):
            self.fail(error)
        else:
            self.again = error

    def add_note(self, note: str) -> None:
        """Adds a note for the user."""
        self.report.note = "; ".join(filter(None, (self.report.note, note)))

    def unchanged(self, note: str) -> None:
        """Notes that nothing is to be done."""
        self.report.status, self.report.method, self.report.note = Status.UNCHANGED, "", note
        self.report.previous_digest = ""

    def fail(self, error: FerryError) -> None:
        """Notes that the image cannot be, or was not, copied."""
        self.error, self.again = error, None
        self.report.status, self.report.error = Status.FAILED, error.to_json()


def plan_images(copy_request: CopyRequest, found: Destination) -> list[Plan]:
    """Decides what is to be done with each image."""
    plans = [_plan(image_copy, copy_request, found) for image_copy in copy_request.image_copies]
    _count_blobs(plans, found)
    return plans


def _plan(image_copy: ImageCopy, copy_request: CopyRequest, found: Destination) -> Plan:
    image, dst = image_copy.image, str(image_copy.dst)
    report = CopiedImage(src=image.name, dst=dst, digest=image.digest, src_digest=image.digest, status=Status.CHANGED)
    plan = Plan(report, image_copy, found.listing.get(dst))
    try:
        _decide(plan, copy_request, found)
    except FerryError as error:
        plan.fail(error)
    return plan


def _decide(plan: Plan, copy_request: CopyRequest, found: Destination) -> None:
    """Settles what the name shall point at, and which blobs it needs.

    Raises:
        FerryError: why the image cannot be copied.
    """
    if copy_request.pin:
        _refuse_pin_without_cri(found)
    image, facts, capabilities = plan.image_copy.image, found.facts, found.facts.ctr.capabilities
    choice = found.content.choose(
        image, copy_request.platform, facts.platform, partial_index=capabilities.partial_index
    )
    plan.target = choice.target
    plan.report.digest, plan.report.note = choice.target.digest, choice.note
    platform = copy_request.platform or facts.platform
    blobs = blobs_to_copy(found.content, image, choice.target, platform, every=copy_request.every)
    documents = {blob.digest: found.content.blobs[blob.digest] for blob in blobs if blob.digest in found.content.blobs}
    plan.needed = ImageBlobs(tuple(blobs), documents)
    _compare_with_existing(plan, copy_request, found)
    if plan.open and not copy_request.unpack and not capabilities.no_unpack:
        plan.add_note(f"ctr {facts.client} always unpacks")


def _compare_with_existing(plan: Plan, copy_request: CopyRequest, found: Destination) -> None:
    existing, report, image = plan.existing, plan.report, plan.image_copy.image
    if existing is None:
        return
    if existing.digest == report.digest:
        if _is_whole(plan, copy_request, found):
            is_part = report.digest != image.digest
            plan.unchanged(f"same (platform manifest of index {image.digest})" if is_part else "it is there already")
    elif copy_request.force:
        report.previous_digest = existing.digest
    else:
        raise exists(report.dst, found.place.namespace, existing.digest, report.digest)


def _refuse_pin_without_cri(found: Destination) -> None:
    if not (found.place.cri_managed and DaemonCapabilities.of(found.facts.server).pins):
        raise MethodUnsupported(
            f"containerd {found.facts.server} does not pin {found.place.namespace}'s images",
            detail="CRI heeds the label from containerd 1.7 on, in k8s.io alone",
            hint="leave --pin out for this host",
        )


def _is_whole(plan: Plan, copy_request: CopyRequest, found: Destination) -> bool:
    """Tells whether the existing name has all of its content: a failed import may have left the name without."""
    assert plan.needed  # noqa: S101
    there = all(blob.digest in found.store.here for blob in plan.needed.blobs)
    pinned = not copy_request.pin or (plan.existing is not None and PINNED in plan.existing.labels)
    return there and pinned and is_usable(plan, copy_request, found, found.checks.get(plan.report.dst, checks.UNKNOWN))


def is_usable(plan: Plan, copy_request: CopyRequest, found: Destination, check: Check) -> bool:
    """Tells whether containerd says that an image is complete and unpacked, as far as this host's platform goes."""
    unpacked = check.unpacked or not copy_request.unpack
    return is_foreign(plan, found) or (check.complete and unpacked)


def is_foreign(plan: Plan, found: Destination) -> bool:
    """Tells whether an image is of another platform than the host's, so that containerd does not unpack it."""
    if plan.target and plan.target.platform:
        return plan.target.platform != found.facts.platform
    image = plan.image_copy.image
    return image.platforms == "-" or not image.is_for(found.facts.platform)


def settle(plan: Plan, failed: Mapping[str, FerryError]) -> None:
    """Stops an image whose blobs have not all come.

    Args:
        failed: by digest, why a blob did not come.
    """
    assert plan.needed  # noqa: S101
    errors = [failed[blob.digest] for blob in plan.needed.blobs if blob.digest in failed]
    if errors:
        plan.stop(next((error for error in errors if isinstance(error, _FINAL)), errors[0]))


def _count_blobs(plans: Sequence[Plan], found: Destination) -> None:
    """Counts what is to be sent. A blob that several images need counts for the first."""
    counted: set[str] = set()
    for plan in plans:
        if not (plan.open and plan.needed):
            continue
        report, has = plan.report, found.store.here | found.store.elsewhere | counted
        sent = [blob for blob in plan.needed.blobs if blob.digest not in has]
        saved = [blob for blob in plan.needed.blobs if blob.digest in has]
        counted |= {blob.digest for blob in sent}
        report.blobs_sent, report.bytes_sent = len(sent), sum(blob.size for blob in sent)
        report.blobs_saved, report.bytes_saved = len(saved), sum(blob.size for blob in saved)
        linked = any(blob.digest in found.store.elsewhere - found.store.here for blob in saved)
        report.method = "blobs" if sent else "link" if linked else "index"


def check_room(
    plans: Sequence[Plan], copy_request: CopyRequest, found: Destination, *, dry_run: bool
) -> tuple[str, ...]:
    """Fails the images that surely do not fit, before anything is sent.

    Returns:
        What the user should know: what may not fit, and in a dry run how much room is needed.
    """
    todo = [plan for plan in plans if plan.open]
    coming, unpacked = sum(plan.report.bytes_sent for plan in todo), _growth(todo, copy_request, found)
    verdict = free_space.judge(found.room, coming, unpacked)
    if isinstance(verdict, DiskFull):
        for plan in todo:
            if plan.report.bytes_sent:
                plan.fail(verdict)
        return ()
    needs = free_space.needs(found.room, coming, unpacked) if dry_run and todo else ""
    return tuple(filter(None, (verdict, needs)))


def _growth(todo: Sequence[Plan], copy_request: CopyRequest, found: Destination) -> int:
    """Estimates the bytes that unpacking takes. Layers that are here already are mostly unpacked."""
    if not copy_request.unpack:
        return 0
    platform = copy_request.platform or found.facts.platform
    targets = [plan.target for plan in todo if plan.target and not is_foreign(plan, found)]
    layers = {blob.digest: blob for target in targets for blob in found.content.needed(target, platform)}
    return free_space.growth(blob for digest, blob in layers.items() if digest not in found.store.here)
