"""A connection that a host makes for us: it resolves the name and connects, and needs nothing but its sshd.

TLS is spoken here, through it, so that what is said stays between us and whoever is at its other end.
"""

from __future__ import annotations

import contextlib
import io
import logging
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import paramiko

from ctr_ferry.oci.registry import RegistryState
from ctr_ferry.text import printable

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host

_CHUNK = 16 << 10  # bytes, TLS's largest record
_MOST_SAID = 600  # characters of whoever said it
_Result = TypeVar("_Result")
_CERTIFICATES = {
    9: RegistryState.NOT_YET,
    10: RegistryState.EXPIRED,
    62: RegistryState.WRONG_NAME,
    64: RegistryState.WRONG_NAME,
}
_CERTIFICATES |= dict.fromkeys((18, 19, 20, 21), RegistryState.UNKNOWN_CA)  # X509_V_ERR_… of OpenSSL
_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")  # what OpenSSL says of an answer without TLS


class RegistryStateError(Exception):
    """No answer was had; what that means, and in the words of whoever said it."""

    def __init__(self, state: RegistryState, detail: object = "") -> None:
        super().__init__(state)
        self.state, self.detail = state, printable(str(detail)[:_MOST_SAID])


@contextlib.contextmanager
def state_errors(limit: float) -> Iterator[None]:
    """Turns what goes wrong on such a connection into what it means.

    Args:
        limit: seconds that there were for it, for the words.

    Raises:
        RegistryStateError.
    """
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise RegistryStateError(
            _CERTIFICATES.get(error.verify_code, RegistryState.TLS_FAILED), error.verify_message
        ) from error
    except ssl.SSLError as error:
        state = RegistryState.NO_TLS if error.reason in _PLAIN else RegistryState.TLS_FAILED
        raise RegistryStateError(state, (error.reason or str(error)).lower()) from error
    except TimeoutError as error:
        raise RegistryStateError(RegistryState.NO_ANSWER, f"within {limit:.0f} s") from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise RegistryStateError(RegistryState.NO_ANSWER, error) from error


class _Reasons(logging.Handler):
    """Keeps what sshd says of a channel that it does not open; paramiko tells it to its log alone."""

    def __init__(self) -> None:
        super().__init__()
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        _, failed, reason = record.getMessage().partition("open FAILED: ")
        self.last = reason if failed else self.last


def connect(host: Host, there: tuple[str, int], deadline: float) -> Wire:
    """A connection from the host to ``there``; one at a time for each host, since paramiko mixes up failures.

    Args:
        deadline: of the monotonic clock, for all that will happen on it.

    Raises:
        RegistryStateError: why there is none; Unreachable.
    """
    host.open()
    transport: paramiko.Transport = host.transport
    logger, reasons = logging.getLogger(f"paramiko.forward.{id(transport)}"), _Reasons()
    before = transport.get_log_channel()
    logger.addHandler(reasons)
    transport.set_log_channel(logger.name)
    try:
        left = max(0.1, deadline - time.monotonic())
        return Wire(transport.open_channel("direct-tcpip", there, ("127.0.0.1", 0), timeout=left), deadline)
    except paramiko.ChannelException as error:
        raise RegistryStateError(_refusal(error.code, reasons.last), reasons.last.rpartition(": ")[0]) from error
    finally:
        transport.set_log_channel(before)
        logger.removeHandler(reasons)


def _refusal(code: int, detail: str) -> RegistryState:
    if code != 2:  # SSH_OPEN_CONNECT_FAILED (RFC 4254); else it is prohibited, or unknown to that server
        return RegistryState.NOT_CHECKED
    if any(word in detail for word in ("unknown host", "not known", "name resolution", "No address")):
        return RegistryState.UNRESOLVED
    return (
        RegistryState.NO_ANSWER
        if "timed out" in detail or "unreachable" in detail or "No route" in detail
        else RegistryState.REFUSED
    )


class Wire:
    """The forwarded connection, with or without TLS; as much of a socket as http.client wants."""

    def __init__(self, channel: paramiko.Channel, deadline: float) -> None:
        self._channel, self._deadline = channel, deadline
        self._tls: ssl.SSLObject | None = None
        self._received, self._sent = ssl.MemoryBIO(), ssl.MemoryBIO()

    def until(self, deadline: float) -> None:
        """Gives it more time, for another question."""
        self._deadline = deadline

    def hang_up(self) -> None:
        """Closes it."""
        self._channel.close()

    def secure(self, context: ssl.SSLContext, name: str) -> None:
        """From now on through TLS, with a certificate for that name."""
        self._tls = context.wrap_bio(self._received, self._sent, server_hostname=name)
        self._through(self._tls.do_handshake)

    def sendall(self, data: bytes) -> None:
        """Writes."""
        if tls := self._tls:
            self._through(lambda: tls.write(data))
        else:
            self._in_time()
            self._channel.sendall(data)

    def recv(self, most: int) -> bytes:
        """Reads; nothing at the end."""
        if tls := self._tls:
            try:
                return self._through(lambda: tls.read(most))
            except ssl.SSLEOFError:
                return b""
        return self._receive(most)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002  (it is always rb)
        """What http.client reads an answer from."""
        return io.BufferedReader(_Stream(self))

    def close(self) -> None:
        """http.client's, which it calls while there still is something to read: `hang_up` closes it."""

    def _through(self, act: Callable[[], _Result]) -> _Result:
        """One step of TLS, and the bytes that it needs and makes."""
        while True:
            try:
                result = act()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._receive(_CHUNK)
                self._received.write(data) if data else self._received.write_eof()
                continue
            self._flush()
            return result

    def _flush(self) -> None:
        self._in_time()
        self._channel.sendall(self._sent.read())

    def _receive(self, most: int) -> bytes:
        self._in_time()
        data: bytes = self._channel.recv(most)
        return data

    def _in_time(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)


class _Stream(io.RawIOBase):
    """A wire as a file to read from."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads as much as there is."""
        data = self._wire.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)
