"""A receive buffer gives bytes in order, no more than asked for, and does not wake its reader for every packet."""

from __future__ import annotations

import threading

import pytest
from fan_outs import PATIENCE, until
from paramiko.buffered_pipe import PipeTimeout

from ctr_ferry.ssh import transport
from ctr_ferry.ssh.transport import ReceiveBuffer


def filled(*pieces: bytes) -> ReceiveBuffer:
    receive_buffer = ReceiveBuffer()
    for piece in pieces:
        receive_buffer.feed(piece)
    return receive_buffer


def test_bytes_come_in_order_and_no_more_than_asked_for() -> None:
    receive_buffer = filled(b"abc", b"def", b"ghi")
    assert len(receive_buffer) == 9
    assert [receive_buffer.read(size) for size in (2, 5, 9)] == [b"ab", b"cdefg", b"hi"]
    assert len(receive_buffer) == 0 and not receive_buffer.read_ready()


def test_the_rest_comes_and_then_nothing_at_the_end() -> None:
    receive_buffer = filled(b"abc")
    receive_buffer.close()
    assert [receive_buffer.read(2), receive_buffer.read(2), receive_buffer.read(2)] == [b"ab", b"c", b""]


@pytest.mark.parametrize("timeout", [0.0, 0.02])
def test_a_read_without_bytes_times_out(timeout: float) -> None:
    with pytest.raises(PipeTimeout):
        ReceiveBuffer().read(1, timeout)


def test_a_read_waits_for_the_first_piece_or_the_end() -> None:
    receive_buffer = ReceiveBuffer()
    for event, given in ((lambda: receive_buffer.feed(b"late"), b"late"), (receive_buffer.close, b"")):
        timer = threading.Timer(0.05, event)
        timer.start()
        assert receive_buffer.read(10, PATIENCE) == given
        timer.join()


def test_a_reader_that_wants_many_bytes_is_not_woken_for_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_MOMENT", PATIENCE)
    receive_buffer, came = ReceiveBuffer(), []
    receive_buffer.low = 100
    waiting = receive_buffer._cv._waiters  # type: ignore[attr-defined]  # who is woken is in it no more
    reader = threading.Thread(target=lambda: came.append(receive_buffer.read(200)), daemon=True)
    reader.start()
    until(lambda: len(waiting) == 1)
    before = list(waiting)
    receive_buffer.feed(b"x" * 60)
    assert list(waiting) == before
    receive_buffer.feed(b"y" * 60)
    reader.join(PATIENCE)
    assert came == [b"x" * 60 + b"y" * 60]


def test_a_reader_that_wants_many_bytes_gets_a_few_after_a_moment_and_at_the_end() -> None:
    receive_buffer = filled(b"little")
    receive_buffer.low = 1 << 20
    assert receive_buffer.read(1 << 21) == b"little"
    receive_buffer.feed(b"rest")
    receive_buffer.close()
    assert receive_buffer.read(1 << 21) == b"rest"


def test_the_event_is_set_while_there_is_something_to_read() -> None:
    receive_buffer, event = ReceiveBuffer(), threading.Event()
    receive_buffer.set_event(event)
    receive_buffer.feed(b"")
    assert not event.is_set()
    receive_buffer.feed(b"ab")
    assert event.is_set() and receive_buffer.read_ready()
    receive_buffer.read(1)
    assert event.is_set()
    assert receive_buffer.empty() == b"b"
    assert not event.is_set()
    receive_buffer.close()
    assert event.is_set()
    late = threading.Event()
    receive_buffer.set_event(late)
    assert late.is_set()


def test_small_pieces_take_no_more_memory_than_their_bytes() -> None:
    receive_buffer = filled(*[b"ab"] * 10_000, b"", b"", b"c" * 10_000, *[b""] * 1000)
    assert len(receive_buffer) == 30_000 and len(receive_buffer._buffer) < 10
    assert receive_buffer.read(30_000) == b"ab" * 10_000 + b"c" * 10_000


def test_megabytes_in_small_pieces_come_whole_from_another_thread() -> None:
    receive_buffer, pieces = ReceiveBuffer(), [bytes([n % 251]) * (n % 977 + 1) for n in range(4000)]
    receive_buffer.low = 4096

    def feed() -> None:
        for piece in pieces:
            receive_buffer.feed(piece)
        receive_buffer.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    came = []
    while data := receive_buffer.read(10_000, PATIENCE):
        came.append(data)
    feeder.join()
    assert b"".join(came) == b"".join(pieces)
