"""Which state each registry is in, as one host sees it: for `registry` and `doctor`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from ctr_ferry.ctr.health import Health
from ctr_ferry.errors import HostError
from ctr_ferry.images.inspect import survey
from ctr_ferry.oci.registry import Login, Registry, RegistryState, RegistryStateError
from ctr_ferry.registry import mirrors, refusals
from ctr_ferry.registry.client import LIMIT, Client, FindLogin, is_page, said_by
from ctr_ferry.registry.http import Reply
from ctr_ferry.registry.mirrors import Mirrors, Probed
from ctr_ferry.ssh.host import Host
from ctr_ferry.text import printable

_ALL = 30.0  # seconds for all registries of one host
_WANTS_TLS = (b"HTTPS server", b"HTTPS port")  # Go's and nginx's words
_HEALTH = {
    RegistryState.OPEN: Health.OK,
    RegistryState.LOGIN: Health.OK,
    RegistryState.NOT_CHECKED: Health.WARN,
    RegistryState.NO_TIME: Health.WARN,
}


@dataclass(frozen=True, slots=True)
class RegistryStatus:
    """One registry, as one host sees it.

    Attributes:
        kind: of the error that says what is wrong; None where nothing is.
        status: ``warn`` where the registry could not be asked.
        auth: how the registry wants a login: Basic, Bearer, or empty.
        login: whether the login works; None where the registry wants none, or there is none.
        seconds: until the registry's first answer; None where there was no answer.
    """

    registry: str
    scheme: str
    status: Health
    kind: str | None
    message: str
    auth: str
    login: bool | None
    seconds: float | None
    hint: str

    @classmethod
    def of(
        cls, registry: Registry, state: RegistryState, detail: str = "", auth: str = "", seconds: float | None = None
    ) -> RegistryStatus:
        """Makes the status of a state; ``detail`` is what the registry, the host or the TLS library said."""
        login = {RegistryState.OPEN: True, RegistryState.UNAUTHORIZED: False}.get(state) if auth else None
        text = f"{state.words}, the login works" if login else state.words
        return cls(
            registry=registry.name,
            scheme=registry.scheme,
            status=(status := _HEALTH.get(state, Health.FAIL)),
            kind=None if status is Health.OK else refusals.kind(state),
            message=f"{text} ({detail})" if detail else text,
            auth=auth,
            login=login,
            seconds=round(seconds, 3) if seconds else None,
            hint=state.remedy,
        )


def inspect(
    host: Host,
    registries: Sequence[Registry],
    login: Callable[[Registry], Login | None] = lambda _: None,
    *,
    allow_curl: bool = False,
) -> list[RegistryStatus]:
    """Asks each registry, through the host, whether its API answers; one after the other, and in this order.

    Args:
        login: finds the login for a registry. It is called only once that registry asks for a login.
        allow_curl: whether the host may ask with its own curl or wget where its sshd forwards no connections.
    """
    deadline = time.monotonic() + _ALL
    return [_inspect(host, registry, partial(login, registry), deadline, allow_curl) for registry in registries]


def probed(host: Host) -> Probed | None:
    """Probes a host for `with_mirrors`; None where no ctr answers, since nobody reads hosts.toml there."""
    try:
        facts, answers = survey(host, (), mirrors.question(host))
    except HostError:
        return None
    return None if isinstance(facts, HostError) else Probed(host, facts, answers)


def with_mirrors(
    host: Probed | None, registries: Sequence[Registry], found: Sequence[RegistryStatus]
) -> list[RegistryStatus]:
    """The states with what the host's hosts.toml says: which servers pulls ask in a registry's place.

    Where the registry itself fails and one of these servers answers, that is a warning: pulls go there, pushes fail.
    """
    if not host or not registries:
        return list(found)
    folder = mirrors.folder_of(host)
    return [
        _mirrored(host.host, Mirrors(host, registry, folder, pushes=False), state)
        for registry, state in zip(registries, found, strict=True)
    ]


def _mirrored(host: Host, mirrors: Mirrors, state: RegistryStatus) -> RegistryStatus:
    if not mirrors.told:
        return state
    told = replace(state, message=f"{state.message}; {mirrors.told}")
    if not mirrors.servers and state.status is Health.OK:
        return replace(told, status=Health.WARN)
    if state.status is not Health.FAIL:
        return told
    for server in mirrors.servers:
        if not server.closed and server.registry.mirrors:
            (answer,) = inspect(host, [server.registry])
            if answer.status is Health.OK:
                answers = f"{told.message}; {server.registry.at('')} answers, so that pulls work"
                return replace(told, status=Health.WARN, message=answers)
    return told


def _inspect(host: Host, registry: Registry, login: FindLogin, deadline: float, allow_curl: bool) -> RegistryStatus:
    began, auth = time.monotonic(), ""
    try:
        if began >= deadline:
            raise RegistryStateError(RegistryState.NO_TIME)
        client = Client(host, registry, login, limit=min(LIMIT, deadline - began), allow_curl=allow_curl)
        with closing(client):
            first = client.ask("GET", "/v2/")
            seconds, auth = time.monotonic() - began, _scheme(first) if first.status == 401 else ""
            reply = client.logged_in("GET", "/v2/", first)
    except RegistryStateError as error:
        return RegistryStatus.of(registry, error.state, error.detail, auth)
    return RegistryStatus.of(registry, *_judge(registry, reply, client.login), auth, seconds)


def _scheme(reply: Reply) -> str:
    return printable(reply.challenge.scheme[:40])


def _judge(registry: Registry, reply: Reply, login: Login | None) -> tuple[RegistryState, str]:
    detail, said = f"{reply.status} {printable(reply.reason[:80])}", said_by(reply)
    if reply.status == 200 and is_page(reply):
        return RegistryState.NO_REGISTRY, f"{detail} with a page for people at /v2/"
    if reply.status == 200:
        return RegistryState.OPEN, ""
    if reply.status == 401:
        return RegistryState.UNAUTHORIZED if login else RegistryState.LOGIN, _scheme(reply)
    if registry.scheme == "http" and reply.status == 400 and any(w in reply.body for w in _WANTS_TLS):
        return RegistryState.WANTS_TLS, detail
    if said or reply.status >= 500 or reply.status == 429:
        return refusals.of_status(str(reply.status), said), printable(": ".join(filter(None, (detail, said))))
    return RegistryState.NO_REGISTRY, f"{detail} at /v2/"
