"""Runs work on the hosts of one invocation: in parallel, in batches, within limits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

from ctr_ferry.errors import CommandFailed, FerryError, Interrupted, NotStarted
from ctr_ferry.report.observer import Observer
from ctr_ferry.report.outcome import Answer, Outcome, Result, as_dry_run, unforeseen
from ctr_ferry.run.command import CommonOptions
from ctr_ferry.run.interrupts import Terminated
from ctr_ferry.run.threads import as_completed, start
from ctr_ferry.ssh.answer_memory import MEMORY
from ctr_ferry.ssh.host import Host
from ctr_ferry.text import shown

_GRACE = 1.0  # seconds that threads get after an interrupt to return what their hosts did
_LAG = 20.0  # seconds without an end after which the last hosts of a batch keep no further batch waiting

_T = TypeVar("_T")


class Together(Protocol):
    """Work on hosts that depend on one another: all hosts of a batch work at the same time."""

    def work(self, host: Host) -> Result:
        """Works on one host of the batch."""

    def gone(self, host: str) -> None:
        """Is called when the work on a host is over or will never begin, so that no other host waits for it."""


@dataclass(frozen=True, slots=True)
class _Work:
    """Work on each host of a batch, as `Fleet.each` and `Together` describe it."""

    run: Callable[[Host], Result]
    last: bool = True
    looks: bool = False
    done: Mapping[str, Answer] = field(default_factory=dict)
    gone: Callable[[str], None] = lambda _: None


class Fleet:
    """The hosts of one command, and its work on them. A host connects when it first gets a script.

    Args:
        hosts: by name, in the order of the command line.
        options: the command's common options.
        observer: is called as the work on each host goes on.
        record: takes each host's outcome as soon as it is known; a fleet command may still replace it at its end.
        workers: how many hosts work at once.
        last: whether this is the line's last command; then a host's connection is closed after its work.
        further: makes new hosts from a pattern of the inventory.

    Attributes:
        answers: by host; complete also after an interrupt.
        seconds: how long the command worked on each host.
        others: further hosts that were asked, and the last error of each.
    """

    def __init__(
        self,
        hosts: Mapping[str, Host],
        options: CommonOptions,
        observer: Observer,
        record: Callable[[Outcome], object],
        *,
        workers: int,
        last: bool,
        further: Callable[[str], Iterable[Host]],
    ) -> None:
        self.hosts = hosts
        self._options, self._observer, self._record = options, observer, record
        self._workers, self._last, self._further = workers, last, further
        self._others: dict[str, Host] = {}
        self._asked = {name: host.asked for name, host in hosts.items()}  # how many remote commands each had run before
        self._failed_before = {name for name, host in hosts.items() if host.failed}
        self.answers: dict[str, Answer] = {}
        self.seconds = dict.fromkeys(hosts, 0.0)
        self.others: dict[str, FerryError | None] = {}
        MEMORY.divide(len(hosts))
        for host in hosts.values():
            host.begin(dry_run=options.dry_run, moved=partial(observer.on_progress, host.name))

    def each(
        self,
        work: Callable[[Host], Result],
        *,
        close: bool = True,
        looks: bool = False,
        done: Mapping[str, Answer] | None = None,
    ) -> dict[str, Answer]:
        """Runs ``work`` on every host that no command of this line has failed on.

        Args:
            work: takes a host and returns its result, or raises.
            close: whether this is the command's last work on the hosts.
            looks: whether the work only looks at the hosts. After an interrupt, its results do not count.
            done: earlier answers by host. A host whose work is interrupted now keeps its earlier answer.

        Returns:
            By host, the result or the error that ended the work.

        Raises:
            KeyboardInterrupt, Terminated: the run was interrupted; ``answers`` then has every host's answer.
        """
        stage = _Work(work, last=close, looks=looks, done=done or {})
        return self._in_batches(len(self.hosts), lambda _: stage)

    def together(self, form: Callable[[Sequence[str]], Together], *, close: bool = True) -> dict[str, Answer]:
        """Like `each`, for hosts that depend on one another. A batch has at most as many hosts as there are workers.

        Where a few hosts of a batch lag behind the others, the next batch begins in the places that are free.

        Args:
            form: makes the work of one batch from the names of its hosts.
            close: whether this is the command's last work on the hosts.
        """

        def stage(names: Sequence[str]) -> _Work:
            common = form(names)
            return _Work(common.work, last=close, gone=common.gone)

        return self._in_batches(self._workers, stage)

    def _in_batches(self, most: int, form: Callable[[Sequence[str]], _Work]) -> dict[str, Answer]:
        names = [name for name, host in self.hosts.items() if not host.failed]
        for name in names:
            self.answers.pop(name, None)  # an earlier answer would hide that this work was interrupted
        waiting, running = list(names), dict[Future[Answer], str]()
        pool = ThreadPoolExecutor(max(1, min(self._workers, len(names))), thread_name_prefix="host")
        while waiting:
            size = min(self._options.serial or most, most) - len(running)
            batch, waiting = waiting[:size], waiting[size:]
            may_leave_some = bool(waiting) and not self._options.serial
            running = self._run_batch(pool, batch, form(batch), running, _LAG if may_leave_some else float("inf"))
        pool.shutdown()
        return {name: self.answers[name] for name in names}

    def also(self, patterns: Iterable[str], work: Callable[[Host], _T]) -> dict[str, _T | FerryError]:
        """Runs ``work`` on further hosts of the inventory, all at once.

        These hosts get no outcome. They stay connected until `disconnect`, or until the command ends. A host that is
        one of the command's own is asked over the same connection.

        Args:
            patterns: which hosts, as ``-H`` takes them.
            work: takes a host and returns what the command needs of it, or raises a FerryError.

        Returns:
            By host, what ``work`` returned or the error that it raised.

        Raises:
            UnknownHost, BadInventory: a pattern is wrong.
            KeyboardInterrupt, Terminated: as in `each`.
        """
        found = {host.name: host for pattern in patterns for host in self._further(pattern)}
        for name, host in found.items():
            if name in self.hosts:
                self._others[name] = self.hosts[name]
            elif name not in self._others:
                host.begin(dry_run=self.dry_run, moved=lambda *_: None)
                self._others[name], self.others[name] = host, None
        MEMORY.divide(len(self.hosts.keys() | self._others.keys()))
        return self.beside(found, work)

    def disconnect(self, names: Iterable[str]) -> None:
        """Closes further hosts that the command hardly needs any more: they connect anew when they are asked again."""
        for name in names:
            if name in self._others and name not in self.hosts:
                self._others[name].close_quietly()

    def beside(self, names: Iterable[str], work: Callable[[Host], _T]) -> dict[str, _T | FerryError]:
        """Like `also`, for hosts by their names: the command's own, and those that `also` has worked on."""
        hosts = [self._others.get(name) or self.hosts[name] for name in names]
        if not hosts:
            return {}
        pool = ThreadPoolExecutor(min(self._workers, len(hosts)), thread_name_prefix="also")
        try:
            futures = {start(pool, partial(_try, work, host), _no_thread): host.name for host in hosts}
            answers = {futures[future]: future.result() for future in as_completed(futures)}
            failed = {name: answer for name, answer in answers.items() if isinstance(answer, FerryError)}
            self.others |= {name: error for name, error in failed.items() if name in self.others}
        except (KeyboardInterrupt, Terminated):
            self._abandon()
            failed = {name: answer for name, answer in self.answers.items() if isinstance(answer, FerryError)}
            self.answers |= {name: self.unanswered(name, cut=True) for name in self.hosts} | failed
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return {host.name: answers[host.name] for host in hosts}

    def _abandon(self) -> None:
        for host in (*self.hosts.values(), *self._others.values()):
            host.abandon()

    def fail(self, error: FerryError) -> dict[str, Answer]:
        """Ends the command on all hosts with one error, such as that of a source which all of them need."""
        for host in self:
            host.mark_failed()
        return dict.fromkeys(self.hosts, error)

    def close(self) -> None:
        """Closes the further hosts: the command is over."""
        for name, host in self._others.items():
            if self._last or name not in self.hosts:
                host.close_quietly()
            MEMORY.free(name)

    def _run_batch(
        self, pool: Executor, names: Sequence[str], work: _Work, before: Mapping[Future[Answer], str], lag: float
    ) -> dict[Future[Answer], str]:
        """Runs a batch beside what is left of the batches before; returns what is left once others may begin.

        Args:
            lag: seconds after which the rest of a batch counts as left behind, once most of it has ended.
        """
        futures = dict(before)
        try:
            for name in names:
                futures[self._start(pool, self.hosts[name], work)] = name
            left = set(futures)
            for future in as_completed(futures, lag):
                self.answers[futures[future]] = future.result()
                left.remove(future)
                if lag < float("inf") and left <= before.keys():
                    break
            return {future: futures[future] for future in left}
        except (KeyboardInterrupt, Terminated):
            self._abandon()
            pool.shutdown(wait=False, cancel_futures=True)
            self._collect_done(futures, work)
            raise

    def _start(self, pool: Executor, host: Host, work: _Work) -> Future[Answer]:
        """Starts the work on a host. Where there is no thread for it, the host fails, and no other waits for it."""

        def refuse(_: Host) -> Result:
            raise _no_thread()

        return start(pool, lambda: self._run_host(host, work), lambda: self._run_host(host, replace(work, run=refuse)))

    def _collect_done(self, futures: Mapping[Future[Answer], str], work: _Work) -> None:
        """Takes the answers that come within a moment after an interrupt; the other hosts count as interrupted."""
        for future in wait(futures, timeout=_GRACE).done:
            if not future.cancelled():
                self.answers.setdefault(futures[future], future.result())
        for name, answer in list(self.answers.items()):
            if isinstance(answer, Interrupted) and name in work.done:
                self.answers[name] = work.done[name]
            elif work.looks and name in futures.values() and not isinstance(answer, FerryError):
                self.answers[name] = interrupted()  # nothing was done on this host yet
        for name in self.hosts:
            self.answers.setdefault(name, work.done.get(name, self.unanswered(name, cut=True)))

    def unanswered(self, name: str, *, cut: bool) -> FerryError:
        """Why a host has no answer of its own; ``cut`` tells whether the run was interrupted."""
        if name in self._failed_before:
            what = "an earlier command of this line failed on this host"
            return NotStarted(what, hint="repair what failed, then run the line again")
        if not cut:
            what = "the command was refused before work on this host began"
            return NotStarted(what, hint="follow the command's own error")
        return interrupted() if self.hosts[name].asked > self._asked[name] else _not_started()

    def _run_host(self, host: Host, work: _Work) -> Answer:
        try:
            return self._answer_of(host, work)
        finally:
            work.gone(host.name)

    def _answer_of(self, host: Host, work: _Work) -> Answer:
        if self._enough_failed():
            return NotStarted("too many other hosts have failed", hint="repair those hosts, or raise --limit-failures")
        if host.abandoned:  # its turn came between an interrupt and the end of the queue
            return _not_started()
        self._observer.on_start(host.name)
        start = time.monotonic()
        answer = _answer(host, work.run)
        seconds = time.monotonic() - start
        ended = work.last or isinstance(answer, FerryError)
        if self.dry_run and ended:  # earlier answers are read by the command itself
            answer = as_dry_run(answer)
        self.answers[host.name] = answer
        self.seconds[host.name] += seconds
        if ended and (self._last or isinstance(answer, FerryError)) and host.name not in self._others:
            host.close_quietly()
        if ended:
            MEMORY.free(host.name)
            outcome = Outcome.of(host.name, seconds, answer).checked()
            self._record(outcome)
            self._observer.on_end(outcome)
        else:
            self._observer.on_pause(host.name)
        return answer

    @property
    def dry_run(self) -> bool:
        """Whether the current command must change nothing."""
        return self._options.dry_run

    @property
    def at_terminal(self) -> bool:
        """Whether an operator can be asked."""
        return sys.stdin.isatty()

    def confirm(self, question: str) -> bool:
        """Asks the operator a question on stderr; returns whether the answer is ``y`` or ``yes``."""
        with self._observer.while_asking():
            print(f"{shown(question)} [y/N] ", end="", file=sys.stderr, flush=True)
            return sys.stdin.readline().strip().lower() in ("y", "yes")

    def _enough_failed(self) -> bool:
        limit = self._options.limit_failures
        if limit is None:
            return False
        failed = sum(isinstance(a, FerryError) and not isinstance(a, NotStarted) for a in list(self.answers.values()))
        return failed >= (limit if isinstance(limit, int) else max(1, limit * len(self.hosts)))

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts.values())


def _try(work: Callable[[Host], _T], host: Host) -> _T | FerryError:
    try:
        return work(host)
    except FerryError as error:
        return error


def _answer(host: Host, work: Callable[[Host], Result]) -> Answer:
    try:
        return work(host)
    except FerryError as error:
        host.mark_failed()
        return interrupted(error.result) if host.abandoned else error
    except Exception as error:  # noqa: BLE001  (shown, with where it happened)
        host.mark_failed()
        return unforeseen(error)


def _no_thread() -> CommandFailed:
    return CommandFailed(
        "this machine starts no more threads, so nothing was done on this host",
        hint="raise ulimit -u, or lower fleet.workers in fabric.yaml; then run the command again",
    )


def _not_started() -> NotStarted:
    return NotStarted("the run was interrupted before work on this host began", hint="run the command again")


def interrupted(done: Result | None = None) -> Interrupted:
    """The error of a host that was at work when the run was interrupted; ``done`` is what it had done by then."""
    return Interrupted(
        "the run was interrupted while this host was at work",
        hint="the host is inspected first: run the same command again",
        result=done,
    )
