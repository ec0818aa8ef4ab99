"""What comes on a channel: in order, as much as is asked for, and not a thread woken for every packet."""

from __future__ import annotations

import threading
import time

import pytest
from paramiko.buffered_pipe import PipeTimeout

from ctr_ferry.ssh import transport
from ctr_ferry.ssh.transport import Inbox


def filled(*pieces: bytes) -> Inbox:
    inbox = Inbox()
    for piece in pieces:
        inbox.feed(piece)
    return inbox


def test_gives_what_came_in_order_and_no_more_than_is_asked_for() -> None:
    inbox = filled(b"abc", b"def", b"ghi")
    assert len(inbox) == 9
    assert [inbox.read(size) for size in (2, 5, 9)] == [b"ab", b"cdefg", b"hi"]
    assert len(inbox) == 0 and not inbox.read_ready()


def test_gives_what_is_left_and_then_nothing_at_the_end() -> None:
    inbox = filled(b"abc")
    inbox.close()
    assert [inbox.read(2), inbox.read(2), inbox.read(2)] == [b"ab", b"c", b""]


@pytest.mark.parametrize("timeout", [0.0, 0.02])
def test_says_so_where_nothing_comes(timeout: float) -> None:
    with pytest.raises(PipeTimeout):
        Inbox().read(1, timeout)


def test_waits_for_the_first_piece_and_for_the_end() -> None:
    inbox = Inbox()
    for act, given in ((lambda: inbox.feed(b"late"), b"late"), (inbox.close, b"")):
        timer = threading.Timer(0.05, act)
        timer.start()
        assert inbox.read(10, 20) == given
        timer.join()


def test_a_reader_that_wants_much_is_not_woken_for_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_MOMENT", 20)
    inbox, came = Inbox(), []
    inbox.low = 100
    reader = threading.Thread(target=lambda: came.append(inbox.read(200)))
    reader.start()
    inbox.feed(b"x" * 60)
    time.sleep(0.05)
    assert not came
    inbox.feed(b"y" * 60)
    reader.join(20)
    assert came == [b"x" * 60 + b"y" * 60]


def test_a_reader_that_wants_much_gets_little_after_a_moment_and_at_once_at_the_end() -> None:
    inbox = filled(b"little")
    inbox.low = 1 << 20
    assert inbox.read(1 << 21) == b"little"
    inbox.feed(b"rest")
    inbox.close()
    assert inbox.read(1 << 21) == b"rest"


def test_an_event_tells_whether_there_is_something() -> None:
    inbox, event = Inbox(), threading.Event()
    inbox.set_event(event)
    assert not event.is_set()
    inbox.feed(b"ab")
    assert event.is_set() and inbox.read_ready()
    inbox.read(1)
    assert event.is_set()
    assert inbox.empty() == b"b"
    assert not event.is_set()
    inbox.close()
    assert event.is_set()
    late = threading.Event()
    inbox.set_event(late)
    assert late.is_set()


def test_megabytes_in_small_pieces_come_whole_through_two_threads() -> None:
    inbox, pieces = Inbox(), [bytes([n % 251]) * (n % 977 + 1) for n in range(4000)]
    inbox.low = 4096

    def feed() -> None:
        for number, piece in enumerate(pieces):
            inbox.feed(piece)
            if number % 500 == 0:
                time.sleep(0.001)
        inbox.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    came = []
    while data := inbox.read(10_000, 20):
        came.append(data)
    feeder.join()
    assert b"".join(came) == b"".join(pieces)
