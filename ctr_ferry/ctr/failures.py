"""What a failed ctr command meant, by its words (measured on 1.0.3 to 2.1.9)."""

from __future__ import annotations

import re

from ctr_ferry.errors import (
    CommandFailed,
    ContentMissing,
    DaemonUnreachable,
    DiskFull,
    FerryError,
    PermissionDenied,
    PlatformMissing,
)
from ctr_ferry.shell import Answer
from ctr_ferry.text import tail

_SOCKET = re.compile(r"dial unix|unix://|\.sock\b")
# In the middle of a command; a blob that somebody else is writing is Unavailable, too.
_GONE = re.compile(r"transport is closing|error reading from server|code = Unavailable desc = connection")
_LOOK_AT_CONTAINERD = "look at `systemctl status containerd` on that host"


def daemon_trouble(stderr: str) -> FerryError | None:
    """Tells the daemon's absence from other failures; registry trouble says ``dial tcp`` and is none."""
    socket = _SOCKET.search(stderr) is not None
    detail = tail(stderr)
    if socket and "permission denied" in stderr:
        return PermissionDenied(
            "the user may not use containerd's socket",
            detail=detail,
            hint="log in as root, or set ansible_become: true",
        )
    if (socket and ("dial" in stderr or "cannot access socket" in stderr)) or _GONE.search(stderr):
        return DaemonUnreachable("containerd does not answer", detail=detail, hint=_LOOK_AT_CONTAINERD)
    return None


def content_missing(name: str, detail: str) -> ContentMissing:
    """The image is a name for content that is not all there."""
    return ContentMissing(
        f"{name} is named on this host, but not all of its content is there",
        detail=detail,
        hint="take it from a host that has it whole, or pull it again",
    )


def failure(answer: Answer, name: str) -> FerryError:
    """The error that a ctr command about the image ``name`` ended with."""
    detail = tail(answer.stderr)
    if trouble := daemon_trouble(answer.stderr):
        return trouble
    if "no match for platform" in detail:
        return PlatformMissing(f"{name} has nothing for that platform", detail=detail, hint="choose another --platform")
    if "content digest" in detail and "not found" in detail:
        return content_missing(name, detail)
    if "no space left on device" in detail:
        return DiskFull("the host's disk is full", detail=detail, hint="make room where containerd's root lies")
    return CommandFailed(
        f"ctr failed with exit status {answer.exit} on {name}",
        detail=detail or tail(answer.text),
        hint="run that host's ctr by hand to see more",
    )


def required(answer: Answer, what: str) -> Answer:
    """The answer, where its command succeeded.

    Raises:
        FerryError: what its failure meant.
    """
    if not answer.ok:
        raise failure(answer, what)
    return answer
