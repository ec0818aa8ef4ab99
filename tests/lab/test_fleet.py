"""The rehearsal fleet has nodes like machines of their own, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from lab import __main__ as command_line
from lab import cgroups, debian
from lab.fleet import CACHE, Fleet, LabError, Node
from lab.images import NATIVE, BuiltImage, build, seed_image

CLONE = Path(__file__).resolve().parents[2]
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


def eventually(holds: Callable[[], bool], seconds: float = 5) -> bool:
    """Tell whether something becomes true within some seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


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


def beside(fleet: Fleet) -> str:
    """Return the network next to a fleet's own."""
    loopback, _, third = fleet.network.rpartition(".")
    return f"{loopback}.{int(third) + 1}"


@pytest.fixture
def second(fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """Another fleet beside the first, with a state folder and addresses of its own."""
    other = Fleet(tmp_path / "a b" / "state", cache=fleet.cache, network=beside(fleet))
    try:
        yield other
    finally:
        other.down()


def traces(fleet: Fleet) -> list[str]:
    """Return what of a fleet can be found on the machine, outside its cache."""
    found = [str(path) for path in (fleet.state,) if path.exists()]
    found += [str(h.folder / fleet.group) for h in cgroups.hierarchies() if (h.folder / fleet.group).exists()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            seen = (process / "cgroup").read_text() + (process / "mountinfo").read_text()
            seen += (process / "cmdline").read_text()
        except OSError:
            continue
        if fleet.group in seen or str(fleet.state).replace(" ", "\\040") in seen:
            found.append(f"process {process.name}")
    return found


class TestComingAndGoing:
    def test_up_twice_is_harmless(self, fleet: Fleet) -> None:
        before = {node.name: node.pid for node in fleet.nodes.values()}
        fleet.up()
        assert {node.name: node.pid for node in fleet.nodes.values()} == before

    def test_down_leaves_nothing_not_even_of_a_running_container(
        self, second: Fleet, tmp_path: Path, name: str
    ) -> None:
        second.up()
        for node in second.nodes.values():
            seed_image(node, build(tmp_path), [name])
            node.ctr("run", "--detach", name, f"lab-{uuid.uuid4().hex}", "/bin/sleep", "1000")
        assert traces(second)
        second.down()
        assert traces(second) == []

    def test_down_twice_is_harmless(self, second: Fleet) -> None:
        second.down()
        second.down()
        assert traces(second) == []

    def test_up_brings_back_a_node_that_died_and_a_service_that_stopped(self, second: Fleet) -> None:
        second.up()
        dead, lame = second.nodes["node3"], second.nodes["node4"]
        assert dead.pid
        os.kill(dead.pid, signal.SIGKILL)
        assert eventually(lambda: "node3" not in second.nodes)
        lame.stop_containerd()
        second.up()
        assert second.nodes["node3"].ctr("version").returncode == 0
        assert lame.services() == {"containerd": True, "sshd": True}

    def test_up_refuses_where_no_control_groups_are_mounted(self, second: Fleet) -> None:
        try:
            detail = without_control_groups(second, "up")
            assert "no control groups are mounted here" in detail and "nsenter --net" in detail
            assert second.nodes == {}
        finally:
            end(second)

    def test_down_refuses_where_no_control_groups_are_mounted(self, second: Fleet) -> None:
        second.up()
        try:
            before = {node.name: node.pid for node in second.nodes.values()}
            detail = without_control_groups(second, "down")
            assert "no control groups are mounted here" in detail
            assert {node.name: node.pid for node in second.nodes.values()} == before != {}
        finally:
            end(second)

    def test_down_ends_nodes_outside_its_control_groups_by_their_recorded_processes(
        self, second: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        second.up()
        monkeypatch.setattr(second, "group", f"{second.group}-elsewhere")  # as with hierarchies that were mounted later
        second.down()
        assert not second.nodes
        monkeypatch.undo()
        cgroups.destroy(second.group)
        assert traces(second) == []

    def test_addresses_that_another_fleet_has_are_not_taken(self, fleet: Fleet, tmp_path: Path) -> None:
        assert fleet.nodes
        rival = Fleet(tmp_path / "state", cache=fleet.cache, network=fleet.network)
        try:
            with pytest.raises(LabError, match=r":2222 cannot be had .* is a fleet of another clone up\?"):
                rival.up()
        finally:
            rival.down()
        assert traces(rival) == []
        assert all(all(node.services().values()) for node in fleet.nodes.values())

    def test_extra_nodes_are_like_node3_and_stay_in_the_inventory(self, second: Fleet) -> None:
        second.up(extra=2)
        second.up()
        assert {"node6", "node7"} <= set(second.nodes)
        assert second.nodes["node7"].address == f"{second.network}.7"
        assert f"node7: {{ ansible_host: {second.network}.7 }}" in second.inventory.read_text()
        assert second.nodes["node7"].version == second.nodes["node3"].version

    @pytest.mark.parametrize("seconds", [0.15, 0.3, 0.45, 0.6])
    def test_down_leaves_nothing_after_up_was_killed_half_way(self, second: Fleet, seconds: float) -> None:
        kill_up(second, seconds)
        second.down()
        assert traces(second) == []

    @pytest.mark.parametrize("seconds", [0.3, 0.45, 0.6])
    def test_up_completes_what_a_killed_up_began(self, second: Fleet, seconds: float) -> None:
        kill_up(second, seconds)
        second.up()
        assert all(all(node.services().values()) for node in second.nodes.values())

    def test_down_ends_a_download_whose_up_was_killed(self, fleet: Fleet, tmp_path: Path) -> None:
        cold = Fleet(tmp_path / "state", cache=tmp_path / "cache", network=beside(fleet))
        kill_up(cold, 1.5)
        assert fleet.nodes
        cold.down()
        assert traces(cold) == []


def program_of(fleet: Fleet, act: str) -> list[str]:
    """Return the command line that lets another process do something with a fleet."""
    program = (
        "from pathlib import Path; from lab.fleet import Fleet; import sys;"
        f"Fleet(Path(sys.argv[1]), cache=Path(sys.argv[2]), network=sys.argv[3]).{act}()"
    )
    return [sys.executable, "-c", program, str(fleet.state), str(fleet.cache), fleet.network]


def without_control_groups(fleet: Fleet, act: str) -> str:
    """Do something with a fleet where none are mounted, as in `ip netns exec`; return its last words."""
    hide = 'umount --recursive --lazy /sys/fs/cgroup && exec "$@"'
    argv = ["unshare", "--mount", "--propagation=private", "sh", "-c", hide, "hidden", *program_of(fleet, act)]
    done = subprocess.run(argv, cwd=CLONE, capture_output=True, text=True, check=False)
    assert done.returncode, "it did as if all was well"
    return done.stderr.splitlines()[-1]


def end(fleet: Fleet) -> None:
    """End every process of a fleet by its process 1, whatever became of its groups."""
    for node in fleet.nodes.values():
        if node.pid:
            os.kill(node.pid, signal.SIGKILL)


def kill_up(fleet: Fleet, seconds: float) -> None:
    """Start `up` in another process and kill that after some seconds."""
    argv = program_of(fleet, "up")
    with subprocess.Popen(argv, cwd=CLONE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        time.sleep(seconds)
        up.kill()


class TestCommandLine:
    def test_without_root_it_says_so_in_one_sentence(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert command_line.main(["up"]) == 2
        assert capsys.readouterr().err == "lab: the rehearsal fleet needs root: run it as root or with sudo\n"

    def test_on_another_system_it_says_so_in_one_sentence(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def elsewhere() -> str:
            raise debian.Unavailable("the rehearsal fleet needs Debian 12 or later")

        monkeypatch.setattr(debian, "codename", elsewhere)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert command_line.main(["up"]) == 2
        assert capsys.readouterr().err == "lab: the rehearsal fleet needs Debian 12 or later\n"

    def test_status_shows_a_line_per_node(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(command_line, "Fleet", lambda: fleet)  # the default one may be another worker's
        assert command_line.main(["status"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == list(fleet.nodes)
        assert all(line.endswith("containerd sshd") for line in lines)

    def test_exec_runs_on_the_node_and_keeps_the_exit_status(self, fleet: Fleet) -> None:
        assert fleet.nodes
        argv = [sys.executable, "-m", "lab", "exec", "node3", "--", "sh", "-c", "hostname; exit 7"]
        done = subprocess.run(argv, cwd=CLONE, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (7, "node3\n")

    def test_an_unknown_node_is_named(self, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
        assert command_line.main(["exec", "node99", "--", "true"]) == 2
        assert "there is no node99" in capsys.readouterr().err
        assert fleet.nodes

    def test_a_failing_command_names_node_and_reason(self, fleet: Fleet) -> None:
        node = next(iter(fleet.nodes.values()))
        with pytest.raises(LabError, match=f"{node.name}: ls /nowhere: exit 2: .*No such file"):
            node.exec(["ls", "/nowhere"])


def test_the_cache_is_below_the_lab() -> None:
    assert CACHE == CLONE / "lab/.state/cache"
