"""The record of a run: ``runs/<UTC time>-<first command>-<4 hex>/``, written as the run goes.

``run.json`` has every host's status and error. It is replaced whole as outcomes come, so that a killed run leaves all
outcomes so far. ``<host>.jsonl`` has a host's results, a line for each command; of two lines for one command, the last
one holds. ``<host>.log`` has each remote command with its output. Secrets travel over stdin and are in no file.
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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctr_ferry.errors import FerryError
from ctr_ferry.report.outcome import Outcome
from ctr_ferry.ssh.exchange import Transcript
from ctr_ferry.text import shown

_SLOW = 0.01  # seconds; after a longer write of run.json, the next write waits
_PAUSE = 9  # times as long as that write took
_MOST_SAID = 4 << 10  # characters of an error's words in run.json; the host's file has all of them
_MOST_OF_STEPS = 64 << 10  # characters of one command that a log keeps
_MOST_OF_A_STREAM = 512 << 10  # bytes of one command's stdout or stderr that a log keeps


def new_run_id(command: str) -> str:
    """A unique id such as ``20261124T031500Z-retag-1f2e``, which sorts by time and names the first command."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{command}-{secrets.token_hex(2)}"


@dataclass(frozen=True, slots=True)
class _Command:
    """A command of the line: what is known of it as a whole, and by host its outcome without the result, as JSON."""

    head: dict[str, Any]
    outcomes: dict[str, str] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)  # by host, the hash of the last line in the host's own file

    def __str__(self) -> str:
        return f'{json.dumps(self.head, default=str)[:-1]}, "outcomes": [{",".join(self.outcomes.values())}]}}'


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
        self._commands: list[_Command] = []
        self._broken = False
        self._lock, self._breaking_lock, self._keeping_lock = threading.Lock(), threading.Lock(), threading.Lock()
        self._next_save, self._save_is_due = 0.0, False
        self._write(lambda: self.folder.mkdir(parents=True, mode=0o700))
        self._save()

    def command(self, name: str, arguments: Mapping[str, Any], *, dry_run: bool) -> None:
        """Notes that a command of the line begins."""
        with self._lock:
            self._commands.append(_Command({"command": name, "arguments": arguments, "dry_run": dry_run}))
            self._save()

    def outcome(self, outcome: Outcome) -> None:
        """Notes a host's outcome of the current command; writes it now or, if writing is slow, a little later."""
        text = self._keep(outcome)
        with self._lock:
            self._commands[-1].outcomes[outcome.host] = text
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

    def outcomes(
        self,
        outcomes: Iterable[Outcome],
        warnings: Sequence[Mapping[str, Any]] = (),
        others: Mapping[str, FerryError | None] | None = None,
    ) -> None:
        """Notes the final outcomes of the current command, in the order of the hosts, and its warnings.

        Args:
            others: further hosts that were asked, such as the source of a copy, and the error that each ended with.
        """
        texts = {each.host: self._keep(each) for each in outcomes}
        asked = [
            {"host": host, **({"error": error.to_json()} if error else {})} for host, error in (others or {}).items()
        ]
        with self._lock:
            command = self._commands[-1]
            command.head.update(warnings=warnings, others=asked)
            command.outcomes.clear()
            command.outcomes.update(texts)
            self._save()

    def _keep(self, outcome: Outcome) -> str:
        """Adds the outcome's result, and the lines that a person read, to the host's file; returns the rest as JSON.

        A long error is in both, in the rest by its end alone.
        """
        document = outcome.to_json()
        rest = {"result": document.pop("result")} if "result" in document else {}
        error = document.get("error")
        if error and len(error["said"]) > _MOST_SAID:  # such as all that a command of the user printed
            rest["error"], document["error"] = error, {**error, "said": error["said"][-_MOST_SAID:]}
        text = json.dumps({"command": len(self._commands) - 1, **rest, "lines": outcome.lines_there()}, default=str)
        file = self.folder / f"{log_name(outcome.host)}.jsonl"
        with self._keeping_lock:
            kept = self._commands[-1].kept
            if kept.get(outcome.host) != hash(text):
                kept[outcome.host] = hash(text)
                self._write(lambda: _append(file, f"{text}\n"))
        return json.dumps(document, default=str)

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
        self._write(lambda: _append(self.folder / f"{log_name(host)}.log", text))

    def _save(self) -> None:
        began, self._save_is_due = self._clock(), False
        text = f'{json.dumps(self._head, default=str)[:-1]}, "commands": [{",".join(map(str, self._commands))}]}}\n'

        def replace() -> None:
            part = self.folder / "run.json.part"
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
            part.replace(self.folder / "run.json")

        self._write(replace)
        ended = self._clock()
        self._next_save = ended + _PAUSE * (ended - began) if ended - began > _SLOW else 0.0

    @property
    def is_whole(self) -> bool:
        """Whether all could be written so far."""
        return not self._broken

    def _write(self, write: Callable[[], object]) -> None:
        try:
            if not self._broken:
                write()
        except OSError as error:
            with self._breaking_lock:  # logs are written by all hosts at once
                first, self._broken = not self._broken, True
            if first:
                self._warn(f"the record of this run cannot be written to {self.folder}: {error.strerror}")


def _append(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8", errors="backslashreplace") as opened:
        opened.write(text)


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
    """A name for a host's files, different for each host; names such as ``user@[::1]:22`` stay as they are."""
    safe = re.sub(r"[^\w.@:+\[\]-]", "_", host)
    return safe if safe == host else f"{safe}-{zlib.crc32(host.encode(errors='surrogatepass')):08x}"
