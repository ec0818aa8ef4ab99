"""Hosts, disks or `fab` itself fail in the middle of a run: the others go on, and the record says what happened."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ferry import Fab, eventually, processes, write_inventory
from forkserver import ForkServer
from second_sshd import second_sshd

from lab.crowd import Crowd
from lab.fleet import Fleet, Node

QUICK, SLOW = "node2", ("node3", "node5")
WORK = f'[ "$(hostname)" = {QUICK} ] && echo quick || sleep 100'  # one host is done at once, the others are at work


class Runs(Fab):
    """`fab` with records of its own."""

    def __init__(self, inventory: Path, folder: Path, server: ForkServer) -> None:
        super().__init__(inventory, folder, server)
        self.runs = folder / "runs"

    def record(self) -> dict[str, Any]:
        """Return the only run.json."""
        (file,) = self.runs.glob("*/run.json")
        record: dict[str, Any] = json.loads(file.read_text())
        return record

    def told(self) -> dict[str, str]:
        """Return what the record says of every host of the last command: status, or the error's kind."""
        commands = self.record()["commands"] if list(self.runs.glob("*/run.json")) else []
        outcomes = commands[-1]["outcomes"] if commands else []
        return {o["host"]: o.get("error", {}).get("kind", o["status"]) for o in outcomes}


@pytest.fixture
def runs(fleet: Fleet, tmp_path: Path, fab: Fab) -> Runs:
    """`fab` over the fleet."""
    if not {QUICK, *SLOW} <= set(fleet.nodes):
        pytest.skip("needs node2, node3 and node5")
    return Runs(fleet.inventory, tmp_path, fab.server)


class Working:
    """A run in the middle: one host is done, two are at work, a fourth waits for its batch."""

    def __init__(self, runs: Runs, nodes: dict[str, Node], *words: str) -> None:
        self.runs, self.nodes = runs, nodes
        self.before = {name: processes(nodes[name]).keys() for name in SLOW}
        self.process = runs.start("-H", ",".join((QUICK, *SLOW)), "run", "--json", *words, WORK)
        assert eventually(self.begun), self.process.communicate(timeout=60)

    def begun(self) -> bool:
        """Tell whether the quick host is in the record and the others are at work."""
        asleep = all("sleep 100" in self.new(name).values() for name in SLOW)
        return asleep and self.runs.told().get(QUICK) == "ok"

    def new(self, name: str) -> dict[int, str]:
        """Return a node's processes since the run began."""
        return {pid: argv for pid, argv in processes(self.nodes[name]).items() if pid not in self.before[name]}

    def ended(self) -> tuple[int, str]:
        """Wait for `fab`; return its exit status and all that it said."""
        out, err = self.process.communicate(timeout=60)
        assert "Traceback" not in out + err
        return self.process.returncode, out + err

    def leaves_nothing(self) -> bool:
        """Tell whether no process of ours is left on the nodes, within the guard's patience."""
        return eventually(lambda: not any(self.new(name) for name in SLOW))


@pytest.fixture
def working(runs: Runs, fleet: Fleet) -> Iterator[Working]:
    """A run in the middle."""
    working = Working(runs, fleet.nodes)
    yield working
    working.process.kill()
    working.process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_an_interrupted_run_ends_at_once_and_reports_which_hosts_were_done(
    working: Working, number: int, status: int
) -> None:
    for _ in range(2):  # the second one changes nothing
        working.process.send_signal(number)
    working.process.wait(timeout=20)
    assert working.ended()[0] == status
    assert working.runs.record()["exit"] == status
    assert working.runs.told() == {QUICK: "ok", **dict.fromkeys(SLOW, "interrupted")}
    assert working.leaves_nothing()


def test_an_interrupted_run_never_starts_the_next_batch(runs: Runs, fleet: Fleet) -> None:
    before = processes(fleet.nodes["node3"]).keys()
    process = runs.start("-H", "node2,node3,node5", "run", "--json", "--serial", "2", WORK)
    assert eventually(lambda: runs.told().get(QUICK) == "ok")
    assert eventually(lambda: "sleep 100" in processes(fleet.nodes["node3"]).values())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert runs.told() == {QUICK: "ok", "node3": "interrupted", "node5": "not-started"}
    assert eventually(lambda: processes(fleet.nodes["node3"]).keys() <= before)


def test_a_killed_run_leaves_a_readable_record_and_no_process(working: Working) -> None:
    working.process.kill()
    assert working.ended()[0] == -signal.SIGKILL
    record = working.runs.record()
    assert record["ended"] is None and record["exit"] is None
    assert working.runs.told() == {QUICK: "ok"}
    shown = working.runs("show", "--run", record["id"])
    assert shown.exit == 0
    assert "killed" in shown.out and f"{QUICK}  ok" in shown.out
    assert all(name in shown.out for name in SLOW)
    (listed,) = json.loads(working.runs("runs", "--json").out)["commands"][0]["result"]["runs"]
    assert (listed["state"], listed["exit"], listed["statuses"]) == ("killed", None, {"ok": 1})
    assert working.leaves_nothing()


def test_a_host_that_dies_in_the_middle_is_reported_and_the_others_go_on(working: Working) -> None:
    lost, other = SLOW
    sessions = [pid for pid, argv in working.new(lost).items() if argv.startswith("sshd")]
    asleep = [pid for pid, argv in working.new(other).items() if argv == "sleep 100"]
    assert sessions and asleep
    subprocess.run(["kill", "-KILL", *map(str, sessions)], check=True)
    assert eventually(lambda: working.runs.told().get(lost) == "connection-lost"), working.runs.told()
    assert set(asleep) <= working.new(other).keys()  # nobody was held up or ended with it
    subprocess.run(["kill", *map(str, asleep)], check=True)
    assert working.ended()[0] == 1
    assert working.runs.told() == {QUICK: "ok", lost: "connection-lost", other: "command-failed"}
    assert working.leaves_nothing()


def test_an_sshd_that_refuses_half_the_connections_is_reached(
    fab: Fab, fleet: Fleet, node3: Node, tmp_path: Path
) -> None:
    with second_sshd(node3, 2223, MaxStartups="1:50:40", LogLevel="VERBOSE") as detail:
        options = f"-o UserKnownHostsFile={tmp_path}/known_hosts -o StrictHostKeyChecking=accept-new"
        host = {"ansible_host": node3.address, "ansible_port": 2223, "ansible_ssh_common_args": options}
        hosts = {f"m{number:02}": host for number in range(24)}
        run = Runs(write_inventory(tmp_path / "hosts.yaml", fleet, hosts), tmp_path, fab.server)(
            "-H", "all", "run", "--json", "true"
        )
        refused = detail().count("drop connection")
    assert run.statuses == dict.fromkeys(hosts, "ok")
    assert run.exit == 0
    assert refused > 0, "nothing was refused: this test shows nothing"
    assert len((tmp_path / "known_hosts").read_text().splitlines()) == 1


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own at a folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "test", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


LONG = "head -c 200000 /dev/zero | tr '\\0' x"


@pytest.mark.parametrize("full", ["from the start", "in the middle"])
def test_a_full_disk_for_records_is_reported_once_and_stops_nothing(
    fab: Fab, fleet: Fleet, tmp_path: Path, full: str
) -> None:
    with Crowd(fleet, 8) as crowd, small_disk(tmp_path / "runs", "300k"):
        runs = Runs(crowd.inventory, tmp_path, fab.server)
        if full == "from the start":
            with pytest.raises(OSError, match="No space"), (runs.runs / "filler").open("wb", buffering=0) as filler:
                while filler.write(b"x" * 4096):
                    pass
        run = runs("-H", "all", "run", "--json", LONG)
        assert run.exit == 0
        assert [len(o["result"]["stdout"]) for o in run.outcomes.values()] == [200000] * 8
        assert [line for line in run.err.splitlines() if "record" in line] == [
            line for line in run.err.splitlines() if "No space left" in line
        ]
        assert run.err.count("cannot be written") == 1, run.err


def test_a_records_folder_that_cannot_be_made_is_reported_once_and_stops_nothing(runs: Runs) -> None:
    runs.runs.write_text("no folder")
    run = runs("-H", f"{QUICK},node3", "run", "--json", "true")
    assert run.exit == 0
    assert run.statuses == {QUICK: "ok", "node3": "ok"}
    assert run.err.count("cannot be written") == 1


def test_no_log_is_named_where_none_could_be_written(runs: Runs) -> None:
    assert "\nlogs: fab show --log --run " in runs("-H", "node3", "run", "false").out
    shutil.rmtree(runs.runs)
    runs.runs.write_text("no folder")
    assert "logs: " not in runs("-H", "node3", "run", "false").out
