"""How a name is given to content that a host already has: one script for all names of a namespace. Pure.

Where each method works, and what it does to content besides, was measured on 1.0.3 to 2.1.9.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ctr_ferry import shell
from ctr_ferry.ctr import checks, roll_back
from ctr_ferry.ctr.commands import GC_REF, PINNED, Ctr
from ctr_ferry.ctr.gc_root import Root
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.ctr.roll_back import Given, Records
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.shell import Answer, Script

TAKEN = 75  # exit status of a step of ours whose name appeared meanwhile
# To ctr 1.2 two that look at the same time both give a name; who was first sees it after this moment.
MOMENT = "sleep 0.5 2>/dev/null || sleep 1"


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
        cri_managed: whether CRI must take notice of a name.
    """

    ctr: Ctr
    namespace: str
    from_namespace: str
    content_root: str
    owner: str
    cri_managed: bool

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
        digest: the target's, where `tag` gives the name and its length is not known.
        source_digest: what the source's own name points at, which a stream brings along.
        only: the one platform of the index that is there, if it is not the host's.
        complete: whether `check` must say that it is whole, and unpacked where it is to be.
        pin: whether it is pinned as well.
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
    digest: str | None = None
    source_digest: str = ""
    only: Platform | None = None
    complete: bool = False
    pin: bool = False
    number: int = 0


def script(place: Place, namings: Sequence[Naming]) -> Script:
    """All names in one remote command: ``name-N`` and ``verify``, and ``link-N``, ``pin-N`` and ``check`` as asked.

    ``was`` shows the names that are to be moved, before anything is done; ``kept`` says the numbers of the names that
    are as they must be. The clean-up takes the others back, if the script gave them.
    """
    numbered = [replace(each, number=number) for number, each in enumerate(namings)]
    steps: dict[str, str] = {}
    cleanups: list[str] = []
    if moved := [str(naming.name) for naming in numbered if naming.replaces]:
        steps["was"] = place.ctr.images(place.namespace, *moved)
    for naming in numbered:
        number = naming.number
        if naming.method is Method.LINK:
            steps[f"link-{number}"], cleanup = link(place, naming)
            cleanups.append(cleanup)
        step, cleanup = _give(place, naming)
        steps[f"name-{number}"] = f"{step}\nnamed_{number}=$?; (exit $named_{number})"
        cleanups.append(cleanup)
    given = [_given(place, naming) for naming in numbered]
    steps |= {f"pin-{each.number}": _pin(place, each) for each in numbered if each.pin}
    names = dict.fromkeys(name for each in given for name in (each.name, each.stage) if name)
    moment = "" if place.ctr.capabilities.tag or all(naming.replaces for naming in numbered) else f"{MOMENT}\n"
    steps["verify"] = moment + verify(place, names)
    if whole := [str(naming.name) for naming in numbered if naming.complete]:
        steps["check"] = check(place, *whole)
    steps["kept"] = roll_back.kept(given, cri_managed=place.cri_managed)
    comes = place.cri_managed and any(place.crosses or naming.method is Method.BLOBS for naming in numbered)
    records = Records(place.ctr, place.namespace) if comes else None
    undo = roll_back.undo(place.ctr, place.namespace, given, records, cri_managed=place.cri_managed)
    return Script(steps, records.before if records else "", cleanup="\n".join(filter(None, [undo, *cleanups])))


def _pin(place: Place, naming: Naming) -> str:
    pin = place.ctr.relabel(place.namespace, str(naming.name), PINNED)
    return f"{pin}\npinned_{naming.number}=$?; (exit $pinned_{naming.number})"


def check(place: Place, *names: str) -> str:
    """Whether the images of these names are whole and unpacked; ``$checked`` has the answer, too."""
    question = checks.command(place.ctr, place.namespace, *names)
    return f"""checked=$({question}); e=$?
printf '%s\\n' "$checked"; (exit $e)"""


def _given(place: Place, naming: Naming) -> Given:
    return Given(
        naming.number,
        str(naming.name),
        naming.target.digest if naming.target else naming.digest,
        stage=str(_stage(place, naming)) if _is_staged(place, naming) else "",
        tolerant=place.ctr.capabilities.oci_name and naming.foreign,
        complete=naming.complete,
        unpacked=naming.unpack,
        pinned=naming.pin,
    )


def _stage(place: Place, naming: Naming) -> Reference:
    return Reference("ctr-ferry.invalid", place.owner.lower(), str(naming.number))


def _is_staged(place: Place, naming: Naming) -> bool:
    """Whether the name follows one of our own: a name that is moved, only if all went well, so that what it was is not
    lost; a new name, by `tag`, which alone fails where somebody else was first (import is a forced tag)."""
    if naming.replaces:
        return naming.method is not Method.INDEX
    return place.ctr.capabilities.tag and naming.method is not Method.TAG


def _give(place: Place, naming: Naming) -> tuple[str, str]:
    """The step that gives a name, and the clean-up of what it brought besides."""
    if naming.method is Method.TAG:
        assert not naming.replaces, "tag --force deletes the name first"  # noqa: S101
        return by_tag(place, naming, place.from_namespace, naming.source), ""
    if not _is_staged(place, naming):
        step, cleanup = _bring(place, naming)
        return step if naming.replaces else _unless_taken(place, naming, step), cleanup
    stage = _stage(place, naming)
    staged = replace(naming, name=stage, replaces=True)
    if naming.replaces:
        first, cleanup = _bring(place, staged)
        last = by_index(place, naming, unpack=False)
    elif place.crosses and naming.source == str(naming.name):
        # A stream brings the source's own name, which is the wanted one.
        first, cleanup = _bring(place, staged, brings=naming)
        tag = by_tag(place, naming, place.namespace, str(stage))
        last = f'{{ [ -n "$streamed_{naming.number}" ] || {{ {tag}; }}; }}'
    else:
        first, cleanup = _bring(place, staged)
        last = by_tag(place, naming, place.namespace, str(stage))
    return f"staged_{naming.number}=1; {{ {first}; }} && {last}", cleanup


def by_tag(place: Place, naming: Naming, namespace: str, source: str) -> str:
    """`tag`, which fails where somebody else was first; failing by itself, rather than ended, it has given no name."""
    step = place.ctr.tag(namespace, source, str(naming.name))
    step = f"{{ {step} || {{ e=$?; [ $e != 1 ] || began_{naming.number}=; (exit $e); }}; }}"
    return _unless_taken(place, naming, step)


def _bring(place: Place, naming: Naming, *, brings: Naming | None = None) -> tuple[str, str]:
    """By import, which moves a name that exists.

    Args:
        brings: what a stream gives besides, which must not be there yet.
    """
    match naming.method:
        case Method.INDEX:
            return " &&\n".join([*_keep_rest(place, naming), by_index(place, naming)]), ""
        case Method.LINK:
            stream, cleanup = by_archive(place, naming, brings=brings)
            linked = " &&\n".join([by_index(place, naming), *_keep_rest(place, naming)])
            return f"if [ $linked = 0 ]; then {linked}; else {stream}; fi", cleanup
        case Method.BLOBS:
            return " &&\n".join([by_index(place, naming), *_keep_rest(place, naming)]), ""
    step, cleanup = by_archive(place, naming, brings=brings)
    keep = [] if place.crosses else _keep_rest(place, naming)
    return " &&\n".join([*keep, step]), cleanup


def by_index(place: Place, naming: Naming, *, unpack: bool = True) -> str:
    """An index-only archive into ``images import -``: constant time, on every ctr.

    A name that exists is moved in one go, by an update that keeps its labels.

    Args:
        unpack: False where that is done already.
    """
    ctr, target = place.ctr, naming.target
    assert target is not None  # noqa: S101
    full, tag, oci_name = str(naming.name), naming.name.tag or "latest", ctr.capabilities.oci_name
    from ctr_ferry.oci import layout

    archive = layout.index_only([(full, tag if oci_name else full, target)])
    flags = []
    if ctr.capabilities.no_unpack:
        # Without --all-platforms, 1.3 on lets go of every platform but the host's, under all names of the index.
        flags += ["--all-platforms"] if (naming.whole and target.is_index) or naming.foreign else []
        flags += ["--platform", str(naming.only)] if naming.only else []
        flags += [] if unpack and (place.crosses or naming.unpack) and not naming.foreign else ["--no-unpack"]
    take = ctr.import_stdin(place.namespace, *flags, oci_name=naming.name.repository if oci_name else None)
    step = f"{shell.printf(archive)} | {take}"
    if naming.replaces:
        return step
    # Two that find no name at the same time both create it; the one that ctr tells so has given none.
    return f"""{{ said=$({{ {step}; }} 2>&1 >/dev/null); e=$?; [ -z "$said" ] || printf '%s\\n' "$said" >&2
case "$said" in *": already exists"*) began_{naming.number}=;; esac; (exit $e); }}"""


def _unless_taken(place: Place, naming: Naming, step: str) -> str:
    """A second look right before the act; from here on the name counts as ours."""
    look = f'if [ -n "$({_is_there(place, naming)})" ]; then (exit {TAKEN}); else'
    return f"{look} began_{naming.number}=1; {step}; fi"


def _is_there(place: Place, naming: Naming) -> str:
    return place.ctr.line(place.namespace, "images", "ls", "-q", f'name=="{naming.name}"')


def by_archive(place: Place, naming: Naming, *, brings: Naming | None = None) -> tuple[str, str]:
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
    if brings:
        pipe = _unless_taken(place, brings, pipe)
    if naming.source_stays:
        return pipe, ""
    brought = f'name=="{naming.source}",target.digest=="{naming.source_digest}"'
    left = f'[ -z "$({ctr.line(place.namespace, "images", "ls", "-q", brought)} 2>/dev/null)" ]'
    remove = f"{ctr.remove(place.namespace, naming.source)} >/dev/null 2>&1"
    return pipe, f'[ -z "$streamed_{naming.number}" ] || {left} || {remove}'


def link(place: Place, naming: Naming) -> tuple[str, str]:
    """Makes blobs of another namespace visible here without moving a byte (1.1 on; 1.0 reads its own file).

    A root of our own holds them all before they are there: a collection in between, which anybody's `images rm`
    causes, takes none of them.

    Returns:
        The step, and the clean-up that removes the root again.
    """
    held = tuple(blob.digest for blob in naming.blobs)
    root = Root(place.ctr, place.namespace, place.owner, held, naming.number)
    open_empty, remove_empty = empty_file(place.owner)
    empty = [open_empty] if place.ctr.capabilities.link else []
    steps = " &&\n".join([*empty, root.prepare(), *(ingest_link(place, blob) for blob in naming.blobs)])
    return f"linked=1; {{ {steps}; }} && linked=0", f"{remove_empty}\n{root.remove()} >/dev/null 2>&1"


def empty_file(owner: str) -> tuple[str, str]:
    """Opens an empty regular file as descriptor 5; the file has the run's id in its name, and is removed at once.

    Returns:
        The step, and the clean-up where the step was cut off in the middle.
    """
    file = f'"${{TMPDIR:-/tmp}}"/{shell.join([owner])}.empty'
    return f'empty=$(mktemp {file}.XXXXXX) && exec 5<"$empty" && rm -f "$empty"', f"rm -f {file}.*"


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


def keep_children(place: Place, index: str) -> str:
    """Labels all that an index names as kept, as `pull` does and import, but for the host's platform, undoes.

    What the index names is read on the host; digests that are not there do no harm.
    """
    get = place.ctr.content(place.namespace, index)
    if not place.ctr.capabilities.no_unpack:
        return ":"
    return f"""( set --; n=0
for each in $({get} | tr '"' '\\n' | grep -x {shell.join([roll_back.DIGEST])} | sort -u); do
  set -- "$@" "{GC_REF}.rest.$n=$each"; n=$((n+1))
done
[ $# = 0 ] || {place.ctr.label(place.namespace, index)} "$@" >/dev/null )"""


def verify(place: Place, names: Iterable[str]) -> str:
    """Lists the names as they now are; where CRI watches, once it has labelled all that are there, or time is up."""
    look = roll_back.watch(place.ctr, place.namespace, names, cri_managed=place.cri_managed)
    return f"""{look}
printf '%s\\n' "$rows"; (exit $listed)"""


def was(place: Place, answers: Mapping[str, Answer]) -> Listing:
    """The names that were to be moved, as they were right before; none where that could not be seen."""
    detail = answers["was"].text if "was" in answers and answers["was"].ok else ""
    return Listing.parse(place.namespace, detail) if detail.strip() else Listing(place.namespace, ())
