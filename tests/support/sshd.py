"""An SSH server on loopback. A test sets the questions of its login."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import paramiko

PATIENCE = 60  # seconds, after which a test that hangs says so
Prompts = Sequence[tuple[str, bool]]


@dataclass(slots=True)
class Sshd(paramiko.ServerInterface):
    """The server's settings, and what clients sent.

    Attributes:
        methods: the login methods that the server accepts. With `rounds`, they are only a part of the login.
        rounds: the questions of keyboard-interactive, round by round.
        security: the names of algorithms, by the attribute of paramiko's transport that they replace.
        keys: the host keys.
        silent: whether no login by a key is answered while the server runs.
        authorized: the only key that may log in; None if any may.
        offered: the keys that clients offered.
        connections: how many connections were accepted.
        passwords, answers: the passwords and the answers that clients sent.
        port: the server's port, while it runs.
    """

    methods: str = "publickey"
    rounds: list[Prompts] = field(default_factory=list)
    security: dict[str, tuple[str, ...]] = field(default_factory=dict)
    keys: list[paramiko.PKey] = field(default_factory=lambda: [paramiko.ECDSAKey.generate()])
    silent: bool = False
    authorized: paramiko.PKey | None = None
    offered: list[paramiko.PKey] = field(default_factory=list)
    connections: int = 0
    passwords: list[str] = field(default_factory=list)
    answers: list[list[str]] = field(default_factory=list)
    port: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002
        return self.methods

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:  # noqa: ARG002
        self.offered.append(key)
        if self.silent:
            self.stopped.wait(PATIENCE)
        if self.authorized and key != self.authorized:
            return paramiko.AUTH_FAILED
        if self.methods == "publickey":
            return paramiko.AUTH_SUCCESSFUL
        partly = self.rounds or self.methods.startswith("publickey")
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL if partly else paramiko.AUTH_FAILED

    def check_auth_password(self, username: str, password: str) -> int:  # noqa: ARG002
        self.passwords.append(password)
        if "password" not in self.methods:
            return paramiko.AUTH_FAILED
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL if self.rounds else paramiko.AUTH_SUCCESSFUL

    def check_auth_interactive(self, username: str, submethods: str) -> Any:  # noqa: ARG002
        return self._ask(0)

    def check_auth_interactive_response(self, responses: list[str]) -> Any:
        self.answers.append(responses)
        return self._ask(len(self.answers)) if len(self.answers) < len(self.rounds) else paramiko.AUTH_SUCCESSFUL

    def _ask(self, number: int) -> paramiko.InteractiveQuery:
        return paramiko.InteractiveQuery("a title", "some words", *self.rounds[number])


@contextmanager
def serving(server: Sshd) -> Iterator[Sshd]:
    """Run the server on a port of loopback, for the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    accepted: list[paramiko.Transport] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            transport = paramiko.Transport(connection)
            transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = PATIENCE
            for name, value in server.security.items():
                setattr(transport, name, value)
            for key in server.keys:
                transport.add_server_key(key)
            accepted.append(transport)
            transport.start_server(event=threading.Event(), server=server)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE)
        for transport in accepted:
            transport.close()
