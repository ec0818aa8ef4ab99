"""`fab doctor` reports registries as the host sees them."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from doctoring import (
    Hosts,
    doctor,
    hosts_fixture,  # noqa: F401
    seen,
)
from ferry import Fab
from registry_scene import key_without_forwarding

from lab.certificates import Authority
from lab.fleet import Node


def server_context(authority: Authority, address: str, days: int = 10) -> ssl.SSLContext:
    """Return a server's context with a certificate for an address, valid for some days from now."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(authority.issue(authority.file.with_name(f"{address}-{days}.pem"), [address], days))
    return made


class Registry(NamedTuple):
    """What plays a registry on loopback."""

    server: ThreadingHTTPServer

    @property
    def name(self) -> str:
        """Return its address and port."""
        host, port = self.server.server_address[:2]
        return f"{host!s}:{port}"


Serve = Callable[..., Registry]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A CA that nobody knows."""
    return Authority(tmp_path / "ca.pem")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts registries that answer GET /v2/ with a status."""
    servers: list[ThreadingHTTPServer] = []

    def serve(status: int = 200, context: ssl.SSLContext | None = None) -> Registry:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(status if self.path == "/v2/" else 418)
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="test"')
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass

            def get_request(self) -> tuple[socket.socket, Any]:
                plain, address = super().get_request()
                return (context.wrap_socket(plain, server_side=True) if context else plain), address

        server = Server(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Registry(server)

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def registries(fab: Fab, hosts: Hosts, given: dict[str, dict[str, Any]], **more: Any) -> dict[str, tuple[str, str]]:
    """Return health and text of each registry as node3 sees it."""
    found = seen(doctor(fab, "n", inventory=hosts(ctr_registries=given, **more)), "n")
    return {name: (found[f"registry {name}"]["status"], found[f"registry {name}"]["message"]) for name in given}


class TestRegistries:
    def test_are_reported_as_the_host_sees_them(
        self, fab: Fab, hosts: Hosts, serve: Serve, authority: Authority
    ) -> None:
        ca = {"ca_file": str(authority.file)}
        good, login = server_context(authority, "127.0.0.1"), server_context(authority, "127.0.0.1")
        plain, tls, asks, odd = serve(), serve(200, good), serve(401, login), serve(404)
        with socket.create_server(("127.0.0.1", 0)) as closed:
            refused = f"127.0.0.1:{closed.getsockname()[1]}"
        expired = serve(200, server_context(authority, "127.0.0.1", -1))
        wrong = serve(200, server_context(authority, "127.0.0.9"))
        unknown, unchecked, no_tls = serve(200, good), serve(200, good), serve()
        found = registries(fab, hosts, {
            plain.name: {"scheme": "http"},
            tls.name: ca,
            asks.name: ca,
            odd.name: {"scheme": "http"},
            refused: {"scheme": "http"},
            "no-such-host.invalid:5000": {"scheme": "http"},
            expired.name: ca,
            wrong.name: ca,
            unknown.name: {},
            unchecked.name: {"skip_verify": True},
            no_tls.name: {},
        })  # fmt: skip
        assert found == {
            plain.name: ("ok", "reachable"),
            tls.name: ("ok", "reachable"),
            asks.name: ("ok", "reachable, needs a login (Basic)"),
            odd.name: ("fail", found[odd.name][1]),
            refused: ("fail", "it refuses the connection (Connection refused)"),
            "no-such-host.invalid:5000": ("fail", found["no-such-host.invalid:5000"][1]),
            expired.name: ("fail", "its certificate has expired (certificate has expired)"),
            wrong.name: ("fail", found[wrong.name][1]),
            unknown.name: ("fail", found[unknown.name][1]),
            unchecked.name: ("ok", "reachable"),
            no_tls.name: ("fail", found[no_tls.name][1]),
        }
        assert "404" in found[odd.name][1]
        assert "does not resolve" in found["no-such-host.invalid:5000"][1]
        assert "for another name" in found[wrong.name][1]
        assert "signed by an unknown CA" in found[unknown.name][1]
        assert "does not speak TLS" in found[no_tls.name][1]

    def test_that_never_answer_are_given_up(self, fab: Fab, hosts: Hosts) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            name = f"127.0.0.1:{silent.getsockname()[1]}"
            found = registries(fab, hosts, {name: {}})
        assert found[name][0] == "fail"
        assert "no answer" in found[name][1] and "10 s" in found[name][1]

    def test_are_not_checked_where_sshd_forbids_it(
        self, fab: Fab, hosts: Hosts, serve: Serve, node3: Node, tmp_path: Path
    ) -> None:
        name = serve().name
        with key_without_forwarding(node3, tmp_path / "key") as key:
            found = registries(fab, hosts, {name: {"scheme": "http"}}, ansible_ssh_private_key_file=str(key))
        assert found[name][0] == "warn"
        assert found[name][1].startswith("not checked")
