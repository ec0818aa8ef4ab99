"""The record of a run is written as the run goes, can be read whenever the run ends, and never stops the run."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from run_records import ID, Book, Did

from ctr_ferry import errors
from ctr_ferry.report import record as record_module
from ctr_ferry.report.outcome import Outcome, Status
from ctr_ferry.report.past_runs import Run, Runs, prune
from ctr_ferry.report.record import log_name, new_run_id, process_start
from ctr_ferry.secrets import Secret
from ctr_ferry.ssh.exchange import Transcript
from tasks.show import show as show_command


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "runs")


def detail(text: str = "0: ctr images ls", **changes: Any) -> Transcript:
    return replace(Transcript(text, 0, 0.25, b"out\n", b""), **changes)


def test_a_runs_id_sorts_by_time_and_is_unique() -> None:
    first, second = new_run_id("retag"), new_run_id("retag")
    assert first != second and first[:-5] <= second[:-5] and "-retag-" in first


def test_run_json_has_every_outcome_as_soon_as_it_is_known(book: Book) -> None:
    record = book.record()
    assert (book.read()["ended"], book.read()["exit"], book.read()["commands"]) == (None, None, [])
    record.command("retag", {"src": "é"}, dry_run=True)
    assert book.read()["commands"] == [{"command": "retag", "arguments": {"src": "é"}, "dry_run": True, "outcomes": []}]
    record.outcome(Outcome.of("b", 0.5, Did("one")))
    assert [o["host"] for o in book.read()["commands"][0]["outcomes"]] == ["b"]
    record.outcomes([Outcome.of("a", 1.0, errors.ConnectTimeout("no", hint="look")), Outcome.of("b", 0.5, Did("two"))])
    a, b = book.read()["commands"][0]["outcomes"]
    assert (a["status"], a["error"]["kind"], b["result"]["what"]) == ("unreachable", "connect-timeout", "two")
    record.command("find", {}, dry_run=False)
    record.end(4)
    assert (book.read()["exit"], len(book.read()["commands"])) == (4, 2)
    assert book.read()["ended"] >= book.read()["started"]
    assert book.warnings == []


def test_outcomes_that_come_while_writing_is_slow_are_written_together_a_little_later(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[tuple[float, Callable[[], None]]] = []

    def later(seconds: float, work: Callable[[], None]) -> SimpleNamespace:
        return SimpleNamespace(start=lambda: timers.append((seconds, work)))

    def written() -> int:
        return len(book.read()["commands"][0]["outcomes"])

    monkeypatch.setattr(record_module, "threading", SimpleNamespace(Lock=threading.Lock, Timer=later))
    readings = itertools.count()
    book.clock = lambda: float(next(readings))  # a write takes a second
    record = book.record()
    record.command("retag", {}, dry_run=False)
    for number in range(5):
        record.outcome(Outcome.of(f"h{number}", 1.0, Did()))
    ((seconds, work),) = timers
    assert 0 < seconds < 9 and written() == 0
    work()  # although nothing more is noted
    assert written() == 5


def test_outcomes_that_come_at_once_are_all_written(book: Book) -> None:
    record = book.record()
    record.command("retag", {}, dry_run=False)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: record.outcome(Outcome.of(f"h{n}", 1.0, Did("x" * 10000))), range(100)))
    assert len(book.read()["commands"][0]["outcomes"]) == 100


def test_a_reader_never_meets_half_a_record(book: Book) -> None:
    record = book.record()
    record.command("retag", {}, dry_run=False)
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(lambda: [record.outcome(Outcome.of(f"h{n}", 1.0, Did("x" * 999))) for n in range(200)])
        while not written.done():
            book.read()
    assert written.result()


def test_only_its_owner_reads_a_record(book: Book) -> None:
    book.record()
    assert (book.root / ID).stat().st_mode & 0o077 == 0


def test_a_log_has_each_remote_command_with_its_output(book: Book) -> None:
    record = book.record()
    record.exchange("a", detail(stderr=b"level=warning\n"))
    record.exchange("a", detail("1: false", exit=None, stdout=b"\xff\x1b[2J\x00tab\t"))
    log = (book.root / ID / "a.log").read_text()
    assert log.index("ctr images ls") < log.index("false")
    assert "exit 0  0.250 s" in log and "exit ?" in log
    assert "level=warning" in log
    assert "\x1b" not in log and "\x00" not in log and "\\xff\\x1b[2J\\x00tab\t" in log


def test_a_log_keeps_the_beginning_of_endless_output(book: Book) -> None:
    book.record().exchange("a", detail(stdout=b"y\n" * (1 << 20)))
    file = book.root / ID / "a.log"
    assert file.stat().st_size < 1 << 20
    assert "bytes more" in file.read_text()


def test_a_log_leaves_out_the_middle_of_a_very_long_command(book: Book) -> None:
    book.record().exchange("a", detail(f"first {'x' * (1 << 18)} last"))
    text = (book.root / ID / "a.log").read_text()
    assert len(text) < 1 << 17 and "characters more" in text
    assert "first x" in text and "x last" in text


@pytest.mark.parametrize("host", ["../../x", "a/b", "user@[::1]:22", "ünïcode", "a b\n", ".."])
def test_a_hosts_log_stays_in_its_runs_folder(book: Book, host: str) -> None:
    book.record().exchange(host, detail())
    (log,) = (book.root / ID).glob("*.log")
    assert log.name == f"{log_name(host)}.log"
    assert sorted(path.name for path in book.root.iterdir()) == [ID]


def test_no_two_hosts_share_a_log() -> None:
    hosts = ["a/b", "a_b", "a b", "a:b", "käse", "[::1]:22"]
    assert len({log_name(host) for host in hosts}) == len(hosts)
    assert [log_name(host) for host in ("a_b", "ops@[::1]:22")] == ["a_b", "ops@[::1]:22"]


@dataclass(frozen=True)
class WithLines(Did):
    def lines(self) -> list[str]:
        return [f"{self.what} -> two"]


def test_each_host_has_its_results_in_a_file_of_its_own(book: Book) -> None:
    record = book.record()
    for command in ("retag", "find"):
        record.command(command, {}, dry_run=False)
        for host in "ab":
            record.outcome(Outcome(host, Status.CHANGED, 1.0, WithLines(f"early {host}")))
        early = (book.root / ID / "b.jsonl").stat().st_size
        record.outcomes(
            [
                Outcome(host, Status.CHANGED, 2.0, WithLines(f"{'late' if host == 'a' else 'early'} {host}"))
                for host in "ab"
            ]
        )
        assert (book.root / ID / "b.jsonl").stat().st_size == early  # nothing new
    record.end(0)
    short = (book.root / ID / "run.json").read_text()
    assert "late" not in short and '"seconds": 2.0' in short
    for command in book.read()["commands"]:
        told = {o["host"]: (o["result"]["what"], o["lines"], o["seconds"]) for o in command["outcomes"]}
        assert told == {"a": ("late a", ["late a -> two"], 2.0), "b": ("early b", ["early b -> two"], 2.0)}
    (run,) = Runs(book.root).all()
    assert ["result" in o for o in run.whole("a")["commands"][0]["outcomes"]] == [True, False]


def test_run_json_has_the_end_of_a_long_error_and_the_hosts_file_all_of_it(book: Book) -> None:
    record = book.record()
    record.command("run", {}, dry_run=False)
    said = "x" * (1 << 18) + "the end"
    record.outcome(Outcome.of("a", 1.0, errors.CommandFailed("no", detail=said, result=Did())))
    record.end(1)
    short = (book.root / ID / "run.json").read_text()
    assert len(short) < 1 << 13 and "xthe end" in short
    assert book.read()["commands"][0]["outcomes"][0]["error"]["said"] == said


def test_a_hosts_results_are_read_up_to_where_the_run_was_killed(book: Book) -> None:
    record = book.record()
    for command in ("retag", "find"):
        record.command(command, {}, dry_run=False)
        record.outcome(Outcome("a", Status.CHANGED, 1.0, Did(command)))
    file = book.root / ID / "a.jsonl"
    file.write_text(file.read_text()[:-20])
    assert ["result" in command["outcomes"][0] for command in book.read()["commands"]] == [True, False]


def test_a_further_host_that_was_asked_is_in_the_record_with_its_error(book: Book) -> None:
    record = book.record()
    record.command("copy", {"from": ["src", "dead"]}, dry_run=False)
    record.exchange("src", detail())
    error = errors.ConnectTimeout("dead does not answer", hint="look")
    record.outcomes([Outcome("a", Status.CHANGED, 1.0)], others={"src": None, "dead": error})
    record.end(0)
    (run,) = Runs(book.root).all()
    assert run.others == ["src", "dead"]
    assert book.read()["commands"][0]["others"][1] == {"host": "dead", "error": error.to_json()}
    told = [
        show_command.body(SimpleNamespace(runs=Runs(book.root)), show_command.parse(**o)).text
        for o in ({}, {"host": "dead"}, {"log": True})
    ]
    assert "also asked: src, dead\n    dead  connect-timeout: dead does not answer" in told[0]
    assert "also asked: dead\n" in told[1] and "==> src <==\n# 20" in told[2]


def test_the_run_that_began_last_is_the_last_one_whatever_its_id(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    for second, letter in enumerate("zya"):
        monkeypatch.setattr(record_module, "_now", lambda now=f"2026-11-24T03:15:0{second}.000Z": now)
        book.run(f"20261124T031500Z-{letter}-1f2e", a="ok")
    assert Runs(book.root).find("last").id == "20261124T031500Z-a-1f2e"


def left(book: Book, keep: int, days: int) -> list[str]:
    """The ends of the ids that pruning leaves on 2026-11-30."""
    prune(book.root, keep, days, datetime(2026, 11, 30, tzinfo=UTC))
    return sorted(path.name[-4:] for path in book.root.iterdir())


def test_a_run_does_not_prune_its_own_record_although_another_began_within_its_second(book: Book) -> None:
    ids = [f"20261124T031500Z-{name}" for name in ("find-0000", "images-1111")]
    for each in ids:
        book.run(each, looks=True, a="ok")
    prune(book.root, 1, 0, own=ids[0])
    assert sorted(path.name for path in book.root.iterdir()) == ids
    prune(book.root, 1, 0, own=ids[1])
    assert [path.name for path in book.root.iterdir()] == [ids[1]]


def test_a_run_that_is_still_going_is_not_pruned(book: Book) -> None:
    book.record("20261124T031500Z-run-0000")
    book.run("20261124T031501Z-find-1111", looks=True, a="ok")
    assert left(book, 1, 0) == ["0000", "1111"]
    assert left(book, 0, 0) == ["0000"]


def test_pruning_keeps_the_newest_records_and_older_ones_of_runs_that_changed_something(book: Book) -> None:
    book.run("20260801T000000Z-retag-0001", a="changed")
    book.run("20261102T000000Z-retag-0002", a="unchanged", b="changed")
    book.run("20261103T000000Z-retag-0003", a="unchanged", b="failed")
    book.run("20261104T000000Z-retag-0004", a="would-change", dry_run=True)
    book.run("20261105T000000Z-images-0005", a="ok", looks=True)
    book.run("20261106T000000Z-retag-0006", a="unchanged")
    book.run("20261107T000000Z-retag-0007", a="unchanged")  # the last one that could change something
    book.run("20261108T000000Z-images-0008", a="ok", looks=True)
    (book.root / "notes").mkdir()
    assert left(book, 100, 0)[:-1] == [f"000{n}" for n in range(1, 9)]
    assert left(book, 1, 90) == ["0002", "0003", "0007", "0008", "otes"]
    assert left(book, 1, 27) == ["0003", "0007", "0008", "otes"]
    prune(book.root / "nosuch", 2, 2)


def test_a_secret_never_reaches_a_record(book: Book) -> None:
    record = book.record()
    record.command("pull", {"password": Secret("hunter2")}, dry_run=False)
    record.outcome(Outcome.of("a", 1.0, Did(Secret("hunter2"))))
    for file in ("run.json", "a.jsonl"):
        text = (book.root / ID / file).read_text()
        assert "hunter2" not in text and "***" in text


def test_a_record_that_cannot_be_written_gives_one_warning(book: Book) -> None:
    book.root.write_text("no folder")
    record = book.record()
    record.command("retag", {}, dry_run=False)
    record.outcome(Outcome.of("a", 1.0, Did()))
    record.exchange("a", detail())
    record.end(0)
    (warning,) = book.warnings
    assert str(book.root) in warning


def test_a_record_that_fails_for_many_hosts_at_once_gives_one_warning(book: Book) -> None:
    record = book.record()
    at_once = threading.Barrier(8)

    def breaks() -> None:
        at_once.wait(60)
        raise OSError(28, "No space left on device")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: record._write(breaks), range(8)))
    assert len(book.warnings) == 1


def test_two_runs_never_write_into_one_folder(book: Book) -> None:
    book.record().command("first", {}, dry_run=False)
    book.record().command("second", {}, dry_run=False)
    assert book.read()["commands"][0]["command"] == "first"
    assert len(book.warnings) == 1


def test_a_run_is_running_then_ended(book: Book) -> None:
    record = book.record()
    (run,) = Runs(book.root).all()
    assert run.state == "running"
    record.end(0)
    assert Runs(book.root).find("last").state == "ended"


def test_a_run_whose_process_is_gone_was_killed(book: Book) -> None:
    with subprocess.Popen(["true"]) as gone:
        started = process_start(gone.pid)
        os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
        data = {**book.record()._head, "pid": gone.pid, "pid_started": started}
        assert Run(data, book.root).state == "killed"  # although its parent has not waited for it yet
        gone.wait()
    assert Run(data, book.root).state == "killed"
    again = {**data, "pid": os.getpid(), "pid_started": "1"}  # the number is another process's now
    assert Run(again, book.root).state == "killed"


def test_records_that_cannot_be_read_hide_no_others(book: Book) -> None:
    book.run(ID, a="ok")
    for number, text in enumerate(("{", "", "[]", "{}", "1", '{"id": "x", "ended": null}')):
        (folder := book.root / f"2026110{number}T000000Z-x-0001").mkdir()
        (folder / "run.json").write_text(text)
    assert [run.id for run in Runs(book.root).all()] == [ID]
