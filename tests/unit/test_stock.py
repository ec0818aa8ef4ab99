"""Stock `fab` in a pipe, and the command lines that its own parser refuses, with this project's fabfile."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from invoke.program import Program

from ctr_ferry.run import stock

ROOT = Path(__file__).resolve().parents[2]
FAB = [sys.executable, "-m", "fabric"]
OURS = [sys.executable, "-c", "import sys; from ctr_ferry.run import program; program.main('ctr-ferry', *sys.argv[1:])"]


def told(*words: str, program: list[str] = FAB) -> tuple[int, dict[str, Any], str]:
    """Run a command line; return its exit status, the document on stdout, and stderr."""
    done = subprocess.run([*program, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("words", ["-H x images --nosuch --json", "nosuch --json", "show --json --run"])
@pytest.mark.parametrize("program", [FAB, OURS], ids=["fab", "ctr-ferry"])
def test_a_line_that_invokes_parser_refuses_gives_scripts_a_document(program: list[str], words: str) -> None:
    status, document, err = told(*words.split(), program=program)
    assert (status, document["exit"], document["run"], document["commands"]) == (1, 1, None, [])
    assert document["error"]["kind"] == "bad-arguments" and document["error"]["message"] in err


def test_without_json_such_a_line_prints_nothing_on_stdout() -> None:
    done = subprocess.run(
        [*FAB, "images", "--nosuch"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "") and "--nosuch" in done.stderr


def test_csv_and_json_exclude_each_other() -> None:
    status, document, _ = told("-H", "x", "images", "--csv", "--json")
    assert (status, document["exit"], document["error"]["kind"]) == (2, 2, "bad-arguments")
    assert document["error"]["hint"].endswith("fab -H x images --json")


@pytest.mark.parametrize("step", ["parse_collection", "parse_tasks"])
def test_ctrl_c_before_the_line_is_read_is_told_as_one_behind(
    step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Program, step, stock._step(cut))
    with pytest.raises(SystemExit) as ended:
        Program().run(["fab", "images", "--json"])
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (ended.value.code, document["exit"], document["error"]["kind"]) == (130, 130, "interrupted")
    assert err == "interrupted before any host was touched\n"


def test_ctrl_c_while_the_executor_is_imported_is_told() -> None:
    code = """
import sys
class Cut:
    def find_spec(self, name, *_):
        if name == "ctr_ferry.run.executor":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Cut())
from ctr_ferry.run.program import main
main("ctr-ferry", "-H", "127.0.0.1", "images", "--json")"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted before any host was touched\n")
    assert json.loads(done.stdout)["error"]["kind"] == "interrupted"


def test_ctrl_c_shows_no_place_of_ours_and_ignored_it_stays_ignored(tmp_path: Path) -> None:
    # Stands for the first import: it gets the signal while it is imported.
    (tmp_path / "ctr_ferry/run").mkdir(parents=True)
    (tmp_path / "ctr_ferry/run/program.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nmain = print\n"
    )
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    shutil.copy(ROOT / "ctr-ferry", tmp_path)
    for signals, ended in (
        ("--default-signal=INT", (-signal.SIGINT, "", "")),
        ("--ignore-signal=INT", (0, "ctr-ferry x\n", "")),
    ):
        argv = ["env", signals, tmp_path / "ctr-ferry", "x"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == ended


@pytest.mark.parametrize("words", ["--list", "--help copy", "--list --list-format json", "runs"])
def test_a_reader_that_has_left_is_no_error(words: str) -> None:
    script = '{ "$@"; echo "$?" >&2; } | true'
    for _ in range(2):  # with one try, fab might have been quicker
        argv = ["sh", "-c", script, "sh", *FAB, *words.split()]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout, done.stderr.splitlines()[-1:]) == ("", ["0"])
        assert "BrokenPipe" not in done.stderr and "Traceback" not in done.stderr
