"""The streams of a command take bounded memory and time, whatever the host sends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import fabric
import paramiko
import pytest
from sshd import Sshd, serving

from ctr_ferry.errors import ConnectionLost
from ctr_ferry.shell import Script
from ctr_ferry.ssh.exchange import End, Exchange
from ctr_ferry.ssh.forward import Wire
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.stream import PACKET, WINDOW
from ctr_ferry.ssh.target import Limits, Target, Trust
from ctr_ferry.ssh.transport import Transport

PIECE = b"x" * 30_000


@dataclass(slots=True)
class Flood(Sshd):
    """An sshd that ignores the window of a channel."""

    send: str = "send"

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return paramiko.OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(self, chanid: int, *_: object) -> int:
        def begin() -> None:
            while not (channel := self.transport._channels.get(chanid)):
                time.sleep(0.01)
            self.flood(channel)

        threading.Thread(target=begin, daemon=True).start()
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:  # noqa: ARG002
        threading.Thread(target=self.flood, args=(channel,), daemon=True).start()
        return True

    @property
    def transport(self) -> Any:
        return next(each for each in threading.enumerate() if getattr(each, "server_object", None) is self)

    def flood(self, channel: Any) -> None:
        time.sleep(0.1)
        for _ in range(10 * WINDOW // len(PIECE)):
            channel.out_window_size = 1 << 40
            try:
                getattr(channel, self.send)(PIECE)
            except (OSError, EOFError, paramiko.SSHException):
                return


@contextmanager
def connected(server: Flood) -> Iterator[Transport]:
    with serving(server), socket.create_connection(("127.0.0.1", server.port)) as connection:
        transport = Transport(connection)
        transport.start_client(timeout=10)
        transport.auth_publickey("x", paramiko.ECDSAKey.generate())
        try:
            yield transport
        finally:
            transport.close()


def cut_off(transport: Transport, channel: paramiko.Channel) -> bool:
    """Whether the connection was closed, with no more than a window and a packet in memory."""
    transport.join(20)
    unread = len(channel.in_buffer) + len(channel.in_stderr_buffer)
    return not transport.is_active() and unread <= channel.in_window_size + 2 * PACKET


@pytest.mark.parametrize("send", ["send", "send_stderr"])
def test_a_host_that_sends_more_than_its_window_is_cut_off(send: str) -> None:
    with connected(Flood(send=send)) as transport:
        channel = transport.open_session(WINDOW, PACKET, 10)
        channel.exec_command("x")
        assert cut_off(transport, channel)
        assert str(WINDOW) in transport.fault


def test_a_host_that_sends_more_than_its_window_on_a_forwarded_connection_is_cut_off() -> None:
    with connected(Flood()) as transport:
        channel = transport.open_channel("direct-tcpip", ("h", 1), ("", 0), timeout=10)
        assert cut_off(transport, channel)


def test_the_error_of_a_host_that_was_cut_off_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / "key"))
    with serving(Flood()) as server:
        trust = Trust((tmp_path / "known",), accept_new=True)
        target = Target("there", "127.0.0.1", server.port, "ops", tmp_path / "key", trust=trust, limits=Limits(idle=20))
        host = Host(target, fabric.Config(overrides={"load_ssh_configs": False}))
        prepared = host.run_in_background(Script({"a": ":", "wait": "cat"}), limit=60)
        try:
            host.transport.join(20)  # nobody reads meanwhile
            with pytest.raises(ConnectionLost, match=r"there sent more than the \d+ bytes that it may send unread"):
                prepared.prepared(20)
        finally:
            host.close_quietly()


class Endless:
    """A channel that always has more to read."""

    closed = eof_received = False
    exit_status = -1

    def fileno(self) -> int:
        return self.pipe.fileno()

    def __init__(self) -> None:
        self.pipe, other = socket.socketpair()
        other.close()  # so there is always something to read

    def recv_ready(self) -> bool:
        return True

    def recv_stderr_ready(self) -> bool:
        return False

    def exit_status_ready(self) -> bool:
        return False

    def recv(self, size: int) -> bytes:
        return bytes(size // 8)


class Forgetful:
    """A listener that keeps nothing, like that of the progress."""

    def hear(self, data: bytes) -> bytes:  # noqa: ARG002
        return b""

    def end(self) -> bytes:
        return b""


@pytest.mark.timeout(60)
def test_a_command_that_prints_without_end_ends_when_its_time_is_up() -> None:
    channel = Endless()
    with channel.pipe:
        began = time.monotonic()
        assert Exchange(cast(Any, channel), 0.5, 30, Forgetful()).finish() is End.TIMED_OUT
        assert time.monotonic() - began < 10


class Slow:
    """A channel whose host takes one byte now and then."""

    def __init__(self) -> None:
        self.settimeout: Callable[[float], None] = lambda _: None

    def send(self, data: bytes) -> int:
        time.sleep(0.01)
        return min(1, len(data))

    def sendall(self, data: bytes) -> None:
        while data:
            data = data[self.send(data) :]


@pytest.mark.timeout(60)
def test_sending_a_script_that_is_taken_byte_by_byte_ends_when_its_time_is_up() -> None:
    began = time.monotonic()
    Exchange(cast(Any, Slow()), 0.2, 30).send(b"x" * 3000)
    assert time.monotonic() - began < 10


@pytest.mark.timeout(60)
def test_sending_on_a_forwarded_connection_ends_when_its_time_is_up() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        Wire(cast(Any, Slow()), began + 0.2).sendall(b"x" * 3000)
    assert time.monotonic() - began < 10
