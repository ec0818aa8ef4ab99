"""What ``doctor`` asks a host besides the probe, and its findings. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ctr_ferry import shell
from ctr_ferry.ctr import free_space, leftovers
from ctr_ferry.ctr.commands import KUBELETS
from ctr_ferry.ctr.leftovers import InNamespace
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.ctr.programs import KUBERNETES, PLAIN
from ctr_ferry.ctr.version import Capabilities, DaemonCapabilities, Version
from ctr_ferry.errors import CtrNotFound, DaemonUnreachable, HostError, PermissionDenied
from ctr_ferry.shell import Answer
from ctr_ferry.text import shown_name, tail

_LOW, _EMPTY = 15, 5  # percent free; kubelet's imageGCHighThresholdPercent is 85
_SKEW = 60  # seconds


class Health(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes:
        check: what was checked, in a word or two; the same on every host.
        message: what is there.
        hint: what to do; empty if it is ok.
        kind: of the error that says what is wrong, where there is one.
    """

    check: str
    status: Health
    message: str
    hint: str = ""
    kind: str | None = None


def questions(settings: Settings) -> dict[str, str]:
    """Builds the steps that follow the probe's in one script; they use its shell words ``ctr`` and ``ready``."""
    return {
        "path": 'command -v "${ctr%% *}"',
        "leftovers": leftovers.LEFTOVERS,
        "files": leftovers.FILES,
        "space": free_space.question(settings),
        "sessions": leftovers.SESSIONS,
        "clock": "date +%s",
    }


@dataclass(frozen=True, slots=True)
class Visit:
    """The answers, by step, to the one remote command of ``doctor``.

    Attributes:
        facts: what the probe found, or why it found nothing.
        began, ended: seconds by the clock of the control machine.
        login: ``user@host:port``.
        password: whether sudo got a password.
    """

    facts: Facts | HostError
    answers: Mapping[str, Answer]
    began: float
    ended: float
    login: str
    password: bool = False

    @property
    def namespaces(self) -> list[InNamespace]:
        return leftovers.parse_namespaces(self.answers["leftovers"].text)

    @property
    def files(self) -> list[str]:
        """Paths of files that runs of ours left."""
        return leftovers.parse_files(self.answers["files"].text)

    @property
    def remains(self) -> tuple[str, ...]:
        """All that runs of ours left, in words."""
        return (*filter(None, (each.left for each in self.namespaces)), *self.files)

    @property
    def left(self) -> str:
        """All that runs of ours left, in one line; empty for nothing."""
        return "; ".join(self.remains)

    @property
    def others_at_work(self) -> bool:
        """Whether another run of ctr-ferry is at work on that host."""
        return leftovers.digits(self.answers["sessions"].text.strip()) > 1


def findings(visit: Visit) -> list[Finding]:
    """Returns all findings but those on registries, in the order in which they are best repaired."""
    user = shown_name(visit.answers["host"].text.split("\n")[0].strip())
    found = [Finding("reachable", Health.OK, visit.login), Finding("user", Health.OK, user), _sudo(visit)]
    if isinstance(visit.facts, Facts):
        facts, ctr = visit.facts, visit.facts.ctr
        by_index = "by index (this ctr has no `images tag`), in constant time as well"
        found += [
            _ctr(facts, visit.answers["path"].text.strip()),
            _versions(facts.client, facts.server),
            Finding("retag", Health.OK, "by tag" if ctr.capabilities.tag else by_index),
            _socket(facts),
            _namespaces(facts, visit.namespaces),
            _listings(facts, visit.namespaces),
            _cri(facts),
            Finding("platform", Health.OK, str(facts.platform)),
        ]
    elif not isinstance(error := visit.facts, PermissionDenied):
        what = {CtrNotFound: "ctr", DaemonUnreachable: "socket"}.get(type(error), "answers")
        detail = f" ({tail(error.detail, lines=1)})" if error.detail else ""
        found.append(Finding(what, Health.FAIL, f"{error.message}{detail}", error.hint, error.kind))
    found += [_content(visit), _clock(visit)]
    if visit.answers["leftovers"].ok or visit.files:
        found.append(leftovers_found(visit))
    return found


def _sudo(visit: Visit) -> Finding:
    if isinstance(visit.facts, PermissionDenied):
        return Finding("sudo", Health.FAIL, visit.facts.message, visit.facts.hint, visit.facts.kind)
    lines = visit.answers["host"].text.splitlines()
    by = next((line.partition("=")[2] for line in lines if line.startswith("sudo=")), "")
    used = f"used by {shown_name(by)}" + (", with a password" if visit.password else "")
    return Finding("sudo", Health.OK, used if by else "not used")


def _ctr(facts: Facts, path: str) -> Finding:
    command = " ".join(facts.ctr.argv)
    flavour = next((each.title for each in KUBERNETES if each.word in command), PLAIN.title)
    shown = command if path in ("", command) else f"{command} ({path})"
    return Finding("ctr", Health.OK, f"{shown}, {flavour}")


def _versions(client: str, server: str) -> Finding:
    text = f"client {client}, containerd {server or 'unknown'}"
    mine, its = Version.parse(client), Version.parse(server)
    if mine is None:
        todo = "nothing while commands work: ctr-ferry reads from ctr's help what it can do"
        return Finding("version", Health.WARN, f"{text}: not a release", todo)
    if its is None or mine.release == its.release:
        return Finding("version", Health.OK, text)
    if Capabilities.of_version(mine).transfer_client and not DaemonCapabilities.of_version(its).transfer_service:
        todo = "install the ctr that belongs to this containerd, or set ctr_command to it in the inventory"
        return Finding("version", Health.WARN, f"{text}: this ctr can push and pull there only with --local", todo)
    differ = "the versions differ, which works; the client decides what ctr can do"
    return Finding("version", Health.OK, f"{text}: {differ}")


def _socket(facts: Facts) -> Finding:
    address, more = facts.ctr.address, f"; another containerd at {', '.join(facts.others)}" if facts.others else ""
    if facts.kubelets not in ("", address):
        todo = f"set ctr_address: {facts.kubelets} for this host in the inventory, if its images are meant for kubelet"
        return Finding("socket", Health.WARN, f"{address}, and kubelet uses another containerd{more}", todo)
    if facts.chosen:
        todo = f"set ctr_address: {address} for this host in the inventory, or the other one if that is meant"
        return Finding("socket", Health.WARN, facts.chosen, todo)
    return Finding("socket", Health.OK, f"{address}{more}")


def _namespaces(facts: Facts, namespaces: Sequence[InNamespace]) -> Finding:
    counts = {each.namespace: each.images for each in namespaces}
    shown = (f"{shown_name(name)} ({count} image{'s' * (count != 1)})" for name, count in counts.items())
    listed = ", ".join(shown) or "none"
    fullest = max((name for name in counts if name != KUBELETS), key=lambda name: counts[name], default="")
    if facts.cri and not counts.get(KUBELETS) and counts.get(fullest):
        todo = f"name there with retag what kubelet needs of: fab -H HOST images --namespace {shell.join([fullest])}"
        return Finding("namespaces", Health.WARN, f"{listed}: kubelet reads only {KUBELETS}", todo)
    several = facts.cri and len(counts) > 1
    return Finding("namespaces", Health.OK, f"{listed}; kubelet reads only {KUBELETS}" if several else listed)


def _listings(facts: Facts, namespaces: Sequence[InNamespace]) -> Finding:
    odd = [each for each in namespaces if each.odd]
    if not odd:
        return Finding("listings", Health.OK, "every row can be read")
    text = "; ".join(f"in {shown_name(each.namespace)} {each.odd[0][:200]!r} is no row" for each in odd)
    listing = f"{'sudo ' * facts.sudo}{facts.ctr.line(odd[0].namespace, 'images', 'ls')} | cat -A"
    todo = f"find the name or label with the line break, and remove it: fab -H HOST run {shell.join([listing])}"
    return Finding("listings", Health.FAIL, text, todo)


def _cri(facts: Facts) -> Finding:
    text = "on" if facts.cri else "off: kubelet does not use this containerd"
    if not facts.cri and not DaemonCapabilities.of(facts.server).cri_labels:
        text = "containerd up to 1.1 does not tell which names kubelet sees"
    return Finding("CRI", Health.OK, text)


def _content(visit: Visit) -> Finding:
    root = f"{visit.facts.content_root}, " if isinstance(visit.facts, Facts) else ""
    answer = visit.answers["space"]
    found = free_space.parse(answer.text)
    if not found:
        unknown = f"{root}free space unknown: {tail(answer.stderr, lines=1)}"
        return Finding("content store", Health.WARN, unknown, "see whether df works there: fab -H HOST run df")
    size, free = (number / (1 << 30) for number in (found.blobs.size, found.blobs.available))
    percent = 100 * free / size
    text = f"{root}{free:.1f} GiB of {size:.1f} GiB free ({percent:.0f} %) on {found.blobs.mount}"
    if percent < _EMPTY:
        todo = "make room, since kubelet evicts pods: fab -H HOST images --all-namespaces"
        return Finding("content store", Health.FAIL, text, todo)
    if percent < _LOW:
        todo = "make room, since kubelet removes images from 85 % on: fab -H HOST images --all-namespaces"
        return Finding("content store", Health.WARN, text, todo)
    return Finding("content store", Health.OK, text)


def _clock(visit: Visit) -> Finding:
    """The host read its clock while the remote command ran; a time within that span is no skew."""
    there = leftovers.digits(visit.answers["clock"].text.strip())
    if not there:
        return Finding(
            "clock",
            Health.WARN,
            "the host did not tell the time",
            "see whether date works there: fab -H HOST run 'date +%s'",
        )
    ahead, behind = there - visit.ended, visit.began - (there + 1)
    skew = max(0, round(max(ahead, behind)))
    text = f"{skew} s {'ahead of' if ahead > behind else 'behind'} this machine" if skew else "as here"
    if skew < _SKEW:
        return Finding("clock", Health.OK, text)
    return Finding(
        "clock", Health.WARN, text, "set it, since certificates and tokens depend on it: fab -H HOST run timedatectl"
    )


def leftovers_found(visit: Visit) -> Finding:
    """Lists what runs of ours left. While a run is at work there, these things may belong to that run."""
    if not visit.left:
        return Finding("leftovers", Health.OK, "none")
    if visit.others_at_work:
        return Finding("leftovers", Health.OK, f"a run is at work there, to which these may belong: {visit.left}")
    return Finding("leftovers", Health.WARN, f"a killed run left {visit.left}", "remove it: fab -H HOST doctor --clean")
