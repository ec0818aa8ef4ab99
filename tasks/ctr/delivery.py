"""How an image's blobs come to a host: what it has, how they are taken in, held and named. Pure.

Blob by blob, into ``content ingest`` to ctr 1.6, as an archive of its own from 1.7 on; what arrived stays. The image's
top blob comes first and holds all others by labels of ours before they are there, so that no collection takes them; the
name is an index-only archive. Measured on 1.0.3 to 2.1.9.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.ctr import checks, naming, room, shell
from tasks.ctr.commands import GC_ROOT, Ctr
from tasks.ctr.health import OURS, our_labels
from tasks.ctr.naming import Naming, Place
from tasks.ctr.probe import Settings
from tasks.ctr.shell import Script
from tasks.oci import layout
from tasks.oci.descriptor import Descriptor
from tasks.oci.reference import is_digest

NAMED = b"named\n"  # said to a hold whose images all have their names
PINNED = "io.cri-containerd.pinned=pinned"
_TRIES = 50  # to label a blob before a collection takes it; the first does, unless images are removed all the time
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
        rooted: what somebody else labelled as a root of garbage collection here.
        ours: labels of ours by digest, which a run that was killed has left.
    """

    here: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()
    rooted: frozenset[str] = frozenset()
    ours: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def questions(settings: Settings, namespace: str, names: Iterable[str]) -> dict[str, str]:
    """The steps that follow the probe's in one script (they use its words ``ctr``, ``address`` and ``ready``)."""
    ask = 'ready && $ctr --address "$address" '
    snapshotter = ("--snapshotter", settings.snapshotter) if settings.snapshotter else ()
    filters = [f'name=="{name}"' for name in names]
    check = shell.join(["--namespace", namespace, "images", "check", *snapshotter, *filters])
    return {"store": _STORE, "check": ask + check if filters else ":", "room": room.question(settings)}


# Labels only of blobs that are labelled as roots or by us: there may be ten thousand others.
_STORE = f"""ready && $ctr --address "$address" namespaces ls -q | while read -r ns; do
  echo "namespace $ns"
  $ctr --address "$address" --namespace "$ns" content ls </dev/null | sed -n \\
    -e '/gc[.]root=/{{' -e p -e d -e '}}' -e '/[.]{OURS}[.]/{{' -e p -e d -e '}}' \\
    -e 's/^\\([a-z0-9]*:[0-9a-f]*\\)[[:space:]].*/\\1/p'
done"""


def parse_store(text: str, namespace: str) -> Store:
    """Parses the answer to ``store``."""
    found: dict[str, set[str]] = {}
    rooted: set[str] = set()
    ours: dict[str, tuple[str, ...]] = {}
    there = ""
    for line in text.splitlines():
        words = line.split()
        if line.startswith("namespace "):
            there = words[1]
        elif words and is_digest(words[0]):
            found.setdefault(there, set()).add(words[0])
            if there == namespace and len(words) > 1:
                keys = our_labels(line)
                ours |= {words[0]: tuple(keys)} if keys else {}
                rooted |= {words[0]} if f"{GC_ROOT}=" in line and GC_ROOT not in keys else set()
    others = [digests for name, digests in found.items() if name != namespace]
    return Store(frozenset(found.get(namespace, ())), frozenset[str]().union(*others), frozenset(rooted), ours)


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

    Steps: ``plant-N`` for each image, then ``wait``. The clean-up takes our labels off, also those of a run that was
    killed, and ends what was not ingested to its end: with an empty regular file it is committed as it is, and goes
    with the next collection like anything that nothing names.
    """
    steps = {f"plant-{number}": _plant(place, load, store) for number, load in enumerate(loads)}
    # The end of an import, also of one that broke, brings a collection: it must find what arrived still labelled.
    pause = '[ -n "$named" ] || sleep 3' if place.ctr.capabilities.local else ":"
    ask = f"roots=$({place.ctr.rooted(place.namespace, place.owner)} 2>/dev/null)"
    roots = f"{ask} || {{ sleep 3; {ask}; }} || return"  # a containerd that is down costs ten seconds a question
    cleanup = [pause, roots, *(_release(place, load, store) for load in loads), _finish_ingests(place)]
    prologue = 'empty=$(mktemp) && exec 5<"$empty" && rm -f "$empty"'
    return Script({**steps, "wait": "read -r named"}, prologue, cleanup="\n".join(cleanup))


def _plant(place: Place, load: Load, store: Store) -> str:
    ctr, namespace = place.ctr, place.namespace
    top, *others = load.blobs
    held = [blob.digest for blob in others]
    keep = f"{ctr.keep(namespace, top.digest, place.owner, held, root=top.digest not in store.rooted)} >/dev/null"
    first = _take(place, top, load, store) or ":"
    tries = " ".join(map(str, range(_TRIES)))
    steps = [f"{{ kept=1; for n in {tries}; do {first} || break; {keep} && kept=0 && break; done; [ $kept = 0 ]; }}"]
    steps += filter(None, (_take(place, blob, load, store) for blob in others))
    chain = " &&\n".join(steps)
    return f"{{ {chain}; }} </dev/null"


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
    """Of this run, and of those that were killed; what was just cut off, or is at work, is locked."""
    active = place.ctr.line(place.namespace, "content", "active")
    finish = place.ctr.line(place.namespace, "content", "ingest")
    return f"""finish() {{ for key in $keys; do {finish} "$key" <&5; done; }}
active() {{ keys=$({active} | sed -n "s/^\\($1[^[:space:]]*\\).*/\\1/p"); [ -n "$keys" ]; }}
{{ for n in 1 2 3 4 5; do active {place.owner}- || break; [ $n = 1 ] || sleep 1; finish; done
active {OURS}[.] && finish; }} >/dev/null 2>&1"""


def _release(place: Place, load: Load, store: Store) -> str:
    """A root that somebody else set, or another run has claimed meanwhile, is theirs to take off."""
    ctr, namespace, top = place.ctr, place.namespace, load.blobs[0].digest
    held = [blob.digest for blob in load.blobs[1:]]
    old = [f"{key}=" for key in store.ours.get(top, ()) if key != GC_ROOT]
    off = ctr.release(namespace, top, place.owner, held, root=False)
    off = f"{off} {shell.join(old)}" if old else off
    return f'case "$roots" in *{top}*) {off} {GC_ROOT}=;; *) {off};; esac >/dev/null 2>&1'


def names(place: Place, namings: Sequence[Naming], *, pin: bool) -> Script:
    """Gives all names, and looks at what came of it: ``name-N``, ``verify``, ``check`` and ``there``.

    Args:
        pin: whether CRI's label that keeps kubelet from removing an image is set as well.
    """
    script = naming.script(place, namings)
    wanted = [str(each.name) for each in namings]
    steps = dict(script.steps)
    verify = steps.pop("verify")
    if pin:
        steps |= {
            f"pin-{n}": place.ctr.line(place.namespace, "images", "label", name, PINNED)
            for n, name in enumerate(wanted)
        }
    steps |= {"verify": verify, "check": checks.command(place.ctr, place.namespace, *wanted)}
    steps["there"] = place.ctr.digests(place.namespace)
    return Script(steps, script.prologue, script.cleanup)


def read(ctr: Ctr, namespace: str, content_root: str, blob: Descriptor) -> str:
    """A blob's bytes on stdout: from its file where that can be read, many times faster than through ctr."""
    algorithm, _, value = blob.digest.partition(":")
    file = shell.join([f"{content_root}/blobs/{algorithm}/{value}"])
    return f"if [ -r {file} ]; then cat {file}; else {ctr.content(namespace, blob.digest)}; fi"
