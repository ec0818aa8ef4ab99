"""``show``: the record of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctr_ferry.errors import UsageError
from ctr_ferry.report.outcome import View, error_lines
from ctr_ferry.run.command import ControlMachine, on_control_machine

if TYPE_CHECKING:
    from ctr_ferry.report.past_runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which run to show (None means the last), which of its hosts (None means all), and whether to show the log."""

    run: str | None = None
    host: str | None = None
    log: bool = False


@on_control_machine(
    Request,
    help={
        "run": "The run's id, or a beginning or end of the id that no other run has (default: the last run).",
        "host": "Only this host.",
        "log": "Show every remote command with its output.",
    },
)
def show(control_machine: ControlMachine, request: Request) -> View:
    """Show one past run: its outcomes on every host; with --log every remote command, with --json all of run.json."""
    run = control_machine.runs.find(request.run or "last")
    if request.host and request.host not in run.data["hosts"]:
        raise UsageError(
            f"run {run.id} had no host {request.host!r}", hint=f"name one of its hosts: {', '.join(run.data['hosts'])}"
        )
    return View(run.data, text=_logs(run, request.host) if request.log else "\n".join(_text(run, request.host)))


def _logs(run: Run, host: str | None) -> str:
    parts = []
    for name in [host] if host else run.data["hosts"]:
        try:
            text = run.log(name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            text = "# no remote command ran on this host\n"
        parts.append(f"==> {name} <==\n{text}")
    return "\n".join(parts)


def _text(run: Run, host: str | None) -> list[str]:
    data = run.data
    end = {"ended": f"ended {data['ended']}, exit {data['exit']}", "running": "still running"}
    lines = [f"{run.id}  started {data['started']}, {end.get(run.state, 'killed: its process is gone')}"]
    for command in data["commands"]:
        given = {k: v for k, v in command["arguments"].items() if v not in (None, False, [])}
        options = [(k, each) for k, v in given.items() for each in (v if isinstance(v, list) else [v])]
        words = " ".join(f"--{k.replace('_', '-')} {value}" for k, value in options if k != "dry_run")
        lines += ["", f"{command['command']} {words}{' (a dry run: nothing was done)' if command['dry_run'] else ''}"]
        seen = {outcome["host"] for outcome in command["outcomes"]}
        for outcome in command["outcomes"]:
            if host in (None, outcome["host"]):
                lines += _outcome(outcome)
        if host is None:
            lines += [f"  {name}  interrupted, or never begun" for name in data["hosts"] if name not in seen]
        for warning in command.get("warnings", ()):
            lines.append(f"  warning: {warning['message']}")
            lines += [f"    {digest} on {', '.join(hosts)}" for digest, hosts in warning["digests"].items()]
    return lines


def _outcome(outcome: Mapping[str, Any]) -> list[str]:
    lines = [f"  {outcome['host']}  {outcome['status']}  {outcome['seconds']:.1f} s"]
    lines += [f"    {line}" for line in outcome.get("lines", ())]
    if error := outcome.get("error"):
        lines += [f"    {line}" for line in error_lines(error)]
    return lines
