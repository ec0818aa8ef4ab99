"""What is shown while hosts are at work has their names as they are, and nothing that a terminal would obey."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ctr_ferry.errors import FerryError
from ctr_ferry.report import live
from ctr_ferry.report.live import LiveDisplay
from ctr_ferry.report.observer import LineDisplay
from ctr_ferry.report.outcome import Outcome

NAMES = [
    ("root@[fe80::1]:22", "root@[fe80::1]:22"),
    ("a[/x]", "a[/x]"),
    ("[red]x", "[red]x"),
    ("\x1b[2Jx", r"\x1b[2Jx"),
]


@pytest.mark.parametrize(("name", "seen"), NAMES)
def test_a_hosts_name_is_no_markup(name: str, seen: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO(), width=80)
    display = LiveDisplay("pull", 1, console)
    display.on_start(name)
    with console.capture() as drawn:
        console.print(display._draw())
    assert drawn.get().startswith(seen)
    LineDisplay().on_end(Outcome.of(name, 1.0, FerryError("x", hint="y")))
    assert capsys.readouterr().err.startswith(f"{seen}: ")


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(name="clock")
def clock_fixture(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live, "time", clock)
    return clock


def drawn(display: Any, console: Console) -> list[str]:
    with console.capture() as seen:
        console.print(display._draw())
    return [line.rstrip() for line in seen.get().splitlines()]


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_lines_fit_and_have_rate_and_time_left(columns: int, clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=columns)
    display = LiveDisplay("copy", 3, console)
    for host in ("node1", "a-long-name-of-a-host.of.some.example", "node3"):
        display.on_start(host)
    for host in ("node1", "a-long-name-of-a-host.of.some.example"):
        display.on_progress(host, 0, 300 << 20)
    clock.now += 2
    for host in ("node1", "a-long-name-of-a-host.of.some.example"):
        display.on_progress(host, 100 << 20, 300 << 20)
    lines = drawn(display, console)
    assert len(lines) == 4 and all(len(line) <= columns for line in lines)
    for part in ("100.0 MiB of 300.0 MiB", "50.0 MiB/s", "0:04 left"):
        assert part in lines[0]
    assert lines[2].split() == ["node3", "copy", "0:02"]
    for part in ("0 of 3 done", "3 busy", "200.0 MiB of 600.0 MiB", "100.0 MiB/s", "0:04 left"):
        assert part in lines[3]


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=80)
    display = LiveDisplay("copy", 1, console)
    display.on_start("node1")
    display.on_progress("node1", 0, 1000 << 20)
    for second in range(1, 11):
        clock.now += 1
        display.on_progress("node1", 50 * second << 20, 1000 << 20)
    assert "50.0 MiB/s" in drawn(display, console)[0]
    for second in range(1, 11):
        clock.now += 1
        display.on_progress("node1", 500 + second << 20, 1000 << 20)
    assert "1.0 MiB/s" in drawn(display, console)[0] and "8:10 left" in drawn(display, console)[0]


def test_what_a_finished_host_moved_still_counts() -> None:
    console = Console(file=io.StringIO(), width=80)
    display = LiveDisplay("copy", 2, console)
    display.on_start("a")
    display.on_progress("a", 5 << 20, 5 << 20)
    display.on_end(Outcome.of("a", 1.0, FerryError("x", hint="y")))
    (whole,) = drawn(display, console)
    assert "1 of 2 done" in whole and "5.0 MiB of 5.0 MiB" in whole


def test_times_are_told_in_minutes_and_hours() -> None:
    assert [live._clock(seconds) for seconds in (0, 7.9, 83, 3723, 1e9)] == [
        "0:00", "0:07", "1:23", "1:02:03", "99:59:59",
    ]  # fmt: skip
