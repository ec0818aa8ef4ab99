"""One host over SSH: a connection that runs scripts under the guard and brings back their answers."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import paramiko

from ctr_ferry.errors import ConnectionLost, PermissionDenied, SessionRefused
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh import guard, open_files
from ctr_ferry.ssh.answer_memory import MEMORY
from ctr_ferry.ssh.connection import Connection
from ctr_ferry.ssh.exchange import Exchange, Listener, Sudo, Transcript
from ctr_ferry.ssh.login import too_slow
from ctr_ferry.ssh.stream import PACKET, READ, WINDOW, BackgroundScript, Download, Stream, Upload
from ctr_ferry.ssh.target import Target
from ctr_ferry.ssh.terminal import Terminal, open_terminal
from ctr_ferry.ssh.transport import SessionRefusedError, Transport
from ctr_ferry.text import tail

Log = Callable[[str, Transcript], None]  # gets the host's name and a remote command that has ended
Moved = Callable[[int, int | None], None]  # gets the bytes moved so far, and the bytes in all where that is known
_S = TypeVar("_S", bound=Stream)
_FIRST_PAUSE = 0.03  # seconds before a session that sshd refused is tried again; each pause is longer
_NO_SESSION_IN_TIME = "Timeout opening channel."  # paramiko's words
_LAST_MOMENT = 0.1  # seconds for paramiko's thread to end after a connection broke
_SPARE_LINES = b"\n" * 8  # a start-up file of the login shell may read these in place of the start marker


class Host:
    """One host, as commands see it. It connects when it is first asked.

    Attributes:
        name: the host's name in the inventory or on the command line.
        target: where the host is, and its limits.
        run_id: identifies this run. Whatever the run creates on a host has it in its name.
        dry_run: whether nothing may be changed.
        moved: called whenever bytes have moved.
        asked: the number of remote commands so far.
        failed: whether a command of this run failed here. Then later commands skip this host.
        notes: what the user should know about this host, whatever the command; in order, without repetition.
        log: gets each remote command that has ended.
        is_source: whether blobs are read here. Then uploads leave sessions to the downloads.
    """

    def __init__(self, target: Target, config: Any, *, run_id: str = "", log: Log = lambda *_: None) -> None:
        self._config, self._connecting, self._abandoned = config, threading.Lock(), threading.Event()
        self._connection: Connection | None = None
        self.name, self.target, self.run_id = target.name, target, run_id
        self.dry_run = self.failed = self.is_source = False
        self.moved: Moved = lambda *_: None
        self.asked = 0
        self.notes: dict[str, None] = {}
        self.log = log
        self._becomes_root = target.become or self._sudo_password is not None

    @property
    def connection(self) -> Connection:
        """The SSH connection. It is made by the thread that works on the host, since ssh_config is asked for it."""
        with self._connecting:
            if not self._connection:
                self._connection = Connection(self.target, self._config, self._abandoned)
                self.notes |= dict.fromkeys(self._connection.configured.notes)
            return self._connection

    @property
    def user(self) -> str:
        """The user who logs in."""
        return str(self.connection.user)

    @property
    def where(self) -> str:
        """The login as ``user@host:port``."""
        return self.connection.where

    @property
    def as_root(self) -> bool:
        """Whether every script runs through sudo."""
        return self._becomes_root and self.user != "root"

    @property
    def transport(self) -> Transport:
        """The open connection's transport, for channels of other kinds."""
        transport: Transport = self.connection.transport
        return transport

    @property
    def is_lost(self) -> bool:
        """Whether the connection broke. Channels of paramiko know it a moment earlier than its transport."""
        made = self._connection
        if made and made.transport:
            made.transport.join(_LAST_MOMENT)
        return not (made and made.is_connected)

    @property
    def abandoned(self) -> bool:
        """Whether the run was interrupted."""
        return self._abandoned.is_set()

    @property
    def has_sudo_password(self) -> bool:
        """Whether sudo is answered with a password on this host."""
        return self._sudo_password is not None and self.as_root

    @property
    def _sudo_password(self) -> str | None:
        secret = self.target.become_password
        return secret.reveal() if secret else self._config.sudo.password

    def begin(self, *, dry_run: bool, moved: Moved) -> None:
        """Prepares for the next command of the command line."""
        self.dry_run, self.moved = dry_run, moved
        MEMORY.free(self.name)

    def mark_failed(self) -> None:
        """Makes later commands of this run skip this host."""
        self.failed = True

    def open(self) -> None:
        """Connects and checks the host's key, unless the connection is open; raises Unreachable or a kind of it."""
        self.connection.open()

    def close_quietly(self) -> None:
        """Closes the connection, and ignores errors of a broken one."""
        with contextlib.suppress(Exception):
            if self._connection:
                self._connection.close()

    def abandon(self) -> None:
        """Closes the connection at once, and lets nothing more start. The guard ends what runs on the host."""
        self._abandoned.set()
        if self._connection:
            self._connection.abandon()

    def pause(self, seconds: float) -> None:
        """Waits so many seconds; raises Interrupted if the run was interrupted meanwhile."""
        self.connection.pause(seconds)

    @contextlib.contextmanager
    def lost_connection(self) -> Iterator[None]:
        """A block in which errors of a broken connection are raised as ConnectionLost."""
        try:
            yield
        except (paramiko.SSHException, EOFError, OSError) as error:
            what, hint = self.connection.fault or f"the connection to {self.name} broke", "run the command again"
            if open_files.is_limit(error):
                what, hint = f"too many files are open here to go on with {self.name}", open_files.advice()
            raise ConnectionLost(what, detail=tail(str(error)), hint=hint) from error

    def become_root(self) -> None:
        """Runs every later script through sudo, unless the login user is root."""
        self._becomes_root = True

    def ask(
        self,
        script: Script,
        *,
        limit: int | None = None,
        rights_check: str | None = None,
        listener: Listener | None = None,
        clip: Listener | None = None,
        secret: bool = False,
    ) -> dict[str, Answer]:
        """Runs a script in one remote command, and returns the answers by the names of the steps.

        Args:
            limit: seconds that the script may take; None is the target's limit for commands.
            rights_check: a sh test. If it fails, the script runs through a sudo that asks for no password, where that
                works. `become_root` overrides it.
            listener: gets stdout while the command runs.
            clip: gets stderr while the command runs.
            secret: whether the output is kept out of the run's record.

        Raises:
            Unreachable, RemoteTimeout, PermissionDenied, GarbledAnswer.
            CommandFailed: a signal ended the script.
        """
        limit = limit or self.target.limits.command
        stream = self._stream(Stream, script, limit, rights_check, listener=listener, clip=clip, secret=secret)
        with self.lost_connection():
            return stream.end()

    def run_in_background(self, script: Script, *, limit: int) -> BackgroundScript:
        """Starts a script whose last step, `BackgroundScript.WAIT`, lasts until stdin ends.

        Args:
            limit: seconds after which the host itself ends the script.

        Raises:
            Unreachable, PermissionDenied.
        """
        return self._stream(BackgroundScript, script, limit, stdin_is_data=True)

    def download(self, step: str, *, limit: int) -> Download:
        """Starts a command that writes data to stdout.

        Args:
            step: the command, as sh text.
            limit: seconds after which the host itself ends the command.

        Raises:
            Unreachable, PermissionDenied.
        """
        return self._stream(Download, Script({READ: step}), limit)

    def upload(self, script: Script, *, limit: int) -> Upload:
        """Starts a script with a step that reads data from stdin.

        Args:
            limit: seconds after which the host itself ends the script.

        Raises:
            ConnectionLost: the connection is closed. A new one would not do: what the upload needs on the host went
                with the old one.
            PermissionDenied.
        """
        if not self.connection.is_connected:
            raise ConnectionLost(f"the connection to {self.name} broke", hint="run the command again")
        return self._stream(Upload, script, limit, stdin_is_data=True)

    @contextlib.contextmanager
    def terminal(self, limit: int) -> Iterator[Terminal]:
        """A terminal on the host, for the block. A step of a script may read a password from it.

        Args:
            limit: seconds after which the host itself closes the terminal.

        Raises:
            Unreachable, MethodUnsupported.
        """
        patience = self.target.limits.connect
        with self._session() as session, contextlib.closing(session):
            yield open_terminal(session, limit, patience)

    def spare_sessions(self, most: int) -> int:
        """Returns how many further sessions sshd lets run on this connection now (MaxSessions), at most ``most``."""
        with self.lost_connection(), contextlib.ExitStack() as opened:
            for number in range(most):
                try:
                    opened.callback(self._new_session().close)
                except SessionRefusedError:
                    return number
        return most

    def wait_for_session(self) -> None:
        """Waits until sshd lets one more session run on this connection, at most the limit for connecting.

        Raises:
            SessionRefused: it does not.
        """
        with self._session() as session:
            session.close()

    def _new_session(self) -> paramiko.Channel:
        limit = self.target.limits.connect
        try:
            return self.transport.open_session(WINDOW, PACKET, limit)
        except paramiko.SSHException as error:
            if str(error) == _NO_SESSION_IN_TIME:
                raise too_slow(f"the start of a session on {self.name}", limit) from error
            raise

    @contextlib.contextmanager
    def _session(self) -> Iterator[paramiko.Channel]:
        """A new session, and a block in which errors of a broken connection are raised as ConnectionLost."""
        self.open()
        with self.lost_connection():
            yield self._next_session()

    def _next_session(self) -> paramiko.Channel:
        """Opens a session. Where sshd refuses it, waits a while for another session to end.

        Raises:
            SessionRefused: none has ended.
        """
        deadline, pause = time.monotonic() + self.target.limits.connect, _FIRST_PAUSE
        while True:
            try:
                return self._new_session()
            except SessionRefusedError as error:
                if time.monotonic() > deadline:
                    sessions = self.transport.sessions
                    raise SessionRefused(
                        f"sshd on {self.name} allows {sessions} session{'s' * (sessions != 1)} at once on a connection "
                        "(MaxSessions), and one more is needed",
                        detail=tail(str(error)),
                        hint=f"set MaxSessions {sessions + 1} or more in its sshd_config, and run the command again",
                    ) from error
            self.pause(pause)  # sshd counts a session until its command has ended
            pause = min(2 * pause, 1.0)

    def _stream(
        self,
        kind: type[_S],
        script: Script,
        limit: int,
        rights_check: str | None = None,
        *,
        stdin_is_data: bool = False,
        listener: Listener | None = None,
        clip: Listener | None = None,
        secret: bool = False,
    ) -> _S:
        boundary, idle = guard.new_boundary(), self.target.limits.idle
        text = guard.render(script, boundary, limit, stdin_is_data=stdin_is_data)
        with self._session() as channel, contextlib.ExitStack() as unless_started:
            unless_started.callback(channel.close)
            self.asked += 1
            exchange = Exchange(channel, limit, idle, listener, clip, reserve=partial(MEMORY.reserve, self.name))
            self._launch(exchange, text, rights_check)
            channel.settimeout(idle)
            unless_started.pop_all()
        return kind(self, script, boundary, exchange, limit=limit, secret=secret)

    def _launch(self, exchange: Exchange, text: bytes, rights_check: str | None) -> None:
        start_marker = guard.new_start_marker()
        self._start(exchange, guard.bootstrap(start_marker, len(text)), start_marker, rights_check)
        exchange.send(_SPARE_LINES + f"{start_marker}\n".encode() + text)

    def _start(self, exchange: Exchange, boot: str, start_marker: str, rights_check: str | None) -> None:
        password = self._sudo_password
        if not self.as_root and rights_check and self.user != "root":
            exchange.start(guard.as_root_if_needed(boot, rights_check))
        elif not self.as_root:
            exchange.start(guard.as_login_user(boot))
        elif password is None:
            exchange.start(guard.through_sudo(boot))
        else:
            prompt, ready = f"{start_marker}-password", f"{start_marker}-ready"
            exchange.start(guard.through_sudo_with_password(boot, prompt, ready))
            match exchange.answer_sudo(prompt, ready, password):
                case Sudo.REFUSED:
                    raise self.sudo_refused(exchange.stderr.replace(prompt.encode(), b""))
                case Sudo.LOST:
                    raise ConnectionLost(f"{self.name} went silent", hint="run the command again")

    def sudo_refused(self, stderr: bytearray) -> PermissionDenied:
        """The error for what sudo, or the shell in place of a missing sudo, printed."""
        return PermissionDenied.by_sudo(
            f"{self.user} cannot become root with sudo", tail(stderr.decode("utf-8", "replace"))
        )
