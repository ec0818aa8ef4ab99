"""How a name is given to content that a host already has: one script for all names of a namespace. Pure.

Where each method works, and what it does to content besides, was measured on 1.0.3 to 2.1.9.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tasks.ctr import shell
from tasks.ctr.commands import CRI_MANAGED, GC_REF, Ctr
from tasks.ctr.root import Root
from tasks.ctr.shell import Script
from tasks.oci.descriptor import Descriptor
from tasks.oci.reference import Reference

TAKEN = 75  # exit status of a step of ours whose name appeared meanwhile
_PATIENCE = 100  # looks, a tenth of a second apart, until CRI must have labelled a new name; it takes about 0.04 s


class Method(StrEnum):
    """How a name is given."""

    AUTO = "auto"
    TAG = "tag"
    INDEX = "index"
    ARCHIVE = "archive"
    LINK = "link"  # by itself, from another namespace
    STREAM = "stream"  # by itself, where linking failed
    BLOBS = "blobs"  # for content that was brought here, blob by blob


@dataclass(frozen=True, slots=True)
class Place:
    """Where names are given: one namespace of one host.

    Attributes:
        from_namespace: where the sources are.
        content_root: the content store's directory.
        owner: the run's id; labels, ingests and names of ours carry it.
        managed: whether CRI must take notice of a name.
    """

    ctr: Ctr
    namespace: str
    from_namespace: str
    content_root: str
    owner: str
    managed: bool

    @property
    def crosses(self) -> bool:
        """Whether content comes from another namespace, so that it is to be unpacked here."""
        return self.namespace != self.from_namespace


@dataclass(frozen=True, slots=True)
class Naming:
    """One name to be given.

    Attributes:
        source: the image's own name, in ``from_namespace``.
        target: what the name shall point at, with the exact byte length of that blob; None where `tag` does it.
        replaces: whether the name points elsewhere and is to be moved.
        whole: whether every blob of every platform is there.
        foreign: whether the content is of another platform than the host's.
        blobs: what is to be linked, the target first.
        rest: of a partial index: by parent, what is there that import itself would not keep.
        source_stays: whether this namespace has the source's own name anyhow.
        unpack: whether containerd is to unpack it; what comes from another namespace it unpacks in any case.
        may_stream: False where that name is another image here, which import of an export would replace.
        number: tells it from the others of one script.
    """

    method: Method
    source: str
    name: Reference
    target: Descriptor | None = None
    replaces: bool = False
    whole: bool = False
    foreign: bool = False
    blobs: tuple[Descriptor, ...] = ()
    rest: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source_stays: bool = True
    unpack: bool = False
    may_stream: bool = True
    number: int = 0


def script(place: Place, namings: Sequence[Naming]) -> Script:
    """All names in one remote command: ``link-N`` where there is one, ``name-N``, and ``verify``."""
    steps: dict[str, str] = {}
    cleanups: list[str] = []
    for number, each in enumerate(namings):
        naming = replace(each, number=number)
        if naming.method is Method.LINK:
            steps[f"link-{number}"], cleanup = link(place, naming)
            cleanups.append(cleanup)
        staged = naming.replaces and naming.method in (Method.LINK, Method.ARCHIVE, Method.BLOBS)
        steps[f"name-{number}"], cleanup = _staged(place, naming) if staged else _name(place, naming)
        cleanups.append(cleanup)
    steps["verify"] = verify(place, dict.fromkeys(str(naming.name) for naming in namings))
    return Script(steps, cleanup="\n".join(filter(None, cleanups)))


def _staged(place: Place, naming: Naming) -> tuple[str, str]:
    """Through a name of our own, which the wanted one follows only if all went well: what it was is not lost."""
    stage = Reference("ctr-ferry.invalid", place.owner.lower(), str(naming.number))
    first, cleanup = _name(place, replace(naming, name=stage, replaces=False))
    ctr = place.ctr
    if ctr.capabilities.tag:
        second = ctr.tag(place.namespace, str(stage), str(naming.name), force=True)
    else:
        second = by_index(place, naming)
    return f"{{ {first}; }} && {second}", f"{cleanup}\n{ctr.remove(place.namespace, str(stage))} >/dev/null 2>&1"


def _name(place: Place, naming: Naming) -> tuple[str, str]:
    match naming.method:
        case Method.TAG:
            target = str(naming.name)
            return place.ctr.tag(place.from_namespace, naming.source, target, force=naming.replaces), ""
        case Method.INDEX:
            return " &&\n".join([*_keep_rest(place, naming), by_index(place, naming)]), ""
        case Method.LINK:
            stream, cleanup = by_archive(place, naming)
            linked = " &&\n".join([by_index(place, naming), *_keep_rest(place, naming)])
            return f"if [ $linked = 0 ]; then {linked}; else {stream}; fi", cleanup
        case Method.BLOBS:
            return " &&\n".join([by_index(place, naming), *_keep_rest(place, naming)]), ""
    step, cleanup = by_archive(place, naming)
    keep = [] if place.crosses else _keep_rest(place, naming)
    return " &&\n".join([*keep, step]), cleanup


def by_index(place: Place, naming: Naming) -> str:
    """An index-only archive into ``images import -``: constant time, on every ctr."""
    ctr, target = place.ctr, naming.target
    assert target is not None  # noqa: S101
    full, tag, oci_name = str(naming.name), naming.name.tag or "latest", ctr.capabilities.oci_name
    from tasks.oci import layout  # no listing of the commands needs tar

    archive = layout.index_only([(full, tag if oci_name else full, target)])
    flags = []
    if ctr.capabilities.no_unpack:
        # Without --all-platforms, 1.3 on lets go of every platform but the host's, under all names of the index.
        flags += ["--all-platforms"] if (naming.whole and target.is_index) or naming.foreign else []
        flags += [] if (place.crosses or naming.unpack) and not naming.foreign else ["--no-unpack"]
    take = ctr.import_stdin(place.namespace, *flags, oci_name=naming.name.repository if oci_name else None)
    return _unless_taken(place, naming, f"{shell.printf(archive)} | {take}")


def _unless_taken(place: Place, naming: Naming, step: str) -> str:
    """A second look right before the act, since import is a forced tag."""
    if naming.replaces:
        return step
    return f'if [ -n "$({_is_there(place, naming)})" ]; then (exit {TAKEN}); else {step}; fi'


def _is_there(place: Place, naming: Naming) -> str:
    return place.ctr.line(place.namespace, "images", "ls", "-q", f'name=="{naming.name}"')


def by_archive(place: Place, naming: Naming) -> tuple[str, str]:
    """The classic way, export into import on the host itself; then the exact name, which plain import cannot give.

    To 1.2.13 export writes the wanted name; later ones write the source's own, so that import leaves that name here
    as well, and the index-only archive must give the wanted one.

    Returns:
        The step, and the clean-up that takes the source's own name out of a namespace that did not have it.
    """
    if not naming.may_stream:
        return f"echo {shell.join([f'{naming.source} is another image in {place.namespace}'])} >&2; false", ""
    ctr = place.ctr
    has_tag, oci_name = ctr.capabilities.tag, ctr.capabilities.oci_name
    ref_name = None if has_tag else (naming.name.tag if oci_name else str(naming.name))
    every = bool(has_tag and naming.whole and naming.target and naming.target.is_index)
    export = ctr.export_stdout(place.from_namespace, naming.source, all_platforms=every, ref_name=ref_name)
    repository = naming.name.repository if oci_name else None
    imported = ctr.import_stdin(place.namespace, *(["--all-platforms"] if every else []), oci_name=repository)
    name = by_index(place, naming)
    if not has_tag:
        # Import has given the name, but from 1.2.14 on.
        name = f'[ -n "$({_is_there(place, naming)})" ] || {by_index(place, replace(naming, replaces=True))}'
    pipe = f"""{{ streamed_{naming.number}=1
statuses=$( {{ {{ {export}; echo $? >&3; }} | {{ {imported} >&4; echo $? >&3; }}; }} 3>&1 ) 4>&1
[ "$(echo $statuses)" = "0 0" ] && {{ {name}; }}
}}"""
    remove = f"{ctr.remove(place.namespace, naming.source)} >/dev/null 2>&1"
    cleanup = "" if naming.source_stays else f'[ -z "$streamed_{naming.number}" ] || {remove}'
    return _unless_taken(place, naming, pipe), cleanup


def link(place: Place, naming: Naming) -> tuple[str, str]:
    """Makes blobs of another namespace visible here without moving a byte (1.1 on; 1.0 reads its own file).

    A root of our own holds them all before they are there: a collection in between, which anybody's `images rm`
    causes, takes none of them.

    Returns:
        The step, and the clean-up that removes the root again.
    """
    held = tuple(blob.digest for blob in naming.blobs)
    root = Root(place.ctr, place.namespace, place.owner, held, naming.number)
    empty = ['empty=$(mktemp) && exec 5<"$empty" && rm -f "$empty"'] if place.ctr.capabilities.link else []
    steps = " &&\n".join([*empty, root.plant(), *(ingest_link(place, blob) for blob in naming.blobs)])
    return f"linked=1; {{ {steps}; }} && linked=0", f"{root.remove()} >/dev/null 2>&1"


def ingest_link(place: Place, blob: Descriptor) -> str:
    """Makes one blob of another namespace visible here; descriptor 5 is an empty regular file."""
    algorithm, _, value = blob.digest.partition(":")
    file = f"{place.content_root}/blobs/{algorithm}/{value}"
    source = "<&5" if place.ctr.capabilities.link else f"< {shell.join([file])}"
    return f"{place.ctr.ingest(place.namespace, blob.digest, blob.size, f'{place.owner}-{value[:12]}')} {source}"


def _keep_rest(place: Place, naming: Naming) -> list[str]:
    """From 1.3 on import of a partial index keeps the host's platform alone; labels keep the others that are there."""
    ctr = place.ctr
    if not ctr.capabilities.no_unpack:
        return []
    return [
        ctr.label(place.namespace, parent, *(f"{GC_REF}.rest.{n}={digest}" for n, digest in enumerate(digests)))
        + " >/dev/null"
        for parent, digests in naming.rest.items()
        if digests
    ]


def verify(place: Place, names: Iterable[str]) -> str:
    """Lists the names as they now are; where CRI watches, once it has labelled all that are there, or time is up."""
    listing = place.ctr.images(place.namespace, *names)
    if not place.managed:
        return listing
    return f"""n=0
while rows=$({listing}) && [ $n -lt {_PATIENCE} ]; do
  all=$(echo "$rows" | grep -c ' sha256:'); managed=$(echo "$rows" | grep -c {shell.join([CRI_MANAGED])})
  [ "$managed" -ge "$all" ] && break
  n=$((n+1)); sleep 0.1 2>/dev/null || sleep 1
done
{listing}"""
