"""A login answers one question for the password and no other, gives it to the host alone, and uses safe ciphers."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import fabric
import paramiko
import pytest
from sshd import PATIENCE, Sshd, serving

from ctr_ferry.errors import FerryError, LoginRefused, NoCommonAlgorithm, Unreachable
from ctr_ferry.secrets import Secret
from ctr_ferry.ssh import connection
from ctr_ferry.ssh.bounds import Authentication
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.login import ssh_there
from ctr_ferry.ssh.target import Limits, Target, Trust
from ctr_ferry.ssh.transport import Transport

PASSWORD = "opensesame"
LINE = "the next host of a list\n"
LIMITS = Limits(connect=PATIENCE, retries=0)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the test's own key, no agent, no ssh_config; stdin has a line that nobody may read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO(LINE))
    paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / "key"))


class Login:
    """A client that logs in to the test's server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def target(self, server: Sshd, **more: Any) -> Target:
        trust = Trust((self.folder / "known",), accept_new=True)
        key = self.folder / "key"
        return Target("there", "127.0.0.1", server.port, "ops", key, trust=trust, limits=LIMITS, **more)

    def open(self, target: Target, **connect_kwargs: Any) -> None:
        config = fabric.Config(overrides={"load_ssh_configs": False, "connect_kwargs": connect_kwargs})
        host = Host(target, config)
        try:
            host.open()
        finally:
            host.close_quietly()

    def refused(self, server: Sshd, **connect_kwargs: Any) -> FerryError:
        with pytest.raises(FerryError) as refused:
            self.open(self.target(server), **connect_kwargs)
        return refused.value


@pytest.fixture
def login(tmp_path: Path) -> Login:
    return Login(tmp_path)


CODE = [("Verification code: ", False)]
SECOND = {"methods": "keyboard-interactive"}


class TestASecondFactor:
    def test_is_never_read_from_stdin(self, login: Login, capsys: pytest.CaptureFixture[str]) -> None:
        with serving(Sshd(**SECOND, rounds=[[("Password: ", False)]])) as server:
            error = login.refused(server)
        assert isinstance(error, LoginRefused)
        assert "Password:" in error.detail and "--prompt-for-login-password" in error.hint
        assert server.answers == [] and sys.stdin.read() == LINE
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize(
        "prompt", ["Password: ", "Passwort: ", "ops@node's password:", "(current) UNIX password: ", "LDAP Password"]
    )
    def test_that_is_a_password_is_answered_with_the_given_one(self, login: Login, prompt: str) -> None:
        with serving(Sshd(**SECOND, rounds=[[(prompt, False)], []])) as server:
            login.open(login.target(server), password=PASSWORD)
        assert server.answers == [[PASSWORD], []]

    def test_may_be_answered_by_the_inventory(self, login: Login) -> None:
        with serving(Sshd(**SECOND, rounds=[[("Password: ", False)]])) as server:
            login.open(login.target(server, password=Secret(PASSWORD)))
        assert server.answers == [[PASSWORD]]

    @pytest.mark.parametrize(
        "prompts",
        [
            CODE,
            [("Password: ", True)],
            [("Password: ", False), ("Verification code: ", False)],
            [("One-time password (OATH) for `ops': ", False)],
            [("otp-md5 95 x\nS/Key Password: ", False)],
            [("New password: ", False)],
            [("Retype new password: ", False)],
            [("Password or token: ", False)],
            [("Passcode or option (1-2): ", False)],
        ],
    )
    def test_that_is_no_password_gets_no_password(self, login: Login, prompts: list[tuple[str, bool]]) -> None:
        with serving(Sshd(**SECOND, rounds=[prompts])) as server:
            error = login.refused(server, password=PASSWORD)
        assert isinstance(error, LoginRefused) and error.detail.endswith(prompts[-1][0].strip())
        assert "AuthenticationMethods" in error.hint
        assert server.answers == [] and PASSWORD not in f"{error.message}{error.detail}{error.hint}"

    def test_gets_a_password_once(self, login: Login) -> None:
        with serving(Sshd(**SECOND, rounds=[[("Password: ", False)]] * 2)) as server:
            error = login.refused(server, password=PASSWORD)
        assert isinstance(error, LoginRefused) and server.answers == [[PASSWORD]]

    def test_after_the_password_is_not_answered(self, login: Login) -> None:
        with serving(Sshd("password,keyboard-interactive", rounds=[CODE])) as server:
            error = login.refused(server, password=PASSWORD)
        assert isinstance(error, LoginRefused) and error.detail.endswith("Verification code:")
        assert (server.passwords, server.answers) == ([PASSWORD], [])

    def test_that_is_another_key_is_not_a_login(self, login: Login) -> None:
        with serving(Sshd("publickey,hostbased")) as server:
            assert isinstance(login.refused(server), LoginRefused)

    def test_is_shown_without_escapes(self, login: Login) -> None:
        with serving(Sshd(**SECOND, rounds=[[("\x1b]0;x\x07\x1b[2JCode\u202e?\r\n", False)]])) as server:
            error = login.refused(server)
        assert error.detail.isprintable() or error.detail.replace("\n", "").isprintable()

    def test_in_no_text_at_all_is_refused_as_well(self, login: Login) -> None:
        with serving(Sshd(**SECOND, rounds=[[(b"Code\xff\xfe", False)]])) as server:  # type: ignore[list-item]
            assert login.refused(server).exit_code == 4


def test_a_key_file_that_is_refused_is_a_login_refused_of_any_type(login: Login) -> None:
    with serving(Sshd("password")) as server:
        assert isinstance(login.refused(server), LoginRefused)


class TestAPassword:
    def test_is_given_to_the_host(self, login: Login) -> None:
        with serving(Sshd("password")) as server:
            login.open(login.target(server), password=PASSWORD)
        assert server.passwords == [PASSWORD]

    def test_is_not_given_to_a_gateway(self, login: Login) -> None:
        with serving(Sshd("password")) as gateway, serving(Sshd()) as server:
            target = login.target(server).behind(f"ops@127.0.0.1:{gateway.port}")
            with pytest.raises(LoginRefused, match="gateway of there") as refused:
                login.open(target, password=PASSWORD)
        assert gateway.passwords == []
        assert "a gateway gets no password of the hosts behind it" in refused.value.hint

    def test_is_not_given_to_a_gateway_that_asks_for_it(self, login: Login) -> None:
        gate, there = serving(Sshd(**SECOND, rounds=[[("Password: ", False)]])), serving(Sshd())
        with gate as gateway, there as server, pytest.raises(LoginRefused):
            login.open(login.target(server).behind(f"ops@127.0.0.1:{gateway.port}"), password=PASSWORD)
        assert gateway.answers == [] and gateway.passwords == []

    def test_is_not_given_to_a_gateway_of_ssh_config(self, login: Login, tmp_path: Path) -> None:
        with serving(Sshd("password")) as gateway, serving(Sshd()) as server:
            file = tmp_path / "ssh_config"
            file.write_text(f"Host 127.0.0.1\n  ProxyJump ops@localhost:{gateway.port}\n")
            config = fabric.Config(runtime_ssh_path=str(file), overrides={"connect_kwargs": {"password": PASSWORD}})
            with pytest.raises(LoginRefused, match="gateway of there"):
                Host(login.target(server), config).open()
        assert gateway.passwords == []


class TestWhatIsOffered:
    @pytest.mark.parametrize("kind", ["ciphers", "macs", "kex", "keys", "pubkeys"])
    def test_is_nothing_weak(self, kind: str) -> None:
        offered = vars(Transport)[f"_preferred_{kind}"]
        weak = ("cbc", "3des", "md5", "-96", "arcfour", "group1-", "group14-sha1", "exchange-sha1", "dss")
        assert offered and not [name for name in offered if any(word in name for word in weak) or name == "ssh-rsa"]

    @pytest.mark.parametrize(
        ("kind", "theirs", "what", "ours"),
        [
            ("ciphers", ("aes256-cbc", "3des-cbc"), "ciphers", "aes128-gcm@openssh.com, aes256-gcm"),
            ("macs", ("hmac-md5", "hmac-sha1-96"), "MACs", "hmac-sha2-256, "),
            ("kex", ("diffie-hellman-group1-sha1", "odd\x1b[2J"), "key exchanges", "curve25519-sha256"),
        ],
    )
    def test_is_named_where_a_host_offers_none_of_it(
        self, login: Login, kind: str, theirs: tuple[str, ...], what: str, ours: str
    ) -> None:
        with serving(Sshd(security={f"_preferred_{kind}": theirs})) as server:
            error = login.refused(server)
        assert isinstance(error, NoCommonAlgorithm)
        assert f"no {what} in common" in error.message and ours in error.hint
        assert error.detail == f"it offers {', '.join(theirs)}".removesuffix("\x1b[2J")


def listening() -> set[threading.Thread]:
    """The threads of paramiko that read from a host."""
    return {thread for thread in threading.enumerate() if isinstance(thread, paramiko.Transport)}


class TestAHostThatSendsTooMuch:
    """This comes before its key is checked: it may be any host."""

    @pytest.mark.parametrize(
        ("says", "named"),
        [
            (b"SSH-2.0-x\r\n" + b"\x7f\xff\xff\xfc" + bytes(4), "a packet of 2147"),
            (b"x" * 200_000, "no end"),
            (b"SSH-2.0-\xff\xfe\r\n", ""),
        ],
    )
    def test_is_left_at_once(self, login: Login, monkeypatch: pytest.MonkeyPatch, says: bytes, named: str) -> None:
        monkeypatch.setattr(connection, "_FIRST_PAUSE", 1000.0)  # so long that there is no second attempt
        monkeypatch.setattr(connection, "_LONGEST_PAUSE", 1000.0)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    clients.append(client)
                    client.sendall(says + bytes(100_000))

        clients: list[socket.socket] = []
        before = listening()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            target = login.target(Sshd(port=listener.getsockname()[1]))
            with pytest.raises(Unreachable) as refused:
                login.open(target)
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
        for client in clients:
            client.close()
        assert named in refused.value.detail
        for left in listening() - before:
            left.join(PATIENCE)
        assert listening() <= before

    def test_is_not_obeyed_where_it_announces_too_many_things(self) -> None:
        ours, theirs = socket.socketpair()
        message = paramiko.Message()
        message.add_int(2**32 - 1)
        with ours, theirs:
            with pytest.raises(paramiko.SSHException, match="4294967295 things"):
                Transport(ours)._parse_ext_info(paramiko.Message(message.asbytes()))
            questions = paramiko.Message()
            for text in ("title", "words", ""):
                questions.add_string(text)
            questions.add_int(2**32 - 1)
            asking = Authentication(Transport(ours))
            asking.auth_method = "keyboard-interactive"
            with pytest.raises(paramiko.SSHException, match="4294967295 things"):
                asking._parse_userauth_info_request(paramiko.Message(questions.asbytes()))


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("ops@node1:2222", "ssh -v -p 2222 ops@node1"),
        ("ops@::1:22", "ssh -v -p 22 ops@::1"),
        ("$(reboot)@node1:22", "ssh -v -p 22 '$(reboot)@node1'"),
        ("-oProxyCommand=x@node1:22", "ssh -v -p 22 -- -oProxyCommand=x@node1"),
    ],
)
def test_the_line_that_shows_how_ssh_fares_can_be_pasted(where: str, line: str) -> None:
    assert ssh_there(where) == line
