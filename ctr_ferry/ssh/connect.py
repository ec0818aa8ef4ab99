"""Connecting: what Fabric is told, what can go wrong, and in which words."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import select
import socket
import time
from collections.abc import Iterator
from shlex import quote
from typing import Any

import paramiko
from paramiko.ssh_exception import NoValidConnectionsError

from ctr_ferry.errors import (
    ConnectTimeout,
    HostKeyChanged,
    HostKeyUnknown,
    HostUnresolved,
    LoginRefused,
    NoCommonAlgorithm,
    Unreachable,
)
from ctr_ferry.ssh.keys import RevokedKeyError, UnknownKeyError, fingerprint
from ctr_ferry.ssh.login import UnansweredError
from ctr_ferry.ssh.target import Target
from ctr_ferry.ssh.transport import NothingInCommonError
from ctr_ferry.text import tail


def connect_kwargs(target: Target, config: Any, *, as_gateway: bool) -> dict[str, Any]:
    """What paramiko's connect gets for this host; a copy, since Fabric writes into it.

    Args:
        as_gateway: whether the host is only gone through: the password that was asked for is none of its own.
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
    """A word of a ProxyCommand with its tokens filled in (ssh_config(5), TOKENS: those for the host)."""
    values = {"h": host, "p": str(port), "r": user, "%": "%"}
    return re.sub(r"%([hpr%])", lambda token: values[token[1]], word)


class Proxy(paramiko.ProxyCommand):
    """A ProxyCommand whose end is seen (paramiko's own reads on until time is up), and that may be one of many."""

    def recv(self, size: int) -> bytes:
        """paramiko's hook: some bytes of what the command says, none at its end."""
        detail = self.process.stdout.fileno()  # type: ignore[union-attr]  # paramiko opens it
        poll = select.poll()  # select() takes no file number above 1023
        poll.register(detail, select.POLLIN)
        if not poll.poll(None if self.timeout is None else self.timeout * 1000):
            raise TimeoutError
        return os.read(detail, size)


@contextlib.contextmanager
def typed_errors(where: str, target: Target, client: paramiko.SSHClient) -> Iterator[None]:
    """Turns what paramiko and the network raise while connecting into our errors.

    Args:
        where: ``user@host:port``.
        client: what connects.

    Raises:
        Unreachable: or one of its kinds.
    """
    files = " ".join(map(str, target.trust.known_hosts))
    began = time.monotonic()
    try:
        yield
    except paramiko.BadHostKeyException as error:
        take_out = f"ssh-keygen -f {quote(str(target.trust.known_hosts[0]))} -R {quote(error.hostname)}"
        raise HostKeyChanged(
            f"the host key of {where} is not the one in {files}",
            detail=f"it sent {fingerprint(error.key)}",
            hint=f"find out why; if the host was rebuilt, take its old lines out: {take_out}",
        ) from error
    except RevokedKeyError as error:
        raise HostKeyChanged(
            f"the host key of {where} is revoked in {files}",
            detail=f"it sent {error.fingerprint}",
            hint="give the host a new key: whoever has the revoked one may pass for it",
        ) from error
    except UnknownKeyError as error:
        authority = "; a @cert-authority line is not enough, since host certificates are not read"
        raise HostKeyUnknown(
            f"{files} has no key for {where}",
            detail=f"it sent {error.fingerprint}",
            hint="check that fingerprint and add the key there, or set fleet.host_keys: accept-new"
            + authority * error.by_authority,
        ) from error
    except UnansweredError as error:
        raise LoginRefused(
            f"{where} asks for what cannot be answered here",
            detail=tail(error.asked),
            hint="a password is answered with --prompt-for-login-password; where it is a code, let this user in with "
            "a key alone (AuthenticationMethods publickey in its sshd_config)",
        ) from error
    except NothingInCommonError as error:
        raise NoCommonAlgorithm(
            f"{where} has no {error.what} in common with us that are safe",
            detail=tail(f"it offers {error.theirs}"),
            hint=f"let its sshd_config allow one of {error.ours}",
        ) from error
    except paramiko.AuthenticationException as error:
        raise LoginRefused(
            f"{where} refuses the login", detail=tail(str(error)), hint="check user and key: ssh -v to that host"
        ) from error
    except TimeoutError as error:
        raise ConnectTimeout(
            f"{where} did not answer within {target.limits.connect} s",
            hint="check that the host is up and the address is right",
        ) from error
    except (OSError, NoValidConnectionsError, EOFError) as error:
        if file := getattr(error, "filename", None):
            raise LoginRefused(
                f"the key {file} for {where} cannot be read",
                detail=_reason(error),
                hint="give another ansible_ssh_private_key_file, or none to use the agent and ~/.ssh",
            ) from error
        if isinstance(error, socket.gaierror):
            raise HostUnresolved(
                f"the name of {where} does not resolve",
                detail=_reason(error),
                hint="check ansible_host, or the name given",
            ) from error
        raise Unreachable(
            f"no connection to {where}", detail=_reason(error), hint="check that the host is up and sshd listens there"
        ) from error
    except (paramiko.SSHException, UnicodeError) as error:  # paramiko takes what a host says for UTF-8
        # Which of its words paramiko has for a silent host depends on which of its threads is first.
        late = time.monotonic() - began >= target.limits.connect
        kind = ConnectTimeout if late or "banner" in str(error) else Unreachable
        transport = client.get_transport()
        # A key file that was refused is then read as one of another type, and that is what paramiko complains about.
        no_login = bool(transport and transport.is_active() and transport.initial_kex_done)
        raise (LoginRefused if no_login else kind)(
            f"no SSH session with {where}", detail=tail(str(error)), hint="try ssh -v to that host"
        ) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, NoValidConnectionsError):
        return "; ".join(dict.fromkeys(_reason(e) for e in error.errors.values()))
    return tail(getattr(error, "strerror", None) or str(error) or type(error).__name__)
