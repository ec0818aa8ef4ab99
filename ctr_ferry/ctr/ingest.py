"""How an image's blobs come to a host: what it has, how they are taken in, held and named. Pure.

Blob by blob, into ``content ingest`` to ctr 1.6, as an archive of its own from 1.7 on; what arrived stays. A root of
our own holds them all before they are there, so that no collection takes them; the name is an index-only archive.
Measured on 1.0.3 to 2.1.9.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from ctr_ferry import shell
from ctr_ferry.ctr import free_space, naming
from ctr_ferry.ctr.commands import OURS, Ctr
from ctr_ferry.ctr.gc_root import Root, expired_ingests, expired_labels
from ctr_ferry.ctr.naming import Naming, Place
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.oci import layout
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.oci.reference import is_digest
from ctr_ferry.shell import Script

NAMED = b"named\n"  # said to a hold whose images all have their names
# ctr hands containerd a MiB at a time: the next is gathered meanwhile, rather than by 64 KiB, a pipe's, afterwards.
# (A ctr that fails is seen with the next MiB, or the end.)
_GATHER = "dd ibs=64k obs=1024k 2>/dev/null"
_SLOWEST = 1 << 16  # bytes a second; a transfer that is slower is ended by the host itself


def time_for(size: int, least: int) -> int:
    """Seconds after which the host itself ends a transfer of so many bytes."""
    return least + size // _SLOWEST


@dataclass(frozen=True, slots=True)
class Store:
    """What a containerd has, as far as a delivery to one of its namespaces goes.

    Attributes:
        here: what the namespace sees.
        elsewhere: what other namespaces see, which is linked rather than sent.
        labels: by digest, keys of labels that expired runs of ours have left here.
        ingests: what they have left unfinished here.
    """

    here: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ingests: tuple[str, ...] = ()


def questions(settings: Settings, namespace: str, names: Iterable[str]) -> dict[str, str]:
    """The steps that follow the probe's in one script (they use its words ``ctr``, ``address`` and ``ready``)."""
    ask = 'ready && $ctr --address "$address" '
    snapshotter = ("--snapshotter", settings.snapshotter) if settings.snapshotter else ()
    filters = [f'name=="{name}"' for name in names]
    check = shell.join(["--namespace", namespace, "images", "check", *snapshotter, *filters])
    active = shell.join(["--namespace", namespace, "content", "active"])
    steps = {"store": _STORE, "active": ask + active, "check": ask + check if filters else ":"}
    return {**steps, "room": free_space.question(settings)}


# Labels only of blobs that are labelled by us: there may be ten thousand others.
# A label may have a line break: what does not begin as a row does is nothing.
_STORE = f"""ready && $ctr --address "$address" namespaces ls -q | while read -r ns; do
  echo "namespace $ns"
  $ctr --address "$address" --namespace "$ns" content ls </dev/null | sed -n \\
    -e '/^[a-z0-9]*:[0-9a-f]*[[:space:]]/!d' \\
    -e '/[=.]{OURS}[.]/{{' -e p -e d -e '}}' \\
    -e 's/^\\([a-z0-9]*:[0-9a-f]*\\)[[:space:]].*/\\1/p'
done"""


def parse_store(store: str, active: str, namespace: str, now: datetime) -> Store:
    """Parses the answers to ``store`` and ``active``."""
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
    others = [digests for name, digests in found.items() if name != namespace]
    ingests = expired_ingests(active.split("\n"), now)
    return Store(frozenset(found.get(namespace, ())), frozenset[str]().union(*others), labels, ingests)


@dataclass(frozen=True, slots=True)
class Load:
    """One image on its way to a host.

    Attributes:
        blobs: all that is to be there in the end, the target first.
        documents: the bytes of indexes and manifests among them, by digest.
    """

    blobs: tuple[Descriptor, ...]
    documents: Mapping[str, bytes]


def to_send(loads: Iterable[Load], store: Store) -> list[Descriptor]:
    """The blobs that go over the wire, each once; what the host has, or we have already, is none of them."""
    wanted = {blob.digest: blob for load in loads for blob in load.blobs if blob.digest not in load.documents}
    return [blob for digest, blob in wanted.items() if digest not in store.here | store.elsewhere]


def hold(place: Place, loads: Sequence[Load], store: Store) -> Script:
    """Takes in the documents, links what other namespaces have, and holds it all until stdin ends or says `NAMED`.

    Steps: ``prepare-N`` for each image, then ``wait``. The clean-up takes our labels off, also those of runs that have
    expired, and ends what was not ingested to its end: with an empty regular file it is committed as it is, and goes
    with the next collection like anything that nothing names. Another run's are left alone.
    """
    roots = [_root(place, load, number) for number, load in enumerate(loads)]
    steps = {
        f"prepare-{number}": _prepare(place, load, root, store)
        for number, (load, root) in enumerate(zip(loads, roots, strict=True))
    }
    open_empty, remove_empty = naming.empty_file(place.owner)
    cleanup = f"{_let_go(place, roots, store)}\n{remove_empty}"
    return Script({**steps, "wait": "read -r named"}, open_empty, cleanup=cleanup)


def _root(place: Place, load: Load, number: int) -> Root:
    return Root(place.ctr, place.namespace, place.owner, tuple(blob.digest for blob in load.blobs), number)


def _prepare(place: Place, load: Load, root: Root, store: Store) -> str:
    chain = " &&\n".join([root.prepare(), *filter(None, (_take(place, blob, load, store) for blob in load.blobs))])
    return f"{{ {chain}; }} </dev/null"


def _let_go(place: Place, roots: Sequence[Root], store: Store) -> str:
    """What arrived for an image that has no name is not collected at once: another run may go on from there."""
    ctr, namespace = place.ctr.bounded, place.namespace
    # The end of an import, also of one that broke, brings a collection: it must find what arrived still labelled.
    pause = '[ -n "$named" ] || sleep 3' if place.ctr.capabilities.local else ":"
    ask = f"{ctr.line(namespace, 'content', 'active')} >/dev/null 2>&1"
    old = [ctr.label(namespace, digest, *(f"{key}=" for key in keys)) for digest, keys in store.labels.items()]
    old += [_finish(place, shell.join([key])) for key in store.ingests]
    lines = "\n".join
    return f"""{pause}
{ask} || {{ sleep 3; {ask}; }} || return  # a containerd that is down costs ten seconds a question
{{ if [ -n "$named" ]; then
{lines(root.remove() for root in roots)}
else
{lines(root.release() for root in roots)}
fi
{_finish_ingests(place)}
{lines(old)}
}} >/dev/null 2>&1"""


def _take(place: Place, blob: Descriptor, load: Load, store: Store) -> str:
    """Takes in one blob without the wire; nothing for one that is there, or is yet to be sent."""
    if blob.digest in store.here:
        return ""
    if blob.digest in store.elsewhere:
        return naming.ingest_link(place, blob)
    if blob.digest in load.documents:
        return f"{shell.printf(load.documents[blob.digest])} | {ingest(place, blob)}"
    return ""


@dataclass(frozen=True, slots=True)
class Intake:
    """How one blob is taken in from stdin.

    Attributes:
        step: what runs on the host; it fails where the blob is not there afterwards.
        head, tail: what goes before and behind the blob's bytes.
    """

    step: str
    head: bytes = b""
    tail: bytes = b""


def intake(place: Place, blob: Descriptor, attempt: int) -> Intake:
    """By ``content ingest``; from ctr 1.7 on as the only blob of an archive that names no image.

    Built with Go 1.22 or later, as ctr 1.7 and 2.x are, ``ingest`` hands containerd 32 KiB at a time where import
    hands it a MiB: twice the CPU for the same bytes. To 1.6 it is the other way round. That import's exit status
    tells nothing (it found no image), so the store is asked; and a blob of another digest than its name's is not it.
    """
    ctr, namespace = place.ctr, place.namespace
    if not ctr.capabilities.local:
        return Intake(f"{_GATHER} | {ingest(place, blob, attempt)}")
    there = ctr.line(namespace, "content", "ls", "-q", f"digest=={blob.digest}")
    step = f"""said=$({ctr.import_stdin(namespace, "--no-unpack")} 2>&1)
[ "$({there})" = {blob.digest} ] || {{ echo "$said" >&2; false; }}"""
    return Intake(step, *layout.around(blob))


def ingest(place: Place, blob: Descriptor, attempt: int = 0) -> str:
    """Takes in one blob from stdin; another attempt needs another name, since a pipe cannot go on where one broke."""
    key = f"{place.owner}-{blob.digest.partition(':')[2][:12]}-{attempt}"
    return place.ctr.ingest(place.namespace, blob.digest, blob.size, key)


def _finish_ingests(place: Place) -> str:
    """Of this run alone; what was just cut off, or is at work, is locked for a moment."""
    active = place.ctr.bounded.line(place.namespace, "content", "active")
    keys = f"keys=$({active} | sed -n 's/^\\({re.escape(place.owner)}-[^[:space:]]*\\).*/\\1/p')"
    return f"""for n in 1 2 3 4 5; do
  {keys}; [ -n "$keys" ] || break
  [ $n = 1 ] || sleep 1
  for key in $keys; do {_finish(place, '"$key"')}; done
done"""


def _finish(place: Place, key: str) -> str:
    return f"{place.ctr.bounded.line(place.namespace, 'content', 'ingest')} {key} <&5"


def names(place: Place, namings: Sequence[Naming]) -> Script:
    """Gives all names, and looks at what came of it: `naming.script`, and what the namespace sees then, ``there``."""
    script = naming.script(place, namings)
    return replace(script, steps={**script.steps, "there": place.ctr.digests(place.namespace)})


def read(ctr: Ctr, namespace: str, content_root: str, blob: Descriptor) -> str:
    """A blob's bytes on stdout: from its file where that can be read, many times faster than through ctr."""
    algorithm, _, value = blob.digest.partition(":")
    file = shell.join([f"{content_root}/blobs/{algorithm}/{value}"])
    return f"if [ -r {file} ]; then cat {file}; else {ctr.content(namespace, blob.digest)}; fi"
