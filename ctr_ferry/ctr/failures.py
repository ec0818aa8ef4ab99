"""What a failed ctr command means, by ctr's words (measured on 1.0.3 to 2.3.4). Pure."""

from __future__ import annotations

import re

from ctr_ferry import shell
from ctr_ferry.errors import (
    CHECK_ONE,
    READ_LOG,
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

_MOST_JUDGED = 1 << 14  # characters of a line that are judged; names and paths make it long
_SOCKET = re.compile(r"dial unix|unix://|\.sock\b")
# The daemon ended during the command. "Unavailable" alone may also mean a blob that somebody else writes.
_GONE = re.compile(r"transport is closing|error reading from server|code = Unavailable desc = connection")
_NO_MANIFEST = re.compile(r"manifest sha256:\w{64}: not found")  # 1.0.3, of an image for another platform alone
UNPACKING = "failed to extract layer"  # of content that has arrived whole


def daemon_trouble(stderr: str) -> FerryError | None:
    """Returns the error if ctr could not reach the daemon; ``dial tcp`` is trouble with a registry and gives None."""
    socket = _SOCKET.search(stderr) is not None
    detail = tail(stderr)
    if socket and "permission denied" in stderr:
        return PermissionDenied(
            "the user may not use containerd's socket",
            detail=detail,
            hint="log in as root, or set ansible_become: true for this host in the inventory",
        )
    if (socket and ("dial" in stderr or "cannot access socket" in stderr)) or _GONE.search(stderr):
        return DaemonUnreachable("containerd does not answer", detail=detail, hint=READ_LOG)
    return None


def content_missing(name: str, detail: str) -> ContentMissing:
    """Returns the error for an image whose content is incomplete."""
    return ContentMissing(
        f"{name} is named on this host, but not all of its content is there",
        detail=detail,
        hint=bring(name),
    )


def bring(name: str) -> str:
    """Returns a hint that brings the whole image from any host that has all of it."""
    return f"bring all of it from a host that has it: fab -H HOST copy --from any --ref {shell.join([name])}"


def failure(answer: Answer, name: str) -> FerryError:
    """Returns the error of a failed ctr command that was about ``name``, usually an image."""
    detail, words = tail(answer.stderr), tail(answer.stderr, width=_MOST_JUDGED)
    if trouble := daemon_trouble(answer.stderr):
        return trouble
    if "no match for platform" in words or _NO_MANIFEST.search(words):
        hint = f"see which hosts have it for this platform: fab -H all images --ref {shell.join([name])}"
        return PlatformMissing(f"{name} has nothing for that platform", detail=detail, hint=hint)
    if "content digest" in words and "not found" in words:
        return ContentMissing(
            f"ctr did not find all of the content that {name} needs",
            detail=detail,
            hint=bring(name),
        )
    if "no space left on device" in words:
        hint = "make room on the disk of containerd's root directory"
        return DiskFull("the host's disk is full", detail=detail, hint=hint)
    if UNPACKING in words:
        hint = "if it has zstd and containerd is older than 1.5, build it with gzip; else bring it from another place"
        return CommandFailed(f"containerd could not unpack a layer of {name}", detail=detail, hint=hint)
    return CommandFailed(
        f"ctr failed with exit status {answer.exit} on {name}",
        detail=detail or tail(answer.text),
        hint=CHECK_ONE,
    )


def required(answer: Answer, what: str) -> Answer:
    """Returns the answer if its command succeeded; raises the FerryError that its failure means."""
    if not answer.ok:
        raise failure(answer, what)
    return answer
