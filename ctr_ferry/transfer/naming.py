"""The names of images whose blobs have come to a host: given in one remote command, and verified by its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ctr_ferry.ctr import checks
from ctr_ferry.ctr.failures import failure
from ctr_ferry.ctr.listing import parse_digests
from ctr_ferry.ctr.methods import ByBlobs
from ctr_ferry.errors import FerryError, VerifyFailed
from ctr_ferry.shell import Answer
from ctr_ferry.transfer.copy_request import CopyRequest
from ctr_ferry.transfer.destination import Destination
from ctr_ferry.transfer.plan import Plan, is_foreign, is_usable


def name_images(ready: Sequence[Plan], copy_request: CopyRequest, found: Destination) -> None:
    """Names images, verifies each, and notes the result in its plan.

    Raises:
        FerryError: the host did not answer.
    """
    namings = [_naming(plan, copy_request, found) for plan in ready]

    def explain(number: int, answers: Mapping[str, Answer]) -> FerryError | None:
        return _explain(number, ready[number], copy_request, found, answers)

    found.session.give(ready, namings, explain)
    for plan in ready:
        plan.done = plan.again is None


def _naming(plan: Plan, copy_request: CopyRequest, found: Destination) -> ByBlobs:
    target, needed = plan.target, tuple(blob.digest for blob in plan.needed.blobs)
    content = replace(found.content, visible=frozenset(needed))
    whole, foreign = content.below(target).keys() <= content.visible, is_foreign(plan, found)
    return ByBlobs(
        name=plan.image_copy.dst,
        target=target,
        replaces=plan.existing is not None,
        whole=whole,
        foreign=foreign,
        rest=content.rest(target, found.facts.platform) if target.is_index and not whole else {},
        unpack=copy_request.unpack,
        complete=not foreign,
        pin=copy_request.pin,
        blobs=needed,
    )


def _explain(
    number: int, plan: Plan, copy_request: CopyRequest, found: Destination, answers: Mapping[str, Answer]
) -> FerryError | None:
    """Returns what is wrong with a named image besides its name, by what the host says."""
    dst, there = plan.result.dst, parse_digests(answers["there"].text.splitlines())
    if absent := [blob.digest for blob in plan.needed.blobs if blob.digest not in there]:
        return VerifyFailed(
            f"{dst} is named, but blobs of it have vanished meanwhile",
            detail="\n".join(absent),
            hint="run the same command again; something removes images on that host all the time",
        )
    listed = checks.parse_checks(answers["check"].text) if "check" in answers else {}
    check = listed.get(dst, checks.UNKNOWN)
    if not is_usable(plan, copy_request, found, check):
        return VerifyFailed(
            f"{dst} is named, but containerd says that the image is not whole or not unpacked",
            detail=f"{check.status}, {'unpacked' if check.unpacked else 'not unpacked'}",
            hint="read containerd's log on that host",
        )
    pinned = answers.get(f"pin-{number}")
    return failure(pinned, dst) if pinned and not pinned.ok else None
