"""A TCP connection from a host to a registry, forwarded by the host's sshd. The host resolves the name and connects.

TLS ends on the control machine, so the host sees only encrypted bytes.
"""

from __future__ import annotations

import contextlib
import io
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import paramiko

from ctr_ferry.oci.registry import RegistryState, RegistryStateError

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host

_CHUNK = 16 << 10  # bytes, TLS's largest record
_Result = TypeVar("_Result")
_CERTIFICATES = {  # X509_V_ERR_… of OpenSSL
    9: RegistryState.NOT_YET,
    10: RegistryState.EXPIRED,
    **dict.fromkeys((18, 19, 20, 21), RegistryState.UNKNOWN_CA),
    **dict.fromkeys((62, 64), RegistryState.WRONG_NAME),
}
_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")  # OpenSSL's reasons for an answer without TLS


@contextlib.contextmanager
def state_errors(limit: float) -> Iterator[None]:
    """A block in which errors of a connection that had ``limit`` seconds are raised as RegistryStateError."""
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


def connect(host: Host, there: tuple[str, int], deadline: float) -> Wire:
    """Opens a connection from the host. Open only one at a time on a host: paramiko mixes up their failures.

    Args:
        there: name or address, and port.
        deadline: time of the monotonic clock at which the connection fails.

    Raises:
        RegistryStateError: the host cannot connect.
        Unreachable: there is no connection to the host itself.
    """
    host.open()
    transport = host.transport
    left = max(0.1, deadline - time.monotonic())
    try:
        return Wire(transport.open_channel("direct-tcpip", there, ("127.0.0.1", 0), timeout=left), deadline)
    except paramiko.ChannelException as error:
        detail = transport.open_failure
        raise RegistryStateError(_refusal(error.code, detail), detail) from error


def _refusal(code: int, detail: str) -> RegistryState:
    if code != 2:  # SSH_OPEN_CONNECT_FAILED (RFC 4254). Other codes: forwarding is prohibited, or unknown to that sshd
        return RegistryState.NOT_CHECKED
    if any(word in detail for word in ("unknown host", "not known", "name resolution", "No address")):
        return RegistryState.UNRESOLVED
    if any(word in detail for word in ("timed out", "unreachable", "No route")):
        return RegistryState.NO_ANSWER
    return RegistryState.REFUSED


class Wire(io.RawIOBase):
    """A forwarded connection, with or without TLS: a raw file, with the methods of a socket that http.client needs.

    Args:
        channel: the forwarded channel.

    Attributes:
        deadline: time of the monotonic clock at which every operation raises TimeoutError.
    """

    def __init__(self, channel: paramiko.Channel, deadline: float) -> None:
        super().__init__()
        self._channel, self.deadline = channel, deadline
        self._tls: ssl.SSLObject | None = None
        self._received, self._sent = ssl.MemoryBIO(), ssl.MemoryBIO()

    def hang_up(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def secure(self, context: ssl.SSLContext, name: str) -> None:
        """Starts TLS with a server whose certificate must be for ``name``, and trusted by ``context``."""
        self._tls = context.wrap_bio(self._received, self._sent, server_hostname=name)
        self._through(self._tls.do_handshake)

    def sendall(self, data: bytes) -> None:
        """Sends all bytes."""
        if tls := self._tls:
            self._through(lambda: tls.write(data))
        else:
            self._send(data)

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads the bytes that have come, as many as fit; none at the end."""
        most = len(buffer)
        try:
            data = self._through(lambda: tls.read(most)) if (tls := self._tls) else self._receive(most)
        except ssl.SSLEOFError:
            return 0
        buffer[: len(data)] = data
        return len(data)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002  (it is always rb)
        """The file that http.client reads an answer from."""
        return io.BufferedReader(self)

    def close(self) -> None:
        """Does nothing: http.client calls it while it still reads. `hang_up` closes the connection."""

    def _through(self, operation: Callable[[], _Result]) -> _Result:
        """Runs one operation of TLS, and moves the bytes that it needs and produces."""
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                self._send(self._sent.read())
                if data := self._receive(_CHUNK):
                    self._received.write(data)
                else:
                    self._received.write_eof()
                continue
            self._send(self._sent.read())
            return result

    def _send(self, data: bytes) -> None:
        while data:  # the host may take a byte now and then
            self._in_time()
            data = data[self._channel.send(data) :]

    def _receive(self, most: int) -> bytes:
        self._in_time()
        return self._channel.recv(most)

    def _in_time(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)
