"""How one host gets to its registries: for each, one client, one login, one set of certificates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ctr_ferry.ctr import push_pull
from ctr_ferry.ctr.push_pull import Route
from ctr_ferry.errors import RegistryError
from ctr_ferry.oci.registry import Login, Registries, Registry, RegistryState
from ctr_ferry.registry import credentials, mirrors
from ctr_ferry.registry.client import Client
from ctr_ferry.registry.http import authorities
from ctr_ferry.registry.mirrors import MirroredClient, Mirrors

if TYPE_CHECKING:
    from ctr_ferry.ctr.hosts_dir import Folder
    from ctr_ferry.images.session import Session

FindMirrors = Callable[[Registry], Mirrors]
_MAY_NEED_LOGIN = (RegistryState.UNAUTHORIZED, RegistryState.DENIED)
_RATE_LIMIT = "toomanyrequests"  # Docker Hub's limit is lower for those who are not logged in


class RegistryAccess:
    """One host's way to one registry. All references of that registry share it.

    Attributes:
        registry: as the inventory describes it.
        client: asks the registry, or the servers that the host's hosts.toml names for it.
        trouble: the errors of the images that failed last, one after the other, because of the registry.

    Raises:
        HostError: this host's ctr cannot work with that registry as the inventory describes it.
        RegistryStateError: the registry's ca_file cannot be read.
    """

    def __init__(self, session: Session, domain: str, mirrors: FindMirrors) -> None:
        host, facts = session.host, session.facts
        described = host.target.variables_of(Registries)
        self.registry: Registry = described.named(domain)
        self._proxy, self._owner = described.proxy, session.place.owner
        self._login_for_ctr: Login | None = None  # since the registry refused ctr without a login
        self._trust_this_machine = not self.registry.ca_file
        self._blocks = 0
        self.trouble: list[RegistryError] = []
        find_login = partial(credentials.login, self.registry)
        self.client: Client | MirroredClient = Client(host, self.registry, find_login)
        self._mirrors = mirrors(self.registry)
        if self._mirrors.servers:
            self.client = MirroredClient(host, self._mirrors.servers, self.client, find_login)
        push_pull.refuse(facts.ctr, facts.client, self.route)

    @property
    def login(self) -> Login | None:
        """The login, once the registry has asked for one."""
        return self.client.login or self._login_for_ctr

    @property
    def route(self) -> Route:
        """How ctr gets to the registry. With a login, ctr trusts only the certificates that ctr-ferry itself trusts."""
        registry, login = self.registry, self.login
        # The token service may use TLS where the registry does not.
        exclusive = login is not None and not (registry.scheme == "https" and registry.skip_verify)
        return Route(
            registry=registry,
            username=login.username if login else None,
            authorities=authorities(registry, exclusive=exclusive, system=self._trust_this_machine),
            exclusive=exclusive,
            proxy=self._proxy,
            owner=self._owner,
            hosts_dir="" if login else self._mirrors.folder,
        )

    @property
    def way(self) -> str:
        """Which servers are asked in the registry's place, in words; empty where the registry itself is asked."""
        if self.login and self._mirrors.servers:
            return f"the host's hosts.toml does not count: a login goes to {self.registry.name} alone"
        return self._mirrors.told

    def has_another_way(self, state: RegistryState | None, said: str) -> bool:
        """Whether ctr's next try has what this one lacked: a login, or this machine's CAs besides ca_file.

        Args:
            state: what ctr's answer means.
            said: ctr's stderr.
        """
        if not self.login and (state in _MAY_NEED_LOGIN or _RATE_LIMIT in said):
            self._login_for_ctr = credentials.login(self.registry)
            return self._login_for_ctr is not None
        if state is RegistryState.UNKNOWN_CA and self.route.exclusive and not self._trust_this_machine:
            self._trust_this_machine = True  # the token service, or where the blobs are, may have another CA
            return True
        return False

    @contextmanager
    def connection(self) -> Iterator[Client | MirroredClient]:
        """A block in which the connections to the registry are kept; the end of the outermost block closes them."""
        self._blocks += 1
        try:
            yield self.client
        finally:
            self._blocks -= 1
            if not self._blocks:
                self.client.close()


class RegistryAccesses:
    """One host's ways to all registries that its images come from, or, if it ``pushes``, go to."""

    def __init__(self, session: Session, *, pushes: bool = False) -> None:
        self._session, self._pushes = session, pushes
        self._folder: tuple[Folder | None, str] | None = None
        self._ways: dict[str, RegistryAccess] = {}
        self._kept: ExitStack | None = None

    def to(self, domain: str) -> RegistryAccess:
        """The way to one registry; raises as `RegistryAccess`."""
        if domain not in self._ways:
            self._ways[domain] = way = RegistryAccess(self._session, domain, self._mirrors)
            if self._kept:
                self._kept.enter_context(way.connection())
        return self._ways[domain]

    def _mirrors(self, registry: Registry) -> Mirrors:
        self._folder = self._folder or mirrors.folder_of(self._session)
        return Mirrors(self._session, registry, self._folder, pushes=self._pushes)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A block in which the connections to all registries are kept."""
        with ExitStack() as self._kept:
            self._kept.callback(setattr, self, "_kept", None)
            for way in self._ways.values():
                self._kept.enter_context(way.connection())
            yield
