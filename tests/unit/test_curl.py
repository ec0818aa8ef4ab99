"""Requests by the host's own curl or wget: what is typed for curl, and how the output is read; challenges, too."""

from __future__ import annotations

import pytest

from ctr_ferry.oci.registry import Challenge, RegistryState
from ctr_ferry.registry import curl
from ctr_ferry.shell import Answer


def test_the_text_typed_for_curl_is_one_word_of_its_configuration() -> None:
    assert curl.typed("Bearer a.b-c=").startswith('header = "Authorization: Bearer a.b-c="\n')
    long = f"Bearer {'x' * 30_000}"
    lines = curl.typed(long).split("\n")
    assert "".join(lines) == f'header = "Authorization: {long}"\x04' and max(map(len, lines)) < 4096
    with pytest.raises(ValueError, match="login header"):
        curl.typed('Bearer x"\noutput = "/etc/x')


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
        (Answer(18, b"curl\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "curl: (18) transfer closed"),
         RegistryState.BROKEN_OFF),
        (Answer(56, b"curl\nHTTP/1.1 403 Forbidden\r\n\r\n", "curl: (56) CONNECT tunnel failed, response 403"),
         RegistryState.NO_ANSWER),
        (Answer(60, b"curl\nHTTP/1.1 200 Connection established\r\n\r\n", "curl: (60) unable to get local issuer"),
         RegistryState.UNKNOWN_CA),
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
        ('Bearer, Basic realm="b"', "Basic", {"realm": "b"}),  # without a realm there is no token service
        ("Negotiate, NTLM TlRM/+==, basic realm = b", "basic", {"realm": "b"}),
        (r'Digest a="\", Bearer realm=\"x", Basic realm="\"b\""', "Basic", {"realm": '"b"'}),
        ('Bearer realm="https://t', "Bearer", {"realm": ""}),  # cut off
        ('realm="x"', "", {}),
        (f'Bearer realm="https://{"t" * 10_000}"', "", {}),
    ],
)  # fmt: skip
def test_a_challenge_is_read_as_registries_write_it(header: str, scheme: str, parameters: dict[str, str]) -> None:
    assert Challenge.parse(header) == Challenge(scheme, parameters)
