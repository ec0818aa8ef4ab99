"""How hosts see registries, each asked once for each name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ctr_ferry.delivery.routes import View
from ctr_ferry.errors import (
    FerryError,
    RegistryError,
    RegistryScheme,
    RegistryTimeout,
    RegistryTls,
    RegistryUnreachable,
    RegistryUnresolved,
)
from ctr_ferry.images.session import Session
from ctr_ferry.oci.reference import Reference

if TYPE_CHECKING:
    from ctr_ferry.registry.access import RegistryAccesses
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host

_OF_ALL_NAMES = (RegistryUnresolved, RegistryUnreachable, RegistryTimeout, RegistryTls, RegistryScheme)


class Views:
    """What each host was told by each registry.

    Args:
        sessions: the hosts that may be asked, by name.
    """

    def __init__(self, fleet: Fleet, sessions: Mapping[str, Session]) -> None:
        self._fleet, self._sessions = fleet, sessions
        self._found: dict[tuple[str, str], View] = {}

    def ask(self, wanted: Mapping[str, Iterable[Reference]]) -> None:
        """Asks registries through hosts, all hosts at once; ``wanted`` has the names by host."""
        unknown = {
            host: [name for name in dict.fromkeys(names) if (host, str(name)) not in self._found]
            for host, names in wanted.items()
        }
        asking = {host: names for host, names in unknown.items() if names}
        answers = self._fleet.beside(asking, lambda host: self._ask(host, asking[host.name]))
        for host, answer in answers.items():
            views = (
                dict.fromkeys(map(str, asking[host]), View(error=answer)) if isinstance(answer, FerryError) else answer
            )
            self._found |= {(host, name): view for name, view in views.items()}

    def of(self, host: str, name: Reference) -> View | None:
        """What the registry of a name told a host; None if it was not asked."""
        return self._found.get((host, str(name)))

    def _ask(self, host: Host, names: Iterable[Reference]) -> dict[str, View]:
        """Asks for each name. A registry that cannot be reached is not asked for a second name."""
        from ctr_ferry.registry.access import RegistryAccesses

        found: dict[str, View] = {}
        unreached: dict[str, View] = {}
        session = self._sessions[host.name]
        accesses = RegistryAccesses(session)
        with accesses.kept():
            for name in names:
                view = unreached.get(name.domain) or _view(session, name, accesses)
                found[str(name)] = view
                if isinstance(view.error, _OF_ALL_NAMES):
                    unreached[name.domain] = view
        return found


def _view(session: Session, name: Reference, accesses: RegistryAccesses) -> View:
    from ctr_ferry.registry.push_pull import RegistryTransfer

    try:
        remote = RegistryTransfer(session, name, accesses).inspect()
    except FerryError as error:
        return View(error=error)
    return View(error=RegistryError(f"registry of {name}: {remote.unknown}")) if remote.unknown else View(remote.digest)
