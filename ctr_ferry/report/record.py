"""The record of a run: ``runs/<UTC time>-<first command>-<4 hex>/``, written as the run goes.

``run.json`` is replaced whole as outcomes come, so that a killed run leaves all outcomes so far. ``<host>.log`` has
each remote command with its output. Secrets travel over stdin and are in neither file.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctr_ferry.report.outcome import Outcome
from ctr_ferry.ssh.exchange import Transcript
from ctr_ferry.text import shown

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
        self._head["pid_started"] = process_start(os.getpid())
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


def process_start(pid: int) -> str | None:
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
