"""What stock ``fab`` runs instead of its own executor (``tasks.executor_class`` in fabric.yaml).

It knows the inventory, runs a command on all its hosts at once, turns everything that can go wrong into an outcome,
and never lets a task that needs hosts fall through to the control machine.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import fabric
from invoke.exceptions import Exit
from invoke.tasks import Call
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import FerryError, InternalError, Interrupted, UsageError
from tasks.fleet import show
from tasks.fleet.command import Command, CommonOptions
from tasks.fleet.outcome import Outcome, Status, exit_code
from tasks.fleet.roster import Roster, inventory_file
from tasks.ssh.host import Host
from tasks.ssh.target import Limits, Target, Trust

_PROJECT = Path(__file__).resolve().parents[2]  # where fabfile.py lies
_INTERRUPTED, _TERMINATED = 130, 143
_LAST_WORDS = 1.0  # seconds


class FleetConfig(BaseModel):
    """The ``fleet`` section of fabric.yaml."""

    model_config = ConfigDict(extra="forbid")
    inventory: str | None = None
    known_hosts: str = "~/.ssh/known_hosts"
    host_keys: Literal["strict", "accept-new"] = "strict"
    workers: int = Field(32, ge=1, le=512)


class Terminated(BaseException):
    """SIGTERM, as an exception in the main thread; like KeyboardInterrupt, no handler takes it by accident."""


class FleetExecutor(fabric.Executor):  # type: ignore[misc]
    """Fabric's executor with an inventory, parallel hosts and collected outcomes."""

    def execute(self, *tasks: Any) -> Any:
        """Invoke's entry: runs the whole command line; ends by raising Exit with the exit status."""
        calls = self.normalize(tasks)
        ours = [isinstance(call.task, Command) for call in calls]
        if not any(ours):
            return super().execute(*tasks)
        if not all(ours):
            raise Exit("commands of ctr-ferry and tasks of your own cannot share one line", code=2)
        as_json = any(call.kwargs.get("json") for call in calls)
        try:
            with _sigterm_raises():
                code = self._run(calls)
        except FerryError as error:
            show.failure(error, as_json=as_json)
            code = error.exit_code
        except (KeyboardInterrupt, Terminated) as cut:
            show.note("interrupted before any host was touched")
            code = _code_of(cut)
        if threading.active_count() > 1 and code in (_INTERRUPTED, _TERMINATED):
            # A thread may still wait for a connection; nothing that it would do then is wanted.
            sys.stdout.flush()
            os._exit(code)
        if code:
            raise Exit(code=code)
        return {}

    def _run(self, calls: Sequence[Call]) -> int:
        self._load_environment()
        self._run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        commands: list[Any] = [call.task for call in calls]
        requests = [_parse(command, call.kwargs) for command, call in zip(commands, calls, strict=True)]
        targets = self._targets(commands[0])
        dry = bool(self.config.run.dry)
        hosts: dict[str, Host] = {}
        done: list[show.Done] = []
        interrupted = 0
        try:
            for command, call, (common, request) in zip(commands, calls, requests, strict=True):
                dry_run = common.dry_run or dry
                outcomes, interrupted = self._on_all(command, request, targets, hosts, dry_run)
                done.append(show.Done(command.name, call.kwargs, outcomes, dry_run))
                if not common.json:
                    show.table(done[-1])
                if interrupted:
                    break
        finally:
            for host in hosts.values():
                host.close()
        code = interrupted or exit_code([outcome for each in done for outcome in each.outcomes])
        if any(common.json for common, _ in requests):
            show.document(done, code)
        return code

    def _load_environment(self) -> None:
        try:
            self.config.load_shell_env()
        except ValueError as error:
            raise UsageError(f"a FABRIC_… variable of the environment has a wrong type: {error}") from error

    def _targets(self, command: Command) -> list[Target]:
        patterns = (self.core[0].args.hosts.value or "").split(",")
        if not any(pattern.strip() for pattern in patterns):
            raise UsageError(
                f"{command.name} needs hosts",
                hint=f"fab -H HOST[,HOST…] {command.name} …; groups and globs will do",
            )
        roster = self._roster()
        targets = roster.select(patterns)
        for note in roster.notes:
            show.note(note)
        return targets

    def _roster(self) -> Roster:
        try:
            fleet = FleetConfig(**self.config.get("fleet", {}))
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(
                f"fleet.{'.'.join(map(str, first['loc']))} in fabric.yaml is wrong: {first['msg']}"
            ) from None
        self._workers = fleet.workers
        trust = Trust((_PROJECT / Path(fleet.known_hosts).expanduser(),), fleet.host_keys == "accept-new")
        ssh_config = self.config.base_ssh_config
        aliases = {name for name in ssh_config.get_hostnames() if not set("*?!") & set(name)}
        return Roster(inventory_file(fleet.inventory, _PROJECT), trust, self._limits(), aliases.__contains__)

    def _limits(self) -> Limits:
        timeouts, default = self.config.timeouts, Limits()
        try:
            connect = int(self.config.connect_kwargs.get("timeout") or timeouts.connect or default.connect)
            return Limits(connect=connect, command=int(timeouts.command or default.command))
        except (ValueError, TypeError) as error:
            raise UsageError(f"timeouts in fabric.yaml are whole seconds: {error}") from error

    def _on_all(
        self, task: Command, request: Any, targets: list[Target], hosts: dict[str, Host], dry_run: bool
    ) -> tuple[list[Outcome], int]:
        """Runs one command on every host at once.

        Returns:
            The outcomes in the targets' order, and 130 or 143 where the run was cut short.
        """
        base = self.config.clone()  # ssh_config is read again into its source; the clones of the clone are apart
        outcomes: dict[str, Outcome] = {}
        code = 0
        pool = ThreadPoolExecutor(min(self._workers, len(targets)), thread_name_prefix="host")
        futures: dict[Future[Outcome], str] = {}
        try:
            for target in targets:
                if target.name not in hosts:
                    hosts[target.name] = Host(target, base.clone(), run_id=self._run_id)
                hosts[target.name].begin(dry_run=dry_run)
                futures[pool.submit(_on_one, task, hosts[target.name], request)] = target.name
            for future in as_completed(futures):
                outcomes[futures[future]] = future.result()
        except (KeyboardInterrupt, Terminated) as cut:
            code = _code_of(cut)
            for host in hosts.values():
                host.abandon()
            _collect_done(futures, outcomes)
        finally:
            pool.shutdown(wait=not code, cancel_futures=True)
        for target in targets:
            outcomes.setdefault(target.name, _cut_short(target.name, hosts))
        return [outcomes[target.name] for target in targets], code


def _parse(command: Command, options: Mapping[str, Any]) -> tuple[CommonOptions, Any]:
    common, own = command.split(options)
    return common, command.parse(**own)


def _on_one(task: Command, host: Host, request: Any) -> Outcome:
    start = time.monotonic()
    if host.failed:
        return Outcome(host.name, Status.SKIPPED, 0.0)
    try:
        result = task(host, request)
    except FerryError as error:
        host.mark_failed()
        return Outcome.of_error(host.name, time.monotonic() - start, _interrupted() if host.abandoned else error)
    except Exception as error:  # noqa: BLE001  (shown, with where it happened)
        host.mark_failed()
        return Outcome.of_error(host.name, time.monotonic() - start, _unforeseen(error))
    return Outcome.of(host.name, time.monotonic() - start, result)


def _collect_done(futures: Mapping[Future[Outcome], str], outcomes: dict[str, Outcome]) -> None:
    """Gives hosts whose connection was closed a moment to say so, and takes what was done before."""
    for future in wait(futures, timeout=_LAST_WORDS).done:
        if not future.cancelled():
            outcomes.setdefault(futures[future], future.result())


def _code_of(cut: BaseException) -> int:
    return _INTERRUPTED if isinstance(cut, KeyboardInterrupt) else _TERMINATED


def _unforeseen(error: Exception) -> InternalError:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return InternalError(
        f"{type(error).__name__}: {error}",
        said=f"at {Path(place.filename).name}:{place.lineno} in {place.name}",
        hint="this is a fault of ctr-ferry: report it with the command line and this message",
    )


def _cut_short(name: str, hosts: dict[str, Host]) -> Outcome:
    asked = name in hosts and hosts[name].asked
    if not asked:
        return Outcome(name, Status.SKIPPED, 0.0)
    return Outcome.of_error(name, 0.0, _interrupted())


def _interrupted() -> Interrupted:
    return Interrupted(
        "the run was interrupted while this host was at work", hint="run it again: it looks first what is true"
    )


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def handler(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
