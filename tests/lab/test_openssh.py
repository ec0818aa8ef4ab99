"""ssh_config means what it means to ssh: the real ssh is asked, and hosts are reached as its files say."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest
from ferry import Fab
from second_sshd import second_sshd

from ctr_ferry.errors import Unreachable, UsageError
from ctr_ferry.ssh.openssh import SSHConfig
from lab.fleet import Fleet, Node
from lab.layout import PORT

HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that is not the one of the user database. ``more/fleet`` is there to be included."""
    (tmp_path / ".ssh/more").mkdir(parents=True)
    (tmp_path / ".ssh/more/fleet").write_text("Host web1\n  User included\n  IdentityFile ~/.ssh/fleet\n")
    return tmp_path


def written(home: Path, text: str | bytes) -> Path:
    file = home / ".ssh/config"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("Include ~/.ssh/more/*\n", "user", "included"),
        ("Include more/fleet\n", "identityfile", "{home}/.ssh/fleet"),
        ("Host other\n  Include more/*\n", "user", None),
        ("Match host web*\n  User ops\n", "user", "ops"),
        ("Match final all\n  User ops\n", "user", "ops"),
        ("Match host=web*\n  User ops\n", "user", "ops"),
        ('Match exec "test %n = web1"\n  User ops\n', "user", "ops"),
        (b"# Gr\xfc\xdfe\nHost web1\n  User ops\n", "user", "ops"),
        ("UserKnownHostsFile ${TMPDIR}/known\n", "userknownhostsfile", "/tmp/known"),
        ("UserKnownHostsFile ~/known\n", "userknownhostsfile", "{home}/known"),
        ("ProxyJump ssh://root@b:2222\n", "proxyjump", "root@b:2222"),
        ("Host web1\n  ProxyCommand nc a 1\nHost *\n  ProxyJump b\n", "proxyjump", None),
        ("Host web1\n  ProxyCommand none\nHost *\n  ProxyJump b\n", "proxyjump", None),
        ("Host web1\n  ProxyJump none\nHost *\n  ProxyCommand nc a 1\n", "proxycommand", None),
        ("IdentitiesOnly yes\n", "identitiesonly", "yes"),
        ("HostKeyAlias the-old-name\n", "hostkeyalias", "the-old-name"),
    ],
)
def test_an_option_is_what_ssh_reads(
    home: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes, option: str, value: str | None
) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    written(home, text)
    assert SSHConfig(None, home).of("web1").get(option) == (value and value.format(home=home))


@pytest.mark.parametrize("name", ["config", "more/fleet"])
@pytest.mark.parametrize(("mode", "owner"), [(0o660, 0), (0o602, 0), (0o600, 12345)])
def test_a_file_that_others_can_write_is_refused_as_ssh_does(home: Path, name: str, mode: int, owner: int) -> None:
    written(home, f'Include more/*\nMatch exec "touch {home}/ran"\n  User ops\n')
    (file := home / ".ssh" / name).chmod(mode)
    os.chown(file, owner, -1)
    with pytest.raises(Unreachable, match="another user can write it"):
        SSHConfig(None, home).of("web1")
    assert not (home / "ran").exists()


def test_an_alias_keeps_its_address_where_names_are_canonical(home: Path) -> None:
    text = "CanonicalizeHostname yes\nCanonicalDomains invalid\nHost web1\n  HostName 192.0.2.7\n"
    file = written(home, text)
    assert SSHConfig(None, home).of("web1").hostname == "192.0.2.7"
    assert SSHConfig(str(file), HOME).of("web1").hostname == "192.0.2.7"


def test_the_user_and_the_port_that_are_given_are_known_to_match(home: Path) -> None:
    file = written(home, "Match user ops\n  HostName 192.0.2.7\n")
    for config in (SSHConfig(None, home), SSHConfig(str(file), HOME)):
        assert config.of("web1", "ops", 33).hostname == "192.0.2.7"
        assert config.of("web1").hostname == "web1"


def test_a_wrong_line_is_named_with_the_file_that_has_it(home: Path) -> None:
    (home / ".ssh/more/wrong").write_text("Port 33\nUser ops\nNoSuchOption x\n")
    written(home, "Include more/*\n")
    with pytest.raises(UsageError) as refused:
        SSHConfig(None, home).check()
    assert f"{home}/.ssh/more/wrong: line 3: Bad configuration option: nosuchoption" in refused.value.detail


def test_what_is_not_honoured_is_named(home: Path) -> None:
    written(home, "PubkeyAuthentication no\nHost web2\n  BindAddress 192.0.2.1\n")
    config = SSHConfig(None, home)
    assert config.of("web1").notes == ("of ssh_config, PubkeyAuthentication is not honoured",)
    assert config.of("web2").notes == ("of ssh_config, BindAddress, PubkeyAuthentication are not honoured",)


def test_a_host_that_is_its_own_gateway_is_named(home: Path) -> None:
    written(home, "ProxyJump bastion\n")
    with pytest.raises(Unreachable, match="bastion is its own gateway in ssh_config") as refused:
        SSHConfig(None, home).of("bastion")
    assert refused.value.hint.endswith("Host bastion; and below it: ProxyJump none")


class TestTheFleet:
    """Hosts that are only in ssh_config."""

    @pytest.fixture
    def ssh(self, fleet: Fleet, node3: Node, node4: Node, tmp_path: Path) -> Path:
        ssh = tmp_path / "home/.ssh"
        (ssh / "more").mkdir(parents=True)
        key = (fleet.state / f"ssh/host_keys/{node3.name}.pub").read_text()
        (ssh / "known").write_text(f"the-old-name {' '.join(key.split()[:2])}\n")
        (ssh / "known_hosts").write_text((fleet.state / "ssh/known_hosts").read_text())
        (ssh / "more/fleet").write_text(f"Host included\n  HostName {node3.address}\n  ProxyJump none\n")
        (ssh / "config").write_text(
            "Include more/*\n"
            f"Host renamed none\n  HostName {node3.address}\n  ProxyCommand none\n"
            "Host renamed\n  HostKeyAlias the-old-name\n  UserKnownHostsFile ~/.ssh/known\n"
            f"Host behind\n  HostName {node3.address}\n  ProxyJump ssh://root@gate:{PORT}\n"
            f"Host gate\n  HostName {node4.address}\n  ProxyJump none\n"
            f"Host bastion\n  HostName {node4.address}\n"
            "Match final all\n  GSSAPIAuthentication yes\n"
            f"Host *\n  User root\n  Port {PORT}\n  ProxyJump bastion\n"
            f"  IdentityFile ~/.ssh/missing\n  IdentityFile {fleet.state}/ssh/id_ed25519\n"
        )
        return ssh

    def test_is_reached_as_ssh_would_reach_it(self, fab: Fab, ssh: Path, node3: Node) -> None:
        hosts = ["included", "renamed", "none", "behind"]
        run = fab("-H", ",".join([*hosts, "bastion"]), "run", "--json", "hostname", HOME=str(ssh.parent))
        assert run.statuses == {**dict.fromkeys(hosts, "ok"), "bastion": "host-unreachable"}, run.out
        assert {run.outcomes[host]["result"]["stdout"].strip() for host in hosts} == {node3.name}
        assert run.error["message"].startswith("bastion is its own gateway") and run.exit == 4

    def test_takes_a_certificate_that_does_not_stand_beside_its_key(
        self, fab: Fab, ssh: Path, node3: Node, tmp_path: Path
    ) -> None:
        for name in ("authority", "key"):
            subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", f"{tmp_path}/{name}"], check=True)
        sign = ["ssh-keygen", "-qs", f"{tmp_path}/authority", "-I", "key", "-n", "root", f"{tmp_path}/key.pub"]
        subprocess.run(sign, check=True)
        (tmp_path / "key-cert.pub").rename(ssh / "elsewhere")
        node3.exec(["sh", "-c", "cat >/tmp/authority.pub"], stdin=(tmp_path / "authority.pub").read_bytes())
        (ssh / "config").write_text(
            f"Host with without\n  HostName {node3.address}\n  Port 2298\n  User root\n  IdentityFile {tmp_path}/key\n"
            f"  HostKeyAlias [{node3.address}]:{PORT}\nHost with\n  CertificateFile ~/.ssh/elsewhere\n"
        )
        with second_sshd(node3, 2298, TrustedUserCAKeys="/tmp/authority.pub"):
            run = fab("-H", "with,without", "run", "--json", "hostname", HOME=str(ssh.parent))
        node3.exec(["rm", "/tmp/authority.pub"])
        assert run.statuses == {"with": "ok", "without": "login-refused"}, run.out

    def test_is_not_touched_where_a_line_is_wrong(self, fab: Fab, ssh: Path, tmp_path: Path) -> None:
        file = tmp_path / "wrong"
        file.write_text("Host included\n  HostName a b c\n")
        run = fab("-S", str(file), "-H", "root@included", "run", "--json", "hostname", HOME=str(ssh.parent))
        assert run.exit == 2 and f"{file} line 2" in run.error["said"]
