"""The script that gives names to content that a host already has: one for all names of a namespace. Pure.

What each method does on each version of ctr was measured on 1.0.3 to 2.1.9.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ctr_ferry import shell
from ctr_ferry.ctr import checks, roll_back
from ctr_ferry.ctr.commands import GC_REF, PINNED, Ctr
from ctr_ferry.ctr.gc_root import Root, finish_ingests
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.ctr.roll_back import Given, Records
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.shell import Answer, Script

TAKEN = 75  # exit status of a naming step if somebody else gave the name meanwhile
# With ctr up to 1.2, two runs may both give a name. Without a lock, the first run sees that after this moment.
MOMENT = '[ -n "$locked" ] || sleep 0.5 2>/dev/null || sleep 1'
_LONGEST_WAIT = 10  # seconds for the lock of another run


class Method(StrEnum):
    """How to give a name."""

    AUTO = "auto"
    TAG = "tag"
    INDEX = "index"
    ARCHIVE = "archive"
    LINK = "link"  # chosen by ctr-ferry for another namespace
    STREAM = "stream"  # chosen by ctr-ferry where linking failed
    BLOBS = "blobs"  # for content that was transferred blob by blob


@dataclass(frozen=True, slots=True)
class Place:
    """The namespace of a host in which names are given.

    Attributes:
        from_namespace: where the sources are.
        content_root: the content store's directory.
        owner: the run's id with our prefix; our labels, ingests and temporary names have it in their names.
        cri_managed: whether CRI must label every new name.
    """

    ctr: Ctr
    namespace: str
    from_namespace: str
    content_root: str
    owner: str
    cri_managed: bool

    @property
    def crosses(self) -> bool:
        """Whether content comes from another namespace, so that it must be unpacked here."""
        return self.namespace != self.from_namespace


@dataclass(frozen=True, slots=True)
class Naming:
    """One name to give.

    Attributes:
        source: the image's own name in ``from_namespace``.
        target: what the name will point at, with the exact size of that blob in bytes; None for `tag`.
        replaces: whether the name exists and is to be moved.
        whole: whether every blob of every platform is there.
        foreign: whether the content is for another platform than the host's.
        blobs: what to link from the other namespace, the target first.
        rest: for a partial index, by parent, the blobs that are there and that import itself would not keep.
        source_stays: whether the namespace has the source's own name before, so that this name stays.
        unpack: whether containerd is to unpack the image; from another namespace it does so in any case.
        may_stream: False if the source's name is another image here, which a stream would replace.
        digest: of the target; known also for `tag`, which needs no size.
        source_digest: what the source's own name points at; a stream brings that name along.
        only: the one platform of the index that is there, if it is not the host's platform.
        complete: whether ``images check`` must say that the image is whole, and unpacked if ``unpack``.
        pin: whether to pin the image as well.
        number: the number of the name in its script.
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
    """Builds the script that gives all names in one remote command.

    Its steps are, as far as they are needed: ``lock`` (with ctr up to 1.2, lets one run at a time give new names),
    ``was`` (lists the names that will be moved), for each name ``link-N``,
    ``name-N`` and ``pin-N``, then ``verify`` (lists the names), ``check`` (``images check``) and ``kept`` (prints the
    numbers of the verified names). The clean-up rolls back the names that were given and not verified.
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
    alone = place.ctr.capabilities.tag or all(naming.replaces for naming in numbered)
    steps = steps if alone else {"lock": lock(place.ctr), **steps}
    steps["verify"] = ("" if alone else f"{MOMENT}\n") + verify(place, names)
    if whole := [str(naming.name) for naming in numbered if naming.complete]:
        steps["check"] = check(place, *whole)
    steps["kept"] = roll_back.kept(given, cri_managed=place.cri_managed)
    comes = place.cri_managed and any(place.crosses or naming.method is Method.BLOBS for naming in numbered)
    records = Records(place.ctr, place.namespace) if comes else None
    undo = roll_back.undo(place.ctr, place.namespace, given, records, cri_managed=place.cri_managed)
    return Script(steps, records.before if records else "", cleanup="\n".join(filter(None, [undo, *cleanups])))


def lock(ctr: Ctr) -> str:
    """Takes a lock that the system releases when the script ends, however it ends: on the folder of the socket.

    Where that folder cannot be read, or the host has no flock(1), or another run keeps the lock, `MOMENT` waits.
    """
    folder = shell.join([posixpath.dirname(ctr.address) or "/"])
    return f"""locked=; ! [ -r {folder} ] || ! command -v flock >/dev/null || {{ exec 9<{folder}
flock -w {_LONGEST_WAIT} 9 2>/dev/null && locked=1; }}; :"""


def _pin(place: Place, naming: Naming) -> str:
    pin = place.ctr.relabel(place.namespace, str(naming.name), PINNED)
    return f"{pin}\npinned_{naming.number}=$?; (exit $pinned_{naming.number})"


def check(place: Place, *names: str) -> str:
    """Builds the step ``check``: ``images check`` of these names; its output is in ``$checked`` as well."""
    question = checks.command(place.ctr, place.namespace, *names)
    return f"""checked=$({question}); e=$?
printf '%s\\n' "$checked"; (exit $e)"""


def _given(place: Place, naming: Naming) -> Given:
    return Given(
        number=naming.number,
        name=str(naming.name),
        digest=naming.target.digest if naming.target else naming.digest,
        stage=str(_stage(place, naming)) if _is_staged(place, naming) else "",
        tolerant=place.ctr.capabilities.fails_on_foreign and naming.foreign,
        complete=naming.complete,
        unpacked=naming.unpack,
        pinned=naming.pin,
    )


def _stage(place: Place, naming: Naming) -> Reference:
    return Reference("ctr-ferry.invalid", place.owner.lower(), str(naming.number))


def _is_staged(place: Place, naming: Naming) -> bool:
    """Whether the content first gets a temporary name, and the wanted name follows.

    A name that is moved follows so that it changes only after all went well. A new name follows by `tag`, which fails
    if somebody else gave the name first, while import would move it.
    """
    if naming.replaces:
        return naming.method is not Method.INDEX
    return place.ctr.capabilities.tag and naming.method is not Method.TAG


def _give(place: Place, naming: Naming) -> tuple[str, str]:
    """The step that gives a name, and the clean-up of other names that it brought."""
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
        # A stream brings the source's own name, which is the wanted name.
        first, cleanup = _bring(place, staged, brings=naming)
        tag = by_tag(place, naming, place.namespace, str(stage))
        last = f'{{ [ -n "$streamed_{naming.number}" ] || {{ {tag}; }}; }}'
    else:
        first, cleanup = _bring(place, staged)
        last = by_tag(place, naming, place.namespace, str(stage))
    return f"staged_{naming.number}=1; {{ {first}; }} && {last}", cleanup


def by_tag(place: Place, naming: Naming, namespace: str, source: str) -> str:
    """Gives the name by `images tag`. Exit status 1 means that tag gave no name; any other one, that it was cut off."""
    step = place.ctr.tag(namespace, source, str(naming.name))
    step = f"{{ {step} || {{ e=$?; [ $e != 1 ] || began_{naming.number}=; (exit $e); }}; }}"
    return _unless_taken(place, naming, step)


def _bring(place: Place, naming: Naming, *, brings: Naming | None = None) -> tuple[str, str]:
    """Gives the name by import, which moves an existing name.

    Args:
        brings: the name that a stream brings besides, and that must not exist.

    Returns:
        The step and its clean-up.
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
    """Gives the name by importing an index-only archive: in constant time, with every version of ctr.

    An existing name is moved by one update.

    Args:
        unpack: False if the image is unpacked already.
    """
    ctr, target = place.ctr, naming.target
    assert target is not None  # noqa: S101
    full, tag, oci_name = str(naming.name), naming.name.tag or "latest", ctr.capabilities.oci_name
    from ctr_ferry.oci import layout

    archive = layout.index_only([(full, tag if oci_name else full, target)])
    flags = []
    if ctr.capabilities.no_unpack:
        # Without --all-platforms, import from 1.3 on drops every platform but the host's, under all names of the index.
        if (naming.whole and target.is_index) or naming.foreign:
            flags.append("--all-platforms")
        if naming.only:
            flags += ["--platform", str(naming.only)]
        if not unpack or naming.foreign or not (place.crosses or naming.unpack):
            flags.append("--no-unpack")
    take = ctr.import_stdin(place.namespace, *flags, oci_name=naming.name.repository if oci_name else None)
    step = f"{shell.printf(archive)} | {take}"
    if naming.replaces:
        return step
    # Two runs that find no name both create it. ctr tells one of them that it exists: that run gave none.
    return f"""{{ said=$({{ {step}; }} 2>&1 >/dev/null); e=$?; [ -z "$said" ] || printf '%s\\n' "$said" >&2
case "$said" in *": already exists"*) began_{naming.number}=;; esac; (exit $e); }}"""


def _unless_taken(place: Place, naming: Naming, step: str) -> str:
    """Checks once more, right before the step, that nobody has the name; from here on the name counts as ours."""
    check = f'if [ -n "$({_is_there(place, naming)})" ]; then (exit {TAKEN}); else'
    return f"{check} began_{naming.number}=1; {step}; fi"


def _is_there(place: Place, naming: Naming) -> str:
    return place.ctr.line(place.namespace, "images", "ls", "-q", f'name=="{naming.name}"')


def by_archive(place: Place, naming: Naming, *, brings: Naming | None = None) -> tuple[str, str]:
    """Gives the name in the classic way: export into import on the host itself, then the exact name by an index.

    Export up to 1.2.13 writes the wanted name. Later versions write the source's own name, so import gives that name
    here as well, and an index-only archive must give the wanted name.

    Returns:
        The step, and the clean-up that removes the source's own name if the namespace did not have it before.
    """
    if not naming.may_stream:
        return f"echo {shell.join([f'{naming.source} is another image in {place.namespace}'])} >&2; false", ""
    ctr = place.ctr
    able, oci_name = ctr.capabilities, ctr.capabilities.oci_name
    ref_name = (naming.name.tag if oci_name else str(naming.name)) if able.oci_ref_name else None
    every = bool(able.import_all_platforms and naming.whole and naming.target and naming.target.is_index)
    export = ctr.export_stdout(place.from_namespace, naming.source, all_platforms=every, ref_name=ref_name)
    repository = naming.name.repository if oci_name else None
    imported = ctr.import_stdin(place.namespace, *(["--all-platforms"] if every else []), oci_name=repository)
    name = by_index(place, naming)
    if able.oci_ref_name:
        # Up to 1.2.13, import has given the wanted name already.
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
    """Makes blobs of another namespace visible here without moving a byte (from 1.1; 1.0 reads the blob's own file).

    A GC root of ours refers to all blobs before they are there. So a collection in between removes none of them;
    anybody's `images rm` causes one.

    Returns:
        The step, and the clean-up that removes the GC root, and finishes the ingests if the step was cut off.
    """
    blobs = tuple(blob.digest for blob in naming.blobs)
    root = Root(ctr=place.ctr, namespace=place.namespace, owner=place.owner, blobs=blobs, number=naming.number)
    open_empty, remove_empty = empty_file(place.owner)
    empty = [open_empty] if place.ctr.capabilities.link else []
    steps = " &&\n".join([*empty, root.prepare(), *(ingest_link(place, blob) for blob in naming.blobs)])
    unlinked = f"unlinked_{naming.number}"
    # If an ingest is cut off in the middle, containerd keeps what has come.
    end = f"{{ {open_empty} && {{ {finish_ingests(place.ctr, place.namespace, place.owner)}; }}; }}"
    cleanup = f'{root.remove()} >/dev/null 2>&1\n[ -z "${unlinked}" ] || {end} >/dev/null 2>&1\n{remove_empty}'
    return f"linked=1; {unlinked}=1; {{ {steps}; }} && linked=0 && {unlinked}=", cleanup


def empty_file(owner: str) -> tuple[str, str]:
    """Opens an empty regular file as descriptor 5 and removes it at once; its name begins with ``owner``.

    Returns:
        The step, and the clean-up for a step that is cut off in the middle; it needs globbing (no ``set -f``).
    """
    file = f'"${{TMPDIR:-/tmp}}"/{shell.join([owner])}.empty'
    return f'empty=$(mktemp {file}.XXXXXX) && exec 5<"$empty" && rm -f "$empty"', f"rm -f {file}.*"


def ingest_link(place: Place, blob: Descriptor) -> str:
    """Makes one blob of another namespace visible here; descriptor 5 must be an empty regular file."""
    algorithm, _, value = blob.digest.partition(":")
    file = f"{place.content_root}/blobs/{algorithm}/{value}"
    source = "<&5" if place.ctr.capabilities.link else f"< {shell.join([file])}"
    return f"{place.ctr.ingest(place.namespace, blob.digest, blob.size, f'{place.owner}-{value[:12]}')} {source}"


def _keep_rest(place: Place, naming: Naming) -> list[str]:
    """Labels that keep a partial index's other platforms; import from 1.3 on keeps the host's platform alone."""
    ctr = place.ctr
    if not ctr.capabilities.import_all_platforms:
        return []
    return [
        ctr.label(place.namespace, parent, *(f"{GC_REF}.rest.{n}={digest}" for n, digest in enumerate(digests)))
        + " >/dev/null"
        for parent, digests in naming.rest.items()
        if digests
    ]


def keep_children(place: Place, index: str) -> str:
    """Labels an index so that all manifests it names are kept; import drops those labels but for the host's platform.

    The host reads the digests out of the index. Digests that are not there do no harm.
    """
    get = place.ctr.content(place.namespace, index)
    if not place.ctr.capabilities.import_all_platforms:
        return ":"
    return f"""( set --; n=0
for each in $({get} | tr '"' '\\n' | grep -x {shell.join([roll_back.DIGEST])} | sort -u); do
  set -- "$@" "{GC_REF}.rest.$n=$each"; n=$((n+1))
done
[ $# = 0 ] || {place.ctr.label(place.namespace, index)} "$@" >/dev/null )"""


def verify(place: Place, names: Iterable[str]) -> str:
    """Builds the step ``verify``: lists the names, where CRI is on once it has labelled them (ten seconds at most)."""
    listing = roll_back.list_labelled(place.ctr, place.namespace, names, cri_managed=place.cri_managed)
    return f"""{listing}
printf '%s\\n' "$rows"; (exit $listed)"""


def was(place: Place, answers: Mapping[str, Answer]) -> Listing:
    """Parses the answer to the step ``was``: the names to be moved, as they were right before; empty if it failed."""
    detail = answers["was"].text if "was" in answers and answers["was"].ok else ""
    return Listing.parse(place.namespace, detail) if detail.strip() else Listing(place.namespace, ())
