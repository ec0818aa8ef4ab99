"""Remote commands: those that are waited for, and downloads, uploads and scripts in the background."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import paramiko

from ctr_ferry import shell
from ctr_ferry.errors import (
    LACKS_MEMORY,
    READ_LOG,
    CommandFailed,
    ConnectionLost,
    ContentCorrupt,
    GarbledAnswer,
    RemoteTimeout,
)
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh import guard
from ctr_ferry.ssh.exchange import End, Exchange, Transcript
from ctr_ferry.ssh.transport import ReceiveBuffer

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host

# For data from a host: bytes under way on one channel, and bytes of one packet (measured: docs/performance.md).
WINDOW, PACKET = 4 << 20, 1 << 17
_SENT = (1 << 15) - 64  # bytes of one packet to a host: sshd takes 32 KiB, and paramiko leaves 64 bytes unused
_CHUNK = 8 * _SENT  # bytes of one read: every read costs time
_QUIET = 1.0  # seconds without data after which a download yields an empty piece
_MOST_NOISE = 1 << 20  # bytes that a login shell may print before the first section
_MOST_END = 256  # bytes of a section's last line
READ = "read"  # the name of a download's only step


class Stream:
    """One remote command, which runs a script on a channel of its own.

    Args:
        host: where it runs.
        script: what it runs.
        boundary: the word between the sections of its output.
        exchange: its streams.
        limit: seconds that it may take.
        secret: whether its output is kept out of the run's record.
    """

    def __init__(
        self, host: Host, script: Script, boundary: str, exchange: Exchange, *, limit: int, secret: bool = False
    ) -> None:
        self._host, self._script, self._boundary, self._limit, self._secret = host, script, boundary, limit, secret
        self._exchange, self._channel = exchange, exchange.channel
        self._began = time.monotonic()

    def end(self) -> dict[str, Answer]:
        """Waits for the end of the command, and returns the answers of its steps."""
        return self._end(self._script)

    def cut(self) -> None:
        """Closes the channel. The guard then ends the command on the host, as for a broken connection."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def _stalled(self, error: TimeoutError) -> NoReturn:
        """Raises RemoteTimeout if heartbeats still come: then the host is there. Else it raises ``error`` itself."""
        self._exchange.drain_stderr()
        if self._exchange.late():
            raise error
        raise RemoteTimeout(
            "no data has moved for too long, though the host is there; the command was ended",
            hint=READ_LOG,
        ) from error

    def _refuse_overtime(self) -> None:
        """Refuses a command that has moved data, however slowly, for longer than it may take."""
        if self._exchange.late() is End.TIMED_OUT:
            raise RemoteTimeout(
                "data moved for longer than the command may take; the command was ended",
                hint="if the host or the network is only slow, raise timeouts.command in fabric.yaml",
            )

    def _end(self, steps: Script) -> dict[str, Answer]:
        exchange = self._exchange
        try:
            end = exchange.finish(self._is_whole)
        finally:
            self._channel.close()
            self._record()
        self._refuse(end)
        try:
            return steps.read(self._boundary, bytes(exchange.stdout), bytes(exchange.stderr))
        except GarbledAnswer as error:
            if exchange.exit == guard.BROKEN_OFF:
                raise self._killed() from None
            if self._host.as_root and "sudo" in error.detail:
                raise self._host.sudo_refused(exchange.stderr) from None
            raise

    def _is_whole(self) -> bool:
        return self._script.is_whole(self._boundary, self._exchange.stdout, self._exchange.stderr)

    def _record(self) -> None:
        exchange = self._exchange
        output = (b"", b"") if self._secret else (exchange.stdout, exchange.stderr)
        stdout, stderr = (shell.with_step_headings(self._boundary, stream) for stream in output)
        transcript = Transcript(
            text="\n".join(f"{name}: {step}" for name, step in self._script.steps.items()),
            exit=exchange.exit,
            seconds=time.monotonic() - self._began,
            stdout=stdout,
            stderr=stderr,
        )
        self._host.log(self._host.name, transcript)

    def _refuse(self, end: End) -> None:
        name = self._host.name
        match end:
            case End.KILLED if self._script.cleanup and self._is_whole():
                raise RemoteTimeout(
                    "all steps ended, but their clean-up hung and was ended; it may have left something behind",
                    detail=self._last_lines(),
                    hint="remove it: fab -H HOST doctor --clean",
                )
            case End.KILLED:
                raise self._killed()
            case End.TIMED_OUT:
                raise RemoteTimeout(
                    f"the remote command took longer than {self._limit} s and was ended",
                    detail=self._last_lines(),
                    hint=f"if the host is only slow, raise timeouts.{self._limit_name} in fabric.yaml",
                )
            case End.SILENT | End.LOST:
                what = f"{name} {'went silent' if end is End.SILENT else 'closed the connection'}"
                raise ConnectionLost(
                    f"{self._host.connection.fault or what} while a command ran there",
                    hint="what is done already is not done twice: run the command again",
                )

    def _killed(self) -> CommandFailed:
        return CommandFailed(
            "a signal ended the remote command",
            detail=self._last_lines(),
            hint=LACKS_MEMORY,
        )

    @property
    def _limit_name(self) -> str:
        return "probe" if self._limit == self._host.target.limits.probe else "command"

    def _last_lines(self) -> str:
        return shell.last_lines(self._boundary, self._exchange.stderr)


class BackgroundScript(Stream):
    """A script that prepares something on a host, and keeps it there until it is released.

    Its last step, `WAIT`, lasts until stdin ends. Stdin ends with `release`, and with the connection. In both cases
    the script then cleans up, with the full time for it.
    """

    WAIT = "wait"

    def prepared(self, within: float) -> dict[str, Answer]:
        """Waits until all steps before the last have ended, and returns their answers.

        Args:
            within: seconds for these steps. The whole script may take much longer.

        Raises:
            RemoteTimeout: the steps have not ended in time. The script is ended then.
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
                    f"the host did not prepare to keep the blobs within {within:.0f} s; the script was ended",
                    hint=READ_LOG,
                )
            exchange.wait(1.0)
        return done.read(self._boundary, bytes(exchange.stdout), bytes(exchange.stderr))

    def release(self, word: bytes = b"") -> None:
        """Ends the last step, and waits until the script has cleaned up.

        Args:
            word: a line that the last step reads before stdin ends.
        """
        self._channel.sendall(word)
        self._channel.shutdown_write()
        self._end(Script({}))


class Download(Stream):
    """A command that writes data of a known size to stdout.

    Attributes:
        answer: how the command ended; None until `chunks` is exhausted.
    """

    answer: Answer | None = None

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yields the data as it comes, and an empty piece for each second without data.

        If the host has less than ``size`` bytes, the pieces end early; `answer` tells why. They are data even then.

        Raises:
            ContentCorrupt: the host sends more than ``size`` bytes. The command is ended.
        """
        if isinstance(receive_buffer := self._channel.in_buffer, ReceiveBuffer):
            receive_buffer.low = _CHUNK // 2
        left, held = size, b""
        try:
            for piece in self._after_start():
                data = held + piece if held else piece
                held = data[self._last_line_at(data) :]
                data = data[: len(data) - len(held)]
                if left - len(data) < -_MOST_END:
                    raise ContentCorrupt(
                        f"the host sends more than the {size} bytes that it announced; the command was ended",
                        hint="the image there is damaged: name another source with --from",
                    )
                yield data[: max(left, 0)]
                left -= len(data)
            self.answer = self._ended(held)
        finally:
            self._channel.close()

    def _last_line_at(self, data: bytes) -> int:
        """Returns where the section's last line begins, or may begin if more comes; the end of the data if nowhere."""
        line = f"\n{self._boundary} end ".encode()
        at = data.rfind(line, max(0, len(data) - _MOST_END))
        if at < 0:
            at = data.rfind(b"\n", max(0, len(data) - len(line)))
        return at if at >= 0 and (line.startswith(data[at:]) or data.startswith(line, at)) else len(data)

    def _after_start(self) -> Iterator[bytes]:
        """Yields the pieces after the section's first line; the last piece also has the section's last line."""
        start = shell.section_start(self._boundary, READ)
        noise, pieces = b"", self._pieces()
        while start not in noise:
            data = next(pieces, None)
            if data == b"":
                yield data
            noise += data or b""
            if data is None or len(noise) > _MOST_NOISE:
                self.end()  # raises the error that kept it from beginning
                raise GarbledAnswer(
                    "the host's answer has no beginning", hint="check the login shell's start-up files there"
                )
        yield noise.partition(start)[2]
        yield from pieces

    def _pieces(self) -> Iterator[bytes]:
        """Yields what comes on stdout, and an empty piece for each `_QUIET` seconds, until the host counts as gone."""
        patience = self._channel.gettimeout() or 0.0
        self._channel.settimeout(_QUIET)
        last_data = time.monotonic()
        while True:
            self._exchange.drain_stderr()
            self._refuse_overtime()
            try:
                data = self._channel.recv(_CHUNK)
            except TimeoutError as error:
                if time.monotonic() > last_data + patience:
                    self._stalled(error)
                yield b""
                continue
            if not data:
                return
            yield data
            last_data = time.monotonic()

    def _ended(self, last_line: bytes) -> Answer:
        match = re.search(rb"\n%s end (\d+)\n$" % self._boundary.encode(), last_line)
        self._exchange.stdout += shell.section_start(self._boundary, READ) + (match[0] if match else b"")
        return self.end()[READ]


class Upload(Stream):
    """A command with a step that reads data from stdin until stdin ends."""

    def write(self, data: bytes) -> bool:
        """Sends data, and waits while the host takes none; False if the command takes no more: `end` tells why."""
        if self._exchange.ended():
            return False
        self._exchange.drain_stderr()
        at = 0
        try:
            while at < len(data):
                self._refuse_overtime()
                at += self._channel.send(data[at : at + _SENT])
        except TimeoutError as error:
            self._stalled(error)
        except OSError:  # the command has closed its stdin
            return False
        return True

    def end(self) -> dict[str, Answer]:
        """Ends the data, waits for the end of the command, and returns the answers of its steps."""
        if not self._channel.closed:
            self._channel.shutdown_write()
        return super().end()
