"""One host over SSH: a connection that runs scripts under a guard and brings back their answers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import paramiko

from ctr_ferry import shell
from ctr_ferry.errors import CommandFailed, ConnectionLost, GarbledAnswer, PermissionDenied, RemoteTimeout
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh import guard
from ctr_ferry.ssh.answer_memory import MEMORY
from ctr_ferry.ssh.connection import Connection
from ctr_ferry.ssh.exchange import End, Exchange, Listener, Sudo, Transcript
from ctr_ferry.ssh.stream import READ, BackgroundScript, Download, Stream, Upload
from ctr_ferry.ssh.target import Target
from ctr_ferry.ssh.terminal import Terminal, open_terminal
from ctr_ferry.text import tail

Log = Callable[[str, Transcript], None]  # host name, what was asked there
Moved = Callable[[int, int | None], None]  # bytes so far, bytes in all where that is known
_S = TypeVar("_S", bound=Stream)
_SPARE_LINES = b"\n" * 8  # lines that a start-up file of the login shell may read in place of our mark


class Host:
    """What a per-host command gets as its first argument.

    Attributes:
        connection: that everything goes through; it is opened when it is first needed.
        name: as the inventory or the user calls it.
        target: where it is, and its limits.
        run_id: of this invocation; whatever we make on a host carries it.
        dry_run: whether nothing may be changed.
        moved: tells whoever watches how many bytes were moved, and of how many.
        asked: remote commands so far.
        failed: whether a command of this run failed here, so that later ones are skipped.
    """

    def __init__(self, target: Target, config: Any, *, run_id: str = "", log: Log | None = None) -> None:
        self.connection = Connection(target, config)
        self.name, self.target, self.run_id = target.name, target, run_id
        self.dry_run = self.failed = False
        self.moved: Moved = lambda *_: None
        self.asked = 0
        self._log = log
        self._as_root = (target.become or self._sudo_password is not None) and self.user != "root"

    @property
    def user(self) -> str:
        """Who logs in."""
        user: str = self.connection.user
        return user

    @property
    def where(self) -> str:
        """The login as ssh knows it: ``user@host:port``."""
        return self.connection.where

    @property
    def transport(self) -> paramiko.Transport:
        """paramiko's end of the open connection."""
        transport: paramiko.Transport = self.connection.transport
        return transport

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open."""
        return bool(self.connection.is_connected)

    @property
    def is_lost(self) -> bool:
        """Whether the connection broke."""
        return self.connection.is_lost

    @property
    def abandoned(self) -> bool:
        """Whether the run was cut short."""
        return self.connection.abandoned

    def open(self) -> None:
        """Connects, with the host's key checked; does nothing where the connection is open.

        Raises:
            Unreachable: or one of its kinds.
        """
        self.connection.open()

    def close(self) -> None:
        """Closes the connection."""
        self.connection.close()

    def close_quietly(self) -> None:
        """Closes the connection, whatever state it is in."""
        self.connection.close_quietly()

    def abandon(self) -> None:
        """Closes the connection under whatever runs, and lets nothing start; the guard ends it on the host."""
        self.connection.abandon()

    def pause(self, seconds: float) -> None:
        """Waits; not any longer where the run is cut short.

        Raises:
            Interrupted.
        """
        self.connection.pause(seconds)

    def lost_connection(self) -> contextlib.AbstractContextManager[None]:
        """Turns what a broken connection raises in the block into ConnectionLost."""
        return self.connection.lost_connection()

    def begin(self, *, dry_run: bool, moved: Moved) -> None:
        """A command of the line begins here.

        Args:
            moved: to be told of every progress in moving bytes.
        """
        self.dry_run, self.moved = dry_run, moved
        MEMORY.free(self.name)

    def ask(
        self,
        script: Script,
        *,
        limit: int | None = None,
        rights_check: str | None = None,
        listener: Listener | None = None,
        secret: bool = False,
    ) -> dict[str, Answer]:
        """Runs a script there in one remote command and takes its answers apart.

        Args:
            script: what to run.
            limit: seconds that it may take, by default the target's limit for commands.
            rights_check: where given, sudo is used only if this sh test fails; the probe's way to find out.
            listener: hears stdout while the command runs.
            secret: whether what it prints is kept out of the run's record.

        Raises:
            Unreachable, RemoteTimeout, PermissionDenied, GarbledAnswer, CommandFailed: a signal ended it.
        """
        self._make_ready()
        limit = limit or self.target.limits.command
        boundary = guard.new_boundary()
        text = guard.render(script, boundary, limit)
        self.asked += 1
        with self.lost_connection(), contextlib.closing(self.connection.session()) as channel:
            exchange = Exchange(
                channel, limit, self.target.limits.idle, listener, reserve=partial(MEMORY.reserve, self.name)
            )
            self._launch(exchange, text, rights_check)
            began = time.monotonic()
            try:
                end = exchange.finish(lambda: script.is_whole(boundary, exchange.stdout, exchange.stderr))
            finally:
                self._record(script, boundary, exchange, time.monotonic() - began, secret=secret)
        self._refuse_end(script, boundary, exchange, end, limit)
        return self._answers(script, boundary, exchange)

    def run_in_background(self, script: Script, *, limit: int) -> BackgroundScript:
        """Starts a script whose last step, ``wait``, lasts until stdin ends: it is let go, or the control process gone.

        Args:
            limit: seconds after which the host itself ends it.

        Raises:
            Unreachable, PermissionDenied.
        """
        return self._stream(BackgroundScript, script, limit, stdin_is_data=True)

    def download(self, step: str, *, limit: int) -> Download:
        """Starts a command that writes data to stdout; ``limit`` as above."""
        return self._stream(Download, Script({READ: step}), limit)

    def upload(self, script: Script, *, limit: int) -> Upload:
        """Starts a script one of whose steps reads data from stdin; ``limit`` as above.

        Raises:
            ConnectionLost: what was begun here went with the connection; another one has no use for the data.
        """
        if not self.is_connected:
            raise ConnectionLost(f"the connection to {self.name} broke", hint="run it again")
        return self._stream(Upload, script, limit, stdin_is_data=True)

    def _make_ready(self) -> None:
        self.open()
        self.connection.refuse_if_abandoned()

    def _stream(self, kind: type[_S], script: Script, limit: int, *, stdin_is_data: bool = False) -> _S:
        self._make_ready()
        boundary = guard.new_boundary()
        text = guard.render(script, boundary, limit, stdin_is_data=stdin_is_data)
        self.asked += 1
        with self.lost_connection():
            channel = self.connection.session()
            exchange = Exchange(channel, limit, self.target.limits.idle, reserve=partial(MEMORY.reserve, self.name))
            self._launch(exchange, text, None)
            channel.settimeout(self.target.limits.idle)
        began = time.monotonic()

        def read(steps: Script, exchange: Exchange, end: End) -> dict[str, Answer]:
            self._refuse_end(script, boundary, exchange, end, limit)
            return self._answers(steps, boundary, exchange)

        return kind(
            script,
            boundary,
            channel,
            exchange,
            read=read,
            finished=lambda exchange: self._record(script, boundary, exchange, time.monotonic() - began),
        )

    def _launch(self, exchange: Exchange, text: bytes, rights_check: str | None) -> None:
        start_marker = guard.new_start_marker()
        self._start(exchange, guard.bootstrap(start_marker, len(text)), start_marker, rights_check)
        exchange.send(_SPARE_LINES + f"{start_marker}\n".encode() + text)

    def _record(
        self, script: Script, boundary: str, exchange: Exchange, seconds: float, *, secret: bool = False
    ) -> None:
        if self._log:
            steps = "\n".join(f"{name}: {step}" for name, step in script.steps.items())
            detail = (b"", b"") if secret else (exchange.stdout, exchange.stderr)
            stdout, stderr = (shell.with_step_headings(boundary, stream) for stream in detail)
            self._log(self.name, Transcript(steps, exchange.exit, seconds, stdout, stderr))

    def _start(self, exchange: Exchange, boot: str, start_marker: str, rights_check: str | None) -> None:
        password = self._sudo_password
        if not self._as_root and rights_check and self.user != "root":
            exchange.start(guard.as_root_if_needed(boot, rights_check))
        elif not self._as_root:
            exchange.start(guard.as_login_user(boot))
        elif password is None:
            exchange.start(guard.through_sudo(boot))
        else:
            prompt, ready = f"{start_marker}-password", f"{start_marker}-ready"
            exchange.start(guard.through_sudo_with_password(boot, prompt, ready))
            match exchange.answer_sudo(prompt, ready, password):
                case Sudo.REFUSED:
                    raise self._sudo_refused(exchange.stderr.replace(prompt.encode(), b""))
                case Sudo.LOST:
                    raise ConnectionLost(f"{self.name} went silent", hint="run it again")

    def become_root(self) -> None:
        """Everything runs through sudo from now on."""
        self._as_root = self.connection.user != "root"

    @contextlib.contextmanager
    def terminal(self, limit: int) -> Iterator[Terminal]:
        """A terminal there, for the block, that a script's step may read a password from.

        Args:
            limit: seconds after which the host itself lets go of it.

        Raises:
            Unreachable, MethodUnsupported.
        """
        self._make_ready()
        with (
            self.lost_connection(),
            open_terminal(self.connection.session(), limit, self.target.limits.connect) as terminal,
        ):
            yield terminal

    def mark_failed(self) -> None:
        """Later commands of this run are skipped here."""
        self.failed = True

    @property
    def has_sudo_password(self) -> bool:
        """Whether sudo is answered with a password here."""
        return self._sudo_password is not None and self._as_root

    @property
    def _sudo_password(self) -> str | None:
        secret = self.target.become_password
        return secret.reveal() if secret else self.connection.config.sudo.password

    def _refuse_end(self, script: Script, boundary: str, exchange: Exchange, end: End, limit: int) -> None:
        detail = shell.last_lines(boundary, exchange.stderr)
        match end:
            case End.KILLED if script.cleanup and script.is_whole(boundary, exchange.stdout, exchange.stderr):
                raise RemoteTimeout(
                    "all steps had ended, but the clean-up behind them hung and was ended: it may have left something",
                    detail=detail,
                    hint=f"look at containerd's log there, then: fab -H {self.name} doctor --clean",
                )
            case End.KILLED:
                raise _killed(detail)
            case End.TIMED_OUT:
                raise RemoteTimeout(
                    f"the remote command took longer than {limit} s and was ended",
                    detail=detail,
                    hint="if the host is only slow, raise timeouts.command in fabric.yaml",
                )
            case End.SILENT | End.LOST:
                what = "went silent" if end is End.SILENT else "closed the connection"
                raise ConnectionLost(
                    f"{self.name} {what} while a command ran there", hint="run it again: it looks first what is true"
                )

    def _answers(self, script: Script, boundary: str, exchange: Exchange) -> dict[str, Answer]:
        try:
            return script.read(boundary, bytes(exchange.stdout), bytes(exchange.stderr))
        except GarbledAnswer as error:
            if exchange.exit == guard.BROKEN_OFF:
                raise _killed(shell.last_lines(boundary, exchange.stderr)) from None
            if self._as_root and "sudo" in error.detail:
                raise self._sudo_refused(exchange.stderr) from None
            raise

    def _sudo_refused(self, stderr: bytearray) -> PermissionDenied:
        return PermissionDenied(
            f"sudo does not let {self.user} through",
            detail=tail(stderr.decode("utf-8", "replace")),
            hint="give the right password with fab --prompt-for-sudo-password or FABRIC_SUDO_PASSWORD",
        )


def _killed(detail: str) -> CommandFailed:
    return CommandFailed(
        "the remote command was ended by a signal", detail=detail, hint="look at the host's log: it may lack memory"
    )
