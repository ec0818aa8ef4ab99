"""Each runbook is correct POSIX sh, says what it does, and refuses a wrong command line before it touches a host."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from tools import environment_with

from ctr_ferry.delivery.routes import told
from ctr_ferry.text import size

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


def common(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that has read common.sh, as new-node.sh does."""
    env, argv = (
        environment_with(["jq"]),
        ["env", "sh", "-euc", f". '{CLONE}/runbooks/common.sh'; {script}", "new-node.sh"],
    )
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("number", [0, 1023, 1024, 1048524, 1048525, 3492563, 1073741824000])
def test_what_was_delivered_is_a_table_with_the_units_of_every_other_table(number: int, tmp_path: Path) -> None:
    moved = {"status": "changed", "route": "ssh", "bytes": number, "why": "from node9"}
    named = {"status": "changed", "route": "named", "bytes": 734, "why": "all is there"}
    outcomes = [{"host": host, "result": {"images": [one]}} for host, one in (("n10", moved), ("n9", named))]
    (tmp_path / "answer").write_text(json.dumps({"commands": [{"outcomes": outcomes}]}))
    done = common("delivered answer", tmp_path)
    width = max(len(size(number)), len("734 B"))
    assert done.stdout.splitlines() == [
        f"n10  changed  copied over SSH  1 image  {size(number):>{width}}  from node9",
        f"n9   changed  named there      1 image  {'734 B':>{width}}  all is there",
    ]


def test_a_route_has_the_words_of_the_table_of_deliver(tmp_path: Path) -> None:
    done = common("""jq -rn "$common_jq"'$ARGS.positional[] | route' --args there named registry ssh""", tmp_path)
    assert done.stdout.splitlines() == [told(word) for word in ("there", "named", "registry", "ssh")]


def test_a_hint_is_a_command_for_people_and_names_no_file_that_is_gone(tmp_path: Path) -> None:
    errors = [{"kind": "some-failed", "message": "one", "hint": f"then: fab deliver --set {tmp_path}/set"}]
    errors.append({"kind": "drift", "message": "two", "hint": "fab -H a find --json --dry-run"})
    outcomes = [{"host": "a", "status": "failed", "error": error} for error in errors]
    (tmp_path / "answer").write_text(json.dumps({"commands": [{"outcomes": outcomes}]}))
    done = common(f"work='{tmp_path}'; complain answer", tmp_path)
    assert done.stderr.splitlines() == [
        "a: drift: two; try: fab -H a find --dry-run",
        "a: some-failed: one; try: run new-node.sh again",
    ]


def test_the_error_of_the_only_image_is_told_once(tmp_path: Path) -> None:
    def error(hint: str) -> dict[str, str]:
        return {"kind": "drift", "message": "two", "hint": hint}

    images = {1: [{"error": error("choose")}], 2: [{"error": error("this")}, {"error": error("that")}]}
    outcomes = [
        {"host": f"n{n}", "status": "failed", "result": {"images": given}, "error": error("choose; then: fab hosts")}
        for n, given in images.items()
    ]
    (tmp_path / "answer").write_text(json.dumps({"commands": [{"outcomes": outcomes}]}))
    done = common(f"work='{tmp_path}'; complain answer", tmp_path)
    assert sorted(done.stderr.splitlines()) == [
        "n1,n2: drift: two; try: choose; then: fab hosts",
        "n2: drift: two; try: that",
        "n2: drift: two; try: this",
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
def test_a_page_describes_it_and_the_list_of_pages_leads_there(runbook: Path) -> None:
    text = (CLONE / "docs/runbooks" / f"{runbook.stem}.md").read_text()
    assert f"runbooks/{runbook.name} -H " in text and "(output)" not in text
    assert f"](runbooks/{runbook.stem}.md)" in (CLONE / "docs/README.md").read_text()
