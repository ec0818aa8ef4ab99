"""``registry``: how each host sees the registries that the inventory names for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry.ctr.health import Health
from ctr_ferry.errors import FerryError, RegistryError, UsageError
from ctr_ferry.oci.registry import Registries, Registry
from ctr_ferry.registry import credentials
from ctr_ferry.report.answers import grouped, results
from ctr_ferry.report.outcome import Result, Status, Table
from ctr_ferry.run.command import per_host
from ctr_ferry.text import names

if TYPE_CHECKING:
    from ctr_ferry.registry.status import RegistryStatus
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.ssh.target import Target

_REMEDY = "WHAT TO DO"  # the heading of the column with the remedies


@dataclass(frozen=True, slots=True)
class RegistryResult:
    """One host's registries."""

    registries: tuple[RegistryStatus, ...]
    status = Status.OK

    def lines(self) -> list[str]:
        """One line per registry, for the record. A person reads the table."""
        return [f"{r.status} {r.registry}: {r.message}" + (f" ({r.hint})" if r.hint else "") for r in self.registries]


def parse(*, name: str | None = None) -> str | None:
    """The registry to inspect; None means all of the inventory's."""
    return name


def before(name: str | None, targets: Sequence[Target]) -> None:
    """Raises UsageError where a login is missing or cannot be used, or where the inventory names no such registry."""
    wanted = {registry for target in targets for registry in _chosen(target, name)}
    if not wanted:
        what = f"no registry {name}" if name else "no registry"
        close = next(filter(None, (target.variables_of(Registries).instead_of(name or "") for target in targets)), "")
        raise UsageError(
            f"the inventory has {what} for these hosts; no host was touched",
            hint=f"did you mean {close}? such as --name {close}"
            if close
            else "write into the inventory, among the variables of all: ctr_registries: "
            f"{{{name or 'registry.example'}: {{scheme: https}}}}, then run the command again",
        )
    credentials.check(wanted)


def _chosen(target: Target, name: str | None) -> list[Registry]:
    return [registry for registry in target.variables_of(Registries).known if name in (None, registry.name)]


def tabulate(answers: Mapping[str, Result | FerryError]) -> Table:
    """One row per registry and state. Hosts that see the same state share a row, with the time of the slowest."""
    rows = grouped(
        ((each.registry, each.status, each.message, each.auth or "-", each.hint), (host, each.seconds))
        for host, found in results(answers, RegistryResult)
        for each in found.registries
    )
    cells = []
    for (registry, health, text, auth, todo), times in rows.items():
        slowest = max((seconds for _, seconds in times if seconds), default=None)
        time = f"{slowest * 1000:.0f} ms" if slowest else "-"
        cells.append((registry, names(host for host, _ in times), health, auth, time, text, todo))
    columns = ("REGISTRY", "HOSTS", "STATUS", "AUTH", "ANSWER", "SEEN", _REMEDY)
    return Table(columns, tuple(sorted(cells, key=lambda row: row[0])))


@per_host(
    parse,
    before=before,
    tabulate=tabulate,
    read_only=True,
    help={"name": "Only this registry of ctr_registries (default: all of them)."},
)
def registry(host: Host, name: str | None) -> RegistryResult:
    """Inspect the inventory's registries as each host sees them: name, connection, TLS, login, time."""
    from ctr_ferry.registry.status import inspect, probed, with_mirrors

    registries = _chosen(host.target, name)
    found = with_mirrors(probed(host), registries, inspect(host, registries, credentials.login, allow_curl=True))
    result = RegistryResult(tuple(found))
    if failed := [each.registry for each in found if each.status is Health.FAIL]:
        raise RegistryError(
            f"this host cannot push to or pull from {', '.join(failed)}",
            hint=f"follow the column {_REMEDY}",
            result=result,
        )
    return result
