"""Host keys are checked on hosts and gateways, in each mode, with one known_hosts file for many hosts at once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ferry import Fab, Run, write_inventory
from forkserver import CLONE
from second_sshd import second_sshd

from lab.crowd import Crowd
from lab.fleet import Fleet, Node
from lab.layout import PORT

MODES = ["strict", "accept-new"]
WAYS = ["-J", "ProxyJump", "ssh_config"]


def other_key() -> str:
    """Return a public key that no host has."""
    public = Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


@dataclass
class Trusting:
    """A host, a gateway before it if any, and a known_hosts file for both."""

    fab: Fab
    fleet: Fleet
    folder: Path

    @property
    def known(self) -> Path:
        """The known_hosts file."""
        return self.folder / "known_hosts"

    def name(self, node: Node) -> str:
        """Return a node as known_hosts calls it."""
        return f"[{node.address}]:{PORT}"

    def line(self, node: Node, names: str | None = None) -> str:
        """Return a node's own line, under other names if wanted."""
        key = (self.fleet.state / f"ssh/host_keys/{node.name}.pub").read_text()
        return f"{names or self.name(node)} {' '.join(key.split()[:2])}\n"

    def changed(self, node: Node) -> str:
        """Return a line with another key."""
        return f"{self.name(node)} {other_key()}\n"

    def run(self, node: Node, mode: str, gateway: Node | None = None, way: str = "-J") -> Run:
        """Run something on a node, through another; the host is `there`."""
        options, home = f"-o UserKnownHostsFile='{self.known}' -o StrictHostKeyChecking={mode}", self.folder / "home"
        options = options.replace("=strict", "=yes")
        (home / ".ssh").mkdir(parents=True, exist_ok=True)
        if gateway:
            hop = f"root@{gateway.address}:{PORT}"
            options += {"-J": f" -J {hop}", "ProxyJump": f" -o ProxyJump={hop}"}.get(way, "")
            if way == "ssh_config":
                (home / ".ssh/config").write_text(f"Host {node.address}\n  ProxyJump {hop}\n")
                (home / ".ssh/config").chmod(0o600)
        host = {"ansible_host": node.address, "ansible_ssh_common_args": options}
        inventory = write_inventory(self.folder / "hosts.yaml", self.fleet, {"there": host})
        return self.fab(
            "-H", "there", "run", "--json", "echo $SSH_CLIENT; hostname", inventory=inventory, HOME=str(home)
        )


@pytest.fixture
def trusting(fab: Fab, fleet: Fleet, tmp_path: Path) -> Trusting:
    """An empty known_hosts file."""
    trusting = Trusting(fab, fleet, tmp_path)
    trusting.known.touch()
    return trusting


@pytest.mark.parametrize("mode", MODES)
class TestHosts:
    def test_a_known_key_is_accepted(self, trusting: Trusting, node3: Node, mode: str) -> None:
        trusting.known.write_text(trusting.line(node3))
        assert trusting.run(node3, mode).exit == 0
        assert trusting.known.read_text() == trusting.line(node3)

    def test_an_unknown_key_is_refused_or_added(self, trusting: Trusting, node3: Node, mode: str) -> None:
        run = trusting.run(node3, mode)
        if mode == "strict":
            assert (run.exit, run.error["kind"]) == (4, "host-key-unknown")
            assert "ssh-ed25519 SHA256:" in run.error["said"]
            assert trusting.known.read_text() == ""
        else:
            assert run.exit == 0
            assert trusting.known.read_text() == trusting.line(node3)

    def test_a_changed_key_is_refused(self, trusting: Trusting, node3: Node, mode: str) -> None:
        trusting.known.write_text(before := trusting.changed(node3))
        run = trusting.run(node3, mode)
        assert (run.exit, run.error["kind"]) == (4, "host-key-changed")
        assert trusting.known.read_text() == before

    def test_a_revoked_key_is_refused_also_where_another_line_has_it(
        self, trusting: Trusting, node3: Node, mode: str
    ) -> None:
        trusting.known.write_text(before := f"{trusting.line(node3)}@revoked {trusting.line(node3, '*')}")
        kind = "host-key-changed"
        assert trusting.run(node3, mode).error["kind"] == kind
        assert trusting.known.read_text() == before

    def test_any_line_of_a_host_may_have_its_key(self, trusting: Trusting, node3: Node, mode: str) -> None:
        trusting.known.write_text(before := trusting.changed(node3) + trusting.line(node3))
        assert trusting.run(node3, mode).exit == 0
        assert trusting.known.read_text() == before

    def test_a_key_of_another_type_than_the_known_one_is_refused(
        self, trusting: Trusting, node3: Node, mode: str
    ) -> None:
        key = paramiko.ECDSAKey.generate()
        trusting.known.write_text(f"{trusting.name(node3)} {key.get_name()} {key.get_base64()}\n")
        assert trusting.run(node3, mode).error["kind"] == "host-key-changed"

    def test_comments_and_broken_lines_are_skipped(self, trusting: Trusting, node3: Node, mode: str) -> None:
        odd = f"# comment\n\n\xff garbage\n{trusting.name(node3)}\n{trusting.name(node3)} ssh-ed25519 !!!\n"
        odd += f"{trusting.name(node3)} ssh-unheard-of AAAA\n@cert-authority * {other_key()}\n"
        trusting.known.write_bytes(odd.encode("latin-1") + f"other {other_key()}\n{trusting.line(node3)}".encode())
        assert trusting.run(node3, mode).exit == 0

    def test_a_new_key_does_not_continue_an_unfinished_line(self, trusting: Trusting, node3: Node, mode: str) -> None:
        trusting.known.write_text(before := f"other {other_key()}")
        trusting.run(node3, mode)
        after = before if mode == "strict" else f"{before}\n{trusting.line(node3)}"
        assert trusting.known.read_text() == after


def test_a_known_hosts_file_that_cannot_be_read_trusts_no_host(trusting: Trusting, node3: Node) -> None:
    trusting.known.unlink()
    trusting.known.mkdir()  # root may read any file
    error = trusting.run(node3, "strict").error
    assert (error["kind"], error["said"]) == ("host-key-unknown", "Is a directory")


def plain(name: str) -> str:
    """Return a name of known_hosts without its port."""
    return name.removeprefix("[").partition("]")[0]


NAMES: dict[str, tuple[Callable[[str], str], bool]] = {
    "hashed": (paramiko.HostKeys.hash_host, True),
    "hashed, of another": (lambda name: paramiko.HostKeys.hash_host(f"x{name}"), False),
    "one of several": (lambda name: f"other,{name}", True),
    "a pattern": (lambda name: name.replace("127.", "*."), True),
    "a pattern that excludes it": (lambda name: f"*,!{name},!{plain(name)}", False),
    "all": (lambda _: "*", True),
}


@pytest.mark.parametrize("how", NAMES)
def test_names_are_read_as_openssh_does(trusting: Trusting, node3: Node, how: str) -> None:
    naming, fits = NAMES[how]
    trusting.known.write_text(trusting.line(node3, naming(trusting.name(node3))))
    address = f"root@{node3.address}"
    options = [f"-oUserKnownHostsFile={trusting.known}", "-oBatchMode=yes", f"-i{trusting.fleet.state}/ssh/id_ed25519"]
    openssh = ["ssh", "-Fnone", "-oGlobalKnownHostsFile=none", *options, f"-p{PORT}", address, "true"]
    detail = subprocess.run(openssh, capture_output=True, check=False)
    assert (detail.returncode == 0) is fits, detail.stderr
    assert (trusting.run(node3, "strict").exit == 0) is fits


def test_the_key_of_another_port_is_none_of_this_one(trusting: Trusting, node3: Node) -> None:
    trusting.known.write_text(trusting.line(node3, plain(trusting.name(node3))))  # OpenSSH would take it
    assert trusting.run(node3, "strict").error["kind"] == "host-key-unknown"


@pytest.mark.parametrize("way", WAYS)
class TestGateways:
    def test_a_known_gateway_is_gone_through(self, trusting: Trusting, node2: Node, node3: Node, way: str) -> None:
        trusting.known.write_text(trusting.line(node2) + trusting.line(node3))
        run = trusting.run(node3, "strict", node2, way)
        assert run.exit == 0, run.out
        assert run.outcomes["there"]["result"]["stdout"].splitlines()[-1] == "node3"

    def test_an_unknown_gateway_is_refused(self, trusting: Trusting, node2: Node, node3: Node, way: str) -> None:
        trusting.known.write_text(before := trusting.line(node3))
        run = trusting.run(node3, "strict", node2, way)
        assert (run.exit, run.error["kind"]) == (4, "host-key-unknown")
        assert node2.address in run.error["message"]
        assert trusting.known.read_text() == before

    def test_new_keys_of_gateway_and_host_are_added(
        self, trusting: Trusting, node2: Node, node3: Node, way: str
    ) -> None:
        run = trusting.run(node3, "accept-new", node2, way)
        assert run.exit == 0, run.out
        assert trusting.known.read_text() == trusting.line(node2) + trusting.line(node3)

    @pytest.mark.parametrize("mode", MODES)
    def test_a_changed_gateway_is_refused(
        self, trusting: Trusting, node2: Node, node3: Node, way: str, mode: str
    ) -> None:
        trusting.known.write_text(before := trusting.changed(node2) + trusting.line(node3))
        run = trusting.run(node3, mode, node2, way)
        assert (run.exit, run.error["kind"]) == (4, "host-key-changed")
        assert node2.address in run.error["message"]
        assert trusting.known.read_text() == before

    @pytest.mark.parametrize("mode", MODES)
    def test_a_changed_host_behind_a_known_gateway_is_refused(
        self, trusting: Trusting, node2: Node, node3: Node, way: str, mode: str
    ) -> None:
        trusting.known.write_text(trusting.line(node2) + trusting.changed(node3))
        run = trusting.run(node3, mode, node2, way)
        assert (run.exit, run.error["kind"]) == (4, "host-key-changed")
        assert node3.address in run.error["message"]

    def test_an_unknown_host_behind_a_known_gateway_is_refused(
        self, trusting: Trusting, node2: Node, node3: Node, way: str
    ) -> None:
        trusting.known.write_text(trusting.line(node2))
        run = trusting.run(node3, "strict", node2, way)
        assert (run.exit, run.error["kind"]) == (4, "host-key-unknown")
        assert node3.address in run.error["message"]


@pytest.mark.parametrize("there", ["no file", "a file"])
def test_many_new_hosts_at_once_lose_no_line(fab: Fab, fleet: Fleet, tmp_path: Path, there: str) -> None:
    known = tmp_path / "ssh/known_hosts"
    with Crowd(fleet, 60) as crowd:
        inventory = tmp_path / "hosts.yaml"
        inventory.write_text(crowd.inventory.read_text().replace(str(crowd.known_hosts), str(known)))
        lines = crowd.known_hosts.read_text().splitlines()
        kept = [f"other {other_key()}"] if there == "a file" else []
        if kept:
            known.parent.mkdir()
            known.write_text(f"{kept[0]}\n")
        words = ("-H", "all", "run", "--json", "true")
        run = fab(*words, inventory=inventory, FABRIC_FLEET_HOST_KEYS="accept-new")
        assert run.statuses == dict.fromkeys(crowd.addresses, "ok")
        assert sorted(known.read_text().splitlines()) == sorted(kept + lines)
        again = fab(*words, inventory=inventory)  # strict
        assert again.statuses == dict.fromkeys(crowd.addresses, "ok")
        assert sorted(known.read_text().splitlines()) == sorted(kept + lines)


def test_the_modes_of_fabric_yaml_hold_without_an_inventory(
    fab: Fab, fleet: Fleet, node3: Node, tmp_path: Path
) -> None:
    words = ("-H", f"root@{node3.address}:{PORT}", "-i", f"{fleet.state}/ssh/id_ed25519", "run", "--json", "true")
    known = {"FABRIC_FLEET_KNOWN_HOSTS": str(tmp_path / "known")}
    assert fab(*words, **known).error["kind"] == "host-key-unknown"
    assert not (tmp_path / "known").exists()
    assert fab(*words, **known, FABRIC_FLEET_HOST_KEYS="accept-new").exit == 0
    assert fab(*words, **known).exit == 0


def test_a_host_with_a_certificate_is_known_by_its_authority_alone(
    fab: Fab, fleet: Fleet, node3: Node, tmp_path: Path
) -> None:
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", ""]
    for name in ("ours", "theirs"):
        subprocess.run([*keygen, "-f", tmp_path / name], check=True)
        known = f"@cert-authority * {(tmp_path / name).with_suffix('.pub').read_text()}"
        (tmp_path / f"{name}.known").write_text(known)
    key = tmp_path / "host.pub"
    key.write_text((fleet.state / f"ssh/host_keys/{node3.name}.pub").read_text())
    sign = ["ssh-keygen", "-qs", f"{tmp_path}/ours", "-I", "host", "-h", "-n", node3.address, f"{key}"]
    subprocess.run(sign, check=True)
    node3.exec(["sh", "-c", "cat > /tmp/host-cert.pub"], stdin=(tmp_path / "host-cert.pub").read_bytes())
    hosts = {
        name: {
            "ansible_host": node3.address,
            "ansible_port": 2299,
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={tmp_path}/{name}.known",
        }
        for name in ("ours", "theirs")
    }
    inventory = write_inventory(tmp_path / "hosts.yaml", fleet, hosts)
    with second_sshd(node3, 2299, HostCertificate="/tmp/host-cert.pub"):
        run = fab("-H", "all", "run", "--json", "hostname", inventory=inventory)
    node3.exec(["rm", "/tmp/host-cert.pub"])
    assert run.statuses == {"ours": "ok", "theirs": "host-key-unknown"}, run.out
    assert "no @cert-authority of known_hosts has signed its certificate" in run.error["said"]


def test_a_task_that_a_user_adds_gets_a_connection_that_checks_the_key(
    fab: Fab, fleet: Fleet, node3: Node, tmp_path: Path
) -> None:
    for name in ("tasks", "ctr_ferry", "fabric.yaml"):
        (tmp_path / name).symlink_to(CLONE / name)
    (tmp_path / "fabfile.py").write_text(
        "from fabric import task\n\n\n@task\ndef mine(c):\n    print(c.run('echo it ran', hide=True).stdout)\n"
    )
    words = ("--search-root", str(tmp_path))
    known = fab(*words, "-H", "node3", "mine")
    assert (known.exit, known.out.split()) == (0, ["it", "ran"]), known.err
    key = str(fleet.state / "ssh/id_ed25519")
    unknown = fab(*words, "-i", key, "-H", f"root@{node3.address}:{PORT}", "mine")
    assert (unknown.exit, unknown.out) == (4, "")
    assert unknown.err.startswith("host-key-unknown: ")
