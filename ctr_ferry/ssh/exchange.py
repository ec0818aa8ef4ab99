"""One remote command: its streams are read side by side, in bounded memory and time."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import paramiko

from ctr_ferry.errors import AnswerTooLarge

_CHUNK = 1 << 17  # bytes of one read
_AT_ONCE = 48  # reads of a stream before the next look at the clock; a window has fewer
_MOST_STDERR = 4 << 20  # bytes
_LINGER = 5.0  # seconds of silence that end the wait for more output of a command that has exited


class End(Enum):
    """How an exchange came to its end."""

    EXITED = "exited"
    KILLED = "killed"  # a signal ended it: there is no exit status
    TIMED_OUT = "timed out"
    SILENT = "silent"  # not even a heartbeat of the guard came
    LOST = "lost"


class Sudo(Enum):
    """What sudo did with the password."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Transcript:
    """One remote command that has ended, for the run's record.

    Attributes:
        text: the steps that ran, as sh text.
        exit: the exit status; None if the connection broke or time ran out.
    """

    text: str
    exit: int | None
    seconds: float
    stdout: bytes
    stderr: bytes


class Listener(Protocol):
    """Gets one output stream of a remote command while the command runs. An exception that it raises ends it."""

    def hear(self, data: bytes) -> bytes:
        """Takes the bytes that came, or none about once a second; returns those that become part of the answer."""

    def end(self) -> bytes:
        """Called once, behind the last byte; returns further bytes of the answer."""


@dataclass(eq=False)
class Exchange:
    """A remote command from its start to its end.

    Attributes:
        channel: a new session.
        limit: seconds until the command must have ended.
        idle: seconds without a byte after which the host counts as gone.
        listener: gets stdout as it comes.
        clip: gets stderr as it comes. Without it, very long stderr is refused.
        reserve: called with the length of stdout so far; raises an error if that is too much.
        stdout, stderr: the output so far.
        exit: the exit status; None unless the command exited.
    """

    channel: paramiko.Channel
    limit: float
    idle: float
    listener: Listener | None = None
    clip: Listener | None = None
    reserve: Callable[[int], None] = lambda _: None
    stdout: bytearray = field(default_factory=bytearray, init=False)
    stderr: bytearray = field(default_factory=bytearray, init=False)
    exit: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._heard = time.monotonic()
        self._deadline = self._heard + self.limit
        self._exited: float | None = None

    def start(self, line: str) -> None:
        """Starts the remote command."""
        self.channel.exec_command(line)

    def send(self, data: bytes) -> None:
        """Writes to the command's stdin. If the host has closed it, `finish` reads the reason."""
        at = 0
        with contextlib.suppress(OSError):
            while at < len(data) and (left := self._deadline - time.monotonic()) > 0:
                self.channel.settimeout(max(1.0, min(self.idle, left)))
                at += self.channel.send(data[at : at + _CHUNK])

    def answer_sudo(self, prompt: str, ready: str, password: str) -> Sudo:
        """Answers sudo's ``prompt`` once, waits until ``ready`` comes on stderr, and drops stderr up to that word.

        If sudo asks again, nothing more is sent: the script itself would be the next wrong password. Both words are
        on the command line. A user of the host who forges one can make the login fail, and nothing else.
        """
        sent = False
        while ready.encode() not in self.stderr:
            asked = self.stderr.count(prompt.encode())
            if ended := self.ended():
                self.drain_stderr()
            if asked > 1 or (ended and (sent or self.channel.exit_status >= 0)):
                return Sudo.REFUSED
            if ended or self.late():
                return Sudo.LOST
            if asked and not sent:
                self.send(password.encode() + b"\n")
                sent = True
            self.wait(0.2)
        del self.stderr[: self.stderr.index(ready.encode()) + len(ready)]
        return Sudo.ACCEPTED

    def finish(self, whole: Callable[[], bool] = lambda: False) -> End:
        """Reads until the command has ended, its time is up, or the host is silent for too long.

        Args:
            whole: tells whether the whole answer has come. Then the end of the output is not waited for: a process
                that the command left behind may keep it open for ever.
        """
        self._heard = time.monotonic()  # until now somebody else may have read from the channel
        while not self.ended(whole):
            self.wait(1.0)
            if self.listener:
                self.stdout += self.listener.hear(b"")
            if not self.ended(whole) and (end := self.late()):
                return end
        self._drain()
        if self.listener:
            self.stdout += self.listener.end()
        if self.clip:
            self.stderr += self.clip.end()
        if (status := self.channel.exit_status) >= 0:
            self.exit = status
            return End.EXITED
        return End.KILLED if self.channel.eof_received else End.LOST

    def late(self) -> End | None:
        """`End.TIMED_OUT` if the command's time is up, `End.SILENT` if the host has been silent for too long."""
        now = time.monotonic()
        if now > self._deadline:
            return End.TIMED_OUT
        return End.SILENT if now > self._heard + self.idle else None

    def ended(self, whole: Callable[[], bool] = lambda: False) -> bool:
        """Whether the command or the connection has ended; ``whole`` is as for `finish`."""
        channel = self.channel
        if channel.closed or not channel.exit_status_ready():
            return bool(channel.closed)
        now = time.monotonic()
        self._exited = self._exited or now
        return bool(channel.eof_received or whole() or now > max(self._exited, self._heard) + _LINGER)

    def wait(self, seconds: float) -> None:
        """Waits until there is something to read, at most so many seconds, and reads it."""
        channel = self.channel
        if channel.eof_received and not channel.closed:
            channel.status_event.wait(seconds)
            return
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        if poll.poll(seconds * 1000):
            self._heard = time.monotonic()
        self._drain()

    def _drain(self) -> None:
        """Reads what has come, but not for ever from a host that sends as fast as it is read."""
        for _ in range(_AT_ONCE):
            if not self.channel.recv_ready():
                break
            data = self.channel.recv(_CHUNK)
            self.stdout += self.listener.hear(data) if self.listener else data
            self.reserve(len(self.stdout))  # within the loop, which a fast host may never let end
        self.drain_stderr()

    def drain_stderr(self) -> None:
        """Reads the stderr that has come. Unread, it would use up the window that stdout needs, too."""
        for _ in range(_AT_ONCE):
            if not self.channel.recv_stderr_ready():
                break
            data = self.channel.recv_stderr(_CHUNK)
            self.stderr += self.clip.hear(data) if self.clip else data
            self._heard = time.monotonic()
            if len(self.stderr) > _MOST_STDERR:
                what = f"the host printed more than {_MOST_STDERR >> 20} MiB of errors"
                raise AnswerTooLarge(what, hint="log in there with ssh, and find out what prints so much")
