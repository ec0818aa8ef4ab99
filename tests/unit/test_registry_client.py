"""A registry asked through a host: logins, tokens, redirects, proxies, and a host that must ask with its own curl."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from registry_network import (
    ANN,
    BASIC,
    DIGEST,
    FOUND,
    REGISTRY,
    UNKNOWN,
    NewNetwork,
    Request,
    network_fixture,  # noqa: F401
    reply,
)

from ctr_ferry.errors import ConnectionLost
from ctr_ferry.oci.descriptor import OCI_INDEX
from ctr_ferry.oci.registry import Challenge, Registry, RegistryState
from ctr_ferry.registry import client, curl
from ctr_ferry.registry.client import Client
from ctr_ferry.registry.http import Reply
from ctr_ferry.shell import Answer
from ctr_ferry.ssh.connection import Connection
from ctr_ferry.ssh.forward import RegistryStateError


def test_a_manifest_is_found_by_one_head_request(network: NewNetwork) -> None:
    made = network(lambda _: FOUND)
    found = made.client().find("a/b", "1")
    assert found == DIGEST
    ((method, target, headers),) = made.asked
    assert (method, target) == ("HEAD", "/v2/a/b/manifests/1")
    assert OCI_INDEX in headers["accept"]
    assert headers["host"] == "r.example:5000"
    assert "authorization" not in headers


def missing(request: Request, body: str = UNKNOWN) -> str:
    """A registry's answer that there is nothing."""
    return reply("404 Not Found", body="" if request[0] == "HEAD" else body)


@pytest.mark.parametrize("head", ["404 Not Found", "405 Method Not Allowed"])
@pytest.mark.parametrize("code", ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"])
def test_a_manifest_that_the_registry_itself_reports_missing_is_none(network: NewNetwork, head: str, code: str) -> None:
    body = json.dumps({"errors": [{"code": code}]})
    made = network(lambda r: reply(head) if r[0] == "HEAD" else missing(r, body))
    assert made.client().find("a", "1") is None


@pytest.mark.parametrize("head", ["404 Not Found", "405 Method Not Allowed"])
@pytest.mark.parametrize(
    "body", ["", "<html>", "[]", "{}", '{"errors": 5}', '{"errors": []}', '{"errors": ["MANIFEST_UNKNOWN"]}',
             '{"errors": [{"code": "DENIED"}]}', '{"errors": [{"code": "MANIFEST_UNKNOWN"}, {"code": ["x"]}]}'],
)  # fmt: skip
def test_another_404_does_not_mean_that_there_is_nothing(network: NewNetwork, head: str, body: str) -> None:
    with pytest.raises(RegistryStateError) as caught:
        network(lambda r: reply(head) if r[0] == "HEAD" else missing(r, body)).client().find("a", "1")
    assert caught.value.state is RegistryState.UNCLEAR


def test_a_manifest_that_head_finds_is_not_missing_by_get(network: NewNetwork) -> None:
    with pytest.raises(RegistryStateError) as caught:
        network(lambda r: reply("200 OK") if r[0] == "HEAD" else missing(r)).client().find("a", "1")
    assert caught.value.state is RegistryState.UNCLEAR


def test_a_manifest_that_head_does_not_find_may_be_found_by_get(network: NewNetwork) -> None:
    made = network(lambda r: reply("404 Not Found") if r[0] == "HEAD" else reply("200 OK", body="{}"))
    assert made.client().find("a", "1") == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"


@pytest.mark.parametrize("place", ["/elsewhere", "http://s.example/v2/a/manifests/1"])
def test_a_server_that_the_registry_redirects_to_cannot_say_that_there_is_nothing(
    network: NewNetwork, place: str
) -> None:
    def serve(request: Request) -> str:
        here = request[1].startswith("/v2/") and request[2]["host"] == "r.example:5000"
        return reply("302 Found", f"Location: {place}") if here else missing(request)

    with pytest.raises(RegistryStateError) as caught:
        network(serve).client().find("a", "1")
    assert caught.value.state is RegistryState.UNCLEAR


def test_a_tag_of_any_type_is_found(network: NewNetwork) -> None:
    made = network(lambda r: FOUND if "v1+prettyjws" in r[2]["accept"] and "*/*" in r[2]["accept"] else missing(r))
    assert made.client().find("a", "1") == DIGEST


def test_without_a_digest_header_the_manifest_itself_is_read(network: NewNetwork) -> None:
    body = '{"schemaVersion": 2}'
    made = network(lambda r: reply("200 OK", body=body if r[0] == "GET" else ""))
    found = made.client().find("a", "1")
    assert found == f"sha256:{hashlib.sha256(body.encode()).hexdigest()}"


def test_a_login_is_sent_only_where_it_is_asked_for_and_then_kept(network: NewNetwork) -> None:
    def serve(request: Request) -> str:
        if request[2].get("authorization") == BASIC:
            return FOUND
        return reply("401 Unauthorized", 'WWW-Authenticate: Basic realm="r"')

    made = network(serve)
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


def test_a_token_is_fetched_where_the_registry_says(network: NewNetwork) -> None:
    made = network(token_service)
    assert made.client(ANN).find("a", "1")
    registry, service = ("r.example", 5000), ("t.example", 5001)
    assert made.reached == [registry, service, registry, service, registry]
    method, target, headers = made.asked[1]
    assert (method, target) == ("GET", "/token?service=r&scope=repository%3Aa%3Apull")
    assert "authorization" not in headers
    assert made.asked[3][2]["authorization"] == BASIC


def test_a_login_is_neither_read_nor_sent_where_an_anonymous_token_suffices(network: NewNetwork) -> None:
    def serve(request: Request) -> str:
        return FOUND if request[2].get("authorization") == "Bearer anonymous" else token_service(request)

    made = network(serve)
    client = Client(made.host, REGISTRY, lambda: pytest.fail("it was read"))
    assert client.find("a", "1")
    assert client.login is None
    assert BASIC not in [each[2].get("authorization") for each in made.asked]


def test_a_login_that_the_inventory_names_is_sent_without_an_anonymous_try(network: NewNetwork) -> None:
    made = network(token_service)
    client = Client(made.host, replace(REGISTRY, username=ANN.username, password_env="P"), lambda: ANN)
    assert client.find("a", "1") and client.login == ANN
    sent = [each[2].get("authorization") for each in made.asked if each[1].startswith("/token")]
    assert sent == [BASIC]


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "429 Too Many Requests", "401 Unauthorized"])
def test_a_request_refused_to_an_anonymous_token_is_repeated_with_the_login(network: NewNetwork, status: str) -> None:
    def serve(request: Request) -> str:
        return reply(status) if request[2].get("authorization") == "Bearer anonymous" else token_service(request)

    client = network(serve).client(ANN)
    if status.startswith("401"):  # without a challenge, the client cannot log in
        with pytest.raises(RegistryStateError):
            client.find("a", "1")
    else:
        assert client.find("a", "1")
        assert client.login == ANN


def test_a_token_service_without_anonymous_tokens_gets_the_login(network: NewNetwork) -> None:
    def serve(request: Request) -> str:
        nobody = request[1].startswith("/token") and "authorization" not in request[2]
        return reply("401 Unauthorized") if nobody else token_service(request)

    assert network(serve).client(ANN).find("a", "1")


@pytest.mark.parametrize("together", [True, False])
def test_of_two_ways_to_log_in_a_token_comes_first(network: NewNetwork, *, together: bool) -> None:
    def serve(request: Request) -> str:
        if request[1].startswith("/token") or request[2].get("authorization") == "Bearer T":
            return token_service(request)
        ways = ['Basic realm="r"', 'Bearer realm="http://t.example:5001/token",service="r"']
        lines = [", ".join(ways)] if together else ways
        return reply("401 Unauthorized", *(f"WWW-Authenticate: {line}" for line in lines))

    made = network(serve)
    assert made.client(ANN).find("a", "1")
    assert made.reached[1] == ("t.example", 5001)


def test_without_a_login_an_anonymous_token_is_tried(network: NewNetwork) -> None:
    made = network(token_service)
    with pytest.raises(RegistryStateError) as caught:
        made.client().find("a", "1")
    assert caught.value.state is RegistryState.UNAUTHORIZED
    assert made.asked[-1][2]["authorization"] == "Bearer anonymous"


@pytest.mark.parametrize("way", ["basic", "bearer", "unasked"])
def test_after_a_login_the_registry_shows_what_it_hides_from_others(network: NewNetwork, way: str) -> None:
    def serve(request: Request) -> str:
        _, target, headers = request
        if target.startswith("/token") or headers.get("authorization") == ("Bearer T" if way == "bearer" else BASIC):
            return token_service(request) if way == "bearer" else FOUND
        if target != "/v2/":
            return missing(request)
        asks = {"basic": 'Basic realm="r"', "bearer": 'Bearer realm="http://t.example:5001/token",service="r"'}
        return reply("401 Unauthorized", f"WWW-Authenticate: {asks[way]}") if way in asks else reply("200 OK")

    made = network(serve)
    client = made.client(ANN)
    assert client.find("a", "1") is None
    client.log_in("a")
    assert client.find("a", "1") == DIGEST and client.login == ANN
    if way == "bearer":
        (asked,) = [target for _, target, _ in made.asked if target.startswith("/token")]
        assert "scope=repository%3Aa%3Apull" in asked


def test_a_token_service_that_refuses_the_login_is_named(network: NewNetwork) -> None:
    made = network(lambda request: token_service(request, right="Basic other"))
    with pytest.raises(RegistryStateError) as caught:
        made.client(ANN).find("a", "1")
    assert caught.value.state is RegistryState.UNAUTHORIZED
    assert "token service http://t.example:5001/token" in caught.value.detail
    assert "s3cret" not in caught.value.detail


def test_a_login_inside_tls_never_goes_to_a_token_service_without_tls(network: NewNetwork) -> None:
    made = network(token_service)
    client = made.client(ANN, Registry("r.example:5000"))
    client.login = ANN
    client._token(Challenge("Bearer", {"realm": "http://t.example:5001/token"}))
    assert "authorization" not in made.asked[0][2]


class TestATokenServiceWithoutTls:
    PLAIN = 'Bearer realm="http://t.example/token",service="r",scope="repository:a:pull"'

    @pytest.mark.parametrize("realm", ["http://t.example/token", "HTTP://t.example/token"])
    @pytest.mark.parametrize("other", ["", 'Basic realm="r", ', 'Bearer realm="https://u.example/token", '])
    def test_of_a_registry_with_tls_gets_no_login_in_any_way(
        self, network: NewNetwork, monkeypatch: pytest.MonkeyPatch, realm: str, other: str
    ) -> None:
        challenge = f'{other}Bearer realm="{realm}",service="r"'
        client, sent = self.client(network, monkeypatch, lambda _: challenge)
        with pytest.raises(RegistryStateError) as caught:
            client.find("a", "1")
        assert (caught.value.state, caught.value.detail) == (RegistryState.PLAIN_TOKENS, f"token service {realm}")
        assert BASIC not in sent

    def test_is_remembered_where_an_anonymous_request_gets_an_answer(
        self, network: NewNetwork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client, sent = self.client(network, monkeypatch, lambda login: "" if login or sent[1:] else self.PLAIN)
        client.find("a", "1")
        with pytest.raises(RegistryStateError) as caught:
            client.log_in("a")  # as before ctr gets the login
        assert caught.value.state is RegistryState.PLAIN_TOKENS
        assert BASIC not in sent

    def client(
        self, network: NewNetwork, monkeypatch: pytest.MonkeyPatch, challenge_for: Callable[[str], str]
    ) -> tuple[Client, list[str]]:
        """The client of an https registry, and the Authorization headers that it has sent."""
        client, sent = network(lambda _: "").client(ANN, Registry("r.example")), list[str]()

        def once(_: str, url: str, headers: Mapping[str, str]) -> Reply:
            sent.append(headers.get("Authorization", ""))
            if "/token" in url:
                return Reply(200, "OK", {}, b'{"token": "anonymous"}')
            if challenge := challenge_for(sent[-1]):
                return Reply(401, "Unauthorized", {"www-authenticate": challenge})
            return Reply(200, "OK", {"docker-content-digest": DIGEST})

        monkeypatch.setattr(client._requests, "_once", once)
        return client, sent


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
def test_other_answers_are_told_apart(network: NewNetwork, answer: str, state: RegistryState) -> None:
    made = network(lambda _: answer)
    made.host.transport.open_channel, plain = None, made.host.transport.open_channel
    made.host.transport.open_channel = lambda *a, **k: _ending(plain(*a, **k), answer)
    with pytest.raises(RegistryStateError) as caught:
        made.client(ANN).find("a", "1")
    assert caught.value.state is state


def _ending(channel: socket.socket, answer: str) -> Any:
    """A connection that ends where there is no answer."""
    if answer:
        return channel
    return SimpleNamespace(recv=lambda _: b"", send=channel.send, settimeout=lambda _: None, close=channel.close)


def test_a_redirect_is_followed_without_the_login(network: NewNetwork) -> None:
    def serve(request: Request) -> str:
        if request[2]["host"] == "store.example":
            return FOUND
        if "authorization" not in request[2]:
            return reply("401 Unauthorized", 'WWW-Authenticate: Basic realm="r"')
        return reply("307 Temporary Redirect", "Location: http://store.example/x?y=1")

    made = network(serve)
    assert made.client(ANN).find("a", "1")
    assert made.asked[-1][:2] == ("HEAD", "/x?y=1")
    assert "authorization" not in made.asked[-1][2]


@pytest.mark.parametrize("token", ['x"\nurl = "http://evil.example/', "a b", "a\x04", "tök"])
def test_a_malformed_token_is_refused(network: NewNetwork, token: str) -> None:
    def serve(request: Request) -> str:
        if request[2]["host"].startswith("t.example"):
            return reply("200 OK", "Content-Type: application/json", body=json.dumps({"token": token}))
        return reply("401 Unauthorized", 'WWW-Authenticate: Bearer realm="http://t.example:5001/token",service="r"')

    made = network(serve)
    with pytest.raises(RegistryStateError) as caught:
        made.client(ANN).find("a", "1")
    assert caught.value.state is RegistryState.FAILED
    assert "malformed token" in caught.value.detail


@pytest.mark.parametrize("place", ["http://s.example:x/", "http://[s/", "ftp://s.example/", "http://s.example:0/"])
def test_a_malformed_address_is_named(network: NewNetwork, place: str) -> None:
    def service(_: Request) -> str:
        return reply("401 Unauthorized", f'WWW-Authenticate: Bearer realm="{place}"')

    for serve in (lambda _: reply("302 Found", f"Location: {place}"), service):
        with pytest.raises(RegistryStateError) as caught:
            network(serve).client(ANN).find("a", "1")
        assert caught.value.state is RegistryState.NO_REGISTRY
        assert "it sends to" in caught.value.detail


@pytest.mark.parametrize(("place", "kept"), [("https://r.example/b", True), ("http://r.example/b", False)])
def test_a_redirect_takes_a_login_inside_tls_nowhere_else(
    network: NewNetwork, monkeypatch: pytest.MonkeyPatch, place: str, kept: bool
) -> None:
    client, asked = network(lambda _: "").client(ANN, Registry("r.example")), []

    def once(_: str, url: str, headers: Mapping[str, str]) -> Reply:
        asked.append((url, "Authorization" in headers))
        if "Authorization" not in headers and url.endswith("/1"):
            return Reply(401, "Unauthorized", {"www-authenticate": 'Basic realm="r"'})
        return Reply(307, "Temporary Redirect", {"location": place}) if url.endswith("/1") else Reply(404, "Not Found")

    monkeypatch.setattr(client._requests, "_once", once)
    with pytest.raises(RegistryStateError):
        client.find("a", "1")
    assert asked[-1] == (place, kept)


def test_a_lost_host_is_reported_as_such_and_not_as_a_silent_registry(network: NewNetwork) -> None:
    made = network(lambda _: "")
    made.host.is_lost = True
    made.host.lost_connection = partial(Connection.lost_connection, SimpleNamespace(name="node1", fault=""))
    with pytest.raises(ConnectionLost, match="node1"):
        made.client().find("a", "1")


def test_redirects_end(network: NewNetwork) -> None:
    made = network(lambda _: reply("302 Found", "Location: /again"))
    with pytest.raises(RegistryStateError) as caught:
        made.client().find("a", "1")
    assert caught.value.state is RegistryState.NO_REGISTRY
    assert len(made.asked) < 10


def test_a_proxy_gets_the_whole_address(network: NewNetwork) -> None:
    made = network(lambda _: FOUND, proxy="http://p.example:3128")
    assert made.client().find("a", "1")
    assert made.reached == [("p.example", 3128)]
    assert made.asked[0][1] == "http://r.example:5000/v2/a/manifests/1"


def test_a_proxy_that_refuses_a_tunnel_is_named(network: NewNetwork) -> None:
    made = network(lambda _: reply("403 Forbidden"), proxy="http://p.example:3128")
    with pytest.raises(RegistryStateError) as caught:
        made.client(registry=Registry("r.example")).find("a", "1")
    assert "the proxy says 403" in caught.value.detail
    assert made.asked[0][:2] == ("CONNECT", "r.example:443")


def test_the_host_itself_is_reached_without_a_proxy(network: NewNetwork) -> None:
    made = network(lambda _: FOUND, proxy="http://p.example:3128")
    made.client(registry=Registry("127.0.0.1:5000", scheme="http")).find("a", "1")
    assert made.reached == [("127.0.0.1", 5000)]


def test_blobs_are_asked_for_on_one_connection(network: NewNetwork) -> None:
    made = network(lambda r: reply("200 OK" if r[1].endswith("a") else "404 Not Found"))
    client = made.client()
    with client.connected():
        assert client.present("x", ["sha256:a", "sha256:b"]) == {"sha256:a"}
    assert len(made.reached) == 1


def test_blobs_are_asked_for_in_bounded_time(network: NewNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert network(lambda _: reply("200 OK")).client().present("x", [f"sha256:{n}" for n in range(20)]) is None


def test_blobs_that_the_registry_does_not_tell_are_none(network: NewNetwork) -> None:
    assert network(lambda _: reply("403 Forbidden")).client().present("x", ["sha256:a"]) is None


class TestAHostThatForwardsNothing:
    def test_asks_with_curl_and_the_login_is_typed(self, network: NewNetwork) -> None:
        made = network(lambda _: FOUND, forwards=False)
        answers = [b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=r\r\n\r\n", FOUND.encode()]
        made.curl = lambda _: Answer(0, b"curl\n" + answers.pop(0), "")
        assert made.client(ANN).find("a", "1")
        assert made.typed == [curl.typed(BASIC)]
        first, second = made.scripts
        assert "--config" not in first and "wget" in first
        assert "--config /dev/pts/9" in second and "wget" not in second
        assert not any("s3cret" in text or BASIC in text for text in made.scripts)

    def test_without_a_tool_is_not_checked(self, network: NewNetwork) -> None:
        with pytest.raises(RegistryStateError) as caught:
            network(lambda _: FOUND, forwards=False).client().find("a", "1")
        assert caught.value.state is RegistryState.NOT_CHECKED
