"""A failed ctr command becomes the right error, by the words of every version."""

from __future__ import annotations

import pytest
from records import RECORDS, VERSIONS, Record, record

from ctr_ferry import errors
from ctr_ferry.ctr.failures import daemon_trouble, failure, required
from ctr_ferry.shell import Answer

DOWN = [
    "version, socket does not exist",
    "version, socket file without a listener",
    "images ls -q, socket does not exist",
]
FORBIDDEN = ["version, permission denied on the socket", "images ls -q, permission denied on the socket"]
SAY_ONLY_TIMEOUT = {"1.1.8", "1.2.6"}  # where the socket is forbidden, too
MISSING = [
    "index-only import, manifest blob absent",
    "delta import, the other blobs are only in another namespace",
    "images export, a layer is missing",
    "content get DIGEST, missing",
]


def answer_that(detail: str) -> Answer:
    return Answer(1, b"", detail)


def answer(recorded: Record) -> Answer:
    return Answer(recorded.exit, recorded.stdout.encode(), recorded.stderr)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", DOWN)
def test_a_daemon_that_is_down_is_known_on_every_version(version: str, case: str) -> None:
    recorded = record(version, case)
    trouble = daemon_trouble(recorded.stderr)
    assert type(trouble) is errors.DaemonUnreachable
    assert trouble.detail and trouble.hint


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", FORBIDDEN)
def test_a_forbidden_socket_is_known_where_ctr_says_so(version: str, case: str) -> None:
    kind = errors.DaemonUnreachable if version in SAY_ONLY_TIMEOUT else errors.PermissionDenied
    assert type(daemon_trouble(record(version, case).stderr)) is kind


def test_a_daemon_that_dies_under_a_command_is_unreachable() -> None:
    for text in ("ctr: transport is closing: unavailable", "rpc error: code = Unavailable desc = transport is closing"):
        assert type(daemon_trouble(text)) is errors.DaemonUnreachable


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", MISSING)
def test_missing_content_is_known_on_every_version(version: str, case: str) -> None:
    recorded = record(version, case)
    error = failure(answer(recorded), "r.example/a:1")
    assert type(error) is errors.ContentMissing
    assert "r.example/a:1" in error.message and "not found" in error.detail


@pytest.mark.parametrize(
    "recorded",
    [r for r in RECORDS if r.case in ("push: connection refused", "push: unresolvable host") and r.exit],
    ids=str,
)
def test_trouble_with_a_registry_is_no_trouble_with_the_daemon(recorded: Record) -> None:
    assert "dial tcp" in recorded.stderr
    assert daemon_trouble(recorded.stderr) is None
    assert type(failure(answer(recorded), "a")) is errors.CommandFailed


@pytest.mark.parametrize(
    "recorded", [r for r in RECORDS if r.case == "content ingest with expected digest, wrong"], ids=str
)
def test_any_other_failure_keeps_its_exit_status_and_ctrs_words(recorded: Record) -> None:
    error = failure(answer(recorded), "r.example/a:1")
    assert type(error) is errors.CommandFailed
    assert f"exit status {recorded.exit}" in error.message
    assert "unexpected commit" in error.detail


def test_an_image_that_lacks_the_platform_is_an_error_of_its_own() -> None:
    detail = answer_that("ctr: no match for platform in manifest sha256:aa: not found")
    assert isinstance(failure(detail, "r/a:1"), errors.PlatformMissing)


def test_a_blob_that_somebody_else_is_writing_is_no_trouble_with_the_daemon() -> None:
    assert daemon_trouble("ctr: rpc error: code = Unavailable desc = ref a locked for 2s: unavailable") is None


def test_a_host_that_is_named_like_a_socket_is_none() -> None:
    assert daemon_trouble("ctr: dial tcp: lookup unix.example: no such host") is None
    assert isinstance(daemon_trouble("ctr: dial unix /x: connect: connection refused"), errors.DaemonUnreachable)


def test_a_full_disk_has_its_own_name() -> None:
    detail = 'ctr: failed to ingest "blobs/sha256/ab": failed to copy: write /var/x: no space left on device'
    assert type(failure(Answer(1, b"", detail), "a")) is errors.DiskFull


def test_what_ctr_printed_on_stdout_alone_is_in_the_error() -> None:
    assert failure(Answer(1, b"Incorrect Usage: x\n", ""), "a").detail == "Incorrect Usage: x"


def test_an_answer_that_is_required_raises_what_its_failure_meant() -> None:
    good = Answer(0, b"fine", "warning: transport is closing")
    assert required(good, "a") is good
    with pytest.raises(errors.ContentMissing):
        required(Answer(1, b"", "ctr: content digest sha256:ab: not found"), "a")


def test_a_layer_that_cannot_be_unpacked_is_no_matter_of_the_registry() -> None:
    words = "ctr: failed to extract layer sha256:aa: mount callback failed on /m: unexpected EOF: unknown"
    error = failure(Answer(1, b"", words), "app:1")
    assert error.message == "containerd could not unpack a layer of app:1" and "zstd" in error.hint


def test_a_reason_at_the_end_of_a_very_long_line_is_judged_and_shown() -> None:
    stderr = f"ctr: apply layer error for {'x' * 500}: write /var/lib/containerd: no space left on device: unknown"
    error = failure(Answer(1, b"", stderr), "a")
    assert error.kind == "disk-full" and error.detail.endswith("no space left on device: unknown")
