"""A registry is asked where it redirects to, through a proxy, or by the host's own curl."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from registry_network import (
    ANN,
    BASIC,
    FOUND,
    NewNetwork,
    Request,
    missing,
    network_fixture,  # noqa: F401
    reply,
)

from ctr_ferry.oci.registry import Registry, RegistryState, RegistryStateError
from ctr_ferry.registry import curl
from ctr_ferry.registry.http import Reply
from ctr_ferry.shell import Answer


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


@pytest.mark.parametrize("place", ["http://s.example:x/", "http://[s/", "ftp://s.example/", "http://s.example:0/"])
def test_a_malformed_address_is_named(network: NewNetwork, place: str) -> None:
    def service(_: Request) -> str:
        return reply("401 Unauthorized", f'WWW-Authenticate: Bearer realm="{place}"')

    for serve in (lambda _: reply("302 Found", f"Location: {place}"), service):
        with pytest.raises(RegistryStateError) as caught:
            network(serve).client(ANN).find("a", "1")
        assert caught.value.state is RegistryState.NO_REGISTRY
        assert "it sends to" in caught.value.detail


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
    made = network(lambda _: reply("403 Forbidden", body="why"), proxy="http://p.example:3128")
    with pytest.raises(RegistryStateError) as caught:
        made.client(registry=Registry("r.example")).find("a", "1")
    assert "the proxy says 403" in caught.value.detail
    assert made.asked[0][:2] == ("CONNECT", "r.example:443")


def test_the_host_itself_is_reached_without_a_proxy(network: NewNetwork) -> None:
    made = network(lambda _: FOUND, proxy="http://p.example:3128")
    made.client(registry=Registry("127.0.0.1:5000", scheme="http")).find("a", "1")
    assert made.reached == [("127.0.0.1", 5000)]


class TestAHostThatForwardsNothing:
    def test_asks_with_curl_and_the_login_is_typed(self, network: NewNetwork) -> None:
        made = network(lambda _: FOUND, forwards=False)
        answers = [b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=r\r\n\r\n", FOUND.encode()]
        made.curl = lambda _: Answer(0, b"curl\n" + answers.pop(0), "")
        assert made.client(ANN).find("a", "1")
        assert made.typed == [curl.typed(BASIC)]
        first, second = made.scripts
        assert "--config" not in first and "wget" in first
        assert "tr -d '\\n' </dev/pts/9 | " in second and "wget" not in second
        assert not any("s3cret" in text or BASIC in text for text in made.scripts)

    def test_without_a_tool_is_not_checked(self, network: NewNetwork) -> None:
        with pytest.raises(RegistryStateError) as caught:
            network(lambda _: FOUND, forwards=False).client().find("a", "1")
        assert caught.value.state is RegistryState.NOT_CHECKED
