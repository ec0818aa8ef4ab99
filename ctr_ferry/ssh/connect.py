"""Parts of connecting: the arguments for paramiko, ProxyCommands, and the errors in our words."""

from __future__ import annotations

import copy
import getpass
import os
import re
import select
import socket
from typing import Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer, NoValidConnectionsError, ProxyCommandFailure

from ctr_ferry.errors import (
    ConnectTimeout,
    HostUnresolved,
    LoginRefused,
    NoCommonAlgorithm,
    Unreachable,
)
from ctr_ferry.shell import join
from ctr_ferry.ssh import open_files
from ctr_ferry.ssh.local_path import local_path
from ctr_ferry.ssh.login import UnansweredError
from ctr_ferry.ssh.openssh import HostConfig
from ctr_ferry.ssh.target import Target
from ctr_ferry.text import tail


def connect_kwargs(target: Target, config: Any, configured: HostConfig, *, as_gateway: bool) -> dict[str, Any]:
    """The keyword arguments of paramiko's connect for this host: a copy, since Fabric changes them.

    Args:
        configured: what ssh_config says about the host.
        as_gateway: whether the host is only a gateway. Then the password that Fabric asked for is not given to it.
    """
    kwargs: dict[str, Any] = copy.deepcopy(dict(config.connect_kwargs))
    kwargs.pop("timeout", None)
    given = kwargs.get("key_filename", [])
    files = [given] if isinstance(given, str) else list(given)
    files += [str(target.key_file)] if target.key_file else []
    if named := configured.files("identityfile"):
        kwargs["look_for_keys"] = False
        login = target.user or configured.get("user") or config.user
        named = [os.path.expandvars(expand(word, configured.hostname, 0, login)) for word in named]
        files += [str(file) for file in map(local_path, named) if file.exists()]
    kwargs["key_filename"] = list(dict.fromkeys(files))
    if as_gateway:
        kwargs.pop("password", None)
    if target.password:
        kwargs["password"] = target.password.reveal()
    limit = target.limits.connect
    return kwargs | {"banner_timeout": limit, "auth_timeout": limit, "channel_timeout": limit}


def expand(word: str, host: str, port: int, user: str) -> str:
    """Fills in the tokens of one word of ssh_config (ssh_config(5), TOKENS): the more common ones."""
    values = {"h": host, "p": str(port), "r": user, "%": "%", "d": str(local_path("~"))}
    values |= {"u": getpass.getuser()} if "%u" in word else {}
    return re.sub(r"%([hprdu%])", lambda token: values[token[1]], word)


class Proxy(paramiko.ProxyCommand):
    """A running ProxyCommand.

    It notices the command's end at once, where paramiko's own class reads until time is up. It also works in a process
    with more than 1024 open files. A command that takes no more does not stop a write for ever.
    """

    def __init__(self, command_line: str) -> None:
        super().__init__(command_line)
        os.set_blocking(self.process.stdin.fileno(), False)  # type: ignore[union-attr]  # paramiko opens it

    def send(self, content: bytes) -> int:  # type: ignore[override]  # paramiko's own stub has no result
        """paramiko's hook: gives the command some bytes, returns how many; TimeoutError if it takes none."""
        self._wait(there := self.process.stdin.fileno(), select.POLLOUT)  # type: ignore[union-attr]
        try:
            return os.write(there, content)
        except BrokenPipeError as error:
            raise ProxyCommandFailure(join(self.cmd), "it has ended") from error

    def recv(self, size: int) -> bytes:
        """paramiko's hook: some bytes of the command's output, none at its end; TimeoutError if nothing comes."""
        self._wait(output := self.process.stdout.fileno(), select.POLLIN)  # type: ignore[union-attr]
        return os.read(output, size)

    def _wait(self, file: int, event: int) -> None:
        poll = select.poll()  # select() accepts no file number above 1023
        poll.register(file, event)
        if not poll.poll(None if self.timeout is None else self.timeout * 1000):
            raise TimeoutError


def connect_error(
    error: Exception, where: str, limit: int, transport: paramiko.Transport | None, *, late: bool
) -> Unreachable:
    """The error for what paramiko or the network raised while it connected.

    Args:
        where: the login as ``user@host:port``.
        limit: seconds for connecting.
        transport: of the connection, if it came that far.
        late: whether the time is up. paramiko's wording for a silent host differs from case to case.
    """
    kind: type[Unreachable] = LoginRefused
    what = f"no SSH session with {where}"
    match error:
        case UnansweredError():
            what, detail = f"{where} asks for something that cannot be answered here", tail(str(error))
            hint = (
                "give a password with --prompt-for-login-password; for a code, let this user log in with a key "
                "alone (AuthenticationMethods publickey in its sshd_config)"
            )
        case IncompatiblePeer(args=(algorithms, theirs, ours)):
            kind, what = NoCommonAlgorithm, f"{where} and this machine have no {algorithms} in common that are safe"
            detail, hint = tail(f"it offers {theirs}"), f"let its sshd_config allow one of {ours}"
        case paramiko.AuthenticationException():
            what, detail = f"{where} refuses the login", tail(str(error))
            hint = "check user and key: ssh -v to that host"
        case OSError() if open_files.is_limit(error):
            kind, what, detail = (
                Unreachable,
                f"too many files are open here for a connection to {where}",
                _reason(error),
            )
            hint = open_files.advice()
        case TimeoutError():
            kind, what, detail = ConnectTimeout, f"{where} did not answer within {limit} s", ""
            hint = "check that the host is up and the address is right"
        case OSError() if error.filename:
            what, detail = f"the key {error.filename} for {where} cannot be read", _reason(error)
            hint = "give another ansible_ssh_private_key_file, or none to use the agent and ~/.ssh"
        case socket.gaierror():
            kind, what, detail = HostUnresolved, f"the name of {where} does not resolve", _reason(error)
            hint = "check ansible_host, or the name given"
        case OSError() | EOFError():
            kind, what, detail = Unreachable, f"no connection to {where}", _reason(error)
            hint = "check that the host is up and sshd listens there"
        case _:  # other errors of paramiko, and UnicodeError where it reads a host's text as UTF-8
            detail, hint = tail(str(error)), "try ssh -v to that host"
            # After a key file was refused, paramiko reads it as a key of another type, and complains about that.
            if not (transport and transport.is_active() and transport.initial_kex_done):
                kind = ConnectTimeout if late or "banner" in str(error) else Unreachable
    return kind(what, detail=detail, hint=hint)


def _reason(error: BaseException) -> str:
    if isinstance(error, NoValidConnectionsError):
        return "; ".join(dict.fromkeys(_reason(e) for e in error.errors.values()))
    return tail(getattr(error, "strerror", None) or str(error) or type(error).__name__)
