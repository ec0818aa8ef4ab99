"""Byte channels to a real sshd: what is sent arrives, what holds is let go, new keys disturb nobody."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import paramiko
import pytest
from fabric import Config
from ferry import eventually, processes

from lab.fleet import Fleet, Node
from tasks.ctr.shell import Script
from tasks.errors import RemoteTimeout
from tasks.fleet.roster import Roster
from tasks.ssh.host import Host
from tasks.ssh.target import Limits, Trust

DATA = bytes(range(256)) * 4096


@pytest.fixture
def host(fleet: Fleet, node3: Node) -> Iterator[Host]:
    """A connection of our own to node3."""
    roster = Roster(fleet.inventory, Trust(), Limits(), lambda _: False)
    (target,) = roster.select([node3.name])
    host = Host(target, Config(), run_id="test")
    host.open()
    yield host
    host.close()


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


def test_a_hold_that_does_not_begin_is_given_up_and_ended(host: Host, node3: Node) -> None:
    before = processes(node3).keys()
    hold = host.hold(Script({"plant": "sleep 90", "wait": "read -r word"}), limit=120)
    with pytest.raises(RemoteTimeout, match="had not begun"):
        hold.begun(0.2)
    # What is fed has its stdin to itself: the guard finds out with its next heartbeat, 15 s after the last.
    assert eventually(lambda: processes(node3).keys() <= before, 45), processes(node3)


def test_a_hold_is_cleaned_up_when_it_is_let_go_and_when_we_are_gone(host: Host, node3: Node) -> None:
    before = processes(node3).keys()
    for goodbye in ("let go", "gone"):
        script = Script({"plant": "echo planted", "wait": "read -r word"}, cleanup=f'echo "$word" >/tmp/{goodbye[:3]}')
        hold = host.hold(script, limit=60)
        assert hold.begun(30)["plant"].text == "planted\n"
        if goodbye == "let go":
            hold.let_go(b"bye\n")
        else:
            host.close()
        file = f"/tmp/{goodbye[:3]}"
        expected = b"bye\n" if goodbye == "let go" else b"\n"
        assert eventually(lambda f=file, e=expected: node3.exec(["cat", f], check=False).stdout == e)  # type: ignore[misc]
        node3.exec(["rm", file])
    assert eventually(lambda: processes(node3).keys() <= before), processes(node3)
