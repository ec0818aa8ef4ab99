"""What the doctor asks a host besides the probe, and what it makes of the answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ctr_ferry import shell
from ctr_ferry.ctr import free_space, naming, probe
from ctr_ferry.ctr.commands import GC_REF, GC_ROOT, OURS, Ctr
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.ctr.version import Version
from ctr_ferry.errors import BadReference, CtrNotFound, DaemonUnreachable, HostError, PermissionDenied
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.shell import Answer, Script
from ctr_ferry.text import tail

_WORD = "[A-Za-z0-9._-]"  # what a run's id consists of
_OWNER = re.compile(rf"{OURS}\.{_WORD}+")
_NAME = re.compile(rf"{OURS}\.invalid/{_WORD}+(?::{_WORD}+)?")
_STAGE_TAG = re.compile(rf"{OURS}\.\d{{8}}T\d{{6}}Z-{_WORD}+")
_REF = re.compile(rf"{re.escape(GC_REF)}\.{OURS}\.{_WORD}+")
_FILE = re.compile(rf"/[^\n]*/{OURS}\.{_WORD}+")
_LOW, _EMPTY = 15, 5  # percent free; kubelet's imageGCHighThresholdPercent is 85
_SKEW = 60  # seconds
_KUBELETS = "k8s.io"


class Health(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: its short name, the same on every host.
        text: what was seen.
        todo: what to do about it; empty where it is ok.
    """

    what: str
    health: Health
    text: str
    todo: str = ""


def questions(settings: Settings) -> dict[str, str]:
    """The doctor's own steps, to follow the probe's in one script (they use its words ``ctr`` and ``ready``)."""
    return {
        "path": 'command -v "${ctr%% *}"',
        "held": _HELD,
        "files": _FILES,
        "space": free_space.question(settings),
        "sessions": _SESSIONS,
        "clock": "date +%s",
    }


# Names, labels and files are text that others may have written, with line breaks in it: of what claims to be ours,
# only what has our form is printed, a line each.
_ROW = r" sha[0-9]*:[0-9a-f]\{64,\} .* $"  # ctr pads every row
# The name under which `pull` keeps what is to be moved to its tag: repository:ctr-ferry.RUN@digest.
_STAGE = rf"[^[:space:]@]*:{OURS}[.][0-9]\{{8\}}T[0-9]\{{6\}}Z-{_WORD}*@sha[0-9]*:[0-9a-f]\{{64,\}}"
_HELD = f"""ready && $ctr --address "$address" namespaces ls -q | while read -r ns; do
  c() {{ $ctr --address "$address" --namespace "$ns" "$@" </dev/null; }}
  echo "namespace $ns"
  c images ls -q | {{ grep -v '^sha256:' || :; }} |
    sed -n -e '/^{OURS}[.]invalid\\/{_WORD}*\\(:{_WORD}*\\)\\{{0,1\\}}$/s/^/name /p' \\
      -e '/^{_STAGE}$/s/^/name /p' -e '$=' |
    sed 's/^\\([0-9]*\\)$/images \\1/'
  c images ls | sed 1d | grep -v '{_ROW}' | sed -n -e 's/^/odd /p' -e 3q
  c content active | sed -n 's/^\\({OURS}[.]{_WORD}*\\)[[:space:]].*/ingest \\1/p'
  c content ls | sed -n '/^sha[0-9]*:[0-9a-f]*[[:space:]].*[=.]{OURS}[.]/s/^/blob /p'
done"""

# Certificates that a push or pull brought with it, where `transfer.bring` puts them: files of root's or the login's.
_MINE = '"$(id -u)" "${SUDO_UID:-0}"'
_OUR_FILES = f"""set -- 0 {_MINE}
find "${{TMPDIR:-/tmp}}" -maxdepth 1 -type f -links 1 \\( -user "$1" -o -user "$2" -o -user "$3" \\) \\
  -name '{OURS}.*' ! -name '*[!{_WORD[1:]}*'"""
_FILES = f"( {_OUR_FILES} 2>/dev/null ) || :"

# A run that is at work has a shell here whose command line begins as our bootstrap does. The doctor has one, too.
# Both its user ids must be root's or the login's, since anybody starts a program of root's with words of his own; or
# it belongs to the group of containerd's socket.
_AT_WORK = 's/^\\(echo ferry-[0-9a-f]*-ready >&2; \\)\\{0,1\\}until . "$l" = \\(ferry-[0-9a-f]\\{16\\}\\) .*/\\2/p'
_SESSIONS = f"""( owners=
for uid in 0 {_MINE}; do owners="$owners -e ^Uid:[[:space:]]*$uid[[:space:]][[:space:]]*$uid[[:space:]]"; done
group=$(stat -c %g "$address") && owners="$owners -e ^Groups:.*[[:space:]]$group[[:space:]]"
shells=$(set +f; grep -l '^Name:[[:space:]]*sh$' /proc/[0-9]*/status)
set -f
for status in $(grep -l $owners $shells /dev/null); do tr '\\0' '\\n' <"${{status%status}}cmdline"; done
) 2>/dev/null | sed -n '{_AT_WORK}' | sort -u | grep -c ."""


@dataclass(slots=True)
class Held:
    """One namespace: how many images it has, and what of it is ours.

    Attributes:
        names: of ours, which a killed run has left.
        ingests: that never ended.
        labels: keys by digest, which keep content from being collected.
        odd: lines of the listing of images that are no row: a name or a label has a line break.
    """

    namespace: str
    images: int = 0
    names: list[str] = field(default_factory=list)
    ingests: list[str] = field(default_factory=list)
    labels: dict[str, list[str]] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)

    @property
    def left(self) -> list[str]:
        """What is ours, in words."""
        return [
            *(f"name {name}" for name in self.names),
            *(f"unfinished ingest {ingest}" for ingest in self.ingests),
            *(f"labels on {digest}" for digest in self.labels),
        ]


def parse_held(text: str) -> list[Held]:
    """Parses the answer to ``held``."""
    found: list[Held] = []
    for line in text.split("\n"):  # not at what else Python takes for a line break
        word, _, rest = line.partition(" ")
        if word == "namespace":
            found.append(Held(rest))
        elif not found:
            continue
        elif word == "images":
            found[-1].images = _digits(rest)
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
    """Whether only a run of ours gives such a name: one of our own domain, or `pull`'s for a digest on its way."""
    if _NAME.fullmatch(name):
        return True
    try:
        reference = Reference.parse(name)
    except BadReference:
        return False
    return bool(reference.digest and _STAGE_TAG.fullmatch(reference.tag or "")) and str(reference) == name


def our_labels(row: str) -> list[str]:
    """Keys of ours in a row of ``content ls``; a value with a comma would look like two labels, and is none of ours."""
    words = row.split()
    if len(words) < 2 or not is_digest(words[0]):
        return []
    pairs = [label.partition("=")[::2] for label in words[-1].split(",")]
    roots = [key for key, value in pairs if key == GC_ROOT and _OWNER.fullmatch(value)]
    return [*roots, *(key for key, _ in pairs if _REF.fullmatch(key))]


def parse_files(text: str) -> list[str]:
    """Parses the answer to ``files``; what no run of ours can have named is somebody else's."""
    return [line for line in text.split("\n") if _FILE.fullmatch(line)]


def clean(ctr: Ctr, settings: Settings, held: Iterable[Held], files: Sequence[str], owner: str) -> Script:
    """Takes away what is ours, and looks again (``held``, ``files``).

    An ingest ends by being committed: from an empty regular file nothing is added to it. What it holds is content
    that nothing names, which goes with the next collection. One that somebody is writing is given up after a minute.

    Args:
        owner: this run's, whose name that empty file has.
    """
    steps: dict[str, str] = {}
    empty, remove_empty = naming.empty_file(owner)
    for each in held:
        gc_rooted = ctr.line(each.namespace, "content", "ls", "-q", f'labels."{GC_ROOT}"~="^{OURS}[.]"')
        lines = [f"roots=$({gc_rooted})"] if each.labels else []
        lines += [_unlabel(ctr, each.namespace, digest, keys) for digest, keys in each.labels.items()]
        lines += [empty] if each.ingests else []
        lines += [ctr.bounded.line(each.namespace, "content", "ingest", key) + " <&5" for key in each.ingests]
        lines += [ctr.remove(each.namespace, *each.names, sync=True)] if each.names else []
        if lines:
            steps[f"clean-{len(steps)}"] = "\n".join(lines)
    if files:
        names = " -o ".join(shell.join(["-name", file.rpartition("/")[2]]) for file in files)
        steps["clean-files"] = f"( {_OUR_FILES} \\( {names} \\) -exec rm -f -- {{}} + )"
    prologue = probe.script(settings, ()).prologue
    return Script({**steps, "held": _HELD, "files": _FILES}, prologue, cleanup=f"set +f; {remove_empty}")


def _unlabel(ctr: Ctr, namespace: str, digest: str, keys: Sequence[str]) -> str:
    """A root goes only where containerd itself says that it is ours: a row of a table may lie, by a line break."""
    off = ctr.label(namespace, digest, *(f"{key}=" for key in keys))
    if GC_ROOT not in keys:
        return off
    others = [f"{key}=" for key in keys if key != GC_ROOT]
    rest = ctr.label(namespace, digest, *others) if others else ":"
    return f'case "$roots" in *{digest}*) {off};; *) {rest};; esac'


@dataclass(frozen=True, slots=True)
class Visit:
    """All that a doctor's one remote command brought home.

    Attributes:
        facts: or why the probe has none.
        began, ended: by the control machine's clock.
        login: ``user@host:port``.
        password: whether sudo was given one.
    """

    facts: Facts | HostError
    answers: Mapping[str, Answer]
    began: float
    ended: float
    login: str
    password: bool = False

    @property
    def held(self) -> list[Held]:
        """What each namespace has."""
        return parse_held(self.answers["held"].text)

    @property
    def files(self) -> list[str]:
        """Files of ours."""
        return parse_files(self.answers["files"].text)

    @property
    def left(self) -> str:
        """What is ours, in words."""
        return left(self.held, self.files)

    @property
    def others_at_work(self) -> bool:
        """Whether another run of ours is at work on that host."""
        return _number(self.answers["sessions"]) > 1


def findings(visit: Visit) -> list[Finding]:
    """Everything but the registries, in the order in which one would mend it."""
    found = [Finding("reachable", Health.OK, visit.login), _user(visit), _sudo(visit)]
    if isinstance(visit.facts, Facts):
        facts = visit.facts
        found += [
            _ctr(facts, visit.answers["path"].text.strip()),
            _versions(facts.client, facts.server),
            _retag(facts),
            _socket(facts),
            _namespaces(facts, visit.held),
            _listings(visit.held),
            _cri(facts),
            Finding("platform", Health.OK, str(facts.platform)),
        ]
    elif not isinstance(visit.facts, PermissionDenied):
        found.append(_trouble(visit.facts))
    found += [_content(visit), _clock(visit)]
    if visit.answers["held"].ok or visit.files:
        found.append(leftovers(visit))
    return found


def _trouble(error: HostError) -> Finding:
    what = {CtrNotFound: "ctr", DaemonUnreachable: "socket"}.get(type(error), "answers")
    detail = f" ({tail(error.detail, lines=1)})" if error.detail else ""
    return Finding(what, Health.FAIL, f"{error.message}{detail}", error.hint)


def _user(visit: Visit) -> Finding:
    return Finding("user", Health.OK, visit.answers["host"].text.split("\n")[0].strip())


def _sudo(visit: Visit) -> Finding:
    if isinstance(visit.facts, PermissionDenied):
        return Finding("sudo", Health.FAIL, visit.facts.message, visit.facts.hint)
    lines = visit.answers["host"].text.splitlines()
    by = next((line.partition("=")[2] for line in lines if line.startswith("sudo=")), "")
    if by:
        return Finding("sudo", Health.OK, f"used by {by}" + (", with a password" if visit.password else ""))
    return Finding("sudo", Health.OK, "not used")


def _ctr(facts: Facts, path: str) -> Finding:
    command = " ".join(facts.ctr.argv)
    flavours = {"k3s": "k3s", "rke2": "RKE2", "k0s": "k0s", "microk8s": "MicroK8s"}
    flavour = next((name for word, name in flavours.items() if word in command), "containerd's own")
    shown = command if path in ("", command) else f"{command} ({path})"
    return Finding("ctr", Health.OK, f"{shown}, {flavour}")


def _versions(client: str, server: str) -> Finding:
    text = f"client {client}, containerd {server or 'unknown'}"
    mine, its = Version.parse(client), Version.parse(server)
    if mine is None:
        todo = "nothing, as long as commands work: what this ctr can do is found out from its help"
        return Finding("version", Health.WARN, f"{text}: not a release", todo)
    if its is None or (mine.major, mine.minor) == (its.major, its.minor):
        return Finding("version", Health.OK, text)
    if mine.at_least(2, 0) and not its.at_least(1, 7):
        todo = "install the ctr that came with this containerd, or name it with ctr_command"
        return Finding("version", Health.WARN, f"{text}: this ctr pushes and pulls there only with --local", todo)
    return Finding("version", Health.OK, f"{text}: they differ, which works; what ctr can do is the client's")


def _retag(facts: Facts) -> Finding:
    if facts.ctr.capabilities.tag:
        return Finding("retag", Health.OK, "by tag")
    return Finding("retag", Health.OK, "by index (this ctr has no tag), in constant time as well")


def _socket(facts: Facts) -> Finding:
    others = [socket for socket in facts.sockets if socket != facts.ctr.address]
    more = f"; another containerd at {', '.join(others)}" if others else ""
    return Finding("socket", Health.OK, facts.ctr.address + more)


def _namespaces(facts: Facts, held: Sequence[Held]) -> Finding:
    counts = {each.namespace: each.images for each in held}
    listed = ", ".join(f"{name} ({count} image{'s' * (count != 1)})" for name, count in counts.items()) or "none"
    fullest = max((name for name in counts if name != _KUBELETS), key=lambda name: counts[name], default="")
    if facts.cri and not counts.get(_KUBELETS) and counts.get(fullest):
        todo = f"bring them over with retag --namespace {fullest} --to-namespace {_KUBELETS}"
        return Finding("namespaces", Health.WARN, f"{listed}: kubelet reads only {_KUBELETS}", todo)
    several = facts.cri and len(counts) > 1
    return Finding("namespaces", Health.OK, f"{listed}; kubelet reads only {_KUBELETS}" if several else listed)


def _listings(held: Sequence[Held]) -> Finding:
    odd = [each for each in held if each.odd]
    if not odd:
        return Finding("listings", Health.OK, "every row can be read")
    text = "; ".join(f"in {each.namespace} {each.odd[0][:200]!r} is no row" for each in odd)
    todo = f"find the name or label with the line break (`ctr -n {odd[0].namespace} images ls | cat -A`) and remove it"
    return Finding("listings", Health.FAIL, text, todo)


def _cri(facts: Facts) -> Finding:
    if facts.cri:
        return Finding("CRI", Health.OK, "on")
    server = Version.parse(facts.server)
    if server and not server.at_least(1, 2):
        return Finding("CRI", Health.OK, "containerd before 1.2 does not tell which names kubelet sees")
    return Finding("CRI", Health.OK, "off: kubelet does not use this containerd")


def _content(visit: Visit) -> Finding:
    root = f"{visit.facts.content_root}, " if isinstance(visit.facts, Facts) else ""
    answer = visit.answers["space"]
    found = free_space.parse(answer.text)
    if not found:
        todo = "look with df at containerd's root on that host"
        return Finding("content store", Health.WARN, f"{root}free space unknown: {tail(answer.stderr, lines=1)}", todo)
    size, free = found.blobs.size, found.blobs.available
    percent = 100 * free / size
    text = f"{root}{_gib(free)} of {_gib(size)} free ({percent:.0f} %) on {found.blobs.mount}"
    if percent < _EMPTY:
        return Finding(
            "content store", Health.FAIL, text, "make room: the next image may not fit, and kubelet evicts pods"
        )
    if percent < _LOW:
        todo = "make room: kubelet removes unused images from 85 % use on, what is delivered first of all"
        return Finding("content store", Health.WARN, text, todo)
    return Finding("content store", Health.OK, text)


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _clock(visit: Visit) -> Finding:
    """Somewhere within the remote command the host looked at its clock; only what lies outside of that is skew."""
    there = _number(visit.answers["clock"])
    if not there:
        return Finding("clock", Health.WARN, "the host tells no time", "run date +%s there")
    ahead, behind = there - visit.ended, visit.began - (there + 1)
    skew = max(0, round(max(ahead, behind)))
    text = f"{skew} s {'ahead of' if ahead > behind else 'behind'} this machine" if skew else "as here"
    if skew < _SKEW:
        return Finding("clock", Health.OK, text)
    return Finding("clock", Health.WARN, text, "set it (timedatectl, chrony): certificates and tokens depend on it")


def _number(answer: Answer) -> int:
    return _digits(answer.text.strip())


def _digits(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0


def leftovers(visit: Visit) -> Finding:
    """What runs of ours have left; while one is at work there, it may be that one's."""
    what = visit.left
    if not what:
        return Finding("leftovers", Health.OK, "none")
    if visit.others_at_work:
        return Finding("leftovers", Health.OK, f"none, as far as one can tell: a run is at work there ({what})")
    return Finding("leftovers", Health.WARN, f"a killed run left {what}", "remove it with doctor --clean")


def left(held: Iterable[Held], files: Iterable[str]) -> str:
    """What is ours in all namespaces and among the files, in words."""
    return "; ".join([*(f"in {each.namespace}: {', '.join(each.left)}" for each in held if each.left), *files])
