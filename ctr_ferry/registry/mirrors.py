"""The servers that a host's ``hosts.toml`` names for a registry, asked as ctr asks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry.ctr import hosts_dir
from ctr_ferry.ctr.hosts_dir import Folder, Server
from ctr_ferry.oci.registry import Login, Registries, Registry, RegistryState, RegistryStateError
from ctr_ferry.registry.client import Client, FindLogin
from ctr_ferry.shell import Answer, Script

if TYPE_CHECKING:
    from ctr_ferry.ctr.probe import Facts
    from ctr_ferry.images.session import Session
    from ctr_ferry.ssh.host import Host

_STEP = "hosts-dir"
_MAY_NEED_LOGIN = (RegistryState.UNAUTHORIZED, RegistryState.DENIED)


@dataclass(frozen=True, slots=True)
class Probed:
    """What a host's probe found, with the answer to `question`; a `Session` has all of it, too."""

    host: Host
    facts: Facts
    answers: Mapping[str, Answer]


def question(host: Host) -> dict[str, str]:
    """The step, for the probe's remote command, that asks which registries the host's folder describes."""
    return {_STEP: hosts_dir.question(host.target.variables_of(Registries).hosts_dir)}


def folder_of(session: Session | Probed) -> tuple[Folder | None, str]:
    """The host's folder; None where there is none, or ctr has no flag for it, with the reason where one was given."""
    given, able = session.host.target.variables_of(Registries).hosts_dir, session.facts.ctr.capabilities
    if not able.hosts_dir:
        return None, f"ctr {session.facts.client} does not use ctr_hosts_dir: it has no --hosts-dir" if given else ""
    answer = session.answers.get(_STEP)
    if not answer:
        answer = session.host.ask(Script({_STEP: f"ctr={session.facts.ctr.argv[0]}\n{hosts_dir.question(given)}"}))[
            _STEP
        ]
    found = hosts_dir.folder(answer)
    return found, f"there is no folder {given}, which ctr_hosts_dir names" if given and not found else ""


class Mirrors:
    """The servers of one registry by a host's hosts.toml; has no servers where the host says nothing of the registry.

    Args:
        pushes: whether they are wanted for a push; else for a pull.

    Attributes:
        folder: the host's folder, for ctr's ``--hosts-dir``; empty where ctr gets none.
        servers: those that ctr asks for that, in its order.
        told: who speaks to whom, in words; empty where the registry itself is asked.
    """

    def __init__(
        self, session: Session | Probed, registry: Registry, found: tuple[Folder | None, str], *, pushes: bool
    ) -> None:
        place, self.told = found
        self.folder, self.servers = "", tuple[Server, ...]()
        path = place.of(registry.name) if place else None
        if not (place and path):
            return
        # The file may have logins in it, which no record keeps.
        answer = session.host.ask(Script({_STEP: hosts_dir.read(path)}), secret=True)[_STEP]
        file = f"{path}/hosts.toml"
        try:
            every = hosts_dir.parse(
                answer, path, registry, wants_tables=session.facts.ctr.capabilities.wants_host_tables
            )
        except ValueError as error:
            self.told = f"ctr does not heed {file}: {error}"
            return
        ability = "push" if pushes else "resolve"
        asked = [server for server in every if ability in server.abilities]
        self.servers = tuple(asked[:1] if pushes else asked)
        self.folder = place.path
        self.told = f"by {file}: {', then '.join(server.registry.at('') for server in self.servers) or 'no server'}"


class MirroredClient:
    """Asks the servers of a hosts.toml one after the other, as ctr does, all of them without a login.

    A login goes to the registry itself alone, since ctr would show it to each server that asks. Has what the users of
    `Client` call.
    """

    def __init__(self, host: Host, servers: Sequence[Server], direct: Client, find_login: FindLogin) -> None:
        self._direct, self._find_login = direct, find_login
        self._servers = [(server, Client(host, server.registry)) for server in servers]
        self._answering = direct

    @property
    def login(self) -> Login | None:
        """The login, once the registry itself has asked for one."""
        return self._direct.login

    def log_in(self, path: str) -> None:
        """As `Client.log_in`, at the registry itself."""
        self._direct.log_in(path)

    def refuse_plain_tokens_of_pushes(self, path: str) -> None:
        """As `Client.refuse_plain_tokens_of_pushes`, at the registry itself."""
        self._direct.refuse_plain_tokens_of_pushes(path)

    def close(self) -> None:
        """Closes all connections."""
        for client in (self._direct, *(client for _, client in self._servers)):
            client.close()

    def find(self, path: str, reference: str) -> str | None:
        """As `Client.find`: what the first server says that has the image; what the last one says if none has it."""
        self._answering = self._direct
        if self.login:
            return self._direct.find(path, reference)
        fault: RegistryStateError | None = None
        for server, client in list(self._servers):
            try:
                fault, self._answering = None, client
                if found := _find(server, client, path, reference):
                    return found
            except RegistryStateError as error:
                fault = error
                if server is not self._servers[-1][0]:
                    self._servers.remove((server, client))  # the other images of this run do not wait for it
        if fault and fault.state in _MAY_NEED_LOGIN and self._find_login():
            self._answering = self._direct
            return self._direct.find(path, reference)
        if fault:
            raise fault
        return None

    def read(self, path: str, reference: str) -> bytes:
        """As `Client.read`, of the server that had the image."""
        return self._answering.read(path, reference)

    def present(self, path: str, digests: Iterable[str]) -> frozenset[str] | None:
        """As `Client.present`, of the server that had the image."""
        return self._answering.present(path, digests)


def _find(server: Server, client: Client, path: str, reference: str) -> str | None:
    where = server.registry.at("")
    if server.closed:
        raise RegistryStateError(RegistryState.CLOSED, where)
    try:
        return client.find(path, reference)
    except RegistryStateError as error:
        closed = error.state is RegistryState.UNKNOWN_CA and server.registry.cas_there
        state = RegistryState.CLOSED if closed else error.state
        raise RegistryStateError(state, f"{where}: {error.detail}", error.wait) from error
