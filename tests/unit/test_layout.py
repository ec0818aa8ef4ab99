"""What people see on a terminal of 80, 100 and 200 columns, and in a pipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache

import pytest
from screen import ROOT, rendered, seen
from shown_answers import COMMANDS, DIGEST, LONG, NEW, OLD, RUN

from ctr_ferry.report import layout

PROGRAM = [sys.executable, str(ROOT / "tests" / "support" / "shown_answers.py")]
ENV = {"PYTHONPATH": str(ROOT)}
EVERY = [*COMMANDS, "show"]
WIDE_ENOUGH = re.compile(r"\bfab |^registry\.example\S+$")  # a command to paste, a reference that is longer


@cache
def shown(command: str, columns: int, *options: str, **env: str) -> str:
    return seen([*PROGRAM, command, *options], columns, {**ENV, **env}, stderr=True)


@cache
def piped(command: str, *options: str) -> str:
    words = [*PROGRAM, command, *options]
    return subprocess.run(words, cwd=ROOT, env={**os.environ, **ENV}, capture_output=True, text=True, check=True).stdout


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("command", EVERY)
def test_every_line_fits_the_terminal_and_no_reference_is_cut(command: str, columns: int) -> None:
    text = without_colours(shown(command, columns))
    lines = text.splitlines()
    assert "Traceback" not in text
    assert [line for line in lines if len(line) > columns and not WIDE_ENOUGH.search(line)] == []
    words = set(re.split(r"[\s,]+", text))
    assert {word for word in words if "/library/" in word} <= {OLD, NEW}
    assert {word for word in words if "/somebody/" in word} <= {LONG}
    assert "node[1-6]" in text or "node[1-" in text


@pytest.mark.parametrize("command", EVERY)
def test_digests_are_short_on_a_terminal_and_whole_elsewhere(command: str) -> None:
    alone = rf"(?<!@){DIGEST}"
    short, wide, pipe = shown(command, 100), shown(command, 100, "--wide"), piped(command)
    assert not re.search(alone, short)
    assert without_colours(wide) == pipe
    if command != "doctor":
        assert re.search(rf"\b{DIGEST[7:19]}\b", short) and re.search(alone, pipe)


@pytest.mark.parametrize("command", EVERY)
@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "TERM=dumb"])
def test_colours_are_left_out_where_nobody_wants_them(command: str, env: dict[str, str]) -> None:
    coloured = shown(command, 80)
    assert "\x1b" not in shown(command, 80, **env) == without_colours(coloured)
    assert "\x1b" not in piped(command)
    assert ("\x1b[" in coloured) == (command != "show")


def test_a_column_that_says_the_same_in_every_row_is_told_once_where_the_table_is_too_wide() -> None:
    at_80, at_300 = shown("deliver", 80), shown("deliver", 300)
    assert at_80.startswith("in every row: DIGEST ") and "DIGEST" not in at_80.splitlines()[2]
    assert at_300.startswith("HOST ") and "in every row" not in at_300


def test_a_new_name_that_is_the_same_in_every_row_is_told_once_and_a_sentence_is_not() -> None:
    names, sentence = f"{'a' * 20} -> {'b' * 20}", f"{'c' * 20} {'d' * 20}"
    rows = [("node1", names, sentence), ("node2", names, sentence)]
    told, *table = layout.fitted(("HOST", "IMAGE", "WHY"), rows, 70).splitlines()
    assert told == f"in every row: IMAGE {names}"
    assert sum(sentence in line for line in table) == 2


def test_times_that_are_the_same_by_chance_stay_in_their_rows() -> None:
    rows = [("node1", "0.5 s", "a" * 40), ("node2", "0.5 s", "b" * 40)]
    assert "in every row" not in layout.fitted(("HOST", "TIME", "IMAGE"), rows, 50)


def test_numbers_stand_at_the_right() -> None:
    lines = layout.plain(("A", "SIZE", "TIME"), [("x", "3.3 MiB", "0.4 s"), ("y", "734 B", "12.0 s")]).splitlines()
    assert lines == ["A     SIZE    TIME", "x  3.3 MiB   0.4 s", "y    734 B  12.0 s"]


def test_a_long_list_of_hosts_is_folded_after_a_comma() -> None:
    hosts = f"node[{','.join(map(str, range(1, 200, 2)))}]"
    lines = layout.fitted(("HOST", "WHAT"), [(hosts, "a word")], 60).splitlines()
    assert all(len(line) <= 60 for line in lines) and len(lines) > 5
    assert "".join(line.split("  ")[0].strip() for line in lines[1:]).replace("aword", "") == hosts


def test_a_command_to_paste_is_one_line_with_its_digest() -> None:
    command = f"try: fab -H node1 check --ref r.example/app:1 --digest {DIGEST}"
    lines = layout.fitted(("HOST", "X"), [("node1", f"it failed\n  {command}")], 60).splitlines()
    assert lines[-1] == f"  {command}"


@pytest.mark.parametrize(
    ("before", "command"),
    [
        ("  try: did you mean node1? with node1 in place of nod1, which is no host:", "fab -H node1 images --ref a:1"),
        ("  try: the key is locked, so unlock it for the agent that runs here first:", "ssh-add ~/.ssh/id_ed25519"),
    ],
)
def test_words_before_a_command_are_folded_and_the_command_is_not(before: str, command: str) -> None:
    lines = layout.wrapped(f"{before} {command}", 40)
    assert len(lines) > 2 and all(len(line) <= 40 for line in lines)
    assert " ".join(" ".join(lines).split()) == f"{before.strip()} {command}" and lines[-1].endswith(command)


def test_a_line_that_names_the_program_often_is_read_in_linear_time() -> None:
    line = "fab " * 200_000  # took minutes, as each word might have begun a command
    assert layout.short(line) == line and max(map(len, layout.wrapped(line, 80))) <= 80


def test_an_error_before_any_host_fits_the_terminal_that_shows_it() -> None:
    code = "from ctr_ferry.report import render; from ctr_ferry.errors import UsageError; "
    code += "render.failure(UsageError('word ' * 60, hint='more ' * 30 + 'then: fab -H node1 images'), as_json=False)"
    lines = rendered(code, 60, stderr=True).splitlines()
    assert len(lines) > 5 and all(len(line) <= 60 for line in lines)
    assert lines[-1].strip() == "fab -H node1 images"


def test_the_terminal_of_stderr_counts_where_stdout_is_a_pipe() -> None:
    code = "import os; os.dup2(os.open('/dev/null', os.O_WRONLY), 1); from ctr_ferry.report import render; "
    lines = rendered(f"{code}render.note('word ' * 60)", 150, stderr=True).splitlines()
    assert 100 < max(map(len, lines)) <= 150


def test_wide_characters_count_twice() -> None:
    assert layout.width("名a") == 3
    assert layout.wrapped("名名名 名名名", 8, 0) == ["名名名", "名名名"]


def test_a_row_begins_with_its_first_column_also_where_another_one_needs_lines_of_its_own() -> None:
    rows = [("socket", "ok", "/run/containerd.sock", "-"), ("store", "fail", "/var/lib/" + "x" * 30, "repair it")]
    assert layout.fitted(("FINDING", "STATUS", "SEEN", "WHAT TO DO"), rows, 50).splitlines() == [
        "FINDING  STATUS  WHAT TO DO",
        "  SEEN",
        "socket   ok      -",
        "  /run/containerd.sock",
        "store    fail    repair it",
        "  /var/lib/" + "x" * 30,
    ]
    rows = [(seen, finding, status, what) for finding, status, seen, what in rows]
    assert layout.fitted(("SEEN", "FINDING", "STATUS", "WHAT TO DO"), rows, 50).splitlines()[-2:] == [
        "/var/lib/" + "x" * 30,
        "  store    fail    repair it",
    ]


class TestRecap:
    def test_counts_hosts_and_names_those_that_went_wrong(self) -> None:
        *_, logs, last = piped("retag").splitlines()
        assert last == "RECAP changed=44 failed=1 (node4) unreachable=1 (node6)"
        assert logs == f"logs: fab show --log --run {RUN}"

    def test_has_no_word_about_logs_where_all_is_well(self) -> None:
        *_, before, last = piped("copy").splitlines()
        assert last == "RECAP changed=6" and "fab show" not in before

    def test_of_many_scattered_hosts_fits_the_terminal(self) -> None:
        code = "from ctr_ferry.report.outcome import Outcome, Status; from ctr_ferry.report import render; "
        code += "ends = [Outcome(f'node{n:03}', Status.FAILED if n % 3 else Status.OK, 1.0) for n in range(300)]; "
        code += "render.recap([render.Done('images', {}, ends)], '')"
        first, *more = rendered(code, 80).splitlines()
        assert first.startswith("RECAP \x1b[32mok=100\x1b[0m \x1b[1;31mfailed=200\x1b[0m (node[001-002,004-005,")
        assert len(more) > 5 and all(len(line) <= 80 for line in map(without_colours, [first, *more]))
        assert "".join(more).split()[-1].endswith(",298-299])")
