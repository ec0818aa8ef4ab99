"""The names of images whose blobs have come to a host: given in one remote command, and verified by its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ctr_ferry.ctr import checks, ingest, naming
from ctr_ferry.ctr.checks import Check
from ctr_ferry.ctr.failures import failure, required
from ctr_ferry.ctr.listing import Listing, parse_digests
from ctr_ferry.ctr.naming import Method, Naming
from ctr_ferry.ctr.verdict import judge, numbers, tell_moved, unproved
from ctr_ferry.errors import FerryError, VerifyFailed
from ctr_ferry.images.roll_back import remove_names
from ctr_ferry.shell import Answer
from ctr_ferry.ssh.host import Host
from ctr_ferry.transfer.copy_request import CopyRequest
from ctr_ferry.transfer.destination import Destination
from ctr_ferry.transfer.plan import Plan, is_foreign, is_usable


def name_images(host: Host, ready: Sequence[Plan], copy_request: CopyRequest, found: Destination) -> None:
    """Names images, verifies each, and notes the result in its plan.

    A new name whose blobs have vanished meanwhile is removed again.

    Raises:
        FerryError: the host did not answer.
    """
    namings = [_naming(plan, copy_request, found) for plan in ready]
    answers = host.ask(ingest.names(found.place, namings))
    now = Listing.parse(found.place.namespace, required(answers["verify"], "verify").text)
    there = parse_digests(answers["there"].text.splitlines())
    checked = checks.parse_checks(answers["check"].text) if "check" in answers else {}
    was, kept, vanished = naming.was(found.place, answers), numbers(answers["kept"]), []
    for number, (plan, given) in enumerate(zip(ready, namings, strict=True)):
        verdict = judge(
            plan.report.dst,
            plan.report.digest,
            answers[f"name-{number}"],
            now.get(plan.report.dst),
            namespace=found.place.namespace,
            cri_managed=found.place.cri_managed,
            tolerant=found.facts.ctr.capabilities.fails_on_foreign and given.foreign,
            fresh=plan.existing is None,
        )
        pinned = answers.get(f"pin-{number}")
        plan.again = verdict.error or _verify(plan, copy_request, found, there=there, checked=checked, pinned=pinned)
        if plan.again:
            if number in kept and verdict.ours and not plan.existing:
                vanished.append(plan)
        elif not verdict.ours:
            plan.unchanged("somebody else gave that name meanwhile, with this digest")
        elif number not in kept:
            plan.again = unproved(plan.report.dst, existed=plan.existing is not None)
        elif plan.existing:
            tell_moved(plan.report, was.get(plan.report.dst), now.get(plan.report.dst))
        plan.done = plan.again is None
    if vanished:
        names, digests = [plan.report.dst for plan in vanished], {plan.report.digest for plan in vanished}
        remove_names(host, found.facts.ctr, found.listing, names, digests)


def _naming(plan: Plan, copy_request: CopyRequest, found: Destination) -> Naming:
    assert plan.target and plan.needed  # noqa: S101
    target, needed = plan.target, frozenset(blob.digest for blob in plan.needed.blobs)
    content = replace(found.content, visible=needed)
    whole, foreign = content.below(target).keys() <= needed, is_foreign(plan, found)
    return Naming(
        Method.BLOBS,
        plan.image_copy.image.name,
        plan.image_copy.dst,
        target,
        replaces=plan.existing is not None,
        whole=whole,
        foreign=foreign,
        rest=content.rest(target, found.facts.platform) if target.is_index and not whole else {},
        unpack=copy_request.unpack,
        complete=not foreign,
        pin=copy_request.pin,
    )


def _verify(
    plan: Plan,
    copy_request: CopyRequest,
    found: Destination,
    *,
    there: frozenset[str],
    checked: Mapping[str, Check],
    pinned: Answer | None,
) -> FerryError | None:
    """Returns what is wrong with a named image besides its name, by what the host says."""
    assert plan.needed  # noqa: S101
    dst = plan.report.dst
    if absent := [blob.digest for blob in plan.needed.blobs if blob.digest not in there]:
        return VerifyFailed(
            f"{dst} is named, but blobs of it have vanished meanwhile",
            detail="\n".join(absent),
            hint="run the same command again; something removes images on that host all the time",
        )
    check = checked.get(dst, checks.UNKNOWN)
    if not is_usable(plan, copy_request, found, check):
        return VerifyFailed(
            f"{dst} is named, but containerd says that the image is not whole or not unpacked",
            detail=f"{check.status}, {'unpacked' if check.unpacked else 'not unpacked'}",
            hint="read containerd's log on that host",
        )
    return failure(pinned, dst) if pinned and not pinned.ok else None
