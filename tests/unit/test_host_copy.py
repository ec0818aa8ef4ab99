"""One host's part of a copy, on a host that only answers: when something is sent, and what is reported of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from retagging import FakeHost, table
from two_platforms import ALL, AMD64, ARM64, BLOBS, IMAGE, INDEX, NAME, digest

from ctr_ferry.ctr import gc_protection
from ctr_ferry.ctr.ingest import ImageBlobs
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.errors import (
    CommandFailed,
    ConnectionLost,
    ContentCorrupt,
    ContentMissing,
    DaemonUnreachable,
    FerryError,
    SessionRefused,
    VerifyFailed,
)
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.oci.reference import Reference
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.target import Limits, Target
from ctr_ferry.transfer import host_copy
from ctr_ferry.transfer.copy_request import CopyOptions, CopyRequest, ImageCopy
from ctr_ferry.transfer.copy_result import CopiedImage, CopyResult
from ctr_ferry.transfer.fan_out import FanOut
from ctr_ferry.transfer.host_copy import HostCopy
from ctr_ferry.transfer.plan import Plan

OK, NO = Answer(0, b"", ""), Answer(1, b"", "ctr: no space for a label\n")
WITHOUT_ARM = {d: data for d, data in ALL.items() if data not in (ARM64, *BLOBS[2:])}


@dataclass
class Protection:
    """A protection whose first steps end as given."""

    answer: Answer
    error: FerryError | None
    script: Script
    words: list[bytes] = field(default_factory=list)

    def prepared(self, _: float) -> dict[str, Answer]:
        return {name: self.answer for name in self.script.steps if name != "wait"}

    def release(self, word: bytes = b"") -> None:
        self.words.append(word)
        if self.error:
            raise self.error


class FakeHost(FakeHost):
    """A destination."""

    def __init__(
        self,
        *prepared: Answer,
        has: Mapping[str, bytes] | None = None,
        error: FerryError | None = None,
        version: str = "1.6.20",
    ) -> None:
        super().__init__([], version=version, blobs=dict(has or {}))
        self.target = Target("n", "n", limits=Limits(probe=1, command=1))
        self.prepared, self.error = iter([*prepared, OK, OK]), error
        self.protections: list[Protection] = []
        self.uploads, self.spare, self.is_source = 0, 10, False
        self.moved, self.other = lambda *_: None, tuple[str, ...]()

    def survey(self, namespaces: Sequence[str], _: Mapping[str, str]) -> tuple[Facts, dict[str, Answer]]:
        store = "\n".join(["namespace k8s.io", *self.blobs, "namespace other", *self.other])
        return self.facts(namespaces), {"store": Answer(0, store.encode(), ""), "active": OK, "check": OK, "room": OK}

    @contextlib.contextmanager
    def lost_connection(self) -> Iterator[None]:
        yield

    def run_in_background(self, script: Script, *, limit: int) -> Protection:
        assert limit
        self.protections.append(Protection(next(self.prepared), self.error, script))
        return self.protections[-1]

    def spare_sessions(self, most: int) -> int:
        return min(self.spare, most)

    def wait_for_session(self) -> None:
        if self.spare == 0:
            raise SessionRefused("sshd allows 1 session")

    def upload(self, _: Script, *, limit: int) -> Any:
        assert limit
        self.uploads += 1
        return SimpleNamespace(write=lambda _: True, end=lambda: {"ingest": OK}, cut=lambda: None)

    def _answer(self, name: str, text: str) -> Answer:
        row = f"{NAME} {IMAGE.media_type} {IMAGE.digest}"
        known = {
            "verify": table(IMAGE),
            "check": Answer(0, f"{row} complete (4/4) 1.0 MiB/1.0 MiB true".encode(), ""),
            "there": Answer(0, "\n".join(ALL).encode(), ""),
        }
        return known.get(name) or super()._answer(name, text)


class FakeSource:
    """A source."""

    name, readers, remedy = "origin", 1, "from another one"

    def __init__(self) -> None:
        self.read_from: list[str] = []

    def holder(self, _: Descriptor) -> str:
        return self.name

    def read(self, wanted: Iterable[Descriptor]) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        for blob in wanted:
            self.read_from.append(blob.digest)
            yield blob, iter([ALL[blob.digest]])


def copy_request(has: Mapping[str, bytes] = ALL, **options: Any) -> CopyRequest:
    documents = {digest(data): data for data in (INDEX, AMD64, ARM64) if digest(data) in has}
    return CopyRequest(
        (ImageCopy(IMAGE, Reference.parse(NAME)),), Content(frozenset(has), documents), CopyOptions(**options)
    )


def bring(host: FakeHost, what: CopyRequest, source: FakeSource) -> CopyResult:
    return HostCopy(cast(Host, host), what, FanOut([host.name], source)).run()


def test_an_image_is_protected_until_it_has_its_name() -> None:
    host, source = FakeHost(), FakeSource()
    result = bring(host, copy_request(), source)
    assert result.status is Status.CHANGED and result.images[0].notes == ()
    assert sorted(source.read_from) == sorted(map(digest, BLOBS))
    assert [protection.words for protection in host.protections] == [[gc_protection.ALL_NAMED]]


def test_where_sshd_has_no_session_for_a_blob_none_is_tried_and_the_images_say_so_once() -> None:
    host, source = FakeHost(), FakeSource()
    host.spare = 0
    with pytest.raises(SessionRefused):
        bring(host, copy_request(), source)
    assert (host.uploads, source.read_from) == (0, [])
    assert len(host.protections) == 1 and host.protections[0].words


@pytest.mark.parametrize(("words", "origin"), [({}, "the source"), ({"origin": "the archive"}, "the archive")])
def test_what_lacks_a_blob_is_called_by_its_name(words: dict[str, str], origin: str) -> None:
    lacking = replace(copy_request(WITHOUT_ARM, every=True), **words)
    with pytest.raises(ContentMissing, match=rf"^{origin} lacks blobs of "):
        bring(FakeHost(), lacking, FakeSource())


def test_what_cannot_be_protected_fails_before_a_blob_is_sent() -> None:
    host, source = FakeHost(NO, NO), FakeSource()
    with pytest.raises(CommandFailed) as raised:
        bring(host, copy_request(), source)
    assert "no space for a label" in raised.value.detail
    assert (host.uploads, source.read_from) == (0, [])
    assert [protection.words for protection in host.protections] == [
        [b""],
        [b""],
    ]  # and once more


def test_what_can_be_protected_the_second_time_comes_then() -> None:
    host, source = FakeHost(NO), FakeSource()
    assert bring(host, copy_request(), source).status is Status.CHANGED
    assert len(source.read_from) == len(set(source.read_from)) == len(BLOBS)


@pytest.mark.parametrize("error", [ConnectionLost("silent"), CommandFailed("ended by a signal")])
def test_a_protection_that_does_not_end_well_after_all_is_verified_is_a_note(error: FerryError) -> None:
    result = bring(FakeHost(error=error), copy_request(), FakeSource())
    assert (result.status, result.images[0].status) == (Status.CHANGED, Status.CHANGED)
    assert error.message in result.images[0].notes[0] and "doctor" in result.images[0].notes[0]


def test_an_earlier_failure_is_reported_and_not_the_protections() -> None:
    with pytest.raises(CommandFailed, match=f"on {NAME}"):
        bring(FakeHost(NO, NO, error=ConnectionLost("silent")), copy_request(), FakeSource())


def test_what_another_namespace_has_and_does_not_share_is_sent_and_counted() -> None:
    apart = "\n".join(map(digest, BLOBS))
    host, source = FakeHost(Answer(0, apart.encode(), "ctr: unexpected EOF\n")), FakeSource()
    host.other = tuple(ALL)
    (result,) = bring(host, copy_request(), source).images
    assert result.status is Status.CHANGED
    assert sorted(source.read_from) == sorted(map(digest, BLOBS))
    assert (result.blobs, result.blobs_there, result.method) == (len(ALL), 0, "blobs")


@pytest.mark.parametrize(("policy", "sent"), [("isolated", len(ALL)), ("shared", 0), ("", 0)])
def test_a_dry_run_counts_what_another_namespace_would_not_share(policy: str, sent: int) -> None:
    host = FakeHost()
    host.dry_run, host.other = True, tuple(ALL)
    host.answers["sharing"] = Answer(0, f"{policy}\n".encode(), "")
    (result,) = bring(host, copy_request(), FakeSource()).images
    assert (result.blobs, result.blobs_there) == (sent, len(ALL) - sent)
    assert not host.protections


def test_two_copies_never_have_an_owner_in_common() -> None:
    hosts = [FakeHost(), FakeHost()]  # one machine under two names, with the same run
    for host in hosts:
        bring(host, copy_request(), FakeSource())
    first, second = (host.protections[0].script.steps["prepare-0"] for host in hosts)
    assert first != second


class TestManifestsThatTheSourceLacks:
    def job(self, host: FakeHost, **options: Any) -> CopyResult:
        return bring(host, copy_request(WITHOUT_ARM, **options), FakeSource())

    def test_are_read_here_so_that_all_platforms_means_all(self) -> None:
        here = {digest(ARM64): ARM64}
        with pytest.raises(FerryError) as raised:
            self.job(FakeHost(has=here), every=True)
        assert raised.value.kind == "content-missing"
        assert raised.value.detail.splitlines() == [digest(data) for data in BLOBS[2:]]
        whole = FakeHost(has=here | {digest(data): data for data in BLOBS[2:]})
        assert self.job(whole, every=True).status is Status.CHANGED

    def test_are_named_as_whole_only_if_they_are(self) -> None:
        here = {digest(ARM64): ARM64}
        for has, whole in ((here, False), (here | {digest(data): data for data in BLOBS[2:]}, True)):
            host = FakeHost(has=has)
            self.job(host)
            assert ("--all-platforms" in host.scripts[-1].steps["name-0"]) is whole

    def test_are_absent_where_they_cannot_be_read(self) -> None:
        host = FakeHost(has={digest(ARM64): b"damaged"})
        assert self.job(host).status is Status.CHANGED
        assert f"={digest(ARM64)}" not in host.protections[0].script.steps["prepare-0"]


class TestASecondAttempt:
    """A second attempt that fails."""

    def job(self, inspect: FerryError | None, bring: FerryError | None, *done: Plan) -> HostCopy:
        job = HostCopy.__new__(HostCopy)

        def act(error: FerryError | None, *_: object, **__: object) -> None:
            for plan in done:
                plan.done = True
            if error:
                raise error

        job._inspect = partial(act, inspect)  # type: ignore[method-assign]
        job._bring = partial(act, bring)  # type: ignore[method-assign]
        return job

    def plan(self, reason: FerryError) -> Plan:
        name = "r.example/app:1"
        report = CopiedImage(name, name, IMAGE.digest, IMAGE.digest, status=Status.CHANGED)
        return Plan(
            result=report,
            existing=None,
            image_copy=ImageCopy(IMAGE, Reference.parse(name)),
            target=Descriptor(IMAGE.media_type, IMAGE.digest, 1),
            needed=ImageBlobs((), {}),
            again=reason,
        )

    def test_reports_its_own_error_and_not_the_first_attempts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_copy, "_RESTART", -1)
        plan, gone = self.plan(VerifyFailed("vanished")), DaemonUnreachable("gone")
        self.job(gone, None)._once_more([plan])
        assert plan.error is gone

    def test_waits_a_moment_for_a_containerd_that_is_being_restarted(self) -> None:
        looks, pauses = [DaemonUnreachable("gone"), DaemonUnreachable("gone"), None], list[float]()

        def inspect() -> None:
            if error := looks.pop(0):
                raise error

        plan, job = self.plan(VerifyFailed("vanished")), self.job(None, None)
        job._inspect = inspect  # type: ignore[assignment,method-assign]
        job._host = cast("Host", SimpleNamespace(pause=pauses.append))
        job._once_more([plan])
        assert (plan.error, looks, pauses) == (None, [], [1.0, 1.0])

    def test_keeps_what_is_done_and_what_failed_for_its_own_reason(self) -> None:
        done, corrupt, open_ = (self.plan(VerifyFailed("vanished")) for _ in range(3))
        own, gone = ContentCorrupt("wrong"), CommandFailed("ended")
        corrupt.fail(own)
        self.job(None, gone, done)._once_more([done, corrupt, open_])
        assert (done.error, corrupt.error, open_.error) == (None, own, gone)
