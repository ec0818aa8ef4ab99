"""Work on many hosts runs in parallel, in batches and within limits, and can be interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from scripted_fleet import Did, Machine, ScriptedFleet

from ctr_ferry import errors
from ctr_ferry.report.outcome import Answer, Status
from ctr_ferry.run import scheduler
from ctr_ferry.run.executor import _outcome as outcome_of
from ctr_ferry.run.interrupts import Terminated
from ctr_ferry.run.scheduler import Fleet
from ctr_ferry.ssh import answer_memory
from tasks.copy import copy
from tasks.remove import remove
from tasks.run import run

PATIENCE = 60  # seconds, after which a test that hangs says so


class AtOnce:
    """Work that notes how many hosts do it at once; the first ones wait until so many as expected do it."""

    def __init__(self, expected: int) -> None:
        self.expected, self.now, self.most = expected, 0, 0
        self.lock, self.reached = threading.Lock(), threading.Event()

    def __call__(self, host: Machine) -> Did:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now >= self.expected:
                self.reached.set()
        assert self.reached.wait(PATIENCE)
        time.sleep(0.01)  # one host too many would begin now
        with self.lock:
            self.now -= 1
        return Did(host.name)


def kinds(answers: dict[str, Answer]) -> dict[str, str]:
    return {name: a.kind if isinstance(a, errors.FerryError) else "ok" for name, a in answers.items()}


def failing(*names: str, error: errors.FerryError | Exception | None = None) -> Callable[[Machine], Did]:
    def work(host: Machine) -> Did:
        host.asked += 1
        if host.name in names:
            raise error or errors.CommandFailed("no")
        return Did(host.name)

    return work


def test_answers_come_in_the_order_of_the_hosts() -> None:
    scripted_fleet = ScriptedFleet(5)

    def work(host: Machine) -> Did:
        if host.name != "e":
            assert scripted_fleet.notebook.has_ended[chr(ord(host.name) + 1)].wait(PATIENCE)
        return Did(host.name)

    assert [(name, cast(Did, a).what) for name, a in scripted_fleet.each(work).items()] == [(n, n) for n in "abcde"]
    assert list(scripted_fleet.notebook.ended) == list("edcba")


@pytest.mark.parametrize(
    ("workers", "options", "most"), [(32, {}, 9), (3, {}, 3), (32, {"serial": 2}, 2), (3, {"serial": 5}, 3)]
)
def test_no_more_hosts_work_at_once_than_workers_and_batch_allow(
    workers: int, options: dict[str, int], most: int
) -> None:
    work = AtOnce(most)
    answers = ScriptedFleet(9, workers).each(work, **options)
    assert list(kinds(answers).values()) == ["ok"] * 9
    assert work.most == most


def test_a_batch_begins_after_the_one_before_has_ended() -> None:
    scripted_fleet = ScriptedFleet(5)
    ended: list[str] = []

    def work(host: Machine) -> Did:
        assert len(ended) >= "abcde".index(host.name) // 2 * 2
        time.sleep(0.02)
        ended.append(host.name)
        return Did()

    assert set(kinds(scripted_fleet.each(work, serial=2)).values()) == {"ok"}


def test_an_error_of_one_host_is_its_answer_and_the_others_go_on() -> None:
    scripted_fleet = ScriptedFleet(3)
    assert kinds(scripted_fleet.each(failing("b"))) == {"a": "ok", "b": "command-failed", "c": "ok"}
    assert [m.failed for m in scripted_fleet.machines.values()] == [False, True, False]


def test_a_fault_of_ours_is_the_hosts_answer_with_its_place_and_the_others_go_on() -> None:
    answers = ScriptedFleet(2).each(failing("a", error=ZeroDivisionError("by zero")))
    assert kinds(answers) == {"a": "internal-error", "b": "ok"}
    fault = cast(errors.InternalError, answers["a"])
    assert "ZeroDivisionError: by zero" in fault.message and "test_scheduler.py" in fault.detail


def test_later_commands_leave_out_a_failed_host() -> None:
    scripted_fleet = ScriptedFleet(3)
    scripted_fleet.each(failing("b"), last=False)
    assert list(scripted_fleet.each(failing())) == ["a", "c"]
    assert list(scripted_fleet.fleet.answers) == ["a", "c"]


def test_connections_stay_open_until_the_lines_last_work_except_those_of_failed_hosts() -> None:
    scripted_fleet = ScriptedFleet(3)
    closed = lambda: [m.closed for m in scripted_fleet.machines.values()]  # noqa: E731
    scripted_fleet.each(failing("b"), last=False)
    assert closed() == [0, 1, 0]
    scripted_fleet.each(failing(), close=False)
    assert closed() == [0, 1, 0]
    scripted_fleet.fleet.each(cast(Any, failing()))
    assert closed() == [1, 1, 1]


def test_every_host_knows_of_a_dry_run() -> None:
    scripted_fleet = ScriptedFleet(2)
    scripted_fleet.each(failing(), dry_run=True)
    assert all(m.dry_run for m in scripted_fleet.machines.values())
    scripted_fleet.each(failing())
    assert not any(m.dry_run for m in scripted_fleet.machines.values())


def test_the_observer_gets_the_bytes_that_a_host_moves() -> None:
    scripted_fleet = ScriptedFleet(2)
    scripted_fleet.each(failing())
    scripted_fleet.machines["b"].moved(3, 10)
    assert scripted_fleet.notebook.bytes == ("b", 3, 10)


@pytest.mark.parametrize(("limit", "failed"), [(1, 1), (3, 3), (0.2, 2), (0.25, 3), (0.01, 1), (1.0, 10)])
def test_no_further_host_begins_once_the_limit_of_failures_is_reached(limit: float, failed: int) -> None:
    answers = kinds(ScriptedFleet(10).each(failing(*"abcdefghij"), serial=1, limit_failures=limit))
    assert list(answers.values()) == ["command-failed"] * failed + ["not-started"] * (10 - failed)


def test_hosts_that_never_began_do_not_count_as_failed() -> None:
    scripted_fleet = ScriptedFleet(4)
    scripted_fleet.each(failing("a"), serial=1, limit_failures=1)
    assert [m.failed for m in scripted_fleet.machines.values()] == [True, False, False, False]


def cut_short(
    scripted_fleet: ScriptedFleet, cut: type[BaseException], *, first: str, asked: bool = True, **options: Any
) -> None:
    """Interrupts the main thread when host ``first`` is done, another is at work, and the rest waits."""
    at_work = threading.Event()

    def work(host: Machine) -> Did:
        if host.name == first:
            return Did()
        host.asked += asked
        at_work.set()
        assert host.cut.wait(PATIENCE)
        raise errors.ConnectionLost("closed")

    def interrupt(*_: object) -> Any:
        assert at_work.wait(PATIENCE)
        raise cut

    with pytest.MonkeyPatch.context() as patch, pytest.raises(cut):
        patch.setattr("ctr_ferry.run.scheduler.as_completed", interrupt)
        scripted_fleet.each(work, **options)


@pytest.mark.parametrize("cut", [KeyboardInterrupt, Terminated])
def test_an_interrupt_leaves_an_answer_for_done_interrupted_and_waiting_hosts(cut: type[BaseException]) -> None:
    scripted_fleet = ScriptedFleet(4, workers=1)
    cut_short(scripted_fleet, cut, first="a")
    assert kinds(scripted_fleet.fleet.answers) == {
        "a": "ok",
        "b": "interrupted",
        "c": "not-started",
        "d": "not-started",
    }
    assert all(m.abandoned for m in scripted_fleet.machines.values())


def test_a_host_whose_turn_comes_right_after_an_interrupt_is_not_started() -> None:
    scripted_fleet = ScriptedFleet(2)
    scripted_fleet.machines["b"].abandon()
    assert kinds(scripted_fleet.each(failing())) == {"a": "ok", "b": "not-started"}
    assert scripted_fleet.machines["b"].asked == 0


def test_a_host_that_only_an_earlier_command_asked_counts_as_not_started() -> None:
    scripted_fleet = ScriptedFleet(3, workers=1)
    scripted_fleet.each(failing(), last=False)
    cut_short(scripted_fleet, KeyboardInterrupt, first="a")
    assert kinds(scripted_fleet.fleet.answers) == {"a": "ok", "b": "interrupted", "c": "not-started"}


def test_a_host_that_was_only_looked_at_before_an_interrupt_counts_as_interrupted() -> None:
    scripted_fleet = ScriptedFleet(3, workers=1)
    cut_short(scripted_fleet, KeyboardInterrupt, first="a", close=False, looks=True)
    assert kinds(scripted_fleet.fleet.answers) == {"a": "interrupted", "b": "interrupted", "c": "not-started"}


def test_an_interrupt_of_work_besides_keeps_errors_and_tells_who_was_at_work() -> None:
    scripted_fleet = ScriptedFleet(3)
    fleet = scripted_fleet.begin()

    def work(host: Machine) -> Did:
        return Did() if host.name == "c" else failing("a")(host)

    def cut(_: Any) -> None:
        raise KeyboardInterrupt

    fleet.each(cast(Any, work), close=False)
    with pytest.raises(KeyboardInterrupt):
        fleet.beside("b", cut)
    assert kinds(fleet.answers) == {"a": "command-failed", "b": "interrupted", "c": "not-started"}


def test_what_was_done_before_stays_done_where_later_work_is_interrupted() -> None:
    scripted_fleet = ScriptedFleet(3, workers=2)
    cut_short(scripted_fleet, KeyboardInterrupt, first="a", done={name: Did() for name in "abc"})
    assert kinds(scripted_fleet.fleet.answers) == {"a": "ok", "b": "ok", "c": "ok"}


def test_an_interrupt_does_not_wait_for_a_host_that_ignores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctr_ferry.run.scheduler._GRACE", 0.05)
    scripted_fleet, released = ScriptedFleet(2), threading.Event()

    def work(host: Machine) -> Did:
        host.asked += 1
        released.wait(PATIENCE)
        return Did()

    def interrupt(*_: object) -> Any:
        while not all(m.asked for m in scripted_fleet.machines.values()):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr("ctr_ferry.run.scheduler.as_completed", interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            scripted_fleet.each(work)
        assert kinds(scripted_fleet.fleet.answers) == {"a": "interrupted", "b": "interrupted"}
    finally:
        released.set()


@dataclass(frozen=True)
class Many:
    images: tuple[Did, ...]
    status: Status = Status.CHANGED

    def lines(self) -> list[str]:
        return [str(image.status) for image in self.images]


def test_a_dry_run_turns_changed_into_would_change() -> None:
    scripted_fleet = ScriptedFleet(2)

    def work(host: Machine) -> Many:
        done = Many((Did(1, Status.CHANGED), Did(2, Status.UNCHANGED)))
        if host.name == "b":
            raise errors.SomeFailed("1 of 2", result=done)
        return done

    answers = scripted_fleet.each(work, dry_run=True)
    results = [answers["a"], cast(errors.FerryError, answers["b"]).result]
    assert [(r.status, r.lines()) for r in results] == [(Status.WOULD_CHANGE, ["would-change", "unchanged"])] * 2
    assert scripted_fleet.notebook.ended == answers == scripted_fleet.fleet.answers
    # The hosts stay open: the command will apply this plan.
    planned = scripted_fleet.each(lambda _: Did(1, Status.CHANGED), dry_run=True, close=False)
    assert {cast(Did, answer).status for answer in planned.values()} == {Status.CHANGED}
    assert {cast(Did, a).status for a in scripted_fleet.each(lambda _: Did(1, Status.CHANGED)).values()} == {
        Status.CHANGED
    }


def test_a_dry_run_turns_changed_into_would_change_in_answers_that_a_fleet_command_replaced() -> None:
    scripted_fleet = ScriptedFleet(1)
    made: dict[str, Answer] = {"a": Did(1, Status.CHANGED)}
    for dry_run, status in ((True, Status.WOULD_CHANGE), (False, Status.CHANGED)):
        assert outcome_of(remove, "a", scripted_fleet.begin(dry_run=dry_run), made, cut=False).status is status


def test_a_host_without_an_answer_is_skipped_for_the_reason_that_holds() -> None:
    def reasons(fleet: Fleet, *, cut: bool = False) -> list[str]:
        told = [outcome_of(remove, name, fleet, {}, cut=cut).error for name in fleet.hosts]
        return [f"{error.kind}: {error.message}" for error in told if error]

    scripted_fleet = ScriptedFleet(2)
    fleet = scripted_fleet.begin()
    fleet.fail(errors.SourceLost("the source is gone"))
    scripted_fleet.machines["b"].asked += 1
    assert reasons(fleet) == ["not-started: the command was refused before work on this host began"] * 2
    assert [each.split(":")[0] for each in reasons(fleet, cut=True)] == ["not-started", "interrupted"]
    later = scripted_fleet.begin()
    assert reasons(later) == ["not-started: an earlier command of this line failed on this host"] * 2
    assert reasons(later, cut=True) == reasons(later)


def test_an_interrupted_host_is_told_what_to_do_after_that_command() -> None:
    scripted_fleet = ScriptedFleet(1)
    fleet = scripted_fleet.begin()
    scripted_fleet.machines["a"].asked += 1
    told = {c.name: outcome_of(c, "a", fleet, {}, cut=True).error for c in (copy, run, remove)}
    hints = {name: error.hint for name, error in told.items() if error}
    assert "the same copy again" in hints["copy"] and "how far the command came" in hints["run"]
    assert "inspected first" in hints["remove"]


def test_an_outcome_is_recorded_as_soon_as_its_host_has_ended() -> None:
    scripted_fleet, recorded = ScriptedFleet(2, workers=1), []

    def work(_: Machine) -> Did:
        recorded.append(list(scripted_fleet.notebook.recorded))
        return Did()

    scripted_fleet.each(work)
    assert recorded == [[], ["a"]]


def test_the_memory_of_a_hosts_answers_is_freed_when_its_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = answer_memory.AnswerMemory(most=answer_memory.MOST_OF_ONE)
    monkeypatch.setattr(scheduler, "MEMORY", memory)

    def work(host: Machine) -> Did:
        memory.reserve(host.name, answer_memory.MOST_OF_ONE)
        if host.name == "b":
            raise errors.CommandFailed("no")
        return Did("well")

    scripted_fleet = ScriptedFleet(4, workers=1)
    assert kinds(scripted_fleet.each(work)) == {"a": "ok", "b": "command-failed", "c": "ok", "d": "ok"}
    assert memory._reserved == {}


@dataclass(frozen=True)
class Batch:
    """Work of a batch, for `Fleet.together`; notes the hosts that are gone."""

    work: Callable[[Any], Did]
    left: dict[str, threading.Event]

    def gone(self, host: str) -> None:
        self.left[host].set()


def together(scripted_fleet: ScriptedFleet, work: Callable[[Machine], Did]) -> dict[str, Answer]:
    return scripted_fleet.begin().together(lambda _: Batch(work, scripted_fleet.gone))


def test_a_host_that_lags_behind_its_batch_keeps_no_further_batch_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctr_ferry.run.scheduler._LAG", 0.0)
    monkeypatch.setattr("ctr_ferry.run.threads._POLL", 0.01)
    scripted_fleet = ScriptedFleet(5, workers=2)

    def work(host: Machine) -> Did:
        assert host.name != "a" or scripted_fleet.gone["d"].wait(PATIENCE)
        return Did(host.name)

    answers = together(scripted_fleet, work)
    assert [cast(Did, answer).what for answer in answers.values()] == list("abcde")


def test_a_host_that_gets_no_thread_fails_and_no_other_host_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_fleet, begin = ScriptedFleet(3), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.endswith(("_1", "_2")):
            raise RuntimeError("can't start new thread")
        begin(thread)

    def work(host: Machine) -> Did:
        assert all(scripted_fleet.gone[name].wait(PATIENCE) for name in "bc")
        return Did(host.name)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert kinds(together(scripted_fleet, work)) == {"a": "ok", "b": "command-failed", "c": "command-failed"}
    beside = scripted_fleet.fleet.beside("abc", lambda host: host.name)
    assert set(beside) == set("abc") and all(each == name for name, each in beside.items() if isinstance(each, str))
