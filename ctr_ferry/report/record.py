"""The record of a run: ``runs/<UTC time>-<first command>-<4 hex>/``, written as the run goes.

``run.json`` is replaced whole as outcomes come, so that a killed run leaves all outcomes so far. ``<host>.log`` has
each remote command with its output. Secrets travel over stdin and are in neither file.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ctr_ferry.errors import UsageError
from ctr_ferry.report.outcome import Outcome, Status
from ctr_ferry.ssh.exchange import Transcript
from ctr_ferry.text import names, shown

_RUN = re.compile(r"\d{8}T\d{6}Z-[\w-]+-[0-9a-f]{4}")
_SLOW = 0.01  # seconds; after a longer write of run.json, the next write waits
_PAUSE = 9  # times as long as that write took
_MOST_OF_STEPS = 64 << 10  # characters of one command that a log keeps
_MOST_OF_A_STREAM = 512 << 10  # bytes of one command's stdout or stderr that a log keeps


def new_run_id(command: str) -> str:
    """A unique id such as ``20261124T031500Z-retag-1f2e``, which sorts by time and names the first command."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{command}-{secrets.token_hex(2)}"


class Record:
    """Writes one run's folder. If the folder cannot be written, the operator is warned once and the run goes on.

    Args:
        folder: the run's folder; its name is the id of the run.
        head: what is known at the start: commands, hosts, versions.
        warn: is called with one sentence, at most once, if the folder cannot be written.
        clock: tells the time, in seconds of a monotonic clock. By it the record knows whether writing is slow.
    """

    def __init__(
        self,
        folder: Path,
        head: Mapping[str, Any],
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self._warn, self._clock = folder, warn, clock
        self._head = {"id": folder.name, "started": _now(), "ended": None, "exit": None, "pid": os.getpid(), **head}
        self._head["pid_started"] = _process_start(os.getpid())
        self._commands: list[tuple[str, dict[str, str]]] = []  # each command's head, and its outcomes by host, as JSON
        self._broken = False
        self._lock, self._breaking_lock = threading.Lock(), threading.Lock()
        self._next_save, self._save_is_due = 0.0, False
        self._write(lambda: self.folder.mkdir(parents=True, mode=0o700))
        self._save()

    def command(self, name: str, arguments: Mapping[str, Any], *, dry_run: bool) -> None:
        """Notes that a command of the line begins."""
        head = json.dumps({"command": name, "arguments": arguments, "dry_run": dry_run}, default=str)
        with self._lock:
            self._commands.append((head, {}))
            self._save()

    def outcome(self, outcome: Outcome) -> None:
        """Notes a host's outcome of the current command; writes it now or, if writing is slow, a little later."""
        text = _recorded(outcome)
        with self._lock:
            self._commands[-1][1][outcome.host] = text
            if (wait := self._next_save - self._clock()) <= 0:
                self._save()
            elif not self._save_is_due:
                self._save_is_due = True
                later = threading.Timer(wait, self._save_late)
                later.daemon = True
                later.start()

    def _save_late(self) -> None:
        with self._lock:
            if self._save_is_due:
                self._save()

    def outcomes(self, outcomes: Iterable[Outcome], warnings: Sequence[Mapping[str, Any]] = ()) -> None:
        """Notes the final outcomes of the current command, in the order of the hosts, and its warnings."""
        texts = {each.host: _recorded(each) for each in outcomes}
        warned = json.dumps({"warnings": warnings})[1:-1]
        with self._lock:
            head = self._commands[-1][0]
            self._commands[-1] = (f"{head[:-1]}, {warned}}}", texts)
            self._save()

    def end(self, code: int) -> None:
        """Notes the exit status: the run is over."""
        with self._lock:
            self._head |= {"ended": _now(), "exit": code}
            self._save()

    def exchange(self, host: str, exchange: Transcript) -> None:
        """Adds a remote command that has ended to the host's log."""
        text = (
            f"# {_now()}  exit {'?' if exchange.exit is None else exchange.exit}  {exchange.seconds:.3f} s\n"
            f"{_without_middle(exchange.text.rstrip())}\n"
            f"--- stdout\n{_log_text(exchange.stdout)}--- stderr\n{_log_text(exchange.stderr)}\n"
        )
        file = self.folder / f"{log_name(host)}.log"

        def append() -> None:
            with file.open("a", encoding="utf-8", errors="backslashreplace") as log:
                log.write(text)

        self._write(append)

    def _save(self) -> None:
        began, self._save_is_due = self._clock(), False
        commands = ",".join(
            f'{head[:-1]}, "outcomes": [{",".join(outcomes.values())}]}}' for head, outcomes in self._commands
        )
        text = f'{json.dumps(self._head, default=str)[:-1]}, "commands": [{commands}]}}\n'

        def replace() -> None:
            part = self.folder / "run.json.part"
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
            part.replace(self.folder / "run.json")

        self._write(replace)
        ended = self._clock()
        self._next_save = ended + _PAUSE * (ended - began) if ended - began > _SLOW else 0.0

    def _write(self, write: Callable[[], object]) -> None:
        try:
            if not self._broken:
                write()
        except OSError as error:
            with self._breaking_lock:  # logs are written by all hosts at once
                first, self._broken = not self._broken, True
            if first:
                self._warn(f"the record of this run cannot be written to {self.folder}: {error.strerror}")


def _recorded(outcome: Outcome) -> str:
    """An outcome as JSON, with the lines that a person read."""
    return json.dumps({**outcome.to_json(), "lines": outcome.lines()}, default=str)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _process_start(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None if it has ended. The kernel reuses process numbers."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]  # a zombie has ended


def _without_middle(steps: str) -> str:
    """Cuts the middle out of long steps, such as certificates: the commands come after it."""
    rest, half = len(steps) - _MOST_OF_STEPS, _MOST_OF_STEPS // 2
    return steps if rest <= 0 else f"{steps[:half]}\n… {rest} characters more …\n{steps[-half:]}"


def _log_text(stream: bytes) -> str:
    rest = len(stream) - _MOST_OF_A_STREAM
    clean = shown(stream[:_MOST_OF_A_STREAM].decode("utf-8", "backslashreplace"))
    end = f"\n… {rest} bytes more\n" if rest > 0 else ""
    return f"{clean.rstrip(chr(10))}\n{end}" if clean else end


def log_name(host: str) -> str:
    """A file name for a host's log, different for each host; names such as ``user@[::1]:22`` stay as they are."""
    safe = re.sub(r"[^\w.@:+\[\]-]", "_", host)
    return safe if safe == host else f"{safe}-{zlib.crc32(host.encode()):08x}"


def prune(root: Path, keep: int) -> None:
    """Removes the oldest runs until ``keep`` remain; runs that are still going stay."""
    runs = sorted(path for path in root.glob("*") if _RUN.fullmatch(path.name)) if root.is_dir() else []
    for path in runs[: max(0, len(runs) - keep)]:
        run = Run.read(path / "run.json")
        if run is None or run.state != "running":
            shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Run:
    """A run, read from its record.

    Attributes:
        data: the content of run.json.
        folder: the run's folder.
    """

    data: Mapping[str, Any]
    folder: Path

    @classmethod
    def read(cls, file: Path) -> Run | None:
        """Reads a run.json; None if it cannot be read."""
        try:
            return cls(json.loads(file.read_text(encoding="utf-8")), file.parent)
        except (OSError, ValueError, RecursionError):
            return None

    @property
    def state(self) -> str:
        """``ended``, ``running``, or ``killed`` if the process is gone and wrote no end."""
        if self.data["ended"]:
            return "ended"
        started = _process_start(self.data["pid"])
        return "running" if started and started == self.data.get("pid_started", started) else "killed"

    def log(self, host: str) -> Path:
        """The path of a host's log; the file exists if the host was sent a command."""
        return self.folder / f"{log_name(host)}.log"

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self.data["id"])

    def outcomes(self) -> list[Mapping[str, Any]]:
        """Every outcome of every command, in order."""
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
                hint=f"use one of @{', @'.join(Status)}, or @RUN:STATUS",
            )
        status = Status(word)
        run = self.find(wanted) if wanted else self._last(status)
        if not wanted and run.state == "running":
            raise UsageError(
                f"-H {pattern}: the last run, {run.id}, is still going",
                hint=f"wait for it, or name a run: @{run.id}:{status}",
            )
        hosts = run.hosts(status)
        return Past(hosts, _note(run, status, hosts))

    def _last(self, status: Status) -> Run:
        """The last run that can have left hosts with this status; ``would-change`` comes from dry runs alone."""
        dry = status is Status.WOULD_CHANGE
        runs = [run for run in self.all() if run.could_change(dry=dry)]
        runs = [run for run in runs if run.data["pid"] != os.getpid() or run.state != "running"]  # not this run
        if not runs:
            what = "was a dry run" if dry else "could change something (dry runs and read-only commands do not count)"
            raise UsageError(
                f"-H @{status}: no run of {self.root} {what}", hint=f"name a run of `fab runs`: @RUN:{status}"
            )
        return runs[-1]


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
