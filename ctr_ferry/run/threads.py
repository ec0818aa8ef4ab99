"""Threads of a pool: how they are started where there may be too many, and waited for where a Ctrl-C may come."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import TypeVar

_POLL = 0.5  # seconds after which the waiting main thread wakes, so that it notices an interrupt

_T = TypeVar("_T")


def start(pool: Executor, work: Callable[[], _T], otherwise: Callable[[], _T]) -> Future[_T]:
    """Starts work in a pool; where the pool can start no thread for it, the result is that of ``otherwise``.

    The pool keeps what it could not start, and a thread that gets free would run it.
    """
    future: Future[_T] = Future()

    def run() -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  (as a pool does)
                future.set_exception(error)

    try:
        pool.submit(run)
    except RuntimeError:
        if future.cancel():
            future = Future()
            future.set_result(otherwise())
    return future


def as_completed(futures: Collection[Future[_T]], lag: float = float("inf")) -> Iterator[Future[_T]]:
    """Yields each future when it is done, and stays interruptible while it waits.

    It ends early where at most half are left, and none of these has ended for ``lag`` seconds.

    `concurrent.futures.as_completed` waits in a Condition, whose lock a Ctrl-C can leave broken; a SimpleQueue has no
    such lock. The wait has a time limit because a thread that waits for ever may miss a Ctrl-C that came just before.
    """
    done: SimpleQueue[Future[_T]] = SimpleQueue()
    for future in futures:
        future.add_done_callback(done.put)
    left, last = len(futures), time.monotonic()
    while left and (left > len(futures) // 2 or time.monotonic() <= last + lag):
        try:
            future = done.get(timeout=_POLL)
        except Empty:
            continue
        left, last = left - 1, time.monotonic()
        yield future
