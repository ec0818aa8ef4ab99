"""Fabric's connection, made stricter and more patient.

Host keys are checked, also those of gateways. A connection that was refused is tried again for a while. Errors say
what to do about them.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import fabric
import paramiko
from paramiko.ssh_exception import NoValidConnectionsError, ProxyCommandFailure

from ctr_ferry.errors import Interrupted, LoginRefused, Unreachable
from ctr_ferry.ssh import open_files
from ctr_ferry.ssh.connect import (
    Proxy,
    connect_error,
    connect_kwargs,
    demand_running,
    dial,
    expand,
    may_pass,
    named_files,
)
from ctr_ferry.ssh.keys import KnownKeys, authorities, configured_trust, known_keys
from ctr_ferry.ssh.login import Login
from ctr_ferry.ssh.login_keys import USUAL_FILES, Keys
from ctr_ferry.ssh.openssh import HostConfig, own_gateway, ssh_config
from ctr_ferry.ssh.target import Target
from ctr_ferry.ssh.transport import Transport
from ctr_ferry.text import tail

# paramiko's threads log what its exceptions say, too. The operator reads our errors instead.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False
_PATIENCE = 1.5  # times the idle limit: a command that waits for a host gives up first, and knows more about it
_FIRST_PAUSE, _LONGEST_PAUSE = 0.3, 1.5  # seconds before a connection is tried again; each pause is longer
_LAST_MOMENT = 1.0  # seconds for paramiko's thread to end
# Nothing listens there, not even behind the gateway.
_REFUSALS = (NoValidConnectionsError, paramiko.ChannelException, ProxyCommandFailure)


class _Read(paramiko.SSHConfig):
    """In place of Fabric's own reading of ssh_config, which would look up what an alias leads to as another alias."""

    def lookup(self, hostname: str) -> paramiko.SSHConfigDict:  # noqa: ARG002
        """Fabric's hook: nothing."""
        return paramiko.SSHConfigDict()


class Connection(fabric.Connection):  # type: ignore[misc]
    """A connection to one host. A gateway is a connection of the same kind.

    Args:
        target: where the host is, how to log in, and its limits.
        config: Fabric's configuration.
        abandoned: set when the run is interrupted. The gateways have the same.
        before: the connections that this one is a gateway of. A gateway gets no password that Fabric asked for.

    Attributes:
        configured: what ssh_config says about the host.

    Raises:
        Unreachable: ssh refuses what ssh_config says about the host, or makes a gateway its own gateway.
    """

    name: str
    target: Target
    abandoned: threading.Event
    configured: HostConfig
    _before: Sequence[Connection]
    _opening: threading.Lock
    _way: Proxy | None

    def __init__(
        self, target: Target, config: Any, abandoned: threading.Event, *, before: Sequence[Connection] = ()
    ) -> None:
        configured = ssh_config(config).of(target.address, target.user, target.port)
        self._set(name=target.name, target=target, abandoned=abandoned, configured=configured)
        self._set(_before=before, _opening=threading.Lock(), _way=None)
        port, user = configured.get("port"), target.user or configured.get("user") or config.user
        if not user:
            raise Unreachable(
                f"there is no login user for {target.name}: the user with the number {os.getuid()} has no name here",
                hint=f"name one: -H USER@{target.name}, or ansible_user in the inventory",
            )
        config._set(base_ssh_config=_Read())
        super().__init__(
            configured.hostname,
            user=user,
            port=target.port or (int(port) if port else None),
            config=config,
            connect_timeout=target.limits.connect,
            connect_kwargs=connect_kwargs(target, config, configured, as_gateway=bool(before)),
        )

    def derive_shorthand(self, host_string: str) -> dict[str, str | None]:
        """Fabric's hook. An address was taken apart before, and Fabric would do so once more."""
        return {"host": host_string, "user": None, "port": None}

    @property
    def where(self) -> str:
        """The login as ``user@host:port``."""
        return f"{self.user}@{self.host}:{self.port}"

    def get_gateway(self) -> Connection | str | None:
        """Fabric's hook: the gateway of the target, else of ssh_config. Fabric's own would accept any host key."""
        gateway, hops = self.target.gateway, self.configured.get("proxyjump")
        if gateway is None:
            gateway = self.target.behind(hops).gateway if hops else self.configured.get("proxycommand")
        if not isinstance(gateway, Target):
            return gateway
        line = (*self._before, self)
        if any(_login(each.target) == _login(gateway) for each in line):
            raise own_gateway(gateway.address)
        return Connection(gateway, self.config, self.abandoned, before=line)

    def resolve_connect_kwargs(self, connect_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Fabric's hook: the arguments for paramiko, as they are. Fabric would name each key file twice."""
        return connect_kwargs

    def open_gateway(self) -> Any:
        """Fabric's hook: the channel or the ProxyCommand that paramiko connects through.

        Raises:
            Unreachable: the gateway is connected, and cannot reach the host; or the ProxyCommand cannot be run.
        """
        if isinstance(self.gateway, str):
            return self._proxy(self.gateway)
        try:
            return super().open_gateway()
        except paramiko.ChannelException as error:
            raise Unreachable(
                f"gateway {self.gateway.name} of {self.name} has no way to {self.host}:{self.port}",
                detail=tail(error.text),
                hint="check that the host is up, its address as the gateway sees it, and AllowTcpForwarding there",
            ) from error

    def _proxy(self, command: str) -> Proxy:
        """The running ProxyCommand, with the host's own port: Fabric would fill in 22."""
        try:
            proxy = Proxy(expand(command, self.host, self.port, self.user, for_shell=True))
        except (OSError, ValueError) as error:
            if open_files.is_limit(error):
                raise
            raise Unreachable(
                f"the ProxyCommand of {self.name} cannot be run", detail=tail(str(error)), hint=f"check {command!r}"
            ) from error
        self._set(_way=proxy)
        return proxy

    def open(self) -> None:
        """Connects and checks the host's key, unless the connection is open.

        Raises:
            Unreachable: or one of its kinds.
            Interrupted: the run was interrupted.
        """
        with self._opening:
            if not self.is_connected:
                self._open()
        self._refuse_if_abandoned()

    def _open(self) -> None:
        name = self.host if self.port == paramiko.config.SSH_PORT else f"[{self.host}]:{self.port}"
        name = self.configured.get("hostkeyalias") or name
        trust = configured_trust(self.target.trust, self.configured)
        types = {key.get_name() for key in known_keys(name, trust.known_hosts)}
        certified = bool(authorities(name, trust.known_hosts))
        self.connect_kwargs["transport_factory"] = partial(Transport, known_types=types, certified=certified)
        self.client.set_missing_host_key_policy(KnownKeys(trust, self.where, name))
        if isinstance(self.gateway, Connection):
            self._connect_gateway(self.gateway)
        self._connect_with_patience()
        self.transport.watch(_PATIENCE * self.target.limits.idle)

    def _connect_gateway(self, gateway: Connection) -> None:
        """Connects the gateway first, so that its errors name it and its attempts are its own."""
        try:
            gateway.open()
        except Unreachable as error:
            hint = error.hint
            if isinstance(error, LoginRefused):
                hint += "; a gateway gets no password of the hosts behind it"
            raise type(error)(f"gateway of {self.name}: {error.message}", detail=error.detail, hint=hint) from error

    def _connect_with_patience(self) -> None:
        """Connects, and tries again after errors that are known to pass, within the time for one connection.

        Where nothing listens, it tries a few times. Where sshd accepts the connection and closes it during the greeting
        (MaxStartups), the host is alive, and it tries for as long as there is time.
        """
        deadline = time.monotonic() + self.target.limits.connect
        pause, refusals_left = _FIRST_PAUSE, self.target.limits.retries
        while True:
            try:
                self._connect_once()
                return
            except Unreachable as error:
                self._give_up_attempt()
                # The random factor spreads hosts that were refused at the same moment.
                pause = min(pause * random.uniform(1.0, 2.0), _LONGEST_PAUSE * random.uniform(0.5, 1.0))  # noqa: S311
                if isinstance(error.__cause__, _REFUSALS):
                    refusals_left -= 1
                if refusals_left < 0 or not may_pass(error) or time.monotonic() + pause >= deadline:
                    raise
            self.pause(pause)

    def _give_up_attempt(self) -> None:
        """Ends paramiko's thread, which would go on listening to that host, and closes what it listened to."""
        transport = self.client.get_transport()
        self.client.close()
        if self._way and transport:
            transport.join(_LAST_MOMENT)
            if not transport.is_alive():
                self._way.discard()

    def _connect_once(self) -> None:
        began, limit = time.monotonic(), self.target.limits.connect
        self.connect_kwargs["auth_strategy"] = self._login()
        try:
            if not self.gateway:
                self.connect_kwargs["sock"] = dial(self.host, self.port, limit)
            super().open()
        except (paramiko.SSHException, OSError, EOFError, UnicodeError) as error:
            demand_running(self.name, self._way)
            late = time.monotonic() - began >= limit
            raise connect_error(error, self.where, limit, self.client.get_transport(), late=late) from error

    def _login(self) -> Login:
        """A new login, as the command line, the inventory and ssh_config say."""
        given, limit = self.connect_kwargs, self.target.limits.connect
        password = given.get("password")
        keys = Keys(
            given.get("key_filename", ()),
            USUAL_FILES if given.get("look_for_keys", True) else (),
            self.configured.agent_socket if given.get("allow_agent", True) else None,
            certificates=named_files("certificatefile", self.configured, self.user),
            agent_as_named=self.configured.get("identitiesonly") == "yes",
            passphrase=given.get("passphrase") or password,
            limit=limit,
        )
        return Login(self.where, self.user, keys, password, limit)

    @property
    def fault(self) -> str:
        """What this host or its gateway, named first, did wrong before the connection was closed; else empty."""
        if self._way and self._way.ended:
            return f"the ProxyCommand of {self.name} ended ({self._way.ended[0]})"
        if fault := getattr(self.transport, "fault", ""):
            return f"{self.name} {fault}"
        return self.gateway.fault if isinstance(self.gateway, Connection) else ""

    def pause(self, seconds: float) -> None:
        """Waits so many seconds; raises Interrupted if the run was interrupted meanwhile."""
        self.abandoned.wait(seconds)
        self._refuse_if_abandoned()

    def abandon(self) -> None:
        """Closes the connection and its gateways at once, and lets nothing more start."""
        self.abandoned.set()
        if isinstance(self.gateway, Connection):
            self.gateway.abandon()
        if self.transport:
            self.transport.close()

    def _refuse_if_abandoned(self) -> None:
        if self.abandoned.is_set():
            self.close()
            raise Interrupted("the run was interrupted before this host was touched", hint="run the command again")


def _login(target: Target) -> tuple[str, str | None, int | None]:
    return target.address, target.user, target.port
