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
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

from tasks.ctr import errand, transfer
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
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750, section 2.1
_ERRAND = 60  # seconds for a question that the host asks by itself
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
    """One answer; header names are in lower case.

    Attributes:
        last: whether nothing more can be asked on its connection.
    """

    status: int
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    last: bool = True

    @property
    def challenge(self) -> Challenge:
        """What it wants of us."""
        return Challenge.parse(self.headers.get("www-authenticate", ""))


def look(
    host: Host,
    registries: Sequence[Registry],
    login: Callable[[Registry], Login | None] = lambda _: None,
    *,
    errands: bool = False,
) -> list[Sight]:
    """Asks each registry for its API, through the host, one after the other.

    Args:
        login: who to be, where a registry asks for it; without one it is not tried.
        errands: whether the host asks by itself where sshd forwards no connections.
    """
    deadline = time.monotonic() + _ALL
    return [_look(host, registry, login(registry), deadline, errands) for registry in registries]


def _look(host: Host, registry: Registry, login: Login | None, deadline: float, errands: bool) -> Sight:
    began, auth = time.monotonic(), ""
    try:
        if began >= deadline:
            raise SeenError(Seen.NO_TIME)
        client = Client(host, registry, login, limit=min(_LIMIT, deadline - began), errands=errands)
        with client.connected():
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
        errands: whether the host asks by itself where sshd forwards no connections.

    Raises:
        SeenError: its ca_file cannot be read.
    """

    def __init__(
        self,
        host: Host,
        registry: Registry,
        login: Login | None = None,
        *,
        limit: float = _LIMIT,
        errands: bool = True,
    ) -> None:
        self._host, self._registry, self._login, self._limit = host, registry, login, limit
        self._proxy = None if registry.local else _address(host.target.proxy)
        self._tls = context(registry)
        self._may_trust_host = not registry.skip_verify
        self._authorization = ""
        self._kept: tuple[str, forward.Wire] | None = None
        self._forwards, self._errands = True, errands

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """For the block, a connection is used for as many questions as it takes."""
        try:
            yield
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._kept:
            self._kept[1].hang_up()
        self._kept = None

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

    def read(self, path: str, reference: str) -> bytes:
        """A manifest or index itself; empty where it cannot be had."""
        reply = self._asked("GET", f"/v2/{path}/manifests/{reference}")
        return reply.body if reply.status == 200 else b""

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
            token = str(answer.get("token") or answer["access_token"])
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise SeenError(Seen.FAILED, f"{reply.status} without a token (token service {realm})") from error
        if not _TOKEN.fullmatch(token):  # curl would take a line break in it for more of its configuration
            raise SeenError(Seen.FAILED, f"{reply.status} with a malformed token (token service {realm})")
        return token

    def _follow(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        """Asks, and goes where it is sent to; the login goes nowhere else."""
        origin = _parts(url)[:2]  # scheme and host: a login inside TLS stays inside
        for _ in range(_REDIRECTS):
            reply = self._trusting(method, url, headers)
            if reply.status not in _REDIRECTED or not reply.headers.get("location"):
                return reply
            url = _joined(url, reply.headers["location"])
            if _parts(url)[:2] != origin:
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
            self._tls.load_default_certs()
            self._tls.load_verify_locations(cadata=answer["bundle"].text)
        except (FerryError, ValueError, ssl.SSLError):
            return False
        return True

    def present(self, path: str, digests: Iterable[str]) -> frozenset[str] | None:
        """Which of these blobs a repository has; None where that cannot be known.

        For whoever is logged in by now: it follows `find`.
        """
        found, deadline = set(), time.monotonic() + _ALL
        try:
            for digest in digests:
                if time.monotonic() > deadline:
                    return None
                reply = self._once("HEAD", f"{self._registry.url}/v2/{path}/blobs/{digest}", self._headers)
                if reply.status not in (200, 307, 404):
                    return None
                found |= set() if reply.status == 404 else {digest}
        except SeenError:
            return None
        return frozenset(found)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Accept": _ACCEPT} | ({"Authorization": self._authorization} if self._authorization else {})

    def _once(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        parts = _parts(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # A proxy is told the whole address; inside TLS it is told nothing but the host.
        target = url if self._proxy and parts.scheme == "http" else path
        if not self._forwards:
            return self._by_errand(method, url, headers)
        try:
            with forward.told(self._limit):
                reply = _exchange(self._wire(parts), method, target, {"Host": parts.netloc, **headers})
        except SeenError as error:
            self._hang_up()
            if self._host.is_lost:
                with self._host.lost_connection():
                    raise EOFError(error.said) from error
            if error.seen is not Seen.NOT_CHECKED or not self._errands:
                raise
            self._forwards = False
            return self._by_errand(method, url, headers)
        except BaseException:
            self._hang_up()
            raise
        if reply.last:
            self._hang_up()
        return reply

    def _by_errand(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        """The host asks by itself, where sshd forwards no connections."""
        authorization = headers.get("Authorization", "")
        pems, owner = authorities(self._registry), f"ctr-ferry.{self._host.run_id}"
        line = errand.typed(authorization)
        if len(line) > errand.TYPED:
            raise SeenError(Seen.NOT_CHECKED, "a token that is too long for a terminal")
        with self._host.terminal(_ERRAND) if authorization else nullcontext() as terminal:
            question = errand.ask(
                method,
                url,
                {name: value for name, value in headers.items() if name != "Authorization"},
                insecure=self._registry.skip_verify,
                proxy=self._host.target.proxy if self._proxy else None,
                seconds=round(self._limit),
                terminal=terminal.device if terminal else None,
                authorities=bool(pems),
            )
            bring = f"{transfer.bring(pems, owner)} && " if pems else ""
            script = Script({"ask": f"{bring}{{ {question}\n}}"}, cleanup=transfer.TAKE_AWAY if pems else "")
            if terminal:
                terminal.type(line)
            answer = self._host.ask(script, limit=_ERRAND, secret=True)["ask"]  # it may be a token
        found = errand.read(answer)
        if isinstance(found, Seen):
            raise SeenError(found, errand.last_words(answer))
        return Reply(*found)

    def _wire(self, parts: SplitResult) -> forward.Wire:
        """The connection that is there, or another one."""
        deadline, origin = time.monotonic() + self._limit, f"{parts.scheme}://{parts.netloc}"
        if self._kept and self._kept[0] == origin:
            self._kept[1].until(deadline)
            return self._kept[1]
        self._hang_up()
        secure, name = parts.scheme == "https", str(parts.hostname)
        port = parts.port or (443 if secure else 80)
        wire = forward.connect(self._host, self._proxy or (name, port), deadline)
        self._kept = origin, wire
        if self._proxy and secure:
            self._tunnel(wire, f"[{name}]:{port}" if ":" in name else f"{name}:{port}")
        if secure:
            wire.secure(self._tls, name)
        return wire

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
    last = response.will_close or len(body) == _MOST
    return Reply(response.status, response.reason, {n.lower(): v for n, v in response.getheaders()}, body, last)


def authorities(registry: Registry) -> bytes:
    """The certificate of whoever signed the registry's, PEM, where it is to be checked by it."""
    if registry.scheme == "http" or registry.skip_verify or not registry.ca_file:
        return b""
    return Path(registry.ca_file).read_bytes()


def context(registry: Registry) -> ssl.SSLContext:
    """Whose certificates are believed at first; only where that does not do, this machine's and the host's as well.

    (Reading all certificates of a system takes 50 ms.)

    Raises:
        SeenError: its ca_file cannot be read.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if registry.skip_verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    elif registry.ca_file and registry.scheme == "https":
        try:
            made.load_verify_locations(registry.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise SeenError(Seen.CA_FILE, f"{registry.ca_file}: {error.strerror or error}") from error
    elif registry.scheme == "https":
        made.load_default_certs()
    return made


def _parts(url: str) -> SplitResult:
    """An address taken apart; it may be one that a registry sent us to.

    Raises:
        SeenError: it is none of http or https.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # of brackets, or of the port
        pass
    raise SeenError(Seen.NO_REGISTRY, f"it sends to {url[:80]}")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise SeenError(Seen.NO_REGISTRY, f"it sends to {location[:80]}") from error


def _address(proxy: str | None) -> tuple[str, int] | None:
    parts = urlsplit(proxy or "")
    return (parts.hostname, parts.port) if parts.hostname and parts.port else None


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password.reveal()}".encode()).decode()
