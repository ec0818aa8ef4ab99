"""HTTP requests and answers, and bytes passed both ways, for the servers in front of the lab's registries."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

PIECE = 1 << 16  # bytes
PATIENCE = 2.0  # seconds to read what a client still sends
Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


@dataclass(frozen=True)
class Request:
    """The head of an HTTP request. The names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]

    def bytes(self, changed: Mapping[str, str]) -> bytes:
        """Return the head as bytes to send on, with some headers changed."""
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in {**self.headers, **changed}.items()]
        return "\r\n".join([*lines, "", ""]).encode()


async def head(reader: Reader) -> Request:
    """Read the head of a request; raise EOFError if the connection ends first."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    named = [line.partition(":") for line in lines if line]
    return Request(method, target, {name.lower(): value.strip() for name, _, value in named})


async def answer(
    writer: Writer, status: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> None:
    """Answer a request with JSON, as the last answer on its connection."""
    data = json.dumps(body or {}).encode()
    common = {"Content-Type": "application/json", "Content-Length": str(len(data)), "Connection": "close"}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in {**common, **(headers or {})}.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode() + data)
    await writer.drain()


async def hear_out(reader: Reader) -> None:
    """Read what a client still sends. If the connection were closed before, the client would lose the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while await reader.read(PIECE):
                continue


Pause = Callable[[int], float]


async def relay(
    here: tuple[Reader, Writer], there: tuple[Reader, Writer], to: Pause, back: Pause = lambda _: 0
) -> None:
    """Pass bytes both ways until the server has ended, or the connection to the client fails.

    Args:
        here, there: the connections to the client and to the server.
        to, back: called with the number of bytes that passed to the server, or back. They return how many seconds to
            wait then.
    """
    ways = [
        asyncio.create_task(_pass(here[0], there[1], to)),
        asyncio.create_task(_pass(there[0], here[1], back)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if ways[0].done() and not ways[0].exception():  # the client has sent its request, and waits for the answer
            await ways[1]
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        there[1].close()


async def _pass(reader: Reader, writer: Writer, pause: Pause) -> None:
    """Pass bytes one way until they end."""
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()
        if (seconds := pause(len(data))) > 0:
            await asyncio.sleep(seconds)
    if writer.can_write_eof():
        writer.write_eof()
