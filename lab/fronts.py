"""The servers in front of the lab's registries, all in one process: `python -m lab.fronts SPEC`.

SPEC is a JSON file with `groups` (the control groups to join) and `fronts` (name -> arguments of `_open`). The process
prints "ready" when all fronts listen. Then it reads commands from stdin, one line of JSON for each, and answers each
with one line of JSON. It ends when stdin ends.
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
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from lab.relay import PIECE, Reader, Writer, answer, head, hear_out, relay


@dataclass
class Front(ABC):
    """A server that counts its traffic, and whose attributes a test can change while it runs.

    Attributes:
        listen: the server's address and port.
        connections: how many connections there were.
        sent: bytes that clients have sent.
        tls: the TLS context; None for plain connections.
    """

    listen: tuple[str, int]
    connections: int = 0
    sent: int = 0
    tls: ssl.SSLContext | None = None

    @abstractmethod
    async def open(self) -> None:
        """Listen."""

    def counts(self) -> dict[str, Any]:
        """Return what the front has counted so far."""
        return {"connections": self.connections, "sent": self.sent}


class Server(Front):
    """A front that accepts TCP connections."""

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
        """Serve one client, until the connection is to be closed."""

    def _count(self, size: int) -> float:
        """Count the bytes that a client has sent; return how many seconds to wait: none."""
        self.sent += size
        return 0


def _socket() -> socket.socket:
    """Return a socket with a small receive buffer, so that senders cannot run far ahead."""
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
        """Keep the transport, to answer on it."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer one question: no such name."""
        self.connections += 1
        question = data[12 : data.index(0, 12) + 5]
        flags, counts = b"\x81\x83", b"\0\1" + bytes(6)
        self._transport.sendto(data[:2] + flags + counts + question, addr)


class Silent(Server):
    """Accepts connections, and never answers."""

    async def serve(self, reader: Reader, writer: Writer) -> None:  # noqa: ARG002
        """Read until the client closes the connection."""
        while data := await reader.read(PIECE):
            self._count(len(data))


@dataclass
class Slow(Server):
    """Passes everything on to another server, at a limited rate.

    Attributes:
        target: the other server's address and port.
        rate: bytes per second each way; None is no limit.
        got: bytes that clients have received.
    """

    target: tuple[str, int] = ("", 0)
    rate: float | None = None
    got: int = 0
    _free: dict[str, float] = field(default_factory=dict)

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Pass everything on, both ways."""
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

    def counts(self) -> dict[str, Any]:
        """Return what the front has counted so far."""
        return {**super().counts(), "got": self.got}

    def _wait(self, way: str, size: int) -> float:
        """Return how many seconds to wait after `size` bytes. All connections together share the rate."""
        now = time.monotonic()
        self._free[way] = max(now, self._free.get(way, 0)) + (size / self.rate if self.rate else 0)
        return self._free[way] - now


@dataclass
class Flaky(Server):
    """Answers some requests with a fault, and passes the others on to another server, over plain HTTP.

    Attributes:
        target: the other server's address and port.
        fault: the status, headers and body of the fault.
        times: how many further requests get the fault.
        methods: only requests of these methods get the fault; empty is all.
        within: only requests whose target has this text get the fault.
        answered: how many requests have got the fault.
    """

    target: tuple[str, int] = ("", 0)
    fault: tuple[str, Mapping[str, str], Mapping[str, Any]] = ("", {}, {})
    times: int = 0
    methods: Sequence[str] = ()
    within: str = ""
    answered: int = 0

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Answer or pass on one request. The client sends its next request on another connection."""
        request = await head(reader)
        concerned = self.within in request.target and (not self.methods or request.method in self.methods)
        if self.times and concerned:
            self.times -= 1
            self.answered += 1
            await answer(writer, self.fault[0], self.fault[2], self.fault[1])
            await hear_out(reader)
            return
        there = await asyncio.open_connection(*self.target)
        there[1].write(request.bytes({"connection": "close"}))
        await relay((reader, writer), there, self._count)

    def counts(self) -> dict[str, Any]:
        """Return what the front has counted so far."""
        return {**super().counts(), "answered": self.answered}


@dataclass
class Proxy(Server):
    """An HTTP proxy, for CONNECT and for plain HTTP.

    Attributes:
        names: the names that only this proxy resolves: host:port -> address and port.
        asked: every host:port that a client asked for.
    """

    names: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Connect a client with the server that it asks for, or pass on its one request."""
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

    def counts(self) -> dict[str, Any]:
        """Return what the front has counted so far."""
        return {**super().counts(), "asked": self.asked}


@dataclass
class Tokens(Server):
    """A token server by Docker's token specification, for GET and for OAuth's POST.

    Attributes:
        issuer, service: claims of the tokens. The registry checks them.
        rights: by user, the password and the actions that the user may take on any repository.
        pem: the file with key and certificate, both for the tokens' signatures and for TLS.
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
        """Give one token; none for a wrong password; one that allows nothing where the request names no user."""
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
    """Return which part of a scope is granted, such as repository:library/app:pull,push."""
    kind, _, rest = scope.partition(":")
    name, _, wanted = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": [action for action in wanted.split(",") if action in actions]}


def _base64url(data: bytes) -> bytes:
    """Encode bytes as tokens do: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


KINDS: Mapping[str, Callable[..., Front]] = {
    kind.__name__: kind for kind in (Names, Silent, Slow, Flaky, Proxy, Tokens)
}


def _open(kind: str, host: str, port: int, **settings: Any) -> Front:
    """Return a front that does not listen yet."""
    return KINDS[kind](listen=(host, port), **settings)


def _obey(fronts: Mapping[str, Front], line: str) -> dict[str, Any]:
    """Set attributes of a front, where some are given; return what the front has counted."""
    asked = json.loads(line)
    front = fronts[asked["front"]]
    for name, value in asked["set"].items():
        setattr(front, name, value)
    return front.counts()


async def _serve(spec: Mapping[str, Any]) -> None:
    """Run the fronts, until stdin ends."""
    fronts = {name: _open(**settings) for name, settings in spec["fronts"].items()}
    for front in fronts.values():
        await front.open()
    commands = asyncio.StreamReader()
    protocol = partial(asyncio.StreamReaderProtocol, commands)
    await asyncio.get_running_loop().connect_read_pipe(protocol, sys.stdin)
    print("ready", flush=True)
    while line := await commands.readline():
        print(json.dumps(_obey(fronts, line.decode())), flush=True)


def main() -> None:
    """Join the control groups, and run the fronts."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    for group in spec["groups"]:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    try:
        asyncio.run(_serve(spec))
    except OSError as problem:
        print(problem, flush=True)


if __name__ == "__main__":
    main()
