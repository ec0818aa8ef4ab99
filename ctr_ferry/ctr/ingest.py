"""How blobs come into a host's content store: what it has, and how one blob is taken in. Pure.

Each blob comes by itself, and stays once it is there: by ``content ingest`` up to ctr 1.6, as the only blob of an
archive from 1.7 on. Measured on 1.0.3 to 2.3.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ctr_ferry import shell
from ctr_ferry.ctr import free_space
from ctr_ferry.ctr.commands import OURS, Ctr
from ctr_ferry.ctr.gc_root import expired_ingests, expired_labels
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.oci import layout
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.oci.reference import is_digest

# ctr hands containerd a MiB at a time. dd gathers the next MiB meanwhile, where a pipe alone gathers 64 KiB.
# (A ctr that fails is noticed with the next MiB, or at the end.)
_GATHER = "dd ibs=64k obs=1024k 2>/dev/null"
_SLOWEST = 1 << 16  # bytes a second; the host itself ends a slower transfer


def time_for(size: int, least: int) -> int:
    """Returns the seconds after which the host itself ends a transfer of ``size`` bytes; at least ``least``."""
    return least + size // _SLOWEST


@dataclass(frozen=True, slots=True)
class Store:
    """What a content store has, for a copy to one of its namespaces.

    Attributes:
        here, elsewhere: digests in this namespace; in others, from which blobs are linked rather than sent.
        labels: by digest, keys of labels that expired runs of ctr-ferry have left here.
        ingests: keys of unfinished ingests that expired runs have left here.
    """

    here: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ingests: tuple[str, ...] = ()


def questions(settings: Settings, namespace: str, names: Iterable[str]) -> dict[str, str]:
    """Returns steps that ask for the store, images of these names, and free space; they follow the probe's steps."""
    ask = 'ready && $ctr --address "$address" '
    snapshotter = ("--snapshotter", settings.snapshotter) if settings.snapshotter else ()
    filters = [f'name=="{name}"' for name in names]
    check = shell.join(["--namespace", namespace, "images", "check", *snapshotter, *filters])
    active = shell.join(["--namespace", namespace, "content", "active"])
    steps = {"store": _STORE, "active": ask + active, "check": ask + check if filters else ":"}
    return {**steps, "room": free_space.question(settings)}


# Labels are printed for the blobs alone that ctr-ferry has labelled: there may be ten thousand others.
# A label may have a line break, so a line that does not begin like a row is dropped.
_STORE = f"""ready && $ctr --address "$address" namespaces ls -q | while read -r ns; do
  echo "namespace $ns"
  $ctr --address "$address" --namespace "$ns" content ls </dev/null | sed -n \\
    -e '/^[a-z0-9]*:[0-9a-f]*[[:space:]]/!d' \\
    -e '/[=.]{OURS}[.]/{{' -e p -e d -e '}}' \\
    -e 's/^\\([a-z0-9]*:[0-9a-f]*\\)[[:space:]].*/\\1/p'
done"""


def parse_store(store: str, active: str, namespace: str, now: datetime) -> Store:
    """Parses the answers to ``store`` and ``active``; ``now`` decides which runs have expired."""
    found: dict[str, set[str]] = {}
    labels: dict[str, tuple[str, ...]] = {}
    there = ""
    for line in store.split("\n"):
        words = line.split()
        if line.startswith("namespace "):
            there = line.partition(" ")[2]
        elif words and is_digest(words[0]):
            found.setdefault(there, set()).add(words[0])
            if there == namespace and len(words) > 1 and (keys := expired_labels(words[-1], now)):
                labels[words[0]] = keys
    here = frozenset(found.pop(namespace, ()))
    elsewhere = frozenset[str]().union(*found.values())
    return Store(here=here, elsewhere=elsewhere, labels=labels, ingests=expired_ingests(active.split("\n"), now))


@dataclass(frozen=True, slots=True)
class ImageBlobs:
    """The blobs that one image needs on a host, the target first; and by digest the indexes and manifests of them."""

    blobs: tuple[Descriptor, ...]
    documents: Mapping[str, bytes]


def to_send(images: Iterable[ImageBlobs], store: Store) -> list[Descriptor]:
    """Returns the blobs that must be sent, each once: those that the host lacks and that are no documents."""
    wanted = {blob.digest: blob for image in images for blob in image.blobs if blob.digest not in image.documents}
    return [blob for digest, blob in wanted.items() if digest not in store.here | store.elsewhere]


@dataclass(frozen=True, slots=True)
class Intake:
    """How one blob is taken in: a step that fails if it is not there afterwards, and bytes around it on stdin."""

    step: str
    head: bytes = b""
    tail: bytes = b""


def intake(place: Place, blob: Descriptor, attempt: int) -> Intake:
    """Takes one blob in: by ``content ingest``, and from ctr 1.7 on as the only blob of an archive without images.

    ctr 1.7 and 2.x are built with Go 1.22 or later. There, ``ingest`` hands containerd 32 KiB at a time, and import
    hands it a MiB: ``ingest`` costs twice the CPU. Up to 1.6, import costs more. Such an import fails, since it finds
    no image, so the step asks the store for the digest afterwards. No two attempts of an owner at a blob have the same
    number.
    """
    ctr, namespace = place.ctr, place.namespace
    if not ctr.capabilities.slow_ingest:
        return Intake(f"{_GATHER} | {ingest_stdin(place, blob, attempt)}")
    there = ctr.line(namespace, "content", "ls", "-q", f"digest=={blob.digest}")
    step = f"""output=$({ctr.import_stdin(namespace, "--no-unpack")} 2>&1)
[ "$({there})" = {blob.digest} ] || {{ echo "$output" >&2; false; }}"""
    return Intake(step, *layout.around(blob))


def ingest_stdin(place: Place, blob: Descriptor, attempt: int = 0) -> str:
    """Takes in one blob by ``content ingest``; from a pipe, it cannot go on where another attempt broke off."""
    key = f"{place.owner}-{blob.digest.partition(':')[2][:12]}-{attempt}"
    return place.ctr.ingest(place.namespace, blob.digest, blob.size, key)


def read(ctr: Ctr, namespace: str, content_root: str, blob: Descriptor) -> str:
    """Writes a blob to stdout: from its file where that can be read, which is many times faster than through ctr."""
    algorithm, _, value = blob.digest.partition(":")
    file = shell.join([f"{content_root}/blobs/{algorithm}/{value}"])
    return f"if [ -r {file} ]; then cat {file}; else {ctr.content(namespace, blob.digest)}; fi"
