"""An earlier run is found by its id, and a pattern means its hosts with a status; only runs that could change count."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from invoke.parser import Parser, ParserContext
from run_records import ID, Book

import fabfile
from ctr_ferry import errors
from ctr_ferry.report.outcome import Outcome, Status
from ctr_ferry.report.past_runs import Past, Run, Runs
from ctr_ferry.report.record import process_start
from ctr_ferry.ssh.exchange import Transcript
from tasks.runs import runs as runs_command
from tasks.show import show as show_command


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "runs")


@pytest.fixture
def three(book: Book) -> Runs:
    """Three runs, the last of them without a failed host."""
    book.run("20261101T000000Z-retag-aaaa", a="failed", b="unreachable", c="changed")
    book.run("20261102T000000Z-find-bbbb", a="failed", b="ok")
    book.run("20261103T000000Z-retag-cccc", a="ok", b="unreachable")
    return Runs(book.root)


def shown(book: Book, **options: Any) -> str:
    return str(show_command.body(SimpleNamespace(runs=Runs(book.root)), show_command.parse(**options)).text)


LINES = [
    ("copy", {"from": ["a"], "ref": ["r.example/a:1", "r.example/b:1"], "set": [], "force": True, "as": None}),
    ("run", {"command": "echo \"$HOME\" 'a b'; -x", "json": True, "serial": "5", "limit_failures": "10%"}),
    ("run", {"command": "-n", "dry_run": True}),
    ("remove", {"match": "*/dead:?", "yes": True}),
]


@pytest.mark.parametrize(
    ("patterns", "hosts"), [(["web*", "!b"], "web*,!b"), (["@failed"], "a,b"), (["b", "!@changed"], "a,b"), ([], "a,b")]
)
def test_show_tells_lines_that_can_be_pasted(book: Book, patterns: list[str], hosts: str) -> None:
    record = book.record()
    record._head["patterns"] = patterns
    for command, arguments in LINES:
        record.command(command, arguments, dry_run="dry_run" in arguments)
    record.end(0)
    lines = [shlex.split(line) for line in shown(book).splitlines() if line.startswith("fab ")]
    assert [line[:3] for line in lines] == [["fab", "-H", hosts]] * len(LINES)
    for (command, arguments), words in zip(LINES, lines, strict=True):
        context = ParserContext(command, args=getattr(fabfile, command).get_arguments())
        (parsed,) = Parser(contexts=[context]).parse_argv(words[3:])
        given = {name.rstrip("_"): value for name, value in parsed.as_kwargs.items() if value}
        assert given == {name: value for name, value in arguments.items() if value}


def test_show_keeps_the_options_before_the_command(book: Book) -> None:
    record = book.record()
    record._head |= {"patterns": ["a"], "options": ["--identity", "a key", "--prompt-for-sudo-password"]}
    record.command("run", {"command": "id"}, dry_run=False)
    record.end(0)
    assert "\nfab -H a --identity 'a key' --prompt-for-sudo-password run --command id\n" in shown(book)


LOG = """[version]
Client:
[plugins]
Type:          io.containerd.content.v1
Exports:
      root     /x
[images-0]
REF
--- stderr
"""


def test_the_log_leaves_out_the_lists_of_plugins(book: Book) -> None:
    record = book.record()
    for _ in range(2):
        stdout = LOG.removesuffix("--- stderr\n").encode()
        record.exchange("a", Transcript("plugins: ctr plugins ls", 0, 0.1, stdout, b""))
    record.exchange("b", Transcript("plugins: ctr plugins ls", 0, 0.1, b"[plugins]\nType: x\n", b"[plugins]\nerror\n"))
    short = shown(book, log=True)
    assert short.count("[plugins]\n… 3 lines: show --log --all has them\n[images-0]\nREF\n--- stderr\n") == 2
    assert "[plugins]\n… 1 lines: show --log --all has them\n--- stderr" in short and "Type:" not in short
    assert shown(book, log=True, all=True).count(LOG) == 2


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("last", "20261103T000000Z-retag-cccc"),
        ("20261102T000000Z-find-bbbb", "20261102T000000Z-find-bbbb"),
        ("20261101", "20261101T000000Z-retag-aaaa"),
        ("bbbb", "20261102T000000Z-find-bbbb"),
    ],
)
def test_a_run_is_found_by_the_beginning_or_end_of_its_id(three: Runs, wanted: str, found: str) -> None:
    assert three.find(wanted).id == found


@pytest.mark.parametrize("wanted", ["", "2026", "nosuch", "../x"])
def test_an_id_that_fits_no_run_or_several_is_refused(three: Runs, wanted: str) -> None:
    with pytest.raises(errors.UsageError):
        three.find(wanted)


def test_without_any_run_last_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="no run"):
        Runs(tmp_path / "nosuch").find("last")


def run_of(past: Past) -> str:
    """The id of the run that the note names."""
    return past.note.split()[1]


@pytest.mark.parametrize(
    ("pattern", "run", "hosts"),
    [
        ("@failed", "cccc", []),
        ("@unreachable", "cccc", ["b"]),
        ("@ok", "cccc", ["a"]),
        ("@aaaa:failed", "aaaa", ["a"]),
        ("@20261101T000000Z-retag-aaaa:unreachable", "aaaa", ["b"]),
        ("@last:ok", "cccc", ["a"]),
    ],
)
def test_a_pattern_means_the_hosts_of_an_earlier_run_with_its_status(
    three: Runs, pattern: str, run: str, hosts: list[str]
) -> None:
    past = three.past(pattern)
    assert (run_of(past)[-4:], past.hosts) == (run, hosts)
    assert all(host in past.note for host in hosts)


@pytest.mark.parametrize("pattern", ["@", "@bad", "@nosuch:failed", "@aaaa:"])
def test_a_wrong_pattern_of_an_earlier_run_is_refused(three: Runs, pattern: str) -> None:
    with pytest.raises(errors.UsageError):
        three.past(pattern)


def test_failed_means_hosts_of_the_last_run_that_could_change_something(book: Book) -> None:
    book.run("20261101T000000Z-retag-aaaa", a="failed", b="changed")
    book.run("20261102T000000Z-retag-bbbb", dry_run=True, a="would-change", b="failed")
    book.run("20261103T000000Z-images-cccc", looks=True, a="ok", b="failed")
    runs = Runs(book.root)
    assert [runs.past(f"@{word}").hosts for word in ("failed", "changed", "ok")] == [["a"], ["b"], []]
    assert "run 20261101T000000Z-retag-aaaa left a failed" in runs.past("@failed").note
    assert runs.past("@last:failed").hosts == ["b"]
    would = runs.past("@would-change")
    assert (run_of(would)[-4:], would.hosts) == ("bbbb", ["a"])


def test_failed_never_means_hosts_of_dry_runs_and_read_only_commands(book: Book) -> None:
    book.run("20261102T000000Z-retag-bbbb", dry_run=True, a="would-change")
    book.run("20261103T000000Z-images-cccc", looks=True, a="failed")
    with pytest.raises(errors.UsageError, match=r"no run of .* could change something") as refused:
        Runs(book.root).past("@changed")
    assert refused.value.exit_code == 2


def test_hosts_without_an_outcome_of_a_killed_run_count_as_failed(book: Book) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    record = book.record(hosts=("a", "b", "c"))
    record._head |= {"pid": gone.pid, "asked": [{"command": n, "dry_run": False, "looks": False} for n in "xy"]}
    record.command("x", {}, dry_run=False)
    record.outcomes([Outcome("a", Status.CHANGED, 1.0), Outcome("b", Status.UNREACHABLE, 1.0)])
    past = Runs(book.root).past("@failed")
    assert past.hosts == ["a", "b", "c"]  # the second command never began
    record.command("y", {}, dry_run=False)
    record.outcome(Outcome("a", Status.CHANGED, 1.0))
    past = Runs(book.root).past("@failed")
    assert past.hosts == ["b", "c"]
    view = runs_command.body(cast(Any, SimpleNamespace(runs=Runs(book.root))), runs_command.parse())
    assert view.table and view.table.rows[0][3] == "2 changed, 1 unreachable, 2 without an outcome"
    assert "(b, c without an outcome)" in past.note
    assert Runs(book.root).past("@changed").hosts == ["a"]


def test_a_record_without_a_readable_run_json_is_not_passed_over(three: Runs) -> None:
    for early in ("20261030T000000Z-retag-0000", "notes"):
        (three.root / early).mkdir()
    assert three.past("@unreachable").hosts == ["b"]
    (three.root / "20261104T000000Z-copy-dddd").mkdir()  # the disk was full
    with pytest.raises(errors.UsageError, match="run, 20261104T000000Z-copy-dddd, cannot be read") as refused:
        three.past("@unreachable")
    assert three.past(refused.value.hint.split("-H ")[1]).hosts == ["b"]


def test_a_run_that_is_still_going_is_chosen_only_by_its_id(book: Book) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        record = book.record()
        record._head |= {"pid": other.pid, "pid_started": process_start(other.pid)}
        record.command("retag", {}, dry_run=False)
        record.outcome(Outcome("a", Status.FAILED, 1.0))
        with pytest.raises(errors.UsageError, match="still going") as refused:
            Runs(book.root).past("@failed")
        assert f"@{ID}:failed" in refused.value.hint
        assert Runs(book.root).past(f"@{ID}:failed").hosts == ["a"]
        other.terminate()


def test_failed_never_means_hosts_of_the_current_run(book: Book) -> None:
    book.run("20261101T000000Z-retag-aaaa", a="failed")
    book.record("20261102T000000Z-copy-bbbb").command("copy", {}, dry_run=False)
    assert run_of(Runs(book.root).past("@failed"))[-4:] == "aaaa"


def test_the_note_counts_other_hosts_that_did_not_succeed(book: Book) -> None:
    book.run(ID, a="failed", b="unreachable", c="skipped", d="ok")
    assert Runs(book.root).past("@failed").note == f"run {ID} left a failed; it also left 1 unreachable, 1 skipped"


def test_a_record_of_an_earlier_version_counts_the_commands_that_began(book: Book) -> None:
    book.run(ID, a="failed")
    data = book.read()
    del data["asked"]
    assert (Run(data, book.root).could_change(dry=False), Run(data, book.root).unfinished) == (True, [])
