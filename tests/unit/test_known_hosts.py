"""A host's key is accepted if known_hosts has it, and refused otherwise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import fabric
import paramiko
import pytest
from sshd import Sshd, serving

from ctr_ferry.errors import FerryError, HostKeyChanged, HostKeyUnknown
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.keys import KnownKeys, authorities, configured_trust, known_keys
from ctr_ferry.ssh.openssh import HostConfig
from ctr_ferry.ssh.target import Limits, Target, Trust

P256, OTHER = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()
P384 = paramiko.ECDSAKey.generate(bits=384)
RSA = paramiko.RSAKey.generate(2048)


class Client:
    """A known_hosts file and one connection to a server with some keys."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.name = folder, folder / "known", ""
        paramiko.ECDSAKey.generate().write_private_key_file(str(folder / "id"))

    def line(self, key: paramiko.PKey, marker: str = "") -> str:
        return f"{marker}{self.name} {key.get_name()} {key.get_base64()}\n"

    def connect(self, *keys: paramiko.PKey, known: Callable[[Client], str], accept_new: bool = False) -> None:
        with serving(Sshd(keys=list(keys))) as server:
            self.name = f"[127.0.0.1]:{server.port}"
            self.file.write_text(known(self))
            trust = Trust((self.file,), accept_new)
            target = Target("there", "127.0.0.1", server.port, "ops", self.folder / "id", trust=trust, limits=Limits(5))
            host = Host(target, fabric.Config(overrides={"load_ssh_configs": False}))
            try:
                host.open()
            finally:
                host.close_quietly()

    def refused(self, *keys: paramiko.PKey, known: Callable[[Client], str], accept_new: bool = False) -> FerryError:
        with pytest.raises(FerryError) as refused:
            self.connect(*keys, known=known, accept_new=accept_new)
        return refused.value


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Client(tmp_path)


@pytest.mark.parametrize("order", [(OTHER, P256), (P256, OTHER)], ids=["old first", "old last"])
def test_any_of_several_known_keys_of_one_type_is_accepted(client: Client, order: tuple[paramiko.PKey, ...]) -> None:
    client.connect(P256, known=lambda t: "".join(map(t.line, order)))


@pytest.mark.parametrize(
    ("theirs", "known"),
    [
        ((P256, P384), (RSA, P384)),
        ((P256, RSA), (RSA,)),
        ((P256, P384, RSA), (P384, RSA)),
        ((P256, P384), (P384, OTHER)),
    ],
)
def test_known_types_are_asked_for_before_other_types(
    client: Client, theirs: tuple[paramiko.PKey, ...], known: tuple[paramiko.PKey, ...]
) -> None:
    if OTHER in known:  # of two known types the host sends the first, and its key is another one: as with OpenSSH
        assert isinstance(client.refused(*theirs, known=lambda t: "".join(map(t.line, known))), HostKeyChanged)
    else:
        client.connect(*theirs, known=lambda t: "".join(map(t.line, known)))


@pytest.mark.parametrize("accept_new", [False, True])
def test_a_changed_key_is_refused_with_the_command_that_removes_the_old_ones(client: Client, accept_new: bool) -> None:
    error = client.refused(P256, known=lambda t: t.line(OTHER) + t.line(RSA), accept_new=accept_new)
    assert isinstance(error, HostKeyChanged) and P256.fingerprint in error.detail
    assert error.hint.endswith(f"ssh-keygen -f {client.file} -R '{client.name}'")


@pytest.mark.parametrize("accept_new", [False, True])
@pytest.mark.parametrize("also", ["", "known", "another"])
def test_a_revoked_key_is_refused_as_revoked(client: Client, accept_new: bool, also: str) -> None:
    more = {"": lambda _: "", "known": lambda t: t.line(P256), "another": lambda t: t.line(OTHER)}[also]
    error = client.refused(P256, known=lambda t: more(t) + t.line(P256, "@revoked "), accept_new=accept_new)
    assert isinstance(error, HostKeyChanged) and "revoked" in error.message
    assert "ssh-keygen" not in error.hint  # it would remove the @revoked line, too


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (f"# old\n{P256.get_name()} {P256.get_base64()} node1\n", HostKeyChanged, "is revoked in {file}"),
        ("SSHKRL\n\0", HostKeyUnknown, "{file}, which RevokedHostKeys names, cannot be read"),
        (None, HostKeyUnknown, "{file}, which RevokedHostKeys names, cannot be read"),
        (f"{OTHER.get_name()} {OTHER.get_base64()}\nno key\n", None, ""),
    ],
    ids=["revoked", "KRL", "missing", "others"],
)
def test_the_keys_of_revoked_host_keys_are_refused(
    tmp_path: Path, content: str | None, error: type[FerryError] | None, words: str
) -> None:
    known, revoked = tmp_path / "known", tmp_path / "revoked"
    known.write_text(f"web1 {P256.get_name()} {P256.get_base64()}\n")
    if content is not None:
        revoked.write_text(content)
    trust = configured_trust(Trust((known,)), HostConfig("web1", {"revokedhostkeys": [str(revoked)]}))
    check = partial(KnownKeys(trust, "web1", "web1").missing_host_key, paramiko.SSHClient(), "web1", P256)
    if not error:
        check()
        return
    with pytest.raises(error) as refused:
        check()
    assert words.format(file=revoked) in refused.value.message


@pytest.mark.parametrize("fits", [True, False])
def test_a_host_without_a_certificate_is_not_known_by_its_authority(client: Client, fits: bool) -> None:
    names = (lambda t: t.name) if fits else (lambda _: "elsewhere")
    error = client.refused(P256, known=lambda t: t.line(OTHER, "@cert-authority ").replace(t.name, names(t)))
    assert isinstance(error, HostKeyUnknown)
    assert ("it has no certificate" in error.detail) is fits


def test_hashed_lines_and_ports_are_found(tmp_path: Path) -> None:
    file, key = tmp_path / "known", f"{P256.get_name()} {P256.get_base64()}"
    hashed = paramiko.HostKeys.hash_host("[10.0.0.1]:2222")
    file.write_text(f"{hashed} {key}\n|1|broken {key}\n@cert-authority {hashed} {key}\n")
    assert known_keys("[10.0.0.1]:2222", [file]) == [P256]
    assert known_keys("10.0.0.1", [file]) == [] and authorities("10.0.0.1", [file]) == []
    assert authorities("[10.0.0.1]:2222", [file]) == [P256]


@pytest.mark.parametrize(
    ("users", "ours", "of_user"),
    [
        (None, "~/.ssh/known_hosts", ["~/.ssh/known_hosts"]),
        ("{home}/a {home}/b", "~/.ssh/known_hosts", ["{home}/a", "{home}/b"]),
        ("{home}/a", "{home}/ours", ["{home}/ours"]),
        ("none", "~/.ssh/known_hosts", ["/dev/null"]),
        ("/dev/null", "~/.ssh/known_hosts", ["/dev/null"]),
    ],
)
def test_the_files_of_ssh_config_stand_for_the_usual_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: str | None, ours: str, of_user: list[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "all").touch()
    values = {"globalknownhostsfile": [f"{tmp_path}/all {tmp_path}/missing"]}
    values |= {"userknownhostsfile": [users.format(home=tmp_path)]} if users else {}
    trust = Trust((Path(ours.format(home=tmp_path)).expanduser(),), accept_new=True)
    found = configured_trust(trust, HostConfig("web1", values))
    expected = [Path(file.format(home=tmp_path)).expanduser() for file in of_user]
    assert found == Trust((*expected, tmp_path / "all"), accept_new=of_user != ["/dev/null"])


def test_an_unknown_host_whose_key_has_no_file_is_refused_with_a_hint(client: Client) -> None:
    client.file = Path("/dev/null")
    error = client.refused(P256, known=lambda _: "", accept_new=False)
    assert isinstance(error, HostKeyUnknown) and error.hint.endswith("UserKnownHostsFile ~/.ssh/known_hosts")


@pytest.mark.parametrize("line", ["@revoked {} {}", "  @revoked {} {}", "\t@revoked  {}  {}", "@revoked {}\t{} # old"])
def test_a_revoked_line_counts_however_it_is_spaced(tmp_path: Path, line: str) -> None:
    file, key = tmp_path / "known", f"{P256.get_name()} {P256.get_base64()}"
    file.write_text(f"node1 {key}\n" + line.format("node1", key.replace(" ", "  ")))
    assert known_keys("node1", [file]) == []


@pytest.mark.parametrize("revoked", ["node1", "[node1]:2222", "*"])
def test_an_authority_that_is_revoked_for_a_host_signs_for_none_of_its_ports(tmp_path: Path, revoked: str) -> None:
    file, key = tmp_path / "known", f"{P256.get_name()} {P256.get_base64()}"
    file.write_text(f"@cert-authority node1 {key}\n")
    assert authorities("[node1]:2222", [file]) == [P256]
    file.write_text(f"@cert-authority node1 {key}\n@revoked {revoked} {key}\n")
    assert authorities("[node1]:2222", [file]) == []
