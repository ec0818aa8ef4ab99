"""What ctr's words about a registry mean, for every ctr that was recorded."""

from __future__ import annotations

import pytest
from records import Record
from transfers import TRANSFERS, detail

from ctr_ferry import errors
from ctr_ferry.oci.registry import Registry, RegistryState
from ctr_ferry.registry import refusals
from ctr_ferry.registry.refusals import meaning

FAILED = [record for record in TRANSFERS if record.exit == 1]
HTTP, HTTPS = Registry("r.example:5000", scheme="http"), Registry("r.example:5000")
# By what the recorded cases are called.
EXPECTED = {
    "unresolvable host": RegistryState.UNRESOLVED,
    "connection refused": RegistryState.REFUSED,
    "accepts and never answers, ctr --timeout": RegistryState.NO_ANSWER,
    "TLS with unknown CA": RegistryState.UNKNOWN_CA,
    "https to a plain http port": RegistryState.NO_TLS,
    "--plain-http to an https port": RegistryState.WANTS_TLS,
    "no credentials": RegistryState.UNAUTHORIZED,
    "wrong password": RegistryState.UNAUTHORIZED,
    "unknown user": RegistryState.UNAUTHORIZED,
    "push wrong with --user": RegistryState.UNAUTHORIZED,
    "pull: tag missing": RegistryState.NOT_FOUND,
    "pull: repository missing": RegistryState.NOT_FOUND,
    "local does not exist": None,
    "does not exist locally": None,
    "a layer is missing locally": None,
    "two-platform image": None,
}


def expected(record: Record) -> list[RegistryState | None]:
    if "localhost name" in record.case or "TLS + auth" in record.case:
        return []  # their meaning differs by version, rightly
    if record.case.startswith("push wrong") and "ctr: " not in record.stdout:
        return []  # its last words are not in the record
    return [state for words, state in EXPECTED.items() if words in record.case]


CASES = [(record, expected(record)[0]) for record in FAILED if expected(record)]


@pytest.mark.parametrize(("record", "state"), CASES, ids=lambda value: str(value) if isinstance(value, Record) else "")
def test_every_ctrs_words_are_understood(record: Record, state: RegistryState | None) -> None:
    registry = HTTP if "--plain-http" in record.argv else HTTPS
    assert meaning(detail(record), registry) is state


def test_no_recorded_version_is_left_out() -> None:
    assert len({record.version for record, _ in CASES}) == 11
    assert len(CASES) > 150


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("x509: certificate has expired or is not yet valid: current time 2026 is after 2025", RegistryState.EXPIRED),
        ("x509: certificate is valid for other.example, not r.example", RegistryState.WRONG_NAME),
        (
            "x509: cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs",
            RegistryState.WRONG_NAME,
        ),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", RegistryState.UNKNOWN_CA),
        ("remote error: tls: handshake failure", RegistryState.TLS_FAILED),
        ("dial tcp 10.0.0.1:5000: connect: no route to host", RegistryState.NO_ANSWER),
        ("dial tcp 10.0.0.1:5000: i/o timeout", RegistryState.NO_ANSWER),
        ("net/http: TLS handshake timeout", RegistryState.NO_ANSWER),
        ("server message: insufficient_scope: authorization failed", RegistryState.DENIED),
        (
            "unexpected status from POST request to https://r:5000/v2/a/blobs/uploads/: 403 Forbidden",
            RegistryState.DENIED,
        ),
        ("unexpected response: 503 Service Unavailable", RegistryState.FAILED),
        ("unexpected status from PUT request to https://r:5000/v2/a: 429 Too Many Requests", RegistryState.FAILED),
        ("toomanyrequests: you have reached your pull rate limit", RegistryState.FAILED),
        ('failed commit on ref "manifest-sha256:0": unexpected status: 400 Bad Request', RegistryState.FAILED),
        ('failed commit on ref "manifest-sha256:0": io: read/write on closed pipe', RegistryState.FAILED),
        ('failed to do request: Put "https://r:5000/v2/a": EOF', RegistryState.BROKEN_OFF),
        ("write tcp 10.0.0.2:4->10.0.0.1:5000: write: connection reset by peer", RegistryState.BROKEN_OFF),
        ("write: broken pipe", RegistryState.BROKEN_OFF),
        (
            'failed commit on ref "layer-sha256:0": commit failed: "l" failed size validation: 4 != 9',
            RegistryState.BROKEN_OFF,
        ),
        ("failed to copy: httpReadSeeker: unexpected EOF", RegistryState.BROKEN_OFF),
        ("unexpected response: denied: project quota has been exceeded", RegistryState.FAILED),
        ("unexpected status: adding 1 GiB will exceed the configured upper limit of 10 GiB", RegistryState.FAILED),
        ('failed to resolve reference "r:5000/quota-tool:1": r:5000/quota-tool:1: not found', RegistryState.NOT_FOUND),
        ("something else", None),
        ('failed to dial "/run/containerd/containerd.sock": context deadline exceeded', None),
        ("rpc error: code = Unavailable desc = error reading from server: EOF", None),
        ('connection error: desc = "transport: Error while dialing: dial unix /run/c.sock: connection refused"', None),
        ("no match for platform in manifest sha256:aa: not found", None),
        ('manifest list/index references are missing in your target registry: failed commit on ref "i": 400', None),
    ],
)
def test_words_that_no_record_has_are_understood(text: str, state: RegistryState | None) -> None:
    assert meaning(f"ctr: {text}\n", HTTPS) is state


def test_a_digest_or_a_port_is_not_taken_for_a_status() -> None:
    text = 'ctr: failed to do request: Head "https://r:5031/v2/a/blobs/sha256:401503": x509: certificate has expired'
    assert meaning(text + " or is not yet valid", Registry("r:5031")) is RegistryState.EXPIRED


def test_ctrs_own_last_words_count_not_what_it_logs_before() -> None:
    text = 'time="x" level=info msg="trying next host" error="connection refused"\n'
    text += 'ctr: failed to resolve reference "r/a:1": r/a:1: not found'
    assert meaning(text, HTTPS) is RegistryState.NOT_FOUND


@pytest.mark.parametrize("state", [state for state in RegistryState if state is not RegistryState.OPEN])
def test_every_meaning_has_an_error_with_a_way_out(state: RegistryState) -> None:
    error = refusals.error(state, "r.example/a:1", "said", login=True)
    assert isinstance(error, errors.RegistryError)
    assert "r.example/a:1" in error.message
    assert error.detail == "said"
    assert error.hint or state is RegistryState.LOGIN


def test_an_error_without_a_login_asks_for_one() -> None:
    assert "wants a login" in refusals.error(RegistryState.UNAUTHORIZED, "r/a:1", "", login=False).message
    assert "refuses the login" in refusals.error(RegistryState.UNAUTHORIZED, "r/a:1", "", login=True).message
