"""Which state each registry is in, as one host sees it: for `registry` and `doctor`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ctr_ferry.oci.registry import Login, Registry, RegistryState, RegistryStateError
from ctr_ferry.registry.client import LIMIT, Client, FindLogin
from ctr_ferry.registry.http import Reply
from ctr_ferry.ssh.host import Host
from ctr_ferry.text import printable

_ALL = 30.0  # seconds for all registries of one host


@dataclass(frozen=True, slots=True)
class RegistryStatus:
    """One registry, as one host sees it.

    Attributes:
        detail: what the registry, the host or the TLS library said.
        auth: how the registry wants a login: Basic, Bearer, or empty.
        seconds: until the registry's first answer.
    """

    registry: Registry
    state: RegistryState
    detail: str = ""
    auth: str = ""
    seconds: float = 0.0


def inspect(
    host: Host,
    registries: Sequence[Registry],
    login: Callable[[Registry], Login | None] = lambda _: None,
    *,
    allow_curl: bool = False,
) -> list[RegistryStatus]:
    """Asks each registry, through the host, whether its API answers; one registry after the other.

    Args:
        login: finds the login for a registry. It is called only once that registry asks for a login.
        allow_curl: whether the host may ask with its own curl or wget where its sshd forwards no connections.

    Returns:
        One status for each registry, in the same order.
    """
    deadline = time.monotonic() + _ALL
    return [_inspect(host, registry, partial(login, registry), deadline, allow_curl) for registry in registries]


def _inspect(host: Host, registry: Registry, login: FindLogin, deadline: float, allow_curl: bool) -> RegistryStatus:
    began, auth = time.monotonic(), ""
    try:
        if began >= deadline:
            raise RegistryStateError(RegistryState.NO_TIME)
        client = Client(host, registry, login, limit=min(LIMIT, deadline - began), allow_curl=allow_curl)
        with client.connected():
            first = client.ask("GET", "/v2/")
            seconds, auth = time.monotonic() - began, _scheme(first) if first.status == 401 else ""
            reply = client.logged_in("GET", "/v2/", first)
    except RegistryStateError as error:
        return RegistryStatus(registry=registry, state=error.state, detail=error.detail, auth=auth)
    return replace(_judge(registry, reply, client.login), auth=auth, seconds=seconds)


def _scheme(reply: Reply) -> str:
    return printable(reply.challenge.scheme[:40])


def _judge(registry: Registry, reply: Reply, login: Login | None) -> RegistryStatus:
    if reply.status == 200:
        return RegistryStatus(registry, RegistryState.OPEN)
    if reply.status == 401:
        return RegistryStatus(registry, RegistryState.UNAUTHORIZED if login else RegistryState.LOGIN, _scheme(reply))
    detail = f"{reply.status} {printable(reply.reason[:80])}"
    if registry.scheme == "http" and reply.status == 400 and any(w in reply.body for w in _WANTS_TLS):
        return RegistryStatus(registry, RegistryState.WANTS_TLS, detail)
    if reply.status >= 500 or reply.status == 429:
        return RegistryStatus(registry, RegistryState.FAILED, detail)
    return RegistryStatus(registry, RegistryState.NO_REGISTRY, f"{detail} at /v2/")


_WANTS_TLS = (b"HTTPS server", b"HTTPS port")  # Go's and nginx's words
