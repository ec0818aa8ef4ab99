"""The streams of a command take bounded memory and time, whatever the host sends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fabric
import paramiko
import pytest
from fan_outs import PATIENCE, until
from sshd import Sshd, serving

from ctr_ferry.errors import ConnectionLost
from ctr_ferry.shell import Script
from ctr_ferry.ssh import exchange, forward
from ctr_ferry.ssh.exchange import End, Exchange
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
            until(lambda: chanid in list(self.transport._channels._map))
            self.flood(self.transport._channels.get(chanid))

        threading.Thread(target=begin, daemon=True).start()
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:  # noqa: ARG002
        threading.Thread(target=self.flood, args=(channel,), daemon=True).start()
        return True

    @property
    def transport(self) -> Any:
        return next(each for each in threading.enumerate() if getattr(each, "server_object", None) is self)

    def flood(self, channel: Any) -> None:
        channel.recv(1)  # the client has something to say once its request is granted
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
        transport.start_client(timeout=PATIENCE)
        transport.auth_publickey("x", paramiko.ECDSAKey.generate())
        try:
            yield transport
        finally:
            transport.close()


def cut_off(transport: Transport, channel: paramiko.Channel) -> bool:
    """Whether the connection was closed, with no more than a window and a packet in memory."""
    transport.join(PATIENCE)
    unread = len(channel.in_buffer) + len(channel.in_stderr_buffer)
    return not transport.is_active() and unread <= channel.in_window_size + 2 * PACKET


@pytest.mark.parametrize("send", ["send", "send_stderr"])
def test_a_host_that_sends_more_than_its_window_is_cut_off(send: str) -> None:
    with connected(Flood(send=send)) as transport:
        channel = transport.open_session(WINDOW, PACKET, PATIENCE)
        channel.exec_command("x")
        channel.sendall(b"x")
        assert cut_off(transport, channel)
        assert str(WINDOW) in transport.fault


def test_a_host_that_sends_more_than_its_window_on_a_forwarded_connection_is_cut_off() -> None:
    with connected(Flood()) as transport:
        channel = transport.open_channel("direct-tcpip", ("h", 1), ("", 0), timeout=PATIENCE)
        channel.sendall(b"x")
        assert cut_off(transport, channel)


def test_the_error_of_a_host_that_was_cut_off_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / "key"))
    with serving(Flood()) as server:
        trust = Trust((tmp_path / "known",), accept_new=True)
        limits = Limits(connect=PATIENCE)
        target = Target("there", "127.0.0.1", server.port, "ops", tmp_path / "key", trust=trust, limits=limits)
        host = Host(target, fabric.Config(overrides={"load_ssh_configs": False}))
        prepared = host.run_in_background(Script({"a": ":", "wait": "cat"}), limit=60)
        try:
            host.transport.join(PATIENCE)  # nobody reads meanwhile
            with pytest.raises(ConnectionLost, match=r"there sent more than the \d+ bytes that it may send unread"):
                prepared.prepared(PATIENCE)
        finally:
            host.close_quietly()


class Seconds:
    """A clock by which every byte takes a second. It stands in for a module's `time`."""

    def __init__(self, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(self.bytes)))


class Endless:
    """A channel that always has one more byte to read."""

    closed = eof_received = False
    exit_status = -1

    def fileno(self) -> int:
        return self.pipe.fileno()

    def __init__(self, seconds: Seconds) -> None:
        self.seconds = seconds
        self.pipe, other = socket.socketpair()
        other.close()  # so there is always something to read

    def recv_ready(self) -> bool:
        return True

    def recv_stderr_ready(self) -> bool:
        return False

    def exit_status_ready(self) -> bool:
        return False

    def recv(self, _: int) -> bytes:
        self.seconds.bytes += 1
        return b"x"


def test_a_command_that_prints_without_end_ends_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Endless(seconds := Seconds(exchange, monkeypatch))
    with channel.pipe:
        assert Exchange(cast(Any, channel), 200, 3000).finish() is End.TIMED_OUT
    assert 200 < seconds.bytes < 300


class Slow:
    """A channel whose host takes one byte at a time."""

    def __init__(self, seconds: Seconds) -> None:
        self.seconds = seconds
        self.settimeout: Callable[[float], None] = lambda _: None

    def send(self, _: bytes) -> int:
        self.seconds.bytes += 1
        return 1


def test_sending_a_script_that_is_taken_byte_by_byte_ends_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(seconds := Seconds(exchange, monkeypatch))
    Exchange(cast(Any, slow), 20, 30).send(b"x" * 3000)
    assert seconds.bytes == 20


def test_sending_on_a_forwarded_connection_ends_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(seconds := Seconds(forward, monkeypatch))
    with pytest.raises(TimeoutError):
        forward.Wire(cast(Any, slow), 20).sendall(b"x" * 3000)
    assert seconds.bytes == 20
