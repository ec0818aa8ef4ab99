"""Runbooks that deliver images do what their help says: where all is well, where a host is down, and a second time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ferry import Fab, Stage, leftovers
from registry_scene import RegistryScene
from runbook import (
    Runbook,
    gone_fixture,  # noqa: F401
    image_fixture,  # noqa: F401
    other_fixture,  # noqa: F401
    runbook_fixture,  # noqa: F401
)

from lab.images import BuiltImage


class TestRescueImage:
    def test_brings_todays_name_to_all_hosts_and_finds_it_there_the_second_time(
        self, scene: RegistryScene, runbook: Runbook, image: BuiltImage
    ) -> None:
        stage, nodes = scene.stage, scene.nodes
        old, new, inventory = stage.name(), scene.name(scene.registries.demo), scene.inventory()
        stage.seed(image, old, nodes=[nodes["node4"]])
        words = ("-H", ",".join(nodes), "--old", old, "--new", new)

        would = runbook("rescue-image", *words, "--dry-run", inventory=inventory)
        assert would.exit == 0, would.err
        assert f"{old} is on node4" in would.err
        assert {tuple(line.split()[:2]) for line in would.out.splitlines()} == {
            (name, "would-change") for name in nodes
        }
        assert not any(new in stage.records(node) for node in nodes.values())

        done = runbook("rescue-image", *words, inventory=inventory)
        assert done.exit == 0, done.err
        assert {tuple(line.split()[:2]) for line in done.out.splitlines()} == {(name, "changed") for name in nodes}
        for node in nodes.values():
            assert stage.records(node)[new].digest == image.target.digest
            assert stage.check(node, new) == "complete"
        assert stage.records(nodes["node4"])[old].digest == image.target.digest

        again = runbook("rescue-image", *words, inventory=inventory)
        assert again.exit == 0, again.err
        assert {line.split()[1] for line in again.out.splitlines()} == {"unchanged"}
        assert all("  0 B  " in line for line in again.out.splitlines())
        assert f"{new} is {image.target.digest}\n" in again.err
        assert stage.on_each(leftovers) == {name: [] for name in nodes}

    def test_does_the_others_where_a_host_is_down(
        self, scene: RegistryScene, runbook: Runbook, image: BuiltImage, gone: dict[str, dict[str, str]]
    ) -> None:
        old, new = scene.stage.name(), scene.name(scene.registries.absent)
        scene.stage.seed(image, old, nodes=[scene.nodes["node3"]])
        words = ("-H", "gone,node2,node3", "--old", old, "--new", new)
        done = runbook("rescue-image", *words, inventory=scene.inventory(hosts=gone))
        assert done.exit == 4, done.err
        assert "gone: host-unresolved: " in done.err
        for name in ("node2", "node3"):
            assert scene.stage.records(scene.nodes[name])[new].digest == image.target.digest

    def test_of_a_name_that_nobody_has_fails(self, scene: RegistryScene, runbook: Runbook) -> None:
        old, new = scene.stage.name(), scene.name(scene.registries.tls)
        done = runbook("rescue-image", "-H", "node2", "--old", old, "--new", new, inventory=scene.inventory())
        assert (done.exit, done.out) == (1, "")
        assert f"no host that answered has {old}" in done.err


class TestBeforeUpgrade:
    @pytest.fixture
    def names(self, scene: RegistryScene, image: BuiltImage, other: BuiltImage, tmp_path: Path) -> tuple[str, str]:
        """Two images on node3, which are the set; their registry is gone."""
        names = scene.name(scene.registries.absent), scene.name(scene.registries.absent, "tool")
        for built, name in zip((image, other), names, strict=True):
            scene.stage.seed(built, name, nodes=[scene.nodes["node3"]])
        (tmp_path / "set").write_text("# the next version\n{}\n{}\n".format(*names))
        return names

    def test_brings_the_set_to_every_node_and_finds_it_there_the_second_time(
        self, scene: RegistryScene, runbook: Runbook, names: tuple[str, str], tmp_path: Path
    ) -> None:
        stage, nodes, inventory = scene.stage, scene.nodes, scene.inventory(ctr_registries={})
        words = ("-H", ",".join(nodes), "--from", "node3", "--via", "ssh", "--set")

        would = runbook("before-upgrade", *words, "set", "--dry-run", inventory=inventory)
        assert would.exit == 1
        assert f": image-not-found: no image {names[0]} " in would.err
        assert all(stage.records(node) == {} for node in nodes.values() if node.name != "node3")

        done = runbook("before-upgrade", *words, "set", inventory=inventory)
        assert done.exit == 0, done.err
        for node in nodes.values():
            assert {stage.check(node, name) for name in names} == {"complete"}

        given = (tmp_path / "set").read_text()
        for again in (
            runbook("before-upgrade", *words, "-", inventory=inventory, stdin=given),
            runbook("before-upgrade", *words, "set", "--dry-run", inventory=inventory),
        ):
            assert again.exit == 0, again.err
            assert {line.split()[1] for line in again.out.splitlines()} == {"unchanged"}

    def test_says_no_where_a_node_is_down_or_an_image_is_nowhere(
        self,
        scene: RegistryScene,
        runbook: Runbook,
        names: tuple[str, str],
        *,
        gone: dict[str, dict[str, str]],
        tmp_path: Path,
    ) -> None:
        inventory = scene.inventory(ctr_registries={}, hosts=gone)
        done = runbook("before-upgrade", "-H", "gone,node2", "--set", "set", inventory=inventory)
        assert done.exit == 1
        assert "gone: host-unresolved: " in done.err
        assert scene.stage.check(scene.nodes["node2"], names[1]) == "complete"

        nowhere = scene.name(scene.registries.absent, "nowhere")
        (tmp_path / "more").write_text(nowhere)
        done = runbook("before-upgrade", "-H", "node2", "--set", "more", inventory=inventory)
        assert done.exit == 1
        assert f"no image {nowhere} " in done.err


class TestNewNode:
    @pytest.fixture
    def used(self, stage: Stage, image: BuiltImage, other: BuiltImage) -> Iterator[str]:
        """The image of a container on node2 and node4; node2 has another one, which no container uses."""
        nodes = [stage.nodes["node2"], stage.nodes["node4"]]
        stage.seed(image, name := stage.name(), nodes=nodes)
        stage.seed(other, stage.name("idle"), nodes=nodes[:1])
        stage.on_each(lambda node: node.real_ctr("containers", "create", name, stage.token), nodes)
        yield name
        stage.on_each(lambda node: node.real_ctr("containers", "rm", stage.token), nodes)

    def test_gets_what_its_group_runs_and_has_it_the_second_time(
        self, scene: RegistryScene, runbook: Runbook, used: str, image: BuiltImage
    ) -> None:
        node5, inventory = scene.nodes["node5"], scene.inventory(ctr_registries={})
        words = ("-H", "node5", "--like", "node2,node4,node5", "--via", "ssh")
        would = runbook("new-node", *words, "--dry-run", inventory=inventory)
        assert would.exit == 0, would.err
        assert would.out.splitlines()[0] == used
        assert would.out.splitlines()[1].startswith("node5  would-change  copied over SSH  1 image  ")
        assert scene.stage.records(node5) == {}

        done = runbook("new-node", *words, inventory=inventory)
        assert done.exit == 0, done.err
        assert {name: record.digest for name, record in scene.stage.records(node5).items()} == {
            used: image.target.digest
        }
        again = runbook("new-node", *words, inventory=inventory)
        assert again.exit == 0, again.err
        assert again.out.startswith("node5  unchanged  there already  1 image  0 B  ")

    def test_takes_the_group_of_the_inventory(self, fab: Fab, stage: Stage, runbook: Runbook, used: str) -> None:
        done = runbook("new-node", "-H", "node5", "--via", "ssh", inventory=fab.inventory)
        assert done.exit == 0, done.err
        assert "2/4 asking what runs on node4" in done.err
        assert used in stage.records(stage.nodes["node5"])

    def test_gets_what_the_others_run_where_a_host_is_down(
        self, scene: RegistryScene, runbook: Runbook, used: str, gone: dict[str, dict[str, str]]
    ) -> None:
        words = ("-H", "node5", "--like", "node2,gone", "--via", "ssh")
        done = runbook("new-node", *words, inventory=scene.inventory(ctr_registries={}, hosts=gone))
        assert done.exit == 4, done.err
        assert "gone: host-unresolved: " in done.err
        assert used in scene.stage.records(scene.nodes["node5"])

    def test_that_is_not_ready_or_has_no_group_gets_nothing(
        self, scene: RegistryScene, runbook: Runbook, used: str
    ) -> None:
        node5, inventory = scene.nodes["node5"], scene.inventory(ctr_registries={})
        assert used
        alone = runbook("new-node", "-H", "node5", inventory=inventory)
        assert (alone.exit, alone.out) == (2, "") and "--like is missing" in alone.err
        node5.stop_containerd()
        try:
            done = runbook("new-node", "-H", "node5", "--like", "node2", inventory=inventory)
        finally:
            node5.start_containerd()
        assert (done.exit, done.out) == (1, "")
        assert "node5: " in done.err and "; try: " in done.err
