"""Over a real sshd, data arrives unchanged, background scripts clean up, and new keys disturb no channel."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import paramiko
import pytest
from fabric import Config
from ferry import eventually, processes

from ctr_ferry.errors import ConnectionLost, RemoteTimeout
from ctr_ferry.inventory.selector import HostSelector
from ctr_ferry.shell import Script
from ctr_ferry.ssh import guard
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.target import Limits, Trust
from ctr_ferry.ssh.transport import Transport
from lab.fleet import Fleet, Node

DATA = bytes(range(256)) * 4096


@contextmanager
def connected(fleet: Fleet, node: Node, limits: Limits) -> Iterator[Host]:
    """A connection of our own to a node."""
    (target,) = HostSelector(fleet.inventory, Trust(), limits, lambda _: False).select([node.name])
    host = Host(target, Config(), run_id="test")
    host.open()
    yield host
    host.close_quietly()


@pytest.fixture
def host(fleet: Fleet, node3: Node) -> Iterator[Host]:
    """A connection of our own to node3."""
    with connected(fleet, node3, Limits()) as host:
        yield host


@pytest.fixture
def hasty(fleet: Fleet, node3: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """One that waits 3 s for a byte, and hears a heartbeat each second."""
    monkeypatch.setattr(guard, "_HEARTBEAT", 1)
    with connected(fleet, node3, Limits(idle=3)) as host:
        yield host


def upload(host: Host, number: int) -> str:
    """Send data; return the digest that the host sees."""
    stream = host.upload(Script({"sum": "sha256sum"}), limit=60)
    for at in range(0, len(DATA), 50_000):
        assert stream.write(DATA[at : at + 50_000])
    return f"{number} {stream.end()['sum'].text.split()[0]}"


def test_no_small_message_waits_for_an_acknowledgement(host: Host) -> None:
    assert host.transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_new_keys_in_the_middle_of_many_channels_disturb_none(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paramiko.packet.Packetizer, "REKEY_BYTES", 200_000)
    with ThreadPoolExecutor(3) as pool:
        seen = list(pool.map(lambda number: upload(host, number), range(12)))
    digest = hashlib.sha256(DATA).hexdigest()
    assert seen == [f"{number} {digest}" for number in range(12)]


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_what_a_host_writes_comes_as_it_is(host: Host, size: int) -> None:
    download = host.download(f"head -c {size} /dev/zero", limit=60)
    assert b"".join(download.chunks(size)) == bytes(size)
    assert download.answer and download.answer.ok


def test_less_than_was_promised_is_less_with_the_reason(host: Host) -> None:
    download = host.download("printf abc; echo gone >&2; false", limit=60)
    list(download.chunks(1000))
    assert download.answer and (download.answer.exit, download.answer.stderr) == (1, "gone\n")


def test_a_command_that_takes_no_more_tells_why(host: Host) -> None:
    stream = host.upload(Script({"full": "head -c 1000 >/dev/null; echo full >&2; false"}), limit=60)
    assert not all(stream.write(DATA) for _ in range(50))
    answer = stream.end()["full"]
    assert (answer.exit, answer.stderr) == (1, "full\n")


def test_a_host_that_gave_data_for_long_is_no_silent_one(fleet: Fleet, node3: Node) -> None:
    with connected(fleet, node3, Limits(idle=1)) as host:

        def read(_: int) -> bytes:
            download = host.download("for n in 1 2 3 4; do echo $n; sleep 0.4; done", limit=60)
            data = b"".join(download.chunks(8))
            assert download.answer and download.answer.ok
            return data

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(read, range(24))) == [b"1\n2\n3\n4\n"] * 24


def test_a_host_that_is_there_and_moves_nothing_is_no_broken_connection(hasty: Host) -> None:
    with pytest.raises(RemoteTimeout, match="the host is there"):
        list(hasty.download("sleep 60", limit=60).chunks(1))
    stream = hasty.upload(Script({"full": "sleep 60"}), limit=60)
    with pytest.raises(RemoteTimeout, match="the host is there"):
        while True:
            stream.write(DATA)
    stream.cut()
    assert hasty.ask(Script({"well": "echo well"}))["well"].text == "well\n"


def test_nothing_is_sent_behind_the_end_of_a_channel(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """sshd gives up the whole connection for it."""
    send = Transport._send_user_message

    def late(transport: Transport, message: paramiko.Message) -> None:
        if threading.current_thread() is not transport:
            time.sleep(0.003)
        send(transport, message)

    monkeypatch.setattr(Transport, "_send_user_message", late)
    for _ in range(20):
        stream = host.upload(Script({"full": "head -c 100000 >/dev/null; false"}), limit=60)
        while stream.write(DATA):
            pass
        stream.cut()
    assert host.connection.is_connected
    assert host.ask(Script({"well": "echo well"}))["well"].text == "well\n"


def test_a_stream_on_a_broken_connection_can_be_cut_and_is_not_begun(host: Host) -> None:
    stream = host.upload(Script({"sum": "sha256sum"}), limit=60)
    host.transport.sock.shutdown(socket.SHUT_RDWR)
    stream.cut()
    assert eventually(lambda: not host.connection.is_connected)
    with pytest.raises(ConnectionLost):
        host.upload(Script({"sum": "sha256sum"}), limit=60)


def test_a_background_script_that_does_not_prepare_in_time_is_ended(host: Host, node3: Node) -> None:
    before = processes(node3).keys()
    script = host.run_in_background(Script({"prepare": "sleep 90", "wait": "read -r word"}), limit=120)
    with pytest.raises(RemoteTimeout, match="did not prepare"):
        script.prepared(0.2)
    # Where stdin is data, the guard notices a closed channel with its next heartbeat, 15 s after the last one.
    assert eventually(lambda: processes(node3).keys() <= before, 45), processes(node3)


def test_a_background_script_cleans_up_when_it_is_released_and_when_the_connection_ends(
    host: Host, node3: Node
) -> None:
    before = processes(node3).keys()
    for end, expected in (("released", b"bye\n"), ("closed", b"\n")):
        file = f"/tmp/{end}"
        steps = {"prepare": "echo prepared", "wait": "read -r word"}
        script = host.run_in_background(Script(steps, cleanup=f'echo "$word" >{file}'), limit=60)
        assert script.prepared(30)["prepare"].text == "prepared\n"
        if end == "released":
            script.release(b"bye\n")
        else:
            host.close_quietly()
        assert eventually(lambda f=file, e=expected: node3.exec(["cat", f], check=False).stdout == e)  # type: ignore[misc]
        node3.exec(["rm", file])
    assert eventually(lambda: processes(node3).keys() <= before), processes(node3)


@pytest.mark.parametrize("buffer", [4 << 10, 4 << 20])
def test_a_host_that_goes_dark_in_the_middle_is_given_up_whatever_the_kernel_holds(
    fleet: Fleet, node3: Node, buffer: int
) -> None:
    """With a small buffer, a write hangs. With a large one, the host does not answer."""
    before = processes(node3).keys()
    with connected(fleet, node3, Limits(idle=2)) as host:
        host.transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        host.transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)  # the watchdog does without it
        stream = host.upload(Script({"sum": "sha256sum"}), limit=600)
        ours = [pid for pid, argv in processes(node3).items() if pid not in before and argv.startswith("sshd")]
        for pid in ours:
            os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(ConnectionLost), host.lost_connection():
                while True:
                    stream.write(DATA)
            assert eventually(lambda: "for 3 s" in host.connection.fault)
        finally:
            for pid in ours:
                os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: processes(node3).keys() <= before), processes(node3)
