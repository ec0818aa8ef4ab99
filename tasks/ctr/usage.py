"""Which images containers use: by the names they were made from, and by the snapshots they stand on. Pure.

A container keeps the name of its image as text. That name may be gone since, or point elsewhere; the container's
snapshot still tells what it stands on: the content store's labels lead from an image's target to its snapshot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.ctr.commands import Ctr
from tasks.ctr.images import Listing
from tasks.oci.reference import is_digest

_CONTENT = re.compile(r"containerd\.io/gc\.ref\.content[^=,]*=(sha256:[0-9a-f]{64})")
_SNAPSHOT = re.compile(r"containerd\.io/gc\.ref\.snapshot\.[^=,]+=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Container:
    """A container, running or not, and the name that its image had when it was made."""

    id: str
    image: str


@dataclass(frozen=True, slots=True)
class Blob:
    """What a blob's labels hold: other blobs, and the snapshots that it was unpacked to."""

    content: frozenset[str]
    snapshots: frozenset[str]


def questions(ctr: Ctr, namespace: str) -> dict[str, str]:
    """The steps whose answers tell what is in use."""
    snapshotter = ("--snapshotter", ctr.snapshotter) if ctr.snapshotter else ()
    return {
        "containers": ctr.line(namespace, "containers", "ls"),
        "snapshots": ctr.line(namespace, "snapshots", *snapshotter, "ls"),
        "content": ctr.line(namespace, "content", "ls"),
    }


def parse_containers(text: str) -> tuple[Container, ...]:
    """Parses ``containers ls``: CONTAINER IMAGE RUNTIME, ``-`` for no image."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return tuple(Container(row[0], row[1]) for row in rows if len(row) > 1)


def parse_parents(text: str) -> dict[str, str]:
    """Parses ``snapshots ls``: KEY PARENT KIND, to parent by key; a base has none and is left out."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return {row[0]: row[1] for row in rows if len(row) == 3}


def parse_blobs(text: str) -> dict[str, Blob]:
    """Parses ``content ls`` for its labels alone; sizes and ages have one word or two."""
    found = {}
    for line in text.splitlines():
        digest = line.split(None, 1)[0] if line.strip() else ""
        if is_digest(digest):
            found[digest] = Blob(frozenset(_CONTENT.findall(line)), frozenset(_SNAPSHOT.findall(line)))
    return found


def used(
    listing: Listing, containers: Iterable[Container], parents: Mapping[str, str], blobs: Mapping[str, Blob]
) -> dict[str, list[str]]:
    """The containers that use an image, by its target's digest.

    A container's own snapshot has its id as its key: so CRI, ctr and nerdctl name it. Where its name's image does
    not have that snapshot, every image that has it counts.
    """
    snapshots = {digest: _snapshots(digest, blobs) for digest in {image.digest for image in listing.images}}
    found: dict[str, list[str]] = {}
    for container in containers:
        image, parent = listing.get(container.image), parents.get(container.id)
        digests = {image.digest} if image else set()
        if parent and not any(parent in snapshots[digest] for digest in digests):
            digests |= {digest for digest, names in snapshots.items() if parent in names}
        for digest in digests:
            found.setdefault(digest, []).append(container.id)
    return found


def _snapshots(digest: str, blobs: Mapping[str, Blob]) -> set[str]:
    """What was unpacked of a target: its own snapshots, and those of all that its labels lead to."""
    found: set[str] = set()
    seen, left = {digest}, [digest]
    while left:
        if blob := blobs.get(left.pop()):
            found |= blob.snapshots
            new = blob.content - seen
            seen |= new
            left += new
    return found
