"""Bytes to and from a host, and commands that hold something there meanwhile: raw channels under the guard."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NoReturn

import paramiko

from ctr_ferry import shell
from ctr_ferry.errors import ContentCorrupt, GarbledAnswer, RemoteTimeout
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.exchange import End, Exchange
from ctr_ferry.ssh.transport import ReceiveBuffer

# Of what we receive: bytes on their way on a channel, and of one packet (ARCHITECTURE, Transport).
WINDOW, PACKET = 4 << 20, 1 << 17
_SENT = (1 << 15) - 64  # bytes of what we send at once: sshd takes 32 KiB, and paramiko keeps 64 free
_CHUNK = 8 * _SENT  # bytes that are handed on at once; each hand costs
_QUIET = 1.0  # seconds without data after which whoever waits for it may look at something else
_MOST_NOISE = 1 << 20  # bytes that a login shell may print before the first frame
_MOST_END = 256  # bytes of a frame's end
READ = "read"  # the name of the one step that gives data


class Stream:
    """One remote command on a channel of its own.

    Args:
        script: what runs there.
        boundary: that draws its frames.
        read: makes answers of what came, or raises what kept it from coming.
        finished: told once when it has ended, for the run's record.
    """

    def __init__(
        self,
        script: Script,
        boundary: str,
        channel: paramiko.Channel,
        exchange: Exchange,
        *,
        read: Callable[[Script, Exchange, End], dict[str, Answer]],
        finished: Callable[[Exchange], None],
    ) -> None:
        self._script, self._boundary, self._read, self._finished = script, boundary, read, finished
        self._channel, self._exchange = channel, exchange

    def cut(self) -> None:
        """Closes the channel under whatever runs: the guard ends it on the host, as it does on a broken connection."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def _stalled(self, error: TimeoutError) -> NoReturn:
        """Nothing moved for long.

        Raises:
            RemoteTimeout: the host itself is there; else the error that is given, of a connection that is not.
        """
        self._exchange.drain_stderr()
        if self._exchange.late():
            raise error
        raise RemoteTimeout(
            "data has not moved for too long, though the host is there: the command was ended",
            hint="look at containerd's log and the disk on that host; one of them may hang",
        ) from error

    def _end(self, script: Script) -> dict[str, Answer]:
        try:
            end = self._exchange.finish()
        finally:
            self._channel.close()
            self._finished(self._exchange)
        return self._read(script, self._exchange, end)


class BackgroundScript(Stream):
    """A command that has done its first steps and then waits, in the step `WAIT`, for the end of stdin.

    That comes when it is let go, or we are gone; whichever it is, the script goes on to its clean-up, unhurried.
    """

    WAIT = "wait"

    def prepared(self, within: float) -> dict[str, Answer]:
        """Waits until the steps before the last have ended; returns their answers.

        Args:
            within: seconds; the whole script may take much longer.

        Raises:
            RemoteTimeout: they had not; the script is ended then.
        """
        deadline = time.monotonic() + within
        waiting = shell.section_start(self._boundary, self.WAIT)
        done = replace(self._script, steps={k: v for k, v in self._script.steps.items() if k != self.WAIT})
        exchange = self._exchange
        while waiting not in exchange.stdout or waiting not in exchange.stderr:
            if exchange.ended() or exchange.late():
                return self._end(done)
            if time.monotonic() > deadline:
                self.cut()
                raise RemoteTimeout(
                    f"what is to hold the blobs had not begun after {within:.0f} s, and was ended",
                    hint="look at containerd's log on that host; it may hang",
                )
            exchange.wait(1.0)
        return done.read(self._boundary, bytes(exchange.stdout), bytes(exchange.stderr))

    def release(self, word: bytes = b"") -> None:
        """Ends it, and waits until it has cleaned up.

        Args:
            word: a line that its last step reads before stdin ends.
        """
        self._channel.sendall(word)
        self._channel.shutdown_write()
        self._end(Script({}))


class Download(Stream):
    """A command whose step `READ` writes data of a known size to stdout."""

    answer: Answer | None = None

    def chunks(self, size: int) -> Iterator[bytes]:
        """The data, as it comes, and nothing now and then while none does; ends early where there is less.

        `answer` has the step's end afterwards.

        Raises:
            ContentCorrupt: there is more than that; the command is ended.
        """
        if isinstance(receive_buffer := self._channel.in_buffer, ReceiveBuffer):
            receive_buffer.low = _CHUNK // 2
        left, tail = size, b""
        try:
            for data in self._behind_begin():
                if left - len(data) < -_MOST_END:
                    raise ContentCorrupt(
                        f"the host sends more than the {size} bytes that it told of: the command was ended",
                        hint="what it has is damaged: look at it with check, or name another source",
                    )
                tail = (tail + data[-_MOST_END:])[-_MOST_END:]
                yield data[: max(left, 0)]
                left -= len(data)
            self.answer = self._ended(tail)
        finally:
            self._channel.close()

    def _behind_begin(self) -> Iterator[bytes]:
        begin = shell.section_start(self._boundary, READ)
        noise, pieces = b"", self._pieces()
        while begin not in noise:
            data = next(pieces, None)
            if data == b"":
                yield data
            noise += data or b""
            if data is None or len(noise) > _MOST_NOISE:
                self._end(self._script)  # raises what kept it from beginning
                raise GarbledAnswer(
                    "the host's answer has no beginning", hint="look at the login shell's start-up files"
                )
        yield noise.partition(begin)[2]
        yield from pieces

    def _pieces(self) -> Iterator[bytes]:
        """What comes on stdout; an empty piece for each `_QUIET` without any, until the host counts as gone."""
        patience = self._channel.gettimeout() or 0.0
        self._channel.settimeout(_QUIET)
        heard = time.monotonic()
        while True:
            self._exchange.drain_stderr()
            try:
                data = self._channel.recv(_CHUNK)
            except TimeoutError as error:
                if time.monotonic() > heard + patience:
                    self._stalled(error)
                yield b""
                continue
            if not data:
                return
            yield data
            heard = time.monotonic()

    def _ended(self, tail: bytes) -> Answer:
        match = re.search(rb"\n%s end (\d+)\n$" % self._boundary.encode(), tail)
        self._exchange.stdout += shell.section_start(self._boundary, READ) + (match[0] if match else b"")
        return self._end(self._script)[READ]


class Upload(Stream):
    """A command one of whose steps reads data from stdin, to its end."""

    def write(self, data: bytes) -> bool:
        """Sends data, waiting while the host takes none.

        Returns:
            False where the command has ended before: `end` tells why.
        """
        if self._exchange.ended():
            return False
        self._exchange.drain_stderr()
        at = 0
        try:
            while at < len(data):
                at += self._channel.send(data[at : at + _SENT])
        except TimeoutError as error:
            self._stalled(error)
        except OSError:  # it has closed its stdin
            return False
        return True

    def end(self) -> dict[str, Answer]:
        """The data is complete; waits for the command's end."""
        if not self._channel.closed:
            self._channel.shutdown_write()
        return self._end(self._script)
