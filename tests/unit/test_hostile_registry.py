"""A hostile answer of a registry, a token service or a tool, up to a megabyte, ends only that registry, and soon."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
from collections.abc import Callable
from typing import Any

import pytest
from registry_network import ANN, DIGEST, REGISTRY, Network, Request, reply

from ctr_ferry.oci.reference import is_digest
from ctr_ferry.oci.registry import Challenge, RegistryState, RegistryStateError, headers
from ctr_ferry.registry import client, curl, http, status
from ctr_ferry.shell import Answer

MIB = 1 << 20
CPU = 20  # seconds of the processor, so many times what it takes: only what never ends takes longer
LONG = 65_000  # of one header line; http.client takes no longer one
TEXTS = [
    " ",
    "\t",
    "a",
    "a ",
    "a=",
    'a="',
    '"',
    '\\"',
    '="\\',
    ",",
    ", ",
    "=",
    "a =",
    'a="b",',
    "Basic ",
    "é",
    "\x1b[",
    "../",
    "a.",
]


def ended(work: Callable[..., Any], *given: Any) -> None:
    """Fails if the work does not end well. It has a process of its own: no thread can stop a regular expression.

    The processor's seconds are bounded, not the clock's, however busy the machine is.
    """

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))
        work(*given)

    child = multiprocessing.get_context("fork").Process(target=bounded)
    child.start()
    try:
        child.join()
    finally:
        child.kill()
        child.join()
    assert child.exitcode != -signal.SIGKILL, "it does not end"
    assert child.exitcode == 0


def filled(text: str, size: int = MIB) -> str:
    return text * (size // len(text))


@pytest.mark.parametrize("bounded", [True, False])
def test_challenges_are_read_in_one_pass(monkeypatch: pytest.MonkeyPatch, *, bounded: bool) -> None:
    if not bounded:
        monkeypatch.setattr("ctr_ferry.oci.registry._LONGEST", MIB)

    def read() -> None:
        for text in TEXTS:
            Challenge.parse(f"Bearer {filled(text, MIB if bounded else LONG)}")

    ended(read)


def test_headers_have_bounds() -> None:
    assert headers([("A", "1"), ("a", "2")]) == {"a": "2"}
    assert headers([("WWW-Authenticate", "Basic"), ("www-authenticate", "Bearer")]) == {
        "www-authenticate": "Basic, Bearer"
    }
    assert headers([("a", "b")] * MIB) is None
    assert headers([("a", filled("b"))]) is None


def states(answer: str, *, token: str = "") -> list[str]:
    """The states, in words, of a registry that answers every request so, or whose token service does."""

    def serve(request: Request) -> str:
        if not token or request[1].startswith("/token"):
            return token or answer
        return reply("401 Unauthorized", 'WWW-Authenticate: Bearer realm="http://t.example/token"')

    network, state = Network(serve), []
    try:
        try:
            found = network.client(ANN).find("a", "1")
            assert found is None or is_digest(found)
        except RegistryStateError as error:
            state.append(error.state.words)
            assert len(error.detail) < 1000
        (registry_status,) = status.inspect(network.host, [REGISTRY], lambda _: ANN)
        assert len(registry_status.auth) < 100 and len(registry_status.message) < 1000
        return [*state, registry_status.message.partition(" (")[0]]
    finally:
        network.close()


ANSWERS: dict[str, str] = {
    "no end of a first line": filled("x"),
    "no end of a header": f"HTTP/1.1 200 OK\r\nA: {filled('x')}",
    "no end of headers": "HTTP/1.1 200 OK\r\n" + filled("a: b\r\n"),
    "headers of all sizes": reply("401 No", *[f"WWW-Authenticate: {filled('a ', LONG)}"] * 20),
    "a size of all digits": reply("200 OK", f"Docker-Content-Digest: {DIGEST}", f"Content-Length: {'9' * LONG}"),
    "a size that is too large": reply("200 OK", f"Docker-Content-Digest: {DIGEST}", f"Content-Length: {10**20}"),
    "chunks without end": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + "f" * LONG + "\r\n" + filled("x"),
    "a status of its own": "HTTP/1.1 99999 OK\r\n\r\n",
    "many continues": filled("HTTP/1.1 100 Continue\r\n\r\n"),
    **{f"a challenge of {text!r}": reply("401 No", f"WWW-Authenticate: Bearer {filled(text, LONG)}") for text in TEXTS},
    **{
        f"a way to {place[:12]}": reply("302 Found", f"Location: {place}")
        for place in ("http://a..b/", "http://.a/", "http://é/", "/é", "http://a b/", "http://a:99999/", "http://[::1/",
                      "http://u:p@a/", f"http://{'a' * 64}/", filled("../", LONG), f"http://{filled('a.', LONG)}",
                      "http://a/\x1b", "//", "?", "http:///x")
    },
}  # fmt: skip
TOKENS: dict[str, str] = {
    "deep": filled("["),
    "deep objects": filled('{"token":'),
    "a number of all digits": "9" * MIB,
    "an object of them": '{"token": ' + "9" * MIB + "}",
    "a list": "[]",
    "a text": '"token"',
    "a token that is a number": '{"token": 5}',
    "a token that is deep": json.dumps({"token": {"token": ["x"]}}),
    "a token without end": json.dumps({"token": filled("x")}),
    "another encoding": '{"token": "\\ud800"}',
    "nothing": "",
}


def set_limit(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Registries get so many seconds for an answer rather than ten."""
    monkeypatch.setattr(status, "LIMIT", seconds)
    monkeypatch.setitem(client.Client.__init__.__kwdefaults__, "limit", seconds)


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_hostile_answer_ends_at_most_that_registry(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    set_limit(monkeypatch, 1.0)  # many answers have no end
    ended(states, ANSWERS[answer])


@pytest.mark.parametrize("body", TOKENS)
def test_a_hostile_token_service_ends_at_most_that_registry(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    set_limit(monkeypatch, 60.0)

    def meet() -> None:
        assert RegistryState.FAILED.words in states("", token=reply("200 OK", body=TOKENS[body]))

    ended(meet)


def test_the_output_of_curl_and_wget_is_read_in_one_pass() -> None:
    texts = [
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 OK\n",
        "a: b\n",
        "  a: b\n",
        "\n",
        "curl: (",
        "curl: (1",
        "host ",
        " ",
        '"',
    ]

    def read() -> None:
        for text in texts:
            detail = f"HTTP/1.1 200 OK\n{filled(text)}"
            curl.read(Answer(0, f"curl\n{detail}".encode(), ""))
            answer = Answer(60, b"wget\n", filled(text))
            curl.read(answer)
            assert len(curl.last_words(answer)) <= MIB + 20

    ended(read)


def test_a_tool_that_prints_too_much_is_ended() -> None:
    bounded = http._Bounded()
    assert bounded.hear(b"x" * http.MOST) + bounded.end() == b"x" * http.MOST
    with pytest.raises(RegistryStateError) as caught:
        bounded.hear(b"x" * MIB)
    assert caught.value.state is RegistryState.NO_REGISTRY
