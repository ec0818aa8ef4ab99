"""A signal ends a run once: what comes a moment later changes nothing, and what is ignored stays ignored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctr_ferry.run.interrupts import Interrupts, Terminated

ROOT = Path(__file__).parents[2]
ENDS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated), (signal.SIGHUP, Terminated)]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Handlers of a program that was started from a terminal; those of the tests are put back behind each test."""
    before = {number: signal.signal(number, signal.default_int_handler) for number, _ in ENDS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("first", "raised"), ENDS)
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_within_a_moment_changes_nothing(
    first: signal.Signals, raised: type[BaseException], second: signal.Signals
) -> None:
    with pytest.raises(raised), Interrupts(lambda: 7.0):
        try:
            os.kill(os.getpid(), first)
        finally:
            os.kill(os.getpid(), second)  # while the first one is dealt with
    os.kill(os.getpid(), second)  # while the program ends


def test_a_signal_after_that_moment_ends_a_run_that_hangs() -> None:
    times = iter((7.0, 70.0))
    with pytest.raises(KeyboardInterrupt), Interrupts(lambda: next(times)):
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        except Terminated:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [number for number, _ in ENDS])
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    with Interrupts():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is signal.SIG_IGN


def test_without_a_signal_the_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number, _ in ENDS]
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number, _ in ENDS] == before


def test_a_signal_after_the_verdict_changes_nothing() -> None:
    with Interrupts(lambda: 7.0) as interrupts:
        interrupts.over()
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)  # while the program ends


CUT_WHILE_PRUNING = """
import os, signal, sys
from ctr_ferry.run import executor, interrupts, program
interrupts._MOMENT = float(sys.argv[1])
executor.prune = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
program.main("fab", "-H", "127.0.0.1:1", "images", "--json")
"""


@pytest.mark.parametrize("moment", [5, 0], ids=["in a moment", "much later"])
def test_ctrl_c_while_old_records_are_removed_leaves_the_verdict(moment: int, tmp_path: Path) -> None:
    environment = {**os.environ, "FABRIC_FLEET_RUNS": str(tmp_path / "runs"), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", CUT_WHILE_PRUNING, str(moment)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    (record,) = (tmp_path / "runs").glob("*/run.json")
    assert (done.returncode, json.loads(record.read_text())["exit"]) == (4, 4), done.stderr
    assert "interrupted" not in done.stderr
