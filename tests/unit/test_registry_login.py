"""A registry or its token service gets a login only where the login is asked for and safe."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from registry_network import (
    ANN,
    BASIC,
    DIGEST,
    FOUND,
    REGISTRY,
    NewNetwork,
    Request,
    missing,
    network_fixture,  # noqa: F401
    reply,
)

from ctr_ferry.oci.registry import Challenge, Login, Registry, RegistryState, RegistryStateError
from ctr_ferry.registry.client import Client
from ctr_ferry.registry.http import Reply


def test_a_login_is_sent_only_where_it_is_asked_for_and_then_kept(network: NewNetwork) -> None:
    def serve(request: Request) -> str:
        if request[2].get("authorization") == BASIC:
            return FOUND
        return reply("401 Unauthorized", 'WWW-Authenticate: Basic realm="r"')

    made = network(serve)
    client = made.client(ANN)
    with closing(client):
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
    assert made.reached == [registry, service]  # one connection to each, kept
    method, target, headers = made.asked[1]
    assert (method, target) == ("GET", "/token?service=r&scope=repository%3Aa%3Apull")
    assert "authorization" not in headers
    assert made.asked[3][2]["authorization"] == BASIC


@pytest.mark.parametrize("login", [ANN, None])
def test_each_repository_gets_its_own_token_and_keeps_it(network: NewNetwork, login: Login | None) -> None:
    def serve(request: Request) -> str:
        _, target, headers = request
        sent = headers.get("authorization", "")
        if target.startswith("/token"):
            repository = parse_qs(urlsplit(target).query)["scope"][0].split(":")[1]
            return reply("200 OK", body=json.dumps({"token": f"{repository}-{'ann' if sent == BASIC else 'nobody'}"}))
        wanted = target.split("/")[2]
        if sent.startswith(f"Bearer {wanted}-"):
            return FOUND
        if sent:  # as some registries answer to a token of another repository
            return reply("403 Forbidden")
        realm = 'WWW-Authenticate: Bearer realm="http://t.example:5001/token",service="r",scope="repository:'
        return reply("401 Unauthorized", f'{realm}{wanted}:pull"')

    made = network(serve)
    registry = replace(REGISTRY, username=ANN.username, password_env="P") if login else REGISTRY
    client = made.client(login, registry)
    with closing(client):
        assert [client.find(name, "1") for name in ("a", "b", "a", "b")] == [DIGEST] * 4
    assert len(made.reached) == 2  # one connection to the registry, one to the token service
    assert sum(target.startswith("/token") for _, target, _ in made.asked) == 2


def test_after_a_login_no_repository_keeps_its_anonymous_token(network: NewNetwork) -> None:
    def serve(request: Request) -> str:
        _, target, headers = request
        if target.startswith("/v2/secret/") and headers.get("authorization") == "Bearer anonymous":
            return missing(request)  # it hides what others may not see
        if target.startswith("/v2/open/") and headers.get("authorization") == "Bearer anonymous":
            return FOUND
        return token_service(request)

    client = network(serve).client(ANN)
    assert client.find("open", "1") and client.login is None
    assert client.find("secret", "1") == DIGEST and client.login == ANN
    client.log_in("open")
    assert client._authorization == "Bearer T"


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


@pytest.mark.parametrize(("realm", "refused"), [("http://t.example/token", True), ("https://t.example/token", False)])
def test_a_registry_that_anybody_may_read_is_asked_where_the_login_of_a_push_would_go(
    network: NewNetwork, monkeypatch: pytest.MonkeyPatch, realm: str, *, refused: bool
) -> None:
    client, asked = network(lambda _: "").client(ANN, Registry("r.example")), []

    def once(method: str, url: str, headers: Mapping[str, str]) -> Reply:
        asked.append((method, url, "Authorization" in headers))
        if method == "POST":
            return Reply(401, "Unauthorized", {"www-authenticate": f'Bearer realm="{realm}"'})
        return Reply(200, "OK", {"docker-content-digest": DIGEST})

    monkeypatch.setattr(client._requests, "_once", once)
    assert client.find("a", "1")
    if refused:
        with pytest.raises(RegistryStateError) as caught:
            client.refuse_plain_tokens_of_pushes("a")
        assert caught.value.state is RegistryState.PLAIN_TOKENS
    else:
        client.refuse_plain_tokens_of_pushes("a")
    assert asked[-1] == ("POST", "https://r.example/v2/a/blobs/uploads/", False)


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
