"""What killed runs of ctr-ferry left on a host: how it is found and removed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ctr_ferry import shell
from ctr_ferry.ctr import methods, probe, roll_back
from ctr_ferry.ctr.commands import GC_REF, GC_ROOT, KUBELETS, OURS, Ctr
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.ctr.programs import TEMPORARY
from ctr_ferry.errors import BadReference
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.shell import Script
from ctr_ferry.text import shown_name

_WORD = "[A-Za-z0-9._-]"  # the characters of a run's id
_OWNER = re.compile(rf"{OURS}\.{_WORD}+")
_NAME = re.compile(rf"{OURS}\.invalid/{_WORD}+(?::{_WORD}+)?")
_STAGE_TAG = re.compile(rf"{OURS}\.\d{{8}}T\d{{6}}Z-{_WORD}+")
_REF = re.compile(rf"{re.escape(GC_REF)}\.{OURS}\.{_WORD}+")
_FILE = re.compile(rf"/[^\n]*/{OURS}\.{_WORD}+")

_ROW = r" sha[0-9]*:[0-9a-f]\{64,\} .* $"  # ctr pads every row
_REST = r"  *[^ ]* *sha[0-9]*:.*"  # of a row, after the name
# The name that `pull` gives an image until its tag follows: repository:ctr-ferry.RUN@digest.
_STAGE = rf"[^[:space:]@]*:{OURS}[.][0-9]\{{8\}}T[0-9]\{{6\}}Z-{_WORD}*@sha[0-9]*:[0-9a-f]\{{64,\}}"
# Others may write names and labels with line breaks in them. So only text of exactly our form is printed.
# The probe's step sets $namespaces; SESSIONS reads $left.
LEFTOVERS = f"""left=$(ready && printf '%s\\n' "$namespaces" | grep . | while read -r ns; do
  c() {{ $ctr --address "$address" --namespace "$ns" "$@" </dev/null; }}
  echo "namespace $ns"
  rows=$(c images ls | sed 1d)
  printf '%s\\n' "$rows" | grep '{_ROW}' | {{ grep -v '^sha256:' || :; }} |
    sed -n -e 's/^\\({OURS}[.]invalid\\/{_WORD}*\\(:{_WORD}*\\)\\{{0,1\\}}\\){_REST}/name \\1/p' \\
      -e 's/^\\({_STAGE}\\){_REST}/name \\1/p' -e '$=' |
    sed 's/^\\([0-9]*\\)$/images \\1/'
  printf '%s\\n' "$rows" | grep -v -e '{_ROW}' -e '^$' | sed -n -e 's/^/odd /p' -e 3q
  c content active | sed -n 's/^\\({OURS}[.]{_WORD}*\\)[[:space:]].*/ingest \\1/p'
  c content ls | sed -n '/^sha[0-9]*:[0-9a-f]*[[:space:]].*[=.]{OURS}[.]/s/^/blob /p'
done); listed=$?; printf '%s\\n' "$left"; (exit $listed)"""

# Files of a push, pull or cleaning. They belong to root or to the login user; a file of anybody else is not ours.
_MINE = '"$(id -u)" "${SUDO_UID:-0}"'
_OUR_FILES = f"""set -- 0 {_MINE}
find {TEMPORARY} -maxdepth 1 -type f -links 1 \\( -user "$1" -o -user "$2" -o -user "$3" \\) \\
  -name '{OURS}.*' ! -name '*[!{_WORD[1:]}*'"""
FILES = f"""left_files=$( {_OUR_FILES} 2>/dev/null ); printf '%s\\n' "$left_files\""""

# A run at work has a shell here whose command line begins with our bootstrap; the doctor's own shell counts, too.
# Real and effective user must both be root or the login user, since anybody may start a setuid program with words of
# his own. A shell in the group of containerd's socket counts as well. A shell that is known to have another PID
# namespace than ours is in a container, and does not count. No program is started for each process. The question
# is asked only where something is left.
_AT_WORK = 's/^\\(echo ferry-[0-9a-f]*-ready >&2; \\)\\{0,1\\}until . "$l" = \\(ferry-[0-9a-f]\\{16\\}\\) .*/\\2/p'
SESSIONS = f"""( printf '%s\\n' "$left$left_files" | grep -q -e '^name ' -e '^ingest ' -e '^blob ' -e / || exit
owners=
for uid in 0 {_MINE}; do owners="$owners -e ^Uid:[[:space:]]*${{uid}}[[:space:]][[:space:]]*${{uid}}[[:space:]]"; done
group=$(stat -c %g "$address") && owners="$owners -e ^Groups:.*[[:space:]]${{group}}[[:space:]]"
found=
for file in $(set +f; grep -l 'until . "[$]l" = ferry-' /proc/[0-9]*/cmdline); do
  found="$found ${{file%cmdline}}status"
done
set -f
found=$(grep -l '^Name:[[:space:]]*sh$' $found /dev/null)
found=$(grep -l $owners $found /dev/null)
spaces=; for status in $found; do spaces="$spaces ${{status%status}}ns/pid"; done
links=$(ls -ld $spaces /dev/null)
theirs=$(printf '%s\\n' "$links" | grep -e '-> ' | grep -vF -e "-> $(readlink /proc/self/ns/pid)")
files=/dev/null
for status in $found; do
  case $theirs in *" ${{status%status}}ns/pid -> "*) ;; *) files="$files ${{status%status}}cmdline";; esac
done
cat $files | tr '\\0' '\\n'
) 2>/dev/null | sed -n '{_AT_WORK}' | sort -u | grep -c ."""


@dataclass(slots=True)
class InNamespace:
    """What was found in one namespace.

    Attributes:
        images: how many there are.
        names: names that only ctr-ferry gives.
        ingests: keys of unfinished ingests of ours.
        labels: keys of our labels, by digest; they keep content from being collected.
        odd: lines of `images ls` that are no row, since a name or label has a line break.
    """

    namespace: str
    images: int = 0
    names: list[str] = field(default_factory=list)
    ingests: list[str] = field(default_factory=list)
    labels: dict[str, list[str]] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)

    @property
    def left(self) -> str:
        """What runs of ours left here, in words; empty for nothing."""
        found = [
            *(f"name {name}" for name in self.names),
            *(f"unfinished ingest {ingest}" for ingest in self.ingests),
            *(f"labels on {digest}" for digest in self.labels),
        ]
        return f"in {shown_name(self.namespace)}: {', '.join(found)}" if found else ""


def parse_namespaces(text: str) -> list[InNamespace]:
    """Parses the answer to the step ``leftovers``."""
    found: list[InNamespace] = []
    for line in text.split("\n"):  # splitlines() would also split at other characters
        word, _, rest = line.partition(" ")
        if word == "namespace":
            found.append(InNamespace(rest))
        elif not found:
            continue
        elif word == "images":
            found[-1].images = digits(rest)
        elif word == "odd":
            found[-1].odd.append(rest)
        elif word == "name" and is_our_name(rest):
            found[-1].names.append(rest)
        elif word == "ingest" and _OWNER.fullmatch(rest):
            found[-1].ingests.append(rest)
        elif word == "blob" and (keys := our_labels(rest)):
            found[-1].labels[rest.split()[0]] = keys
    return found


def is_our_name(name: str) -> bool:
    """Whether only ctr-ferry gives such a name: in a domain of its own, or `pull`'s name for an image on its way."""
    if _NAME.fullmatch(name):
        return True
    try:
        reference = Reference.parse(name)
    except BadReference:
        return False
    return bool(reference.digest and _STAGE_TAG.fullmatch(reference.tag or "")) and str(reference) == name


def our_labels(row: str) -> list[str]:
    """Returns the keys of our labels in a row of ``content ls``; our own values have no comma."""
    words = row.split()
    if len(words) < 2 or not is_digest(words[0]):
        return []
    pairs = [label.partition("=")[::2] for label in words[-1].split(",")]
    roots = [key for key, value in pairs if key == GC_ROOT and _OWNER.fullmatch(value)]
    return [*roots, *(key for key, _ in pairs if _REF.fullmatch(key))]


def parse_files(text: str) -> list[str]:
    """Parses the answer to the step ``files``; a path of another form belongs to somebody else and is left out."""
    return [line for line in text.split("\n") if _FILE.fullmatch(line)]


def clean(ctr: Ctr, settings: Settings, namespaces: Iterable[InNamespace], files: Sequence[str], owner: str) -> Script:
    """Builds the script that removes what runs of ours left, and then asks again (``leftovers``, ``files``).

    An unfinished ingest ends when it is committed; an empty file, named by ``owner``, adds nothing to it. Nothing names
    its content, so the next collection removes that. If another process still writes the ingest, the step gives up
    after a minute.
    """
    steps: dict[str, str] = {}
    empty, remove_empty = methods.empty_file(owner)
    for each in namespaces:
        gc_rooted = ctr.line(each.namespace, "content", "ls", "-q", f'labels."{GC_ROOT}"~="^{OURS}[.]"')
        lines: list[str] = []
        if any(GC_ROOT in keys for keys in each.labels.values()):
            lines.append(f"roots=$({gc_rooted})")
        lines += [_unlabel(ctr, each.namespace, digest, keys) for digest, keys in each.labels.items()]
        if each.ingests:
            lines.append(empty)
            lines += [ctr.bounded.line(each.namespace, "content", "ingest", key) + " <&5" for key in each.ingests]
        if each.names and each.namespace == KUBELETS:
            lines.append(roll_back.remove(ctr, each.namespace, each.names))
        elif each.names:
            lines.append(ctr.remove(each.namespace, *each.names, sync=True))
        if lines:
            steps[f"clean-{len(steps)}"] = "\n".join(lines)
    if files:
        names = " -o ".join(shell.join(["-name", file.rpartition("/")[2]]) for file in files)
        steps["clean-files"] = f"( {_OUR_FILES} \\( {names} \\) -exec rm -f -- {{}} + )"
    asked = {"namespaces": probe.NAMESPACES, "leftovers": LEFTOVERS, "files": FILES}
    return Script(steps | asked, probe.prologue(settings), cleanup=f"set +f; {remove_empty}")


def _unlabel(ctr: Ctr, namespace: str, digest: str, keys: Sequence[str]) -> str:
    """Removes our labels from a blob; a GC root's label only if containerd's filter finds it: a row can be forged."""
    off = ctr.label(namespace, digest, *(f"{key}=" for key in keys))
    if GC_ROOT not in keys:
        return off
    others = [f"{key}=" for key in keys if key != GC_ROOT]
    rest = ctr.label(namespace, digest, *others) if others else ":"
    return f'case "$roots" in *{digest}*) {off};; *) {rest};; esac'


def digits(text: str) -> int:
    """Reads a number of at most 18 digits; other text is 0."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0
