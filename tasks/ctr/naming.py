"""How a name is given to content that a host already has: sh text for each method, pure.

The methods and where they work were measured on 1.0.3 to 2.1.9; each is one step of a script, or a few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tasks.ctr import shell
from tasks.ctr.commands import CRI_MANAGED, Ctr
from tasks.oci import layout
from tasks.oci.descriptor import Descriptor
from tasks.oci.reference import Reference

ALREADY_EXISTS = "already exists"  # ctr's own words, from `tag`
_PATIENCE = 100  # looks, a tenth of a second apart, until CRI must have labelled a new name; it takes about 0.04 s
_TRIES = 50  # to label a blob before a collection takes it; the first does, unless images are removed all the time


@dataclass(frozen=True, slots=True)
class Naming:
    """A name to be given in a namespace.

    Attributes:
        target: what it shall point at, with the exact byte length of that blob.
        may_replace: whether the name may be taken already; import replaces without a word.
        unpack: whether containerd unpacks it as well; in its own namespace the image is as unpacked as it was.
        all_platforms: whether every platform of an index is there and is to be kept (1.3 on).
        foreign: whether the content is of another platform than the host's.
    """

    namespace: str
    name: Reference
    target: Descriptor
    may_replace: bool = False
    unpack: bool = False
    all_platforms: bool = False
    foreign: bool = False


def by_index(ctr: Ctr, naming: Naming) -> str:
    """An index-only archive into ``images import -``: constant time, on every ctr."""
    full, tag = str(naming.name), naming.name.tag or "latest"
    oci_name = ctr.capabilities.oci_name
    archive = layout.index_only([(full, tag if oci_name else full, naming.target)])
    flags = []
    if ctr.capabilities.no_unpack:
        # Without --all-platforms, 1.3 on drops or refuses what is only for another platform.
        flags += ["--all-platforms"] if naming.all_platforms or naming.foreign else []
        flags += [] if naming.unpack and not naming.foreign else ["--no-unpack"]
    take = ctr.import_stdin(naming.namespace, *flags, oci_name=naming.name.repository if oci_name else None)
    step = f"{shell.printf(archive)} | {take}"
    if naming.may_replace:
        return step
    # A second look right before the act, since import is a forced tag.
    taken = ctr.line(naming.namespace, "images", "ls", "-q", f'name=="{full}"')
    return f'if [ -n "$({taken})" ]; then echo {ALREADY_EXISTS} >&2; false; else {step}; fi'


def by_archive(ctr: Ctr, source: str, from_namespace: str, naming: Naming, *, source_is_there: bool) -> str:
    """The classic way, export into import on the host itself; then the exact name, which plain import cannot give.

    To 1.2.13 export writes the wanted name; later ones write the source's own, so that import leaves that name in
    the namespace as well, and the index-only archive must give the wanted one.

    Args:
        source_is_there: whether the namespace has the source's own name; where not, it is taken out again.
    """
    oci_name, ref_name = None, None
    if not ctr.capabilities.tag:
        ref_name = naming.name.tag if ctr.capabilities.oci_name else str(naming.name)
        oci_name = naming.name.repository if ctr.capabilities.oci_name else None
    export = ctr.export_stdout(from_namespace, source, ref_name=ref_name)
    imported = ctr.import_stdin(naming.namespace, oci_name=oci_name)
    own_name = "" if source_is_there else f"{ctr.remove(naming.namespace, source)} >/dev/null 2>&1"
    return f"""exec 4>&1
statuses=$( {{ {{ {export}; echo $? >&3; }} | {{ {imported} >&4; echo $? >&3; }}; }} 3>&1 )
exec 4>&-
[ "$(echo $statuses)" = "0 0" ] && {{ {by_index(ctr, replace(naming, may_replace=True))}; }}
named=$?
{own_name}
[ $named = 0 ]"""


def link(
    ctr: Ctr,
    from_root: str,
    namespace: str,
    blobs: Sequence[Descriptor],
    owner: str,
    *,
    rooted: Iterable[str],
) -> tuple[str, str]:
    """Makes blobs of another namespace visible in this one without moving a byte (1.1 on; 1.0 reads its own file).

    The first blob is labelled as a root of garbage collection that holds all others, before they are there: a
    collection in between, which anybody's `images rm` causes, takes none of them.

    Args:
        from_root: the content store's directory.
        blobs: the target first, then all below it that is there.
        owner: the run's id, which our labels and ingests carry.
        rooted: digests that are labelled as roots already, by somebody else; theirs is left alone.

    Returns:
        The step, and the clean-up that takes our labels off again.
    """
    root = blobs[0].digest not in set(rooted)
    held = [blob.digest for blob in blobs[1:]]
    keep = f"{ctr.keep(namespace, blobs[0].digest, owner, held, root=root)} >/dev/null"
    ingests = [_ingest(ctr, from_root, namespace, blob, owner) for blob in blobs]
    empty = ['empty=$(mktemp) && exec 5<"$empty" && rm -f "$empty"'] if ctr.capabilities.link else []
    # A collection may come between the first blob and its label; then it is to be linked again.
    tries = " ".join(map(str, range(_TRIES)))
    first = f"{{ kept=1; for n in {tries}; do {ingests[0]} || break; {keep} && kept=0 && break; done; [ $kept = 0 ]; }}"
    release = ctr.release(namespace, blobs[0].digest, owner, held, root=root)
    return " &&\n".join([*empty, first, *ingests[1:]]), f"{release} >/dev/null 2>&1"


def _ingest(ctr: Ctr, from_root: str, namespace: str, blob: Descriptor, owner: str) -> str:
    algorithm, _, value = blob.digest.partition(":")
    source = "<&5" if ctr.capabilities.link else f"< {shell.join([f'{from_root}/blobs/{algorithm}/{value}'])}"
    return f"{ctr.ingest(namespace, blob.digest, blob.size, f'{owner}-{value[:12]}')} {source}"


def verify(ctr: Ctr, namespace: str, names: Iterable[str], *, managed: bool) -> str:
    """Lists the names as they now are; where CRI watches, once it has labelled all that are there, or time is up."""
    listing = ctr.images(namespace, *names)
    if not managed:
        return listing
    return f"""n=0
while rows=$({listing}) && [ $n -lt {_PATIENCE} ]; do
  all=$(echo "$rows" | grep -c ' sha256:'); managed=$(echo "$rows" | grep -c {shell.join([CRI_MANAGED])})
  [ "$managed" -ge "$all" ] && break
  n=$((n+1)); sleep 0.1 2>/dev/null || sleep 1
done
{listing}"""
