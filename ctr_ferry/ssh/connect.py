"""Parts of connecting: the arguments for paramiko, ProxyCommands, and the errors in our words."""

from __future__ import annotations

import contextlib
import copy
import getpass
import os
import re
import select
import socket
import subprocess
import time
from pathlib import Path
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
from ctr_ferry.ssh.login import UnansweredError, ssh_there, too_slow
from ctr_ferry.ssh.openssh import HostConfig
from ctr_ferry.ssh.target import Target
from ctr_ferry.text import tail

_LAST_WORDS = 4 << 10  # bytes of a ProxyCommand's stderr that are kept
# What paramiko says where the host closed the connection in its greeting (MaxStartups).
_CUT_OFF = re.compile(r"Error reading SSH protocol banner($|\[Errno)")
_PLAIN = re.compile(r"(?!-)[\w.:%@+/-]+", re.ASCII)
_PIPE = 64 << 10  # bytes that a pipe of Linux holds
_MOMENT = 0.5  # seconds from the end of a ProxyCommand's output to the command's own end
# What OpenSSH says as a ProxyCommand where the gateway is busy, or nothing listens behind it.
_BUSY = re.compile(r"kex_exchange_identification|banner exchange|Connection (refused|reset|closed)", re.IGNORECASE)


def connect_kwargs(target: Target, config: Any, configured: HostConfig, *, as_gateway: bool) -> dict[str, Any]:
    """The keyword arguments of paramiko's connect for this host, and of its `Login`: a copy, since Fabric changes them.

    Args:
        configured: what ssh_config says about the host.
        as_gateway: whether the host is only a gateway. Then the password that Fabric asked for is not given to it.
    """
    kwargs: dict[str, Any] = copy.deepcopy(dict(config.connect_kwargs))
    kwargs.pop("timeout", None)
    given = kwargs.get("key_filename", [])
    files = [given] if isinstance(given, str) else list(given)
    files += [str(target.key_file)] if target.key_file else []
    login = target.user or configured.get("user") or config.user
    files += map(str, named_files("identityfile", configured, login))
    if configured.get("identityfile"):  # which may be none
        kwargs["look_for_keys"] = False
    kwargs["key_filename"] = list(dict.fromkeys(files))
    if as_gateway:
        kwargs.pop("password", None)
    if target.password:
        kwargs["password"] = target.password.reveal()
    limit = target.limits.connect
    return kwargs | {"banner_timeout": limit, "auth_timeout": limit, "channel_timeout": limit}


def named_files(option: str, configured: HostConfig, user: str) -> list[Path]:
    """The files that an option of ssh_config names for a login user."""
    values = [value for value in configured.values.get(option, ()) if value.lower() != "none"]
    words = (expand(value, configured.hostname, 0, user) for value in values)
    return [local_path(os.path.expandvars(word)) for word in words]


def dial(host: str, port: int, limit: float) -> socket.socket:
    """Connects to the first address of a host that answers. Each address gets its share of the time.

    Raises:
        OSError: none answers; TimeoutError where one was silent, else NoValidConnectionsError.
    """
    try:
        found = list(dict.fromkeys(each[::4] for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    except UnicodeError as error:  # such as a part of a name with more than 63 letters
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from error
    errors: dict[Any, OSError] = {}
    deadline = time.monotonic() + limit
    for left, (family, address) in zip(range(len(found), 0, -1), found, strict=True):
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.settimeout(max((deadline - time.monotonic()) / left, 0.01))
        try:
            opened.connect(address)
        except OSError as error:
            opened.close()
            errors[address] = error
        else:
            return opened
    raise next((e for e in errors.values() if isinstance(e, TimeoutError)), None) or NoValidConnectionsError(errors)


def expand(word: str, host: str, port: int, user: str, *, for_shell: bool = False) -> str:
    """Fills in the tokens of words of ssh_config (ssh_config(5), TOKENS): the more common ones.

    Raises:
        ValueError: ``for_shell``, and a value would be more than a word there; OpenSSH refuses it, too.
    """
    values = {"h": host, "p": str(port), "r": user, "%": "%", "d": str(local_path("~"))}
    values |= {"u": getpass.getuser()} if "%u" in word else {}

    def value(token: re.Match[str]) -> str:
        if for_shell and not _PLAIN.fullmatch(text := values[token[1]]):
            raise ValueError(f"{text!r} begins with '-', or has characters that mean something to a shell")
        return values[token[1]]

    return re.sub("%([hprdu%])", value, word)


class Proxy(paramiko.ProxyCommand):
    """A running ProxyCommand. As with OpenSSH, a shell reads its words.

    It notices the command's end at once, where paramiko's own class reads until time is up. It also works in a process
    with more than 1024 open files. A command that takes no more does not stop a write for ever. Its stderr is read, so
    that it never waits until somebody does.

    Attributes:
        ended: how the command ended by itself, and the last that it said on stderr; None while it runs.
    """

    ended: tuple[str, str] | None = None

    def __init__(self, command_line: str) -> None:
        super().__init__(join(("/bin/sh", "-c", f"exec {command_line}")))
        self._stderr, self._wanted = b"", True
        for stream in (self.process.stdin, self.process.stderr):
            os.set_blocking(stream.fileno(), False)  # type: ignore[union-attr]  # paramiko opens them

    def send(self, content: bytes) -> int:  # type: ignore[override]  # paramiko's own stub has no result
        """paramiko's hook: gives the command some bytes, returns how many; TimeoutError if it takes none."""
        self._wait(there := self.process.stdin.fileno(), select.POLLOUT)  # type: ignore[union-attr]
        try:
            return os.write(there, content)
        except BrokenPipeError as error:
            self._end()
            raise ProxyCommandFailure(join(self.cmd), "it has ended") from error

    def recv(self, size: int) -> bytes:
        """paramiko's hook: some bytes of the command's output, none at its end; TimeoutError if nothing comes."""
        self._wait(output := self.process.stdout.fileno(), select.POLLIN)  # type: ignore[union-attr]
        if not (data := os.read(output, size)):
            self._end()
        return data

    def close(self) -> None:
        """paramiko's hook: ends the command."""
        self._wanted = False
        self.process.terminate()

    def discard(self) -> None:
        """Closes the pipes of a command that nobody reads from any more."""
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()  # type: ignore[union-attr]

    def _end(self) -> None:
        how = "it closed its output"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(_MOMENT)
            how = f"exit {code}" if code >= 0 else f"signal {-code}"
        self._hear()
        if self._wanted:
            self.ended = how, tail(self._stderr.decode(errors="replace"))

    def _wait(self, file: int, event: int) -> None:
        poll = select.poll()  # select() accepts no file number above 1023
        poll.register(file, event)
        poll.register(stderr := self.process.stderr.fileno(), select.POLLIN)  # type: ignore[union-attr]
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0) * 1000
            ready = dict(poll.poll(left))
            if stderr in ready and not self._hear():
                poll.unregister(stderr)
            if file in ready:
                return
            if not ready:
                raise TimeoutError

    def _hear(self) -> bool:
        """Reads what has come on stderr, and keeps the last of it; returns whether more may come."""
        try:
            data = os.read(self.process.stderr.fileno(), _PIPE)  # type: ignore[union-attr]
        except BlockingIOError:
            return True
        self._stderr = (self._stderr + data)[-_LAST_WORDS:]
        return bool(data)


def demand_running(name: str, proxy: object) -> None:
    """Raises Unreachable for a ProxyCommand that has ended by itself."""
    if isinstance(proxy, Proxy) and proxy.ended:
        how, said = proxy.ended
        failure = ProxyCommandFailure(join(proxy.cmd), how)
        what = f"the ProxyCommand of {name} ended ({how})"
        raise Unreachable(what, detail=said, hint=f"mend this command: {failure.command}") from failure


def may_pass(error: Unreachable) -> bool:
    """Whether another attempt to connect may succeed. What is not known to pass is final."""
    match error.__cause__:
        case cause if isinstance(error, LoginRefused) or isinstance(cause, socket.gaierror):
            return False  # also where the host closed the connection over a login
        case OSError() as cause:  # refused, no route, reset
            return not cause.filename and not open_files.is_limit(cause)
        case EOFError() | paramiko.ChannelException():  # behind a gateway, nothing listens
            return True
        case ProxyCommandFailure():
            return bool(_BUSY.search(error.detail))
        case paramiko.SSHException() as cause:
            return bool(_CUT_OFF.match(str(cause)))
    return False


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
            hint = f"check user and key: {ssh_there(where)}"
        case OSError() if open_files.is_limit(error):
            kind, what, detail = (
                Unreachable,
                f"too many files are open here for a connection to {where}",
                _reason(error),
            )
            hint = open_files.advice()
        case TimeoutError():
            kind, what, detail = ConnectTimeout, f"{where} did not answer within {limit} s", ""
            hint = f"check that the host is up and its address; if the network is slow, raise the limit: -t {3 * limit}"
        case socket.gaierror():
            kind, what, detail = HostUnresolved, f"the name of {where} does not resolve", _reason(error)
            hint = "check ansible_host, or the name given"
        case OSError() | EOFError():
            kind, what, detail = Unreachable, f"no connection to {where}", _reason(error)
            hint = "check that the host is up and sshd listens there"
        case _ if late:
            return too_slow(f"the greeting of {where}", limit)
        case _:  # other errors of paramiko, and UnicodeError where it reads a host's text as UTF-8
            kind, detail = Unreachable, tail(getattr(transport, "farewell", "") or str(error))
            hint = f"see how ssh itself fares: {ssh_there(where)}"
    return kind(what, detail=detail, hint=hint)


def _reason(error: BaseException) -> str:
    if isinstance(error, NoValidConnectionsError):
        return "; ".join(dict.fromkeys(_reason(e) for e in error.errors.values()))
    return tail(getattr(error, "strerror", None) or str(error) or type(error).__name__)
