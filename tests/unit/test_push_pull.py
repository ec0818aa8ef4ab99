"""push and pull's decisions, on hosts and registries that only answer: what is hard to bring about on real ones."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cut_off import put_ctr, run_cut
from letters import unhashed  # noqa: F401
from test_retag_plan import CHILD, CONFIG, INDEX, MANAGED, MANIFEST, OTHER, A, B, FakeHost, image, table

from ctr_ferry import errors
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from ctr_ferry.oci.reference import Reference
from ctr_ferry.oci.registry import Login, Registry, RegistryState
from ctr_ferry.registry import credentials, http, push_pull
from ctr_ferry.report.outcome import Status
from ctr_ferry.secrets import Secret
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.forward import RegistryStateError
from ctr_ferry.ssh.target import Limits
from tasks import pull, push

REF = "r.example:5000/app:1"
MIB = 1 << 20
OK, NO = Answer(0, b"", ""), Answer(1, b"", "ctr: something\n")
CHECK = "REF TYPE DIGEST STATUS SIZE UNPACKED\n{} {} {} complete (3/3) 1.0 MiB/1.0 MiB true\n"

C = f"sha256:{'c' * 64}"
PROMPT = b"Password: "  # ctr's, without a newline


class RegistryScene:
    """The registry: what it has, one answer a question, the last one for ever; and what it was asked."""

    def __init__(self, *answers: str | RegistryState | None, login: Login | None = None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.login = login
        self.manifest = MANIFEST

    def find(self, path: str, reference: str) -> Descriptor | None:  # noqa: ARG002
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, RegistryState):
            raise RegistryStateError(answer, "its words")
        return Descriptor(OCI_INDEX if answer == B else OCI_MANIFEST, answer, 5) if answer else None

    def read(self, path: str, reference: str) -> bytes:  # noqa: ARG002
        return self.manifest

    def present(self, path: str, digests: Mapping[str, int]) -> None:  # noqa: ARG002
        return None

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        yield


class Host(FakeHost):
    """A host that also hears what it is told while it works."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        registry = Registry("r.example:5000", scheme="http")
        self.target = SimpleNamespace(
            ctr=self.target.ctr,  # type: ignore[attr-defined]
            limits=Limits(probe=1, registry=1),
            registry=lambda _: registry,
            proxy=None,
        )
        self.pauses: list[float] = []
        self.typed: list[str] = []
        self.moves: list[tuple[int, int | None]] = []
        self.prints: list[bytes] = []

    def ask(self, script: Script, *, listener: Any = None, **_: object) -> dict[str, Answer]:
        for chunk in self.prints if listener else ():
            listener.hear(chunk)
        if listener:
            listener.end()
        return super().ask(script)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def moved(self, done: int, total: int | None) -> None:
        self.moves.append((done, total))

    @contextlib.contextmanager
    def terminal(self, limit: int) -> Iterator[Any]:  # noqa: ARG002
        yield SimpleNamespace(device="/dev/pts/9", type=self.typed.append)

    @property
    def texts(self) -> dict[str, str]:
        return {name: text for script in self.scripts for name, text in script.steps.items()}


Sell = Callable[..., RegistryScene]


@pytest.fixture
def sell(monkeypatch: pytest.MonkeyPatch) -> Sell:
    """The registry answers so; it wanted this login, or there is one that it did not ask for so far."""

    def sell(
        *answers: str | RegistryState | None, login: Login | None = None, unasked: Login | None = None
    ) -> RegistryScene:
        scene = RegistryScene(*answers, login=login)
        monkeypatch.setattr(push_pull, "Client", lambda *_: scene)
        monkeypatch.setattr(credentials, "login", lambda _: login or unasked)
        return scene

    return sell


def pushed(host: Host, *, ref: str = REF, **options: Any) -> push.PushResult:
    job = push.Job(host, push.parse(ref=ref, **options))  # type: ignore[arg-type]
    assert job.look(alone=True).status is Status.OK
    return job.run(alone=True)


def pulled(host: Host, *, ref: str = REF, **options: Any) -> pull.PullResult:
    return pull.Job(host, pull.parse(ref=ref, **options)).run()  # type: ignore[arg-type]


def stage(host: Host, digest: str) -> str:
    """The name of ours that is pulled first."""
    return f"r.example:5000/app:ctr-ferry.{host.run_id}@{digest}"


def cut(script: Script, folder: Path, **env: str) -> list[str]:
    """Run a script with a ctr that keeps names; return those that are left, and their digests."""
    run_cut(script, **{**env, "PATH": f"{folder}:/usr/bin:/bin"})
    return [" ".join(row.split()[:2]) for row in (folder / "names").read_text().splitlines()]


def index_host(*, absent: tuple[str, ...] = (OTHER,), **more: Any) -> Host:
    blobs = {B: INDEX, CHILD: MANIFEST, CONFIG: b"{}", **({} if OTHER in absent else {OTHER: MANIFEST})}
    return Host([image(REF, B, media_type=OCI_INDEX)], blobs=blobs, absent=absent, **more)


class TestPush:
    def test_nothing_is_sent_where_the_registry_has_it(self, sell: Sell) -> None:
        scene, host = sell(A), Host([image(REF, A)])
        assert pushed(host).status is Status.UNCHANGED
        assert "push" not in host.texts
        assert scene.asked == 1

    def test_the_registry_is_asked_before_and_after(self, sell: Sell) -> None:
        scene, host = sell(None, A), Host([image(REF, A)], answers={"push": OK})
        result = pushed(host)
        assert (result.status, result.method, result.verified, result.digest) == (Status.CHANGED, "push", "digest", A)
        assert scene.asked == 2

    def test_another_digest_afterwards_is_no_success(self, sell: Sell) -> None:
        sell(None, B)
        with pytest.raises(errors.VerifyFailed) as caught:
            pushed(Host([image(REF, A)], answers={"push": OK}))
        assert A in caught.value.detail and B in caught.value.detail

    @pytest.mark.parametrize("why", [RegistryState.NOT_CHECKED, RegistryState.DENIED])
    def test_what_cannot_be_asked_is_unverified_and_said(self, sell: Sell, why: RegistryState) -> None:
        sell(why)
        result = pushed(Host([image(REF, A)], answers={"push": OK}), force=True)
        assert (result.status, result.verified) == (Status.CHANGED, "unverified")
        assert result.reason in "\n".join(result.lines())
        host = Host([image(REF, A)], answers={"push": OK})
        with pytest.raises(errors.MethodUnsupported, match="cannot be known") as caught:
            pushed(host)  # it might be something else
        assert "--force" in caught.value.hint
        assert "push" not in host.texts

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_a_name_that_is_something_else_there_stays_without_force(self, sell: Sell, *, dry_run: bool) -> None:
        sell(B)
        host = Host([image(REF, A)], answers={"push": OK}, dry_run=dry_run)
        with pytest.raises(errors.ReferenceExists) as caught:
            pushed(host)
        assert A in caught.value.detail and B in caught.value.detail
        assert "--force" in caught.value.hint
        assert "push" not in host.texts

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_with_force_it_is_told_what_was_replaced(self, sell: Sell, *, dry_run: bool) -> None:
        sell(B, A)
        result = pushed(Host([image(REF, A)], answers={"push": OK}, dry_run=dry_run), force=True)
        assert result.previous_digest == B
        assert any(B in line for line in result.lines())
        sell(None, A)
        assert pushed(Host([image(REF, A)], answers={"push": OK}), force=True).previous_digest is None

    @pytest.mark.parametrize(
        ("state", "kind"),
        [(RegistryState.UNKNOWN_CA, errors.RegistryTls), (RegistryState.UNRESOLVED, errors.RegistryUnresolved)],
    )
    def test_a_registry_that_cannot_be_reached_gets_nothing(
        self, sell: Sell, state: RegistryState, kind: type[errors.FerryError]
    ) -> None:
        sell(state)
        host = Host([image(REF, A)])
        with pytest.raises(kind):
            pushed(host)
        assert "push" not in host.texts

    def test_a_registry_that_fails_by_its_own_word_is_tried_again_a_few_times(self, sell: Sell) -> None:
        sell(RegistryState.FAILED, RegistryState.FAILED, None, A)
        busy = Answer(1, b"", "ctr: unexpected response: 503 Service Unavailable\n")
        host = Host([image(REF, A)], answers={"push": busy})
        with pytest.raises(errors.RegistryFailed):
            pushed(host)
        assert host.pauses == [0.5, 1.0, 0.5, 1.0, 2.0]
        assert sum("push" in script.steps for script in host.scripts) == 4

    def test_another_failure_is_not_tried_again(self, sell: Sell) -> None:
        sell(None)
        host = Host([image(REF, A)], answers={"push": NO})
        with pytest.raises(errors.CommandFailed):
            pushed(host)
        assert host.pauses == []

    def test_of_a_partial_index_the_hosts_platform_goes(self, sell: Sell) -> None:
        sell(None, CHILD)
        host = index_host(answers={"push": OK})
        result = pushed(host)
        assert (result.digest, result.source_digest, result.method) == (CHILD, B, "platform")
        assert B in result.notices[0] and "linux/amd64" in result.notices[0]
        assert "--platform=linux/amd64" in host.texts["push"]

    def test_without_that_flag_it_goes_through_a_name_of_ours(self, sell: Sell) -> None:
        sell(None, CHILD)
        host = index_host(answers={"push": OK}, version="1.2.6", cri=True)
        assert pushed(host).method == "stage"
        (script,) = [script for script in host.scripts if "push" in script.steps]
        assert "--platform" not in script.steps["push"]
        assert "images rm ctr-ferry.invalid/ctr-ferry.20260101t000000z-abcd:0" in script.cleanup

    def test_a_part_of_it_replaces_the_whole_only_by_force(self, sell: Sell) -> None:
        sell(B, CHILD)
        with pytest.raises(errors.ReferenceExists):
            pushed(index_host(), platform="linux/amd64")

    def test_a_registry_that_has_the_whole_index_keeps_it(self, sell: Sell) -> None:
        sell(B)
        host = index_host()
        result = pushed(host)
        assert (result.status, result.digest) == (Status.UNCHANGED, B)
        assert "push" not in host.texts

    def test_all_platforms_or_nothing_names_what_is_absent(self, sell: Sell) -> None:
        scene = sell(None)
        with pytest.raises(errors.PlatformMissing, match="linux/arm64"):
            pushed(index_host(), all_platforms=True)
        assert scene.asked == 0

    def test_a_whole_index_goes_as_it_is_but_from_1_0(self, sell: Sell) -> None:
        sell(None, B)
        assert pushed(index_host(absent=(), answers={"push": OK})).digest == B
        with pytest.raises(errors.MethodUnsupported):
            pushed(index_host(absent=(), version="1.0.3"), all_platforms=True)

    def test_1_0_pushes_no_platform_but_its_own(self, sell: Sell) -> None:
        scene = sell(None)
        with pytest.raises(errors.MethodUnsupported):
            pushed(index_host(absent=(), version="1.0.3"), platform="linux/arm64")
        assert scene.asked == 0

    def test_a_platform_that_the_image_is_not_for_is_refused(self, sell: Sell) -> None:
        sell(None)
        with pytest.raises(errors.PlatformMissing):
            pushed(Host([image(REF, A)]), platform="linux/arm64")
        with pytest.raises(errors.PlatformMissing):
            pushed(index_host(), platform="linux/arm64")

    def test_a_dry_run_sends_nothing(self, sell: Sell) -> None:
        sell(None)
        host = Host([image(REF, A)], dry_run=True)
        assert pushed(host).status is Status.CHANGED
        assert "push" not in host.texts

    def test_another_name_is_given_there_alone(self, sell: Sell) -> None:
        sell(None, A)
        host = Host([image("app:1", A)], answers={"push": OK})
        assert pushed(host, ref="app:1", as_="r.example:5000/b").reference == "r.example:5000/b:1"
        assert "r.example:5000/b:1 app:1 &" in host.texts["push"]

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"ref": REF, "as_": f"r/a@{A}"},
            {"ref": REF, "platform": "linux/amd64", "all_platforms": True},
            {"ref": A},
            {"ref": f"r.example/a@{A}"},
        ],
    )
    def test_what_makes_no_sense_is_refused_at_once(self, options: dict[str, Any]) -> None:
        with pytest.raises(errors.UsageError):
            push.parse(**options)


class ScriptedFleet:
    """Several hosts, one after the other."""

    def __init__(self, *hosts: Host) -> None:
        self.hosts = {str(number): host for number, host in enumerate(hosts)}
        self.answers: dict[str, Any] = {}
        for name, host in self.hosts.items():
            host.name, host.failed = name, False
            host.mark_failed = lambda host=host: setattr(host, "failed", True)  # type: ignore[misc]

    def each(self, work: Callable[[Host], Any], *, close: bool = True) -> dict[str, Any]:  # noqa: ARG002
        names = [name for name, host in self.hosts.items() if not host.failed]
        for name in names:
            try:
                self.answers[name] = work(self.hosts[name])
            except errors.FerryError as error:
                self.hosts[name].failed, self.answers[name] = True, error
        return {name: self.answers[name] for name in names}

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts.values())

    def push(self, **options: Any) -> list[Any]:
        answers: dict[str, Any] = push.push.body(self, push.parse(ref=REF, **options))
        return list(answers.values())

    @property
    def pushed(self) -> list[bool]:
        return ["push" in host.texts for host in self.hosts.values()]


def pusher(digest: str = A, **more: Any) -> Host:
    return Host([image(REF, digest)], answers={"push": OK}, **more)


class TestSeveralHosts:
    @pytest.mark.parametrize("options", [{}, {"force": True}])
    @pytest.mark.parametrize("dry_run", [False, True])
    @pytest.mark.parametrize("there", [None, OTHER])
    def test_that_would_give_one_name_different_digests_give_it_none(
        self, sell: Sell, *, options: dict[str, Any], dry_run: bool, there: str | None
    ) -> None:
        sell(there)
        scripted_fleet = ScriptedFleet(*(pusher(digest, dry_run=dry_run) for digest in (A, CHILD, A)))
        answers = scripted_fleet.push(**options)
        exists = there and not options
        assert {type(answer) for answer in answers} == {errors.ReferenceExists if exists else errors.Drift}
        if not exists:
            assert f"{A} on 0, 2\n{CHILD} on 1" in answers[0].detail
        assert scripted_fleet.pushed == [False] * 3
        assert all(host.failed for host in scripted_fleet)

    def test_one_that_cannot_push_keeps_no_other_from_it(self, sell: Sell) -> None:
        sell(None, None, None, A)
        scripted_fleet = ScriptedFleet(Host([]), pusher(), pusher())
        refused, changed, unchanged = scripted_fleet.push()
        assert isinstance(refused, errors.ImageNotFound)
        assert (changed.status, unchanged.status) == (Status.CHANGED, Status.UNCHANGED)
        assert scripted_fleet.pushed == [False, True, False]  # once is enough

    def test_a_name_that_came_to_be_something_else_since_the_look_stays(self, sell: Sell) -> None:
        sell(None, None, B)
        scripted_fleet = ScriptedFleet(pusher(), pusher())
        assert {type(answer) for answer in scripted_fleet.push()} == {errors.ReferenceExists}
        assert scripted_fleet.pushed == [False, False]

    def test_all_are_verified_once_more_when_all_are_done(self, sell: Sell) -> None:
        sell(None, None, None, A, A, B)  # looks, one push and its check, one that has nothing to do; then it is gone
        scripted_fleet = ScriptedFleet(pusher(), pusher())
        answers = scripted_fleet.push()
        assert scripted_fleet.pushed == [True, False]
        assert {type(answer) for answer in answers} == {errors.VerifyFailed}
        assert [answer.result.status for answer in answers] == [Status.CHANGED, Status.UNCHANGED]
        assert all(A in answer.detail and B in answer.detail for answer in answers)

    def test_one_alone_is_asked_about_no_more_than_it_takes(self, sell: Sell) -> None:
        scene = sell(None, A)
        assert [answer.status for answer in ScriptedFleet(pusher()).push()] == [Status.CHANGED]
        assert scene.asked == 2


class TestTheTalk:
    ANN = Login("ann", Secret("s3cret"))

    def test_the_password_answers_the_prompt_once(self, sell: Sell) -> None:
        sell(None, A, login=self.ANN)
        host = Host([image(REF, A)], answers={"push": OK})
        host.prints = [b"\nferry-1 begin push\nPass", PROMPT[4:], b"", b"\nmore\n"]
        pushed(host)
        assert host.typed == ["s3cret"]
        assert "</dev/pts/9 &" in host.texts["push"]
        assert "--user ann" in host.texts["push"]

    @pytest.mark.parametrize("behind", [b"ferry-read: 4096\n", b"some warning\n", b"ferry-read: 1\nferry-read: 2\n"])
    def test_the_prompt_is_seen_though_something_else_comes_right_behind_it(self, sell: Sell, behind: bytes) -> None:
        sell(None, A, login=self.ANN)
        host = Host([image(REF, A)], answers={"push": OK})
        host.prints = [b"\nferry-1 begin push\n" + PROMPT + behind]
        pushed(host)
        assert host.typed == ["s3cret"]

    def test_nobody_is_who_pushes_until_the_registry_wants_a_login(self, sell: Sell) -> None:
        sell(None, A, unasked=self.ANN)
        host = Host([image(REF, A)], answers={"push": OK})
        host.prints = [b"\nferry-1 begin push\n" + PROMPT]
        pushed(host)
        assert host.typed == []
        assert "--user" not in host.texts["push"]

    @pytest.mark.parametrize(
        "detail",
        ["401 Unauthorized", "insufficient_scope: authorization failed", "429 Too Many Requests: toomanyrequests"],
    )
    def test_what_it_tells_nobody_it_may_tell_a_login(self, sell: Sell, detail: str) -> None:
        sell(None, A, unasked=self.ANN)
        answers = [Answer(1, b"", f"ctr: unexpected status: {detail}\n"), OK]
        host = Host([image(REF, A)], answers={"push": lambda _: answers.pop(0)})
        pushed(host)
        assert host.pauses == []
        users = ["--user ann" in s.steps["push"] for s in host.scripts if "push" in s.steps]
        assert users == [False, True]

    @pytest.mark.parametrize("ca_file", [True, False])
    def test_ctr_believes_whom_we_believe_once_a_password_goes_along(
        self, sell: Sell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ca_file: bool
    ) -> None:
        monkeypatch.setattr(http, "_of_this_machine", lambda: b"MACHINE")
        (tmp_path / "ca").write_text("OURS")
        registry = Registry("r.example:5000", ca_file=str(tmp_path / "ca") if ca_file else None)
        unknown = Answer(1, b"", "ctr: x509: certificate signed by unknown authority\n")
        for login, tries in ((None, 1), (self.ANN, 2 if ca_file else 1)):
            sell(None, login=login)
            host = Host([image(REF, A)], answers={"push": unknown})
            host.target.registry = lambda _: registry
            with pytest.raises(errors.RegistryTls):
                pushed(host)
            steps = [script.steps["push"] for script in host.scripts if "push" in script.steps]
            assert len(steps) == tries
            assert ["OURS" in step for step in steps] == [ca_file] * tries
            assert all(("ca-certificates.crt" in step) == (ca_file and not login) for step in steps)
            assert all(("SSL_CERT_DIR=/dev/null" in step) == bool(login) for step in steps)
            assert "MACHINE" in steps[-1] or not login

    def test_asked_again_it_gives_up(self, sell: Sell) -> None:
        sell(None, login=self.ANN)
        host = Host([image(REF, A)], answers={"push": OK})
        host.prints = [PROMPT, b"\n" + PROMPT]
        with pytest.raises(errors.RegistryUnauthorized):
            pushed(host)
        assert host.typed == ["s3cret"]

    def test_without_a_login_there_is_no_terminal_but_for_1_0(self, sell: Sell) -> None:
        for version, ending in (("1.1.8", "app:1"), ("1.0.3", "</dev/pts/9")):
            sell(None, A)
            host = Host([image(REF, A)], answers={"push": OK}, version=version)
            pushed(host)
            assert host.texts["push"].endswith(ending)

    def test_progress_is_told(self, sell: Sell) -> None:
        sell(None, A)
        host = Host([image(REF, A)], answers={"push": OK})
        host.prints = [f"layer-{B}: uploading |++--|  1.0 KiB/2.0 KiB\n".encode()]
        pushed(host)
        assert host.moves == [(1024, 2048)]

    def test_silence_is_bounded_but_not_while_containerd_unpacks(
        self, sell: Sell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter(range(1000))
        monkeypatch.setattr(push_pull, "time", SimpleNamespace(monotonic=lambda: next(clock), time=time.time))
        host = Host([image(REF, A)], answers={"push": OK})
        bar = f"layer-{A}: uploading |++--|  1.0 KiB/2.0 KiB\n".encode()
        for well in ([bar, b"unpacking linux/amd64\n", *[b""] * 20], [b"\nferry end 0\n", *[b""] * 20]):
            sell(None, A)
            host.prints = well
            pushed(host)
        sell(None, A)
        host.prints = [bar] * 20
        with pytest.raises(errors.RegistryTimeout, match="no answer"):
            pushed(host)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"[]", b"5", b"[" * MIB, b'{"manifests": 5}', b'{"manifests": [5]}', b'{"config": {}, "layers": {}}',
     b'{"config": {"digest": "x", "size": 1e999}}', b'{"config": {"digest": "x", "size": -1}}',
     b'{"config": {"digest": "x", "size": 1' + b"0" * 400 + b"}}",
     b'{"manifests": [{"digest": "x", "size": 1, "platform": 7}]}',
     b'{"config": {"digest": "x", "size": "' + b"9" * MIB + b'"}}', b"9" * MIB, b"\xff" * MIB],
)  # fmt: skip
def test_a_manifest_that_is_none_weighs_nothing(sell: Sell, manifest: bytes) -> None:
    scene, host = sell(A), Host([])
    scene.manifest = manifest
    transfer = push_pull.RegistryTransfer(host, host.facts(["k8s.io"]), Reference.parse(REF))  # type: ignore[arg-type]
    assert transfer._contents(None) is None


def here(*images: Any, check: str = "complete (3/3)", **more: Any) -> dict[str, Answer]:
    """The answers of a pull's script, when these images are there in the end."""
    rows = [f"{i.name} {i.media_type} {i.digest} {check} 1.0 MiB/1.0 MiB true" for i in images]
    checked = Answer(0, "\n".join(["REF TYPE DIGEST STATUS SIZE UNPACKED", *rows, ""]).encode(), "")
    answers = {"pull": OK, "verify": table(*images), "check": checked, "top": Answer(0, MANIFEST, ""), "visible": OK}
    return answers | more


class TestPull:
    def test_brings_what_the_registry_has(self, sell: Sell) -> None:
        sell(A)
        result = pulled(Host([], answers=here(image(REF, A))))
        assert (result.status, result.digest, result.method, result.verified) == (Status.CHANGED, A, "pull", "digest")

    def test_does_nothing_where_it_is_there_whole(self, sell: Sell) -> None:
        sell(A)
        host = Host([image(REF, A)], answers=here(image(REF, A)))
        assert pulled(host).status is Status.UNCHANGED
        assert "pull" not in host.texts

    DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 100 {used} {free} 50% /\n"
    LAYERS = json.dumps(
        {"config": {"digest": CONFIG, "size": 2}, "layers": [{"mediaType": "layer+gzip", "digest": C, "size": 4096}]}
    ).encode()

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_refuses_what_does_not_fit_before_anything_is_pulled(self, sell: Sell, dry_run: bool) -> None:
        sell(A).manifest = self.LAYERS
        full = {"room": Answer(0, self.DF.format(used=97, free=3).encode(), "")}
        host = Host([], answers=here(image(REF, A)) | full, dry_run=dry_run)
        with pytest.raises(errors.DiskFull, match="4098 bytes are needed, and 3072 are free on /"):
            pulled(host)
        assert "pull" not in host.texts
        host = Host([], answers=here(image(REF, A)) | full | {"has-0": Answer(0, C.encode(), "")}, dry_run=dry_run)
        assert pulled(host).status is Status.CHANGED  # the layer is there already

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_tells_where_it_may_not_fit_unpacked(self, sell: Sell, dry_run: bool) -> None:
        sell(A).manifest = self.LAYERS
        little = {"room": Answer(0, self.DF.format(used=90, free=10).encode(), "")}
        result = pulled(Host([], answers=here(image(REF, A)) | little, dry_run=dry_run))
        needed = "4098 bytes, and about 12288 more when unpacked are needed, and 10240 are free on /"
        assert result.notices[0] == f"it may not fit: {needed}"
        assert result.notices[1:] == ((f"would move up to 4098 bytes; {needed}",) if dry_run else ())
        room = {"room": Answer(0, self.DF.format(used=10, free=90).encode(), "")}
        assert pulled(Host([], answers=here(image(REF, A)) | room)).notices == ()

    def test_pulls_again_what_is_there_in_part(self, sell: Sell) -> None:
        sell(A)
        partly = here(image(REF, A), check="incomplete (2/3)")
        host = Host([image(REF, A)], answers=partly | {"after": table()})
        with pytest.raises(errors.ContentMissing):
            pulled(host)
        assert stage(host, A) in host.texts["pull"]  # a tag that moves now takes no name along
        assert " tag " not in host.texts["pull"] and " import " not in host.texts["pull"]

    def test_a_name_by_digest_is_mended_under_that_name(self, sell: Sell) -> None:
        sell(A)
        name = f"r.example:5000/app@{A}"
        partly = here(image(name, A), check="incomplete (2/3)")
        host = Host([image(name, A)], answers=partly | {"after": table()})
        with pytest.raises(errors.ContentMissing):
            pulled(host, ref=name)
        assert "images tag" not in host.texts["pull"]

    @pytest.mark.parametrize("platform", ["linux/amd64/v3", "linux/amd64"])
    def test_what_containerd_takes_for_a_platform_is_taken(self, sell: Sell, platform: str) -> None:
        sell(A)
        visible = Answer(0, f"{A}\n{CONFIG}\n".encode(), "")
        made = pulled(Host([], answers=here(image(REF, A), visible=visible)), platform=platform)
        assert made.status is Status.CHANGED

    def test_of_another_platform_is_refused(self, sell: Sell) -> None:
        sell(A)
        host = Host([], answers=here(image(REF, A)) | {"after": table()})
        with pytest.raises(errors.PlatformMissing, match="not for linux/arm64"):
            pulled(host, platform="linux/arm64")

    def test_what_is_not_there_is_told_before_anything_is_done(self, sell: Sell) -> None:
        sell(None)
        host = Host([])
        with pytest.raises(errors.RepositoryNotFound):
            pulled(host)
        assert not host.scripts

    def test_a_tag_that_moved_is_refused(self, sell: Sell) -> None:
        sell(B)
        host = Host([])
        with pytest.raises(errors.Drift) as caught:
            pulled(host, digest=A)
        assert f"r.example:5000/app@{A}" in caught.value.hint
        assert not host.scripts

    @pytest.mark.parametrize("version", ["1.3.0", "1.6.20", "2.1.9"])
    def test_a_tag_that_moves_meanwhile_has_no_say(self, sell: Sell, version: str) -> None:
        sell(A)
        host = Host([], version=version, answers=here(image(REF, A)))
        assert pulled(host).method == "pull"
        (script,) = [script for script in host.scripts if "pull" in script.steps]
        assert re.findall(r" images pull (?:--\S+ )*(\S+);", script.steps["pull"]) == [stage(host, A)]
        assert re.search(rf" images tag (--local )?{re.escape(stage(host, A))} {REF} ", script.steps["pull"])
        assert stage(host, A) in script.cleanup

    @pytest.mark.parametrize(
        ("verb", "when"), [("pull", "after"), ("tag", "before"), ("tag", "after"), ("check", "after")]
    )
    def test_that_is_cut_off_takes_its_names_back(self, sell: Sell, verb: str, when: str, tmp_path: Path) -> None:
        sell(A)
        script = self.script(Host([], answers=here(image(REF, A))), tmp_path)
        assert cut(script, tmp_path, CUT=verb, CUT_AT=when, UNPACKED="false") == []

    def test_that_fails_takes_its_names_back(self, sell: Sell, tmp_path: Path) -> None:
        sell(A)
        script = self.script(Host([], answers=here(image(REF, A))), tmp_path)
        assert cut(script, tmp_path, UNPACKED="false") == []
        assert cut(script, tmp_path) == [f"{REF} {A}"]

    @pytest.mark.parametrize(("whole", "left"), [("true", [f"{REF} {A}"]), ("false", [])])
    def test_of_a_name_itself_that_is_cut_off_leaves_what_is_whole_by_then(
        self, sell: Sell, whole: str, left: list[str], tmp_path: Path
    ) -> None:
        sell(A)
        script = self.script(Host([], version="1.2.6", answers=here(image(REF, A))), tmp_path)
        assert cut(script, tmp_path, CUT="pull", CUT_AT="after", PULLED=A, UNPACKED=whole) == left
        (tmp_path / "cut").unlink()
        assert cut(script, tmp_path, CUT="pull", CUT_AT="before", OTHER=f"{REF} {B} -") == [f"{REF} {B}"]

    def test_that_moves_a_name_never_loses_it(self, sell: Sell, tmp_path: Path) -> None:
        sell(A)
        script = self.script(Host([image(REF, B)], answers=here(image(REF, A))), tmp_path, force=True)
        for verb, when in (("pull", "after"), ("import", "before"), ("import", "between"), ("import", "after")):
            (tmp_path / "cut").unlink(missing_ok=True)
            (tmp_path / "names").write_text(f"{REF} {B} own=1\n")
            (name,) = cut(script, tmp_path, CUT=verb, CUT_AT=when)
            assert name in (f"{REF} {A}", f"{REF} {B}")

    def script(self, host: Host, folder: Path, **options: Any) -> Script:
        """What would pull there."""
        put_ctr(folder)
        pulled(host, **options)
        return next(script for script in host.scripts if "pull" in script.steps)

    def test_where_the_name_itself_is_pulled_another_digest_is_told(self, sell: Sell) -> None:
        sell(A)
        host = Host([], version="1.2.6", answers=here(image(REF, B), kept=Answer(0, b"", "")))
        with pytest.raises(errors.VerifyFailed, match="another digest"):
            pulled(host, digest=A)

    @pytest.mark.parametrize("exit_", [Answer(75, b"", ""), Answer(1, b"", f'ctr: image "{REF}": already exists')])
    def test_who_was_first_meanwhile_is_told(self, sell: Sell, exit_: Answer) -> None:
        sell(A)
        nothing = Answer(0, b"", "")
        same = pulled(Host([], answers=here(image(REF, A), pull=exit_, kept=nothing)))
        assert (same.status, same.method) == (Status.UNCHANGED, "") and "somebody else" in same.notices[0]
        with pytest.raises(errors.ReferenceExists):
            pulled(Host([], answers=here(image(REF, B), pull=exit_, kept=nothing)))

    def test_what_the_host_did_not_find_right_has_not_been_done(self, sell: Sell) -> None:
        sell(A)
        with pytest.raises(errors.VerifyFailed, match="taken away again"):
            pulled(Host([], answers=here(image(REF, A), kept=Answer(0, b"", ""))))

    def test_a_name_that_points_elsewhere_stays_without_force(self, sell: Sell) -> None:
        sell(A)
        host = Host([image(REF, B)])
        with pytest.raises(errors.ReferenceExists):
            pulled(host)
        assert not host.scripts

    def test_with_force_it_follows_at_the_very_end(self, sell: Sell) -> None:
        sell(A)
        host = Host([image(REF, B, "pinned=yes")], answers=here(image(REF, A)))
        result = pulled(host, force=True)
        assert (result.method, result.previous_digest) == ("stage", B)
        assert f"  replaces {B}" in result.lines() and "pinned=yes" in result.notices[0]
        (script,) = [script for script in host.scripts if "pull" in script.steps]
        first, second = script.steps["pull"].split(" && ")
        assert f" images pull --plain-http {stage(host, A)}" in first
        assert " images import " in second and " tag " not in second
        assert stage(host, A) in script.cleanup

    def test_an_index_that_moves_a_name_keeps_what_is_there_of_other_platforms(self, sell: Sell) -> None:
        sell(B)
        index = image(REF, B, media_type=OCI_INDEX)
        host = Host([image(REF, A)], blobs={B: INDEX}, answers=here(index))
        pulled(host, force=True)
        step = host.texts["pull"]
        assert "gc.ref.content.rest" in step and "--all-platforms" not in step
        assert step.index("gc.ref.content.rest") < step.index(" import ")

    def test_another_platform_moves_a_name_where_import_can_name_it(self, sell: Sell) -> None:
        sell(B)
        index = image(REF, B, media_type=OCI_INDEX)
        told = here(index, visible=Answer(0, "\n".join((B, CHILD, OTHER, CONFIG)).encode(), ""))
        blobs = {B: INDEX, CHILD: MANIFEST, OTHER: MANIFEST}
        host = Host([image(REF, A)], blobs=blobs, answers=told)
        pulled(host, force=True, platform="linux/arm64")
        assert "import --platform linux/arm64 --no-unpack" in host.texts["pull"]
        with pytest.raises(errors.MethodUnsupported):
            pulled(Host([image(REF, A)], version="1.4.13", answers=told), force=True, platform="linux/arm64")

    def test_a_failure_then_leaves_the_name_as_it_was(self, sell: Sell) -> None:
        sell(A)
        broken = here(image(REF, B), pull=Answer(1, b"", 'ctr: Get "http://r": unexpected EOF\n'), after=table())
        host = Host([image(REF, B)], answers=broken)
        with pytest.raises(errors.RegistryBrokenOff):
            pulled(host, force=True)
        assert not any(REF in text and "images rm" in text for text in host.texts.values())

    def test_a_name_that_could_be_lost_is_not_moved(self, sell: Sell) -> None:
        sell(B)  # an index, which 1.2 cannot name
        with pytest.raises(errors.MethodUnsupported):
            pulled(Host([image(REF, A)], version="1.2.6"), force=True)
        sell(RegistryState.NOT_CHECKED)
        with pytest.raises(errors.MethodUnsupported):
            pulled(Host([image(REF, A)]), force=True)

    def test_unasked_it_is_pulled_and_unverified(self, sell: Sell) -> None:
        sell(RegistryState.NOT_CHECKED)
        result = pulled(Host([], answers=here(image(REF, A))))
        assert (result.status, result.verified, result.digest) == (Status.CHANGED, "unverified", A)

    def test_kubelet_must_see_it(self, sell: Sell) -> None:
        sell(A)
        host = Host([], answers=here(image(REF, A)) | {"after": table()}, cri=True)
        with pytest.raises(errors.VerifyFailed, match="CRI"):
            pulled(host)
        assert pulled(Host([], answers=here(image(REF, A, MANAGED)), cri=True)).status is Status.CHANGED

    def test_1_0_knows_no_platforms(self, sell: Sell) -> None:
        sell(A)
        with pytest.raises(errors.MethodUnsupported):
            pulled(Host([], version="1.0.3"), platform="linux/arm64")

    def test_it_is_refused_to_move_what_is_not_known(self, sell: Sell) -> None:
        sell(RegistryState.NOT_CHECKED)
        with pytest.raises(errors.MethodUnsupported, match="cannot be moved"):
            pulled(Host([image(REF, B)]), digest=A, force=True)

    def test_names_are_pulled_in_their_full_form(self, sell: Sell) -> None:
        sell(A)
        name = "docker.io/library/busybox:latest"
        assert pulled(Host([], answers=here(image(name, A))), ref="busybox").reference == name

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"ref": REF, "digest": "sha256:1"},
            {"ref": f"{REF}@{A}"},
            {"ref": f"r/a@{A}", "digest": B},
            {"ref": REF, "platform": "linux/amd64", "all_platforms": True},
        ],
    )
    def test_what_makes_no_sense_is_refused_at_once(self, options: dict[str, Any]) -> None:
        with pytest.raises(errors.UsageError):
            pull.parse(**options)
