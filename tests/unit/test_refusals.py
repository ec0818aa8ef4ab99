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
REFERENCES = (
    "manifest list/index references to blobs and/or manifests are missing in your target registry: "  # ctr's guess
)
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
    if REFERENCES in record.stdout + record.stderr:
        return [RegistryState.NOT_TAKEN]
    if record.case.startswith("push wrong") and "ctr: " not in record.stdout:
        return []  # its last words are not in the record
    return [state for words, state in EXPECTED.items() if words in record.case]


CASES = [(record, expected(record)[0]) for record in FAILED if expected(record)]


@pytest.mark.parametrize(("record", "state"), CASES, ids=lambda value: str(value) if isinstance(value, Record) else "")
def test_every_ctrs_words_are_understood(record: Record, state: RegistryState | None) -> None:
    registry = HTTP if "--plain-http" in record.argv else HTTPS
    assert meaning(detail(record), registry) is state


def test_no_recorded_version_is_left_out() -> None:
    assert len({record.version for record, _ in CASES}) == 13
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
        (
            "unexpected status from PUT request to https://r:5000/v2/a: 429 Too Many Requests",
            RegistryState.RATE_LIMITED,
        ),
        ("toomanyrequests: you have reached your pull rate limit", RegistryState.RATE_LIMITED),
        ('failed commit on ref "manifest-sha256:0": unexpected status: 400 Bad Request', RegistryState.NOT_TAKEN),
        ('failed commit on ref "manifest-sha256:0": io: read/write on closed pipe', RegistryState.RACE),
        ('failed to do request: Put "https://r:5000/v2/a": EOF', RegistryState.BROKEN_OFF),
        ("write tcp 10.0.0.2:4->10.0.0.1:5000: write: connection reset by peer", RegistryState.BROKEN_OFF),
        ("write: broken pipe", RegistryState.BROKEN_OFF),
        (
            'failed commit on ref "layer-sha256:0": commit failed: "l" failed size validation: 4 != 9',
            RegistryState.BROKEN_OFF,
        ),
        ("failed to copy: httpReadSeeker: unexpected EOF", RegistryState.BROKEN_OFF),
        ("unexpected response: denied: project quota has been exceeded", RegistryState.QUOTA),
        ("unexpected status: adding 1 GiB will exceed the configured upper limit of 10 GiB", RegistryState.QUOTA),
        ('failed to resolve reference "r:5000/quota-tool:1": r:5000/quota-tool:1: not found', RegistryState.NOT_FOUND),
        ("something else", None),
        ('failed to dial "/run/containerd/containerd.sock": context deadline exceeded', None),
        ("rpc error: code = Unavailable desc = error reading from server: EOF", None),
        ('connection error: desc = "transport: Error while dialing: dial unix /run/c.sock: connection refused"', None),
        ("no match for platform in manifest sha256:aa: not found", None),
        (f'{REFERENCES}failed commit on ref "index-i": unexpected status: 400 Bad Request', RegistryState.NOT_TAKEN),
        ("failed to extract layer sha256:aa: mount callback failed on /m: unexpected EOF: unknown", None),  # of zstd
        (f'{REFERENCES}failed commit on ref "i": 400 Bad Request\nunknown: tag is immutable', RegistryState.IMMUTABLE),
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


_PUT = "unexpected status from PUT request to https://r:5000/v2/a"
_LAYER, _MANIFEST = (f'failed commit on ref "{kind}-sha256:0": ' for kind in ("layer", "manifest"))


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (f"{_LAYER}unexpected status: 413 Request Entity Too Large", RegistryState.TOO_LARGE),
        (f"{_MANIFEST}{_PUT}/manifests/1: 415 Unsupported Media Type", RegistryState.MEDIA_TYPE),
        (
            "unexpected status from POST request to https://r:5000/v2/a/blobs/uploads/: 405 Method Not Allowed",
            RegistryState.NO_PUSH,
        ),
        (f"{_LAYER}unexpected status: 412 Precondition Failed", RegistryState.RULE),
        (
            f"{_MANIFEST}{_PUT}/manifests/1: 412 Precondition Failed\n"
            "unknown: Failed to process request due to 'x' configured as immutable.",
            RegistryState.IMMUTABLE,
        ),
        (
            f"{_MANIFEST}{_PUT}/manifests/1: 400 Bad Request\n"
            "unknown: The image tag '1' already exists in the 'x' repository and cannot be overwritten",
            RegistryState.IMMUTABLE,
        ),
        (
            f"{_LAYER}{_PUT}/blobs/uploads/0: 412 Precondition Failed\n"
            "unknown: adding 1 MiB of storage resource will exceed the configured upper limit of 10 GiB",
            RegistryState.QUOTA,
        ),
        (f"{_PUT}/quota-tool/manifests/1: 412 Precondition Failed", RegistryState.RULE),
        ("unexpected status: 400 Bad Request", RegistryState.REJECTED),
        (f"{_LAYER}unexpected status: 404 Not Found", RegistryState.NOT_TAKEN),
        ("unexpected status: 404 Not Found", RegistryState.NOT_FOUND),
        (
            'failed to resolve reference "r:5000/a:1": pulling from host r:5000 failed with status code '
            "[manifests 1]: 429 Too Many Requests",
            RegistryState.RATE_LIMITED,
        ),
        (
            f'{_LAYER}failed to do request: Put "http://r.example:5000/v2/a/blobs/uploads": readfrom tcp 10.0.0.2:4'
            ": write tcp: use of closed network connection",
            RegistryState.CLEAR_UPLOAD,
        ),
        (
            'failed to do request: Put "http://r.example:5000/v2/a/blobs/uploads": connection reset by peer',
            RegistryState.CLEAR_UPLOAD,
        ),
        (
            f"{_LAYER}unexpected status from PUT request to http://r.example:5000/v2/a/blobs/uploads: 400 Bad Request",
            RegistryState.CLEAR_UPLOAD,
        ),
        (
            'failed to do request: Put "http://mirror:5000/v2/a/blobs/uploads/0": connection reset by peer',
            RegistryState.BROKEN_OFF,
        ),
        ("unexpected media type text/html for sha256:00: not found", RegistryState.NO_REGISTRY),
        (
            f"{_MANIFEST}invalid content digest in response: invalid checksum digest format",
            RegistryState.NO_REGISTRY,
        ),
    ],
)
def test_a_status_tells_before_words_do_what_the_registry_refuses(text: str, state: RegistryState) -> None:
    assert meaning(f"ctr: {text}\n", HTTPS) is state


@pytest.mark.parametrize(
    "text",
    [
        f"ctr: {_LAYER}unxpected size 87, expected 29\n",  # 1.2.6
        f"ctr: {_LAYER}no response\n",
        f"ctr: {_LAYER}unexpected size 58, expected 29\n",  # 1.4.13
        f'ctr: {_LAYER}failed to do request: Put "http://r:5000/v2/a/blobs/uploads/0": net/http: HTTP/1.x transport '
        "connection broken: http: ContentLength=29 with Body length 0\n",
        f"ctr: {_MANIFEST}io: read/write on closed pipe\n",
        "panic: send on closed channel\n\ngoroutine 59 [running]:\n" + "x.go:1\n" * 9000,  # 1.6.20
    ],
)
def test_a_race_of_ctr_with_itself_is_tried_again_until_it_is_won(text: str) -> None:
    pauses, state = refusals.Pauses(), meaning(text, HTTP)
    assert state is RegistryState.RACE
    tries = [pauses.after(state) for _ in range(12)]
    assert all(tries[:10]) and tries[10:] == [None, None]


def test_a_fault_that_may_pass_is_waited_for_as_the_registry_asks_within_bounds() -> None:
    pauses = refusals.Pauses()
    assert pauses.after(RegistryState.RATE_LIMITED, wait=2) == 2
    assert pauses.after(RegistryState.RATE_LIMITED, wait=3600) is None
    assert refusals.Pauses().after(RegistryState.QUOTA) is None
    assert refusals.Pauses().after(None) is None


def test_a_400_of_a_registry_that_has_answered_is_no_sign_of_tls() -> None:
    text = "ctr: unexpected status: 400 Bad Request\n"
    assert meaning(text, HTTP) is RegistryState.WANTS_TLS
    assert meaning(text, HTTP, answers=True) is RegistryState.REJECTED


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
