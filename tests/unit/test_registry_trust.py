"""Which certificates a login needs: those of ca_file or of this machine. The host's own certificates do not suffice."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from registry_network import ANN, BASIC, DIGEST, FOUND, Network, Request, reply

from ctr_ferry.oci.registry import Registry, RegistryState, RegistryStateError
from ctr_ferry.registry import http
from ctr_ferry.shell import Answer, Script
from lab.certificates import Authority

WANTS_BASIC = reply("401 Unauthorized", 'WWW-Authenticate: Basic realm="r"')
WANTS_TOKEN = reply("401 Unauthorized", 'WWW-Authenticate: Bearer realm="https://t.example/token",service="r"')
TOKEN = reply("200 OK", body='{"token": "T"}')


@dataclass
class Trust:
    """Two CAs: ours, whose certificate is the ca_file, and one that only the host trusts.

    Attributes:
        bundle: the host's bundle, which has the other CA.
        pems: keys and certificates of servers, by the CA that signed them (``ours`` or ``host``).
    """

    ca_file: str
    bundle: bytes
    pems: dict[str, Path]


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    folder = tmp_path_factory.mktemp("trust")
    ours, theirs = Authority(folder / "ours.pem", "ours"), Authority(folder / "theirs.pem", "the host's")
    names = ("r.example", "t.example")
    pems = {who: each.issue(folder / f"{who}-server", names) for who, each in (("ours", ours), ("host", theirs))}
    return Trust(str(ours.file), theirs.file.read_bytes(), pems)


class TlsNetwork(Network):
    """A host whose bundle has one more CA. Every server speaks TLS, with a certificate of one of the two CAs."""

    def __init__(self, serve: Callable[[Request], str], trust: Trust, signed: dict[str, str], **more: Any) -> None:
        super().__init__(serve, **more)
        self._trust, self._signed = trust, signed

    def _serve(self, its: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._trust.pems[self._signed[self.reached[-1][0]]])
        with contextlib.suppress(OSError), context.wrap_socket(its, server_side=True) as secure:
            super()._serve(secure)

    def _ask(self, script: Script, **more: object) -> dict[str, Answer]:
        if "bundle" in script.steps:
            return {"bundle": Answer(0, self._trust.bundle, "")}
        return super()._ask(script, **more)

    @property
    def logins(self) -> list[Request]:
        """The requests with a login, or with a token that was got by a login."""
        return [each for each in self.asked if each[2].get("authorization", "Bearer nobody") != "Bearer nobody"]


NewNetwork = Callable[..., TlsNetwork]


@pytest.fixture
def network(trust: Trust) -> Iterator[NewNetwork]:
    made: list[TlsNetwork] = []

    def make(serve: Callable[[Request], str], **signed: str) -> TlsNetwork:
        made.append(TlsNetwork(serve, trust, {f"{name}.example": who for name, who in signed.items()}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def basic(asked: Request) -> str:
    return FOUND if asked[2].get("authorization") == BASIC else WANTS_BASIC


def bearer(asked: Request) -> str:
    """A registry and its token service. A request without a login gets a token that allows nothing."""
    authorization = asked[2].get("authorization", "")
    if asked[1].startswith("/token"):
        return TOKEN if authorization == BASIC else reply("200 OK", body='{"token": "nobody"}')
    return FOUND if authorization == "Bearer T" else WANTS_TOKEN


def described(trust: Trust, *, ca_file: bool) -> Registry:
    return Registry("r.example", ca_file=trust.ca_file if ca_file else None)


@pytest.mark.parametrize(
    ("serve", "signed", "ca_file"),
    [
        (basic, {"r": "host"}, True),
        (basic, {"r": "host"}, False),
        (bearer, {"r": "host", "t": "host"}, False),
        (bearer, {"r": "host", "t": "ours"}, True),  # only the host trusts the registry, which names the token service
        (bearer, {"r": "ours", "t": "host"}, True),
    ],
)
def test_a_login_never_goes_to_a_server_that_only_the_host_trusts(
    network: NewNetwork, trust: Trust, *, ca_file: bool, serve: Callable[[Request], str], signed: dict[str, str]
) -> None:
    made = network(serve, **signed)
    with pytest.raises(RegistryStateError) as caught:
        made.client(ANN, described(trust, ca_file=ca_file)).find("a", "1")
    assert caught.value.state is RegistryState.UNKNOWN_CA
    assert "the host's own CAs do not count" in caught.value.detail
    assert made.logins == []


def test_a_bundle_that_can_be_read_only_in_part_counts_for_no_login_either(network: NewNetwork, trust: Trust) -> None:
    made = network(bearer, r="ours", t="host")
    made._trust = replace(
        trust, bundle=trust.bundle + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    with pytest.raises(RegistryStateError):
        made.client(ANN, described(trust, ca_file=True)).find("a", "1")
    assert made.logins == []


@pytest.mark.parametrize("serve", [basic, bearer])
def test_a_login_goes_to_a_server_that_ca_file_covers(
    network: NewNetwork, trust: Trust, serve: Callable[[Request], str]
) -> None:
    made = network(serve, r="ours", t="ours")
    found = made.client(ANN, described(trust, ca_file=True)).find("a", "1")
    assert found == DIGEST
    assert made.logins


def test_a_login_goes_to_a_token_service_that_this_machine_trusts(
    network: NewNetwork, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = trust.bundle.decode()
    monkeypatch.setattr(
        ssl.SSLContext, "load_default_certs", lambda context: context.load_verify_locations(cadata=trusted)
    )
    made = network(bearer, r="ours", t="host")
    made._trust = replace(trust, bundle=b"")
    assert made.client(ANN, described(trust, ca_file=True)).find("a", "1")


@pytest.mark.parametrize("serve", [lambda _: FOUND, bearer])
def test_requests_without_a_login_trust_the_hosts_cas(
    network: NewNetwork, trust: Trust, serve: Callable[[Request], str]
) -> None:
    def open_to_all(asked: Request) -> str:
        return FOUND if asked[2].get("authorization") == "Bearer nobody" else serve(asked)

    made = network(open_to_all, r="host", t="host")
    assert made.client(ANN, described(trust, ca_file=True)).find("a", "1")
    assert made.logins == []


def test_a_login_uses_no_connection_that_only_the_host_trusts(network: NewNetwork, trust: Trust) -> None:
    answers = [FOUND, WANTS_BASIC, *[FOUND] * 9]
    made = network(lambda _: answers.pop(0), r="host")
    client = made.client(ANN, described(trust, ca_file=True))
    with closing(client):
        assert client.find("a", "1")
        with pytest.raises(RegistryStateError):
            client.find("a", "2")
    assert made.logins == []


class TestAHostThatAsksWithCurl:
    def test_trusts_only_our_certificates_where_a_login_is_sent(self, trust: Trust) -> None:
        made = Network(lambda _: "", forwards=False)
        answers = [*[WANTS_BASIC] * 2, FOUND]
        made.curl = lambda _: Answer(0, b"curl\n" + answers.pop(0).encode(), "")
        assert made.client(ANN, described(trust, ca_file=True)).find("a", "1")
        first, again, last = made.scripts
        assert "ca-certificates.crt" in first and "--capath" not in first
        for text in (again, last):  # the challenge itself is asked for once more
            assert "ca-certificates.crt" not in text
            assert '--cacert "$authorities" --capath ' in text
        assert "--config" in last and "--config" not in again

    def test_trusts_this_machine_where_there_is_no_ca_file(self, trust: Trust, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http, "_of_this_machine", lambda: b"our bundle")
        made = Network(lambda _: "", forwards=False)
        answers = [*[WANTS_BASIC] * 2, FOUND]
        made.curl = lambda _: Answer(0, b"curl\n" + answers.pop(0).encode(), "")
        assert made.client(ANN, described(trust, ca_file=False)).find("a", "1")
        assert "our bundle" not in made.scripts[0] and "our bundle" in made.scripts[-1]
