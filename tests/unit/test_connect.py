"""A connection is tried again where that may help; a ProxyCommand's end is noticed at once, with its last words."""

from __future__ import annotations

import errno
import getpass
import pwd
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fabric
import paramiko
import pytest
from paramiko.ssh_exception import NoValidConnectionsError
from sshd import PATIENCE, Sshd, serving

from ctr_ferry.errors import LoginRefused, Unreachable
from ctr_ferry.ssh.connect import Proxy, dial, expand, may_pass
from ctr_ferry.ssh.connection import Connection
from ctr_ferry.ssh.target import Limits, Target, Trust


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("%h:%p", "10.0.0.1:2222"),
        ("%r@%h", "ops@10.0.0.1"),
        ("100%%h", "100%h"),
        ("%%%p", "%2222"),
        ("%n%", "%n%"),
        ("plain", "plain"),
    ],
)
def test_the_tokens_of_a_proxy_command_are_filled_in(word: str, expanded: str) -> None:
    assert expand(word, "10.0.0.1", 2222, "ops") == expanded


def test_a_proxy_commands_output_is_read_as_it_comes_and_its_end_is_noticed() -> None:
    proxy = Proxy("/bin/sh -c 'echo hello; read -r line; echo $line'")
    with ExitStack() as stack:
        for stream in (proxy.process.stdin, proxy.process.stdout, proxy.process.stderr):
            stack.enter_context(stream)  # type: ignore[arg-type]
        assert proxy.recv(100) == b"hello\n"
        proxy.settimeout(0.01)
        with pytest.raises(TimeoutError):
            proxy.recv(100)
        proxy.settimeout(None)
        proxy.send(b"on\n")
        assert proxy.recv(100) == b"on\n"
        assert proxy.recv(100) == b""
        proxy.process.wait()


def test_a_proxy_command_that_takes_no_more_stops_no_write_for_ever() -> None:
    proxy = Proxy("sleep 60")
    with ExitStack() as stack:
        for stream in (proxy.process.stdin, proxy.process.stdout, proxy.process.stderr):
            stack.enter_context(stream)  # type: ignore[arg-type]
        proxy.settimeout(0.01)
        with pytest.raises(TimeoutError):
            while True:
                proxy.send(bytes(1 << 16))
        proxy.close()
        proxy.process.wait()


def test_a_proxy_command_is_read_by_a_shell_and_its_errors_never_stop_it() -> None:
    noisy = 'i=0; while [ $i -lt 3000 ]; do echo "debug1: a line of a verbose client" >&2; i=$((i+1)); done; exec cat'
    proxy = Proxy(f"sh -c '{noisy}'")
    with ExitStack() as stack:
        for stream in (proxy.process.stdin, proxy.process.stdout, proxy.process.stderr):
            stack.enter_context(stream)  # type: ignore[arg-type]
        proxy.settimeout(PATIENCE)
        proxy.send(b"on\n")
        assert proxy.recv(100) == b"on\n" and proxy.ended is None
        proxy.process.stdin.close()  # type: ignore[union-attr]
        assert proxy.recv(100) == b""
        how, said = proxy.ended or ("", "")
        assert how == "exit 0" and said.endswith("debug1: a line of a verbose client")


@pytest.mark.parametrize("value", ["a b", "$(touch pwned)", "a;b", "`x`", "'", "-oX"])
def test_a_value_that_means_something_to_a_shell_gets_into_no_proxy_command(value: str) -> None:
    with pytest.raises(ValueError, match="mean something to a shell"):
        expand("nc %h %p", value, 22, "ops", for_shell=True)
    assert expand("nc there %p", value, 22, value, for_shell=True) == "nc there 22"


@pytest.fixture
def connection(tmp_path: Path) -> Callable[..., Connection]:
    """A connection to a port of loopback, through a ProxyCommand if wanted; its host keys are accepted."""

    def new(port: int, gateway: str | None = None, *, host: str = "127.0.0.1", limit: int = PATIENCE) -> Connection:
        trust = Trust((tmp_path / "known",), accept_new=True)
        paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / "key"))
        key, limits = tmp_path / "key", Limits(connect=limit, retries=2)
        target = Target("there", host, port, "ops", key, gateway=gateway, trust=trust, limits=limits)
        return Connection(target, fabric.Config(overrides={"load_ssh_configs": False}), threading.Event())

    return new


@pytest.mark.parametrize(
    ("said", "starts"),
    [("You must log in first", 1), ("kex_exchange_identification: Connection closed by remote host", 3)],
)
def test_a_proxy_command_that_ends_is_started_again_only_where_that_may_help(
    connection: Callable[..., Connection], tmp_path: Path, said: str, starts: int
) -> None:
    command = f"sh -c 'echo x >>{tmp_path}/starts; echo {said} >&2; exit 3'"
    with pytest.raises(Unreachable, match=r"the ProxyCommand of there ended \(exit 3\)") as ended:
        connection(22, command).open()
    assert (ended.value.kind, ended.value.detail) == ("host-unreachable", said)
    assert said in ended.value.hint
    assert (tmp_path / "starts").read_text() == "x\n" * starts


@pytest.mark.parametrize(
    ("cause", "passes"),
    [
        (NoValidConnectionsError({("10.0.0.1", 22): ConnectionRefusedError()}), True),
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (EOFError(), True),
        (paramiko.ChannelException(2, "Connect failed"), True),
        (paramiko.SSHException("Error reading SSH protocol banner"), True),
        (paramiko.SSHException("Error reading SSH protocol banner[Errno 104] Connection reset by peer"), True),
        (paramiko.SSHException("Error reading SSH protocol banner, which has no end"), False),
        (paramiko.SSHException("No existing session"), False),
        (paramiko.SSHException("something of a later paramiko"), False),
        (paramiko.ssh_exception.IncompatiblePeer("ciphers"), False),
        (paramiko.AuthenticationException("Authentication failed."), False),
        (FileNotFoundError(2, "No such file", "/nosuch"), False),
        (OSError(errno.EMFILE, "Too many open files"), False),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), False),
        (socket.gaierror(-2, "Name or service not known"), False),
        (None, False),
    ],
)
def test_what_is_not_known_to_pass_is_final(cause: Exception | None, passes: bool) -> None:
    error = Unreachable("no connection")
    error.__cause__ = cause
    assert may_pass(error) is passes


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """An address where a connection is neither accepted nor refused: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name have these addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_a_host_is_reached_at_its_second_address_where_the_first_is_silent_or_closed(
    connection: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent() as first, serving(Sshd()) as server, socket.create_server(("127.0.0.1", 0)) as closed:
        third = closed.getsockname()
        closed.close()
        resolve(monkeypatch, first, third, ("127.0.0.1", server.port))
        there = connection(22, host="two.example", limit=3)
        there.open()
        there.close()
    assert server.connections == 1


def test_a_host_whose_addresses_are_all_silent_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as one, silent() as two:
        resolve(monkeypatch, one, two)
        with pytest.raises(TimeoutError):
            dial("two.example", 22, 0.2)


def test_a_name_that_is_no_name_does_not_resolve() -> None:
    with pytest.raises(socket.gaierror):
        dial("a" * 70 + ".example", 22, 1)


def test_an_address_is_taken_apart_once(connection: Callable[..., Connection]) -> None:
    there = connection(2222, host="ops@odd:22")
    assert (there.host, there.user, there.port) == ("ops@odd:22", "ops", 2222)


def test_what_an_alias_leads_to_is_no_other_alias(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host a\n  HostName b.example\nHost b.example\n  HostName c.example\n  User odd\n")
    config = fabric.Config(runtime_ssh_path=str(tmp_path / "config"))
    there = Connection(Target("a", "a", user="ops"), config, threading.Event())
    assert (there.host, there.user) == ("b.example", "ops")


def test_a_user_without_a_name_is_told_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    config = fabric.Config(overrides={"load_ssh_configs": False, "user": None})
    monkeypatch.setattr(getpass, "getuser", lambda: pwd.getpwuid(2**31 - 2).pw_name)
    with pytest.raises(Unreachable, match="no login user for there") as nobody:
        Connection(Target("there", "127.0.0.1"), config, threading.Event())
    assert "-H USER@there" in nobody.value.hint
    assert Connection(Target("there", "127.0.0.1", user="ops"), config, threading.Event()).user == "ops"


def test_no_home_is_needed(tmp_path: Path) -> None:
    text = (
        "import pwd\n"
        "def getpwuid(number): raise KeyError(number)\n"
        "pwd.getpwuid = getpwuid\n"
        "import ctr_ferry.run.executor\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", text], env=environment, cwd=tmp_path, check=True)


@pytest.mark.parametrize("cause", [EOFError(), ConnectionResetError(), BrokenPipeError()])
def test_a_connection_that_ended_during_a_login_is_not_tried_again(cause: Exception) -> None:
    refused, cut = LoginRefused("too many keys", hint="x"), Unreachable("no connection", hint="x")
    refused.__cause__ = cut.__cause__ = cause
    assert (may_pass(refused), may_pass(cut)) == (False, True)
