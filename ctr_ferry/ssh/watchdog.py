"""A connection's socket that does not wait for ever for a host that has gone dark.

paramiko tries to write until the kernel gives up. That may be never: where the host's kernel is well and its sshd is
not, and behind a gateway or a ProxyCommand. And it waits without a limit for a host to start a command.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_STOPPED = 5  # seconds without a look at the socket; then this process was stopped (Ctrl-Z), and not the host silent


class Watched:
    """A socket, or what paramiko takes for one, with limits for the time in which nothing moves.

    Args:
        socket: the socket. Its own time limit decides how often the watchdog looks.
        give_up: is called with what the host did wrong, before a write or a read fails because of that.
        clock: returns the time in seconds.

    Attributes:
        socket: the socket itself.
        patience: seconds in which the host must have taken or sent a byte.
    """

    patience = float("inf")

    def __init__(
        self, socket: Any, give_up: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.socket, self._give_up, self._clock = socket, give_up, clock
        self._stuck_since: float | None = None
        self._heard = self._looked = clock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)

    def send(self, data: bytes) -> int:
        """Sends some bytes; raises TimeoutError where none could be sent now, ConnectionAbortedError in the end."""
        try:
            sent: int = self.socket.send(data)
        except (TimeoutError, BlockingIOError):
            if self._stuck_since is None:
                self._stuck_since = self._clock()
            self._refuse("took no byte", self._stuck_since)
            raise
        self._stuck_since = None
        return sent

    def recv(self, size: int) -> bytes:
        """Receives some bytes; raises TimeoutError where none came now, ConnectionAbortedError in the end."""
        try:
            data: bytes = self.socket.recv(size)
        except (TimeoutError, BlockingIOError):
            if (now := self._clock()) > self._looked + _STOPPED:
                self._heard = now
            self._looked = now
            self._refuse("sent no byte, not even an answer to a keepalive,", self._heard)
            raise
        self._heard = self._looked = self._clock()
        return data

    def watch(self, patience: float) -> None:
        """Begins to limit the time."""
        self.patience, self._heard = patience, self._clock()

    def _refuse(self, what: str, since: float) -> None:
        if self._clock() > since + self.patience:
            self._give_up(f"{what} for {self.patience:.0f} s")
            raise ConnectionAbortedError(f"the host {what} for {self.patience:.0f} s") from None
