"""How much room a host has where containerd writes, and whether the blobs of an image fit there. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ctr_ferry import shell
from ctr_ferry.ctr import probe
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.errors import DiskFull
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.text import printable, size

_NUMBER = re.compile(r"-?[0-9]{1,15}")  # KiB
_GROWTH = 3  # times its size that a compressed layer takes when it is unpacked; two to four are usual


@dataclass(frozen=True, slots=True)
class Space:
    """One file system, in bytes: ``free`` is for root, as whom containerd runs, ``available`` for every user."""

    size: int
    free: int
    available: int
    mount: str


@dataclass(frozen=True, slots=True)
class Room:
    """The file systems where containerd keeps blobs and where it unpacks them; most hosts have one for both."""

    blobs: Space
    unpacked: Space

    def less(self, coming: int, unpacked: int) -> Room:
        """The room that is left after so many bytes of blobs, and about so many bytes of what is unpacked."""
        here = there = coming + unpacked
        if self.blobs.mount != self.unpacked.mount:
            here, there = coming, unpacked
        # `judge` refuses by `free`, and how much is unpacked is only a guess.
        free, available = max(0, self.blobs.free - coming), max(0, self.blobs.available - here)
        return Room(
            replace(self.blobs, free=free, available=available),
            replace(self.unpacked, available=max(0, self.unpacked.available - there)),
        )


def question(settings: Settings) -> str:
    """Returns sh text that runs ``df`` on the content store and on containerd's root, with the probe's ``plugins``."""
    known = shell.join([probe.content_root(settings.root)]) if settings.root else ""
    asked = (
        "printf '%s\\n' \"$plugins\" | sed -n '/^Type: *io.containerd.content.v1/,/^Type: *io.containerd.[^c]/"
        "s/^  *root  *\\(\\/.*\\)/\\1/p' | sed -n 1p"
    )
    return f"""dir={known or f"$({asked})"}
[ -n "$dir" ] || dir={probe.DEFAULT_ROOT}
while [ -n "$dir" ] && [ ! -e "$dir" ]; do dir=${{dir%/*}}; done
df -Pk "${{dir:-/}}" "${{dir%/*}}/" """


def parse(text: str) -> Room | None:
    """Parses the answer; returns None if df prints no sizes."""
    rows = [space for line in text.splitlines() if (space := _row(line.split()))]
    return Room(rows[0], rows[-1]) if rows else None


def _row(words: list[str]) -> Space | None:
    """Reads one row. Device and mount point may have spaces: the sizes are the three numbers before a percentage."""
    for place in range(4, len(words)):
        numbers = words[place - 3 : place]
        if words[place].endswith("%") and all(_NUMBER.fullmatch(n) for n in numbers) and int(numbers[0]):
            size, used, available = (int(n) << 10 for n in numbers)
            mount = printable(" ".join(words[place + 1 :]))
            return Space(size=size, free=max(0, size - used), available=max(0, available), mount=mount)
    return None


def growth(layers: Iterable[Descriptor]) -> int:
    """Estimates the bytes that layers take when they are unpacked; configs and manifests take none."""
    found = [blob for blob in layers if "layer" in blob.media_type or "diff.tar" in blob.media_type]
    return sum(blob.size * (_GROWTH if blob.media_type.endswith(("gzip", "zstd")) else 1) for blob in found)


def judge(room: Room | None, coming: int, unpacked: int) -> DiskFull | str:
    """Returns an error if blobs surely do not fit, a warning if they may not fit or not once unpacked; else empty text.

    To be sent are ``coming`` bytes; unpacking takes ``unpacked`` bytes besides.
    """
    if room is None or not coming + unpacked:
        return ""
    blobs, snapshots = room.blobs, room.unpacked
    if coming > blobs.free:
        return DiskFull(
            f"the blobs do not fit: {size(coming)} are needed, and {size(blobs.free)} are free on {blobs.mount}; "
            "nothing was sent",
            hint=f"make room there: fab -H HOST run {shell.join([shell.join(['df', '-h', blobs.mount])])}",
        )
    beside = unpacked if blobs.mount == snapshots.mount else 0  # what is unpacked on the blobs' own file system
    if coming + beside > blobs.available:
        needed = _needs(coming, beside)
        return f"it may not fit: {needed} are needed, and {size(blobs.available)} are free on {blobs.mount}"
    if unpacked - beside > snapshots.available:
        free = f"{size(snapshots.available)} are free on {snapshots.mount}"
        return f"it may not fit unpacked: about {size(unpacked)} are needed, and {free}"
    return ""


def needs(room: Room | None, coming: int, unpacked: int) -> str:
    """Returns what a dry run reports: how much room is needed, and how much there is."""
    there = f"{size(room.blobs.available)} are free on {room.blobs.mount}" if room else "what is free is not known"
    return f"{_needs(coming, unpacked)} are needed, and {there}"


def _needs(coming: int, unpacked: int) -> str:
    return size(coming) + (f", and about {size(unpacked)} more when unpacked" if unpacked else "")
