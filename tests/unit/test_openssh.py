"""Without ssh, paramiko reads ssh_config: what it would misread is left out with a note, a broken line is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr_ferry.errors import UsageError
from ctr_ferry.ssh.openssh import SSHConfig


@pytest.fixture
def without_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose ssh_config a test writes, on a machine without ssh."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def read(home: Path, text: str | bytes) -> SSHConfig:
    content = text if isinstance(text, bytes) else text.encode()
    (home / ".ssh/config").write_bytes(content)
    return SSHConfig(None, home)


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("Host web1\n  User ops\n", "user", "ops"),
        ("Match host web*\n  User ops\n", "user", "ops"),
        ("Match localnetwork 192.0.2.0/24\n  User ops\nHost web1\n  Port 33\n", "user", None),
        ("Match localnetwork 192.0.2.0/24\n  User ops\nHost web1\n  Port 33\n", "port", "33"),
        ("Match !tagged x\n  User ops\n", "user", None),
        ("Match final all\n  User ops\n", "user", None),
        ("Match host=web*\n  User ops\n", "user", None),
        (b"# Gr\xfc\xdfe\nHost web1\n  User ops\n", "user", "ops"),
        ("Host web1\n  ProxyCommand nc a 1\nHost *\n  ProxyJump b\n", "proxyjump", None),
        ("Host web1\n  ProxyCommand none\nHost *\n  ProxyJump b\n", "proxyjump", None),
        ("Host web1\n  ProxyJump none\nHost *\n  ProxyCommand nc a 1\n", "proxycommand", None),
        ("Host web1\n  ProxyJump b\nHost *\n  ProxyCommand nc a 1\n", "proxyjump", "b"),
    ],
)
def test_paramiko_reads_what_it_knows_and_no_more(
    without_ssh: Path, text: str | bytes, option: str, value: str | None
) -> None:
    assert read(without_ssh, text).of("web1").get(option) == value


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            "Port 33\nInclude ~/.ssh/more\n",
            "ssh_config's Include ~/.ssh/more is not honoured: there is no ssh that could read it",
        ),
        (
            "Port 33\nMatch tagged x\n",
            "ssh_config's Match tagged x is not honoured: there is no ssh that could read it",
        ),
        ("BindAddress x\n", "of ssh_config, BindAddress is not honoured"),
    ],
)
def test_what_paramiko_does_not_honour_is_named(without_ssh: Path, text: str, note: str) -> None:
    (without_ssh / ".ssh/more").touch()
    assert read(without_ssh, text).of("web1").notes == (note,)


@pytest.mark.parametrize(
    ("line", "fault"),
    [("User", "Unparsable line"), ("Port abc", "Bad port 'abc'"), ("Port=0", "Bad port '0'"), ("Port 65536", "Bad")],
)
def test_a_line_that_cannot_be_parsed_is_named(without_ssh: Path, line: str, fault: str) -> None:
    with pytest.raises(UsageError, match=rf"config: line 2: {fault}") as refused:
        read(without_ssh, f"Port 33\n{line}\n").check()
    assert refused.value.exit_code == 2 and refused.value.hint.endswith("then run the command again")


def test_a_file_of_S_that_does_not_exist_is_named(without_ssh: Path) -> None:
    with pytest.raises(UsageError, match="no/such does not exist"):
        SSHConfig("no/such", without_ssh)


def test_aliases_are_the_names_of_host_lines_of_all_files(without_ssh: Path) -> None:
    (without_ssh / ".ssh/more").mkdir()
    for name, text in {"a": 'Host a1 "a2" # none\n', "b": "Include ~/.ssh/config\nHost=b1 !b2 b*\n"}.items():
        (without_ssh / ".ssh/more" / name).write_text(text)
    config = read(without_ssh, "Include more/* /no/such\nhost web1 web?\nMatch host=x\n")
    assert config.aliases >= {"a1", "a2", "b1", "web1"} and not {"b2", "!b2", "b*", "#", "none"} & config.aliases


def test_a_file_that_changes_nothing_here_needs_no_question(without_ssh: Path) -> None:
    config = read(without_ssh, "Host *\n  SendEnv LANG\n  GSSAPIAuthentication yes\nMatch final all\n  Ciphers x\n")
    found = config.of("web1")
    assert (found.hostname, dict(found.values), found.notes) == ("web1", {}, ())
