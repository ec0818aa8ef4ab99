"""What is shown while hosts are at work has their names as they are, and nothing that a terminal would obey."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ctr_ferry.errors import FerryError
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
