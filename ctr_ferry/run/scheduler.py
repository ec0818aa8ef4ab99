"""The hosts of one invocation, and how work runs on all of them: in parallel, in batches, within limits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from ctr_ferry.errors import FerryError, Interrupted, NotStarted
from ctr_ferry.report.observers import Observer
from ctr_ferry.report.outcome import Answer, Result, as_dry_run, unforeseen
from ctr_ferry.run.command import CommonOptions
from ctr_ferry.ssh.host import Host
from ctr_ferry.text import shown

_GRACE = 1.0  # seconds that hosts get to say that they were cut off
_POLL = 0.5  # seconds after which the main thread looks whether it was interrupted

_T = TypeVar("_T")


class Terminated(BaseException):
    """SIGTERM, as an exception in the main thread; like KeyboardInterrupt, no handler takes it by accident."""


class Together(Protocol):
    """Work on hosts that need one another: all of a batch are at it at once."""

    def work(self, host: Host) -> Result:
        """The work on one of them."""

    def gone(self, host: str) -> None:
        """A host's work is over, or was never begun: nobody is to wait for it."""


class Fleet:
    """What a fleet command gets: its hosts, which connect when they are first asked.

    Args:
        hosts: by name, in the order of the command line.
        workers: how many are at work at once.
        observer: told of every host.
        further: what a pattern of the inventory means, as new hosts.

    Attributes:
        answers: of the current command, by host; a run that was cut short leaves what it had.
        seconds: what each took.
    """

    def __init__(
        self,
        hosts: Mapping[str, Host],
        workers: int,
        observer: Observer,
        further: Callable[[str], Iterable[Host]] = lambda _: (),
    ) -> None:
        self.hosts = dict(hosts)
        self._further = further
        self._others: dict[str, Host] = {}
        self._workers = workers
        self._observer = observer
        self._options = CommonOptions()
        self._last = True
        self._asked: dict[str, int] = {}  # by host, before the current command
        self.answers: dict[str, Answer] = {}
        self.seconds: dict[str, float] = {}

    def begin(self, options: CommonOptions, *, last: bool) -> None:
        """A command begins.

        Args:
            last: whether it is the line's last, so that a host's connection is closed after its work.
        """
        self._options, self._last = options, last
        self.answers, self.seconds = {}, {}
        self._asked = {name: host.asked for name, host in self.hosts.items()}
        for host in self.hosts.values():
            host.begin(dry_run=options.dry_run, moved=partial(self._observer.on_progress, host.name))

    def each(self, work: Callable[[Host], Result], *, close: bool = True) -> dict[str, Answer]:
        """Runs ``work`` on every host that no command of this line has failed on.

        Args:
            close: whether this is the command's last work on them.

        Returns:
            By host what it returned, or the error that ended it.

        Raises:
            KeyboardInterrupt, Terminated: where the run is cut short; ``answers`` then tells who was done.
        """
        names = [name for name, host in self.hosts.items() if not host.failed]
        for name in names:
            self.answers.pop(name, None)  # an earlier look is no answer for a host that is cut off now
        size = self._options.serial or len(names)
        for start in range(0, len(names), size or 1):
            self._run_batch(names[start : start + size], work, last=close)
        return {name: self.answers[name] for name in names}

    def together(self, form: Callable[[Sequence[str]], Together]) -> dict[str, Answer]:
        """Like `each`, where the hosts of a batch need one another; a batch has no more hosts than there are workers.

        Args:
            form: makes the work of one batch, from its hosts' names.
        """
        names = [name for name, host in self.hosts.items() if not host.failed]
        size = min(self._options.serial or len(names), self._workers)
        for start in range(0, len(names), size or 1):
            batch = names[start : start + size]
            common = form(batch)
            self._run_batch(batch, common.work, last=True, gone=common.gone)
        return {name: self.answers[name] for name in names}

    def also(self, patterns: Iterable[str], work: Callable[[Host], _T]) -> dict[str, _T | FerryError]:
        """Looks at hosts of the inventory that the command needs beside its own, all at once.

        No outcome is theirs; they stay connected until the command ends.

        Raises:
            UnknownHost, BadInventory; KeyboardInterrupt, Terminated as in `each`.
        """
        found = {host.name: host for pattern in patterns for host in self._further(pattern)}
        self._others |= {name: host for name, host in found.items() if name not in self._others}
        pool = ThreadPoolExecutor(min(self._workers, len(found)), thread_name_prefix="also")
        try:
            futures = {pool.submit(_try, work, self._others[name]): name for name in found}
            answers = {futures[future]: future.result() for future in as_completed(futures)}
        except (KeyboardInterrupt, Terminated):
            self._abandon()
            self.answers |= dict.fromkeys(self.hosts, NotStarted("the run was interrupted before"))
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return {name: answers[name] for name in found}

    def _abandon(self) -> None:
        for host in (*self.hosts.values(), *self._others.values()):
            host.abandon()

    def end(self) -> None:
        """The command is over."""
        for host in self._others.values():
            host.close_quietly()
        self._others.clear()

    def _run_batch(
        self,
        names: Sequence[str],
        work: Callable[[Host], Result],
        *,
        last: bool,
        gone: Callable[[str], None] = lambda _: None,
    ) -> None:
        pool = ThreadPoolExecutor(min(self._workers, len(names)), thread_name_prefix="host")
        futures: dict[Future[Answer], str] = {}
        try:
            futures |= {pool.submit(self._run_host, self.hosts[name], work, last, gone): name for name in names}
            for future in as_completed(futures):
                self.answers[futures[future]] = future.result()
            pool.shutdown()
        except (KeyboardInterrupt, Terminated):
            self._abandon()
            pool.shutdown(wait=False, cancel_futures=True)
            self._collect_done(futures)
            raise

    def _collect_done(self, futures: Mapping[Future[Answer], str]) -> None:
        """Hosts whose connection was closed get a moment to say so; what was done before stays done."""
        for future in wait(futures, timeout=_GRACE).done:
            if not future.cancelled():
                self.answers.setdefault(futures[future], future.result())
        for name, host in self.hosts.items():
            asked = host.asked > self._asked.get(name, 0) and not host.failed
            self.answers.setdefault(name, interrupted() if asked else NotStarted("the run was interrupted before"))

    def _run_host(self, host: Host, work: Callable[[Host], Result], last: bool, gone: Callable[[str], None]) -> Answer:
        try:
            return self._answer_of(host, work, last)
        finally:
            gone(host.name)

    def _answer_of(self, host: Host, work: Callable[[Host], Result], last: bool) -> Answer:
        if self._enough_failed():
            return NotStarted("too many other hosts have failed", hint="mend them, or raise --limit-failures")
        self._observer.on_start(host.name)
        start = time.monotonic()
        answer = _answer(host, work)
        seconds = time.monotonic() - start
        failed = isinstance(answer, FerryError)
        if self.dry_run and (failed or last):  # a first look is the command's own, to be read as it is
            answer = as_dry_run(answer)
        self.answers[host.name] = answer
        self.seconds[host.name] = self.seconds.get(host.name, 0.0) + seconds
        if failed or (last and self._last):
            host.close_quietly()
        if failed or last:
            self._observer.on_end(host.name, seconds, answer)
        else:
            self._observer.on_pause(host.name)
        return answer

    @property
    def dry_run(self) -> bool:
        """Whether the current command only looks."""
        return self._options.dry_run

    @property
    def at_terminal(self) -> bool:
        """Whether somebody can be asked."""
        return sys.stdin.isatty()

    def confirm(self, question: str) -> bool:
        """Asks the operator once, at the control terminal; any answer but yes is no."""
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


def as_completed(futures: Collection[Future[_T]]) -> Iterator[Future[_T]]:
    """Each as it is done.

    A Ctrl-C in a Condition's own code can leave its lock broken, so this waits where there is none of it; what remains
    is the moment of taking a result. And a thread that sleeps for good may miss one that came just before; so it
    never does.
    """
    done: SimpleQueue[Future[_T]] = SimpleQueue()
    for future in futures:
        future.add_done_callback(done.put)
    left = len(futures)
    while left:
        try:
            future = done.get(timeout=_POLL)
        except Empty:
            continue
        left -= 1
        yield future


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
        return interrupted() if host.abandoned else error
    except Exception as error:  # noqa: BLE001  (shown, with where it happened)
        host.mark_failed()
        return unforeseen(error)


def interrupted() -> Interrupted:
    """The error of a host that was at work when the run was cut short."""
    return Interrupted(
        "the run was interrupted while this host was at work",
        hint="run it again: it looks first what is true (`run` does not: look yourself how far its command came)",
    )
