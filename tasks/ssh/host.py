"""One host over SSH: a Fabric connection that checks host keys and asks scripts under a guard."""

from __future__ import annotations

import contextlib
import copy
import logging
import secrets
import select
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import paramiko
from fabric import Connection
from fabric.connection import derive_shorthand
from paramiko.ssh_exception import NoValidConnectionsError

from tasks.ctr import probe
from tasks.ctr.probe import Facts
from tasks.ctr.shell import Answer, Script, tail
from tasks.errors import (
    ConnectionLost,
    ConnectTimeout,
    CtrNotFound,
    FerryError,
    GarbledAnswer,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    PermissionDenied,
    RemoteTimeout,
    Unreachable,
)
from tasks.ssh import guard
from tasks.ssh.keys import AcceptNew, RefuseUnknown, UnknownKeyError
from tasks.ssh.target import Target

_CHUNK = 1 << 17
_MOST_OUTPUT = 64 << 20  # bytes of one command's stdout; a listing of 10,000 images has about 3 MiB
_MOST_STDERR = 1 << 20

# paramiko's transport threads log what its exceptions say as well; the operator reads it once, from us.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


class Host(Connection):  # type: ignore[misc]
    """What a per-host command gets as its first argument.

    Attributes:
        name: as the inventory or the user calls it.
        target: where it is, and its limits.
        run_id: of this invocation; whatever we make on a host carries it.
        dry_run: whether nothing may be changed.
        asked: remote commands so far.
        failed: whether a command of this run failed here, so that later ones are skipped.
    """

    name: str
    target: Target
    run_id: str
    dry_run: bool
    asked: int
    failed: bool
    _as_root: bool

    def __init__(self, target: Target, config: Any, *, run_id: str = "", dry_run: bool = False) -> None:
        self._set(target=target, name=target.name, run_id=run_id, dry_run=dry_run, asked=0, failed=False)
        super().__init__(
            target.address,
            user=target.user,
            port=target.port,
            config=config,
            gateway=self._gateway(target.gateway, config) if target.gateway else None,
            connect_timeout=target.limits.connect,
            connect_kwargs=_connect_kwargs(target, config),
        )
        self._set(_as_root=target.become and self.user != "root")

    def _gateway(self, gateway: Target | str, config: Any) -> Host | str:
        return gateway if isinstance(gateway, str) else Host(gateway, config)

    def get_gateway(self) -> Host | str | None:
        """ssh_config's ProxyJump as hosts whose keys are checked too (Fabric's own are not)."""
        hops = self.ssh_config.get("proxyjump", "none")
        if hops == "none":
            command: str | None = self.ssh_config.get("proxycommand")
            return command
        jump: Target | None = None
        for hop in hops.split(","):
            jump = jump_target(hop, jump, self.target)
        return Host(jump, self.config) if jump else None

    def open(self) -> None:
        """Connects, with the host's key checked.

        Raises:
            Unreachable: or one of its kinds.
        """
        if self.is_connected:
            return
        for file in self.target.trust.known_hosts:
            if file.exists():
                self.client.load_system_host_keys(str(file))
        accept = self.target.trust.accept_new
        self.client.set_missing_host_key_policy(
            AcceptNew(self.target.trust.known_hosts[0]) if accept else RefuseUnknown()
        )
        with self._typed_errors():
            super().open()
        self.transport.set_keepalive(15)

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        where = f"{self.user}@{self.host}:{self.port}"
        try:
            yield
        except paramiko.BadHostKeyException as error:
            raise HostKeyChanged(
                f"the host key of {where} is not the one in known_hosts",
                said=f"it sent {error.key.get_name()} {error.key.fingerprint}",
                hint="find out why; if the host was rebuilt, take its old line out with ssh-keygen -R",
            ) from error
        except UnknownKeyError as error:
            raise HostKeyUnknown(
                f"known_hosts has no key for {where}",
                said=f"it sent {error.fingerprint}",
                hint="check that fingerprint, then ssh there once, or set fleet.host_keys: accept-new",
            ) from error
        except paramiko.AuthenticationException as error:
            raise LoginRefused(
                f"{where} refuses the login",
                said=tail(str(error)),
                hint="check user and key: ssh -v to that host",
            ) from error
        except TimeoutError as error:
            raise ConnectTimeout(
                f"{where} did not answer within {self.target.limits.connect} s",
                hint="check that the host is up and the address is right",
            ) from error
        except (OSError, NoValidConnectionsError, EOFError) as error:
            raise Unreachable(
                f"no connection to {where}",
                said=_reason(error),
                hint="check that the host is up and sshd listens there",
            ) from error
        except paramiko.SSHException as error:
            kind = ConnectTimeout if "banner" in str(error) else Unreachable
            no_login = "No authentication methods" in str(error) or "encrypted" in str(error)
            raise (LoginRefused if no_login else kind)(
                f"no SSH session with {where}", said=tail(str(error)), hint="try ssh -v to that host"
            ) from error

    def ask(self, script: Script, *, limit: int | None = None, rights_check: str | None = None) -> dict[str, Answer]:
        """Runs a script there in one remote command and takes its answers apart.

        Args:
            script: what to run.
            limit: seconds that it may take, by default the target's limit for commands.
            rights_check: where given, sudo is used only if this sh test fails; the probe's way to find out.

        Raises:
            Unreachable, RemoteTimeout, PermissionDenied, GarbledAnswer.
        """
        self.open()
        limit = limit or self.target.limits.command
        mark = f"ferry-{secrets.token_hex(8)}"
        text = guard.render(script, mark, limit)
        boot = guard.bootstrap(mark, len(text))
        self._set(asked=self.asked + 1)
        with self._lost_connection(), contextlib.closing(self._session()) as channel:
            exchange = _Exchange(channel, time.monotonic() + limit)
            if self._start(exchange, boot, mark, rights_check):
                exchange.send(f"{mark}\n".encode() + text)
                exchange.finish()
            else:
                raise self._sudo_refused(exchange) or ConnectionLost(f"the connection to {self.name} broke")
        return self._read(script, mark, exchange, limit)

    def _start(self, exchange: _Exchange, boot: str, mark: str, rights_check: str | None) -> bool:
        password = self._sudo_password
        if not self._as_root:
            exchange.start(guard.as_root_if_needed(boot, rights_check) if rights_check else guard.as_login_user(boot))
        elif password is None:
            exchange.start(guard.through_sudo(boot))
        else:
            prompt, ready = f"{mark}-password", f"{mark}-ready"
            exchange.start(guard.through_sudo_with_password(boot, prompt, ready))
            return exchange.answer_sudo(prompt, ready, password)
        return True

    def facts(self, namespaces: Sequence[str]) -> Facts:
        """Probes the host in one remote command, with the images of these namespaces; sudo only where it must be.

        Raises:
            Unreachable, CtrNotFound, DaemonUnreachable, PermissionDenied, GarbledAnswer, RemoteTimeout.
        """
        settings = self.target.ctr
        check = None if self._as_root or self.user == "root" else probe.rights_check(settings)
        try:
            answers = self.ask(probe.script(settings, namespaces), limit=self.target.limits.probe, rights_check=check)
            facts = probe.read(settings, namespaces, answers)
        except (PermissionDenied, CtrNotFound):
            if check is None or self._sudo_password is None:
                raise
            self.remember_sudo()
            return self.facts(namespaces)
        if facts.sudo:
            self.remember_sudo()
        return facts

    def mark_failed(self) -> None:
        """Later commands of this run are skipped here."""
        self._set(failed=True)

    def abandon(self) -> None:
        """Closes the connection under whatever runs; the guard on the host ends it there."""
        if self.transport:
            self.transport.close()

    def remember_sudo(self) -> None:
        """From now on scripts run as root, because the probe found that they must."""
        self._set(_as_root=True)

    @property
    def _sudo_password(self) -> str | None:
        secret = self.target.become_password
        return secret.reveal() if secret else self.config.sudo.password

    def _session(self) -> paramiko.Channel:
        channel: paramiko.Channel = self.transport.open_session(timeout=self.target.limits.connect)
        return channel

    @contextlib.contextmanager
    def _lost_connection(self) -> Iterator[None]:
        try:
            yield
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLost(
                f"the connection to {self.name} broke", said=tail(str(error)), hint="run it again"
            ) from error

    def _read(self, script: Script, mark: str, exchange: _Exchange, limit: int) -> dict[str, Answer]:
        stderr = bytes(exchange.stderr)
        if exchange.timed_out:
            raise RemoteTimeout(
                f"the remote command took longer than {limit} s and was ended",
                said=tail(stderr.decode("utf-8", "replace")),
                hint="if the host is only slow, raise timeouts.command in fabric.yaml",
            )
        if exchange.exit == -1:
            raise ConnectionLost(f"the connection to {self.name} broke", hint="run it again: nothing is half done")
        try:
            return script.read(mark, bytes(exchange.stdout), stderr)
        except GarbledAnswer as error:
            raise self._sudo_refused(exchange) or error from None

    def _sudo_refused(self, exchange: _Exchange) -> FerryError | None:
        said = exchange.stderr.decode("utf-8", "replace")
        if not self._as_root or "sudo" not in said:
            return None
        return PermissionDenied(
            f"sudo refuses {self.user}",
            said=tail(said),
            hint="give sudo's password with fab --prompt-for-sudo-password or FABRIC_SUDO_PASSWORD",
        )


class _Exchange:
    """One remote command's streams, read side by side, in bounded memory and time."""

    def __init__(self, channel: paramiko.Channel, deadline: float) -> None:
        self._channel = channel
        self._deadline = deadline
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.exit = -1
        self.timed_out = False

    def start(self, line: str) -> None:
        """Starts the remote command."""
        self._channel.exec_command(line)

    def send(self, data: bytes) -> None:
        # A host that refuses early closes its end; what it said is read by `finish`.
        with contextlib.suppress(OSError):
            self._channel.settimeout(max(1.0, self._deadline - time.monotonic()))
            self._channel.sendall(data)

    def answer_sudo(self, prompt: str, ready: str, password: str) -> bool:
        """Waits until sudo has let us through, answering its prompt once; asked again, it gives up.

        One wrong password is one failed login; sending the script as the second would be more.
        """
        sent = False
        while ready.encode() not in self.stderr:
            asked = self.stderr.count(prompt.encode())
            if asked > 1 or self._ended() or time.monotonic() > self._deadline:
                return False
            if asked and not sent:
                self.send(password.encode() + b"\n")
                sent = True
            self._wait(0.2)
        return True

    def finish(self) -> None:
        """Reads until the command has ended, or its time is up."""
        while not self._ended():
            if not self._wait(1.0) and time.monotonic() > self._deadline:
                self.timed_out = True
                return
        self._drain()
        self.exit = self._channel.exit_status

    def _ended(self) -> bool:
        channel = self._channel
        return bool(channel.closed or (channel.eof_received and channel.exit_status_ready()))

    def _wait(self, seconds: float) -> bool:
        """Waits for something to read, takes it in; whether there was something."""
        channel = self._channel
        if channel.eof_received and not channel.closed:
            channel.status_event.wait(seconds)
            return channel.exit_status_ready()
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        ready = bool(poll.poll(seconds * 1000))
        self._drain()
        return ready

    def _drain(self) -> None:
        while self._channel.recv_ready():
            self.stdout += self._channel.recv(_CHUNK)
            if len(self.stdout) > _MOST_OUTPUT:
                raise GarbledAnswer(f"the host printed more than {_MOST_OUTPUT >> 20} MiB")
        while self._channel.recv_stderr_ready():
            self.stderr += self._channel.recv_stderr(_CHUNK)
            del self.stderr[:-_MOST_STDERR]


def jump_target(hop: str, before: Target | None, target: Target) -> Target:
    """One hop of ``-J`` or ProxyJump, ``user@host:port``, reached through the one before, trusted as the target is."""
    parts = derive_shorthand(hop)
    return Target(
        hop,
        parts["host"],
        parts["port"],
        parts["user"],
        target.key_file,
        gateway=before,
        trust=target.trust,
        limits=target.limits,
    )


def _connect_kwargs(target: Target, config: Any) -> dict[str, Any]:
    kwargs: dict[str, Any] = copy.deepcopy(dict(config.connect_kwargs))
    kwargs.pop("timeout", None)
    if target.key_file:
        kwargs["key_filename"] = [str(target.key_file)]
    if target.password:
        kwargs["password"] = target.password.reveal()
    limit = target.limits.connect
    return kwargs | {"banner_timeout": limit, "auth_timeout": limit, "channel_timeout": limit}


def _reason(error: BaseException) -> str:
    if isinstance(error, NoValidConnectionsError):
        return "; ".join(dict.fromkeys(_reason(e) for e in error.errors.values()))
    if isinstance(error, socket.gaierror):
        return f"the name does not resolve: {error.strerror}"
    return tail(getattr(error, "strerror", None) or str(error) or type(error).__name__)
