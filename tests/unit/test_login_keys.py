"""A login offers each key once, stops when the host closes the connection, and says which key it could not use."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import fabric
import paramiko
import pytest
from agent import Agent, answering
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from sshd import PATIENCE, Sshd, serving

from ctr_ferry.errors import ConnectTimeout, FerryError, LoginRefused
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.login_keys import UnusableKeyError, load
from ctr_ferry.ssh.target import Limits, Target, Trust

RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()
LOCK = form.BestAvailableEncryption(b"pass phrase")
OPEN = form.NoEncryption()
Key = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
FORMS = [(RSA, "TraditionalOpenSSL"), (RSA, "OpenSSH"), (ED, "OpenSSH")]


def written(file: Path, key: Key, kind: str, lock: bool = False) -> Path:
    """Write a private key in a form: `OpenSSH`, `PKCS8` or `TraditionalOpenSSL`."""
    how = LOCK if lock else OPEN
    file.write_bytes(key.private_bytes(form.Encoding.PEM, getattr(form.PrivateFormat, kind), how))
    return file


class TestAKeyFile:
    @pytest.mark.parametrize("lock", [False, True])
    def test_in_a_form_that_cannot_be_read_is_named_with_what_to_do(self, tmp_path: Path, lock: bool) -> None:
        file = written(tmp_path / "my id", RSA, "PKCS8", lock)
        with pytest.raises(UnusableKeyError, match=f"the key {file} is in a form that cannot be read$") as unusable:
            load(file, None)
        assert f"ssh-keygen -p -f '{file}'" in unusable.value.hint

    @pytest.mark.parametrize(("key", "kind"), FORMS)
    def test_that_is_encrypted_is_named_with_what_to_do(self, tmp_path: Path, key: Key, kind: str) -> None:
        file = written(tmp_path / "my id", key, kind, lock=True)
        with pytest.raises(UnusableKeyError, match=f"the key {file} is encrypted$") as unusable:
            load(file, None)
        assert f"ssh-add '{file}'" in unusable.value.hint and "--prompt-for-passphrase" in unusable.value.hint

    @pytest.mark.parametrize(
        "content", [b"", b"no key\n", bytes(range(256)), b"-----BEGIN OPENSSH PRIVATE KEY-----\nx"]
    )
    def test_that_is_no_key_is_named(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "id").write_bytes(content)
        with pytest.raises(UnusableKeyError, match="in a form that cannot be read"):
            load(tmp_path / "id", None)

    def test_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UnusableKeyError, match="cannot be read: No such file"):
            load(tmp_path / "id", None)

    @pytest.mark.parametrize(("key", "kind"), FORMS)
    def test_that_is_encrypted_is_opened_by_its_passphrase_alone(self, tmp_path: Path, key: Key, kind: str) -> None:
        file = written(tmp_path / "id", key, kind, lock=True)
        assert load(file, "pass phrase").can_sign()
        with pytest.raises(UnusableKeyError, match="the passphrase given does not open it"):
            load(file, "another")


class Control:
    """The control machine: its HOME, and what it says of a login."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ssh = home / ".ssh"
        self.ssh.mkdir()

    def log_in(self, server: Sshd, *, limit: int = PATIENCE, config: str = "", key: Path | None = None) -> None:
        file = self.home / "ssh_config"
        file.write_text(config)
        trust = Trust((self.home / "known",), accept_new=True)
        limits = Limits(connect=limit, retries=0)
        host = Host(
            Target("there", "127.0.0.1", server.port, "ops", key, trust=trust, limits=limits),
            fabric.Config(runtime_ssh_path=str(file)),
        )
        try:
            host.open()
        finally:
            host.close_quietly()

    def refused(self, server: Sshd, limit: int = PATIENCE, key: Path | None = None) -> FerryError:
        with pytest.raises(FerryError) as refused:
            self.log_in(server, limit=limit, key=key)
        return refused.value


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Control:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Control(tmp_path)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Agent]:
    def new(*keys: paramiko.PKey, **more: bool) -> Agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        return Agent(tmp_path / "agent", keys, **more)

    return new


def some_keys(count: int) -> list[paramiko.PKey]:
    return [paramiko.ECDSAKey.generate() for _ in range(count)]


class TestManyKeysOfTheAgent:
    def test_cost_one_connection_and_are_counted(self, control: Control, agent: Callable[..., Agent]) -> None:
        mine = written(control.ssh / "id_ed25519", ED, "OpenSSH")
        with (
            answering(agent(*some_keys(12))),
            serving(Sshd(authorized=paramiko.Ed25519Key.from_private_key_file(str(mine)))) as server,
        ):
            error = control.refused(server)
        assert isinstance(error, LoginRefused)
        # paramiko's server answers the tenth key before it closes the connection
        assert re.search("too many authentication failures: 1[01] keys of the agent were tried", error.message)
        assert "IdentitiesOnly" in error.hint
        assert (server.connections, len(server.offered)) == (1, 10)

    def test_are_not_tried_where_only_named_keys_count(self, control: Control, agent: Callable[..., Agent]) -> None:
        written(control.ssh / "id_ed25519", ED, "OpenSSH")
        with answering(agent(*some_keys(12))) as asked, serving(Sshd()) as server:
            control.log_in(server, config="IdentitiesOnly yes\n")
        assert (asked.asked, len(server.offered)) == ([], 1)

    def test_count_where_a_named_file_has_the_same_key(self, control: Control, agent: Callable[..., Agent]) -> None:
        first, right = some_keys(2)
        (control.home / "id.pub").write_text(f"{right.get_name()} {right.get_base64()} a comment\n")
        for named in ("id", "id.pub"):
            config = f"IdentitiesOnly yes\nIdentityFile {control.home / named}\n"
            with answering(agent(first, right)), serving(Sshd(authorized=right)) as server:
                control.log_in(server, config=config)
            assert server.offered == [right]
            (control.home / "agent").unlink()

    @pytest.mark.parametrize("named", ["{home}/agent", "~/agent", "$OTHER_AGENT", "none"])
    def test_are_those_of_the_agent_that_ssh_config_names(
        self, control: Control, agent: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch, named: str
    ) -> None:
        (key,) = some_keys(1)
        with answering(agent(key)) as asked, serving(Sshd()) as server:
            monkeypatch.setenv("OTHER_AGENT", str(control.home / "agent"))
            if named != "none":
                monkeypatch.setenv("SSH_AUTH_SOCK", str(control.home / "elsewhere"))
                control.log_in(server, config=f"IdentityAgent {named.format(home=control.home)}\n")
                assert server.offered == [key]
                return
            with pytest.raises(LoginRefused):
                control.log_in(server, config="IdentityAgent none\n")
            assert asked.asked == []

    def test_open_the_way_of_an_encrypted_file(self, control: Control, agent: Callable[..., Agent]) -> None:
        file = written(control.home / "id", ED, "OpenSSH", lock=True)
        held = load(file, "pass phrase")
        with answering(agent(*some_keys(1), held)), serving(Sshd(authorized=held)) as server:
            control.log_in(server, key=file)
        assert server.offered == [held]


class TestAnAgent:
    def test_that_does_not_answer_is_passed_over(self, control: Control, agent: Callable[..., Agent]) -> None:
        written(control.ssh / "id_ed25519", ED, "OpenSSH")
        with answering(agent(lists=False)), serving(Sshd()) as server:
            control.log_in(server, limit=1)
        assert len(server.offered) == 1

    def test_that_does_not_answer_is_named_where_no_key_is_left(
        self, control: Control, agent: Callable[..., Agent]
    ) -> None:
        with answering(agent(lists=False)) as silent, serving(Sshd()) as server:
            error = control.refused(server, limit=1)
        assert isinstance(error, LoginRefused) and server.connections == 1
        assert f"the SSH agent at {silent.path} did not answer within 1 s" in error.message

    def test_that_does_not_sign_is_named(self, control: Control, agent: Callable[..., Agent]) -> None:
        with answering(agent(*some_keys(1), signs=False)) as silent, serving(Sshd()) as server:
            error = control.refused(server, limit=1)
        assert isinstance(error, LoginRefused) and server.connections == 1
        assert f"the SSH agent at {silent.path} did not answer within 1 s" in error.message

    def test_that_refuses_to_sign_does_not_end_the_connection(
        self, control: Control, agent: Callable[..., Agent]
    ) -> None:
        written(control.ssh / "id_ed25519", ED, "OpenSSH")
        with answering(agent(*some_keys(3), refuses=True)), serving(Sshd()) as server:
            control.log_in(server)
        assert (server.connections, len(server.offered)) == (1, 1)


def test_a_key_that_is_named_twice_is_offered_once(control: Control) -> None:
    file = written(control.ssh / "id_ed25519", ED, "OpenSSH")
    with serving(Sshd(authorized=some_keys(1)[0])) as server:
        error = control.refused(server, key=file)
    assert isinstance(error, LoginRefused) and len(server.offered) == 1
    assert f"{file} was tried" in error.detail


def test_a_missing_key_is_passed_over_and_named_where_no_other_helps(control: Control) -> None:
    with serving(Sshd()) as server:
        error = control.refused(server, key=control.home / "nosuch")
        assert isinstance(error, LoginRefused) and f"{control.home / 'nosuch'} cannot be read" in error.message
        written(control.ssh / "id_ed25519", ED, "OpenSSH")
        control.log_in(server, key=control.home / "nosuch")


def test_a_login_that_takes_too_long_is_no_refused_login(control: Control) -> None:
    written(control.ssh / "id_ed25519", ED, "OpenSSH")
    with serving(Sshd(silent=True)) as server:
        error = control.refused(server, limit=1)
    assert isinstance(error, ConnectTimeout) and error.hint.startswith("raise it: -t 3")
    assert server.connections == 1
