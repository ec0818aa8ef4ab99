"""A run's own root of garbage collection: a tiny blob whose labels hold what is brought, until all has its name. Pure.

``containerd.io/gc.root`` is one key. Were it put on a blob of the image, two runs that bring that image to one host
would take each other's protection off.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ctr_ferry import shell
from ctr_ferry.ctr.commands import GC_REF, GC_ROOT, OURS, Ctr

_TRIES = 50  # to label a blob before a collection takes it; the first does, unless images are removed all the time
_EXPIRED = timedelta(days=2)  # nothing is held for longer than a day, by a run that may be a day old when it begins
_OWNER = re.compile(rf"{OURS}\.(\d{{8}}T\d{{6}}Z)-[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Root:
    """One root in one namespace.

    Attributes:
        owner: no two roots of a namespace have the same owner and number.
        held: digests of what it holds, whether it is there yet or not.
    """

    ctr: Ctr
    namespace: str
    owner: str
    held: tuple[str, ...]
    number: int = 0

    @property
    def data(self) -> bytes:
        """The blob."""
        return f"{self.owner} holds blobs of {self.namespace}, {self.number}\n".encode()

    @property
    def digest(self) -> str:
        """The blob's digest."""
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    def prepare(self) -> str:
        """Sh text that takes in the blob and labels it; anew where a collection came in between."""
        key = f"{self.owner}-root-{self.number}"
        take = f"{shell.printf(self.data)} | {self.ctr.ingest(self.namespace, self.digest, len(self.data), key)}"
        keep = f"{self.ctr.keep(self.namespace, self.digest, self.owner, self.held)} >/dev/null"
        tries = " ".join(map(str, range(_TRIES)))
        return f"{{ kept=1; for n in {tries}; do {take} || break; {keep} && kept=0 && break; done; [ $kept = 0 ]; }}"

    def release(self) -> str:
        """Sh text that takes the labels off: the blob goes with the next collection, and so does what it held."""
        return self.ctr.bounded.release(self.namespace, self.digest, self.owner, self.held)

    def remove(self) -> str:
        """Sh text that removes the blob, which brings a collection."""
        return self.ctr.bounded.line(self.namespace, "content", "rm", self.digest)


def expired(owner: str, now: datetime) -> bool:
    """Whether a run of this id cannot be at work any more; never what has another form than our ids."""
    if not (match := _OWNER.fullmatch(owner)):
        return False
    try:
        began = datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return began < now - _EXPIRED


def expired_labels(labels: str, now: datetime) -> tuple[str, ...]:
    """Of a blob's labels, as ``content ls`` prints them, the keys that expired runs have left."""
    pairs = [label.partition("=")[::2] for label in labels.split(",")]
    owners = {key: value if key == GC_ROOT else key.removeprefix(f"{GC_REF}.") for key, value in pairs}
    return tuple(key for key, owner in owners.items() if key.startswith((GC_ROOT, GC_REF)) and expired(owner, now))


def expired_ingests(active: Iterable[str], now: datetime) -> tuple[str, ...]:
    """Of the lines of ``content active``, the keys that expired runs have left."""
    return tuple(words[0] for line in active if (words := line.split()) and expired(words[0], now))
