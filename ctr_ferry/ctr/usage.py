"""Which images containers use: by the image name that a container has, and by its snapshot. Pure.

A container keeps the name of its image as text. The name may have been removed or moved since. The container's
snapshot still tells the image: labels in the content store lead from an image's target to its snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.errors import CHECK_ONE, AnswerTooLarge
from ctr_ferry.oci.reference import is_digest

_CONTENT, _SNAPSHOT = "containerd.io/gc.ref.content", "containerd.io/gc.ref.snapshot."
_MOST_STEPS = 3_000_000  # from blob to blob, for all images; a thousand images of ten layers take 20,000


@dataclass(frozen=True, slots=True)
class Container:
    """A container, running or not, and the name of its image when the container was created."""

    id: str
    image: str


@dataclass(frozen=True, slots=True)
class Blob:
    """What a blob's labels refer to: other blobs, and the snapshots that the blob was unpacked to."""

    content: frozenset[str]
    snapshots: frozenset[str]


def questions(ctr: Ctr, namespace: str) -> dict[str, str]:
    """Builds the steps whose answers tell which images are in use."""
    return {
        "containers": ctr.line(namespace, "containers", "ls"),
        "snapshots": ctr.line(namespace, "snapshots", *ctr.unpacking, "ls"),
        "content": ctr.line(namespace, "content", "ls"),
    }


def parse_containers(text: str) -> tuple[Container, ...]:
    """Parses ``containers ls``: CONTAINER IMAGE RUNTIME; a container without image has ``-``."""
    rows = [line.split() for line in text.split("\n")[1:]]
    return tuple(Container(row[0], row[1]) for row in rows if len(row) > 1)


def parse_parents(text: str) -> dict[str, str]:
    """Parses ``snapshots ls``, KEY PARENT KIND, and returns parents by key; a base has no parent and is left out."""
    rows = [line.split() for line in text.split("\n")[1:]]
    return {row[0]: row[1] for row in rows if len(row) == 3}


def parse_blobs(text: str) -> dict[str, Blob]:
    """Parses the labels of ``content ls``; sizes and ages before them have one word or two."""
    rows = [line.split(None, 1) for line in text.split("\n")]
    return {words[0]: _blob(words[-1]) for words in rows if words and is_digest(words[0])}


def _blob(row: str) -> Blob:
    """Reads the labels at the end of a row."""
    labels = [label.partition("=")[::2] for label in row.split(",")]
    pairs = [(key.split()[-1], digest) for key, value in labels if key.strip() and is_digest(digest := value.strip())]
    content = frozenset(digest for key, digest in pairs if key.startswith(_CONTENT))
    return Blob(content, frozenset(digest for key, digest in pairs if key.startswith(_SNAPSHOT)))


def used(
    listing: Listing, containers: Iterable[Container], parents: Mapping[str, str], blobs: Mapping[str, Blob]
) -> dict[str, list[str]]:
    """Returns the ids of the containers that use an image, by the digest of the image's target.

    CRI, ctr and nerdctl give a container's own snapshot the container's id as its key. If the image that the container
    names does not have the snapshot's parent, every image that has the parent counts as used.

    Raises AnswerTooLarge if the labels refer to more than any real content store has.
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
    """The targets by snapshot: their own snapshots, and those of every blob that their labels lead to."""
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
            "the labels of content, snapshots and containers there refer to one another without end",
            hint=CHECK_ONE,
        )
