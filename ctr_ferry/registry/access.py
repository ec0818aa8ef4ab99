"""How one host gets to its registries: for each, one client, one login, one set of certificates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ctr_ferry.ctr import push_pull
from ctr_ferry.ctr.push_pull import Route
from ctr_ferry.errors import RegistryError
from ctr_ferry.oci.registry import Login, Registries, Registry, RegistryState
from ctr_ferry.registry import credentials
from ctr_ferry.registry.client import Client
from ctr_ferry.registry.http import authorities

if TYPE_CHECKING:
    from ctr_ferry.images.session import Session

_MAY_NEED_LOGIN = (RegistryState.UNAUTHORIZED, RegistryState.DENIED)
_RATE_LIMIT = "toomanyrequests"  # Docker Hub's limit is lower for those who are not logged in


class RegistryAccess:
    """One host's way to one registry. All references of that registry share it.

    Attributes:
        registry: as the inventory describes it.
        client: asks the registry.
        trouble: the errors of the images that failed last, one after the other, because of the registry.

    Raises:
        HostError: this host's ctr cannot work with that registry as the inventory describes it.
        RegistryStateError: the registry's ca_file cannot be read.
    """

    def __init__(self, session: Session, domain: str) -> None:
        host, facts = session.host, session.facts
        described = host.target.variables_of(Registries)
        self.registry: Registry = described.named(domain)
        self._proxy, self._owner = described.proxy, session.place.owner
        self._login_for_ctr: Login | None = None  # since the registry refused ctr without a login
        self._trust_this_machine = not self.registry.ca_file
        self._blocks = 0
        self.trouble: list[RegistryError] = []
        self.client = Client(host, self.registry, partial(credentials.login, self.registry))
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
        )

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
    def connection(self) -> Iterator[Client]:
        """A block in which the connections to the registry are kept; the end of the outermost block closes them."""
        self._blocks += 1
        try:
            yield self.client
        finally:
            self._blocks -= 1
            if not self._blocks:
                self.client.close()


class RegistryAccesses:
    """One host's ways to all registries that its images come from or go to."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ways: dict[str, RegistryAccess] = {}
        self._kept: ExitStack | None = None

    def to(self, domain: str) -> RegistryAccess:
        """The way to one registry; raises as `RegistryAccess`."""
        if domain not in self._ways:
            self._ways[domain] = way = RegistryAccess(self._session, domain)
            if self._kept:
                self._kept.enter_context(way.connection())
        return self._ways[domain]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A block in which the connections to all registries are kept."""
        with ExitStack() as self._kept:
            self._kept.callback(setattr, self, "_kept", None)
            for way in self._ways.values():
                self._kept.enter_context(way.connection())
            yield
