"""A connection to one host: Fabric's, with host keys and gateways that are checked, and patience."""

from __future__ import annotations

import contextlib
import logging
import random
import shlex
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import fabric
import paramiko
from paramiko.ssh_exception import NoValidConnectionsError

from ctr_ferry.errors import ConnectionLost, Interrupted, LoginRefused, Unreachable
from ctr_ferry.shell import join
from ctr_ferry.ssh.connect import Proxy, connect_kwargs, expand, typed_errors
from ctr_ferry.ssh.keys import KnownKeys, host_name, known_keys
from ctr_ferry.ssh.login import UnansweredError
from ctr_ferry.ssh.stream import PACKET, WINDOW
from ctr_ferry.ssh.target import Target
from ctr_ferry.ssh.transport import Transport
from ctr_ferry.text import tail

# paramiko's transport threads log what its exceptions say as well; the operator reads it once, from us.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False
_LAST_MOMENT = 0.1  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 0.3, 1.5  # seconds before a connection is tried again, then longer and longer
# Nothing listens, not even behind the gateway; or there is no such ProxyCommand.
_REFUSALS = (NoValidConnectionsError, paramiko.ChannelException, FileNotFoundError, PermissionError, ValueError)


class Connection(fabric.Connection):  # type: ignore[misc]
    """A connection that is opened when it is first needed.

    Attributes:
        name: of the host, as the inventory or the user calls it.
        target: where the host is, and its limits.
    """

    name: str
    target: Target
    _abandoned: threading.Event
    _opening: threading.Lock

    def __init__(self, target: Target, config: Any, *, as_gateway: bool = False) -> None:
        self._set(name=target.name, target=target, _abandoned=threading.Event(), _opening=threading.Lock())
        super().__init__(
            target.address,
            user=target.user,
            port=target.port,
            config=config,
            gateway=_gateway(target.gateway, config) if target.gateway else None,
            connect_timeout=target.limits.connect,
            connect_kwargs=connect_kwargs(target, config, as_gateway=as_gateway),
        )

    @property
    def where(self) -> str:
        """``user@host:port``, with what ssh_config says."""
        return f"{self.user}@{self.host}:{self.port}"

    def get_gateway(self) -> Connection | str | None:
        """ssh_config's ProxyJump as hosts whose keys are checked too (Fabric's own are not)."""
        hops = self.ssh_config.get("proxyjump", "none")
        if hops == "none":
            command: str | None = self.ssh_config.get("proxycommand")
            return command
        jump = self.target.behind(hops).gateway
        return _gateway(jump, self.config) if jump else None

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
        if isinstance(self.gateway, Connection):
            self._connect_gateway(self.gateway)
        self._connect_with_patience()
        self.transport.set_keepalive(15)
        self.refuse_if_abandoned()

    def _connect_gateway(self, gateway: Connection) -> None:
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
                with typed_errors(self.where, self.target, self.client):
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
            self.refuse_if_abandoned()

    def refuse_if_abandoned(self) -> None:
        """Lets nothing start any more where the run was cut short.

        Raises:
            Interrupted.
        """
        if self.abandoned:
            self.close()
            raise Interrupted("the run was interrupted before this host was touched", hint="run it again")

    def pause(self, seconds: float) -> None:
        """Waits; not any longer where the run is cut short.

        Raises:
            Interrupted.
        """
        self._abandoned.wait(seconds)
        self.refuse_if_abandoned()

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
        if isinstance(self.gateway, Connection):
            self.gateway.abandon()
        if self.transport:
            self.transport.close()

    def session(self) -> paramiko.Channel:
        """A fresh session on it."""
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


def _gateway(gateway: Target | str, config: Any) -> Connection | str:
    return gateway if isinstance(gateway, str) else Connection(gateway, config, as_gateway=True)
