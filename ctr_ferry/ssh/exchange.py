"""One remote command's streams, read side by side, in bounded memory and time."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import paramiko

from ctr_ferry.errors import AnswerTooLarge

_CHUNK = 1 << 17
_MOST_STDERR = 4 << 20
_LINGER = 5.0  # seconds of silence after which a command that has exited is no longer waited for


class End(Enum):
    """How an exchange came to its end."""

    EXITED = "exited"
    KILLED = "killed"  # it ended, and by a signal: there is no exit status
    TIMED_OUT = "timed out"
    SILENT = "silent"  # not even the guard's heartbeat came
    LOST = "lost"


class Sudo(Enum):
    """What became of sudo's prompt."""

    THROUGH = "through"
    REFUSED = "refused"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Transcript:
    """One remote command that has ended, for the run's record.

    Attributes:
        text: the steps that ran, as sh text.
        exit: None where the connection broke or time ran out.
    """

    text: str
    exit: int | None
    seconds: float
    stdout: bytes
    stderr: bytes


class Listener(Protocol):
    """Who hears a remote command's stdout while it runs; what it raises ends the command."""

    def hear(self, data: bytes) -> bytes:
        """Takes in what came, or nothing once in a while; returns what of it is to be kept."""

    def end(self) -> bytes:
        """No more will come; returns what it still held."""


class Exchange:
    """A remote command from its start to its end.

    Args:
        channel: a fresh session.
        limit: seconds until it must have ended.
        idle: seconds without a byte after which the host counts as gone.
        listener: hears stdout as it comes.
        reserve: told how much of stdout is kept; raises where that is too much.

    Attributes:
        stdout, stderr: what came.
        exit: the exit status; None unless it exited.
    """

    def __init__(
        self,
        channel: paramiko.Channel,
        limit: float,
        idle: float,
        listener: Listener | None = None,
        *,
        reserve: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._reserve = reserve
        self._channel = channel
        self._listener = listener
        self._deadline = time.monotonic() + limit
        self._idle = idle
        self._heard = time.monotonic()
        self._exited: float | None = None
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.exit: int | None = None

    def start(self, line: str) -> None:
        """Starts the remote command."""
        self._channel.exec_command(line)

    def send(self, data: bytes) -> None:
        """Writes to its stdin; a host that closed its end has said why, which `finish` reads."""
        with contextlib.suppress(OSError):
            self._channel.settimeout(max(1.0, min(self._idle, self._deadline - time.monotonic())))
            self._channel.sendall(data)

    def answer_sudo(self, prompt: str, ready: str, password: str) -> Sudo:
        """Waits until sudo has let us through, answering its prompt once; asked again, it gives up.

        One wrong password is one failed login; sending the script as the second would be more. Both words stand on the
        command line: whoever forges one there makes the login fail, and no more. What was said before is dropped.
        """
        sent = False
        while ready.encode() not in self.stderr:
            asked = self.stderr.count(prompt.encode())
            if asked > 1 or (sent and self.ended()):
                return Sudo.REFUSED
            if self.ended() or self.late():
                return Sudo.LOST
            if asked and not sent:
                self.send(password.encode() + b"\n")
                sent = True
            self.wait(0.2)
        del self.stderr[: self.stderr.index(ready.encode()) + len(ready)]
        return Sudo.THROUGH

    def finish(self, whole: Callable[[], bool] = lambda: False) -> End:
        """Reads until the command has ended, its time is up, or the host is silent for too long.

        Args:
            whole: whether all that is waited for has come; a process that the command left behind may hold its
                outputs open for ever.
        """
        self._heard = time.monotonic()  # whoever read the channel until now has heard it
        while not self.ended(whole):
            self.wait(1.0)
            if self._listener:
                self.stdout += self._listener.hear(b"")
            if not self.ended(whole) and (end := self.late()):
                return end
        self._drain()
        if self._listener:
            self.stdout += self._listener.end()
        status = self._channel.exit_status
        self.exit = status if status >= 0 else None
        if self.exit is not None:
            return End.EXITED
        return End.KILLED if self._channel.eof_received else End.LOST

    def late(self) -> End | None:
        """Whether its time is up, or the host silent for too long."""
        now = time.monotonic()
        if now > self._deadline:
            return End.TIMED_OUT
        return End.SILENT if now > self._heard + self._idle else None

    def ended(self, whole: Callable[[], bool] = lambda: False) -> bool:
        """Whether the command has ended, or the connection; ``whole`` as for `finish`."""
        channel = self._channel
        if channel.closed or not channel.exit_status_ready():
            return bool(channel.closed)
        now = time.monotonic()
        self._exited = self._exited or now
        return bool(channel.eof_received or whole() or now > max(self._exited, self._heard) + _LINGER)

    def wait(self, seconds: float) -> None:
        """Waits for something to read, and takes it in."""
        channel = self._channel
        if channel.eof_received and not channel.closed:
            channel.status_event.wait(seconds)
            return
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        if poll.poll(seconds * 1000):
            self._heard = time.monotonic()
        self._drain()

    def _drain(self) -> None:
        while self._channel.recv_ready():
            data = self._channel.recv(_CHUNK)
            self.stdout += self._listener.hear(data) if self._listener else data
            self._reserve(len(self.stdout))  # at once: it may come faster than it is read
        self.drain_stderr()

    def drain_stderr(self) -> None:
        """Takes in what it has said on stderr so far; left there, it would fill the window of its stdout."""
        while self._channel.recv_stderr_ready():
            self.stderr += self._channel.recv_stderr(_CHUNK)
            self._heard = time.monotonic()
            if len(self.stderr) > _MOST_STDERR:
                what = f"the host printed more than {_MOST_STDERR >> 20} MiB of errors"
                raise AnswerTooLarge(what, hint="look at it by hand with ssh")
