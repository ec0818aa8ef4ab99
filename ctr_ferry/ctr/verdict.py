"""What became of a name: judged by what the host says afterwards, never by ctr's exit status alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ctr_ferry.ctr.commands import CRI_MANAGED
from ctr_ferry.ctr.failures import failure
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.naming import TAKEN
from ctr_ferry.errors import FerryError, ReferenceExists, VerifyFailed
from ctr_ferry.shell import Answer
from ctr_ferry.text import tail


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a naming ended.

    Attributes:
        error: why it failed; None where the name is as it should be.
        ours: whether the name, if it is there, is there because of us.
    """

    error: FerryError | None
    ours: bool


def exists(name: str, namespace: str, there: str, wanted: str) -> ReferenceExists:
    """The name is taken by another digest."""
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
        answer: the naming step's.
        now: the name's record afterwards.
        cri_managed: whether CRI must have labelled it.
        tolerant: whether a failure does not matter if the name is right (1.0 and 1.1 name an image of another
            platform, then fail to unpack it).
        fresh: whether nobody had the name before, so that who moved it since was another one that gave it, too.
    """
    right = now is not None and now.digest == digest
    if is_taken(answer, name):
        return Verdict(None if right else exists(name, namespace, now.digest if now else "gone again", digest), False)
    if not answer.ok and not (tolerant and right):
        return Verdict(failure(answer, name), right)
    if now is None:
        detail = tail(answer.stderr)
        return Verdict(VerifyFailed(f"ctr reports success, but {name} is not there", detail=detail), False)
    if not right:
        moved = VerifyFailed(
            f"{name} points at another digest than it should",
            detail=f"there {now.digest}\nwanted {digest}",
            hint="somebody else uses that name; look again, then add --force if it is yours",
        )
        return Verdict(exists(name, namespace, now.digest, digest) if fresh else moved, False)
    if cri_managed and not now.cri_managed:
        return Verdict(
            VerifyFailed(
                f"{name} was there, but CRI took no notice of it, so that kubelet would not see it",
                hint="look at containerd's log on that host, then run it again",
            ),
            True,
        )
    return Verdict(None, True)


def is_taken(answer: Answer, name: str) -> bool:
    """Whether a naming step gave nothing, since somebody else was first."""
    return answer.exit == TAKEN or f'"{name}": already exists' in answer.stderr


def unproved(name: str) -> VerifyFailed:
    """The host itself did not find the name as it must be, and has taken it away again."""
    return VerifyFailed(
        f"{name} was given, but did not prove right on the host, and was taken away again",
        hint="somebody else may work on that image; look again, and run it again",
    )


def numbers(answer: Answer) -> frozenset[int]:
    """The numbers that a script's step ``kept`` said."""
    return frozenset(int(word) for word in answer.text.split() if word.isdecimal())


def labels_gone(before: Image | None, now: Image | None) -> str:
    """What is to be said of labels that others set on a name and that it lost when it was moved; empty for none.

    CRI sets its own label again, or not, as it sees fit.
    """
    if before is None or now is None:
        return ""
    gone = sorted(before.labels - now.labels - {CRI_MANAGED, ""})
    return f"labels that are gone: {', '.join(gone)}" if gone else ""


class Moved(Protocol):
    """What is reported of a name; see the results of retag, copy and load."""

    digest: str
    previous_digest: str
    note: str


def tell_moved(report: Moved, before: Image | None, now: Image | None) -> None:
    """Reports what a name pointed at right before it was moved, and the labels of others that it lost by that."""
    report.previous_digest = before.digest if before and before.digest != report.digest else ""
    report.note = "; ".join(filter(None, (report.note, labels_gone(before, now))))


def records_left(digests: Iterable[str], before: Listing, after: Listing) -> list[str]:
    """CRI's own records of digests that have no ordinary name any more, and that were not there before us."""
    named = {image.digest for image in after.images if image.user_named}
    gone = set(digests) - named
    return [i.name for i in after.images if i.digest in gone and not i.user_named and not before.get(i.name)]
