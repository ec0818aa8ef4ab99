"""The records of past runs: found by id, read, and removed when they are old (`report/record.py` writes them)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ctr_ferry.errors import UsageError
from ctr_ferry.report.outcome import Status
from ctr_ferry.report.record import log_name, process_start
from ctr_ferry.text import names

_RUN = re.compile(r"\d{8}T\d{6}Z-[\w-]+-[0-9a-f]{4}")


def prune(root: Path, keep: int, days: int, now: datetime | None = None, own: str = "") -> None:
    """Removes old records.

    A run that is still going stays, and so does the last one that could change hosts: ``-H @failed`` means it.

    Args:
        keep: how many of the newest records stay, whatever they are.
        days: for how long older ones stay if their run changed something.
        now: the time; None is now.
        own: the id of the run that asks; its record stays although another run started after it.
    """
    folders = sorted(path for path in root.glob("*") if _RUN.fullmatch(path.name)) if root.is_dir() else []
    old = folders[: max(0, len(folders) - keep)]
    since = f"{(now or datetime.now(UTC)) - timedelta(days):%Y%m%dT%H%M%SZ}"
    newest_first = (Run.read(path / "run.json") for path in reversed(folders)) if old else ()
    last = next((run.folder for run in newest_first if run and run.could_change(dry=False)), None)
    for path in (path for path in old if path.name != own):
        run = Run.read(path / "run.json")
        stays = run and (run.state == "running" or path == last or (path.name >= since and run.changed))
        if not stays:
            shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Run:
    """A run, read from its record.

    Attributes:
        data: the content of run.json; `whole` also has each host's results.
        folder: the run's folder.
    """

    data: Mapping[str, Any]
    folder: Path

    @classmethod
    def read(cls, file: Path) -> Run | None:
        """Reads a run.json; None if it cannot be read, or is no record."""
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        kinds = {"id": str, "started": str, "ended": str | None, "pid": int, "hosts": list, "commands": list}
        is_record = isinstance(data, dict) and all(isinstance(data.get(key), kind) for key, kind in kinds.items())
        return cls(data, file.parent) if is_record else None

    @property
    def state(self) -> str:
        """``ended``, ``running``, or ``killed`` if the process is gone and wrote no end."""
        if self.data["ended"]:
            return "ended"
        started = process_start(self.data["pid"])
        return "running" if started and started == self.data.get("pid_started", started) else "killed"

    def log(self, host: str) -> Path:
        """The path of a host's log; the file exists if the host was sent a command."""
        return self._file(host, "log")

    def _file(self, host: str, kind: str) -> Path:
        return self.folder / f"{log_name(host)}.{kind}"

    @property
    def others(self) -> list[str]:
        """Further hosts that were asked, such as the source of a copy."""
        asked = (other["host"] for command in self.data["commands"] for other in command.get("others", ()))
        return [host for host in dict.fromkeys(asked) if host not in self.data["hosts"]]

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self.data["id"])

    def whole(self, host: str | None = None) -> dict[str, Any]:
        """The content of run.json, and in each outcome of a host, or of all, its result and the lines of it."""
        hosts = self.data["hosts"] if host is None else [host]
        results = {name: self._results(name) for name in hosts}
        commands = []
        for number, command in enumerate(self.data["commands"]):
            outcomes = [{**each, **results.get(each["host"], {}).get(number, {})} for each in command["outcomes"]]
            commands.append({**command, "outcomes": outcomes})
        return {**self.data, "commands": commands}

    def _results(self, host: str) -> dict[int, dict[str, Any]]:
        """A host's results by the number of the command; empty if its file is not there, or cut off."""
        found: dict[int, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError), self._file(host, "jsonl").open("rb") as lines:
            for line in lines:
                result = json.loads(line)
                found[result.pop("command")] = result
        return found

    def outcomes(self) -> list[Mapping[str, Any]]:
        """Every outcome of every command, in order, without its result."""
        return [outcome for command in self.data["commands"] for outcome in command["outcomes"]]

    @property
    def asked(self) -> list[Mapping[str, Any]]:
        """The line's commands on hosts, also those that never began; a read-only one has a true ``looks``."""
        began = self.data["commands"]  # records of earlier versions have nothing else
        return list(self.data.get("asked", began))

    def could_change(self, *, dry: bool) -> bool:
        """Whether any command could have changed a host or, with ``dry``, was the dry run of such a command."""
        return any(each["dry_run"] == dry and not each.get("looks") for each in self.asked)

    @property
    def changed(self) -> bool:
        """Whether the run changed something, as far as is known; a failed host may be changed, too."""
        quiet = {Status.UNCHANGED, Status.WOULD_CHANGE, Status.SKIPPED}
        loud = any(outcome["status"] not in quiet for outcome in self.outcomes())
        return self.could_change(dry=False) and bool(loud or self.unfinished)

    @property
    def unfinished(self) -> list[str]:
        """The hosts that lack the outcome of some command, because the run was killed or never came to that command."""
        if self.state == "running":
            return []
        done = [{o["host"] for o in command["outcomes"]} for command in self.data["commands"]]
        finished = set.intersection(*done) if done and len(done) == len(self.asked) else set()
        return [host for host in self.data["hosts"] if host not in finished]

    def hosts(self, status: str) -> list[str]:
        """The hosts that any command left with this status; `unfinished` hosts count as failed."""
        found = {o["host"] for o in self.outcomes() if o["status"] == status}
        if status == Status.FAILED:
            found.update(self.unfinished)
        return [host for host in self.data["hosts"] if host in found]


@dataclass(frozen=True, slots=True)
class Runs:
    """The records of all runs in one folder."""

    root: Path

    def all(self) -> list[Run]:
        """All records that can be read, in the order in which the runs started."""
        found = [run for file in self.root.glob("*/run.json") if (run := Run.read(file))]
        return sorted(found, key=lambda run: (run.data["started"], run.id))

    def find(self, wanted: str) -> Run:
        """Finds a run by its id, by a beginning or end of its id that no other run has, or by ``last``.

        Raises:
            UsageError: no run or more than one fits.
        """
        found = self.all()
        if wanted == "last":
            fits = found[-1:]
        else:
            fits = [run for run in found if run.id.startswith(wanted) or run.id.endswith(wanted)]
            fits = [run for run in fits if run.id == wanted] or fits
        if len(fits) != 1:
            many = f"{len(fits)} runs of {self.root} fit {wanted!r}" if fits else f"no run of {self.root} is {wanted!r}"
            raise UsageError(many, hint="list all runs: fab runs")
        return fits[0]

    def past(self, pattern: str) -> Past:
        """The hosts that a pattern means: ``@failed``, of the last run that could change hosts, or ``@RUN:failed``.

        Args:
            pattern: an ``@``, perhaps a run (as `find` takes it) and a colon, and a status.

        Raises:
            UsageError: the pattern is wrong, no run fits, or the last run is still going.
        """
        wanted, _, word = pattern.removeprefix("@").rpartition(":")
        if word not in list(Status):
            raise UsageError(
                f"-H {pattern} is no pattern of an earlier run",
                hint=f"use one of @{', @'.join(Status)}, or one with a run of: fab runs",
            )
        status = Status(word)
        run = self.find(wanted) if wanted else self._last(status)
        if not wanted and run.state == "running":
            raise UsageError(
                f"-H {pattern}: the last run, {run.id}, is still going",
                hint=f"wait for it, or name a run, such as -H @{run.id}:{status}",
            )
        hosts = run.hosts(status)
        return Past(hosts, _note(run, status, hosts))

    def _last(self, status: Status) -> Run:
        """The last run that can have left hosts with this status; ``would-change`` comes from dry runs alone."""
        dry = status is Status.WOULD_CHANGE
        runs = [run for run in self.all() if run.could_change(dry=dry)]
        runs = [run for run in runs if run.data["pid"] != os.getpid() or run.state != "running"]  # not this run
        self._refuse_unreadable(status, runs[-1].id if runs else "")
        if not runs:
            what = "was a dry run" if dry else "could change something (dry runs and read-only commands do not count)"
            raise UsageError(
                f"-H @{status}: no run of {self.root} {what}",
                hint=f"name a run as @RUN:{status}, where RUN is one of: fab runs",
            )
        return runs[-1]

    def _refuse_unreadable(self, status: Status, since: str) -> None:
        """Refuses a status of the last run where a later run left a record without content, as on a full disk."""
        later = (path for path in self.root.glob("*") if _RUN.fullmatch(path.name) and path.name > since)
        if unreadable := [path.name for path in later if not Run.read(path / "run.json")]:
            raise UsageError(
                f"-H @{status}: the record of a later run, {max(unreadable)}, cannot be read",
                hint=f"pass over it, such as -H @{since}:{status}" if since else "list all runs: fab runs",
            )


class Past(NamedTuple):
    """The hosts that a pattern such as ``@failed`` means, and one sentence about them and their run."""

    hosts: list[str]
    note: str


def _note(run: Run, status: Status, hosts: list[str]) -> str:
    """Says which run left these hosts, and how many other hosts did not succeed."""
    cut = [host for host in run.unfinished if host in hosts] if status is Status.FAILED else []
    also = [s for s in (Status.FAILED, Status.UNREACHABLE, Status.SKIPPED) if s is not status]
    others = [f"{len(found)} {s}" for s in also if (found := run.hosts(s))]
    note = f"run {run.id} left {names(hosts, every=True) or 'no host'} {status}"
    if cut:
        note += f" ({names(cut, every=True)} without an outcome)"
    if others:
        note += f"; it also left {', '.join(others)}"
    return note
