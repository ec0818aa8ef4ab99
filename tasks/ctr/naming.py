"""How a name is given to content that a host already has: sh text for each method, pure.

The methods and where they work were measured on 1.0.3 to 2.1.9; each is one step of a script, or a few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.ctr import shell
from tasks.ctr.commands import CRI_MANAGED, Ctr
from tasks.oci import layout
from tasks.oci.descriptor import Descriptor
from tasks.oci.reference import Reference

_PATIENCE = 100  # looks, a tenth of a second apart, until CRI must have labelled a new name; it takes about 0.04 s


@dataclass(frozen=True, slots=True)
class Naming:
    """A name to be given in a namespace.

    Attributes:
        target: what it shall point at, with the exact byte length of that blob.
        unpack: whether containerd unpacks it as well; in its own namespace the image is as unpacked as it was.
        all_platforms: whether every platform of an index is there and is to be kept (1.3 on).
        foreign: whether the content is of another platform than the host's.
    """

    namespace: str
    name: Reference
    target: Descriptor
    unpack: bool = False
    all_platforms: bool = False
    foreign: bool = False


def by_index(ctr: Ctr, naming: Naming) -> str:
    """An index-only archive into ``images import -``: constant time, on every ctr."""
    full = str(naming.name)
    if ctr.capabilities.oci_name:
        archive = layout.index_only([(full, naming.name.tag or "latest", naming.target)])
        return f"{shell.printf(archive)} | {ctr.import_stdin(naming.namespace, oci_name=naming.name.repository)}"
    archive = layout.index_only([(full, full, naming.target)])
    flags = []
    if ctr.capabilities.no_unpack:
        # Without --all-platforms, 1.3 on drops or refuses what is only for another platform.
        flags += ["--all-platforms"] if naming.all_platforms or naming.foreign else []
        flags += [] if naming.unpack and not naming.foreign else ["--no-unpack"]
    return f"{shell.printf(archive)} | {ctr.import_stdin(naming.namespace, *flags)}"


def by_archive(ctr: Ctr, source: str, from_namespace: str, naming: Naming) -> str:
    """The classic way, export into import on the host itself; then the exact name, which plain import cannot give.

    To 1.2.13 export writes the wanted name; later ones write the source's own, so that import leaves that name in
    the namespace as well, and the index-only archive must give the wanted one.
    """
    oci_name, ref_name = None, None
    if not ctr.capabilities.tag:
        ref_name = naming.name.tag if ctr.capabilities.oci_name else str(naming.name)
        oci_name = naming.name.repository if ctr.capabilities.oci_name else None
    export = ctr.export_stdout(from_namespace, source, ref_name=ref_name)
    imported = ctr.import_stdin(naming.namespace, oci_name=oci_name)
    return f"""exec 4>&1
statuses=$( {{ {{ {export}; echo $? >&3; }} | {{ {imported} >&4; echo $? >&3; }}; }} 3>&1 )
exec 4>&-
[ "$(echo $statuses)" = "0 0" ] && {{ {by_index(ctr, naming)}; }}"""


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

    Args:
        from_root: the content store's directory.
        owner: the run's id; each blob is labelled with it at once, or a collection in between would take it.
        rooted: digests that are labelled as roots already, by somebody else; theirs is left alone.

    Returns:
        The step, and the clean-up that takes our labels off again.
    """
    ours = [blob for blob in blobs if blob.digest not in set(rooted)]
    lines = ['empty=$(mktemp) && exec 5<"$empty" && rm -f "$empty"'] if ctr.capabilities.link else []
    for blob in blobs:
        algorithm, _, value = blob.digest.partition(":")
        source = "<&5" if ctr.capabilities.link else f"< {shell.join([f'{from_root}/blobs/{algorithm}/{value}'])}"
        lines.append(f"{ctr.ingest(namespace, blob.digest, blob.size, f'{owner}-{value[:12]}')} {source}")
        if blob in ours:
            lines.append(f"{ctr.keep(namespace, blob.digest, owner)} >/dev/null")
    cleanup = "\n".join(f"{ctr.release(namespace, blob.digest)} >/dev/null 2>&1" for blob in ours)
    return " &&\n".join(lines), cleanup


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
