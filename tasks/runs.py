"""``runs``: the past runs, one line each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ctr_ferry.errors import UsageError
from ctr_ferry.report.documents import RunsData, RunSummary
from ctr_ferry.report.outcome import Status, Table, View
from ctr_ferry.run.command import ControlMachine, on_control_machine

if TYPE_CHECKING:
    from ctr_ferry.report.past_runs import Run


def parse(*, last: str | None = None) -> int:
    """How many of the newest runs to list; raises UsageError where ``--last`` is no number of runs."""
    if last is not None and not (last.isdecimal() and int(last)):
        raise UsageError(f"--last {last!r} is no number of runs", hint="give a number from 1, such as --last 20")
    return int(last or 20)


@on_control_machine(parse, help={"last": "How many of the newest runs (default 20)."})
def runs(control_machine: ControlMachine, last: int) -> View:
    """List past runs: their time, commands, and how many hosts ended how. The records are in runs/."""
    found = control_machine.runs.all()[-last:]
    data = [_summary(run) for run in found]
    rows = tuple(
        (
            each["id"],
            " ".join(each["commands"]),
            str(each["hosts"]),
            ", ".join(f"{count} {status}" for status, count in _counts(each).items() if count),
            f"{each['seconds']:.0f} s" if each["seconds"] is not None else "",
            each["state"] if each["exit"] is None else f"exit {each['exit']}",
        )
        for each in data
    )
    notes = () if rows else (f"there are no runs in {control_machine.runs.root}",)
    return View(RunsData(runs=data), Table(("RUN", "COMMANDS", "HOSTS", "OUTCOMES", "TIME", "END"), rows, notes))


def _summary(run: Run) -> RunSummary:
    statuses = [outcome["status"] for outcome in run.outcomes()]
    return {
        "id": run.id,
        "started": run.data["started"],
        "commands": run.data["commands_asked"],
        "hosts": len(run.data["hosts"]),
        "statuses": {status: statuses.count(status) for status in Status if status in statuses},
        "unfinished": len(run.unfinished),
        "seconds": _seconds(run.data),
        "exit": run.data["exit"],
        "state": run.state,
    }


def _counts(summary: RunSummary) -> dict[str, int]:
    return {**summary["statuses"], "without an outcome": summary["unfinished"]}


def _seconds(data: Mapping[str, Any]) -> float | None:
    if not data["ended"]:
        return None
    return (datetime.fromisoformat(data["ended"]) - datetime.fromisoformat(data["started"])).total_seconds()
