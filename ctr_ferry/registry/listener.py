"""What ctr prints during a push or pull: its progress, its prompt for the password, and how long it has not moved."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from ctr_ferry.oci.registry import Login, RegistryState

if TYPE_CHECKING:
    from ctr_ferry.ctr.progress import Progress
    from ctr_ferry.registry.push_pull import RegistryTransfer
    from ctr_ferry.ssh.terminal import Terminal

_END = re.compile(rb"^ferry-[0-9a-f]{32} end ", re.MULTILINE)  # the boundary of a step (`guard.new_boundary`)


class TransferListener:
    """Hears ctr's output as it comes. It reports progress, answers the prompt once, and ends a transfer that stopped.

    Args:
        terminal: where the password of ``login`` is typed; None where ctr does not ask for one.
    """

    def __init__(
        self, transfer: RegistryTransfer, progress: Progress, terminal: Terminal | None, login: Login | None
    ) -> None:
        self._transfer, self._progress, self._terminal, self._login = transfer, progress, terminal, login
        self._has_answered = self._is_over = False
        self._last_change = time.monotonic()
        self._last_state: object = None

    def hear(self, data: bytes) -> bytes:
        """Takes in what ctr printed, and returns the whole lines of it that are no progress.

        Raises:
            RegistryUnauthorized: ctr asks for the password again.
            RegistryTimeout: nothing has moved for too long.
        """
        progress = self._progress
        rest = progress.feed(data)
        self._answer_prompt()
        if progress.items and data:
            self._transfer.host.moved(progress.done, progress.total)
        self._is_over = self._is_over or _END.search(rest) is not None  # the first step has ended
        now, state = time.monotonic(), (dict(progress.items), progress.read)
        # Unpacking, and the steps after ctr's, take their time.
        if state != self._last_state or progress.unpacking or self._is_over:
            self._last_state, self._last_change = state, now
        elif now - self._last_change > (limit := self._transfer.host.target.limits.registry):
            raise self._transfer.error(RegistryState.NO_ANSWER, f"no progress within {limit} s")
        return rest

    def end(self) -> bytes:
        """Returns the last line, where that is no progress."""
        return self._progress.end()

    def _answer_prompt(self) -> None:
        if not (self._progress.prompts and self._terminal and self._login):
            return
        if self._progress.prompts > 1:
            raise self._transfer.error(RegistryState.UNAUTHORIZED, "ctr asked for the password again")
        if not self._has_answered:
            self._terminal.type(self._login.password.reveal())
            self._has_answered = True
