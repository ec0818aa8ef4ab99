"""Parts of connecting: the arguments for paramiko, ProxyCommands, and the errors in our words."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import paramiko
from paramiko.ssh_exception import NoValidConnectionsError

from ctr_ferry.errors import (
    ConnectTimeout,
    HostUnresolved,
    LoginRefused,
    NoCommonAlgorithm,
    Unreachable,
)
from ctr_ferry.ssh.login import UnansweredError
from ctr_ferry.ssh.target import Target
from ctr_ferry.ssh.transport import NothingInCommonError
from ctr_ferry.text import tail


def connect_kwargs(target: Target, config: Any, *, as_gateway: bool) -> dict[str, Any]:
    """The keyword arguments of paramiko's connect for this host: a copy, since Fabric changes them.

    Args:
        target: how to log in.
        config: Fabric's configuration.
        as_gateway: whether the host is only a gateway. Then the password that Fabric asked for is not given to it.
    """
    kwargs: dict[str, Any] = copy.deepcopy(dict(config.connect_kwargs))
    kwargs.pop("timeout", None)
    if target.key_file:
        kwargs["key_filename"] = [str(target.key_file)]
    if as_gateway:
        kwargs.pop("password", None)
    if target.password:
        kwargs["password"] = target.password.reveal()
    limit = target.limits.connect
    return kwargs | {"banner_timeout": limit, "auth_timeout": limit, "channel_timeout": limit}


def expand(word: str, host: str, port: int, user: str) -> str:
    """Fills in the tokens of one word of a ProxyCommand: ``%h``, ``%p``, ``%r`` and ``%%`` (ssh_config(5), TOKENS)."""
    values = {"h": host, "p": str(port), "r": user, "%": "%"}
    return re.sub(r"%([hpr%])", lambda token: values[token[1]], word)


class Proxy(paramiko.ProxyCommand):
    """A running ProxyCommand.

    It notices the command's end at once, where paramiko's own class reads until time is up. It also works in a process
    with more than 1024 open files.
    """

    def recv(self, size: int) -> bytes:
        """paramiko's hook: returns some bytes of the command's output, and none at its end.

        Raises:
            TimeoutError: the command prints nothing for too long.
        """
        output = self.process.stdout.fileno()  # type: ignore[union-attr]  # paramiko opens it
        poll = select.poll()  # select() accepts no file number above 1023
        poll.register(output, select.POLLIN)
        if not poll.poll(None if self.timeout is None else self.timeout * 1000):
            raise TimeoutError
        return os.read(output, size)


@contextlib.contextmanager
def typed_errors(where: str, target: Target, client: paramiko.SSHClient) -> Iterator[None]:
    """A block that connects, in which errors of paramiko and of the network are raised as ours.

    Args:
        where: the login as ``user@host:port``.
        target: the time limit.
        client: the client that connects.

    Raises:
        Unreachable: or one of its kinds.
    """
    began = time.monotonic()
    try:
        yield
    except (paramiko.SSHException, OSError, EOFError, UnicodeError) as error:
        late = time.monotonic() - began >= target.limits.connect
        raise (
            _login_error(error, where)
            or _network_error(error, where, target)
            or _session_error(error, where, client, late=late)
        ) from error


def _login_error(error: Exception, where: str) -> Unreachable | None:
    if isinstance(error, UnansweredError):
        return LoginRefused(
            f"{where} asks for something that cannot be answered here",
            detail=tail(error.asked),
            hint="give a password with --prompt-for-login-password; for a code, let this user log in with a key "
            "alone (AuthenticationMethods publickey in its sshd_config)",
        )
    if isinstance(error, NothingInCommonError):
        return NoCommonAlgorithm(
            f"{where} and this machine have no {error.what} in common that are safe",
            detail=tail(f"it offers {error.theirs}"),
            hint=f"let its sshd_config allow one of {error.ours}",
        )
    if isinstance(error, paramiko.AuthenticationException):
        return LoginRefused(
            f"{where} refuses the login", detail=tail(str(error)), hint="check user and key: ssh -v to that host"
        )
    return None


def _network_error(error: Exception, where: str, target: Target) -> Unreachable | None:
    if isinstance(error, TimeoutError):
        return ConnectTimeout(
            f"{where} did not answer within {target.limits.connect} s",
            hint="check that the host is up and the address is right",
        )
    if not isinstance(error, (OSError, EOFError)):
        return None
    if file := getattr(error, "filename", None):
        return LoginRefused(
            f"the key {file} for {where} cannot be read",
            detail=_reason(error),
            hint="give another ansible_ssh_private_key_file, or none to use the agent and ~/.ssh",
        )
    if isinstance(error, socket.gaierror):
        return HostUnresolved(
            f"the name of {where} does not resolve",
            detail=_reason(error),
            hint="check ansible_host, or the name given",
        )
    return Unreachable(
        f"no connection to {where}", detail=_reason(error), hint="check that the host is up and sshd listens there"
    )


def _session_error(error: Exception, where: str, client: paramiko.SSHClient, *, late: bool) -> Unreachable:
    """The error for what is left: SSHException, and UnicodeError where paramiko reads a host's text as UTF-8.

    Args:
        late: whether the time for connecting is up. paramiko's wording for a silent host differs from case to case.
    """
    transport = client.get_transport()
    kind = ConnectTimeout if late or "banner" in str(error) else Unreachable
    # After a key file was refused, paramiko reads it as a key of another type, and complains about that.
    if transport and transport.is_active() and transport.initial_kex_done:
        kind = LoginRefused
    return kind(f"no SSH session with {where}", detail=tail(str(error)), hint="try ssh -v to that host")


def _reason(error: BaseException) -> str:
    if isinstance(error, NoValidConnectionsError):
        return "; ".join(dict.fromkeys(_reason(e) for e in error.errors.values()))
    return tail(getattr(error, "strerror", None) or str(error) or type(error).__name__)
