"""The executor that stock ``fab`` uses instead of its own (``tasks.executor_class`` in fabric.yaml).

The executor parses the whole command line before it touches a host. Then it runs each command, collects outcomes and
writes the record. A task that needs hosts never falls through to the control machine.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

import fabric
from invoke.exceptions import Exit

from ctr_ferry import ranges
from ctr_ferry.errors import (
    BadArchive,
    BadInventory,
    FerryError,
    InternalError,
    Interrupted,
    NothingFound,
    UsageError,
)
from ctr_ferry.inventory.ansible import inventory_file
from ctr_ferry.inventory.selector import HostSelector
from ctr_ferry.report import hints, observer, render
from ctr_ferry.report.agreement import Disagreement, HostNote, disagreements, host_notes
from ctr_ferry.report.hints import Asked
from ctr_ferry.report.outcome import Answer, Outcome, Status, Table, as_dry_run, exit_code, unforeseen
from ctr_ferry.report.past_runs import Runs, prune
from ctr_ferry.report.record import Record, new_run_id
from ctr_ferry.run.command import Command, ControlMachine, Kind
from ctr_ferry.run.interrupts import Interrupts, Terminated
from ctr_ferry.run.line import (
    USELESS,
    Line,
    read,
    record_head,
    refuse_foreign_tasks,
    refuse_hosts_given_twice,
    refuse_useless,
)
from ctr_ferry.run.own_tasks import CheckedCall, connection_arguments
from ctr_ferry.run.places import PROJECT
from ctr_ferry.run.program import refuse_command
from ctr_ferry.run.scheduler import Fleet
from ctr_ferry.run.settings import FleetConfig, limits
from ctr_ferry.run.stock import tell_cut
from ctr_ferry.ssh import open_files
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.openssh import ssh_config
from ctr_ferry.ssh.target import Target

_CUT: dict[type[BaseException], int] = {KeyboardInterrupt: 130, Terminated: 143}  # exit statuses


class FleetExecutor(fabric.Executor):  # type: ignore[misc]
    """Fabric's executor, extended by an inventory, parallel hosts, outcomes and a record."""

    def execute(self, *tasks: Any) -> Any:
        """Invoke's hook: runs the whole command line.

        Raises:
            Exit: with the exit status, unless it is 0.
        """
        render.open_streams()
        calls = self.normalize(tasks)
        ours = [isinstance(call.task, Command) for call in calls]
        if not any(ours):
            return self._own_tasks(tasks)
        code = self._exit_status(calls)
        if code in _CUT.values() and threading.active_count() > 1:
            os._exit(code)  # a thread that still waits for a connection must not use it
        if code:
            raise Exit(code=code)
        return {}

    def _own_tasks(self, tasks: Sequence[Any]) -> Any:
        """Runs tasks that the user added, as Fabric does, but for the connections: see `own_tasks`."""
        try:
            refuse_command(self.core)
            self._load_environment()
            return super().execute(*tasks)
        except FerryError as error:
            render.failure(error, as_json=False)
            raise Exit(code=error.exit_code) from None

    def normalize_hosts(self, hosts: Any) -> list[dict[str, Any]]:
        """Fabric's hook: the hosts of a user's own task."""
        return connection_arguments(self._selector(FleetConfig.of(self.config)), hosts)

    def parameterize(self, call: Any, connection_init_kwargs: dict[str, Any]) -> Any:
        """Fabric's hook: a user's own task with one host."""
        return call.clone(into=CheckedCall, with_={"init_kwargs": connection_init_kwargs})

    def _exit_status(self, calls: Sequence[Any]) -> int:
        as_json = any(call.kwargs.get("json") for call in calls)
        try:
            with Interrupts() as self._interrupts:
                return self._run(calls, as_json=as_json)
        except (KeyboardInterrupt, Terminated) as cut:
            return tell_cut(_CUT[type(cut)], as_json=as_json)
        except Exit:
            raise
        except Exception as error:  # noqa: BLE001  (shown, with where it happened)
            failure = error if isinstance(error, FerryError) else unforeseen(error)
            failure.hint = self._asked(calls).finish(failure.hint, repeat=not _is_line_wrong(failure))
            render.failure(failure, as_json=as_json)
            return failure.exit_code

    def _run(self, calls: Sequence[Any], *, as_json: bool) -> int:
        refuse_foreign_tasks(calls)
        refuse_hosts_given_twice(sys.argv[1:])
        refuse_command(self.core)
        refuse_useless(self.core[0].args)
        self._load_environment()
        dry = bool(self.config.run.dry)
        lines = [read(call, self._asked([call]), dry=dry, as_json=as_json) for call in calls]
        config = FleetConfig.of(self.config)
        selector = self._selector(config)
        patterns = tuple(ranges.split(self.core[0].args.hosts.value or ""))
        control_machine = ControlMachine(selector, patterns, Runs(config.runs_folder))
        if all(line.command.kind is Kind.CONTROL_MACHINE for line in lines):
            return _report([_on_control_machine(line, control_machine, alone=True) for line in lines], lines, 0)
        return self._on_hosts(lines, config, control_machine)

    def _selector(self, config: FleetConfig) -> HostSelector:
        file = inventory_file(config.inventory, PROJECT)
        return HostSelector(file, config.trust, limits(self.config), self._is_alias, Runs(config.runs_folder).past)

    def _is_alias(self, name: str) -> bool:
        return name in ssh_config(self.config).aliases

    def _asked(self, calls: Sequence[Any]) -> Asked:
        """What was typed, for hints."""
        args = self.core[0].args
        given = {max(arg.names, key=len): arg.value for arg in args.values() if arg.value not in (None, arg.default)}
        fabrics = hints.options(given, without=["--hosts", *USELESS])
        return Asked([(call.task.name, call.kwargs) for call in calls], args.hosts.value or "", tuple(fabrics))

    def _select(self, selector: HostSelector, patterns: Sequence[str]) -> list[Target]:
        """The targets of the patterns; prints what is new among the selector's notes."""
        known = set(selector.notes)
        targets = selector.select(patterns)
        for note in selector.notes:
            if note not in known:
                render.note(note)
        return targets

    def _load_environment(self) -> None:
        try:
            self.config.load_shell_env()
        except ValueError as error:
            wrong = [n for n, v in os.environ.items() if n.startswith("FABRIC_") and repr(v) in str(error)]
            raise UsageError(
                f"{' or '.join(wrong) or 'a FABRIC_… variable'} has a wrong type: {error}",
                hint=f"unset {' '.join(wrong)}" if wrong else "unset it: env | grep ^FABRIC_",
            ) from error

    def _on_hosts(self, lines: Sequence[Line], config: FleetConfig, control_machine: ControlMachine) -> int:
        """Runs the line's commands on its hosts, writes the record, and returns the exit status."""
        first = next(line.command.name for line in lines if line.command.kind is not Kind.CONTROL_MACHINE)
        named = (line.command.own_hosts(line.request) for line in lines if line.command.own_hosts)
        patterns = control_machine.patterns or tuple(dict.fromkeys(host for hosts in named for host in hosts))
        if not patterns:
            raise UsageError(f"{first} needs hosts", hint="name hosts, groups or globs, such as -H all")
        open_files.raise_limit()
        ssh_config(self.config).check()
        targets = self._select(control_machine.selector, patterns)
        for line in lines:
            for note in getattr(line.request, "notes", ()):
                render.note(note)
            if line.command.before:
                line.command.before(line.request, targets)
        run_id = new_run_id(first)
        head = record_head(lines, patterns, [target.name for target in targets])
        record = Record(control_machine.runs.root / run_id, head, render.note)

        def new_host(target: Target) -> Host:
            return Host(target, self.config.clone(), run_id=run_id, log=record.exchange)

        def further_hosts(pattern: str) -> Iterator[Host]:
            return map(new_host, self._select(control_machine.selector, [pattern]))

        hosts = {target.name: new_host(target) for target in targets}
        code = 1  # if a fault of ours ends the run
        try:
            new_fleet = partial(Fleet, workers=config.workers, further=further_hosts)
            code = _run_lines(lines, control_machine, hosts, new_fleet, record)
        finally:
            self._interrupts.over()
            for host in hosts.values():
                host.close_quietly()
            record.end(code)
            with suppress(KeyboardInterrupt, Terminated):  # the next run takes away what this one leaves
                prune(control_machine.runs.root, config.keep_runs, config.keep_days, own=run_id)
        return code


def _is_line_wrong(error: FerryError) -> bool:
    """Whether the command line itself must be changed, rather than a file or a host."""
    return isinstance(error, UsageError | NothingFound) and not isinstance(error, BadInventory | BadArchive)


def _on_control_machine(line: Line, control_machine: ControlMachine, *, alone: bool) -> render.Done:
    """Runs and shows one command. Unless it is alone, an error is shown and ends nothing."""
    ended = partial(render.Done, line.command.name, line.arguments, [])
    try:
        view = line.command.body(control_machine, line.request)
        done = ended(view=view, failure=view.failure)
    except FerryError as error:
        if alone:
            raise
        done = ended(failure=error)
    if not line.common.json:
        render.table(done)
    return done


def _run_lines(
    lines: Sequence[Line],
    control_machine: ControlMachine,
    hosts: Mapping[str, Host],
    new_fleet: Callable[..., Fleet],
    record: Record,
) -> int:
    """Runs the commands in their order, reports all, and returns the exit status; an interrupt ends the line."""
    done: list[render.Done] = []
    code = 0
    try:
        for line in lines:
            if line.command.kind is Kind.CONTROL_MACHINE:
                done.append(_on_control_machine(line, control_machine, alone=False))
                continue
            ended, code = _on_fleet(line, hosts, new_fleet, record, last=line is lines[-1])
            done.append(ended)
            if code:
                break
        return _report(done, lines, code, record)
    except (KeyboardInterrupt, Terminated) as cut:
        return _report(done, lines, _CUT[type(cut)], record)


def _on_fleet(
    line: Line, hosts: Mapping[str, Host], new_fleet: Callable[..., Fleet], record: Record, *, last: bool
) -> tuple[render.Done, int]:
    """Runs one command on all hosts; records and shows the outcomes.

    Returns:
        The command with its outcomes, and the exit status of an interrupt (0 without one).
    """
    command = line.command
    record.command(command.name, line.arguments, dry_run=line.common.dry_run)
    with (
        observer.display(command.name, len(hosts)) as display,
        closing(new_fleet(hosts, line.common, display, record.outcome, last=last)) as fleet,
    ):
        answers, failure, code = _answers(line, fleet)
    outcomes, table = _outcomes(line, fleet, answers, cut=bool(code))
    if failure:
        failure.hint = line.asked.finish(failure.hint, repeat=not _is_line_wrong(failure))
    warnings: list[Disagreement | HostNote] = [*disagreements(outcomes)]
    warnings += host_notes({name: host.notes for name, host in fleet.hosts.items()})
    record.outcomes(outcomes, [warning.to_json() for warning in warnings], fleet.others)
    ended = render.Done(
        command.name,
        line.arguments,
        outcomes,
        dry_run=line.common.dry_run,
        looks=line.command.read_only(line.request),
        table=table,
        failure=failure,
        warnings=warnings,
    )
    if not line.common.json:
        render.table(ended)
    return ended, code


def _answers(line: Line, fleet: Fleet) -> tuple[dict[str, Answer], FerryError | None, int]:
    """The answers by host, why the command as a whole failed, and the exit status of an interrupt (0 without one)."""
    body = line.command.body
    try:
        if line.command.kind is Kind.HOST:
            return fleet.each(lambda host: body(host, line.request)), None, 0
        return body(fleet, line.request), None, 0
    except (KeyboardInterrupt, Terminated) as cut:
        return fleet.answers, None, _CUT[type(cut)]
    except FerryError as error:
        return error.result if isinstance(error.result, dict) else fleet.answers, error, 0
    except Exception as error:  # noqa: BLE001  (shown, with where it happened)
        return fleet.answers, unforeseen(error), 0


def _outcomes(line: Line, fleet: Fleet, answers: dict[str, Answer], *, cut: bool) -> tuple[list[Outcome], Table | None]:
    """One outcome per host, in the order of the hosts, and the table of all answers unless the run was cut."""
    ends = {name: _outcome(line.command, name, fleet, answers, cut=cut).checked() for name in fleet.hosts}
    answers = {name: ends[name].error or answer for name, answer in answers.items()}
    table, faults = (None, {}) if cut else _tabulated(line.command, answers)
    ends |= {name: Outcome.of(name, ends[name].seconds, fault) for name, fault in faults.items()}
    return [hints.finish(outcome, line.asked) for outcome in ends.values()], table


def _tabulated(command: Command, answers: dict[str, Answer]) -> tuple[Table | None, dict[str, InternalError]]:
    """The table of all answers. An answer that breaks it is left out: the second value has the fault by host."""
    if not command.tabulate:
        return None, {}
    try:
        return command.tabulate(answers), {}
    except Exception as all_of_them:  # noqa: BLE001  (one host's answer may be the cause)
        faults: dict[str, InternalError] = {}
        for host, answer in answers.items():
            try:
                command.tabulate({host: answer})
            except Exception as error:  # noqa: BLE001
                faults[host] = unforeseen(error)
        try:
            return command.tabulate(answers | faults), faults
        except Exception:  # noqa: BLE001  (only all answers together break it)
            return None, dict.fromkeys(answers, unforeseen(all_of_them))


def _outcome(command: Command, name: str, fleet: Fleet, answers: dict[str, Answer], *, cut: bool) -> Outcome:
    answer = answers.get(name) or fleet.unanswered(name, cut=cut)
    answer = as_dry_run(answer) if fleet.dry_run else answer  # a fleet command may have replaced answers
    if isinstance(answer, Interrupted):
        answer.hint = command.if_cut or answer.hint
    return Outcome.of(name, fleet.seconds[name], answer)


def _report(done: Sequence[render.Done], lines: Sequence[Line], code: int, record: Record | None = None) -> int:
    """The exit status: ``code`` after an interrupt, else what the commands give. Prints the JSON document or recap."""
    if not code:
        failures = [each.failure.exit_code for each in done if each.failure]
        started = any(o.status is not Status.SKIPPED for each in done for o in each.outcomes)
        code = min(max(failures, default=0), 1 if started else 2)  # 2: it inspected the hosts, then refused to start
        code = code or exit_code(o for each in done for o in each.outcomes)
    if any(line.common.json for line in lines):
        render.document(done, code, record.folder.name if record else None)
    elif not any(line.arguments.get("csv") for line in lines):
        render.recap(done, record.folder.name if record and record.is_whole else "")
    return code or int(render.unwritten())
