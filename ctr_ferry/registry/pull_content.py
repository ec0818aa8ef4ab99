"""What the host must have of a pulled image, and what of it is missing. Pure."""

from __future__ import annotations

from ctr_ferry.ctr import checks
from ctr_ferry.ctr.failures import content_missing
from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import FerryError, NotUnpacked, PlatformMissing
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import INDEXES, Descriptor
from ctr_ferry.registry.pull_plan import PullPlan
from ctr_ferry.shell import Answer


def size(plan: PullPlan, image: Image, content: Content) -> int | None:
    """Bytes of all blobs that the platforms asked for need; None where not all manifests were read.

    Raises:
        FerryError: a manifest that the host has cannot be read.
    """
    blobs = _needed(plan, image, content)
    is_read = len(blobs) > 1 and (plan.beyond_host_platform or not blobs[0].is_index)
    return sum(blob.size for blob in blobs) if is_read else None


def shortcoming(plan: PullPlan, image: Image, content: Content, check: Answer) -> FerryError | None:
    """Why the image on the host is not whole, unpacked and for the platform asked for; None where it is.

    Args:
        image: the name as the host lists it.
        content: the manifests that were read, and all digests that the namespace sees.
        check: the answer of ``ctr images check``.
    """
    wanted = plan.platform
    other = wanted and image.listed and not any(wanted.takes(each) for each in image.listed)
    if other and image.media_type not in INDEXES:
        return PlatformMissing(f"{plan.name} is for {image.platforms}, not for {wanted}", hint="leave --platform out")
    try:
        blobs = _needed(plan, image, content)
    except FerryError as error:  # the host has the manifest, and it cannot be read
        return error
    if plan.beyond_host_platform:
        missing = [blob.digest for blob in blobs if blob.digest not in content.visible]
        return content_missing(plan.name, "\n".join(missing)) if missing else None
    state = checks.parse_checks(check.text).get(plan.name, checks.UNKNOWN)
    if not state.complete:
        return content_missing(plan.name, state.status)
    if not state.unpacked:
        return NotUnpacked(
            f"{plan.name} in namespace {plan.place.namespace} is whole, but not unpacked",
            hint="read containerd's log on that host, then run the command again",
        )
    return None


def _needed(plan: PullPlan, image: Image, content: Content) -> list[Descriptor]:
    top = Descriptor(image.media_type, image.digest, len(content.blobs.get(image.digest, b"")))
    if plan.all_platforms:
        return list(content.below(top).values())
    return content.needed(top, plan.platform or plan.host_platform)
