"""``registry``: what each host sees of each registry that the inventory names for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry.errors import FerryError, RegistryError, UsageError
from ctr_ferry.oci.registry import REMEDIES, Registries, Registry, RegistryState
from ctr_ferry.registry import credentials
from ctr_ferry.report.outcome import Result, Status, Table
from ctr_ferry.run.command import per_host
from ctr_ferry.text import names

if TYPE_CHECKING:
    from ctr_ferry.registry.client import RegistryStatus
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.ssh.target import Target

_WELL = (RegistryState.OPEN, RegistryState.LOGIN)
_UNSURE = (RegistryState.NOT_CHECKED, RegistryState.NO_TIME)


@dataclass(frozen=True, slots=True)
class Request:
    """Which registries; None is all."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class RegistryRow:
    """One registry from one host.

    Attributes:
        health: ok, warn (it could not be asked) or fail.
        auth: what it wants a login with: Basic, Bearer, or empty.
        login: whether our login works; None where it wants none or we have none.
        seconds: until its first answer; None where there was none.
    """

    registry: str
    scheme: str
    health: str
    text: str
    auth: str
    login: bool | None
    seconds: float | None
    todo: str

    @classmethod
    def of(cls, registry_status: RegistryStatus) -> RegistryRow:
        """From what was seen."""
        state, auth = registry_status.state, registry_status.auth
        health = "ok" if state in _WELL else "warn" if state in _UNSURE else "fail"
        login = {RegistryState.OPEN: True, RegistryState.UNAUTHORIZED: False}.get(state) if auth else None
        text = f"{state.value}, the login works" if login else state.value
        text += f" ({registry_status.detail})" if registry_status.detail else ""
        seconds = round(registry_status.seconds, 3) if registry_status.seconds else None
        return cls(
            registry_status.registry.name,
            registry_status.registry.scheme,
            health,
            text,
            auth,
            login,
            seconds,
            REMEDIES.get(state, ""),
        )


@dataclass(frozen=True, slots=True)
class RegistryResult:
    """One host's registries."""

    registries: tuple[RegistryRow, ...]

    @property
    def status(self) -> Status:
        """It only looks."""
        return Status.OK

    def lines(self) -> list[str]:
        """A line a registry, for the record; a person reads the table."""
        return [f"{r.health} {r.registry}: {r.text}" + (f" ({r.todo})" if r.todo else "") for r in self.registries]


def parse(*, name: str | None = None) -> Request:
    """Options to a request."""
    return Request(name)


def before(request: Request, targets: Sequence[Target]) -> None:
    """Finds the logins that the inventory names before any host is touched.

    Raises:
        UsageError: what is wrong with one, or no registry of that name.
    """
    wanted = {registry for target in targets for registry in _chosen(target, request)}
    if not wanted:
        what = f"no registry {request.name}" if request.name else "no registry"
        raise UsageError(f"the inventory has {what} for these hosts", hint="name them in ctr_registries")
    credentials.check(wanted)


def _chosen(target: Target, request: Request) -> list[Registry]:
    return [registry for registry in target.variables_of(Registries).known if request.name in (None, registry.name)]


def tabulate(answers: Mapping[str, Result | FerryError]) -> Table:
    """A row a registry and what is seen of it; hosts that see the same share one, with the slowest's time."""
    rows: dict[tuple[str, ...], list[tuple[str, float | None]]] = {}
    for host, answer in answers.items():
        found = answer.result if isinstance(answer, FerryError) else answer
        for each in found.registries if isinstance(found, RegistryResult) else ():
            key = (each.registry, each.health, each.text, each.auth or "-", each.todo)
            rows.setdefault(key, []).append((host, each.seconds))
    cells = []
    for (registry, health, text, auth, todo), state in rows.items():
        slowest = max((seconds for _, seconds in state if seconds), default=None)
        time = f"{slowest * 1000:.0f} ms" if slowest else "-"
        cells.append((registry, names(host for host, _ in state), health, auth, time, text, todo))
    columns = ("REGISTRY", "HOSTS", "STATUS", "AUTH", "ANSWER", "SEEN", "WHAT TO DO")
    return Table(columns, tuple(sorted(cells, key=lambda row: row[0])))


@per_host(
    parse,
    before=before,
    tabulate=tabulate,
    read_only=True,
    help={"name": "Only this registry of ctr_registries (default: all of them)."},
)
def registry(host: Host, request: Request) -> RegistryResult:
    """Look at the inventory's registries as each host sees them: name, connection, TLS, login, time."""
    from ctr_ferry.registry.client import look

    registry_statuses = look(host, _chosen(host.target, request), credentials.login, allow_curl=True)
    result = RegistryResult(tuple(RegistryRow.of(registry_status) for registry_status in registry_statuses))
    if ill := [each.registry for each in result.registries if each.health == "fail"]:
        raise RegistryError(
            f"not to be worked with from here: {', '.join(ill)}", hint="do as the table says", result=result
        )
    return result
