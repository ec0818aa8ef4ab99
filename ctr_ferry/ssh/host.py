"""One host over SSH: a Fabric connection that checks host keys and asks scripts under a guard."""

from __future__ import annotations

import contextlib
import logging
import random
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import paramiko
from fabric import Connection
from paramiko.ssh_exception import NoValidConnectionsError

from ctr_ferry import shell
from ctr_ferry.ctr import probe
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.errors import (
    CommandFailed,
    ConnectionLost,
    GarbledAnswer,
    HostError,
    Interrupted,
    LoginRefused,
    PermissionDenied,
    RemoteTimeout,
    Unreachable,
)
from ctr_ferry.shell import Answer, Script, join, tail
from ctr_ferry.ssh import guard
from ctr_ferry.ssh.answer_memory import ROOM
from ctr_ferry.ssh.connect import Proxy, connect_kwargs, expand, typed_errors
from ctr_ferry.ssh.exchange import End, Exchange, Listener, Sudo, Transcript
from ctr_ferry.ssh.keys import KnownKeys, host_name, known_keys
from ctr_ferry.ssh.login import UnansweredError
from ctr_ferry.ssh.stream import PACKET, READ, WINDOW, Download, Hold, Stream, Upload
from ctr_ferry.ssh.target import Target
from ctr_ferry.ssh.terminal import Terminal, hold
from ctr_ferry.ssh.transport import Transport

# paramiko's transport threads log what its exceptions say as well; the operator reads it once, from us.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False
Log = Callable[[str, Transcript], None]  # host name, what was asked there
Moved = Callable[[int, int | None], None]  # bytes so far, bytes in all where that is known
_LAST_MOMENT = 0.1  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 0.3, 1.5  # seconds before a connection is tried again, then longer and longer
# Nothing listens, not even behind the gateway; or there is no such ProxyCommand.
_REFUSALS = (NoValidConnectionsError, paramiko.ChannelException, FileNotFoundError, PermissionError, ValueError)
_S = TypeVar("_S", bound=Stream)
_FOR_OTHERS = b"\n" * 8  # lines that a start-up file of the login shell may read in place of our mark


class Host(Connection):  # type: ignore[misc]
    """What a per-host command gets as its first argument.

    Attributes:
        name: as the inventory or the user calls it.
        target: where it is, and its limits.
        run_id: of this invocation; whatever we make on a host carries it.
        dry_run: whether nothing may be changed.
        moved: tells whoever watches how many bytes were moved, and of how many.
        asked: remote commands so far.
        failed: whether a command of this run failed here, so that later ones are skipped.
    """

    name: str
    target: Target
    run_id: str
    dry_run: bool
    moved: Moved
    asked: int
    failed: bool
    _as_root: bool
    _abandoned: threading.Event
    _opening: threading.Lock
    _log: Log | None

    def __init__(
        self, target: Target, config: Any, *, run_id: str = "", log: Log | None = None, as_gateway: bool = False
    ) -> None:
        self._set(target=target, name=target.name, run_id=run_id, dry_run=False, asked=0, failed=False)
        self._set(_abandoned=threading.Event(), _opening=threading.Lock(), _log=log, moved=lambda *_: None)
        super().__init__(
            target.address,
            user=target.user,
            port=target.port,
            config=config,
            gateway=self._gateway(target.gateway, config) if target.gateway else None,
            connect_timeout=target.limits.connect,
            connect_kwargs=connect_kwargs(target, config, as_gateway=as_gateway),
        )
        given = self._sudo_password is not None
        self._set(_as_root=(target.become or given) and self.user != "root")

    def _gateway(self, gateway: Target | str, config: Any) -> Host | str:
        return gateway if isinstance(gateway, str) else Host(gateway, config, as_gateway=True)

    def get_gateway(self) -> Host | str | None:
        """ssh_config's ProxyJump as hosts whose keys are checked too (Fabric's own are not)."""
        hops = self.ssh_config.get("proxyjump", "none")
        if hops == "none":
            command: str | None = self.ssh_config.get("proxycommand")
            return command
        jump = self.target.behind(hops).gateway
        return self._gateway(jump, self.config) if jump else None

    def open_gateway(self) -> Any:
        """Fabric's hook: what paramiko connects through, a ProxyCommand with our own port in it (Fabric's has 22).

        Raises:
            Unreachable: also where the gateway, itself connected, has no way to the host.
        """
        if not isinstance(self.gateway, str):
            try:
                return super().open_gateway()
            except paramiko.ChannelException as error:
                raise Unreachable(
                    f"gateway {self.gateway.name} of {self.name} has no way to {self.host}:{self.port}",
                    detail=tail(error.text),
                    hint="check that the host is up, the address as the gateway sees it, and its AllowTcpForwarding",
                ) from error
        try:
            words = [expand(word, self.host, self.port, self.user) for word in shlex.split(self.gateway)]
            return Proxy(join(words))
        except (OSError, ValueError) as error:
            raise Unreachable(
                f"the ProxyCommand of {self.name} cannot be run",
                detail=tail(str(error)),
                hint=f"check {self.gateway!r}",
            ) from error

    def begin(self, *, dry_run: bool, moved: Moved) -> None:
        """A command of the line begins here.

        Args:
            moved: to be told of every progress in moving bytes.
        """
        self._set(dry_run=dry_run, moved=moved)
        ROOM.leave(self.name)

    def open(self) -> None:
        """Connects, with the host's key checked.

        Raises:
            Unreachable: or one of its kinds.
        """
        with self._opening:
            if not self.is_connected:
                self._open()

    def _open(self) -> None:
        known = known_keys(host_name(self.host, self.port), self.target.trust.known_hosts)
        types = {key.get_name() for key in known}
        self.connect_kwargs["transport_factory"] = partial(Transport, known_types=types)
        self.client.set_missing_host_key_policy(KnownKeys(self.target.trust))
        if isinstance(self.gateway, Host):
            self._connect_gateway(self.gateway)
        self._connect_with_patience()
        self.transport.set_keepalive(15)
        self._refuse_if_abandoned()

    def _connect_gateway(self, gateway: Host) -> None:
        """Connects it first, so that it is tried again by itself alone, and its trouble is called its own."""
        try:
            gateway.open()
        except Unreachable as error:
            hint = error.hint
            if isinstance(error, LoginRefused):
                hint += "; a gateway gets no password of the hosts behind it"
            raise type(error)(f"gateway of {self.name}: {error.message}", detail=error.detail, hint=hint) from error

    def _connect_with_patience(self) -> None:
        """Tries again what may pass, within the time for one connection.

        Where nothing listens, a few times; where sshd took the connection and cut it off in the greeting, as with
        MaxStartups, the host is alive: as often as there is time.
        """
        deadline = time.monotonic() + self.target.limits.connect
        pause, left = _FIRST_PAUSE, self.target.limits.retries
        while True:
            try:
                with typed_errors(f"{self.user}@{self.host}:{self.port}", self.target, self.client):
                    super().open()
                    # paramiko takes a part of a login for all of it.
                    if self.transport.is_active() and not self.transport.is_authenticated():
                        raise UnansweredError("one more key")
                return
            except Unreachable as error:
                self.client.close()  # else paramiko's thread goes on listening to that host
                # The random share spreads hosts that were refused together.
                pause = min(pause * random.uniform(1.0, 2.0), _LONGEST_PAUSE * random.uniform(0.5, 1.0))  # noqa: S311
                left -= isinstance(error.__cause__, _REFUSALS)
                if not (left >= 0 and error.may_pass and time.monotonic() + pause < deadline):
                    raise
            self._abandoned.wait(pause)
            self._refuse_if_abandoned()

    def _refuse_if_abandoned(self) -> None:
        if self.abandoned:
            self.close()
            raise Interrupted("the run was interrupted before this host was touched", hint="run it again")

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
        self.open()
        self._refuse_if_abandoned()
        limit = limit or self.target.limits.command
        boundary = guard.new_boundary()
        text = guard.render(script, boundary, limit)
        self._set(asked=self.asked + 1)
        with self.lost_connection(), contextlib.closing(self._session()) as channel:
            exchange = Exchange(channel, limit, self.target.limits.idle, listener, hold=partial(ROOM.hold, self.name))
            self._launch(exchange, text, rights_check)
            began = time.monotonic()
            try:
                end = exchange.finish(lambda: script.is_whole(boundary, exchange.stdout, exchange.stderr))
            finally:
                self._record(script, boundary, exchange, time.monotonic() - began, secret=secret)
        self._refuse_end(script, boundary, exchange, end, limit)
        return self._answers(script, boundary, exchange)

    def hold(self, script: Script, *, limit: int) -> Hold:
        """Starts a script whose last step, ``wait``, lasts until stdin ends: it is let go, or the control process gone.

        Args:
            limit: seconds after which the host itself ends it.

        Raises:
            Unreachable, PermissionDenied.
        """
        return self._stream(Hold, script, limit, fed=True)

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
        return self._stream(Upload, script, limit, fed=True)

    def _stream(self, kind: type[_S], script: Script, limit: int, *, fed: bool = False) -> _S:
        self.open()
        self._refuse_if_abandoned()
        boundary = guard.new_boundary()
        text = guard.render(script, boundary, limit, fed=fed)
        self._set(asked=self.asked + 1)
        with self.lost_connection():
            channel = self._session()
            exchange = Exchange(channel, limit, self.target.limits.idle, hold=partial(ROOM.hold, self.name))
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
        mark = guard.new_mark()
        self._start(exchange, guard.bootstrap(mark, len(text)), mark, rights_check)
        exchange.send(_FOR_OTHERS + f"{mark}\n".encode() + text)

    def _record(
        self, script: Script, boundary: str, exchange: Exchange, seconds: float, *, secret: bool = False
    ) -> None:
        if self._log:
            steps = "\n".join(f"{name}: {step}" for name, step in script.steps.items())
            detail = (b"", b"") if secret else (exchange.stdout, exchange.stderr)
            stdout, stderr = (shell.unframed(boundary, stream) for stream in detail)
            self._log(self.name, Transcript(steps, exchange.exit, seconds, stdout, stderr))

    def _start(self, exchange: Exchange, boot: str, mark: str, rights_check: str | None) -> None:
        password = self._sudo_password
        if not self._as_root:
            exchange.start(guard.as_root_if_needed(boot, rights_check) if rights_check else guard.as_login_user(boot))
        elif password is None:
            exchange.start(guard.through_sudo(boot))
        else:
            prompt, ready = f"{mark}-password", f"{mark}-ready"
            exchange.start(guard.through_sudo_with_password(boot, prompt, ready))
            match exchange.answer_sudo(prompt, ready, password):
                case Sudo.REFUSED:
                    raise self._sudo_refused(exchange.stderr.replace(prompt.encode(), b""))
                case Sudo.LOST:
                    raise ConnectionLost(f"{self.name} went silent", hint="run it again")

    def facts(self, namespaces: Sequence[str]) -> Facts:
        """Probes the host in one remote command, with the images of these namespaces; sudo only where it must be.

        Raises:
            Unreachable, CtrNotFound, DaemonUnreachable, PermissionDenied, GarbledAnswer, RemoteTimeout.
        """
        facts, _ = self.survey(namespaces, {})
        if isinstance(facts, HostError):
            raise facts
        return facts

    def survey(self, namespaces: Sequence[str], more: Mapping[str, str]) -> tuple[Facts | HostError, dict[str, Answer]]:
        """The probe with further steps behind it, in the same remote command.

        Returns:
            The facts, or why there are none; and the answers to all steps.

        Raises:
            Unreachable, PermissionDenied, GarbledAnswer, RemoteTimeout: the host does not answer at all.
        """
        settings = self.target.ctr
        check = None if self._as_root or self.user == "root" else probe.rights_check(settings)
        script = probe.script(settings, namespaces)
        script = replace(script, steps={**script.steps, **more})
        answers = self.ask(script, limit=self.target.limits.probe, rights_check=check)
        try:
            facts = probe.read(settings, namespaces, answers)
        except HostError as error:
            return error, answers
        if facts.sudo:
            self._set(_as_root=True)  # from now on, because the probe found that it must
        return facts, answers

    @contextlib.contextmanager
    def terminal(self, limit: int) -> Iterator[Terminal]:
        """A terminal there, for the block, that a script's step may read a password from.

        Args:
            limit: seconds after which the host itself lets go of it.

        Raises:
            Unreachable, MethodUnsupported.
        """
        self.open()
        self._refuse_if_abandoned()
        with self.lost_connection(), hold(self._session(), limit, self.target.limits.connect) as terminal:
            yield terminal

    def pause(self, seconds: float) -> None:
        """Waits; not any longer where the run is cut short.

        Raises:
            Interrupted.
        """
        self._abandoned.wait(seconds)
        self._refuse_if_abandoned()

    def mark_failed(self) -> None:
        """Later commands of this run are skipped here."""
        self._set(failed=True)

    @property
    def abandoned(self) -> bool:
        """Whether the run was cut short."""
        return self._abandoned.is_set()

    def close_quietly(self) -> None:
        """Closes the connection, whatever state it is in."""
        with contextlib.suppress(Exception):
            self.close()

    def abandon(self) -> None:
        """Closes the connection under whatever runs, and lets nothing start; the guard ends it on the host."""
        self._abandoned.set()
        if isinstance(self.gateway, Host):
            self.gateway.abandon()
        if self.transport:
            self.transport.close()

    @property
    def has_sudo_password(self) -> bool:
        """Whether sudo is answered with a password here."""
        return self._sudo_password is not None and self._as_root

    @property
    def _sudo_password(self) -> str | None:
        secret = self.target.become_password
        return secret.reveal() if secret else self.config.sudo.password

    def _session(self) -> paramiko.Channel:
        channel: paramiko.Channel = self.transport.open_session(WINDOW, PACKET, self.target.limits.connect)
        return channel

    @property
    def is_lost(self) -> bool:
        """Whether its connection broke; paramiko tells the channels a moment before it says so itself."""
        if self.transport:
            self.transport.join(_LAST_MOMENT)
        return not self.is_connected

    @contextlib.contextmanager
    def lost_connection(self) -> Iterator[None]:
        """Turns what a broken connection raises in here into ConnectionLost."""
        try:
            yield
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLost(
                f"the connection to {self.name} broke", detail=tail(str(error)), hint="run it again"
            ) from error

    def _refuse_end(self, script: Script, boundary: str, exchange: Exchange, end: End, limit: int) -> None:
        detail = shell.detail(boundary, exchange.stderr)
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
                raise _killed(shell.detail(boundary, exchange.stderr)) from None
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
