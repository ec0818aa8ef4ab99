"""The clean-up of a script that gives names: it rolls back every name that was not verified. Pure.

The clean-up runs on the host, also if the script is cut off. The steps share shell variables, for each name's number N:

- ``began_N``: nobody had the name when the script began to give it;
- ``staged_N``: the script began to give a temporary name on the way to it;
- ``moved_N``: the script is about to move a name that existed;
- ``named_N``, ``pinned_N``: exit statuses;
- ``kept_N``: the name was verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctr_ferry import shell
from ctr_ferry.ctr.commands import CRI_MANAGED, PINNED, Ctr
from ctr_ferry.ctr.place import Place

_PATIENCE = 100  # listings, 0.1 s apart, in which CRI must label a new name; CRI takes about 0.04 s
DIGEST = r"sha256:[0-9a-f]\{64\}"  # as a basic regular expression
# A last TERM may come while a clean-up begins. TERM may end any command, so each is tried three times.
_AGAIN = 'again() { "$@" 2>/dev/null || "$@" 2>/dev/null || "$@" 2>/dev/null; }'


@dataclass(frozen=True, slots=True)
class Given:
    """One name that a script gives.

    Attributes:
        digest: what the name must point at; None if nobody knows it yet.
        stage: the temporary name on the way to it; empty for none.
        tolerant: whether the exit status of the naming step does not matter.
        complete, unpacked: whether ``images check`` must say so; its output is in ``$checked``.
        pinned: whether the name must be pinned.
        blobs: digests that must be in ``$there``.
        shared: the command ``images check``, if others may give the same name in the same way. A script that is cut
            off, or whose naming step fails, then leaves the name if the command says that the image is whole.
    """

    number: int
    name: str
    digest: str | None
    stage: str = ""
    tolerant: bool = False
    complete: bool = False
    unpacked: bool = False
    pinned: bool = False
    blobs: tuple[str, ...] = ()
    shared: str = ""


def names(given: Sequence[Given]) -> list[str]:
    """Returns all names that a script gives, the temporary ones included."""
    return list(dict.fromkeys(name for each in given for name in (each.name, each.stage) if name))


def remember_records(place: Place) -> str:
    """Builds sh text to run first: it remembers CRI's ``sha256:<config>`` records that exist, which are not ours."""
    listing = place.ctr.line(place.namespace, "images", "ls", "-q", 'name~="^sha256:"')
    return f"records=$({listing} 2>/dev/null) || records=unknown"


def _remove_records(ctr: Ctr, namespace: str) -> str:
    """Removes newer records of the digests in ``$taken``, unless a user's name points there as well."""
    listing = ctr.line(namespace, "images", "ls", "-q")
    return f"""[ "$records" = unknown ] || for digest in $taken; do
  left=$(again {listing} "target.digest==$digest") || continue
  printf '%s\\n' "$left" | grep -qvx {shell.join([DIGEST])} && continue
  for each in $left; do
    case "$records" in *"$each"*) ;; *) again {ctr.line(namespace, "images", "rm")} "$each";; esac
  done
done"""


def remove(ctr: Ctr, namespace: str, unwanted: Sequence[str]) -> str:
    """Builds sh text that removes names, and CRI's records of their digests unless a user's name points there, too."""
    digests = shell.join(["sed", "-n", rf"s/^[^ ][^ ]*  *[^ ][^ ]*  *\({DIGEST}\) .*/\1/p"])
    return "\n".join(
        [
            _AGAIN,
            "records=",
            f"taken=$({ctr.images(namespace, *unwanted)} | {digests} | sort -u)",
            f"{ctr.remove(namespace, *unwanted, sync=True)}; removed=$?",
            _remove_records(ctr, namespace),
            "[ $removed = 0 ]",
        ]
    )


def list_labelled(place: Place, names: Iterable[str]) -> str:
    """Builds sh text that lists names: rows into ``$rows``, exit status into ``$listed``.

    Where CRI must label new names, it lists again until CRI has labelled every name that is there.
    """
    listing = place.ctr.images(place.namespace, *names)
    if not place.cri_managed:
        return f"rows=$({listing}); listed=$?"
    return f"""n=0
while rows=$({listing}); listed=$?; [ $listed = 0 ] && [ $n -lt {_PATIENCE} ]; do
  all=$(printf '%s\\n' "$rows" | grep -c ' sha256:')
  managed=$(printf '%s\\n' "$rows" | grep -c {shell.join([CRI_MANAGED])})
  [ "$managed" -ge "$all" ] && break
  n=$((n+1)); sleep 0.1 2>/dev/null || sleep 1
done"""


def kept(place: Place, given: Sequence[Given]) -> str:
    """Builds the step ``kept``: verifies names by the listing and exit statuses, and prints their numbers."""
    label = rf".*[ ,]{_bre(CRI_MANAGED)}" if place.cri_managed else ""
    proved = shell.join(["sed", "-n", rf"s/^\([^ ]*\)  *[^ ]*  *\([^ :]*:[^ ]*\) {label}.*/\1 \2/p"])
    # No program is started for a name: there may be a thousand of them.
    lines = [f"nl={shell.join([chr(10)])}; proved=$nl$(printf '%s\\n' \"$rows\" | {proved})$nl"]
    for each in given:
        line = shell.join([f"{each.name} {each.digest}"]) + '"$nl"' if each.digest else shell.join([f"{each.name} "])
        tests = [f'case $proved in *"$nl"{line}*) ;; *) false;; esac']
        if not each.tolerant:
            tests.append(f'[ "$named_{each.number}" = 0 ]')
        if each.complete:
            tests.append(is_in("checked", _check(each)))
        if each.blobs:
            wanted = [word for digest in dict.fromkeys(each.blobs) for word in ("-e", digest)]
            found = f"printf '%s\\n' \"$there\" | {shell.join(['grep', '-cxF', *wanted])}"
            tests.append(f'[ "$({found})" = {len(wanted) // 2} ]')
        if each.pinned:
            tests.append(f'[ "$pinned_{each.number}" = 0 ]')
            tests.append(is_in("rows", row(each.name, each.digest, PINNED)))
        lines.append(f"{' && '.join(tests)} && kept_{each.number}=1 && echo {each.number}")
    return "\n".join([*lines, ":"])


def back(place: Place, given: Given, step: str) -> str:
    """Builds the step that lists a name, and before does ``step`` if the script moved and did not verify the name."""
    here = is_in("rows", row(given.name, given.digest))
    moved = f'[ -n "$moved_{given.number}" ] && [ -z "$kept_{given.number}" ] && {here}'
    return f"if {moved}; then {{ {step}; }} >/dev/null; fi\n{place.ctr.images(place.namespace, given.name)}"


def undo(place: Place, given: Sequence[Given], *, records: bool) -> str:
    """Builds the clean-up: it removes temporary names, and names that were begun and not verified.

    A name that now points at another digest is somebody else's and stays. The clean-up waits for CRI's label before it
    removes a name: if a name goes while CRI labels it, CRI creates it again. With ``records``, CRI's records that came
    with the names go as well, since `remember_records`.
    """
    staged = [each for each in given if each.stage]
    lines = [
        _AGAIN,
        '[ -n "$listed" ] || undo=1',
        *(f"{_unproved(each)} && undo=1" for each in given),
        # containerd may still be at work on a command that was cut off.
        'if [ -n "$undo" ]; then [ -n "$listed" ] || sleep 0.2 2>/dev/null || sleep 1',
        f"for n in 1 2 3; do {{ {list_labelled(place, names(given))}\n}} 2>/dev/null; [ $listed != 0 ] || break; done",
        *(_mark(each) for each in given),
        "fi",
        *(f'[ -z "$staged_{each.number}" ] || set -- "$@" {shell.join([each.stage])}' for each in staged),
        f'[ $# = 0 ] || again {place.ctr.line(place.namespace, "images", "rm")} "$@" >/dev/null',
    ]
    # A temporary name may have brought a record although the wanted name was never given.
    lines += [
        f'[ -n "$kept_{each.number}" ] || [ -z "$staged_{each.number}" ] || taken="$taken {each.digest}"'
        for each in staged
    ]
    return "\n".join([*lines, _remove_records(place.ctr, place.namespace) if records else ""])


def _unproved(each: Given) -> str:
    return f'[ -n "$began_{each.number}" ] && [ -z "$kept_{each.number}" ]'


def _mark(each: Given) -> str:
    """Marks an unverified name for removal, if it is there with the script's own digest."""
    found = is_in("rows", row(each.name, each.digest))
    whole = ""
    if each.shared:
        state = is_in("checked", _check(each))
        whole = f' && ! {{ [ "$named_{each.number}" != 0 ] && checked=$({each.shared} 2>/dev/null) && {state}; }}'
    third = rf"s|^{_bre(each.name)} .* \(sha256:[0-9a-f]*\) .*|\1|p"
    digest = each.digest or f"""$(printf '%s\\n' "$rows" | {shell.join(["sed", "-n", third])})"""
    name = shell.join([each.name])
    return f'if {_unproved(each)} && {found}{whole}; then taken="$taken {digest}"; set -- "$@" {name}; fi'


def is_in(variable: str, pattern: str) -> str:
    """A sh test: whether a line of a variable fits a basic regular expression."""
    return f"""printf '%s\\n' "${variable}" | grep -q {shell.join([pattern])}"""


def row(name: str, digest: str | None, label: str = "") -> str:
    """A basic regular expression for a name's row of ``images ls``: REF TYPE DIGEST … LABELS."""
    return f"^{_bre(name)}  *[^ ]*  *{digest or 'sha256:'}{'.*[ ,]' + _bre(label) if label else ''}"


def _check(each: Given) -> str:
    """A basic regular expression for a whole image's row of ``images check``: REF TYPE DIGEST STATUS SIZE UNPACKED."""
    unpacked = r".* true *$" if each.unpacked else ""
    return f"^{_bre(each.name)}  *[^ ]*  *{each.digest or '[^ ]*'}  *complete{unpacked}"


def _bre(text: str) -> str:
    return "".join(f"[{letter}]" if letter in ".[*$" else letter for letter in text)
