"""What TAB offers, as pure functions of the line, and what it reads of old records."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from fabric.main import make_program
from prompts import ROOT
from tools import environment_with

from ctr_ferry.errors import UsageError
from ctr_ferry.report.past_names import image_names, run_ids
from ctr_ferry.run.completion import FABRICS_OWN, ProjectCommands
from ctr_ferry.run.offers import CHOICES, Completion
from ctr_ferry.run.typed import for_bash, split
from tasks import completion, deliver, retag

BREAKS = " \t\n\"'@><=;|&(:"  # bash's own
STATUSES = ("failed", "unreachable", "skipped", "changed", "unchanged", "would-change", "ok")
COMMANDS = ProjectCommands()


@dataclass(frozen=True)
class Known:
    """What is known in these tests."""

    hosts: Sequence[str] = ("node1", "node2", "2001:db8::7", "a b", "$(x)")
    groups: Sequence[str] = ("all", "workers")
    registries: Sequence[str] = ("r.example:5000",)
    images: Sequence[str] = ("r.example:5000/app:1", "`x`/app:1")
    runs: Sequence[str] = ("20261124T031500Z-images-1f2e",)


def offered(line: str) -> tuple[str, ...]:
    found = Completion(COMMANDS, Known()).offer(split(line))
    assert found.kind == "words"
    return found.words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fab -H ", ("node1", "node2", "2001:db8::7", "all", "workers")),
        ("fab -H node1,", ("node1,node2", "node1,2001:db8::7", "node1,all", "node1,workers")),
        ("fab -H all,!n", ("all,!node1", "all,!node2")),
        ("fab -H @fa", ("@failed",)),
        ("fab -H @2026", tuple(f"@20261124T031500Z-images-1f2e:{status}" for status in STATUSES)),
    ],
)
def test_hosts_are_offered_as_patterns(line: str, words: tuple[str, ...]) -> None:
    assert offered(line) == words


def test_an_option_that_stands_already_is_not_offered_again_unless_it_may_be_repeated() -> None:
    words = offered("fab -H node1 copy --force --ref x --from node2 --")
    assert "--ref" in words and "--pin" in words and "--force" not in words


def test_options_are_those_of_the_last_command() -> None:
    assert "--csv" in offered("fab -H all find --match x images --")
    assert "--csv" not in offered("fab -H all images --csv find --")


def test_a_value_is_no_command() -> None:
    assert "--command" not in offered("fab -H run images --")
    assert offered("fab -H all run images ret") == ("retag",)
    assert offered("fab -H all images --namespace ") == ()


def test_nothing_is_offered_behind_two_dashes() -> None:
    assert offered("fab -H all -- re") == ()


@pytest.mark.parametrize(("line", "kind"), [("fab load --archive=x", "files"), ("fab -r x", "folders")])
def test_the_shell_itself_completes_files(line: str, kind: str) -> None:
    assert Completion(COMMANDS, Known()).offer(split(line)).kind == kind


def test_the_choices_are_those_that_the_commands_take() -> None:
    for option, parse in (("method", retag.parse), ("via", deliver.parse)):
        with pytest.raises(UsageError) as caught:
            parse(src="a.example/b:1", dst="c.example/d:1", **{option: "other"})
        assert caught.value.message.endswith(f"is none of {', '.join(CHOICES[option])}")
    with pytest.raises(UsageError, match=", ".join(CHOICES["shell"])):
        completion.parse("tcsh")


def test_the_options_of_fab_itself_are_all_there() -> None:
    program = make_program()
    real = {name: arg.takes_value for arg in program.core_args() + program.task_args() for name in arg.names}
    ours = {name: arg.takes_value for arg in COMMANDS.core.args.values() for name in arg.names}
    assert ours == real and all(name in real for names in FABRICS_OWN for name in names)


@pytest.mark.parametrize(
    ("line", "word", "kept"),
    [
        ("fab --ref r.example:5000/app:v", "r.example:5000/app:v", "r.example:5000/app:"),
        ("fab --ref app@sha256", "app@sha256", "app"),
        ("fab --ref=app", "--ref=app", "--ref="),
        (r"fab -H 2001\:db8", "2001:db8", ""),
        ("fab -H 'a:b", "a:b", ""),
        ("fab -H ", "", ""),
    ],
)
def test_a_line_is_parted_as_bash_parts_it(line: str, word: str, kept: str) -> None:
    typed = split(line, BREAKS)
    assert (typed.word, typed.kept) == (word, kept)


def test_bash_gets_back_only_what_it_replaces_with_patterns_quoted() -> None:
    assert for_bash(split("fab -H 2001:d", BREAKS), ["2001:db8::7"]) == ["db8::7"]
    assert for_bash(split("fab -H n", BREAKS), ["n[1-2]"]) == [r"n\[1-2\]"]
    assert for_bash(split("fab -H '!", BREAKS), ["!all"]) == ["!all"]
    assert for_bash(split('fab -H "!', BREAKS), ["!all"]) == []


def record(root: Path, number: int, *lines: str) -> Path:
    folder = root / f"20261124T0315{number:02}Z-images-1f2e"
    folder.mkdir(parents=True)
    (folder / "node1.jsonl").write_text("\n".join(lines))
    return folder


def test_names_come_from_the_newest_records_first_and_none_that_a_shell_would_run(tmp_path: Path) -> None:
    record(tmp_path, 1, json.dumps({"result": {"reference": "old.example/app:1"}}))
    names = ["new.example/app:1", "a.example/$(x):1", "a.example/`x`", "a b/c", "a/\n", "-x/y:1", 'a/"', "sha256:aa"]
    folder = record(tmp_path, 2, json.dumps({"result": {"images": [{"reference": name} for name in names]}}), "{cut")
    (folder / "run.json").write_text(json.dumps({"commands": [{"arguments": {"ref": ["typed/app:1", "app"]}}]}))
    os.mkfifo(folder / "node2.jsonl")
    assert image_names(tmp_path) == ["new.example/app:1", "typed/app:1", "old.example/app:1"]
    assert run_ids(tmp_path) == ["20261124T031502Z-images-1f2e", "20261124T031501Z-images-1f2e"]


def test_much_is_not_read(tmp_path: Path) -> None:
    record(tmp_path, 1, json.dumps({"result": {"reference": "old.example/app:1"}}))
    record(tmp_path, 2, json.dumps({"images": [{"reference": f"r.example/app:{n}"} for n in range(50_000)]}))
    assert len(image_names(tmp_path)) == 300 and "old.example/app:1" not in image_names(tmp_path)
    assert image_names(tmp_path / "none") == run_ids(tmp_path / "none") == []


def test_the_script_for_bash_is_correct(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(completion.script("bash", "fab"))
    argv = ["env", "shellcheck", "--shell=bash", str(tmp_path / "script")]
    done = subprocess.run(argv, env=environment_with(["shellcheck"]), capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_the_script_outlives_an_upgrade_of_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = tmp_path / "0.2.0"
    version.mkdir()
    (tmp_path / "current").symlink_to("0.2.0")
    monkeypatch.setattr(completion, "PROJECT", version)
    (version / "ctr_ferry").symlink_to(ROOT / "ctr_ferry")
    monkeypatch.setattr(sys, "executable", str(version / ".venv/bin/python"))
    text = completion.script("zsh", "ctr-ferry")
    assert f"{tmp_path}/current/.venv/bin/python" in text and f"{tmp_path}/current zsh" in text
    assert str(version) not in text


def pressed(line: str, folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """What the script for bash is told."""
    text = completion.script("bash", "fab")
    (ask,) = re.findall(r"< <\((.*) 2>/dev/null", text)
    argv = ["bash", "-c", f"COMP_WORDBREAKS= COMP_POINT=${{#COMP_LINE}}; {ask}"]
    environment = {**os.environ, "COMP_LINE": line, **given}
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_completion_imports_no_paramiko_and_writes_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['', '', 'fish', 'fab', 'fab', 'copy', '--from', '']; sys.path.insert(0, '.');"
        "from ctr_ferry.run.completion import main; main(); print('paramiko' in sys.modules)"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "FABRIC_FLEET_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[:3] == ["words", "any", "node1"] and done.stdout.split()[-1] == "False"
    assert not list(tmp_path.iterdir())


def test_in_the_folder_of_another_fabfile_invokes_own_completion_is_asked(tmp_path: Path) -> None:
    (tmp_path / "fabfile.py").write_text("from fabric import task\n\n@task\ndef theirs(c):\n    pass\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert pressed("fab th", tmp_path, PATH=path).stdout.split() == ["words", "theirs"]
    assert pressed("fab ret", tmp_path, PATH=path).stdout.split() == ["files"]


@pytest.mark.parametrize("line", ["fab -H ", "fab -f none -H ", "", "fab 'x", "fab -f"])
def test_a_line_that_cannot_be_completed_says_nothing(line: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("all: [")
    done = pressed(line, ROOT, CTR_FERRY_INVENTORY=str(tmp_path / "wrong.yaml"))
    assert (done.returncode, done.stderr) == (0, "") and "node1" not in done.stdout
