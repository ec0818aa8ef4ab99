"""Each runbook is correct POSIX sh, says what it does, and refuses a wrong command line before it touches a host."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from tools import environment_with

CLONE = Path(__file__).resolve().parents[2]
FILES = sorted((CLONE / "runbooks").glob("*.sh"))
RUNBOOKS = [file for file in FILES if file.name != "common.sh"]
NAMES = ["before-upgrade", "move-registry", "new-node", "nightly-drift", "rescue-image"]

each = pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda runbook: runbook.stem)


def call(runbook: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a runbook where there are no programs but those of a bare system: neither fab nor jq."""
    env = {"PATH": "/usr/bin:/bin", "CTR_FERRY": "/nowhere"}
    return subprocess.run([runbook, *words], env=env, capture_output=True, text=True, check=False)


def test_these_runbooks_exist() -> None:
    assert [runbook.stem for runbook in RUNBOOKS] == NAMES


def test_shellcheck_has_no_remark() -> None:
    env, argv = environment_with(["shellcheck"]), ["env", "shellcheck", "--shell=sh", *map(str, FILES)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_sh_can_read_it(file: Path) -> None:
    done = subprocess.run(["sh", "-n", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_hint_that_names_a_file_of_the_runbook_says_to_run_the_runbook_again(tmp_path: Path) -> None:
    errors = [{"kind": "some-failed", "message": "one", "hint": f"then: fab deliver --set {tmp_path}/set"}]
    errors.append({"kind": "drift", "message": "two", "hint": "fab -H a find"})
    outcomes = [{"host": "a", "status": "failed", "error": error} for error in errors]
    (tmp_path / "answer").write_text(json.dumps({"commands": [{"outcomes": outcomes}]}))
    script = f". '{CLONE}/runbooks/common.sh'; work='{tmp_path}'; complain '{tmp_path}/answer'"
    env, argv = environment_with(["jq"]), ["env", "sh", "-euc", script, "new-node.sh"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines() == [
        "a: drift: two; try: fab -H a find",
        "a: some-failed: one; try: run new-node.sh again",
    ]


@each
def test_help_is_the_comment_at_the_top_and_names_every_option(runbook: Path) -> None:
    text = runbook.read_text()
    done = call(runbook, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{runbook.name}: ")
    for word in ("What it does", "It needs: jq", "It takes", "run again", "Exit status: 0 "):
        assert word in done.stdout
    taken = {option for line in re.findall(r"^    (-[-\w]+)\) ", text, re.MULTILINE) for option in line.split()}
    assert {"-H", "--dry-run", "--help"} <= taken
    described = set(re.findall(r"^  (-[-\w]+) ", done.stdout, re.MULTILINE))
    assert described == taken - {"--help"}


@each
@pytest.mark.parametrize("words", [(), ("--nonsense",), ("-H",), ("-H", ""), ("node1",), ("--dry-run",)], ids=str)
def test_a_wrong_command_line_is_refused(runbook: Path, words: tuple[str, ...]) -> None:
    done = call(runbook, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"{runbook.name}: try: {runbook} --help"


@each
def test_a_page_describes_it_and_readme_leads_there(runbook: Path) -> None:
    page = f"docs/runbooks/{runbook.stem}.md"
    text = (CLONE / page).read_text()
    assert f"runbooks/{runbook.name} -H " in text and "(output)" not in text
    assert page in (CLONE / "README.md").read_text()
