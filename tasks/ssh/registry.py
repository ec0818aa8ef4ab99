"""Registries as a host sees them: what they answer, asked through that host's own connections.

The password goes to the registry, or to the token service that it names, inside TLS where they speak it, and stays
on no host.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode, urljoin, urlsplit

from tasks.ctr import transfer
from tasks.ctr.shell import Script, printable
from tasks.errors import FerryError
from tasks.oci.descriptor import INDEXES, MANIFESTS, Descriptor
from tasks.oci.reference import is_digest
from tasks.oci.registry import Challenge, Login, Registry, Seen
from tasks.ssh import forward
from tasks.ssh.forward import SeenError
from tasks.ssh.host import Host

_LIMIT = 10.0  # seconds for one registry
_ALL = 30.0  # seconds for all of one host
_MOST = 4 << 20  # bytes of a body; distribution takes no longer manifest
_REDIRECTS = 3
_ACCEPT = ", ".join(sorted(INDEXES | MANIFESTS))
_REDIRECTED = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Sight:
    """A registry from one host.

    Attributes:
        said: in the words of whoever said it.
        auth: what it wants a login with: Basic, Bearer, or empty.
        seconds: until its first answer.
    """

    registry: Registry
    seen: Seen
    said: str = ""
    auth: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; header names are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def challenge(self) -> Challenge:
        """What it wants of us."""
        return Challenge.parse(self.headers.get("www-authenticate", ""))


def look(
    host: Host, registries: Sequence[Registry], login: Callable[[Registry], Login | None] = lambda _: None
) -> list[Sight]:
    """Asks each registry for its API, through the host, one after the other.

    Args:
        login: who to be, where a registry asks for it; without one it is not tried.
    """
    deadline = time.monotonic() + _ALL
    return [_look(host, registry, login(registry), deadline) for registry in registries]


def _look(host: Host, registry: Registry, login: Login | None, deadline: float) -> Sight:
    began, auth = time.monotonic(), ""
    try:
        if began >= deadline:
            raise SeenError(Seen.NO_TIME)
        client = Client(host, registry, login, limit=min(_LIMIT, deadline - began))
        first = client.ask("GET", "/v2/")
        seconds, auth = time.monotonic() - began, first.challenge.scheme if first.status == 401 else ""
        reply = client.logged_in("GET", "/v2/", first) if login else first
    except SeenError as error:
        return Sight(registry, error.seen, error.said, auth)
    return replace(_judge(registry, reply, login), auth=printable(auth), seconds=seconds)


def _judge(registry: Registry, reply: Reply, login: Login | None) -> Sight:
    if reply.status == 200:
        return Sight(registry, Seen.OPEN)
    if reply.status == 401:
        return Sight(registry, Seen.UNAUTHORIZED if login else Seen.LOGIN, printable(reply.challenge.scheme))
    said = f"{reply.status} {printable(reply.reason[:80])}"
    if registry.scheme == "http" and reply.status == 400 and any(w in reply.body for w in _WANTS_TLS):
        return Sight(registry, Seen.WANTS_TLS, said)
    if reply.status >= 500 or reply.status == 429:
        return Sight(registry, Seen.FAILED, said)
    return Sight(registry, Seen.NO_REGISTRY, f"{said} at /v2/")


_WANTS_TLS = (b"HTTPS server", b"HTTPS port")  # Go's and nginx's words


class Client:
    """One registry, asked through one host.

    Args:
        login: who to be, where it asks for it.
        limit: seconds for each answer.

    Raises:
        SeenError: its ca_file cannot be read.
    """

    def __init__(self, host: Host, registry: Registry, login: Login | None = None, *, limit: float = _LIMIT) -> None:
        self._host, self._registry, self._login, self._limit = host, registry, login, limit
        self._proxy = None if registry.local else _address(host.target.proxy)
        self._tls = context(registry) if registry.scheme == "https" else ssl.create_default_context()
        self._may_trust_host = registry.scheme == "https" and not (registry.ca_file or registry.skip_verify)
        self._authorization = ""

    def find(self, path: str, reference: str) -> Descriptor | None:
        """What a tag (or digest) of a repository points at there, None where it has none.

        Raises:
            SeenError: what kept it from being known; Unreachable.
        """
        where = f"/v2/{path}/manifests/{reference}"
        reply = self._asked("HEAD", where)
        if reply.status == 405 or (reply.status == 200 and not _described(reply)):
            reply = self._asked("GET", where)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise SeenError(self._seen(reply), f"{reply.status} {reply.reason[:80]}")
        return _described(reply) or _describe(reply)

    def _seen(self, reply: Reply) -> Seen:
        if reply.status == 401:
            # A login that was let in, and lacks this right (distribution, spec/auth/token).
            lacks = reply.challenge.parameters.get("error") == "insufficient_scope"
            lacks = lacks or (self._login is not None and self._authorization.startswith("Bearer"))
            return Seen.DENIED if lacks else Seen.UNAUTHORIZED
        if reply.status == 400 and self._registry.scheme == "http":
            return Seen.WANTS_TLS  # a manifest's address has nothing else that could be bad
        return {403: Seen.DENIED, 429: Seen.FAILED}.get(
            reply.status, Seen.FAILED if reply.status >= 500 else Seen.NO_REGISTRY
        )

    def _asked(self, method: str, path: str) -> Reply:
        return self.logged_in(method, path, self.ask(method, path))

    def ask(self, method: str, path: str) -> Reply:
        """One answer, as whoever we are so far.

        Raises:
            SeenError, Unreachable.
        """
        return self._follow(method, self._registry.url + path, self._headers)

    def logged_in(self, method: str, path: str, reply: Reply) -> Reply:
        """The same answer, or where it wants a login the one that a login gets.

        Raises:
            SeenError, Unreachable.
        """
        if reply.status != 401:
            return reply
        challenge = reply.challenge
        if challenge.scheme.lower() == "bearer":
            self._authorization = f"Bearer {self._token(challenge)}"
        elif self._login and challenge.scheme.lower() == "basic":
            self._authorization = _basic(self._login)
        else:
            return reply
        return self.ask(method, path)

    def _token(self, challenge: Challenge) -> str:
        """A token for what the challenge is about, for nobody in particular where there is no login."""
        realm = challenge.parameters.get("realm", "")
        asked = {name: challenge.parameters[name] for name in ("service", "scope") if name in challenge.parameters}
        headers = {}
        if self._login and (realm.startswith("https://") or self._registry.scheme == "http"):
            headers["Authorization"] = _basic(self._login)
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}"
        try:
            reply = self._follow("GET", url, headers)
        except SeenError as error:
            raise SeenError(error.seen, f"{error.said or error.seen.value} (token service {realm})") from error
        if reply.status in (400, 401, 403):
            raise SeenError(Seen.UNAUTHORIZED, f"{reply.status} {reply.reason[:80]} (token service {realm})")
        try:
            answer = json.loads(reply.body)
            return str(answer.get("token") or answer["access_token"])
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise SeenError(Seen.FAILED, f"{reply.status} without a token (token service {realm})") from error

    def _follow(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        """Asks, and goes where it is sent to; the login goes nowhere else."""
        origin = urlsplit(url).netloc
        for _ in range(_REDIRECTS):
            reply = self._trusting(method, url, headers)
            if reply.status not in _REDIRECTED or not reply.headers.get("location"):
                return reply
            url = urljoin(url, reply.headers["location"])
            if urlsplit(url).netloc != origin:
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
        raise SeenError(Seen.NO_REGISTRY, "it redirects in circles")

    def _trusting(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        """A certificate that is unknown here may be known on the host, where ctr looks."""
        try:
            return self._once(method, url, headers)
        except SeenError as error:
            if error.seen is not Seen.UNKNOWN_CA or not self._may_trust_host or not self._trust_as_host():
                raise
            return self._once(method, url, headers)

    def _trust_as_host(self) -> bool:
        self._may_trust_host = False
        try:
            answer = self._host.ask(Script({"bundle": transfer.SYSTEM_BUNDLE}), limit=self._host.target.limits.probe)
            self._tls.load_verify_locations(cadata=answer["bundle"].text)
        except (FerryError, ValueError, ssl.SSLError):
            return False
        return True

    def present(self, path: str, digests: Iterable[str]) -> frozenset[str] | None:
        """Which of these blobs a repository has, asked on one connection; None where that cannot be known.

        For whoever is logged in by now: it follows `find`.
        """
        found = set()
        try:
            with self._connection(self._registry.url) as (wire, headers):
                for digest in digests:
                    blob = f"/v2/{path}/blobs/{digest}"
                    target = self._registry.url + blob if self._through_proxy(self._registry.url) else blob
                    reply = _exchange(wire, "HEAD", target, headers | self._headers)
                    if reply.status not in (200, 404):
                        return None
                    found |= {digest} if reply.status == 200 else set()
        except SeenError:
            return None
        return frozenset(found)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Accept": _ACCEPT} | ({"Authorization": self._authorization} if self._authorization else {})

    def _through_proxy(self, url: str) -> bool:
        """Whether a proxy is told the whole address; inside TLS it is told nothing but the host."""
        return self._proxy is not None and url.startswith("http://")

    def _once(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        with self._connection(url) as (wire, host):
            return _exchange(wire, method, url if self._through_proxy(url) else path, {**host, **headers})

    @contextlib.contextmanager
    def _connection(self, url: str) -> Iterator[tuple[forward.Wire, dict[str, str]]]:
        """A connection to where a URL is, and the header that names it."""
        parts = urlsplit(url)
        secure, name = parts.scheme == "https", parts.hostname or ""
        if parts.scheme not in ("http", "https") or not name:
            raise SeenError(Seen.NO_REGISTRY, f"it sends to {url[:80]}")
        port = parts.port or (443 if secure else 80)
        deadline = time.monotonic() + self._limit
        with (
            forward.told(self._limit),
            forward.connect(self._host, self._proxy or (name, port), deadline) as wire,
        ):
            if self._proxy and secure:
                self._tunnel(wire, f"[{name}]:{port}" if ":" in name else f"{name}:{port}")
            if secure:
                wire.secure(self._tls, name)
            yield wire, {"Host": parts.netloc}

    def _tunnel(self, wire: forward.Wire, there: str) -> None:
        reply = _exchange(wire, "CONNECT", there, {"Host": there})
        if reply.status != 200:
            raise SeenError(Seen.NO_ANSWER, f"the proxy says {reply.status} {reply.reason[:80]}")


def _described(reply: Reply) -> Descriptor | None:
    """The manifest by its headers alone (distribution, spec/api, existing manifests)."""
    digest, size = reply.headers.get("docker-content-digest", ""), reply.headers.get("content-length", "")
    if not is_digest(digest) or not size.isdecimal():
        return None
    return Descriptor(_media_type(reply), digest, int(size))


def _describe(reply: Reply) -> Descriptor:
    return Descriptor(_media_type(reply), f"sha256:{hashlib.sha256(reply.body).hexdigest()}", len(reply.body))


def _media_type(reply: Reply) -> str:
    return reply.headers.get("content-type", "").partition(";")[0].strip()


def _exchange(wire: forward.Wire, method: str, path: str, headers: Mapping[str, str]) -> Reply:
    """One request and its answer, spoken by http.client over a connection that is not its own."""
    request = http.client.HTTPConnection("unused")
    request.sock = wire
    try:
        request.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"User-Agent": "ctr-ferry", **headers}.items():
            request.putheader(name, value)
        request.endheaders()
        response = http.client.HTTPResponse(wire, method=method)  # type: ignore[arg-type]
        response.begin()
        body = b"" if method == "CONNECT" else response.read(_MOST)
    except http.client.RemoteDisconnected as error:
        raise SeenError(Seen.NO_ANSWER) from error
    except http.client.BadStatusLine as error:
        raise SeenError(Seen.NO_REGISTRY, str(error.args[0]).strip()[:80]) from error
    except http.client.HTTPException as error:
        raise SeenError(Seen.NO_REGISTRY, error) from error
    return Reply(response.status, response.reason, {n.lower(): v for n, v in response.getheaders()}, body)


def context(registry: Registry) -> ssl.SSLContext:
    """Whose certificates are believed.

    Raises:
        SeenError: its ca_file cannot be read.
    """
    made = ssl.create_default_context()
    if registry.skip_verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    elif registry.ca_file:
        try:
            made.load_verify_locations(registry.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise SeenError(Seen.CA_FILE, f"{registry.ca_file}: {error.strerror or error}") from error
    return made


def _address(proxy: str | None) -> tuple[str, int] | None:
    parts = urlsplit(proxy or "")
    return (parts.hostname, parts.port) if parts.hostname and parts.port else None


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password.reveal()}".encode()).decode()
