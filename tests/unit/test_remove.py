"""`remove` removes the right names, keeps images that containers use, and asks first; on hosts that only answer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ctr_ferry import errors
from ctr_ferry.ctr import remove as ctr_remove
from ctr_ferry.ctr.commands import CRI_MANAGED, Ctr
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.oci.descriptor import OCI_MANIFEST, Platform
from ctr_ferry.report.outcome import Status, as_dry_run
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.target import Limits, Target
from tasks import remove as remove_command
from tasks.remove import RemoveResult, apply, parse, plan

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
CONFIG, LAYERS, OTHER_LAYERS = (f"sha256:{letter * 64}" for letter in "def")
ONE, TWO = "r.example/app:1", "r.example/app:2"
MARK = "ferry-0123456789abcdef"


def image(name: str, digest: str = A, *labels: str) -> Image:
    return Image(name, OCI_MANIFEST, digest, "3.0 MiB", "linux/amd64", frozenset(labels))


def record(name: str = CONFIG, digest: str = A) -> Image:
    return image(name, digest, CRI_MANAGED)


def table(images: Sequence[Image]) -> str:
    rows = [f"{i.name} {i.media_type} {i.digest} {i.size} {i.platforms} {','.join(i.labels) or '-'}" for i in images]
    return "\n".join(["REF TYPE DIGEST SIZE PLATFORMS LABELS", *rows, ""])


@dataclass
class FakeHost:
    """A namespace that obeys `images rm`."""

    images: list[Image]
    containers: str = ""
    snapshots: str = ""
    content: str = ""
    namespace: str = "k8s.io"
    stubborn: Sequence[str] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    name: str = "n"
    dry_run: bool = False
    failed: bool = False
    scripts: list[Script] = field(default_factory=list)

    @property
    def target(self) -> Any:
        return Target("n", "n", limits=Limits(probe=1), variables={Settings: Settings(namespace=self.namespace)})

    def facts(self, namespaces: Sequence[str]) -> Facts:
        version = Version.parse("1.6.20")
        assert version
        return Facts(
            user="root",
            sudo=False,
            ctr=Ctr(("ctr",), "/x.sock", Capabilities.of_version(version)),
            client="1.6.20",
            server="1.6.20",
            sockets=("/x.sock",),
            namespaces=tuple(namespaces),
            listings={name: Listing(name, tuple(self.images)) for name in namespaces},
            cri=True,
            content_root="/root",
            platform=Platform.parse("linux/amd64"),
        )

    def ask(self, script: Script, **_: object) -> dict[str, Answer]:
        self.scripts.append(script)
        return {name: self.answers.get(name) or self._answer(name, text) for name, text in script.steps.items()}

    def _answer(self, name: str, text: str) -> Answer:
        if name == "remove":
            going = text.split("images rm --sync ")[1].partition("||")[0].split()
            self.images = [i for i in self.images if i.name not in going or i.name in self.stubborn]
        texts = {"containers": "CONTAINER IMAGE RUNTIME\n" + self.containers, "after": table(self.images)}
        texts |= {"snapshots": "KEY PARENT KIND\n" + self.snapshots, "content": "DIGEST\n" + self.content}
        return Answer(0, texts.get(name, "").encode(), "")

    def mark_failed(self) -> None:
        self.failed = True


def run(host: Any, **options: Any) -> RemoveResult:
    return apply(host, plan(host, parse(**options)))


def statuses(result: RemoveResult) -> dict[str, Status]:
    return {name.name: name.status for name in result.names}


class TestTheCommandLine:
    @pytest.mark.parametrize("options", [{}, {"ref": []}, {"ref": [ONE], "match": "*"}])
    def test_needs_names_or_a_glob(self, options: dict[str, Any]) -> None:
        with pytest.raises(errors.UsageError, match="--ref"):
            parse(**options)

    def test_refuses_what_is_no_reference(self) -> None:
        with pytest.raises(errors.BadReference):
            parse(ref=["Not A Name"])

    def test_takes_each_name_once(self) -> None:
        assert parse(ref=[ONE, TWO, ONE]).refs == (ONE, TWO)


class TestNames:
    def test_one_of_two_leaves_the_image_and_cris_record(self) -> None:
        host = FakeHost([image(ONE), image(TWO), record()])
        result = run(host, ref=[ONE])
        assert statuses(result) == {ONE: Status.CHANGED}
        assert TWO in result.names[0].note
        assert [i.name for i in host.images] == [TWO, CONFIG]
        assert len(host.scripts) == 1  # nobody is asked what is in use

    def test_the_last_takes_cris_record_with_it(self) -> None:
        host = FakeHost([image(ONE), record(), image(TWO, B), record(f"sha256:{'9' * 64}", B)])
        result = run(host, ref=[ONE])
        assert result.names[0].records == (CONFIG,)
        assert [i.name for i in host.images] == [TWO, f"sha256:{'9' * 64}"]
        assert len(host.scripts) == 2

    def test_both_together_are_the_last(self) -> None:
        host = FakeHost([image(ONE), image(TWO), record()])
        assert statuses(run(host, ref=[ONE, TWO])) == {ONE: Status.CHANGED, TWO: Status.CHANGED}
        assert not host.images

    def test_elsewhere_than_in_kubelets_namespace_a_digest_as_a_name_is_left_alone(self) -> None:
        host = FakeHost([image(ONE), record()], namespace="other")
        run(host, ref=[ONE])
        assert [i.name for i in host.images] == [CONFIG]

    def test_a_digest_is_all_of_its_names_and_cris_record_by_itself_where_they_are_gone(self) -> None:
        for digest in (A, CONFIG):
            host = FakeHost([image(ONE), image(TWO), record(), image("x/y:1", B)])
            assert set(statuses(run(host, ref=[digest]))) == {ONE, TWO}
            assert [i.name for i in host.images] == ["x/y:1"]
            host = FakeHost([record(), image("x/y:1", B)])
            assert set(statuses(run(host, ref=[digest]))) == {CONFIG}
            assert [i.name for i in host.images] == ["x/y:1"]

    def test_what_cri_pulled_by_digest_goes_with_the_last_tag_of_its_repository(self) -> None:
        pulled = f"r.example/app@{A}"
        host = FakeHost([image(ONE), image(TWO), record(pulled), record()])
        run(host, ref=[ONE, TWO])
        assert not host.images
        host = FakeHost([image(ONE), record(pulled), image("s.example/app:1"), record()])
        run(host, ref=[ONE])
        assert {i.name for i in host.images} == {pulled, "s.example/app:1", CONFIG}

    def test_a_name_by_digest_that_nobody_of_cri_gave_stays(self) -> None:
        given = f"r.example/app@{A}"
        host = FakeHost([image(ONE), image(given), record()])
        run(host, ref=[ONE])
        assert {i.name for i in host.images} == {given, CONFIG}

    def test_repository_at_digest_never_means_another_repository(self) -> None:
        host = FakeHost([image("s.example/app:1")])
        assert statuses(run(host, ref=[f"r.example/app@{A}"])) == {f"r.example/app@{A}": Status.UNCHANGED}

    def test_absent_names_change_nothing(self) -> None:
        host = FakeHost([image(ONE)])
        assert run(host, ref=[TWO]).status is Status.UNCHANGED
        assert run(host, match="nothing*").lines() == ["no name in namespace k8s.io fits"]
        assert not host.scripts

    def test_a_glob_never_names_cris_record(self) -> None:
        host = FakeHost([image(ONE), image(TWO, B), record(), record(f"sha256:{'9' * 64}", B)])
        assert set(statuses(run(host, match="*"))) == {ONE, TWO}

    def test_a_dry_run_only_says_it(self) -> None:
        host = FakeHost([image(ONE), record()], dry_run=True)
        result = run(host, ref=[ONE])
        assert (result.status, len(host.images)) == (Status.CHANGED, 2)
        several = FakeHost([image(ONE), image(TWO)], dry_run=True)
        assert [
            line.split("  ")[1] for line in as_dry_run(run(several, match="*")).lines() if "  " in line.strip()
        ] == ["would-change"] * 2


LABELS = (
    f"{A}\t551 B\t2 minutes\tcontainerd.io/gc.ref.content.config={CONFIG},containerd.io/gc.ref.content.l.0={C}\n"
    f"{CONFIG}\t1 B\t2 minutes\tcontainerd.io/gc.ref.snapshot.overlayfs={LAYERS}\n"
)


class TestContainers:
    @pytest.mark.parametrize("name", [ONE, CONFIG, TWO])
    def test_keep_the_last_name_of_their_image_by_whatever_name_they_have_it(self, name: str) -> None:
        host = FakeHost([image(ONE), image(TWO), record()], containers=f"c1 {name} io.containerd.runc.v2\n")
        with pytest.raises(errors.SomeFailed) as caught:
            run(host, ref=[ONE, TWO])
        assert statuses(caught.value.result) == {ONE: Status.FAILED, TWO: Status.FAILED}
        assert len(host.images) == 3

    def test_keep_it_by_their_snapshot_where_their_name_is_gone(self) -> None:
        host = FakeHost([image(TWO)], containers="c1 gone/app:1 r\n", snapshots=f"c1 {LAYERS} Active\n", content=LABELS)
        with pytest.raises(errors.InUse) as caught:
            run(host, ref=[TWO])
        assert "container c1" in caught.value.detail

    def test_keep_it_by_their_snapshot_where_their_name_points_elsewhere(self) -> None:
        host = FakeHost(
            [image(ONE, B), image(TWO)], containers=f"c1 {ONE} r\n", snapshots=f"c1 {LAYERS} A\n", content=LABELS
        )
        with pytest.raises(errors.InUse):
            run(host, ref=[TWO])

    def test_let_others_go(self) -> None:
        host = FakeHost([image(ONE), image(TWO, B)], containers=f"c1 {TWO} r\nc2 - r\n", content=LABELS)
        assert run(host, ref=[ONE]).status is Status.CHANGED
        host = FakeHost([image(ONE), image(TWO, B)], containers=f"c1 {TWO} r\n", content=LABELS)
        with pytest.raises(errors.SomeFailed) as caught:
            run(host, match="*")
        assert statuses(caught.value.result) == {ONE: Status.CHANGED, TWO: Status.FAILED}

    def test_can_be_overruled_but_keep_cris_record(self) -> None:
        host = FakeHost([image(ONE), record()], containers=f"c1 {ONE} r\n")
        result = run(host, ref=[ONE], force=True)
        assert "c1" in result.names[0].note
        assert [i.name for i in host.images] == [CONFIG]

    def test_nothing_goes_where_they_cannot_be_listed(self) -> None:
        host = FakeHost([image(ONE)], answers={"containers": Answer(1, b"", "ctr: boom")})
        with pytest.raises(errors.CommandFailed):
            run(host, ref=[ONE])


class TestWhatTheHostSaysAfterwards:
    def test_decides(self) -> None:
        host = FakeHost([image(ONE), record()], stubborn=[CONFIG])
        with pytest.raises(errors.VerifyFailed, match=CONFIG):
            run(host, ref=[ONE])

    def test_with_the_reason_that_ctr_gave(self) -> None:
        host = FakeHost([image(ONE)], answers={"remove": Answer(1, b"", "ctr: transport is closing: unavailable")})
        with pytest.raises(errors.DaemonUnreachable):
            run(host, ref=[ONE])

    def test_and_ctrs_failure_does_not_matter_where_the_name_is_gone(self) -> None:
        host = FakeHost([image(ONE)])
        made = plan(host, parse(ref=[ONE]))  # type: ignore[arg-type]
        host.images, host.answers = [], {"remove": Answer(1, b"", "ctr: not found")}
        assert apply(host, made).status is Status.CHANGED  # type: ignore[arg-type]

    def test_a_container_that_came_meanwhile_is_in_use(self) -> None:
        taken = Answer(ctr_remove.TAKEN_UP, b"", f"container c9 uses {ONE}")
        host = FakeHost([image(ONE)], answers={"remove": taken})
        with pytest.raises(errors.InUse) as caught:
            run(host, ref=[ONE])
        assert "c9" in caught.value.detail


class TestTheScript:
    """Run here, with a ctr that is a few lines of sh."""

    def remove(self, folder: Path, names: Sequence[str], guarded: Sequence[str], containers: str = "") -> Answer:
        ctr = folder / "ctr"
        ctr.write_text(f"""#!/bin/sh
case "$*" in
*"containers ls") printf 'CONTAINER IMAGE RUNTIME\\n{containers}' ;;
*"images rm"*) echo "$*" >>{folder}/removed; case "$*" in *bad*) exit 1 ;; esac ;;
esac
""")
        ctr.chmod(0o755)
        version = Version.parse("1.6.20")
        assert version
        made = ctr_remove.script(
            Ctr((str(ctr),), "/x.sock", Capabilities.of_version(version)), "k8s.io", names, guarded
        )
        done = subprocess.run(["/bin/sh", "-c", made.render(MARK)], capture_output=True, check=False, timeout=20)
        return made.read(MARK, done.stdout, done.stderr)["remove"]

    def test_removes_all_in_their_order_and_waits_with_the_last(self, tmp_path: Path) -> None:
        assert self.remove(tmp_path, [ONE, TWO, CONFIG], []).ok
        assert (tmp_path / "removed").read_text().endswith(f"images rm --sync {ONE} {TWO} {CONFIG}\n")

    def test_goes_on_after_a_failure_and_tells_it(self, tmp_path: Path) -> None:
        names = ["bad", *(f"n{n}" for n in range(700))]
        assert self.remove(tmp_path, names, []).exit == 1
        first, second = (tmp_path / "removed").read_text().splitlines()
        assert ("--sync" in first, "--sync" in second) == (False, True)
        assert second.endswith("n699")

    @pytest.mark.parametrize(("used", "exit"), [(ONE, ctr_remove.TAKEN_UP), (TWO, 0), (f"{ONE}x", 0)])
    def test_stops_if_a_container_began_to_use_an_image_that_was_free(
        self, tmp_path: Path, used: str, exit: int
    ) -> None:
        answer = self.remove(tmp_path, [ONE], [ONE, CONFIG], containers=f"c9 {used} r\\n")
        assert answer.exit == exit
        assert (tmp_path / "removed").exists() == (exit == 0)
        assert ("c9" in answer.stderr) == bool(exit)

    def test_names_are_no_sh(self, tmp_path: Path) -> None:
        evil = "a/$(touch pwned):1"
        assert self.remove(tmp_path, [evil], [evil, "*"], containers="c9 other r\\n").ok
        assert evil in (tmp_path / "removed").read_text()


@dataclass
class FakeFleet:
    """Hosts, one after the other, and somebody at the terminal or not."""

    hosts: Mapping[str, FakeHost]
    at_terminal: bool = False
    answer: bool = False
    asked: list[str] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def each(self, work: Callable[[Any], Any], **_: object) -> dict[str, Any]:
        for name, host in self.hosts.items():
            if not host.failed:
                try:
                    self.answers[name] = work(host)
                except errors.FerryError as error:
                    host.failed, self.answers[name] = True, error
        return dict(self.answers)

    def confirm(self, question: str) -> bool:
        self.asked.append(question)
        return self.answer

    def __iter__(self) -> Any:
        return iter(self.hosts.values())


def fleet(**more: Any) -> FakeFleet:
    return FakeFleet({n: FakeHost([image(ONE), image(TWO, B)], name=n) for n in ("a", "b")}, **more)


def command(fleet: FakeFleet, **options: Any) -> dict[str, Any]:
    body: Any = remove_command.remove.body
    answers: dict[str, Any] = body(fleet, parse(**options))
    return answers


class TestAsking:
    @pytest.mark.parametrize("options", [{"ref": [ONE]}, {"match": "*"}])
    def test_nobody_is_there_so_nothing_is_removed_without_yes(self, options: dict[str, Any]) -> None:
        scripted_fleet = fleet()
        with pytest.raises(errors.UsageError) as caught:
            command(scripted_fleet, **options)
        assert f"{ONE} on a, b" in caught.value.detail
        assert "--yes" in caught.value.hint
        assert all(len(host.images) == 2 and host.failed for host in scripted_fleet)
        assert {type(answer) for answer in scripted_fleet.answers.values()} == {errors.NotStarted}

    def test_one_name_of_one_host_at_a_terminal_is_meant(self) -> None:
        scripted_fleet = FakeFleet(
            {"a": FakeHost([image(ONE)], name="a"), "b": FakeHost([], name="b")}, at_terminal=True
        )
        answers = command(scripted_fleet, ref=[ONE])
        assert [answer.status for answer in answers.values()] == [Status.CHANGED, Status.UNCHANGED]
        assert not scripted_fleet.asked

    @pytest.mark.parametrize(("hosts", "options"), [("ab", {"ref": [ONE]}), ("a", {"match": "*app*"})])
    def test_one_name_of_several_hosts_or_by_a_glob_is_asked_about(self, hosts: str, options: dict[str, Any]) -> None:
        scripted_fleet = FakeFleet({n: FakeHost([image(ONE)], name=n) for n in hosts}, at_terminal=True, answer=True)
        command(scripted_fleet, **options)
        (question,) = scripted_fleet.asked
        assert f"Remove 1 name from {', '.join(hosts)}?" in question and ONE in question

    @pytest.mark.parametrize("answer", [True, False])
    def test_several_names_at_a_terminal_are_asked_about_once(self, answer: bool) -> None:
        scripted_fleet = fleet(at_terminal=True, answer=answer)
        if answer:
            command(scripted_fleet, match="*")
        else:
            with pytest.raises(errors.UsageError):
                command(scripted_fleet, match="*")
        (question,) = scripted_fleet.asked
        assert "Remove 2 names from a, b?" in question and f"{TWO} on a, b" in question
        assert {len(host.images) for host in scripted_fleet} == {0 if answer else 2}

    def test_yes_asks_nothing(self) -> None:
        scripted_fleet = fleet(at_terminal=True)
        assert {a.status for a in command(scripted_fleet, match="*", yes=True).values()} == {Status.CHANGED}
        assert not scripted_fleet.asked

    def test_where_nothing_goes_nothing_is_asked(self) -> None:
        scripted_fleet = fleet()
        assert {a.status for a in command(scripted_fleet, ref=["x/y:1"]).values()} == {Status.UNCHANGED}

    def test_a_host_that_failed_at_inspection_stays_failed(self) -> None:
        scripted_fleet = fleet()
        scripted_fleet.hosts["a"].answers = {"containers": Answer(1, b"", "ctr: boom")}
        answers = command(scripted_fleet, ref=[ONE], yes=True)
        assert isinstance(answers["a"], errors.CommandFailed)
        assert answers["b"].status is Status.CHANGED
