"""A run's own root of garbage collection: a tiny blob whose labels protect other blobs until an image has them. Pure.

``containerd.io/gc.root`` is a single key. If it were put on a blob of the image, two runs that bring the same image to
a host would take off each other's protection.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ctr_ferry import shell
from ctr_ferry.ctr import templates
from ctr_ferry.ctr.commands import GC_REF, GC_ROOT, OURS
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.templates import fill
from ctr_ferry.oci.descriptor import Descriptor

_TRIES = 50  # to label a blob before a collection takes it; one is enough unless images are removed all the time
_EXPIRED = timedelta(days=2)  # a protection lasts a day at most, and may begin when its run is a day old
_OWNER = re.compile(rf"{OURS}\.(\d{{8}}T\d{{6}}Z)-[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Root:
    """One root in one namespace.

    Attributes:
        place: no two roots of a namespace have the same owner and number.
        blobs: what the root protects, whether it is there yet or not.
    """

    place: Place
    blobs: Sequence[Descriptor]
    number: int

    @property
    def data(self) -> bytes:
        """The bytes of the root's own blob."""
        return f"{self.place.owner} holds blobs of {self.place.namespace}, {self.number}\n".encode()

    @property
    def digest(self) -> str:
        """The digest of the root's own blob."""
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    def prepare(self) -> str:
        """Returns sh text that takes in the root's blob and labels it; it tries again if a collection took the blob."""
        place, key = self.place, f"{self.place.owner}-root-{self.number}"
        ingest = place.ctr.ingest(place.namespace, self.digest, len(self.data), key)
        return fill(
            templates.PREPARE_ROOT,
            tries=" ".join(map(str, range(_TRIES))),
            take=f"{shell.printf(self.data)} | {ingest}",
            label=place.ctr.label(place.namespace, self.digest, *self._labels),
        )

    @property
    def _labels(self) -> list[str]:
        """``key=value`` of the root, and of its references to the blobs."""
        owner = self.place.owner
        references = [f"{GC_REF}.{owner}.{number}={blob.digest}" for number, blob in enumerate(self.blobs)]
        return [f"{GC_ROOT}={owner}", *references]

    def release(self) -> str:
        """Returns sh text that takes the labels off: the next collection takes the root, and blobs without a name."""
        off = [f"{label.partition('=')[0]}=" for label in self._labels]
        return self.place.ctr.bounded.label(self.place.namespace, self.digest, *off)

    def remove(self) -> str:
        """Returns sh text that removes the root's blob, which starts a collection."""
        return self.place.ctr.bounded.line(self.place.namespace, "content", "rm", self.digest)


def finish_ingests(place: Place) -> str:
    """Returns sh text that finishes the ingests of this run: descriptor 5 must be an empty regular file."""
    return fill(
        templates.FINISH_INGESTS,
        active=place.ctr.bounded.line(place.namespace, "content", "active"),
        owner=re.escape(place.owner),
        finish=finish(place, '"$key"'),
    )


def finish(place: Place, key: str) -> str:
    """Returns sh text that finishes one ingest; ``key`` is a word of sh."""
    return f"{place.ctr.bounded.line(place.namespace, 'content', 'ingest')} {key} <&5"


def expired(owner: str, now: datetime) -> bool:
    """Tells whether the run of this id cannot be at work any more; an id of another form never has expired."""
    if not (match := _OWNER.fullmatch(owner)):
        return False
    try:
        began = datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return began < now - _EXPIRED


def expired_labels(labels: str, now: datetime) -> tuple[str, ...]:
    """Returns the keys of labels that expired runs have left, from a blob's labels as ``content ls`` prints them."""
    pairs = [label.partition("=")[::2] for label in labels.split(",")]
    owners = {key: value if key == GC_ROOT else key.removeprefix(f"{GC_REF}.") for key, value in pairs}
    return tuple(key for key, owner in owners.items() if key.startswith((GC_ROOT, GC_REF)) and expired(owner, now))


def expired_ingests(active: Iterable[str], now: datetime) -> tuple[str, ...]:
    """Returns the keys of ingests that expired runs have left, from the lines of ``content active``."""
    return tuple(words[0] for line in active if (words := line.split()) and expired(words[0], now))
