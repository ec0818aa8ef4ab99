"""Whether a name was given: judged by the listing afterwards, never by ctr's exit status alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ctr_ferry.ctr.commands import CRI_MANAGED
from ctr_ferry.ctr.failures import failure
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.methods import TAKEN
from ctr_ferry.errors import READ_LOG, FerryError, ReferenceExists, VerifyFailed
from ctr_ferry.shell import Answer
from ctr_ferry.text import tail


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt to give a name ended: without error if the name is right, and whether the name there is ours."""

    error: FerryError | None
    ours: bool


def exists(name: str, namespace: str, there: str, wanted: str) -> ReferenceExists:
    """Returns the error for a name that has another digest."""
    return ReferenceExists(
        f"{name} exists in namespace {namespace} with another digest",
        detail=f"there {there}\nsource {wanted}",
        hint="add --force to let the name point at the source's digest",
    )


def judge(
    name: str,
    digest: str,
    answer: Answer,
    now: Image | None,
    *,
    namespace: str,
    cri_managed: bool,
    tolerant: bool,
    fresh: bool = False,
) -> Verdict:
    """Decides whether the name was given.

    Args:
        digest: what the name must point at.
        now: the name's record after the naming step, whose answer is ``answer``.
        cri_managed: whether CRI must have labelled the name.
        tolerant: whether a failed step does not matter if the name is right: 1.0 and 1.1 name an image of another
            platform and then fail to unpack it.
        fresh: whether nobody had the name before. If so, another digest means that somebody else gave the name.
    """
    right = now is not None and now.digest == digest
    if is_taken(answer, name):
        return Verdict(None if right else exists(name, namespace, now.digest if now else "gone again", digest), False)
    if not answer.ok and not (tolerant and right):
        return Verdict(failure(answer, name), right)
    if now is None:
        return Verdict(_unproved(f"ctr reports success, but {name} is not there", tail(answer.stderr)), False)
    if not right:
        moved = exists(name, namespace, now.digest, digest) if fresh else _moved(name, now.digest, digest)
        return Verdict(moved, False)
    if cri_managed and not now.cri_managed:
        return Verdict(_unproved(f"CRI did not label {name}, so kubelet would not see it"), True)
    return Verdict(None, True)


def _moved(name: str, there: str, wanted: str) -> VerifyFailed:
    return VerifyFailed(
        f"{name} points at another digest than it should",
        detail=f"there {there}\nwanted {wanted}",
        hint="somebody else uses that name: run the command again, with --force if the name is yours",
    )


def _unproved(message: str, detail: str = "") -> VerifyFailed:
    hint = READ_LOG
    return VerifyFailed(message, detail=detail, hint=hint)


def is_taken(answer: Answer, name: str) -> bool:
    """Whether a naming step did nothing because somebody else had given the name."""
    return answer.exit == TAKEN or f'"{name}": already exists' in answer.stderr


def unproved(name: str, *, existed: bool) -> VerifyFailed:
    """Returns the error for a name that the script could not verify, and removed again unless it existed before."""
    now = "it may point at either image now" if existed else "the name was removed again"
    return VerifyFailed(
        f"{name} was given, but the host could not verify it, so {now}",
        hint="somebody else may be at work on that image: run the command again",
    )


def numbers(answer: Answer) -> frozenset[int]:
    """Parses the answer to the step ``kept``: the numbers of the verified names."""
    return frozenset(int(word) for word in answer.text.split() if word.isdecimal())


def labels_gone(before: Image | None, now: Image | None) -> str:
    """Says which labels a name lost when it was moved; empty for none. CRI's own label does not count."""
    if before is None or now is None:
        return ""
    gone = sorted(before.labels - now.labels - {CRI_MANAGED, ""})
    return f"labels that are gone: {', '.join(gone)}" if gone else ""


def records_left(digests: Iterable[str], before: Listing, after: Listing) -> list[str]:
    """Returns CRI's own records that came since ``before``, of digests that have no user's name any more."""
    named = {image.digest for image in after.images if image.user_named}
    gone = set(digests) - named
    return [i.name for i in after.images if i.digest in gone and not i.user_named and not before.get(i.name)]
