"""A download gives the bytes that the host announced, and ends a host that sends more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ctr_ferry import shell
from ctr_ferry.errors import ContentCorrupt, RemoteTimeout
from ctr_ferry.shell import Script
from ctr_ferry.ssh.exchange import End
from ctr_ferry.ssh.stream import READ, Download

BOUNDARY = "ferry-000102030405060708090a0b0c0d0e0f"
ENDED = f"\n{BOUNDARY} end 0\n".encode()


class Channel:
    """A channel that gives pieces, and then ends."""

    in_buffer = None

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self.given, self.closed = pieces, 0, False

    def gettimeout(self) -> float:
        return 1.0

    def settimeout(self, _: float) -> None:
        pass

    def recv(self, _: int) -> bytes:
        data = next(self._pieces, b"")
        self.given += len(data)
        return data

    def close(self) -> None:
        self.closed = True


class Exchange:
    """An exchange whose stderr is complete."""

    exit = 0

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.stdout = bytearray()
        self.stderr = bytearray(shell.section_start(BOUNDARY, READ) + ENDED)
        self.end: End | None = None

    def drain_stderr(self) -> None:
        pass

    def late(self) -> End | None:
        return self.end

    def finish(self, _: Callable[[], bool]) -> End:
        return End.EXITED


def download(pieces: Iterator[bytes]) -> tuple[Download, Channel]:
    channel = Channel(pieces)
    host = SimpleNamespace(name="there", as_root=False, log=lambda *_: None)
    exchange = cast(Any, Exchange(channel))
    made = Download(cast(Any, host), Script({READ: "cat"}), BOUNDARY, exchange, limit=60)
    return made, channel


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_announced_bytes_arrive_unchanged(step: int) -> None:
    forged = b"\nferry-0123456789abcdef end 1\n"
    sent = b"noise" + shell.section_start(BOUNDARY, READ) + forged + ENDED
    made, channel = download(sent[at : at + step] for at in range(0, len(sent), step))
    assert b"".join(made.chunks(len(forged))) == forged
    assert made.answer and made.answer.ok and channel.closed


@pytest.mark.parametrize("step", [1, 7, 40, 1000])
@pytest.mark.parametrize("data", [b"", b"half", b"half\n", f"half\n{BOUNDARY} en".encode()])
def test_a_command_that_is_ended_early_has_given_nothing_but_data(data: bytes, step: int) -> None:
    sent = shell.section_start(BOUNDARY, READ) + data + f"\n{BOUNDARY} end 137\n".encode()
    made, _ = download(sent[at : at + step] for at in range(0, len(sent), step))
    assert b"".join(made.chunks(1000)) == data
    assert made.answer and made.answer.exit == 137


def test_an_endless_stream_is_ended() -> None:
    def endless() -> Iterator[bytes]:
        yield shell.section_start(BOUNDARY, READ)
        yield from repeat(b"x" * 100, 100_000)

    made, channel = download(endless())
    came = bytearray()
    with pytest.raises(ContentCorrupt, match="more than the 1000 bytes"):
        came.extend(data for chunk in made.chunks(1000) for data in chunk)
    assert channel.given < 2000 and channel.closed


def test_a_stream_that_comes_byte_by_byte_is_ended_when_its_time_is_up() -> None:
    pieces = [shell.section_start(BOUNDARY, READ), *[b"x"] * 1000]
    made, channel = download(iter(pieces))
    chunks = made.chunks(1000)
    assert next(chunks) == b"" and next(chunks) == b"x"
    cast(Any, made._exchange).end = End.TIMED_OUT
    with pytest.raises(RemoteTimeout, match="longer than the command may take"):
        next(chunks)
    assert channel.closed
