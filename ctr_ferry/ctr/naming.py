"""The script that gives names to content that a host already has: one for all names of a namespace. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ctr_ferry import shell
from ctr_ferry.ctr import checks, roll_back, templates
from ctr_ferry.ctr.commands import PINNED, Ctr
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.ctr.methods import (
    ByArchive,
    ByBlobs,
    ByIndex,
    ByTag,
    Naming,
    Step,
    by_tag,
    import_index,
    unless_taken,
)
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.programs import Program
from ctr_ferry.ctr.roll_back import Given
from ctr_ferry.ctr.templates import fill
from ctr_ferry.oci.reference import Reference
from ctr_ferry.shell import Answer, Script

# With ctr up to 1.2, two runs may both give a name. Without a lock, the first run sees that after this moment.
MOMENT = '[ -n "$locked" ] || sleep 0.5 2>/dev/null || sleep 1'
_LONGEST_WAIT = 10  # seconds for the lock of another run


def script(place: Place, namings: Sequence[Naming]) -> Script:
    """Builds the script that gives all names in one remote command.

    Its steps, as far as they are needed: ``lock`` (lets one run at a time give new names), ``was`` (lists the names to
    be moved), ``many-N`` (gives many names by one import), for each name ``link-N`` and ``name-N``, then ``settle``
    (waits for CRI's label), for each name ``labels-N`` (gives back labels that are gone) and ``pin-N``, then ``verify``
    (lists the names), ``check`` (``images check``), ``there`` (lists the blobs) and ``kept`` (prints the numbers of the
    verified names). The clean-up rolls back the names that were given and not verified.
    """
    steps: dict[str, str] = {}
    cleanups: list[str] = []
    if moved := [str(naming.name) for naming in namings if naming.replaces]:
        steps["was"] = place.ctr.images(place.namespace, *moved)
    together = _together(place, namings)
    steps |= {f"many-{n}": _many(place, namings, group) for n, group in enumerate(together)}
    in_many = {number for group in together for number in group}
    for number, naming in enumerate(namings):
        if before := naming.before(place, number):
            steps[f"link-{number}"] = before.text
            cleanups.append(before.cleanup)
        step, cleanup = _give(place, naming, number)
        if number in in_many:
            step = f'[ "$many_{number}" = 0 ] || {{ {step}; }}'
        steps[f"name-{number}"] = f"{step}\nnamed_{number}=$?; (exit $named_{number})"
        cleanups.append(cleanup)
    given = [_given(place, naming, number) for number, naming in enumerate(namings)]
    if labelled := [str(naming.name) for naming in namings if naming.pin or naming.labels]:
        # CRI of 1.7 and later takes a pin away when it labels a new name.
        steps["settle"] = roll_back.list_labelled(place, labelled)
    for number, naming in enumerate(namings):
        if naming.labels:
            steps[f"labels-{number}"] = keep_labels(place, naming.name, naming.labels)
        if naming.pin:
            pin = place.ctr.relabel(place.namespace, str(naming.name), PINNED)
            steps[f"pin-{number}"] = f"{pin}\npinned_{number}=$?; (exit $pinned_{number})"
    alone = place.ctr.capabilities.tag or all(naming.replaces for naming in namings)
    steps = steps if alone else {"lock": lock(place.ctr), **steps}
    steps["verify"] = ("" if alone else f"{MOMENT}\n") + verify(place, roll_back.names(given))
    if whole := [str(naming.name) for naming in namings if naming.complete]:
        steps["check"] = check(place, *whole)
    if any(naming.blobs for naming in namings):
        steps["there"] = _kept_as("there", place.ctr.digests(place.namespace))
    steps["kept"] = roll_back.kept(place, given)
    comes = place.cri_managed and any(place.crosses or isinstance(naming, ByBlobs) for naming in namings)
    cleanups.insert(0, roll_back.undo(place, given, records=comes))
    prologue = roll_back.remember_records(place) if comes else ""
    return Script(steps, prologue, cleanup="\n".join(filter(None, cleanups)))


def keep_labels(place: Place, name: Reference, labels: Sequence[str]) -> str:
    """Builds sh text that labels a name again, if a label is gone from its row in ``$rows``."""
    there = " && ".join(roll_back.is_in("rows", roll_back.row(str(name), None, label)) for label in labels)
    return f"{{ {there}; }} || {place.ctr.relabel(place.namespace, str(name), *labels)} >/dev/null"


def lock(ctr: Ctr) -> str:
    """Takes a lock that the system releases when the script ends, however it ends: on the folder of the socket.

    Where that folder cannot be read, or the host has no flock(1), or another run keeps the lock, `MOMENT` waits.
    """
    folder = shell.join([posixpath.dirname(ctr.address) or "/"])
    return f"""locked=; ! [ -r {folder} ] || ! {Program.FLOCK.is_there} || {{ exec 9<{folder}
{Program.FLOCK} -w {_LONGEST_WAIT} 9 2>/dev/null && locked=1; }}; :"""


def _together(place: Place, namings: Sequence[Naming]) -> list[list[int]]:
    """The numbers of new names that one import can give: with ctr up to 1.2, where `tag` cannot protect each of them.

    Up to 1.1, the names of one import are of one repository.
    """
    groups: dict[object, list[int]] = {}
    if not place.ctr.capabilities.tag:
        for number, naming in enumerate(namings):
            if type(naming) is ByIndex and not naming.replaces:
                repository = naming.name.repository if place.ctr.capabilities.oci_name else ""
                groups.setdefault((naming.flags(place), repository), []).append(number)
    return [group for group in groups.values() if len(group) > 1]


def _many(place: Place, namings: Sequence[Naming], group: Sequence[int]) -> str:
    chosen = {number: naming for number in group if isinstance(naming := namings[number], ByIndex)}
    first, *_ = several = list(chosen.values())
    names = [str(naming.name) for naming in several]
    return fill(
        templates.CREATE_ALL,
        listing=place.ctr.existing(place.namespace, *names),
        began="; ".join(f"began_{number}=1" for number in group),
        step=import_index(place, several, first.flags(place)),
        given="; ".join(f"many_{number}=0" for number in group),
        not_given="; ".join(f"began_{number}=" for number in group),
        rows=place.ctr.images(place.namespace, *names),
        come="\n".join(
            f"{roll_back.is_in('came', roll_back.row(str(naming.name), naming.digest))} && many_{n}=0 began_{n}=1"
            for n, naming in chosen.items()
        ),
    )


def check(place: Place, *names: str) -> str:
    """Builds the step ``check``: ``images check`` of these names; its output is in ``$checked`` as well."""
    return _kept_as("checked", checks.command(place.ctr, place.namespace, *names))


def _kept_as(variable: str, command: str) -> str:
    return f"""{variable}=$({command}); e=$?
printf '%s\\n' "${variable}"; (exit $e)"""


def _given(place: Place, naming: Naming, number: int) -> Given:
    return Given(
        number=number,
        name=str(naming.name),
        digest=naming.digest,
        stage=str(place.stage(number)) if _is_staged(place, naming) else "",
        tolerant=is_tolerant(place, naming),
        complete=naming.complete,
        unpacked=naming.unpack,
        pinned=naming.pin,
        blobs=naming.blobs,
    )


def is_tolerant(place: Place, naming: Naming) -> bool:
    """Whether a failed step does not matter if the name is right: this ctr fails to unpack what it has named."""
    return isinstance(naming, ByIndex) and naming.foreign and place.ctr.capabilities.fails_on_foreign


def _is_staged(place: Place, naming: Naming) -> bool:
    """Whether the content first gets a temporary name, and the wanted name follows.

    A new name follows by `tag`, which fails if somebody else gave the name first, while import would move it.
    """
    return naming.staged if naming.replaces else place.ctr.capabilities.tag and not isinstance(naming, ByTag)


def _give(place: Place, naming: Naming, number: int) -> Step:
    """The step that gives a name, and the clean-up of other names that it brought."""
    if not isinstance(naming, ByIndex):
        return naming.give(place, number)
    if not _is_staged(place, naming):
        step, cleanup = naming.give(place, number)
        return Step(step if naming.replaces else unless_taken(place, naming.name, number, step), cleanup)
    stage = place.stage(number)
    staged = replace(naming, name=stage, replaces=True)
    if naming.replaces:
        last = naming.by_index(place, number, unpack=False)
    else:
        last = by_tag(place, place.namespace, str(stage), naming.name, number)
        if isinstance(staged, ByArchive) and place.crosses and staged.source == str(naming.name):
            # A stream brings the source's own name, which is the wanted name.
            staged = replace(staged, brings=naming.name)
            last = f'{{ [ -n "$streamed_{number}" ] || {{ {last}; }}; }}'
    first, cleanup = staged.give(place, number)
    return Step(f"staged_{number}=1; {{ {first}; }} && {last}", cleanup)


def verify(place: Place, names: Iterable[str]) -> str:
    """Builds the step ``verify``: lists the names, where CRI is on once it has labelled them (ten seconds at most)."""
    return f"""{roll_back.list_labelled(place, names)}
printf '%s\\n' "$rows"; (exit $listed)"""


def was(place: Place, answers: Mapping[str, Answer]) -> Listing:
    """Parses the answer to the step ``was``: the names to be moved, as they were right before; empty if it failed."""
    detail = answers["was"].text if "was" in answers and answers["was"].ok else ""
    return Listing.parse(place.namespace, detail) if detail.strip() else Listing(place.namespace, ())
