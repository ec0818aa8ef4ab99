"""What stands before the lab's registries, in one process of its own: `python -m lab.fronts SPEC`.

SPEC is a JSON file with `groups` (control groups to join) and `fronts`: what `_open` takes, one for each. The
process says "ready" on stdout when all of them listen, then obeys lines of JSON on stdin, each answered by one, and
ends when stdin does.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import ssl
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

PIECE = 1 << 16
PATIENCE = 2.0
Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


@dataclass
class Front(ABC):
    """Somewhere to connect to.

    Attributes:
        listen: its address and port.
        connections: how many there were.
        sent: bytes that clients have sent.
        tls: with what it serves TLS.
    """

    listen: tuple[str, int]
    connections: int = 0
    sent: int = 0
    tls: ssl.SSLContext | None = None

    @abstractmethod
    async def open(self) -> None:
        """Listen."""

    def told(self) -> dict[str, Any]:
        """Return what it has seen so far."""
        return {"connections": self.connections, "sent": self.sent}


class Server(Front):
    """A front for TCP."""

    async def open(self) -> None:
        """Listen."""
        listening = _socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(self.listen)
        await asyncio.start_server(self._accept, sock=listening, ssl=self.tls, limit=PIECE)

    async def _accept(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
            await self.serve(reader, writer)
        writer.close()

    @abstractmethod
    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Talk with one client until the connection is done with."""

    def _count(self, size: int) -> float:
        """Take down what a client has sent; return 0, for how long to wait in seconds."""
        self.sent += size
        return 0


def _socket() -> socket.socket:
    """Return a socket to which nobody can send more than a moment's worth ahead."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
    made.setblocking(False)
    return made


class Names(Front, asyncio.DatagramProtocol):
    """A name server that knows no name."""

    async def open(self) -> None:
        """Listen."""
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, self.listen)

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Take down where to answer."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer one question: there is no such name."""
        self.connections += 1
        question = data[12 : data.index(0, 12) + 5]
        flags, counts = b"\x81\x83", b"\0\1" + bytes(6)
        self._transport.sendto(data[:2] + flags + counts + question, addr)


class Silent(Server):
    """Accepts, and never says a word."""

    async def serve(self, reader: Reader, writer: Writer) -> None:  # noqa: ARG002
        """Read until the client has had enough."""
        while data := await reader.read(PIECE):
            self._count(len(data))


@dataclass
class Slow(Server):
    """Passes everything on, so and so many bytes a second each way.

    Attributes:
        target: where to.
        rate: bytes per second; None: as fast as they come.
        got: bytes that clients have got.
    """

    target: tuple[str, int] = ("", 0)
    rate: float | None = None
    got: int = 0
    _free: dict[str, float] = field(default_factory=dict)

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Pass on."""
        there = _socket()
        await asyncio.get_running_loop().sock_connect(there, self.target)
        streams = await asyncio.open_connection(sock=there, limit=PIECE)
        await relay((reader, writer), streams, self._count, self._back)

    def _count(self, size: int) -> float:
        super()._count(size)
        return self._wait("to", size)

    def _back(self, size: int) -> float:
        self.got += size
        return self._wait("from", size)

    def told(self) -> dict[str, Any]:
        """Return what it has seen so far."""
        return {**super().told(), "got": self.got}

    def _wait(self, way: str, size: int) -> float:
        """Return how long to wait after so many bytes, in seconds, all connections together."""
        now = time.monotonic()
        self._free[way] = max(now, self._free.get(way, 0)) + (size / self.rate if self.rate else 0)
        return self._free[way] - now


@dataclass
class Flaky(Server):
    """Answers so and so many requests with a fault and passes the others on, over plain HTTP.

    Attributes:
        target: where to.
        fault: the status, headers and body of the answer.
        times: how many more it gives.
        methods: only to these; to all where empty.
        answered: how many it has given.
    """

    target: tuple[str, int] = ("", 0)
    fault: tuple[str, Mapping[str, str], Mapping[str, Any]] = ("", {}, {})
    times: int = 0
    methods: Sequence[str] = ()
    answered: int = 0

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Answer or pass on one request; the client is told to ask the next one on another connection."""
        request = await head(reader)
        if self.times and (not self.methods or request.method in self.methods):
            self.times -= 1
            self.answered += 1
            await answer(writer, self.fault[0], self.fault[2], self.fault[1])
            await _hear_out(reader)
            return
        there = await asyncio.open_connection(*self.target)
        there[1].write(request.bytes({"connection": "close"}))
        await relay((reader, writer), there, self._count)

    def told(self) -> dict[str, Any]:
        """Return what it has seen so far."""
        return {**super().told(), "answered": self.answered}


@dataclass
class Proxy(Server):
    """An HTTP proxy: it connects, and asks plain HTTP itself.

    Attributes:
        names: what it resolves, as nobody else does: host:port -> address and port.
        asked: every host:port that was asked for.
    """

    names: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Connect a client with what it asks for, or pass on its one request."""
        request = await head(reader)
        url = urlsplit(request.target)
        name = request.target if request.method == "CONNECT" else url.netloc
        self.asked.append(name)
        if name not in self.names:
            await answer(writer, "502 Bad Gateway")
            return
        there = await asyncio.open_connection(*self.names[name])
        if request.method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = url._replace(scheme="", netloc="").geturl()
            there[1].write(replace(request, target=path).bytes({"connection": "close"}))
        await relay((reader, writer), there, self._count)

    def told(self) -> dict[str, Any]:
        """Return what it has seen so far."""
        return {**super().told(), "asked": self.asked}


@dataclass
class Tokens(Server):
    """A token server as Docker's token specification has it, for GET and for OAuth's POST.

    Attributes:
        issuer, service: what its tokens say, and the registry demands.
        rights: user -> password, and the actions that it may have on any repository.
        pem: key and certificate that it signs with, and serves TLS with.
    """

    issuer: str = ""
    service: str = ""
    rights: Mapping[str, tuple[str, Sequence[str]]] = field(default_factory=dict)
    pem: str = ""

    def __post_init__(self) -> None:
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.pem)
        data = Path(self.pem).read_bytes()
        key = load_pem_private_key(data, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key, self._certificate = key, x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Give one token, or none for a wrong password; who says no name gets one that allows nothing."""
        request = await head(reader)
        body = await reader.readexactly(int(request.headers.get("content-length", 0)))
        form = parse_qs(body.decode() if request.method == "POST" else urlsplit(request.target).query)
        given = {name: values[-1] for name, values in form.items()}
        user, password = given.get("username", ""), given.get("password", "")
        if basic := request.headers.get("authorization", "").removeprefix("Basic "):
            user, _, password = base64.b64decode(basic).decode().partition(":")
        known, actions = self.rights.get(user, ("", ()))
        if password != known:
            problem = {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]}
            await answer(writer, "401 Unauthorized", problem)
            return
        scopes = [scope for value in form.get("scope", []) for scope in value.split()]
        token = self._token(user, [_access(scope, actions) for scope in scopes])
        await answer(writer, "200 OK", {"token": token, "access_token": token, "expires_in": 300})

    def _token(self, user: str, access: Sequence[Mapping[str, Any]]) -> str:
        """Return a signed token."""
        now = int(time.time())
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(self._certificate).decode()]}
        claims: dict[str, Any] = {"iss": self.issuer, "aud": self.service, "sub": user, "access": access}
        claims |= {"iat": now, "nbf": now - 10, "exp": now + 300, "jti": uuid.uuid4().hex}
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        r, s = utils.decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return (signed + b"." + _base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


def _access(scope: str, actions: Sequence[str]) -> dict[str, Any]:
    """Return what is granted of a scope such as repository:library/app:pull,push."""
    kind, _, rest = scope.partition(":")
    name, _, wanted = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": [action for action in wanted.split(",") if action in actions]}


def _base64url(data: bytes) -> bytes:
    """Return bytes as a token spells them."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@dataclass(frozen=True)
class Request:
    """The head of an HTTP request; names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]

    def bytes(self, changed: Mapping[str, str]) -> bytes:
        """Return it as it is sent on, with some headers changed."""
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in {**self.headers, **changed}.items()]
        return "\r\n".join([*lines, "", ""]).encode()


async def head(reader: Reader) -> Request:
    """Read the head of a request; raise EOFError when there is none."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    named = [line.partition(":") for line in lines if line]
    return Request(method, target, {name.lower(): value.strip() for name, _, value in named})


async def answer(
    writer: Writer, status: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> None:
    """Answer a request with JSON, as the last one of its connection."""
    data = json.dumps(body or {}).encode()
    told = {"Content-Type": "application/json", "Content-Length": str(len(data)), "Connection": "close"}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in {**told, **(headers or {})}.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode() + data)
    await writer.drain()


async def _hear_out(reader: Reader) -> None:
    """Read what a client still sends: closed before, the connection would take the answer with it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while await reader.read(PIECE):
                continue


Pause = Callable[[int], float]


async def relay(
    here: tuple[Reader, Writer], there: tuple[Reader, Writer], to: Pause, back: Pause = lambda _: 0
) -> None:
    """Pass bytes both ways until either side is done.

    Args:
        here, there: the two connections.
        to, back: told the size of what passes; return how long to wait then, in seconds.
    """
    ways = [
        asyncio.create_task(_pass(here[0], there[1], to)),
        asyncio.create_task(_pass(there[0], here[1], back)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if ways[0].done() and not ways[0].exception():  # the client is done asking, not done listening
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


KINDS: Mapping[str, Callable[..., Front]] = {
    kind.__name__: kind for kind in (Names, Silent, Slow, Flaky, Proxy, Tokens)
}


def _open(kind: str, host: str, port: int, **settings: Any) -> Front:
    """Return a front that does not listen yet."""
    return KINDS[kind](listen=(host, port), **settings)


def _obey(fronts: Mapping[str, Front], line: str) -> dict[str, Any]:
    """Set attributes of a front, where some are given; return what it has seen."""
    asked = json.loads(line)
    front = fronts[asked["front"]]
    for name, value in asked["set"].items():
        setattr(front, name, value)
    return front.told()


async def _serve(spec: Mapping[str, Any]) -> None:
    """Be the fronts, until stdin ends."""
    fronts = {name: _open(**settings) for name, settings in spec["fronts"].items()}
    for front in fronts.values():
        await front.open()
    orders = asyncio.StreamReader()
    protocol = partial(asyncio.StreamReaderProtocol, orders)
    await asyncio.get_running_loop().connect_read_pipe(protocol, sys.stdin)
    print("ready", flush=True)
    while line := await orders.readline():
        print(json.dumps(_obey(fronts, line.decode())), flush=True)


def main() -> None:
    """Join the control groups, and serve."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    for group in spec["groups"]:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    try:
        asyncio.run(_serve(spec))
    except OSError as problem:
        print(problem, flush=True)


if __name__ == "__main__":
    main()
