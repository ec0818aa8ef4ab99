"""A registry asked through a host: logins, tokens, redirects, proxies, and a host that must ask by itself."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from ctr_ferry.errors import ConnectionLost
from ctr_ferry.oci.descriptor import OCI_INDEX
from ctr_ferry.oci.registry import Challenge, Login, Registries, Registry, RegistryState
from ctr_ferry.registry import client, curl
from ctr_ferry.registry.client import Client
from ctr_ferry.registry.http import Reply
from ctr_ferry.secrets import Secret
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.connection import Connection
from ctr_ferry.ssh.forward import RegistryStateError
from ctr_ferry.ssh.target import Target

DIGEST = f"sha256:{'d' * 64}"
REGISTRY = Registry("r.example:5000", scheme="http")
ANN = Login("ann", Secret("s3cret"))
BASIC = "Basic " + base64.b64encode(b"ann:s3cret").decode()
FOUND = f"HTTP/1.1 200 OK\r\nDocker-Content-Digest: {DIGEST}\r\nContent-Length: 42\r\nContent-Type: {OCI_INDEX}\r\n\r\n"
Request = tuple[str, str, dict[str, str]]  # method, target, headers in lower case
Serve = Callable[[Request], str]


class World:
    """What a host can reach: every connection is served by one function, and noted."""

    def __init__(self, serve: Serve, *, proxy: str | None = None, forwards: bool = True) -> None:
        self.serve, self.forwards = serve, forwards
        self.reached: list[tuple[str, int]] = []
        self.asked: list[Request] = []
        self.scripts: list[str] = []
        self.typed: list[str] = []
        self.curl: Callable[[str], Answer] = lambda _: Answer(127, b"", "")
        self._open: list[socket.socket] = []
        transport = SimpleNamespace(
            get_log_channel=lambda: "x", set_log_channel=lambda _: None, open_channel=self._connect
        )
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

    def close(self) -> None:
        for each in self._open:
            each.close()


Make = Callable[..., World]


@pytest.fixture
def world() -> Iterator[Make]:
    made: list[World] = []

    def make(serve: Serve, **more: Any) -> World:
        made.append(World(serve, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def reply(status: str, *headers: str, body: str = "") -> str:
    return "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body))


def test_a_manifest_is_known_by_one_head(world: Make) -> None:
    made = world(lambda _: FOUND)
    found = made.client().find("a/b", "1")
    assert found and (found.digest, found.size, found.media_type) == (DIGEST, 42, OCI_INDEX)
    ((method, target, headers),) = made.asked
    assert (method, target) == ("HEAD", "/v2/a/b/manifests/1")
    assert OCI_INDEX in headers["accept"]
    assert headers["host"] == "r.example:5000"
    assert "authorization" not in headers


def test_what_is_not_there_is_none(world: Make) -> None:
    assert world(lambda _: reply("404 Not Found")).client().find("a", "1") is None


def test_a_registry_that_names_no_digest_is_asked_for_the_manifest_itself(world: Make) -> None:
    body = '{"schemaVersion": 2}'
    made = world(lambda r: reply("200 OK", body=body if r[0] == "GET" else ""))
    found = made.client().find("a", "1")
    assert found and found.digest == f"sha256:{hashlib.sha256(body.encode()).hexdigest()}"
    assert found.size == len(body)


def test_a_login_is_given_only_where_it_is_asked_for_and_kept(world: Make) -> None:
    def serve(request: Request) -> str:
        if request[2].get("authorization") == BASIC:
            return FOUND
        return reply("401 Unauthorized", 'WWW-Authenticate: Basic realm="r"')

    made = world(serve)
    client = made.client(ANN)
    with client.connected():
        assert client.find("a", "1")
        assert client.find("a", "2")
    assert [request[2].get("authorization") for request in made.asked] == [None, BASIC, BASIC]
    assert len(made.reached) == 1


def token_service(request: Request, *, right: str = BASIC) -> str:
    _, target, headers = request
    if target.startswith("/token"):
        if headers.get("authorization") not in (right, None):
            return reply("401 Unauthorized")
        return reply("200 OK", body=json.dumps({"token": "T" if headers.get("authorization") else "anonymous"}))
    if headers.get("authorization") == "Bearer T":
        return FOUND
    realm = 'WWW-Authenticate: Bearer realm="http://t.example:5001/token",service="r",scope="repository:a:pull"'
    return reply("401 Unauthorized", realm)


def test_a_token_is_fetched_where_the_registry_says(world: Make) -> None:
    made = world(token_service)
    assert made.client(ANN).find("a", "1")
    registry, service = ("r.example", 5000), ("t.example", 5001)
    assert made.reached == [registry, service, registry, service, registry]
    method, target, headers = made.asked[1]
    assert (method, target) == ("GET", "/token?service=r&scope=repository%3Aa%3Apull")
    assert "authorization" not in headers
    assert made.asked[3][2]["authorization"] == BASIC


def test_a_login_is_neither_read_nor_given_where_a_token_for_nobody_does(world: Make) -> None:
    def serve(request: Request) -> str:
        return FOUND if request[2].get("authorization") == "Bearer anonymous" else token_service(request)

    made = world(serve)
    client = Client(made.host, REGISTRY, lambda: pytest.fail("it was read"))
    assert client.find("a", "1")
    assert client.login is None
    assert BASIC not in [each[2].get("authorization") for each in made.asked]


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "429 Too Many Requests", "401 Unauthorized"])
def test_what_a_token_for_nobody_is_refused_a_login_may_be_told(world: Make, status: str) -> None:
    def serve(request: Request) -> str:
        return reply(status) if request[2].get("authorization") == "Bearer anonymous" else token_service(request)

    client = world(serve).client(ANN)
    if status.startswith("401"):  # without a challenge nobody knows what it wants
        with pytest.raises(RegistryStateError):
            client.find("a", "1")
    else:
        assert client.find("a", "1")
        assert client.login == ANN


def test_a_token_service_that_gives_nothing_to_nobody_is_given_the_login(world: Make) -> None:
    def serve(request: Request) -> str:
        nobody = request[1].startswith("/token") and "authorization" not in request[2]
        return reply("401 Unauthorized") if nobody else token_service(request)

    assert world(serve).client(ANN).find("a", "1")


@pytest.mark.parametrize("together", [True, False])
def test_of_two_ways_to_log_in_a_token_comes_first(world: Make, *, together: bool) -> None:
    def serve(request: Request) -> str:
        if request[1].startswith("/token") or request[2].get("authorization") == "Bearer T":
            return token_service(request)
        ways = ['Basic realm="r"', 'Bearer realm="http://t.example:5001/token",service="r"']
        lines = [", ".join(ways)] if together else ways
        return reply("401 Unauthorized", *(f"WWW-Authenticate: {line}" for line in lines))

    made = world(serve)
    assert made.client(ANN).find("a", "1")
    assert made.reached[1] == ("t.example", 5001)


def test_without_a_login_a_token_for_nobody_is_tried(world: Make) -> None:
    made = world(token_service)
    with pytest.raises(RegistryStateError) as caught:
        made.client().find("a", "1")
    assert caught.value.state is RegistryState.UNAUTHORIZED
    assert made.asked[-1][2]["authorization"] == "Bearer anonymous"


def test_a_token_service_that_refuses_the_login_is_told(world: Make) -> None:
    made = world(lambda request: token_service(request, right="Basic other"))
    with pytest.raises(RegistryStateError) as caught:
        made.client(ANN).find("a", "1")
    assert caught.value.state is RegistryState.UNAUTHORIZED
    assert "token service http://t.example:5001/token" in caught.value.detail
    assert "s3cret" not in caught.value.detail


def test_a_login_inside_tls_never_goes_to_a_token_service_without(world: Make) -> None:
    made = world(token_service)
    client = made.client(ANN, Registry("r.example:5000"))
    client.login = ANN
    client._token(Challenge("Bearer", {"realm": "http://t.example:5001/token"}))
    assert "authorization" not in made.asked[0][2]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (reply("403 Forbidden"), RegistryState.DENIED),
        (reply("503 Service Unavailable"), RegistryState.FAILED),
        (reply("429 Too Many Requests"), RegistryState.FAILED),
        (reply("400 Bad Request"), RegistryState.WANTS_TLS),
        (reply("418 Teapot"), RegistryState.NO_REGISTRY),
        (reply("401 Unauthorized", 'WWW-Authenticate: Basic realm="r"'), RegistryState.UNAUTHORIZED),
        ("SSH-2.0-OpenSSH\r\n", RegistryState.NO_REGISTRY),
        ("", RegistryState.NO_ANSWER),
    ],
)
def test_other_answers_are_told_apart(world: Make, answer: str, state: RegistryState) -> None:
    made = world(lambda _: answer)
    made.host.transport.open_channel, plain = None, made.host.transport.open_channel
    made.host.transport.open_channel = lambda *a, **k: _ending(plain(*a, **k), answer)
    with pytest.raises(RegistryStateError) as caught:
        made.client(ANN).find("a", "1")
    assert caught.value.state is state


def _ending(channel: socket.socket, answer: str) -> Any:
    """A connection that ends where there is no answer."""
    if answer:
        return channel
    return SimpleNamespace(recv=lambda _: b"", sendall=channel.sendall, settimeout=lambda _: None, close=channel.close)


def test_a_redirect_is_followed_without_the_login(world: Make) -> None:
    def serve(request: Request) -> str:
        if request[2]["host"] == "store.example":
            return FOUND
        if "authorization" not in request[2]:
            return reply("401 Unauthorized", 'WWW-Authenticate: Basic realm="r"')
        return reply("307 Temporary Redirect", "Location: http://store.example/x?y=1")

    made = world(serve)
    assert made.client(ANN).find("a", "1")
    assert made.asked[-1][:2] == ("HEAD", "/x?y=1")
    assert "authorization" not in made.asked[-1][2]


@pytest.mark.parametrize("token", ['x"\nurl = "http://evil.example/', "a b", "a\x04", "tök"])
def test_a_token_that_is_none_is_refused(world: Make, token: str) -> None:
    def serve(request: Request) -> str:
        if request[2]["host"].startswith("t.example"):
            return reply("200 OK", "Content-Type: application/json", body=json.dumps({"token": token}))
        return reply("401 Unauthorized", 'WWW-Authenticate: Bearer realm="http://t.example:5001/token",service="r"')

    made = world(serve)
    with pytest.raises(RegistryStateError) as caught:
        made.client(ANN).find("a", "1")
    assert caught.value.state is RegistryState.FAILED
    assert "malformed token" in caught.value.detail


def test_what_curl_is_typed_is_one_word_of_its_configuration() -> None:
    assert curl.typed("Bearer a.b-c=").startswith('header = "Authorization: Bearer a.b-c="\n')
    with pytest.raises(ValueError, match="login header"):
        curl.typed('Bearer x"\noutput = "/etc/x')


@pytest.mark.parametrize("place", ["http://s.example:x/", "http://[s/", "ftp://s.example/", "http://s.example:0/"])
def test_a_way_to_nowhere_is_told(world: Make, place: str) -> None:
    def service(_: Request) -> str:
        return reply("401 Unauthorized", f'WWW-Authenticate: Bearer realm="{place}"')

    for serve in (lambda _: reply("302 Found", f"Location: {place}"), service):
        with pytest.raises(RegistryStateError) as caught:
            world(serve).client(ANN).find("a", "1")
        assert caught.value.state is RegistryState.NO_REGISTRY
        assert "it sends to" in caught.value.detail


@pytest.mark.parametrize(("place", "kept"), [("https://r.example/b", True), ("http://r.example/b", False)])
def test_a_login_inside_tls_stays_inside(world: Make, monkeypatch: pytest.MonkeyPatch, place: str, kept: bool) -> None:
    client, asked = world(lambda _: "").client(ANN, Registry("r.example")), []

    def once(_: str, url: str, headers: Mapping[str, str]) -> Reply:
        asked.append((url, "Authorization" in headers))
        if "Authorization" not in headers and url.endswith("/1"):
            return Reply(401, "Unauthorized", {"www-authenticate": 'Basic realm="r"'})
        return Reply(307, "Temporary Redirect", {"location": place}) if url.endswith("/1") else Reply(404, "Not Found")

    monkeypatch.setattr(client._requests, "_once", once)
    assert client.find("a", "1") is None
    assert asked[-1] == (place, kept)


def test_a_host_that_is_lost_is_no_registry_that_does_not_answer(world: Make) -> None:
    made = world(lambda _: "")
    made.host.is_lost = True
    made.host.lost_connection = partial(Connection.lost_connection, SimpleNamespace(name="node1"))
    with pytest.raises(ConnectionLost, match="node1"):
        made.client().find("a", "1")


def test_redirects_end(world: Make) -> None:
    made = world(lambda _: reply("302 Found", "Location: /again"))
    with pytest.raises(RegistryStateError) as caught:
        made.client().find("a", "1")
    assert caught.value.state is RegistryState.NO_REGISTRY
    assert len(made.asked) < 10


def test_a_proxy_gets_the_whole_address(world: Make) -> None:
    made = world(lambda _: FOUND, proxy="http://p.example:3128")
    assert made.client().find("a", "1")
    assert made.reached == [("p.example", 3128)]
    assert made.asked[0][1] == "http://r.example:5000/v2/a/manifests/1"


def test_a_proxy_that_refuses_a_tunnel_is_told(world: Make) -> None:
    made = world(lambda _: reply("403 Forbidden"), proxy="http://p.example:3128")
    with pytest.raises(RegistryStateError) as caught:
        made.client(registry=Registry("r.example")).find("a", "1")
    assert "the proxy says 403" in caught.value.detail
    assert made.asked[0][:2] == ("CONNECT", "r.example:443")


def test_the_host_itself_is_reached_without_a_proxy(world: Make) -> None:
    made = world(lambda _: FOUND, proxy="http://p.example:3128")
    made.client(registry=Registry("127.0.0.1:5000", scheme="http")).find("a", "1")
    assert made.reached == [("127.0.0.1", 5000)]


def test_blobs_are_asked_for_on_one_connection(world: Make) -> None:
    made = world(lambda r: reply("200 OK" if r[1].endswith("a") else "404 Not Found"))
    client = made.client()
    with client.connected():
        assert client.present("x", ["sha256:a", "sha256:b"]) == {"sha256:a"}
    assert len(made.reached) == 1


def test_blobs_are_asked_for_in_bounded_time(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert world(lambda _: reply("200 OK")).client().present("x", [f"sha256:{n}" for n in range(20)]) is None


def test_what_cannot_be_known_of_blobs_is_none(world: Make) -> None:
    assert world(lambda _: reply("403 Forbidden")).client().present("x", ["sha256:a"]) is None


class TestAHostThatForwardsNothing:
    def test_asks_by_itself_and_is_typed_the_login(self, world: Make) -> None:
        made = world(lambda _: FOUND, forwards=False)
        answers = [b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=r\r\n\r\n", FOUND.encode()]
        made.curl = lambda _: Answer(0, b"curl\n" + answers.pop(0), "")
        assert made.client(ANN).find("a", "1")
        assert made.typed == [curl.typed(BASIC)]
        first, second = made.scripts
        assert "--config" not in first and "wget" in first
        assert "--config /dev/pts/9" in second and "wget" not in second
        assert not any("s3cret" in text or BASIC in text for text in made.scripts)

    def test_without_a_tool_is_not_checked(self, world: Make) -> None:
        with pytest.raises(RegistryStateError) as caught:
            world(lambda _: FOUND, forwards=False).client().find("a", "1")
        assert caught.value.state is RegistryState.NOT_CHECKED


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(6, b"curl\n", "curl: (6) Could not resolve host: r"), RegistryState.UNRESOLVED),
        (Answer(7, b"curl\n", "curl: (7) Failed to connect to r port 5000"), RegistryState.REFUSED),
        (Answer(28, b"curl\n", "curl: (28) Connection timed out"), RegistryState.NO_ANSWER),
        (Answer(60, b"curl\n", "curl: (60) SSL certificate problem: certificate has expired\nMore"),
         RegistryState.EXPIRED),
        (Answer(60, b"curl\n", "curl: (60) SSL certificate problem: unable to get local issuer certificate"),
         RegistryState.UNKNOWN_CA),
        (Answer(60, b"curl\n", "curl: (60) SSL: no alternative certificate subject name matches target"),
         RegistryState.WRONG_NAME),
        (Answer(35, b"curl\n", "curl: (35) error:0A00010B:SSL routines::wrong version number"), RegistryState.NO_TLS),
        (Answer(127, b"", ""), RegistryState.NOT_CHECKED),
        (Answer(4, b"wget\n", "wget: unable to resolve host address 'r'"), RegistryState.UNRESOLVED),
        (Answer(5, b"wget\n", "ERROR: The certificate of 'r' is not trusted."), RegistryState.UNKNOWN_CA),
    ],
)  # fmt: skip
def test_a_tools_failure_is_understood(answer: Answer, state: RegistryState) -> None:
    assert curl.read(answer) is state


def test_what_a_tool_fetched_is_read() -> None:
    through_proxy = b"curl\nHTTP/1.1 200 Connection established\r\n\r\nHTTP/2 404 \r\nX: y\r\n\r\nbody"
    assert curl.read(Answer(0, through_proxy, "")) == (404, "", {"x": "y"}, b"body")
    by_wget = Answer(8, b"wget\n", "  HTTP/1.1 401 Unauthorized\n  Www-Authenticate: Basic realm=r\nwget: error\n")
    assert curl.read(by_wget) == (401, "Unauthorized", {"www-authenticate": "Basic realm=r"}, b"")


@pytest.mark.parametrize(
    ("header", "scheme", "parameters"),
    [
        ('Basic realm="a b"', "Basic", {"realm": "a b"}),
        ('Bearer realm="https://t/x",service="r",scope="repository:a:pull,push"', "Bearer",
         {"realm": "https://t/x", "service": "r", "scope": "repository:a:pull,push"}),
        ("bearer Realm=https://t , error=insufficient_scope", "bearer",
         {"realm": "https://t", "error": "insufficient_scope"}),
        ("", "", {}),
        ("Basic", "Basic", {}),
        ('Basic realm="b", Bearer realm="https://t",scope="repository:a:pull,push"', "Bearer",
         {"realm": "https://t", "scope": "repository:a:pull,push"}),
        ('Bearer realm="https://t", Basic realm="b"', "Bearer", {"realm": "https://t"}),
        ('Bearer, Basic realm="b"', "Basic", {"realm": "b"}),  # without a realm nobody gives tokens
        ("Negotiate, NTLM TlRM/+==, basic realm = b", "basic", {"realm": "b"}),
        (r'Digest a="\", Bearer realm=\"x", Basic realm="\"b\""', "Basic", {"realm": '"b"'}),
        ('Bearer realm="https://t', "Bearer", {"realm": ""}),  # cut off
        ('realm="x"', "", {}),
        (f'Bearer realm="https://{"t" * 10_000}"', "", {}),
    ],
)  # fmt: skip
def test_a_challenge_is_read_as_registries_write_it(header: str, scheme: str, parameters: dict[str, str]) -> None:
    assert Challenge.parse(header) == Challenge(scheme, parameters)
