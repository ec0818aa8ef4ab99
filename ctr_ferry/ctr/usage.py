"""Which images containers use: by the names they were made from, and by the snapshots they stand on. Pure.

A container keeps the name of its image as text. That name may be gone since, or point elsewhere; the container's
snapshot still tells what it stands on: the content store's labels lead from an image's target to its snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.errors import AnswerTooLarge
from ctr_ferry.oci.reference import is_digest

_CONTENT, _SNAPSHOT = "containerd.io/gc.ref.content", "containerd.io/gc.ref.snapshot."
_MOST_STEPS = 3_000_000  # from blob to blob, for all images; a thousand images of ten layers take 20,000


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
    rows = [line.split() for line in text.split("\n")[1:]]
    return tuple(Container(row[0], row[1]) for row in rows if len(row) > 1)


def parse_parents(text: str) -> dict[str, str]:
    """Parses ``snapshots ls``: KEY PARENT KIND, to parent by key; a base has none and is left out."""
    rows = [line.split() for line in text.split("\n")[1:]]
    return {row[0]: row[1] for row in rows if len(row) == 3}


def parse_blobs(text: str) -> dict[str, Blob]:
    """Parses ``content ls`` for its labels alone; sizes and ages have one word or two."""
    found = {}
    for line in text.split("\n"):
        words = line.split(None, 1)
        if words and is_digest(words[0]):
            found[words[0]] = Blob(*_held(words[-1]))
    return found


def _held(row: str) -> tuple[frozenset[str], frozenset[str]]:
    """What the labels at a row's end hold: content, and snapshots."""
    content, snapshots = set(), set()
    for label in row.split(","):
        key, _, value = label.partition("=")
        key = key.split()[-1] if key.strip() else ""
        if is_digest(held := value.strip()):
            content |= {held} if key.startswith(_CONTENT) else set()
            snapshots |= {held} if key.startswith(_SNAPSHOT) else set()
    return frozenset(content), frozenset(snapshots)


def used(
    listing: Listing, containers: Iterable[Container], parents: Mapping[str, str], blobs: Mapping[str, Blob]
) -> dict[str, list[str]]:
    """The containers that use an image, by its target's digest.

    A container's own snapshot has its id as its key: so CRI, ctr and nerdctl name it. Where its name's image does
    not have that snapshot, every image that has it counts.

    Raises:
        AnswerTooLarge: the labels lead on and on.
    """
    named = {image.name: image.digest for image in reversed(listing.images)}
    on = _images_by_snapshot(set(named.values()), blobs)
    found: dict[str, list[str]] = {}
    steps = 0
    for container in containers:
        digest, having = named.get(container.image), on.get(parents.get(container.id, ""), set())
        using = having if digest is None else {digest} if digest in having else {digest} | having
        steps += len(using)
        _refuse_more(steps)
        for each in using:
            found.setdefault(each, []).append(container.id)
    return found


def _images_by_snapshot(digests: Iterable[str], blobs: Mapping[str, Blob]) -> dict[str, set[str]]:
    """The targets by what was unpacked of them: their own snapshots, and those of all that their labels lead to."""
    found: dict[str, set[str]] = {}
    steps = 0
    for digest in digests:
        seen, left = {digest}, [digest]
        while left:
            if blob := blobs.get(left.pop()):
                for snapshot in blob.snapshots:
                    found.setdefault(snapshot, set()).add(digest)
                new = blob.content - seen
                seen |= new
                left += new
                steps += 1 + len(blob.content) + len(blob.snapshots)
            _refuse_more(steps)
    return found


def _refuse_more(steps: int) -> None:
    if steps > _MOST_STEPS:
        raise AnswerTooLarge(
            "containers, snapshots and content there hold one another without an end in sight",
            hint="look at them by hand: ctr containers ls, ctr snapshots ls, ctr content ls",
        )
