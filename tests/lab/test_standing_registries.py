"""`python -m lab up` brings two registries along. They stand until `down`, and make room for those of a test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ferry import eventually
from free_network import beside

from lab import cgroups
from lab.fleet import Fleet
from lab.images import build, seed_image
from lab.registries import Registries
from lab.standing import DEMO, DEMO_NODES, PLAIN, StandingRegistries

NAME = f"{PLAIN}:5000/standing/app:1"


@pytest.fixture
def second(fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """Another fleet beside that of the tests."""
    other = Fleet(tmp_path / "state", cache=fleet.cache, network=beside(fleet.network))
    try:
        other.up()
        yield other
    finally:
        other.down()


def listed(fleet: Fleet) -> set[str]:
    """Return the registries of a fleet's inventory."""
    return set(yaml.safe_load(fleet.inventory.read_text())["all"]["vars"].get("ctr_registries", ()))


def address(fleet: Fleet, node: str, name: str) -> list[str]:
    """Return the address that a node resolves a name to."""
    return fleet.nodes[node].exec(["getent", "ahostsv4", name], check=False).stdout.decode().split()[:1]


def processes(fleet: Fleet) -> set[int]:
    """Return the registries' processes."""
    return cgroups.members(f"{fleet.group}/standing")


def test_nodes_and_inventory_know_the_registries_until_they_go_down(second: Fleet) -> None:
    standing = StandingRegistries(second)
    assert listed(second) == set() and not standing.down()
    standing.up()
    assert listed(second) == {DEMO, f"{PLAIN}:5000"}
    for name in second.nodes:
        assert address(second, name, PLAIN) == [standing.plain.address]
        assert (address(second, name, DEMO) == [standing.tls.address]) == (name in DEMO_NODES)
    second.up()
    assert listed(second) == {DEMO, f"{PLAIN}:5000"}, "a second `up` of the fleet forgets them"
    assert standing.down()
    assert listed(second) == processes(second) == set()
    assert address(second, "node3", PLAIN) == address(second, "node3", DEMO) == []


def test_up_leaves_registries_that_run_and_brings_back_one_that_died_with_its_images(
    second: Fleet, tmp_path: Path
) -> None:
    standing, node = StandingRegistries(second), second.nodes["node3"]
    standing.up()
    image = build(tmp_path / "image")
    seed_image(node, image, [NAME])
    node.ctr("images", "push", "--plain-http", NAME)
    before = processes(second)
    StandingRegistries(second).up()
    assert processes(second) == before
    os.kill(next(iter(cgroups.members(f"{second.group}/standing/plain"))), signal.SIGKILL)
    assert eventually(lambda: len(processes(second)) < len(before))
    StandingRegistries(second).up()
    node.ctr("images", "rm", NAME)
    node.ctr("images", "pull", "--plain-http", NAME)
    assert standing.plain.digest("standing/app:1") == image.target.digest


def test_registries_of_a_test_set_them_aside_meanwhile(second: Fleet) -> None:
    standing = StandingRegistries(second)
    standing.up()
    with Registries(second) as registries:
        assert listed(second) == processes(second) == set()
        assert address(second, "node1", DEMO) == [registries.tls.address]
    assert listed(second) == {DEMO, f"{PLAIN}:5000"} and processes(second)
    assert address(second, "node1", DEMO) == [standing.tls.address]


def test_down_of_the_fleet_ends_them(second: Fleet) -> None:
    StandingRegistries(second).up()
    group = f"{second.group}/standing"
    second.down()
    assert cgroups.members(group) == set()
    assert not second.state.exists()
