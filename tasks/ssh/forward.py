"""Registries as a host sees them: a connection that the host makes, and that we speak TLS and HTTP through.

The host resolves the name and connects; it needs nothing but its sshd.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import paramiko

from tasks.ctr.shell import printable
from tasks.oci.registry import Registry
from tasks.ssh.host import Host

_LIMIT = 10.0  # seconds for one registry
_ALL = 30.0  # seconds for all of one host
_MOST = 16 << 10  # bytes of an answer's head
_Result = TypeVar("_Result")


class Seen(Enum):
    """What a registry's answer means."""

    OPEN = "reachable"
    LOGIN = "reachable, needs a login"
    NOT_CHECKED = "not checked"
    NO_TIME = "not checked: those before it took too long"
    UNRESOLVED = "its name does not resolve"
    REFUSED = "it refuses the connection"
    NO_ANSWER = "no answer"
    NO_TLS = "it does not speak TLS"
    WANTS_TLS = "it speaks TLS alone"
    UNKNOWN_CA = "its certificate is signed by nobody known"
    EXPIRED = "its certificate has expired"
    NOT_YET = "its certificate is not valid yet"
    WRONG_NAME = "its certificate is for another name"
    TLS_FAILED = "TLS fails"
    CA_FILE = "its ca_file cannot be read"
    NO_REGISTRY = "what answers there is no registry"


@dataclass(frozen=True, slots=True)
class Sight:
    """A registry from one host.

    Attributes:
        said: in the words of whoever said it.
    """

    registry: Registry
    seen: Seen
    said: str = ""


_CERTIFICATES = {9: Seen.NOT_YET, 10: Seen.EXPIRED, 62: Seen.WRONG_NAME, 64: Seen.WRONG_NAME}
_CERTIFICATES |= dict.fromkeys((18, 19, 20, 21), Seen.UNKNOWN_CA)  # X509_V_ERR_… of OpenSSL


class _FailedError(Exception):
    def __init__(self, seen: Seen, said: object = "") -> None:
        super().__init__(seen)
        self.seen, self.said = seen, printable(str(said))


def look(host: Host, registries: Sequence[Registry]) -> list[Sight]:
    """Asks each registry for its API, through the host; one after the other, since paramiko mixes up failures."""
    deadline = time.monotonic() + _ALL
    return [_look(host, registry, min(deadline, time.monotonic() + _LIMIT)) for registry in registries]


def _look(host: Host, registry: Registry, deadline: float) -> Sight:
    try:
        if time.monotonic() >= deadline:
            raise _FailedError(Seen.NO_TIME)
        context = _context(registry)
        with _Wire(_open(host, registry, deadline), deadline) as wire:
            if context:
                wire.secure(context, registry.host)
            return _judge(registry, wire.get(registry.name, "/v2/"))
    except _FailedError as failed:
        return Sight(registry, failed.seen, failed.said)
    except ssl.SSLCertVerificationError as error:
        return Sight(registry, _CERTIFICATES.get(error.verify_code, Seen.TLS_FAILED), error.verify_message)
    except ssl.SSLError as error:
        plain = error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
        return Sight(registry, Seen.NO_TLS if plain else Seen.TLS_FAILED, (error.reason or str(error)).lower())
    except TimeoutError:
        return Sight(registry, Seen.NO_ANSWER, f"within {_LIMIT:.0f} s")
    except (paramiko.SSHException, OSError, EOFError) as error:
        return Sight(registry, Seen.NO_ANSWER, printable(str(error)))


def _context(registry: Registry) -> ssl.SSLContext | None:
    if registry.scheme == "http":
        return None
    context = ssl.create_default_context()
    if registry.skip_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif registry.ca_file:
        try:
            context.load_verify_locations(registry.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise _FailedError(Seen.CA_FILE, f"{registry.ca_file}: {error.strerror or error}") from error
    return context


class _Reasons(logging.Handler):
    """Keeps what sshd says of a channel that it does not open; paramiko tells it to its log alone."""

    def __init__(self) -> None:
        super().__init__()
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        _, failed, reason = record.getMessage().partition("open FAILED: ")
        self.last = reason if failed else self.last


def _open(host: Host, registry: Registry, deadline: float) -> paramiko.Channel:
    host.open()
    transport: paramiko.Transport = host.transport
    logger, reasons = logging.getLogger(f"paramiko.forward.{id(transport)}"), _Reasons()
    before = transport.get_log_channel()
    logger.addHandler(reasons)
    transport.set_log_channel(logger.name)
    try:
        there, left = (registry.host, registry.port), max(0.1, deadline - time.monotonic())
        return transport.open_channel("direct-tcpip", there, ("127.0.0.1", 0), timeout=left)
    except paramiko.ChannelException as error:
        raise _FailedError(_refusal(error.code, reasons.last), reasons.last.rpartition(": ")[0]) from error
    finally:
        transport.set_log_channel(before)
        logger.removeHandler(reasons)


def _refusal(code: int, said: str) -> Seen:
    if code != 2:  # SSH_OPEN_CONNECT_FAILED (RFC 4254); else it is prohibited, or unknown to that server
        return Seen.NOT_CHECKED
    if any(word in said for word in ("unknown host", "not known", "name resolution", "No address")):
        return Seen.UNRESOLVED
    return Seen.NO_ANSWER if "timed out" in said or "unreachable" in said or "No route" in said else Seen.REFUSED


class _Wire:
    """The forwarded connection, with or without TLS, with one end in time for all that happens on it."""

    def __init__(self, channel: paramiko.Channel, deadline: float) -> None:
        self._channel, self._deadline = channel, deadline
        self._tls: ssl.SSLObject | None = None
        self._received, self._sent = ssl.MemoryBIO(), ssl.MemoryBIO()

    def __enter__(self) -> _Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def secure(self, context: ssl.SSLContext, name: str) -> None:
        """From now on through TLS, with a certificate for that name."""
        self._tls = context.wrap_bio(self._received, self._sent, server_hostname=name)
        self._through(self._tls.do_handshake)

    def get(self, name: str, path: str) -> bytes:
        """The head of the answer to a GET."""
        request = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: ctr-ferry\r\nConnection: close\r\n\r\n".encode()
        self._write(request)
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _MOST and (data := self._read()):
            head += data
        if b" 400 " in head.partition(b"\r\n")[0]:
            head += self._read()  # what is wrong with the request stands below the head
        return head

    def _write(self, data: bytes) -> None:
        if tls := self._tls:
            self._through(lambda: tls.write(data))
        else:
            self._in_time()
            self._channel.sendall(data)

    def _read(self) -> bytes:
        if tls := self._tls:
            try:
                return self._through(lambda: tls.read(_MOST))
            except ssl.SSLEOFError:
                return b""
        return self._receive()

    def _through(self, act: Callable[[], _Result]) -> _Result:
        """One step of TLS, and the bytes that it needs and makes."""
        while True:
            try:
                result = act()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._receive()
                self._received.write(data) if data else self._received.write_eof()
                continue
            self._flush()
            return result

    def _flush(self) -> None:
        self._in_time()
        self._channel.sendall(self._sent.read())

    def _receive(self) -> bytes:
        self._in_time()
        data: bytes = self._channel.recv(_MOST)
        return data

    def _in_time(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)


def _judge(registry: Registry, head: bytes) -> Sight:
    lines = head.decode("latin-1").split("\r\n")
    protocol, _, rest = lines[0].partition(" ")
    status = rest[:3]
    if not protocol.startswith("HTTP/") or not status.isdecimal():
        return Sight(registry, Seen.NO_REGISTRY if head else Seen.NO_ANSWER, printable(lines[0][:80]))
    if status == "200":
        return Sight(registry, Seen.OPEN)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if status == "401":
        return Sight(registry, Seen.LOGIN, printable(headers.get("www-authenticate", "").partition(" ")[0]))
    if status == "400" and registry.scheme == "http" and (b"HTTPS server" in head or b"HTTPS port" in head):
        return Sight(registry, Seen.WANTS_TLS, printable(rest))
    return Sight(registry, Seen.NO_REGISTRY, f"{printable(rest[:80])} at /v2/")
