"""``doctor``: finds what is wrong on a host, and says what to do about it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, replace
from typing import TYPE_CHECKING

from ctr_ferry.ctr import health, leftovers
from ctr_ferry.ctr.commands import Ctr, owner_of
from ctr_ferry.ctr.failures import failure
from ctr_ferry.ctr.health import Finding, Health, Visit
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.errors import FerryError, PermissionDenied, Unhealthy, Unreachable
from ctr_ferry.images import inspect
from ctr_ferry.oci.registry import Registries
from ctr_ferry.report.answers import grouped, results
from ctr_ferry.report.hints import at_hosts
from ctr_ferry.report.outcome import Result, Status, Table
from ctr_ferry.run.command import per_host
from ctr_ferry.text import names

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options, checked before the first connection."""

    clean: bool = False
    all: bool = False


@dataclass
class DoctorResult:
    """One host's findings.

    Attributes:
        cleaned: what was, or in a dry run would be, removed.
        everything: whether a person wants to see the findings that are ok as well; not in the JSON output.
    """

    findings: tuple[Finding, ...]
    cleaned: tuple[str, ...] = ()
    status: Status = Status.OK
    everything: InitVar[bool] = False

    def __post_init__(self, everything: bool) -> None:
        self.shown = [f for f in self.findings if everything or f.status is not Health.OK]

    def lines(self) -> list[str]:
        """One line per finding, for the record; a person reads the table."""
        return [f"{f.status} {f.check}: {f.message}" + (f" ({f.hint})" if f.hint else "") for f in self.findings]


def tabulate(answers: Mapping[str, Result | FerryError]) -> Table:
    """Makes one row per finding; hosts with the same finding share a row."""
    found = dict(results(answers, DoctorResult))
    rows = grouped((finding, host) for host, result in found.items() for finding in result.shown)
    order = list(dict.fromkeys(finding.check for finding in rows))
    well = [host for host, result in found.items() if all(f.status is Health.OK for f in result.findings)]
    note = f"nothing is wrong on {names(well)}" if well else ""
    return Table(
        ("HOST", "FINDING", "STATUS", "SEEN", "WHAT TO DO"),
        tuple(
            (names(on, every=f.status is Health.FAIL), f.check, str(f.status), f.message, at_hosts(f.hint, on))
            for f, on in sorted(rows.items(), key=lambda row: order.index(row[0].check))
        ),
        (note,) if note else (),
    )


@per_host(
    Request,
    tabulate=tabulate,
    read_only=lambda request: not request.clean,
    help={
        "clean": "Remove what killed runs of ctr-ferry left: labels, unfinished ingests, names, files.",
        "all": "Show what is ok as well.",
    },
)
def doctor(host: Host, request: Request) -> DoctorResult:
    """Inspect a host and its registries, and say what is wrong and what to do about it."""
    from ctr_ferry.registry import mirrors
    from ctr_ferry.registry.status import inspect as inspect_registries
    from ctr_ferry.registry.status import with_mirrors

    registries = host.target.variables_of(Registries).known
    visit, cleaned = _visit(host, mirrors.question(host) if registries else {}), tuple[str, ...]()
    if isinstance(visit, Finding):
        found = [Finding("reachable", Health.OK, host.where), visit]
    else:
        found = health.findings(visit)
        if request.clean and _cleanable(visit):
            cleaning, cleaned = _clean(host, visit)
            found = [cleaning if each.check == "leftovers" else each for each in found]
    seen = inspect_registries(host, registries)
    if not isinstance(visit, Finding) and isinstance(visit.facts, Facts):
        seen = with_mirrors(mirrors.Probed(host, visit.facts, visit.answers), registries, seen)
    found += [Finding(f"registry {each.registry}", each.status, each.message, each.hint, each.kind) for each in seen]
    status = Status.CHANGED if cleaned else Status.OK
    result = DoctorResult(tuple(found), cleaned, status, everything=request.all)
    if ill := [finding.check for finding in found if finding.status is Health.FAIL]:
        raise Unhealthy(f"to be repaired: {', '.join(ill)}", hint="follow the column WHAT TO DO", result=result)
    return result


def _visit(host: Host, more: Mapping[str, str] | None = None) -> Visit | Finding:
    """Asks everything, and ``more`` steps, in one remote command; returns a finding if that command failed."""
    host.open()
    began = time.time()
    try:
        facts, answers = inspect.survey(
            host, (), {**health.questions(host.target.variables_of(Settings)), **(more or {})}
        )
    except Unreachable:
        raise
    except FerryError as error:
        denied = isinstance(error, PermissionDenied)
        text = f"{error.message} ({error.detail})" if denied and error.detail else error.message
        return Finding("sudo" if denied else "answers", Health.FAIL, text, error.hint, error.kind)
    return Visit(
        facts=facts,
        answers=answers,
        began=began,
        ended=time.time(),
        login=host.where,
        password=host.has_sudo_password,
    )


def _clean(host: Host, visit: Visit) -> tuple[Finding, tuple[str, ...]]:
    """Inspects the host again, and removes what killed runs left; returns the new finding, and what was removed."""
    if host.dry_run:
        return Finding("leftovers", Health.OK, f"would remove {visit.left}"), visit.remains
    now = _visit(host)  # the first answer may be old by now
    if isinstance(now, Finding):
        return Finding("leftovers", Health.FAIL, f"could not be removed: {now.message}", now.hint), ()
    ctr = _cleanable(now)
    if not ctr:
        return health.leftovers_found(now if now.answers["leftovers"].ok or now.files else visit), ()
    settings, owner = host.target.variables_of(Settings), owner_of(host.run_id)
    answers = host.ask(leftovers.clean(ctr, settings, now.namespaces, now.files, owner))
    still = replace(now, answers=answers).left
    if answers["leftovers"].ok and not still:
        return Finding("leftovers", Health.OK, f"removed {now.left}"), now.remains
    failed = [failure(a, "leftovers").detail for name, a in answers.items() if not a.ok]
    todo = f"remove it by hand: {'; '.join(failed)}"
    return Finding("leftovers", Health.FAIL, f"could not be removed: {still or now.left}", todo), ()


def _cleanable(visit: Visit) -> Ctr | None:
    """The ctr that may remove what killed runs left; None where nothing is left, or a run is at work there."""
    free = visit.left and not visit.others_at_work
    return visit.facts.ctr if free and isinstance(visit.facts, Facts) else None
