"""The record of a run: ``runs/<UTC time>-<first command>-<4 hex>/``, written as the run goes.

``run.json`` is replaced whole as outcomes come, so that a killed run leaves what it knew; ``<host>.log`` has each
remote command with what it said. Secrets go over stdin and are in neither.
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
from typing import Any

from ctr_ferry.errors import UsageError
from ctr_ferry.report.outcome import Outcome, Status
from ctr_ferry.ssh.exchange import Transcript
from ctr_ferry.text import names, shown

_RUN = re.compile(r"\d{8}T\d{6}Z-[\w-]+-[0-9a-f]{4}")
_SLOW = 0.01  # seconds; where writing run.json takes longer, it
_PAUSE = 9  # is not written for one more outcome until so many times as long has passed
_MOST_OF_A_STREAM = 512 << 10  # bytes of one command's stdout or stderr that a log keeps


def new_run_id(command: str) -> str:
    """``20261124T031500Z-retag-1f2e``: sorts by time, says what it was, is unique."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{command}-{secrets.token_hex(2)}"


class Record:
    """Writes one run's folder. A disk that is full or closed is said once; the run goes on.

    Args:
        root: the folder of all runs.
        run_id: this run's, which is also its folder's name.
        head: what is known at the start: argv, versions, hosts.
        warn: called once with a sentence, if nothing can be written.
    """

    def __init__(self, root: Path, run_id: str, head: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        self.folder = root / run_id
        self._head = {"id": run_id, "started": _now(), "ended": None, "exit": None, "pid": os.getpid(), **head}
        self._head["pid_started"] = _process_start(os.getpid())
        self._commands: list[tuple[str, dict[str, str]]] = []  # each one's head, and outcomes by host
        self._warn = warn
        self._broken = False
        self._lock, self._breaking_lock = threading.Lock(), threading.Lock()
        self._next_save, self._save_is_due = 0.0, False
        self._write(lambda: self.folder.mkdir(parents=True, mode=0o700))
        self._save()

    def command(self, name: str, arguments: Mapping[str, Any], *, dry_run: bool) -> None:
        """A command of the line begins."""
        head = json.dumps({"command": name, "arguments": arguments, "dry_run": dry_run}, default=str)
        with self._lock:
            self._commands.append((head, {}))
            self._save()

    def outcome(self, outcome: Outcome) -> None:
        """A host has come to the end of the current command."""
        text = _recorded(outcome)
        with self._lock:
            self._commands[-1][1][outcome.host] = text
            if (wait := self._next_save - time.monotonic()) <= 0:
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
        """The command is over: every host's outcome as it is now known, in their order, and what was warned of."""
        texts = {each.host: _recorded(each) for each in outcomes}
        warned = json.dumps({"warnings": warnings})[1:-1]
        with self._lock:
            head = self._commands[-1][0]
            self._commands[-1] = (f"{head[:-1]}, {warned}}}", texts)
            self._save()

    def end(self, code: int) -> None:
        """The run is over."""
        with self._lock:
            self._head |= {"ended": _now(), "exit": code}
            self._save()

    def exchange(self, host: str, exchange: Transcript) -> None:
        """A remote command has ended."""
        text = (
            f"# {_now()}  exit {'?' if exchange.exit is None else exchange.exit}  {exchange.seconds:.3f} s\n"
            f"{exchange.text.rstrip()}\n"
            f"--- stdout\n{_log_text(exchange.stdout)}--- stderr\n{_log_text(exchange.stderr)}\n"
        )
        file = self.folder / f"{log_name(host)}.log"

        def append() -> None:
            with file.open("a", encoding="utf-8", errors="backslashreplace") as log:
                log.write(text)

        self._write(append)

    def _save(self) -> None:
        began, self._save_is_due = time.monotonic(), False
        commands = ",".join(
            f'{head[:-1]}, "outcomes": [{",".join(outcomes.values())}]}}' for head, outcomes in self._commands
        )
        text = f'{json.dumps(self._head, default=str)[:-1]}, "commands": [{commands}]}}\n'

        def replace() -> None:
            part = self.folder / "run.json.part"
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
            part.replace(self.folder / "run.json")

        self._write(replace)
        ended = time.monotonic()
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
    """An outcome with what a person read of it."""
    lines = outcome.result.lines() if outcome.result is not None else []
    return json.dumps({**outcome.to_json(), "lines": lines}, default=str)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _process_start(pid: int) -> str | None:
    """When a process was started, in the kernel's words; None where it has ended. Numbers of processes come again."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]  # a zombie is only not yet buried


def _log_text(stream: bytes) -> str:
    rest = len(stream) - _MOST_OF_A_STREAM
    clean = shown(stream[:_MOST_OF_A_STREAM].decode("utf-8", "backslashreplace"))
    end = f"\n… {rest} bytes more\n" if rest > 0 else ""
    return f"{clean.rstrip(chr(10))}\n{end}" if clean else end


def log_name(host: str) -> str:
    """A host's name as a file name, a different one for each; ``user@[::1]:22`` is one as it stands."""
    safe = re.sub(r"[^\w.@:+\[\]-]", "_", host)
    return safe if safe == host else f"{safe}-{zlib.crc32(host.encode()):08x}"


def prune(root: Path, keep: int) -> None:
    """Removes the oldest runs beyond ``keep``, but for those that are still going."""
    runs = sorted(path for path in root.glob("*") if _RUN.fullmatch(path.name)) if root.is_dir() else []
    for path in runs[: max(0, len(runs) - keep)]:
        run = Run.read(path / "run.json")
        if run is None or run.state != "running":
            shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as its record tells it.

    Attributes:
        data: run.json.
        state: ``ended``, ``running``, or ``killed`` where its process is gone without a word.
    """

    data: Mapping[str, Any]
    folder: Path

    @classmethod
    def read(cls, file: Path) -> Run | None:
        """From its run.json; None where that cannot be read."""
        try:
            return cls(json.loads(file.read_text(encoding="utf-8")), file.parent)
        except (OSError, ValueError, RecursionError):
            return None

    @property
    def state(self) -> str:
        """Whether it ended, is running, or was killed."""
        if self.data["ended"]:
            return "ended"
        started = _process_start(self.data["pid"])
        return "running" if started and started == self.data.get("pid_started", started) else "killed"

    @property
    def is_this(self) -> bool:
        """Whether this process is at it."""
        return self.state == "running" and bool(self.data["pid"] == os.getpid())

    def log(self, host: str) -> Path:
        """Where a host's log is, if anything was asked there."""
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
        """The commands that were to work on hosts, also those that never began: whether it was a dry run or a look."""
        return list(self.data.get("asked", self.data["commands"]))  # a record of an earlier version tells what began

    @property
    def could_change(self) -> bool:
        """Whether any command could have changed a host: not in a dry run, and not by looking."""
        return any(not each["dry_run"] and not each.get("looks") for each in self.asked)

    @property
    def would_change(self) -> bool:
        """Whether it was a dry run of such a command."""
        return any(each["dry_run"] and not each.get("looks") for each in self.asked)

    @property
    def unfinished(self) -> list[str]:
        """Hosts of a run that is over, of which some command has no outcome: it was killed, or never came to it."""
        if self.state == "running":
            return []
        done = [{o["host"] for o in command["outcomes"]} for command in self.data["commands"]]
        whole = set.intersection(*done) if done and len(done) == len(self.asked) else set()
        return [host for host in self.data["hosts"] if host not in whole]

    def hosts(self, status: str) -> list[str]:
        """The hosts that any command left with this status; those that are `unfinished` count as failed."""
        found = {o["host"] for o in self.outcomes() if o["status"] == status}
        found |= set(self.unfinished) if status == Status.FAILED else set()
        return [host for host in self.data["hosts"] if host in found]


class Runs:
    """The records of all runs, in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def all(self) -> list[Run]:
        """All that can be read, in the order in which they were started."""
        found = [run for file in self.root.glob("*/run.json") if (run := Run.read(file))]
        return sorted(found, key=lambda run: (run.data["started"], run.id))

    def find(self, wanted: str) -> Run:
        """A run by its id, by a beginning or end of it that no other has, or ``last``.

        Raises:
            UsageError: where there is none, or more than one.
        """
        found = self.all()
        if wanted == "last":
            fits = found[-1:]
        else:
            fits = [run for run in found if run.id.startswith(wanted) or run.id.endswith(wanted)]
            fits = [run for run in fits if run.id == wanted] or fits
        if len(fits) != 1:
            many = f"{len(fits)} runs of {self.root} fit {wanted!r}" if fits else f"no run of {self.root} is {wanted!r}"
            raise UsageError(many, hint="fab runs lists them")
        return fits[0]

    def past(self, pattern: str) -> Past:
        """What ``@failed`` and its like mean: hosts of the last run that could change something, or of ``@RUN:failed``.

        Raises:
            UsageError: where it is no such pattern, the run is not there, or it is not over.
        """
        wanted, _, status = pattern.removeprefix("@").rpartition(":")
        if status not in list(Status):
            raise UsageError(f"-H {pattern}: it is one of @{', @'.join(Status)}, or @RUN:failed")
        run = self.find(wanted) if wanted else self._last(Status(status))
        if not wanted and run.state == "running":
            raise UsageError(
                f"-H {pattern}: the last run, {run.id}, is still going",
                hint=f"wait for it, or name a run: @{run.id}:{status}",
            )
        return Past(run, Status(status), run.hosts(status))

    def _last(self, status: Status) -> Run:
        """The last run that such a status can be of; only a dry run says what would change."""
        dry = status is Status.WOULD_CHANGE
        runs = [r for r in self.all() if (r.would_change if dry else r.could_change) and not r.is_this]
        if not runs:
            what = "was a dry run" if dry else "could change something (looks and dry runs do not count)"
            raise UsageError(
                f"-H @{status}: no run of {self.root} {what}", hint=f"fab runs lists them; @RUN:{status} names one"
            )
        return runs[-1]


@dataclass(frozen=True, slots=True)
class Past:
    """What a pattern such as ``@failed`` means."""

    run: Run
    status: Status
    hosts: list[str]

    @property
    def note(self) -> str:
        """Which run and hosts these are, and of which others somebody may think as well."""
        cut = [host for host in self.run.unfinished if host in self.hosts] if self.status is Status.FAILED else []
        also = [s for s in (Status.FAILED, Status.UNREACHABLE, Status.SKIPPED) if s is not self.status]
        others = [f"{len(hosts)} {s}" for s in also if (hosts := self.run.hosts(s))]
        return (
            f"run {self.run.id} left {names(self.hosts, every=True) or 'no host'} {self.status}"
            + (f" ({names(cut, every=True)} cut off, without an outcome)" if cut else "")
            + (f"; besides, {', '.join(others)}" if others else "")
        )
