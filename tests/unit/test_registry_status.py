"""A registry's state is known by its answer, by sshd's refusal, or by its silence; each state has words."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from ctr_ferry.ctr.health import Health
from ctr_ferry.oci.registry import Registry, RegistryState
from ctr_ferry.registry import http
from ctr_ferry.registry import status as registries
from ctr_ferry.ssh.target import Target
from ctr_ferry.ssh.transport import Transport


class Plain:
    """A paramiko channel's few words, over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.recv, self.send, self.settimeout, self.close = sock.recv, sock.send, sock.settimeout, sock.close


@contextmanager
def answering(*answers: bytes) -> Iterator[Any]:
    """A host through which a registry answers so."""
    ours, its = socket.socketpair()

    def serve() -> None:
        its.recv(4096)
        for answer in answers:
            its.sendall(answer)
        its.close()

    thread = threading.Thread(target=serve)
    thread.start()
    transport = SimpleNamespace(open_failure="", open_channel=lambda *_, **__: Plain(ours))
    yield SimpleNamespace(open=lambda: None, is_lost=False, transport=transport, target=Target("a", "a"))
    thread.join()
    ours.close()


HTTP = Registry("r.example:5000", scheme="http")


def said(state: RegistryState, detail: str = "") -> str:
    return f"{state.words} ({detail})" if detail else state.words


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a registry that hangs takes longer."""
    monkeypatch.setattr(registries, "LIMIT", 60.0)
    monkeypatch.setattr(registries, "_ALL", 60.0)


class TestRegistries:
    @pytest.mark.parametrize(
        ("answers", "state", "text"),
        [
            ((b"HTTP/1.1 200 OK\r\n", b"A: b\r\n\r\n{}"), RegistryState.OPEN, ""),
            ((b"HTTP/1.1 401 No\r\nWWW-authenticate:  Bearer realm=x\r\n\r\n",), RegistryState.LOGIN, "Bearer"),
            ((b"HTTP/1.1 404 Not Found\r\n\r\n",), RegistryState.NO_REGISTRY, "404 Not Found at /v2/"),
            (
                (b"HTTP/1.0 400 Bad Request\r\n\r\n", b"Client sent an HTTP request to an HTTPS server.\n"),
                RegistryState.WANTS_TLS,
                "400 Bad Request",
            ),
            (
                (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", b"<html>"),
                RegistryState.NO_REGISTRY,
                "200 OK with a page for people at /v2/",
            ),
            (
                (b"HTTP/1.1 400 Bad Request\r\n\r\n", b'{"errors": [{"code": "DENIED", "message": "not you"}]}'),
                RegistryState.REJECTED,
                "400 Bad Request: DENIED: not you",
            ),
            ((b"SSH-2.0-OpenSSH\x1b[31m\r\n",), RegistryState.NO_REGISTRY, "SSH-2.0-OpenSSH"),
            ((), RegistryState.NO_ANSWER, ""),
            ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",), RegistryState.BROKEN_OFF, ""),
            ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}",), RegistryState.BROKEN_OFF, ""),
        ],
    )
    def test_are_known_by_their_answer(self, answers: tuple[bytes, ...], state: RegistryState, text: str) -> None:
        with answering(*answers) as host:
            (registry_status,) = registries.inspect(host, [HTTP])
        assert registry_status.message == said(state, text)

    def test_that_speak_no_tls_are_recognized(self) -> None:
        with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as host:
            (registry_status,) = registries.inspect(host, [Registry("r.example")])
        assert registry_status.message.startswith(f"{RegistryState.NO_TLS.words} (")

    def test_a_ca_file_that_cannot_be_read_is_reported(self) -> None:
        (registry_status,) = registries.inspect(
            SimpleNamespace(target=Target("a", "a")), [Registry("r.example", ca_file="/nowhere.pem")]
        )  # type: ignore[arg-type]
        assert registry_status.message.startswith(f"{RegistryState.CA_FILE.words} (/nowhere.pem")

    @pytest.mark.parametrize(
        ("code", "detail", "state"),
        [
            (1, "open failed", RegistryState.NOT_CHECKED),
            (3, "", RegistryState.NOT_CHECKED),
            (2, "Connection refused", RegistryState.REFUSED),
            (2, "unknown host (Name or service not known)", RegistryState.UNRESOLVED),
            (2, "Connection timed out", RegistryState.NO_ANSWER),
            (2, "No route to host", RegistryState.NO_ANSWER),
        ],
    )
    def test_refusals_are_distinguished_by_sshds_words(self, code: int, detail: str, state: RegistryState) -> None:
        def refuse(*_: object, **__: object) -> None:
            message = paramiko.Message()
            for number in (3, code):
                message.add_int(number)
            for text in (detail, "en"):
                message.add_string(text)
            transport._parse_channel_open_failure(paramiko.Message(message.asbytes()))
            raise transport.saved_exception

        ours, theirs = socket.socketpair()
        transport: Any = Transport(ours)
        transport.open_channel = refuse
        (registry_status,) = registries.inspect(
            SimpleNamespace(open=lambda: None, is_lost=False, transport=transport, target=Target("a", "a")), [HTTP]
        )  # type: ignore[arg-type]
        assert registry_status.message == said(state, detail)
        ours.close()
        theirs.close()

    def test_time_is_bounded_for_all_of_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registries, "_ALL", 0.0)
        registry_statuses = registries.inspect(SimpleNamespace(target=Target("a", "a")), [HTTP, HTTP])  # type: ignore[arg-type]
        assert [each.message for each in registry_statuses] == [said(RegistryState.NO_TIME)] * 2

    def test_each_has_words_and_a_severity(self) -> None:
        for state in RegistryState:
            found = registries.RegistryStatus.of(HTTP, state)
            assert bool(found.hint) == (found.status is not Health.OK), state

    @pytest.mark.parametrize(
        ("name", "scheme", "host", "port"),
        [
            ("r.example", "https", "r.example", 443),
            ("r.example", "http", "r.example", 80),
            ("10.0.0.1:5000", "http", "10.0.0.1", 5000),
            ("[::1]:5000", "http", "::1", 5000),
            ("[::1]", "https", "::1", 443),
            ("docker.io", "https", "registry-1.docker.io", 443),
        ],
    )
    def test_addresses(self, name: str, scheme: str, host: str, port: int) -> None:
        registry = Registry(name, scheme=scheme)
        assert http._address(http.parts_of(registry.url)) == (host, port)

    def test_certificates_are_checked_unless_told_otherwise(self) -> None:
        strict, lax = http.context(Registry("r")), http.context(Registry("r", skip_verify=True))
        assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert lax.verify_mode == ssl.CERT_NONE
