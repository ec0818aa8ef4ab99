"""A registry tells through a host what it has, and its other answers are told apart."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from registry_network import (
    ANN,
    DIGEST,
    FOUND,
    NewNetwork,
    Request,
    missing,
    network_fixture,  # noqa: F401
    reply,
)

from ctr_ferry.errors import ConnectionLost
from ctr_ferry.oci.descriptor import OCI_INDEX
from ctr_ferry.oci.registry import RegistryState, RegistryStateError
from ctr_ferry.registry import client
from ctr_ferry.ssh.host import Host


def test_a_manifest_is_found_by_one_head_request(network: NewNetwork) -> None:
    made = network(lambda _: FOUND)
    found = made.client().find("a/b", "1")
    assert found == DIGEST
    ((method, target, headers),) = made.asked
    assert (method, target) == ("HEAD", "/v2/a/b/manifests/1")
    assert OCI_INDEX in headers["accept"]
    assert headers["host"] == "r.example:5000"
    assert "authorization" not in headers


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


def test_a_tag_of_any_type_is_found(network: NewNetwork) -> None:
    made = network(lambda r: FOUND if "v1+prettyjws" in r[2]["accept"] and "*/*" in r[2]["accept"] else missing(r))
    assert made.client().find("a", "1") == DIGEST


def test_without_a_digest_header_the_manifest_itself_is_read(network: NewNetwork) -> None:
    body = '{"schemaVersion": 2}'
    made = network(lambda r: reply("200 OK", body=body if r[0] == "GET" else ""))
    found = made.client().find("a", "1")
    assert found == f"sha256:{hashlib.sha256(body.encode()).hexdigest()}"


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (reply("403 Forbidden"), RegistryState.DENIED),
        (reply("503 Service Unavailable"), RegistryState.FAILED),
        (reply("429 Too Many Requests"), RegistryState.RATE_LIMITED),
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


PAGE = reply("200 OK", "Content-Type: text/html; charset=utf-8", body="<html>Sign in</html>")


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: PAGE,
        lambda _: reply("200 OK", body="<!doctype html>"),
        lambda r: PAGE if r[1] == "/login" else reply("302 Found", "Location: /login"),
    ],
)
def test_a_page_for_people_is_no_manifest(network: NewNetwork, answer: Callable[[Request], str]) -> None:
    with pytest.raises(RegistryStateError) as caught:
        network(lambda r: answer(r).partition("<")[0] if r[0] == "HEAD" else answer(r)).client().find("a", "1")
    assert caught.value.state is RegistryState.NO_REGISTRY


@pytest.mark.parametrize(
    ("status", "code", "message", "state"),
    [
        ("400 Bad Request", "NAME_INVALID", "project is missing", RegistryState.REJECTED),
        ("405 Method Not Allowed", "UNSUPPORTED", "read only", RegistryState.NO_PUSH),
        ("412 Precondition Failed", "PROJECTPOLICYVIOLATION", "5 vulnerabilities", RegistryState.RULE),
        ("403 Forbidden", "DENIED", "requested access is denied", RegistryState.DENIED),
    ],
)
def test_a_registrys_own_words_are_read_and_kept(
    network: NewNetwork, status: str, code: str, message: str, state: RegistryState
) -> None:
    body = json.dumps({"errors": [{"code": code, "message": message}, 5, {"code": "X", "message": None}]})
    with pytest.raises(RegistryStateError) as caught:
        network(lambda r: reply(status, body="" if r[0] == "HEAD" else body)).client().find("a", "1")
    assert (caught.value.state, caught.value.detail) == (state, f"{status}: {code}: {message}; X")


@pytest.mark.parametrize(("asked", "wait"), [("3600", 3600), ("Wed, 21 Oct 2026 07:28:00 GMT", 0), ("9" * 5000, 0)])
def test_how_long_a_registry_asks_to_wait_is_kept(network: NewNetwork, asked: str, wait: int) -> None:
    with pytest.raises(RegistryStateError) as caught:
        network(lambda _: reply("429 Too Many Requests", f"Retry-After: {asked}")).client().find("a", "1")
    assert caught.value.wait == wait
    assert caught.value.detail == f"429 Too Many Requests (Retry-After: {asked[:40]})"


def test_a_manifest_that_the_registry_may_not_give_now_is_not_missing(network: NewNetwork) -> None:
    assert network(missing).client().read("a", "1") == b""
    with pytest.raises(RegistryStateError) as caught:
        network(lambda _: reply("429 Too Many Requests")).client().read("a", "1")
    assert caught.value.state is RegistryState.RATE_LIMITED


def _ending(channel: socket.socket, answer: str) -> Any:
    """A connection that ends where there is no answer."""
    if answer:
        return channel
    return SimpleNamespace(recv=lambda _: b"", send=channel.send, settimeout=lambda _: None, close=channel.close)


def test_a_lost_host_is_reported_as_such_and_not_as_a_silent_registry(network: NewNetwork) -> None:
    made = network(lambda _: "")
    plain = made.host.transport.open_channel
    made.host.transport.open_channel = lambda *a, **k: _ending(plain(*a, **k), "")
    made.host.is_lost = True
    node1 = SimpleNamespace(name="node1", connection=SimpleNamespace(fault=""))
    made.host.lost_connection = partial(Host.lost_connection, cast(Any, node1))
    with pytest.raises(ConnectionLost, match="node1"):
        made.client().find("a", "1")


def test_a_kept_connection_that_the_server_has_closed_meanwhile_is_replaced_once(network: NewNetwork) -> None:
    made = network(lambda _: FOUND)
    client = made.client()
    with closing(client):
        assert client.find("a", "1")
        made.hang_up()
        assert client.find("b", "1")
        assert len(made.reached) == 2
        made.hang_up()
        plain = made.host.transport.open_channel
        made.host.transport.open_channel = lambda *a, **k: _ending(plain(*a, **k), "")
        with pytest.raises(RegistryStateError) as caught:
            client.find("c", "1")
    assert caught.value.state is RegistryState.NO_ANSWER


def test_blobs_are_asked_for_on_one_connection(network: NewNetwork) -> None:
    made = network(lambda r: reply("200 OK" if r[1].endswith("a") else "404 Not Found"))
    client = made.client()
    with closing(client):
        assert client.present("x", ["sha256:a", "sha256:b"]) == {"sha256:a"}
    assert len(made.reached) == 1


def test_blobs_are_asked_for_in_bounded_time(network: NewNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert network(lambda _: reply("200 OK")).client().present("x", [f"sha256:{n}" for n in range(20)]) is None


def test_blobs_that_the_registry_does_not_tell_are_none(network: NewNetwork) -> None:
    assert network(lambda _: reply("403 Forbidden")).client().present("x", ["sha256:a"]) is None
