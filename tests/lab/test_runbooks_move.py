"""`move-registry.sh` names, pushes and verifies every image of a dead registry, and pushes over nothing else."""

from __future__ import annotations

import pytest
from ferry import Stage, leftovers
from registry_scene import RegistryScene
from runbook import (
    Runbook,
    gone_fixture,  # noqa: F401
    image_fixture,  # noqa: F401
    other_fixture,  # noqa: F401
    runbook_fixture,  # noqa: F401
)

from lab.images import BuiltImage


class TestMoveRegistry:
    @pytest.fixture
    def dead(self, stage: Stage) -> str:
        """A registry that is gone; no other test has its name."""
        return f"{stage.token}.example:5000"

    def test_names_pushes_and_verifies_every_image_and_finds_it_done_the_second_time(
        self, scene: RegistryScene, runbook: Runbook, dead: str, image: BuiltImage, other: BuiltImage
    ) -> None:
        stage, goal, nodes = scene.stage, scene.registries.tls, scene.nodes
        app, tool = stage.name(registry=dead), stage.name("tool", registry=dead)
        new_app, new_tool = scene.name(goal), scene.name(goal, "tool")
        stage.seed(image, app)
        stage.seed(other, tool, nodes=[nodes["node3"]])
        words = ("-H", ",".join(nodes), "--from", dead, "--to", goal.name)
        inventory = scene.inventory()

        would = runbook("move-registry", *words, "--dry-run", inventory=inventory)
        assert would.exit == 0, would.err
        assert would.out.splitlines() == [
            f"{new_app}  would-change by node1: {image.target.digest}  {','.join(nodes)}",
            f"{new_tool}  would-change by node3: {other.target.digest}  node3",
        ]
        assert not any(new_app in stage.records(node) for node in nodes.values())
        assert scene.there(goal, new_app) is None

        first = runbook("move-registry", *words, inventory=inventory)
        assert first.exit == 0, first.err
        assert first.out == would.out.replace("would-change", "changed")
        assert scene.there(goal, new_app) == image.target.digest
        assert scene.there(goal, new_tool) == other.target.digest
        for node in nodes.values():
            records = stage.records(node)
            assert records[new_app].digest == records[app].digest == image.target.digest
            assert (new_tool in records) == (node.name == "node3")

        again = runbook("move-registry", *words, inventory=inventory)
        assert (again.exit, again.out) == (0, first.out.replace("changed", "unchanged"))
        assert stage.on_each(leftovers) == {name: [] for name in nodes}

    def test_does_the_others_where_a_host_is_down(
        self, scene: RegistryScene, runbook: Runbook, dead: str, image: BuiltImage, gone: dict[str, dict[str, str]]
    ) -> None:
        goal, new = scene.registries.tls, scene.name(scene.registries.tls)
        scene.stage.seed(image, scene.stage.name(registry=dead))
        words = ("-H", "gone,node2,node3", "--from", dead, "--to", goal.name)
        done = runbook("move-registry", *words, inventory=scene.inventory(hosts=gone))
        assert done.exit == 4, done.err
        assert "gone: host-unresolved: " in done.err
        assert done.out == f"{new}  changed by node2: {image.target.digest}  node2,node3\n"

    @pytest.mark.parametrize("step", ["1/3", "2/3", "3/3"])
    def test_may_be_interrupted_and_run_again(
        self, scene: RegistryScene, runbook: Runbook, dead: str, image: BuiltImage, step: str
    ) -> None:
        goal, new = scene.registries.tls, scene.name(scene.registries.tls)
        scene.stage.seed(image, scene.stage.name(registry=dead))
        words = ("-H", "node2,node3", "--from", dead, "--to", goal.name)
        cut = runbook.cut_off("move-registry", *words, at=step, inventory=(inventory := scene.inventory()))
        assert (cut.exit, cut.out) == (130, "")
        done = runbook("move-registry", *words, inventory=inventory)
        assert done.exit == 0, done.err
        assert scene.there(goal, new) == image.target.digest
        assert scene.stage.on_each(leftovers) == {name: [] for name in scene.nodes}

    def test_lets_the_next_host_push_where_one_does_not_reach_the_registry(
        self, scene: RegistryScene, runbook: Runbook, dead: str, image: BuiltImage
    ) -> None:
        goal, new = scene.registries.demo, scene.name(scene.registries.demo)
        scene.stage.seed(image, scene.stage.name(registry=dead))
        words = ("-H", "node4,node5,node3", "--from", dead, "--to", goal.name)
        done = runbook("move-registry", *words, inventory=scene.inventory())
        assert done.exit == 0, done.err
        assert done.out == f"{new}  changed by node3: {image.target.digest}  node4,node5,node3\n"
        assert scene.there(goal, new) == image.target.digest

    def test_pushes_nothing_over_another_digest(
        self, scene: RegistryScene, runbook: Runbook, dead: str, image: BuiltImage, other: BuiltImage
    ) -> None:
        goal, new = scene.registries.tls, scene.name(scene.registries.tls)
        old, split = scene.stage.name(registry=dead), scene.stage.name("split", registry=dead)
        scene.stage.seed(other, new, nodes=[scene.nodes["node4"]])
        assert scene.push(["node4"], "--ref", new).exit == 0
        scene.stage.seed(image, old)
        for node, built in (("node2", image), ("node3", other)):
            scene.stage.seed(built, split, nodes=[scene.nodes[node]])
        words = ("-H", "node2,node3", "--from", dead, "--to", goal.name)
        done = runbook("move-registry", *words, inventory=scene.inventory())
        assert done.exit == 1
        assert done.out.splitlines() == [
            f"{new}  failed: reference-exists on node2  node2,node3",
            f"{scene.name(goal, 'split')}  failed: its hosts have 2 digests under the old name  node2,node3",
        ]
        assert scene.there(goal, new) == other.target.digest
        assert scene.there(goal, scene.name(goal, "split")) is None

    def test_takes_a_whole_copy_and_names_the_host_that_has_none(
        self, scene: RegistryScene, runbook: Runbook, dead: str, image: BuiltImage
    ) -> None:
        goal, old, new = scene.registries.tls, scene.stage.name(registry=dead), scene.name(scene.registries.tls)
        layer = next(iter(image.layers.values()))[-1]
        scene.stage.seed(image, old, nodes=[scene.nodes["node4"], scene.nodes["node5"]])
        scene.nodes["node4"].real_ctr("content", "rm", layer)
        words = ("-H", "node4,node5", "--from", dead, "--to", goal.name)
        done = runbook("move-registry", *words, inventory=scene.inventory())
        assert done.exit == 1
        assert done.out == f"{new}  changed by node5: {image.target.digest}  node4,node5\n"
        assert f"node4: {new} is incomplete" in done.err
        assert scene.there(goal, new) == image.target.digest

    def test_of_a_registry_without_images_fails(self, scene: RegistryScene, runbook: Runbook, dead: str) -> None:
        words = ("-H", "node2,node3", "--from", dead, "--to", scene.registries.tls.name)
        done = runbook("move-registry", *words, inventory=scene.inventory())
        assert (done.exit, done.out) == (1, "")
        assert f"no host that answered has an image of {dead}" in done.err
