"""The rehearsal fleet has nodes like machines of their own."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

import paramiko
import pytest
from ferry import eventually
from forkserver import CLONE

from lab import cgroups
from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build, seed_image

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"


def over_ssh(fleet: Fleet, node: Node, command: str, user: str = "root", stdin: str = "") -> tuple[int, str]:
    """Run a command over SSH; return its exit status and what it said on both outputs."""
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(fleet.state / "ssh/known_hosts"))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.connect(
            node.address,
            node.port,
            user,
            key_filename=str(fleet.state / "ssh/id_ed25519"),
            look_for_keys=False,
            allow_agent=False,
        )
        with client.get_transport().open_session() as channel:  # type: ignore[union-attr]
            channel.set_combine_stderr(True)
            channel.exec_command(command)
            channel.sendall(stdin.encode())
            channel.shutdown_write()
            detail = b"".join(iter(lambda: channel.recv(65536), b""))
            return channel.recv_exit_status(), detail.decode().strip()


@pytest.fixture
def name() -> str:
    """A reference that no other test uses."""
    return f"docker.io/lab/{uuid.uuid4().hex[:12]}:1"


@pytest.fixture
def image(fleet: Fleet, tmp_path: Path) -> BuiltImage:
    """A small image of one platform; the fleet has been up, so there is a busybox."""
    assert fleet.nodes
    return build(tmp_path, layers=(1000, 2000))


class TestNodes:
    def test_every_node_answers_over_ssh_with_its_own_hostname(self, fleet: Fleet, node: Node) -> None:
        status, detail = over_ssh(fleet, node, "hostname; getent hosts $(hostname)")
        assert (status, detail.split()) == (0, [node.name, node.address, node.name])

    def test_every_node_has_the_ctr_version_of_its_kind(self, fleet: Fleet, node: Node) -> None:
        versions = {"node1": "v1.", "node2": "1.4.", "node3": "1.6.", "node4": "1.7.", "node5": "2."}
        status, detail = over_ssh(fleet, node, " ".join([*node.model.ctr, "--version"]))
        assert status == 0
        assert detail.split()[-1] == node.version
        assert node.version.startswith(versions[node.name])

    def test_node1_has_no_tag(self, fleet: Fleet, node1: Node) -> None:
        status, detail = over_ssh(fleet, node1, "ctr images tag a b")
        assert (status, detail) == (3, "No help topic for 'tag'")

    def test_the_daemon_answers_at_its_socket(self, node: Node) -> None:
        assert node.exec(["test", "-S", node.socket]).returncode == 0
        assert b"Server:" in node.ctr("version").stdout

    def test_cri_is_on_where_the_node_says_so(self, node: Node) -> None:
        plugins = [line.split() for line in node.real_ctr("plugins", "ls").stdout.decode().splitlines()]
        states = [words[-1] for words in plugins if words[:2] == ["io.containerd.grpc.v1", "cri"]]
        assert states == (["ok"] if node.cri else [])

    def test_node4_has_ctr_only_through_k3s_and_in_the_namespace_k8s_io(
        self, fleet: Fleet, node4: Node, image: BuiltImage, name: str
    ) -> None:
        assert over_ssh(fleet, node4, "command -v ctr containerd runc") == (1, "")
        seed_image(node4, image, [name])
        assert name in over_ssh(fleet, node4, "k3s ctr images ls -q")[1].split()

    def test_node5_has_ctr_only_at_the_path_of_rke2(self, fleet: Fleet, node5: Node) -> None:
        assert over_ssh(fleet, node5, "command -v ctr containerd runc k3s") == (1, "")
        assert over_ssh(fleet, node5, "test -x /var/lib/rancher/rke2/bin/ctr")[0] == 0

    def test_a_node_sees_neither_homes_nor_processes_of_the_machine(self, fleet: Fleet, node: Node) -> None:
        # The clone's path may show, because node1's stand-in needs its script there; the clone does not.
        assert over_ssh(fleet, node, f"ls {CLONE}/pyproject.toml")[0] == 2
        assert over_ssh(fleet, node, "grep -l 'pytes[t]' /proc/[0-9]*/cmdline")[1] == ""
        assert over_ssh(fleet, node, "ls -A /home")[1] == ("ops\nops2" if node.model.layout == "sudo" else "")


class TestUsers:
    def test_ops_finds_ctr_only_with_sudo_which_asks_nothing(self, fleet: Fleet, node3: Node) -> None:
        assert over_ssh(fleet, node3, "command -v ctr", "ops") == (1, "")
        status, detail = over_ssh(fleet, node3, "sudo -n ctr version", "ops")
        assert status == 0
        assert "Server:" in detail

    def test_the_sudo_of_ops2_asks_for_a_password(self, fleet: Fleet, node3: Node) -> None:
        assert over_ssh(fleet, node3, "sudo -n ctr version", "ops2") == (1, "sudo: a password is required")
        status, detail = over_ssh(fleet, node3, "sudo -S -p '' ctr version", "ops2", "ops2-secret\n")
        assert status == 0
        assert "Server:" in detail

    def test_ops2_and_root_find_ctr_on_their_path(self, fleet: Fleet, node3: Node) -> None:
        for user in ("root", "ops2"):
            assert over_ssh(fleet, node3, "command -v ctr", user) == (0, "/usr/local/sbin/ctr")

    def test_neither_has_rights_on_the_socket(self, fleet: Fleet, node3: Node) -> None:
        for user in ("ops", "ops2"):
            status, detail = over_ssh(fleet, node3, "/usr/local/sbin/ctr images ls", user)
            assert status == 1
            assert "permission denied" in detail


class TestImages:
    @pytest.fixture(params=["node1", "node3", "node5"])
    def node(self, fleet: Fleet, request: pytest.FixtureRequest) -> Node:
        """Three kinds of ctr are enough."""
        return fleet.nodes[request.param]

    def test_an_image_is_complete_and_its_container_runs(self, node: Node, image: BuiltImage, name: str) -> None:
        seed_image(node, image, [name])
        assert b"complete (3/3)" in node.real_ctr("images", "check", f"name=={name}").stdout
        detail = node.ctr("run", "--rm", name, f"lab-{uuid.uuid4().hex}", "/bin/echo", "hello").stdout
        assert detail == b"hello\n"

    def test_a_docker_image_runs_too(self, node: Node, tmp_path: Path, name: str) -> None:
        image = build(tmp_path, media="docker", seed=1)
        seed_image(node, image, [name])
        detail = node.ctr("run", "--rm", name, f"lab-{uuid.uuid4().hex}", "/bin/cat", "/etc/platform").stdout
        assert detail == f"{NATIVE}\n".encode()

    def test_several_names_point_at_one_digest(self, node: Node, image: BuiltImage, name: str) -> None:
        names = [name, name.replace("docker.io", "172.1.1.34:5000")]
        seed_image(node, image, names, "default")
        listed = node.real_ctr("images", "ls", namespace="default").stdout.decode().splitlines()
        digests = {words[0]: words[2] for words in map(str.split, listed)}
        assert [digests[n] for n in names] == [image.target.digest] * 2

    def test_an_index_comes_with_all_its_platforms(self, node: Node, tmp_path: Path, name: str) -> None:
        image = build(tmp_path, platforms=(NATIVE, OTHER), seed=2)
        seed_image(node, image, [name], "default")
        present = set(node.real_ctr("content", "ls", "-q", namespace="default").stdout.decode().split())
        assert set(image.blobs) <= present

    def test_a_part_of_an_index_can_be_had(self, node: Node, tmp_path: Path, name: str) -> None:
        image = build(tmp_path, platforms=(NATIVE, OTHER), seed=3)
        seed_image(node, image, [name], "default", blobs=image.of(NATIVE) | {image.manifests[OTHER]})
        present = set(node.real_ctr("content", "ls", "-q", namespace="default").stdout.decode().split())
        assert image.of(NATIVE) <= present
        assert image.configs[OTHER] not in present

    def test_an_image_of_another_platform_can_be_had(self, node: Node, tmp_path: Path, name: str) -> None:
        if node.real_is_legacy and node.version.startswith(("v1.0", "v1.1")):
            pytest.skip(f"ctr {node.version} cannot import another platform's image")
        seed_image(node, build(tmp_path, platforms=(OTHER,), seed=4), [name], "default")
        assert name in node.real_ctr("images", "ls", "-q", namespace="default").stdout.decode().split()

    def test_cri_labels_new_names_where_it_is_on(self, node: Node, image: BuiltImage, name: str) -> None:
        seed_image(node, image, [name])

        def marked() -> bool:
            return b"io.cri-containerd.image=managed" in node.ctr("images", "ls", f"name=={name}").stdout

        assert eventually(marked) if node.cri else not eventually(marked, 0.3)

    def test_the_same_arguments_give_the_same_image(self, fleet: Fleet, tmp_path: Path) -> None:
        assert fleet.nodes
        first, second = (build(tmp_path / part, layers=(5000,), media="docker") for part in "ab")
        assert first.target == second.target
        assert build(tmp_path / "c", layers=(5000,), media="docker", seed=9).target != first.target


class TestServices:
    def test_containerd_stops_and_starts(self, node2: Node) -> None:
        node2.stop_containerd()
        try:
            assert node2.services() == {"containerd": False, "sshd": True}
            assert node2.ctr("images", "ls", check=False).returncode == 1
        finally:
            node2.start_containerd()
        assert node2.ctr("images", "ls").returncode == 0

    def test_sshd_stops_and_starts(self, fleet: Fleet, node2: Node) -> None:
        node2.stop_sshd()
        try:
            with pytest.raises(OSError, match="Unable to connect"):
                over_ssh(fleet, node2, "true")
        finally:
            node2.start_sshd()
        assert over_ssh(fleet, node2, "true") == (0, "")

    def test_nothing_listens_but_on_the_fleets_own_addresses(self, fleet: Fleet) -> None:
        inodes = set()
        for pid in cgroups.members(fleet.group):
            with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                inodes |= {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        listening = set()
        for table in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] in ("0A", "07") and f"socket:[{words[9]}]" in inodes:
                    listening.add(words[1].split(":")[0])
        nodes = {bytes(map(int, n.address.split(".")))[::-1].hex().upper() for n in fleet.nodes.values()}
        assert nodes <= listening
        assert {address[2:] for address in listening} == {next(iter(nodes))[2:]}  # registries may be up, too
