"""What the doctor makes of answers: findings, leftovers, registries."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from ctr_ferry import errors
from ctr_ferry.ctr import health, leftovers
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.health import Finding, Health, Visit
from ctr_ferry.ctr.leftovers import InNamespace
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.oci.registry import Registry, RegistryState
from ctr_ferry.registry import client as registries
from ctr_ferry.registry.http import context
from ctr_ferry.report.outcome import Outcome, Status
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh import guard
from ctr_ferry.ssh.target import Target
from tasks import doctor as doctor_command
from tasks.doctor import DoctorResult, Request, tabulate

D = f"sha256:{'a' * 64}"
RUN = "ctr-ferry.20260101T000000Z-retag-dead"
MINE = "ctr-ferry.20260102T000000Z-doctor-1234"
STAGE = f"r.example:5000/a/b:ctr-ferry.20260101T000000Z-pull-dead@{D}"
MARK = "ferry-0123456789abcdef"


def detail(text: str = "", stderr: str = "", exit: int = 0) -> Answer:
    return Answer(exit, text.encode(), stderr)


def facts(client: str = "1.6.20", server: str = "1.6.20", **more: Any) -> Facts:
    version = Version.parse(client)
    capabilities = Capabilities.of_version(version) if version else Capabilities.of_help("tag ")
    made = Facts(
        user="root",
        sudo=False,
        ctr=Ctr(("ctr",), "/x.sock", capabilities),
        client=client,
        server=server,
        sockets=("/x.sock",),
        namespaces=("k8s.io",),
        listings={},
        cri=True,
        content_root="/root/content",
        platform=Platform.parse("linux/amd64"),
    )
    return replace(made, **more)


DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a b {size} 1 {free} 9% /va r\n"


def visit(found: Facts | errors.HostError | None = None, **answers: str) -> Visit:
    texts = {
        "host": "root\nx86_64\nsudo=\n",
        "path": "/usr/bin/ctr\n",
        "leftovers": "namespace k8s.io\nimages 3\n",
        "files": "",
        "space": DF.format(size=1000, free=500),
        "sessions": "1\n",
        "clock": "1000\n",
    }
    steps = {name: detail(text) for name, text in (texts | answers).items()}
    return Visit(found or facts(), steps, began=1000.2, ended=1000.9, login="root@h:22")


def finding(visit: Visit, what: str) -> Finding:
    (found,) = [each for each in health.findings(visit) if each.what == what]
    return found


class TestFindings:
    def test_a_well_host_has_nothing_but_ok(self) -> None:
        assert {f.health for f in health.findings(visit())} == {Health.OK}

    def test_whatever_is_not_ok_says_what_to_do(self) -> None:
        bad = [
            visit(errors.CtrNotFound("no ctr", hint="set ctr_command")),
            visit(errors.DaemonUnreachable("down", detail="dial", hint="start it")),
            visit(errors.PermissionDenied("no", hint="sudo")),
            visit(errors.GarbledAnswer("odd", hint="look")),
            visit(facts("2.1.9", "1.6.20")),
            visit(facts("weird", "1.6.20")),
            visit(space=DF.format(size=1000, free=100)),
            visit(space=DF.format(size=1000, free=10)),
            visit(space="df: no such thing"),
            visit(clock="900"),
            visit(clock=""),
            visit(leftovers=f"namespace a\nimages 1\ningest {RUN}-1\n"),
        ]
        for each in bad:
            found = [f for f in health.findings(each) if f.health is not Health.OK]
            assert found and all(f.todo for f in found), found

    def test_a_listing_that_cannot_be_read(self) -> None:
        assert finding(visit(), "listings").health is Health.OK
        found = finding(visit(leftovers="namespace a\nimages 1\nnamespace k8s.io\nodd two,x=y\nodd \n"), "listings")
        assert (found.health, found.text) == (Health.FAIL, "in k8s.io 'two,x=y' is no row")
        assert "ctr -n k8s.io images ls" in found.todo

    @pytest.mark.parametrize(
        ("client", "server", "expected"),
        [
            ("1.6.20", "1.6.20", Health.OK),
            ("1.2.6", "1.6.20", Health.OK),
            ("1.6.20", "", Health.OK),
            ("2.1.9", "1.7.24", Health.OK),
            ("2.1.9", "1.6.20", Health.WARN),
            ("devel", "1.6.20", Health.WARN),
        ],
    )
    def test_versions(self, client: str, server: str, expected: Health) -> None:
        found = finding(visit(facts(client, server)), "version")
        assert found.health is expected
        assert client in found.text

    @pytest.mark.parametrize(
        ("free", "expected"), [(1000, "ok"), (150, "ok"), (149, "warn"), (50, "warn"), (49, "fail"), (-1, "fail")]
    )
    def test_space(self, free: int, expected: str) -> None:
        found = finding(visit(space=DF.format(size=1000, free=free)), "content store")
        assert found.health == expected
        assert "/root/content" in found.text and "on /va r" in found.text

    @pytest.mark.parametrize(
        ("there", "text", "expected"),
        [
            (1000, "as here", "ok"),
            (1001, "as here", "ok"),
            (1030, "29 s ahead of", "ok"),
            (1062, "61 s ahead of", "warn"),
            (940, "59 s behind", "ok"),
            (930, "69 s behind", "warn"),
        ],
    )
    def test_a_clock_is_off_only_outside_of_the_time_that_asking_took(
        self, there: int, text: str, expected: str
    ) -> None:
        found = finding(visit(clock=str(there)), "clock")
        assert (found.health, text in found.text) == (expected, True), found

    def test_images_where_kubelet_does_not_look(self) -> None:
        there = "namespace k8s.io\nnamespace moby\nimages 4\nnamespace x\nimages 1\n"
        found = finding(visit(leftovers=there), "namespaces")
        assert found.health is Health.WARN
        assert "--namespace moby --to-namespace k8s.io" in found.todo
        assert finding(visit(facts(cri=False), leftovers=there), "namespaces").health is Health.OK

    def test_other_containerds_are_named(self) -> None:
        assert "/y.sock" in finding(visit(facts(sockets=("/x.sock", "/y.sock"))), "socket").text

    def test_retags_method(self) -> None:
        assert finding(visit(facts("1.6.20")), "retag").text == "by tag"
        assert "index" in finding(visit(facts("1.2.6")), "retag").text

    def test_what_a_run_at_work_has_is_not_left_over(self) -> None:
        there = f"namespace k8s.io\ningest {RUN}-1\n"
        assert finding(visit(leftovers=there), "leftovers").health is Health.WARN
        busy = visit(leftovers=there, sessions="2\n")
        assert busy.others_at_work
        assert finding(busy, "leftovers").health is Health.OK


class TestLeftovers:
    def test_are_parsed_by_namespace(self) -> None:
        row = f"{D}\t551 B\t2 minutes\tcontainerd.io/gc.root={RUN},containerd.io/gc.ref.content.{RUN}.0={D},x=y"
        text = f"namespace a\nimages 7\nname ctr-ferry.invalid/x:0\nblob {row}\nnamespace b\ningest {RUN}-1\n"
        keys = ["containerd.io/gc.root", f"containerd.io/gc.ref.content.{RUN}.0"]
        assert leftovers.parse_namespaces(text) == [
            InNamespace("a", 7, ["ctr-ferry.invalid/x:0"], [], {D: keys}),
            InNamespace("b", 0, [], [f"{RUN}-1"], {}),
        ]

    def test_labels_of_others_are_not_ours(self) -> None:
        for label in ("containerd.io/gc.root=ctr-ferry", "containerd.io/gc.root=a.ctr-ferry.x", "a=ctr-ferry.x"):
            assert leftovers.parse_namespaces(f"namespace a\nblob {D} 1B 2 days {label}\n")[0].labels == {}

    def test_files_of_others_are_not_ours(self) -> None:
        ours = f"/tmp/{RUN}.a1B2c3"
        assert leftovers.parse_files(f"{ours}\n/tmp/ctr-ferry.x;y\n/tmp/ctr-ferry.\nctr-ferry.x\n") == [ours]

    def test_a_file_is_left_also_where_containerd_is_down(self) -> None:
        found = visit(errors.DaemonUnreachable("it is down"), files=f"/tmp/{RUN}.a1B2c3\n")
        assert f"/tmp/{RUN}.a1B2c3" in finding(found, "leftovers").text

    def test_cleaning_touches_only_them(self) -> None:
        there = [InNamespace("a", 1), InNamespace("b", 1, ["ctr-ferry.invalid/x:0"], [f"{RUN}-1"], {D: ["k"]})]
        script = leftovers.clean(facts().ctr, Settings(), there, [f"/tmp/{RUN}.a1B2c3"], MINE)
        assert list(script.steps) == ["clean-0", "clean-files", "leftovers", "files"]
        assert f"-name {RUN}.a1B2c3 " in script.steps["clean-files"]
        words = script.steps["clean-0"]
        assert f"content label {D} k=" in words
        assert f"--timeout 60s --address /x.sock --namespace b content ingest {RUN}-1 <&5" in words
        assert "images rm --sync ctr-ferry.invalid/x:0" in words
        assert "--namespace a " not in words


class TestTheScript:
    """The steps, run here with a ctr that is a few lines of sh."""

    @pytest.fixture
    def answers(self, tmp_path: Path) -> dict[str, Answer]:
        ctr = tmp_path / "ctr"
        ctr.write_text(f"""#!/bin/sh
case "$*" in
*"namespaces ls -q") printf 'k8s.io\\nempty\\n' ;;
*"k8s.io images ls -q") printf 'a/b:1\\nsha256:12\\nctr-ferry.invalid/x:0\\n{STAGE}\\n' ;;
*"k8s.io content active") printf 'REF\\tSIZE\\tAGE\\n{RUN}-1\\t0B\\t1 second\\nother-{RUN}\\t0B\\t1\\n' ;;
*"k8s.io content ls")
  printf 'DIGEST SIZE AGE LABELS\\n{D} 1B 1 second containerd.io/gc.root={RUN}\\n{D} 1B 1 second x=y\\n' ;;
*"plugins ls -d") printf 'Type: io.containerd.content.v1\\nID: content\\nExports:\\n     root      {tmp_path}\\n\\n'
  printf 'Type: io.containerd.snapshotter.v1\\nExports:\\n     root      /elsewhere\\n' ;;
esac
""")
        ctr.chmod(0o755)
        prologue = f"LC_ALL=C; export LC_ALL; set -f; ctr={ctr}; address=/x; ready() {{ :; }}"
        script = Script(health.questions(Settings()), prologue=prologue)
        argv = ["/bin/sh", "-c", script.render(MARK)]
        done = subprocess.run(argv, env=os.environ, capture_output=True, check=False, timeout=20)
        return script.read(MARK, done.stdout, done.stderr)

    def test_counts_and_finds(self, answers: dict[str, Answer]) -> None:
        assert answers["leftovers"].ok
        labels = {D: ["containerd.io/gc.root"]}
        assert leftovers.parse_namespaces(answers["leftovers"].text) == [
            InNamespace("k8s.io", 3, ["ctr-ferry.invalid/x:0", STAGE], [f"{RUN}-1"], labels),
            InNamespace("empty"),
        ]

    def test_looks_for_space_where_the_content_store_is(self, answers: dict[str, Answer], tmp_path: Path) -> None:
        shown = subprocess.run(["df", "-Pk", str(tmp_path)], capture_output=True, text=True, check=True).stdout
        assert answers["space"].text.splitlines()[1].split()[0] == shown.splitlines()[1].split()[0]
        assert finding(visit(space=answers["space"].text), "content store").text.endswith(shown.split()[-1])

    def test_tells_the_time_and_where_ctr_is(self, answers: dict[str, Answer]) -> None:
        assert int(answers["clock"].text) > 1_700_000_000
        assert answers["path"].text.endswith("/ctr\n")

    def test_asks_nothing_of_a_containerd_that_is_not_ready(self, tmp_path: Path) -> None:
        script = Script(health.questions(Settings(root=str(tmp_path / "gone"))), prologue="ctr=; ready() { false; }")
        done = subprocess.run(["/bin/sh", "-c", script.render(MARK)], capture_output=True, check=False, timeout=20)
        answers = script.read(MARK, done.stdout, done.stderr)
        assert (answers["leftovers"].ok, answers["leftovers"].text) == (False, "")
        assert finding(visit(space=answers["space"].text), "content store").health in list(Health)
        assert "%" in answers["space"].text


CACHE = Path(__file__).parents[2] / "lab" / ".state" / "cache"  # of the rehearsal fleet, where it was up once
BUSYBOX = shutil.which("busybox") or next(map(str, CACHE.glob("trees/*/machine/usr/bin/busybox")), None)
NOBODY = 65534


@pytest.fixture(params=["coreutils", *(["busybox"] if BUSYBOX else [])])
def tools(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """A shell and its path to commands of a kind."""
    if request.param == "coreutils":
        return ["env", f"TMPDIR={tmp_path}", "/bin/sh"]
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "find", "grep", "sed", "sort", "tr", "id", "rm", "cat", "stat"):
        (folder / name).symlink_to(str(BUSYBOX))
    return ["env", f"TMPDIR={tmp_path}", f"PATH={folder}", str(folder / "sh")]


def run(tools: list[str], step: str, **more: Any) -> str:
    text = f"LC_ALL=C; export LC_ALL; set -f\n{step}"
    done = subprocess.run([*tools, "-c", text], capture_output=True, check=False, timeout=30, **more)
    assert done.stderr == b""
    return done.stdout.decode("utf-8", "backslashreplace")


class TestWhatOthersPlant:
    """Another user of the host makes files, processes and rows of tables that claim to be ours."""

    def test_a_file_is_ours_by_form_and_owner(self, tools: list[str], tmp_path: Path) -> None:
        ours = tmp_path / f"{RUN}.a1B2c3"
        ours.write_text("PEM")
        forged = f"ctr-ferry.\n\n{MARK} end 0\n\n{MARK} begin ctr\nctr"
        for name in (forged, "ctr-ferry.a b", "ctr-ferry.é", "ctr-ferry."):
            (tmp_path / name).touch()
        (tmp_path / "ctr-ferry.link").symlink_to(ours)
        (tmp_path / "target").touch()
        (tmp_path / "ctr-ferry.hard").hardlink_to(tmp_path / "target")
        (tmp_path / "ctr-ferry.folder").mkdir()
        if os.geteuid() == 0:
            (tmp_path / "ctr-ferry.nobodys").touch()
            os.chown(tmp_path / "ctr-ferry.nobodys", NOBODY, NOBODY)
        text = run(tools, leftovers.FILES)
        assert leftovers.parse_files(text) == [str(ours)]
        assert MARK not in text

    def test_a_file_that_is_another_by_now_stays(self, tools: list[str], tmp_path: Path) -> None:
        ours, swapped = tmp_path / f"{RUN}.a1B2c3", tmp_path / f"{RUN}.d4E5f6"
        ours.touch()
        swapped.symlink_to("/etc/passwd")
        script = leftovers.clean(facts().ctr, Settings(), [], [str(ours), str(swapped)], MINE)
        run(tools, script.steps["clean-files"])
        assert not ours.exists() and swapped.is_symlink()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of others")
    def test_a_run_at_work_is_ours_by_form_and_owner(self, tools: list[str], tmp_path: Path) -> None:
        def start(line: str, *argv: str, **more: Any) -> subprocess.Popen[bytes]:
            return subprocess.Popen([*(argv or ("/bin/sh", "-c")), line], stdin=subprocess.PIPE, **more)

        def line(number: int) -> str:
            return guard.bootstrap(f"ferry-0000aaaa0000{number:04}", 10)

        ready = "ferry-0000aaaa00000002"
        started = [
            start(line(1)),
            start(f"echo {ready}-ready >&2; {line(2)}", stderr=subprocess.DEVNULL),
            start(line(3), "/bin/sh", "-c", 'eval "$0"'),
            start(line(4), user=NOBODY),
            start(line(5), user=NOBODY, group=NOBODY, extra_groups=[4321]),
            start("sleep 60", "/bin/sh", "-c", "read -r l; :", "ferry-0000aaaa00000006"),
        ]
        try:
            time.sleep(0.3)
            count = leftovers.SESSIONS.replace("ferry-[0-9a-f]\\{16\\}", "ferry-0000aaaa[0-9]*")  # of this test
            assert count != leftovers.SESSIONS
            assert run(tools, count) == "3\n"
            assert run(["env", f"SUDO_UID={NOBODY}", *tools], count) == "5\n"
            (tmp_path / "sock").touch()
            os.chown(tmp_path / "sock", 0, 4321)
            assert run(tools, f"address={tmp_path}/sock\n{count}") == "4\n"
        finally:
            for process in started:
                process.kill()
                process.communicate()

    @pytest.mark.parametrize(
        "name",
        [
            "a/b:1",
            f"a/b@{D}",
            f"a/b:1@{D}",
            STAGE.partition("@")[0],
            STAGE.removesuffix("a"),
            STAGE + "a",
            STAGE.replace("T000000Z", ""),
            STAGE.replace("-pull", "/pull"),
            STAGE.replace("a/b:", "a/b:x"),
            STAGE.replace("r.example:5000/", ""),
            f"x {STAGE}",
            f"{STAGE} x",
        ],
    )
    def test_a_name_of_a_pull_is_ours_by_its_exact_form(self, name: str) -> None:
        assert leftovers.parse_namespaces(f"namespace a\nname {STAGE}\nname {name}\n") == [InNamespace("a", 0, [STAGE])]

    def test_the_empty_file_of_a_cleaning_has_its_name_and_goes(self, tmp_path: Path) -> None:
        """Also where the cleaning is ended between making and removing it."""
        there, ctr = [InNamespace("a", 1, [], [f"{RUN}-1"])], tmp_path / "ctr"
        ctr.write_text(f"#!/bin/sh\nls -l /proc/self/fd/5 >>{tmp_path}/log\n")
        ctr.chmod(0o755)
        script = leftovers.clean(replace(facts().ctr, argv=(str(ctr),)), Settings(), there, [], MINE)
        tools = ["env", f"TMPDIR={tmp_path}", "/bin/sh"]
        run(tools, script.steps["clean-0"])
        assert f"{MINE}.empty." in (tmp_path / "log").read_text()
        left = tmp_path / f"{MINE}.empty.a1B2c3"
        left.touch()
        assert leftovers.parse_files(f"{left}\n") == [str(left)]
        run(tools, script.cleanup)
        assert {file.name for file in tmp_path.iterdir()} == {"ctr", "log"}

    def test_a_row_that_a_label_forges_is_told(self, tmp_path: Path) -> None:
        row, ctr = f"a {'t':9} {D} 1 MiB - ", tmp_path / "ctr"
        ctr.write_text(f"""#!/bin/sh
case "$*" in
*"namespaces ls -q") echo k8s.io ;;
*"images ls") printf 'REF \\n%s\\n%s\\n%s\\n' '{row}- ' '{row}x=y' '{row}- ' ;;
esac
""")
        ctr.chmod(0o755)
        text = run(["/bin/sh"], f"ctr={ctr}; address=/x; ready() {{ :; }}\n{leftovers.LEFTOVERS}")
        assert leftovers.parse_namespaces(text)[0].odd == [f"{row}x=y"]

    def test_rows_of_another_form_are_not_ours(self) -> None:
        names = ["sha256:" + "b" * 64, "ctr-ferry.invalid/x y", "ctr-ferry.invalid/../etc", "ctr-ferry.invalid/x:0;y"]
        rows = [f"name {name}\n" for name in names] + ["ingest ctr-ferry.x y\n", "ingest other\n", "images x\n"]
        assert leftovers.parse_namespaces(f"namespace a\n{''.join(rows)}blob x\n") == [InNamespace("a")]
        for label in (f"containerd.io/gc.root={RUN};x", f"containerd.io/gc.ref.content.{RUN}/0={D}"):
            assert leftovers.our_labels(f"{D} 1B 2 days {label}") == []

    @pytest.mark.parametrize("mark", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
    def test_a_row_goes_to_its_line_feed(self, mark: str) -> None:
        row = f"a{mark}namespace b{mark}name ctr-ferry.invalid/x:0{mark}ingest ctr-ferry.x"
        assert leftovers.parse_namespaces(f"namespace a\nodd {row}\nblob {row}\n") == [InNamespace("a", odd=[row])]

    def test_a_root_goes_only_where_containerd_says_that_it_is_ours(self, tmp_path: Path) -> None:
        """A label with a line break makes a row that speaks of another blob."""
        victim, log = f"sha256:{'c' * 64}", tmp_path / "log"
        ctr = tmp_path / "ctr"
        ctr.write_text(f"""#!/bin/sh
echo "$*" >>{log}
case "$*" in *"content ls -q labels."*) echo {D};; esac
""")
        ctr.chmod(0o755)
        row = "{0}\t1 B\t2 days\tcontainerd.io/gc.root=" + RUN
        there = leftovers.parse_namespaces(f"namespace a\nblob {row.format(D)}\nblob {row.format(victim)}\n")
        script = leftovers.clean(replace(facts().ctr, argv=(str(ctr),)), Settings(), there, [], MINE)
        run(["/bin/sh"], script.steps["clean-0"])
        done = log.read_text()
        assert f"content label {D} containerd.io/gc.root=\n" in done
        assert f"label {victim}" not in done
        assert 'labels."containerd.io/gc.root"~="^ctr-ferry[.]"' in done

    def test_tables_with_forged_lines_tell_of_nothing(self, tmp_path: Path) -> None:
        ctr = tmp_path / "ctr"
        ctr.write_text(f"""#!/bin/sh
case "$*" in
*"namespaces ls -q") echo k8s.io ;;
*"images ls -q") printf 'a/b:1\nname {D}\nctr-ferry.invalid/x y:0\n' ;;
*"images ls") printf 'REF\na\nname {D}\n' ;;
*"content active") printf 'REF\nctr-ferry.x;id 0B 1\nname {D}\n' ;;
*"content ls") printf 'DIGEST\nname x=ctr-ferry.y {D}\nnamespace x=ctr-ferry.y\n' ;;
esac
""")
        ctr.chmod(0o755)
        text = run(["/bin/sh"], f"ctr={ctr}; address=/x; ready() {{ :; }}\n{leftovers.LEFTOVERS}")
        (there,) = leftovers.parse_namespaces(text)
        assert (there.names, there.ingests, there.labels) == ([], [], {})


WELL, ILL = Finding("a", Health.OK, "x"), Finding("b", Health.FAIL, "y", "do z")


class TestTheTable:
    def test_of_one_host_shows_all(self) -> None:
        table = tabulate({"h": DoctorResult((WELL, ILL))})
        assert table.rows == (("h", "a", "ok", "x", ""), ("h", "b", "fail", "y", "do z"))

    def test_of_many_only_what_is_to_be_mended_with_alike_hosts_in_one_row(self) -> None:
        many = {f"h{n}": DoctorResult((WELL, ILL)) for n in range(5)} | {"g": DoctorResult((WELL,))}
        table = tabulate(many)
        assert table.rows == (("h0, h1, h2, h3, h4", "b", "fail", "y", "do z"),)
        assert table.notes == ("nothing is wrong on g",)

    def test_of_many_shows_all_when_asked(self) -> None:
        assert len(tabulate({n: DoctorResult((WELL,), everything=True) for n in "ab"}).rows) == 1

    def test_takes_findings_out_of_errors_too(self) -> None:
        error = errors.Unhealthy("ill", result=DoctorResult((ILL,)))
        assert len(tabulate({"a": error, "b": errors.Unreachable("gone")}).rows) == 1

    def test_data_has_all_findings_and_nothing_of_what_is_shown(self) -> None:
        data = Outcome.of("h", 1.0, DoctorResult((WELL, ILL), everything=True)).to_json()["result"]
        assert [f["what"] for f in data["findings"]] == ["a", "b"]
        assert set(data) == {"findings", "cleaned", "status"}


class FakeHost:
    """Answers the doctor's one question with a visit's answers."""

    def __init__(
        self, visit: Visit | errors.FerryError, late: Visit | errors.FerryError | None = None, *, dry_run: bool = False
    ) -> None:
        self._visit, self._late, self.dry_run, self.asked = visit, late or visit, dry_run, 0
        self.scripts: list[Script] = []
        self.where = "root@h:22"
        self.has_sudo_password, self.run_id = False, MINE.removeprefix("ctr-ferry.")
        self.target = Target("h", "h")
        self.left = "namespace k8s.io\n"

    def open(self) -> None:
        pass

    def survey(self, *_: object) -> tuple[Any, Any]:
        self.asked += 1
        visit, self._visit = self._visit, self._late
        if isinstance(visit, errors.FerryError):
            raise visit
        return visit.facts, dict(visit.answers)

    def ask(self, script: Script) -> dict[str, Answer]:
        self.asked += 1
        self.scripts.append(script)
        return {name: detail(self.left if name == "leftovers" else "") for name in script.steps}


def examine(host: FakeHost, **options: bool) -> DoctorResult:
    body: Any = doctor_command.doctor.body
    result: DoctorResult = body(host, Request(**options))
    return result


class TestTheCommand:
    MESS = f"namespace k8s.io\nimages 1\ningest {RUN}-1\n"

    def leftovers(self, result: DoctorResult) -> Finding:
        return next(f for f in result.findings if f.what == "leftovers")

    def test_looks_in_one_remote_command(self) -> None:
        host = FakeHost(visit(clock="0"))
        assert examine(host).status is Status.OK
        assert host.asked == 1

    def test_looks_again_before_it_cleans(self) -> None:
        host = FakeHost(visit(leftovers=self.MESS))
        result = examine(host, clean=True)
        assert (result.status, host.asked) == (Status.CHANGED, 3)
        assert self.leftovers(result).text == f"removed in k8s.io: unfinished ingest {RUN}-1"

    def test_cleans_nothing_in_a_dry_run_nor_under_a_run_at_work(self) -> None:
        host = FakeHost(visit(leftovers=self.MESS), dry_run=True)
        assert (examine(host, clean=True).status, host.asked) == (Status.CHANGED, 1)
        host = FakeHost(visit(leftovers=self.MESS, sessions="2"))
        assert (examine(host, clean=True).status, host.asked) == (Status.OK, 1)

    def test_cleans_only_what_is_there_at_the_second_look_and_by_its_ctr(self) -> None:
        other = replace(facts().ctr, argv=("/usr/bin/ctr",))
        late = visit(replace(facts(), ctr=other), leftovers=f"namespace k8s.io\ningest {RUN}-2\n")
        host = FakeHost(visit(leftovers=self.MESS), late)
        assert examine(host, clean=True).cleaned == f"in k8s.io: unfinished ingest {RUN}-2"
        (done,) = host.scripts
        assert "/usr/bin/ctr --timeout" in done.steps["clean-0"] and f"{RUN}-1" not in done.steps["clean-0"]

    @pytest.mark.parametrize("late", [visit(), visit(leftovers=MESS, sessions="2"), errors.RemoteTimeout("slow")])
    def test_cleans_nothing_where_the_second_look_says_otherwise(self, late: Visit | errors.FerryError) -> None:
        host = FakeHost(visit(leftovers=self.MESS), late)
        with contextlib.suppress(errors.Unhealthy):
            assert examine(host, clean=True).status is Status.OK
        assert host.scripts == []

    def test_says_what_could_not_be_cleaned(self) -> None:
        host = FakeHost(visit(leftovers=self.MESS))
        host.left = self.MESS
        with pytest.raises(errors.Unhealthy, match="leftovers") as caught:
            examine(host, clean=True)
        assert self.leftovers(caught.value.result).health is Health.FAIL

    def test_a_fail_is_an_error_that_has_all_findings(self) -> None:
        with pytest.raises(errors.Unhealthy, match="ctr") as caught:
            examine(FakeHost(visit(errors.CtrNotFound("no ctr", hint="x"))))
        assert {"reachable", "clock", "content store"} <= {f.what for f in caught.value.result.findings}

    @pytest.mark.parametrize("error", [errors.PermissionDenied("no", detail="sudo: no"), errors.RemoteTimeout("slow")])
    def test_a_host_that_answers_nothing_is_a_finding(self, error: errors.FerryError) -> None:
        with pytest.raises(errors.Unhealthy) as caught:
            examine(FakeHost(error))
        assert [f.health for f in caught.value.result.findings] == [Health.OK, Health.FAIL]

    def test_an_unreachable_host_stays_unreachable(self) -> None:
        with pytest.raises(errors.ConnectionLost):
            examine(FakeHost(errors.ConnectionLost("gone")))


class Plain:
    """A paramiko channel's few words, over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.recv, self.sendall, self.settimeout, self.close = sock.recv, sock.sendall, sock.settimeout, sock.close


@contextmanager
def answering(*answers: bytes) -> Iterator[Any]:
    """A host through which a registry answers so."""
    ours, its = socket.socketpair()

    def serve() -> None:
        its.recv(4096)
        for answer in answers:
            its.sendall(answer)
        its.close()

    thread = threading.Thread(target=serve)
    thread.start()
    transport = SimpleNamespace(
        get_log_channel=lambda: "x", set_log_channel=lambda _: None, open_channel=lambda *_, **__: Plain(ours)
    )
    yield SimpleNamespace(open=lambda: None, is_lost=False, transport=transport, target=Target("a", "a"))
    thread.join()
    ours.close()


HTTP = Registry("r.example:5000", scheme="http")


class TestRegistries:
    @pytest.mark.parametrize(
        ("answers", "state", "text"),
        [
            ((b"HTTP/1.1 200 OK\r\n", b"A: b\r\n\r\n{}"), RegistryState.OPEN, ""),
            ((b"HTTP/1.1 401 No\r\nWWW-authenticate:  Bearer realm=x\r\n\r\n",), RegistryState.LOGIN, "Bearer"),
            ((b"HTTP/1.1 404 Not Found\r\n\r\n",), RegistryState.NO_REGISTRY, "404 Not Found at /v2/"),
            (
                (b"HTTP/1.0 400 Bad Request\r\n\r\n", b"Client sent an HTTP request to an HTTPS server.\n"),
                RegistryState.WANTS_TLS,
                "400 Bad Request",
            ),
            ((b"SSH-2.0-OpenSSH\x1b[31m\r\n",), RegistryState.NO_REGISTRY, "SSH-2.0-OpenSSH"),
            ((), RegistryState.NO_ANSWER, ""),
        ],
    )
    def test_are_known_by_their_answer(self, answers: tuple[bytes, ...], state: RegistryState, text: str) -> None:
        with answering(*answers) as host:
            (registry_status,) = registries.inspect(host, [HTTP])
        assert (registry_status.state, registry_status.detail) == (state, text)

    def test_that_speak_no_tls_are_told(self) -> None:
        with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as host:
            (registry_status,) = registries.inspect(host, [Registry("r.example")])
        assert registry_status.state is RegistryState.NO_TLS

    def test_a_ca_file_that_cannot_be_read_is_told(self) -> None:
        (registry_status,) = registries.inspect(
            SimpleNamespace(target=Target("a", "a")), [Registry("r.example", ca_file="/nowhere.pem")]
        )  # type: ignore[arg-type]
        assert registry_status.state is RegistryState.CA_FILE
        assert "/nowhere.pem" in registry_status.detail

    @pytest.mark.parametrize(
        ("code", "detail", "state"),
        [
            (1, "open failed", RegistryState.NOT_CHECKED),
            (3, "", RegistryState.NOT_CHECKED),
            (2, "Connection refused", RegistryState.REFUSED),
            (2, "unknown host (Name or service not known)", RegistryState.UNRESOLVED),
            (2, "Connection timed out", RegistryState.NO_ANSWER),
            (2, "No route to host", RegistryState.NO_ANSWER),
        ],
    )
    def test_refusals_are_told_apart_by_what_sshd_says(self, code: int, detail: str, state: RegistryState) -> None:
        logger: list[str] = []

        def refuse(*_: object, **__: object) -> None:
            import logging

            logging.getLogger(logger[0]).error("Secsh channel 3 open FAILED: %s: Connect failed", detail)
            raise paramiko.ChannelException(code, "Connect failed")

        transport = SimpleNamespace(
            get_log_channel=lambda: "before", set_log_channel=logger.append, open_channel=refuse
        )
        (registry_status,) = registries.inspect(
            SimpleNamespace(open=lambda: None, is_lost=False, transport=transport, target=Target("a", "a")), [HTTP]
        )  # type: ignore[arg-type]
        assert (registry_status.state, registry_status.detail) == (state, detail)
        assert logger[-1] == "before"

    def test_time_is_bounded_for_all_of_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registries, "_ALL", 0.0)
        registry_statuses = registries.inspect(SimpleNamespace(target=Target("a", "a")), [HTTP, HTTP])  # type: ignore[arg-type]
        assert [registry_status.state for registry_status in registry_statuses] == [RegistryState.NO_TIME] * 2

    def test_each_has_words_and_a_severity(self) -> None:
        for state in RegistryState:
            found = doctor_command._registry(registries.RegistryStatus(HTTP, state))
            assert bool(found.todo) == (found.health is not Health.OK), state

    @pytest.mark.parametrize(
        ("name", "scheme", "host", "port"),
        [
            ("r.example", "https", "r.example", 443),
            ("r.example", "http", "r.example", 80),
            ("10.0.0.1:5000", "http", "10.0.0.1", 5000),
            ("[::1]:5000", "http", "::1", 5000),
            ("[::1]", "https", "::1", 443),
            ("docker.io", "https", "registry-1.docker.io", 443),
        ],
    )
    def test_addresses(self, name: str, scheme: str, host: str, port: int) -> None:
        registry = Registry(name, scheme=scheme)
        assert (registry.host, registry.port) == (host, port)

    def test_certificates_are_checked_unless_told_otherwise(self) -> None:
        strict, lax = context(Registry("r")), context(Registry("r", skip_verify=True))
        assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert lax.verify_mode == ssl.CERT_NONE
