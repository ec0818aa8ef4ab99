"""``show``: the record of one run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctr_ferry.errors import UsageError
from ctr_ferry.ranges import folded
from ctr_ferry.report.answers import grouped
from ctr_ferry.report.hints import Asked
from ctr_ferry.report.outcome import View, error_lines
from ctr_ferry.run.command import ControlMachine, on_control_machine
from ctr_ferry.text import names

if TYPE_CHECKING:
    from ctr_ferry.report.past_runs import Run

_PLUGINS = re.compile(r"^(\[plugins\]\n)((?:(?!\[\S+\]$|--- stderr$).*\n)+)", re.MULTILINE)  # in a log


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which run to show (None means the last), which of its hosts (None means all), and whether to show the log.

    Attributes:
        all: whether the log is shown with the lists of containerd's plugins, which every command asks for.
    """

    run: str | None = None
    host: str | None = None
    log: bool = False
    all: bool = False


@on_control_machine(
    Request,
    help={
        "run": "The run's id, or a beginning or end of the id that no other run has (default: the last run).",
        "host": "Only this host.",
        "log": "Show every remote command with its output.",
        "all": "With --log: also what each host printed about containerd's plugins.",
    },
)
def show(control_machine: ControlMachine, request: Request) -> View:
    """Show one past run: its outcomes on every host; with --log every remote command, with --json all of run.json."""
    run = control_machine.runs.find(request.run or "last")
    hosts = [*run.data["hosts"], *run.others]
    if request.host and request.host not in hosts:
        raise UsageError(
            f"run {run.id} had no host {request.host!r}",
            hint=f"it had {names(hosts, every=True)}: fab show --run {run.id}",
        )
    data = run.whole(request.host)
    if request.log:
        return View(data, text=_logs(run, [request.host] if request.host else hosts, every=request.all), folds=False)
    return View(data, text="\n".join(_text(run, data, request.host)))


def _logs(run: Run, hosts: Sequence[str], *, every: bool) -> str:
    parts = []
    for name in hosts:
        try:
            text = run.log(name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            text = "# no remote command ran on this host\n"
        parts.append(f"==> {name} <==\n{text if every else _PLUGINS.sub(_left_out, text)}")
    return "\n".join(parts)


def _left_out(plugins: re.Match[str]) -> str:
    return f"{plugins[1]}… {plugins[2].count(chr(10))} lines: show --log --all has them\n"


def _line(run: Run, command: Mapping[str, Any]) -> str:
    """The command as a line that can be pasted; a pattern such as ``@failed`` means other hosts by now."""
    patterns = run.data.get("patterns", ())
    lasting = patterns and not any(pattern.startswith(("@", "!@")) for pattern in patterns)
    arguments = {**command["arguments"], "dry_run": command["dry_run"]}
    hosts = ",".join(patterns if lasting else folded(run.data["hosts"]))
    return Asked([(command["command"], arguments)], hosts, tuple(run.data.get("options", ()))).line()


def _text(run: Run, data: Mapping[str, Any], host: str | None) -> list[str]:
    end = {"ended": f"ended {data['ended']}, exit {data['exit']}", "running": "still running"}
    lines = [f"{run.id}  started {data['started']}, {end.get(run.state, 'killed: its process is gone')}"]
    for command in data["commands"]:
        lines += ["", _line(run, command), *(["  a dry run: nothing was done"] if command["dry_run"] else [])]
        seen = {outcome["host"] for outcome in command["outcomes"]}
        shown = [outcome for outcome in command["outcomes"] if host in (None, outcome["host"])]
        for alike in grouped(((outcome["status"], *_outcome(outcome)), outcome) for outcome in shown).values():
            longest = max(outcome["seconds"] for outcome in alike)
            hosts = names((outcome["host"] for outcome in alike), every=True)
            lines += [f"  {hosts}  {alike[0]['status']}  {longest:.1f} s", *_outcome(alike[0])]
        if host is None and (absent := [name for name in data["hosts"] if name not in seen]):
            lines.append(f"  {names(absent, every=True)}  interrupted, or never begun")
        others = [other for other in command.get("others", ()) if host in (None, other["host"])]
        lines += [f"  also asked: {names((other['host'] for other in others), every=True)}"] if others else []
        for other in others:
            if error := other.get("error"):
                lines += [f"    {other['host']}  {line}" for line in error_lines(error)]
        for warning in command.get("warnings", ()):
            lines.append(f"  warning: {warning['message']}")
            lines += [
                f"    {digest} on {names(hosts, every=True)}" for digest, hosts in warning.get("digests", {}).items()
            ]
    return lines


def _outcome(outcome: Mapping[str, Any]) -> list[str]:
    """The lines of a host's outcome, without the host."""
    lines = [f"    {line}" for line in outcome.get("lines", ())]
    if error := outcome.get("error"):
        lines += [f"    {line}" for line in error_lines(error)]
    return lines
