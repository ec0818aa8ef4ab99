"""HTTP to a registry through a host: connections, TLS, certificates.

Connections go through the host's sshd. Where sshd forwards none, the host asks with its own curl or wget (`curl`).
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ctr_ferry import shell
from ctr_ferry.ctr.commands import owner_of
from ctr_ferry.ctr.push_pull import BUNDLES, SYSTEM_BUNDLE, Route
from ctr_ferry.errors import FerryError
from ctr_ferry.oci.registry import Challenge, Registries, Registry, RegistryState, RegistryStateError
from ctr_ferry.oci.registry import headers as headers_of
from ctr_ferry.registry import curl
from ctr_ferry.shell import Script
from ctr_ferry.ssh import forward
from ctr_ferry.ssh.host import Host

MOST = 4 << 20  # bytes of a body; distribution takes no longer manifest
_MOST_BY_CURL = MOST + (128 << 10)  # with the headers, and the boundaries of the script
_CURL_LIMIT = 60  # seconds for a request that the host makes itself
_NOT_FOR_A_LOGIN = ", on this machine and in ca_file; the host's own CAs do not count where a login is sent"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; header names are in lower case.

    Attributes:
        last: whether the connection takes no further request.
        redirected: whether it comes from another address than the one that was asked first.
    """

    status: int
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    last: bool = True
    redirected: bool = False

    @property
    def challenge(self) -> Challenge:
        """The login that the server asks for."""
        return Challenge.parse(self.headers.get("www-authenticate", ""))


class Requests:
    """Sends requests to one registry, and to the servers that it names, through one host.

    Args:
        limit: seconds for each answer.
        allow_curl: whether the host may ask with its own curl or wget where its sshd forwards no connections.

    Raises:
        RegistryStateError: the registry's ca_file cannot be read.
    """

    def __init__(self, host: Host, registry: Registry, *, limit: float, allow_curl: bool) -> None:
        self._host, self._registry, self._limit = host, registry, limit
        self._proxy = None if registry.local else host.target.variables_of(Registries).proxy
        self._tls = context(registry)
        self._logs_in = self._asked_all = self._host_counted = False
        self._connections: dict[str, forward.Wire] = {}  # by scheme and server
        self._forwards, self._allow_curl = True, allow_curl

    def close(self) -> None:
        """Closes the connections that are kept for the next requests, one to each server."""
        for wire in self._connections.values():
            wire.hang_up()
        self._connections = {}

    def log_in(self) -> bool:
        """Prepares for requests with a login: certificates that only the host trusts no longer count.

        Returns whether they counted so far. If so, the answers so far may come from the wrong server.
        """
        counted, self._logs_in = self._host_counted, True
        if counted:
            self.close()
            self._tls, self._asked_all, self._host_counted = context(self._registry), False, False
        return counted

    def ask(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        """Sends one request. A certificate that ca_file does not cover may be one that this machine or the host trusts.

        Raises:
            RegistryStateError: there was no answer, or none that makes sense.
            Unreachable: the connection to the host broke.
        """
        try:
            return self._once(method, url, headers)
        except RegistryStateError as error:
            if error.state is not RegistryState.UNKNOWN_CA:
                raise
            if self._trust_more():
                return self.ask(method, url, headers)
            if self._logs_in:
                raise RegistryStateError(error.state, f"{error.detail}{_NOT_FOR_A_LOGIN}") from error
            raise

    def _trust_more(self) -> bool:
        """Trusts this machine's CAs as well, and the host's where no login is sent; False if nothing was added."""
        if self._registry.skip_verify or self._asked_all:
            return False
        self._asked_all = True
        self._tls.load_default_certs()
        self._host_counted = not self._logs_in  # even if the bundle cannot be read to its end, its first CAs count
        found = self._host_counted and self._trust_host()
        return found or bool(self._registry.ca_file) or self._registry.scheme == "http"

    def _trust_host(self) -> bool:
        try:
            named = f"\ncat {shell.join(self._registry.cas_there)} 2>/dev/null" if self._registry.cas_there else ""
            answer = self._host.ask(Script({"bundle": f"{SYSTEM_BUNDLE}{named}"}), limit=self._host.target.limits.probe)
            self._tls.load_verify_locations(cadata=answer["bundle"].text)
        except (FerryError, ValueError, ssl.SSLError):
            return False
        return True

    def _once(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        parts = parts_of(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # A proxy needs the whole address for plain HTTP. For TLS it gets the host alone, by CONNECT.
        target = url if self._proxy and parts.scheme == "http" else path
        if not self._forwards:
            return self._by_curl(method, url, headers)
        began, kept = time.monotonic(), self._connections.get(_origin(parts))
        try:
            with forward.state_errors(self._limit):
                reply = _exchange(self._wire(parts), method, target, {"Host": parts.netloc, **headers})
        except RegistryStateError as error:
            self.close()
            if self._host.is_lost:
                with self._host.lost_connection():
                    raise EOFError(error.detail) from error
            if kept and error.state is RegistryState.NO_ANSWER and time.monotonic() - began < self._limit:
                return self._once(method, url, headers)  # the server has closed the connection meanwhile
            if error.state is not RegistryState.NOT_CHECKED or not self._allow_curl:
                raise
            self._forwards = False
            return self._by_curl(method, url, headers)
        except BaseException:
            self.close()
            raise
        if reply.last:
            self._connections.pop(_origin(parts)).hang_up()
        return reply

    def _by_curl(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        """Lets the host ask with its own curl or wget."""
        authorization = headers.get("Authorization", "")
        with self._host.terminal(_CURL_LIMIT) if authorization else nullcontext() as terminal:
            route = Route(
                self._registry,
                authorities=self._authorities(url),
                exclusive=self._logs_in,
                proxy=self._proxy,
                owner=owner_of(self._host.run_id),
                terminal=terminal.device if terminal else None,
            )
            others = {name: value for name, value in headers.items() if name != "Authorization"}
            question = curl.ask(method, url, others, route, round(self._limit))
            script = Script({"ask": f"{route.prepare}{{ {question}\n}}"}, cleanup=route.cleanup)
            if terminal:
                terminal.type(curl.typed(authorization))
            # The answer may be a token.
            answer = self._host.ask(script, limit=_CURL_LIMIT, secret=True, listener=_Bounded())["ask"]
        found = curl.read(answer)
        if isinstance(found, RegistryState):
            raise RegistryStateError(found, curl.last_words(answer))
        status, reason, fields, body = found
        return Reply(status=status, reason=reason, headers=fields, body=body)

    def _authorities(self, url: str) -> bytes:
        """The certificates for the host's curl or wget: besides the host's bundle, or alone where a login is sent."""
        if self._registry.skip_verify or not url.startswith("https:"):
            return b""
        self._host_counted = self._host_counted or not self._logs_in
        return authorities(self._registry, exclusive=self._logs_in, system=self._asked_all)

    def _wire(self, parts: SplitResult) -> forward.Wire:
        """The connection that is kept to the same server; without one, a new one."""
        deadline, origin = time.monotonic() + self._limit, _origin(parts)
        if kept := self._connections.get(origin):
            kept.deadline = deadline
            return kept
        secure, (name, port) = parts.scheme == "https", _address(parts)
        there = _address(parts_of(self._proxy)) if self._proxy else (name, port)
        wire = forward.connect(self._host, there, deadline)
        self._connections[origin] = wire
        if self._proxy and secure:
            self._tunnel(wire, f"[{name}]:{port}" if ":" in name else f"{name}:{port}")
        if secure:
            wire.secure(self._tls, name)
        return wire

    def _tunnel(self, wire: forward.Wire, there: str) -> None:
        reply = _exchange(wire, "CONNECT", there, {"Host": there})
        if reply.status != 200:
            raise RegistryStateError(RegistryState.NO_ANSWER, f"the proxy says {reply.status} {reply.reason[:80]}")


def _exchange(wire: forward.Wire, method: str, path: str, headers: Mapping[str, str]) -> Reply:
    """Sends one request over a forwarded connection, and reads the answer; http.client knows the protocol."""
    request = http.client.HTTPConnection("unused")
    request.sock = wire
    try:
        request.request(method, path, headers={"User-Agent": "ctr-ferry", **headers})
        response = request.getresponse()
        body = b"" if method == "CONNECT" else response.read(MOST)
        if method != "CONNECT" and response.length and len(body) < MOST:  # http.client notices it in chunks only
            raise http.client.IncompleteRead(body, response.length)
    except http.client.RemoteDisconnected as error:
        raise RegistryStateError(RegistryState.NO_ANSWER) from error
    except http.client.IncompleteRead as error:
        raise RegistryStateError(RegistryState.BROKEN_OFF) from error
    except http.client.BadStatusLine as error:
        raise RegistryStateError(RegistryState.NO_REGISTRY, str(error.args[0]).strip()[:80]) from error
    except http.client.HTTPException as error:
        raise RegistryStateError(RegistryState.NO_REGISTRY, error) from error
    found = headers_of(response.getheaders())
    if found is None:
        raise RegistryStateError(RegistryState.NO_REGISTRY, curl.LONG_HEAD)
    return Reply(
        status=response.status,
        reason=response.reason,
        headers=found,
        body=body,
        last=response.will_close or len(body) == MOST,
    )


class _Bounded:
    """Listens to the host's curl or wget, and ends it where the answer is too long."""

    _heard = 0

    def hear(self, data: bytes) -> bytes:
        """Counts what came, and keeps all of it."""
        self._heard += len(data)
        if self._heard > _MOST_BY_CURL:
            raise RegistryStateError(RegistryState.NO_REGISTRY, f"an answer of more than {MOST >> 20} MiB")
        return data

    def end(self) -> bytes:
        """Nothing: `hear` holds nothing back."""
        return b""


def authorities(registry: Registry, *, exclusive: bool, system: bool) -> bytes:
    """The certificates, PEM, that count on the host for a registry: those of its ca_file.

    Args:
        exclusive: whether they count alone, since a password is sent. Then ctr-ferry itself must trust them.
        system: whether this machine's bundle then counts besides ca_file. Without a ca_file, it counts alone.
    """
    checked = registry.scheme == "https" and not registry.skip_verify
    pems = Path(registry.ca_file).read_bytes() if registry.ca_file and checked else b""
    return pems + b"\n" + _of_this_machine() if exclusive and (system or not pems) else pems


@cache
def _of_this_machine() -> bytes:
    bundle = ssl.get_default_verify_paths().cafile
    found = [Path(file) for file in (bundle, *BUNDLES) if file and Path(file).is_file()]
    return found[0].read_bytes() if found else b""


def context(registry: Registry) -> ssl.SSLContext:
    """TLS with the certificates that are tried first. `Requests.ask` adds others only where these do not suffice.

    Reading all certificates of a system takes 50 ms. Raises RegistryStateError where ca_file cannot be read.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if registry.skip_verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    elif registry.ca_file and registry.scheme == "https":
        try:
            made.load_verify_locations(registry.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise RegistryStateError(RegistryState.CA_FILE, f"{registry.ca_file}: {error.strerror or error}") from error
    elif registry.scheme == "https":
        made.load_default_certs()
    return made


_NAME = re.compile(r"[0-9A-Za-z_-]{1,63}(?:\.[0-9A-Za-z_-]{1,63})*\.?|[0-9A-Fa-f:.]+(?:%[0-9A-Za-z]+)?")
_WRITTEN = re.compile(r"[!-~]{1,8192}")


def parts_of(url: str) -> SplitResult:
    """Splits an address, which a registry may have sent; raises RegistryStateError if it is no plain one of http(s)."""
    try:
        parts = urlsplit(url)
        named = _NAME.fullmatch(parts.hostname or "") and not parts.username
        if parts.scheme in ("http", "https") and named and parts.port != 0 and _WRITTEN.fullmatch(url):
            return parts
    except ValueError:  # wrong brackets, or a wrong port
        pass
    raise RegistryStateError(RegistryState.NO_REGISTRY, f"it sends to {url[:80]}")


def _origin(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc}"


def _address(parts: SplitResult) -> tuple[str, int]:
    return str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
