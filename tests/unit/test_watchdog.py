"""A connection does not wait for ever for a host that takes or sends nothing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from fan_outs import Clock

from ctr_ferry.ssh.watchdog import Watched


class Pair:
    """A watched socket, the one at its other end, and what the watchdog said."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        ours.settimeout(0.01)
        self.theirs, self.clock, self.said = theirs, Clock(), list[str]()
        self.watched = Watched(ours, self.said.append, self.clock)

    def fill(self) -> None:
        with pytest.raises(TimeoutError):
            while True:
                self.watched.send(bytes(1 << 16))


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Pair(ours, theirs)


def test_a_host_that_takes_nothing_is_given_up_after_the_time_for_it(pair: Pair) -> None:
    pair.watched.watch(60)
    pair.fill()
    pair.clock.now = 60.0
    pair.fill()
    pair.clock.now = 60.1
    with pytest.raises(ConnectionAbortedError):
        pair.watched.send(b"more")
    assert pair.said == ["took no byte for 60 s"]


def test_a_host_that_takes_a_little_now_and_then_is_not_given_up(pair: Pair) -> None:
    pair.watched.watch(60)
    for minutes in range(1, 5):
        pair.fill()
        pair.clock.now = 50.0 * minutes
        with contextlib.suppress(BlockingIOError):
            while pair.theirs.recv(1 << 20, socket.MSG_DONTWAIT):
                pass
    assert pair.said == []


def test_a_host_that_sends_nothing_is_given_up_once_it_is_watched(pair: Pair) -> None:
    pair.clock.now = 1000.0
    with pytest.raises(TimeoutError):
        pair.watched.recv(1)
    pair.watched.watch(60)
    pair.clock.now = 1055.0
    pair.theirs.send(b"x")
    assert pair.watched.recv(1) == b"x"
    for second in range(1056, 1116):
        pair.clock.now = float(second)
        with pytest.raises(TimeoutError):
            pair.watched.recv(1)
    pair.clock.now = 1115.1
    with pytest.raises(ConnectionAbortedError):
        pair.watched.recv(1)
    assert len(pair.said) == 1 and pair.said[0].startswith("sent no byte")


def test_time_in_which_this_process_was_stopped_does_not_count(pair: Pair) -> None:
    pair.watched.watch(60)
    pair.clock.now = 600.0
    with pytest.raises(TimeoutError):
        pair.watched.recv(1)
    assert pair.said == []
