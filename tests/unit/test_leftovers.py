"""What killed runs left is found by its exact form and removed; what others forge is neither believed nor removed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fan_outs import until
from visits import MARK, MINE, RUN, STAGE, D, facts, finding, visit

from ctr_ferry import errors
from ctr_ferry.ctr import health, leftovers
from ctr_ferry.ctr.health import Health
from ctr_ferry.ctr.leftovers import InNamespace
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh import guard


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
        assert f"/tmp/{RUN}.a1B2c3" in finding(found, "leftovers").message

    def test_cleaning_touches_only_them(self) -> None:
        there = [InNamespace("a", 1), InNamespace("b", 1, ["ctr-ferry.invalid/x:0"], [f"{RUN}-1"], {D: ["k"]})]
        script = leftovers.clean(facts().ctr, Settings(), there, [f"/tmp/{RUN}.a1B2c3"], MINE)
        assert list(script.steps) == ["clean-0", "clean-files", "namespaces", "leftovers", "files"]
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
*"k8s.io images ls")
  echo REF TYPE DIGEST
  printf '%s t/x {D} 1 MiB - - \\n' a/b:1 sha256:12 ctr-ferry.invalid/x:0 'ctr-ferry.invalid/x y' '{STAGE}' ;;
*"k8s.io content active") printf 'REF\\tSIZE\\tAGE\\n{RUN}-1\\t0B\\t1 second\\nother-{RUN}\\t0B\\t1\\n' ;;
*"k8s.io content ls")
  printf 'DIGEST SIZE AGE LABELS\\n{D} 1B 1 second containerd.io/gc.root={RUN}\\n{D} 1B 1 second x=y\\n' ;;
*"plugins ls -d") printf 'Type: io.containerd.content.v1\\nID: content\\nExports:\\n     root      {tmp_path}\\n\\n'
  printf 'Type: io.containerd.snapshotter.v1\\nExports:\\n     root      /elsewhere\\n' ;;
esac
""")
        ctr.chmod(0o755)
        prologue = (
            f"LC_ALL=C; export LC_ALL; set -f; ctr={ctr}; address=/x; ready() {{ :; }}; plugins=$($ctr plugins ls -d)\n"
            "namespaces=$($ctr namespaces ls -q)"
        )
        script = Script(health.questions(Settings()), prologue=prologue)
        argv = ["/bin/sh", "-c", script.render(MARK)]
        done = subprocess.run(argv, env=os.environ, capture_output=True, check=False)
        return script.read(MARK, done.stdout, done.stderr)

    def test_counts_and_finds(self, answers: dict[str, Answer]) -> None:
        assert answers["leftovers"].ok
        labels = {D: ["containerd.io/gc.root"]}
        assert leftovers.parse_namespaces(answers["leftovers"].text) == [
            InNamespace("k8s.io", 4, ["ctr-ferry.invalid/x:0", STAGE], [f"{RUN}-1"], labels),
            InNamespace("empty"),
        ]

    def test_looks_for_space_where_the_content_store_is(self, answers: dict[str, Answer], tmp_path: Path) -> None:
        shown = subprocess.run(["df", "-Pk", str(tmp_path)], capture_output=True, text=True, check=True).stdout
        assert answers["space"].text.splitlines()[1].split()[0] == shown.splitlines()[1].split()[0]
        assert finding(visit(space=answers["space"].text), "content store").message.endswith(shown.split()[-1])

    def test_tells_the_time_and_where_ctr_is(self, answers: dict[str, Answer]) -> None:
        assert int(answers["clock"].text) > 1_700_000_000
        assert answers["path"].text.endswith("/ctr\n")

    def test_asks_nothing_of_a_containerd_that_is_not_ready(self, tmp_path: Path) -> None:
        script = Script(health.questions(Settings(root=str(tmp_path / "gone"))), prologue="ctr=; ready() { false; }")
        done = subprocess.run(["/bin/sh", "-c", script.render(MARK)], capture_output=True, check=False)
        answers = script.read(MARK, done.stdout, done.stderr)
        assert (answers["leftovers"].ok, answers["leftovers"].text.strip()) == (False, "")
        assert finding(visit(space=answers["space"].text), "content store").status in list(Health)
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
    for name in ("sh", "find", "grep", "sed", "sort", "tr", "id", "rm", "cat", "stat", "readlink"):
        (folder / name).symlink_to(str(BUSYBOX))
    return ["env", f"TMPDIR={tmp_path}", f"PATH={folder}", str(folder / "sh")]


def found_by(ctr: Path) -> str:
    """Returns what the step ``leftovers`` prints with this ctr."""
    known = f"ctr={ctr}; address=/x; ready() {{ :; }}; namespaces=$($ctr namespaces ls -q)"
    return run(["/bin/sh"], f"{known}\n{leftovers.LEFTOVERS}")


def run(tools: list[str], step: str, **more: Any) -> str:
    text = f"LC_ALL=C; export LC_ALL; set -f\n{step}"
    done = subprocess.run([*tools, "-c", text], capture_output=True, check=False, **more)
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

        def in_container(pid: int) -> bool:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return any(Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"/bin/sh\0") for child in children)

        ready = "ferry-0000aaaa00000002"
        started = [
            start(line(1)),
            start(f"echo {ready}-ready >&2; {line(2)}", stderr=subprocess.DEVNULL),
            start(line(3), "/bin/sh", "-c", 'eval "$0"'),
            start(line(4), user=NOBODY),
            start(line(5), user=NOBODY, group=NOBODY, extra_groups=[4321]),
            start("sleep 60", "/bin/sh", "-c", "read -r l; :", "ferry-0000aaaa00000006"),
            start(line(7), "unshare", "--pid", "--fork", "--kill-child", "/bin/sh", "-c"),  # as in a container
        ]
        try:
            until(lambda: in_container(started[-1].pid))
            count = leftovers.SESSIONS.replace("ferry-[0-9a-f]\\{16\\}", "ferry-0000aaaa[0-9]*")  # of this test
            assert count != leftovers.SESSIONS
            assert run(tools, count) == "0\n"  # nothing is left
            count = f"left='blob x'\n{count}"
            assert run(tools, count) == "3\n"
            assert run(tools, count.replace("left='blob x'", "left_files=/tmp/x")) == "3\n"
            assert run(["env", f"SUDO_UID={NOBODY}", *tools], count) == "5\n"
            for unknown in ("/proc/self/ns/pid", "${status%status}ns/pid"):
                assert run(tools, count.replace(unknown, "/nowhere")) == "4\n"  # whoever it is may be one
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

    @pytest.mark.parametrize(
        ("name", "ours"),
        [
            (f"r.example:5000/a/b-c:{RUN}@{D}", True),
            (STAGE, True),
            (f"r.example/a:{RUN}", False),
            (f"r.example/a:{RUN}@{D} x", False),
            (f"r.example/a:ctr-ferry.1@{D}", False),
            (f"r.example/a:x{RUN}@{D}", False),
            (f"r.example/a b:{RUN}@{D}", False),
            (f"r.example/a:1@{D}", False),
        ],
    )
    def test_a_name_of_a_pull_is_found_on_the_host_by_its_form(self, tmp_path: Path, name: str, ours: bool) -> None:
        (tmp_path / "names").write_text(f"REF TYPE DIGEST\n{name} t/x {D} 1 MiB - - \n")
        (tmp_path / "ctr").write_text(
            f'#!/bin/sh\ncase "$*" in *"namespaces ls -q") echo a;; *"images ls") cat {tmp_path}/names;; esac\n'
        )
        (tmp_path / "ctr").chmod(0o755)
        text = found_by(tmp_path / "ctr")
        assert leftovers.parse_namespaces(text) == [InNamespace("a", 1, [name] * ours)]

    @pytest.mark.parametrize(
        ("others", "gone"), [([], True), ([f"sha256:{'d' * 64}"], True), (["r.example/app:1"], False)]
    )
    def test_a_record_of_cri_goes_with_our_names_unless_a_users_name_has_its_digest(
        self, tmp_path: Path, others: list[str], gone: bool
    ) -> None:
        record = f"sha256:{'c' * 64}"
        (tmp_path / "left").write_text("\n".join([record, *others, ""]))
        (tmp_path / "ctr").write_text(f"""#!/bin/sh
case "$*" in
*"images ls name=="*) printf 'REF TYPE DIGEST SIZE PLATFORMS LABELS\n%s t/x {D} 1 B linux/amd64 -\n' '{STAGE}' ;;
*"images ls -q target.digest=={D}") cat {tmp_path}/left ;;
*"images ls -q"*) echo r.example/other:1 ;;
*"images rm"*) echo "$*" >>{tmp_path}/log ;;
esac
""")
        (tmp_path / "ctr").chmod(0o755)
        with_ctr = replace(facts().ctr, argv=(f"{tmp_path}/ctr",))
        script = leftovers.clean(with_ctr, Settings(), [InNamespace("k8s.io", 2, [STAGE])], [], MINE)
        run(["/bin/sh"], script.steps["clean-0"])
        first, *then = (line.partition("images rm ")[2] for line in (tmp_path / "log").read_text().splitlines())
        assert first == f"--sync {STAGE}"
        assert then == ([record, *others] if gone else [])
        other = leftovers.clean(with_ctr, Settings(), [InNamespace("plain", 2, [STAGE])], [], MINE)
        assert "target.digest" not in other.steps["clean-0"]

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

    def test_a_row_that_a_label_forges_is_reported(self, tmp_path: Path) -> None:
        row, ctr = f"a {'t':9} {D} 1 MiB - ", tmp_path / "ctr"
        ctr.write_text(f"""#!/bin/sh
case "$*" in
*"namespaces ls -q") echo k8s.io ;;
*"images ls") printf 'REF \\n%s\\n%s\\n%s\\n' '{row}- ' '{row}x=y' '{row}- ' ;;
esac
""")
        ctr.chmod(0o755)
        text = found_by(ctr)
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
*"images ls") printf 'REF\na\nname {D}\nctr-ferry.invalid/x y:0 t/x {D} 1 B - - \n' ;;
*"content active") printf 'REF\nctr-ferry.x;id 0B 1\nname {D}\n' ;;
*"content ls") printf 'DIGEST\nname x=ctr-ferry.y {D}\nnamespace x=ctr-ferry.y\n' ;;
esac
""")
        ctr.chmod(0o755)
        text = found_by(ctr)
        (there,) = leftovers.parse_namespaces(text)
        assert (there.names, there.ingests, there.labels) == ([], [], {})
