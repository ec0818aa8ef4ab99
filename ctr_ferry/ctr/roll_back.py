"""What a script gives and cannot prove, its own clean-up takes away again, also where the script is cut off. Pure.

Variables of sh that the steps share, for each name's number N: ``began_N`` (nobody had the name when the script gave
it), ``staged_N`` (the same of a name of ours on the way), ``named_N`` and ``pinned_N`` (exit statuses), ``kept_N``
(proved).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctr_ferry import shell
from ctr_ferry.ctr.commands import CRI_MANAGED, Ctr

_PATIENCE = 100  # looks, a tenth of a second apart, until CRI must have labelled a new name; it takes about 0.04 s
HASTE = 20  # such looks where the script was cut off: the guard lets a clean-up run for ten seconds
DIGEST = r"sha256:[0-9a-f]\{64\}"  # as a basic regular expression
# The guard sends TERM once a second while a clean-up runs; it may hit any command, so each is tried again.
_AGAIN = 'again() { "$@" 2>/dev/null || "$@" 2>/dev/null || "$@" 2>/dev/null; }'


@dataclass(frozen=True, slots=True)
class Given:
    """One name that a script gives.

    Attributes:
        number: tells it from the others of the script.
        digest: what it must point at; None where nobody knows it yet.
        stage: the name of ours on the way to it, if any.
        tolerant: whether the exit status of the step does not count.
        complete, unpacked: what ``images check`` must say, whose answer is in ``$checked``.
        pinned: whether the step that pins it must have succeeded.
        shared: how ``images check`` is asked where others may give that name by the same command: if it says that
            the image is whole, a script that was cut off leaves the name.
    """

    number: int
    name: str
    digest: str | None
    stage: str = ""
    tolerant: bool = False
    complete: bool = False
    unpacked: bool = False
    pinned: bool = False
    shared: str = ""


@dataclass(frozen=True, slots=True)
class Records:
    """Where CRI's ``sha256:<config>`` records may come with the names; ``before`` is sh that is run first."""

    ctr: Ctr
    namespace: str

    @property
    def before(self) -> str:
        """Remembers the records that there are, which are not ours."""
        listing = self.ctr.line(self.namespace, "images", "ls", "-q", 'name~="^sha256:"')
        return f"records=$({listing} 2>/dev/null) || records=unknown"

    @property
    def take(self) -> str:
        """Takes those that came since of the digests in ``$taken``, unless an ordinary name points there, too."""
        listing = self.ctr.line(self.namespace, "images", "ls", "-q")
        return f"""[ "$records" = unknown ] || for digest in $taken; do
  left=$(again {listing} "target.digest==$digest") || continue
  printf '%s\\n' "$left" | grep -qvx {shell.join([DIGEST])} && continue
  for each in $left; do
    case "$records" in *"$each"*) ;; *) again {self.ctr.line(self.namespace, "images", "rm")} "$each";; esac
  done
done"""


def watch(ctr: Ctr, namespace: str, names: Iterable[str], *, cri_managed: bool, patience: int | None = None) -> str:
    """Puts the names' rows into ``$rows``, its exit status into ``$listed``; where CRI watches, once labelled."""
    listing = ctr.images(namespace, *names)
    if not cri_managed:
        return f"rows=$({listing}); listed=$?"
    return f"""n=0
while rows=$({listing}); listed=$?; [ $listed = 0 ] && [ $n -lt {patience or _PATIENCE} ]; do
  all=$(printf '%s\\n' "$rows" | grep -c ' sha256:')
  managed=$(printf '%s\\n' "$rows" | grep -c {shell.join([CRI_MANAGED])})
  [ "$managed" -ge "$all" ] && break
  n=$((n+1)); sleep 0.1 2>/dev/null || sleep 1
done"""


def kept(given: Sequence[Given], *, cri_managed: bool) -> str:
    """Says the numbers of the names that are as they must be, by what ``$rows`` and ``$checked`` say."""
    lines = []
    for each in given:
        tests = [] if each.tolerant else [f'[ "$named_{each.number}" = 0 ]']
        tests.append(_is_in("rows", _row(each.name, each.digest, CRI_MANAGED if cri_managed else "")))
        tests += [_is_in("checked", _check(each))] if each.complete else []
        tests += [f'[ "$pinned_{each.number}" = 0 ]'] if each.pinned else []
        lines.append(f"{' && '.join(tests)} && kept_{each.number}=1 && echo {each.number}")
    return "\n".join([*lines, ":"])


def undo(ctr: Ctr, namespace: str, given: Sequence[Given], records: Records | None, *, cri_managed: bool) -> str:
    """The clean-up: takes away what was begun and not proved, if it still is what the script gave; and our own names.

    CRI gives a name anew that goes while it labels it, so that the clean-up waits for the label, too.
    """
    names = dict.fromkeys(name for each in given for name in (each.name, each.stage) if name)
    doubts = [f"{_unproved(each)} && undo=1" for each in given]
    hasty = watch(ctr, namespace, names, cri_managed=cri_managed, patience=HASTE)
    lines = [
        _AGAIN,
        '[ -n "$listed" ] || undo=1',
        *doubts,
        # What was cut off may still be at work in containerd.
        'if [ -n "$undo" ]; then [ -n "$listed" ] || sleep 0.2 2>/dev/null || sleep 1',
        f"for n in 1 2 3; do {{ {hasty}\n}} 2>/dev/null; [ $listed != 0 ] || break; done",
        *(_take(each) for each in given),
        "fi",
        *(f'[ -z "$staged_{each.number}" ] || set -- "$@" {shell.join([each.stage])}' for each in given if each.stage),
        f'[ $# = 0 ] || again {ctr.line(namespace, "images", "rm")} "$@" >/dev/null',
    ]
    # A name of ours may have brought a record although the wanted one was never given.
    lines += [
        f'[ -n "$kept_{each.number}" ] || [ -z "$staged_{each.number}" ] || taken="$taken {each.digest}"'
        for each in given
        if each.stage
    ]
    return "\n".join([*lines, records.take if records else ""])


def _unproved(each: Given) -> str:
    return f'[ -n "$began_{each.number}" ] && [ -z "$kept_{each.number}" ]'


def _take(each: Given) -> str:
    """Marks the name for removal; only what is there with the script's own digest, if any is known."""
    found = _is_in("rows", _row(each.name, each.digest))
    whole = ""
    if each.shared:
        state = _is_in("checked", _check(each))
        whole = f' && ! {{ [ -z "$named_{each.number}" ] && checked=$({each.shared} 2>/dev/null) && {state}; }}'
    digest = (
        each.digest
        or f"""$(printf '%s\\n' "$rows" | sed -n 's/^{_bre(each.name)} .* \\(sha256:[0-9a-f]*\\) .*/\\1/p')"""
    )
    name = shell.join([each.name])
    return f'if {_unproved(each)} && {found}{whole}; then taken="$taken {digest}"; set -- "$@" {name}; fi'


def _is_in(variable: str, pattern: str) -> str:
    return f"""printf '%s\\n' "${variable}" | grep -q {shell.join([pattern])}"""


def _row(name: str, digest: str | None, label: str = "") -> str:
    """A basic regular expression for a row of ``images ls``: REF TYPE DIGEST … LABELS."""
    return f"^{_bre(name)}  *[^ ]*  *{digest or 'sha256:'}{'.*[ ,]' + _bre(label) if label else ''}"


def _check(each: Given) -> str:
    """One for a row of ``images check``: REF TYPE DIGEST STATUS SIZE UNPACKED."""
    unpacked = r".* true *$" if each.unpacked else ""
    return f"^{_bre(each.name)}  *[^ ]*  *{each.digest or '[^ ]*'}  *complete{unpacked}"


def _bre(text: str) -> str:
    return "".join(f"[{letter}]" if letter in ".[*$" else letter for letter in text)
