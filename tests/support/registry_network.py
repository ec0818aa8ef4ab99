"""Helpers of the unit tests of the registry client: a host, and the servers that it reaches."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from ctr_ferry.oci.descriptor import OCI_INDEX
from ctr_ferry.oci.registry import Login, Registries, Registry
from ctr_ferry.registry.client import Client
from ctr_ferry.secrets import Secret
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.target import Target

DIGEST = f"sha256:{'d' * 64}"
REGISTRY = Registry("r.example:5000", scheme="http")
ANN = Login("ann", Secret("s3cret"))
BASIC = "Basic " + base64.b64encode(b"ann:s3cret").decode()
FOUND = f"HTTP/1.1 200 OK\r\nDocker-Content-Digest: {DIGEST}\r\nContent-Length: 42\r\nContent-Type: {OCI_INDEX}\r\n\r\n"
UNKNOWN = '{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
Request = tuple[str, str, dict[str, str]]  # method, target, headers in lower case
Serve = Callable[[Request], str]


class Network:
    """A host, and every server that it reaches. One function answers all requests.

    Args:
        serve: returns the answer to a request.
        proxy: the inventory's proxy for the host.
        forwards: whether the host's sshd forwards connections.

    Attributes:
        reached: host and port of every connection.
        asked: every request.
        scripts: every script that ran on the host.
        typed: what was typed at the host's terminal.
        curl: returns the answer of the host's curl or wget to a script.
    """

    def __init__(self, serve: Serve, *, proxy: str | None = None, forwards: bool = True) -> None:
        self.serve, self.forwards = serve, forwards
        self.reached: list[tuple[str, int]] = []
        self.asked: list[Request] = []
        self.scripts: list[str] = []
        self.typed: list[str] = []
        self.curl: Callable[[str], Answer] = lambda _: Answer(127, b"", "")
        self._open: list[socket.socket] = []
        transport = SimpleNamespace(open_failure="", open_channel=self._connect)
        limits = Target("n", "n").limits
        self.host: Any = SimpleNamespace(
            open=lambda: None,
            is_lost=False,
            transport=transport,
            target=Target("n", "n", limits=limits, variables={Registries: Registries(proxy=proxy)}),
            run_id="run",
            ask=self._ask,
            terminal=self._terminal,
        )

    def client(self, login: Login | None = None, registry: Registry = REGISTRY) -> Client:
        return Client(self.host, registry, lambda: login)

    def _connect(self, _: str, there: tuple[str, int], *__: object, **___: object) -> Any:
        if not self.forwards:
            raise paramiko.ChannelException(1, "prohibited")
        self.reached.append(there)
        ours, its = socket.socketpair()
        self._open += [ours, its]
        threading.Thread(target=self._serve, args=(its,), daemon=True).start()
        return ours

    def _serve(self, its: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while head := self._head(its):
                first, *lines = head.decode().split("\r\n")
                method, target, _ = first.split(" ")
                headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines if line)}
                request = (method, target, headers)
                self.asked.append(request)
                its.sendall(self.serve(request).encode())

    def _head(self, its: socket.socket) -> bytes:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            if not (more := its.recv(1)):
                return b""
            data += more
        return data[:-4]

    def _ask(self, script: Script, **_: object) -> dict[str, Answer]:
        (text,) = script.steps.values()
        self.scripts.append(text)
        return {"ask": self.curl(text)}

    @contextlib.contextmanager
    def _terminal(self, limit: int) -> Iterator[Any]:  # noqa: ARG002
        yield SimpleNamespace(device="/dev/pts/9", type=self.typed.append)

    def hang_up(self) -> None:
        """Let the server of the last connection close it."""
        self._open[-1].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in self._open:
            each.close()


NewNetwork = Callable[..., Network]


@pytest.fixture(name="network")
def network_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[NewNetwork]:
    monkeypatch.setitem(Client.__init__.__kwdefaults__, "limit", 60.0)  # only what hangs takes longer
    made: list[Network] = []

    def make(serve: Serve, **more: Any) -> Network:
        made.append(Network(serve, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def reply(status: str, *headers: str, body: str = "") -> str:
    return "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body))


def missing(request: Request, body: str = UNKNOWN) -> str:
    """A registry's answer that there is nothing."""
    return reply("404 Not Found", body="" if request[0] == "HEAD" else body)
