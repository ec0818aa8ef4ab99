"""Registries as a host sees them: what they answer, asked through that host's own connections.

The password goes to the registry, or to the token service that it names, inside TLS where they speak it, and stays
on no host.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlencode, urljoin

from ctr_ferry.oci.descriptor import INDEXES, MANIFESTS, Descriptor
from ctr_ferry.oci.reference import is_digest
from ctr_ferry.oci.registry import Challenge, Login, Registry, RegistryState
from ctr_ferry.registry.http import MOST, Reply, Requests, parts_of
from ctr_ferry.ssh.forward import RegistryStateError
from ctr_ferry.ssh.host import Host
from ctr_ferry.text import printable

_LIMIT = 10.0  # seconds for one registry
_ALL = 30.0  # seconds for all of one host
_REDIRECTS = 3
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750, section 2.1
_ACCEPT = ", ".join(sorted(INDEXES | MANIFESTS))
_SIZE = re.compile(r"[0-9]{1,18}")
_LONGEST_TOKEN = 32 << 10
_MORE_FOR_A_LOGIN = (403, 404, 429)  # what nobody in particular is told, where somebody may be told more
Who = Callable[[], Login | None]
_REDIRECTED = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class RegistryStatus:
    """A registry from one host.

    Attributes:
        detail: in the words of whoever said it.
        auth: what it wants a login with: Basic, Bearer, or empty.
        seconds: until its first answer.
    """

    registry: Registry
    state: RegistryState
    detail: str = ""
    auth: str = ""
    seconds: float = 0.0


def look(
    host: Host,
    registries: Sequence[Registry],
    login: Callable[[Registry], Login | None] = lambda _: None,
    *,
    allow_curl: bool = False,
) -> list[RegistryStatus]:
    """Asks each registry for its API, through the host, one after the other.

    Args:
        login: finds who to be, once a registry asks for it.
        allow_curl: whether the host asks by itself where sshd forwards no connections.
    """
    deadline = time.monotonic() + _ALL
    return [_look(host, registry, partial(login, registry), deadline, allow_curl) for registry in registries]


def _look(host: Host, registry: Registry, login: Who, deadline: float, allow_curl: bool) -> RegistryStatus:
    began, auth = time.monotonic(), ""
    try:
        if began >= deadline:
            raise RegistryStateError(RegistryState.NO_TIME)
        client = Client(host, registry, login, limit=min(_LIMIT, deadline - began), allow_curl=allow_curl)
        with client.connected():
            first = client.ask("GET", "/v2/")
            seconds, auth = time.monotonic() - began, _scheme(first) if first.status == 401 else ""
            reply = client.logged_in("GET", "/v2/", first)
    except RegistryStateError as error:
        return RegistryStatus(registry, error.state, error.detail, auth)
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


class Client:
    """One registry, asked through one host: as nobody, until it wants a login.

    Args:
        who: finds who to be, once it wants a login.
        limit: seconds for each answer.
        allow_curl: whether the host asks by itself where sshd forwards no connections.

    Raises:
        RegistryStateError: its ca_file cannot be read.

    Attributes:
        login: who we turned out to be; None is nobody so far.
    """

    def __init__(
        self,
        host: Host,
        registry: Registry,
        who: Who = lambda: None,
        *,
        limit: float = _LIMIT,
        allow_curl: bool = True,
    ) -> None:
        self._registry, self._who = registry, who
        self.login: Login | None = None
        self._requests = Requests(host, registry, limit=limit, allow_curl=allow_curl)
        self._authorization = ""

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """For the block, a connection is used for as many questions as it takes."""
        try:
            yield
        finally:
            self._requests.hang_up()

    def find(self, path: str, reference: str) -> Descriptor | None:
        """What a tag (or digest) of a repository points at there, None where it has none.

        Raises:
            RegistryStateError: what kept it from being known; Unreachable.
        """
        where = f"/v2/{path}/manifests/{reference}"
        reply = self._asked("HEAD", where)
        if reply.status == 405 or (reply.status == 200 and not _described(reply)):
            reply = self._asked("GET", where)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise RegistryStateError(self._seen(reply), f"{reply.status} {reply.reason[:80]}")
        return _described(reply) or _describe(reply)

    def read(self, path: str, reference: str) -> bytes:
        """A manifest or index itself; empty where it cannot be had."""
        reply = self._asked("GET", f"/v2/{path}/manifests/{reference}")
        return reply.body if reply.status == 200 else b""

    def _seen(self, reply: Reply) -> RegistryState:
        if reply.status == 401:
            # A login that was let in, and lacks this right (distribution, spec/auth/token).
            lacks = reply.challenge.parameters.get("error") == "insufficient_scope"
            lacks = lacks or (self.login is not None and self._authorization.startswith("Bearer"))
            return RegistryState.DENIED if lacks else RegistryState.UNAUTHORIZED
        if reply.status == 400 and self._registry.scheme == "http":
            return RegistryState.WANTS_TLS  # a manifest's address has nothing else that could be bad
        return {403: RegistryState.DENIED, 429: RegistryState.FAILED}.get(
            reply.status, RegistryState.FAILED if reply.status >= 500 else RegistryState.NO_REGISTRY
        )

    def _asked(self, method: str, path: str) -> Reply:
        """As nobody, as nobody in particular by a token, and then as who we are: the first that gets an answer."""
        reply = self.ask(method, path)
        if reply.status == 401 and not self.login and reply.challenge.scheme.lower() == "bearer":
            reply = self._as_nobody(method, path, reply)
        if reply.status == 401 or (self._authorization and reply.status in _MORE_FOR_A_LOGIN):
            return self.logged_in(method, path, reply)
        return reply

    def _as_nobody(self, method: str, path: str, reply: Reply) -> Reply:
        try:
            self._authorization = f"Bearer {self._token(reply.challenge)}"
        except RegistryStateError as error:
            if error.state is RegistryState.UNAUTHORIZED and self._who():
                return reply
            raise
        return self.ask(method, path)

    def ask(self, method: str, path: str) -> Reply:
        """One answer, as whoever we are so far.

        Raises:
            RegistryStateError, Unreachable.
        """
        return self._follow(method, self._registry.url + path, self._headers)

    def logged_in(self, method: str, path: str, reply: Reply) -> Reply:
        """The same answer, or where it wants a login and we have one, the one that the login gets.

        Raises:
            RegistryStateError, Unreachable, UsageError: what is wrong with the login.
        """
        if reply.status != 401 and not self._authorization:
            return reply
        if not self.login:
            self.login = self._who()
            if not self.login:
                return reply
            self._authorization = ""
            # What was said so far may have come from somebody whom the host alone believes.
            if self._requests.log_in() or reply.status != 401:
                reply = self.ask(method, path)
        challenge = reply.challenge
        if reply.status != 401:
            return reply
        if challenge.scheme.lower() == "bearer":
            self._authorization = f"Bearer {self._token(challenge)}"
        elif challenge.scheme.lower() == "basic":
            self._authorization = _basic(self.login)
        else:
            return reply
        return self.ask(method, path)

    def _token(self, challenge: Challenge) -> str:
        """A token for what the challenge is about, for nobody in particular where there is no login."""
        realm = challenge.parameters.get("realm", "")
        asked = {name: challenge.parameters[name] for name in ("service", "scope") if name in challenge.parameters}
        headers = {}
        if self.login and (realm.startswith("https://") or self._registry.scheme == "http"):
            headers["Authorization"] = _basic(self.login)
        url, named = f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}", f"(token service {realm[:200]})"
        try:
            reply = self._follow("GET", url, headers)
        except RegistryStateError as error:
            raise RegistryStateError(error.state, f"{error.detail or error.state.value} {named}") from error
        if reply.status in (400, 401, 403):
            raise RegistryStateError(RegistryState.UNAUTHORIZED, f"{reply.status} {reply.reason[:80]} {named}")
        answer = _object(reply.body)
        token = answer.get("token") or answer.get("access_token")
        if not token:
            raise RegistryStateError(RegistryState.FAILED, f"{reply.status} without a token {named}")
        # curl would take a line break in it for more of its configuration
        if not isinstance(token, str) or len(token) > _LONGEST_TOKEN or not _TOKEN.fullmatch(token):
            raise RegistryStateError(RegistryState.FAILED, f"{reply.status} with a malformed token {named}")
        return token

    def _follow(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        """Asks, and goes where it is sent to; the login goes nowhere else, and nobody else says where it goes."""
        origin = parts_of(url)[:2]  # scheme and host: a login inside TLS stays inside
        for _ in range(_REDIRECTS):
            reply = self._requests.ask(method, url, headers)
            if reply.status not in _REDIRECTED or not reply.headers.get("location"):
                here = parts_of(url)[:2] == origin
                return reply if here else replace(reply, headers={**reply.headers, "www-authenticate": ""})
            url = _joined(url, reply.headers["location"])
            if parts_of(url)[:2] != origin:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
        raise RegistryStateError(RegistryState.NO_REGISTRY, "it redirects in circles")

    def present(self, path: str, digests: Iterable[str]) -> frozenset[str] | None:
        """Which of these blobs a repository has; None where that cannot be known.

        For whoever is logged in by now: it follows `find`.
        """
        found, deadline = set(), time.monotonic() + _ALL
        try:
            for digest in digests:
                if time.monotonic() > deadline:
                    return None
                reply = self._requests.ask("HEAD", f"{self._registry.url}/v2/{path}/blobs/{digest}", self._headers)
                if reply.status not in (200, 307, 404):
                    return None
                found |= set() if reply.status == 404 else {digest}
        except RegistryStateError:
            return None
        return frozenset(found)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Accept": _ACCEPT} | ({"Authorization": self._authorization} if self._authorization else {})


def _described(reply: Reply) -> Descriptor | None:
    """The manifest by its headers alone (distribution, spec/api, existing manifests)."""
    digest, size = reply.headers.get("docker-content-digest", ""), reply.headers.get("content-length", "")
    if not is_digest(digest) or not _SIZE.fullmatch(size):
        return None
    return Descriptor(_media_type(reply), digest, int(size))


def _describe(reply: Reply) -> Descriptor:
    if len(reply.body) >= MOST:
        raise RegistryStateError(RegistryState.NO_REGISTRY, f"a manifest of more than {MOST >> 20} MiB")
    return Descriptor(_media_type(reply), f"sha256:{hashlib.sha256(reply.body).hexdigest()}", len(reply.body))


def _object(body: bytes) -> Mapping[str, Any]:
    """The JSON object of a body; empty where it is none, whatever it is instead."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _media_type(reply: Reply) -> str:
    return reply.headers.get("content-type", "").partition(";")[0].strip()[:255]


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise RegistryStateError(RegistryState.NO_REGISTRY, f"it sends to {location[:80]}") from error


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password.reveal()}".encode()).decode()
