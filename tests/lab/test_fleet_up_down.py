"""The rehearsal fleet comes up whole after whatever was before, and leaves nothing when it goes down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from ferry import eventually
from forkserver import CLONE
from free_network import beside

from lab import cgroups
from lab.fleet import Fleet, LabError
from lab.images import build, seed_image


@pytest.fixture
def second(fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """Another fleet beside the first, with a state folder and addresses of its own."""
    other = Fleet(tmp_path / "a b" / "state", cache=fleet.cache, network=beside(fleet.network))
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


class TestComingAndGoing:
    def test_up_twice_is_harmless(self, fleet: Fleet) -> None:
        before = {node.name: node.pid for node in fleet.nodes.values()}
        fleet.up()
        assert {node.name: node.pid for node in fleet.nodes.values()} == before

    def test_down_leaves_nothing_not_even_of_a_running_container(self, second: Fleet, tmp_path: Path) -> None:
        name = "docker.io/lab/running:1"
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
        cold = Fleet(tmp_path / "state", cache=tmp_path / "cache", network=beside(fleet.network))
        kill_up(cold, 1.5)
        assert fleet.nodes
        cold.down()
        assert traces(cold) == []
