"""`make demo` tells the whole story: a dead name on one old host becomes today's name on all; also a second time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkserver import CLONE
from free_network import beside

from lab.fleet import Fleet
from lab.rehearsal import NEW, OLD
from lab.standing import StandingRegistries


@pytest.fixture
def second(fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet beside that of the tests, which the demo brings up."""
    other = Fleet(tmp_path / "state", cache=fleet.cache, network=beside(fleet.network))
    try:
        yield other
    finally:
        other.down()


def demo(fleet: Fleet, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the demo on a fleet."""
    env = {**os.environ, "CTR_FERRY_LAB": f"{fleet.state}:{fleet.network}", "HOME": str(home)}
    env["FABRIC_FLEET_RUNS"] = str(home / "runs")
    argv = [sys.executable, "-m", "lab.demo"]
    return subprocess.run(
        argv, cwd=CLONE, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def names(fleet: Fleet, name: str) -> set[str]:
    """Return the nodes that have an image under a name."""
    listed = {node.name: node.real_ctr("images", "ls", "-q").stdout.decode().split() for node in fleet.nodes.values()}
    return {node for node, images in listed.items() if name in images}


def test_a_dead_name_on_one_host_becomes_todays_name_on_all(second: Fleet, tmp_path: Path) -> None:
    for _ in range(2):
        done = demo(second, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr.startswith("lab: bringing up 5 nodes\nlab: bringing up two registries")
        assert names(second, NEW) == set(second.nodes) and "node1" in names(second, OLD)
        assert StandingRegistries(second).tls.digest(NEW.partition("/")[2])
        assert {"named", "pulled", "copied"} <= set(re.findall(r"^\S.* changed +(\w+) ", done.stdout, re.MULTILINE))
