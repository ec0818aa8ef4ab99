"""Each runbook does on the fleet what its help says: where all is well, where a host is down, and a second time."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from ferry import Fab, Stage, leftovers
from registry_scene import RegistryScene
from runbook import Runbook

from lab.fleet import Fleet
from lab.images import BuiltImage, build


@pytest.fixture
def image(fleet: Fleet, tmp_path: Path) -> BuiltImage:
    """An image of this test alone: no node has its blobs yet."""
    assert fleet.nodes
    return build(tmp_path / "image", layers=(1000, 2000), seed=secrets.randbits(32))


@pytest.fixture
def other(fleet: Fleet, tmp_path: Path) -> BuiltImage:
    """Another one."""
    assert fleet.nodes
    return build(tmp_path / "other", layers=(1000,), seed=secrets.randbits(32))


@pytest.fixture
def gone(fleet: Fleet) -> dict[str, dict[str, str]]:
    """A host on whose address nothing listens."""
    return {"gone": {"ansible_host": f"{fleet.network}.150"}}


@pytest.fixture
def runbook(fab: Fab, scene: RegistryScene, tmp_path: Path) -> Runbook:
    """The runbooks, with the passwords of the registries."""
    return Runbook(fab, tmp_path, scene.registries.environment)


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
        assert {line.split()[-2] for line in again.out.splitlines()} == {"0"}
        assert stage.on_each(leftovers) == {name: [] for name in nodes}

    def test_does_the_others_where_a_host_is_down(
        self, scene: RegistryScene, runbook: Runbook, image: BuiltImage, gone: dict[str, dict[str, str]]
    ) -> None:
        old, new = scene.stage.name(), scene.name(scene.registries.absent)
        scene.stage.seed(image, old, nodes=[scene.nodes["node3"]])
        words = ("-H", "gone,node2,node3", "--old", old, "--new", new)
        done = runbook("rescue-image", *words, inventory=scene.inventory(hosts=gone))
        assert done.exit == 4, done.err
        assert "gone: host-unreachable: " in done.err
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
        """Two images on node3, which are the set."""
        names = scene.stage.name(), scene.stage.name("tool")
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
        assert "gone: host-unreachable: " in done.err
        assert scene.stage.check(scene.nodes["node2"], names[1]) == "complete"

        (tmp_path / "more").write_text(scene.stage.name("nowhere"))
        done = runbook("before-upgrade", "-H", "node2", "--set", "more", inventory=inventory)
        assert done.exit == 1
        assert f"no image {scene.stage.name('nowhere')} " in done.err


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
        assert would.out.startswith("node5  would-change  ssh  1 image  ")
        assert scene.stage.records(node5) == {}

        done = runbook("new-node", *words, inventory=inventory)
        assert done.exit == 0, done.err
        assert {name: record.digest for name, record in scene.stage.records(node5).items()} == {
            used: image.target.digest
        }
        again = runbook("new-node", *words, inventory=inventory)
        assert again.exit == 0, again.err
        assert again.out.startswith("node5  unchanged  ") and again.out.endswith("  1 image  0 bytes\n")

    def test_takes_the_group_of_the_inventory(self, fab: Fab, stage: Stage, runbook: Runbook, used: str) -> None:
        done = runbook("new-node", "-H", "node5", "--via", "ssh", inventory=fab.inventory)
        assert done.exit == 0, done.err
        assert "2/4 asking node4 what they run" in done.err
        assert used in stage.records(stage.nodes["node5"])

    def test_gets_what_the_others_run_where_a_host_is_down(
        self, scene: RegistryScene, runbook: Runbook, used: str, gone: dict[str, dict[str, str]]
    ) -> None:
        words = ("-H", "node5", "--like", "node2,gone", "--via", "ssh")
        done = runbook("new-node", *words, inventory=scene.inventory(ctr_registries={}, hosts=gone))
        assert done.exit == 4, done.err
        assert "gone: host-unreachable: " in done.err
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
        assert "gone: host-unreachable: " in done.err
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


class TestNightlyDrift:
    NODES = "node2,node3,node4"

    @pytest.fixture
    def app(self, stage: Stage, image: BuiltImage, tmp_path: Path) -> str:
        """An image on the hosts, and the only one in the set."""
        stage.seed(image, name := stage.name())
        (tmp_path / "set").write_text(f"# what runs here\n{name}\n")
        return name

    @pytest.fixture
    def words(self) -> tuple[str, ...]:
        """The options of each night."""
        return ("-H", self.NODES, "--set", "set", "--state", "state")

    def test_tells_a_change_once(
        self, stage: Stage, runbook: Runbook, app: str, *, words: tuple[str, ...], other: BuiltImage, image: BuiltImage
    ) -> None:
        first = runbook("nightly-drift", *words)
        assert (first.exit, first.err) == (0, "")
        assert "drift" not in first.out
        second = runbook("nightly-drift", *words)
        assert (second.exit, second.out, second.err) == (0, "", "")

        stage.seed(other, app, nodes=[stage.nodes["node3"]])
        would = runbook("nightly-drift", *words, "--dry-run")
        changed = runbook("nightly-drift", *words)
        assert (would.exit, changed.exit) == (1, 1)
        assert would.out == changed.out
        (line,) = changed.out.splitlines()
        assert line.startswith(f"+ node3: drift: {app} in namespace k8s.io has another digest than expected (")
        assert runbook("nightly-drift", *words) == type(changed)(1, "", "")

        stage.seed(image, app, nodes=[stage.nodes["node3"]])
        mended = runbook("nightly-drift", *words)
        (line,) = mended.out.splitlines()
        assert mended.exit == 0 and line.startswith(f"- node3: drift: {app} ")

    def test_keeps_what_it_knows_of_a_host_that_is_down(
        self, scene: RegistryScene, runbook: Runbook, app: str, other: BuiltImage, fleet: Fleet
    ) -> None:
        scene.stage.seed(other, app, nodes=[scene.nodes["node3"]])
        words = ("-H", "node2,node4,node5,away", "--set", "set", "--state", "state")
        away, there = (
            scene.inventory(ctr_registries={}, hosts={"away": {"ansible_host": f"{fleet.network}.{number}"}})
            for number in (150, 3)
        )
        assert "+ away: drift: " in runbook("nightly-drift", *words, inventory=there).out
        down = runbook("nightly-drift", *words, inventory=away)
        assert [line.partition(" (")[0] for line in down.out.splitlines()] == ["+ away: unreachable"]
        assert down.exit == 4
        assert runbook("nightly-drift", *words, inventory=away).out == ""
        assert runbook("nightly-drift", *words, inventory=there).out == "- away: unreachable\n"

    def test_mails_what_has_changed_and_tells_it_again_if_the_mail_was_not_sent(
        self, stage: Stage, runbook: Runbook, app: str, *, words: tuple[str, ...], other: BuiltImage, tmp_path: Path
    ) -> None:
        assert runbook("nightly-drift", *words).exit == 0
        state = (tmp_path / "state").read_text()
        stage.seed(other, app, nodes=[stage.nodes["node3"]])
        mail = tmp_path / "mail"
        mail.write_text("#!/bin/sh\nexit 75\n")
        mail.chmod(0o755)
        failed = runbook("nightly-drift", *words, "--mail", "ops@site.example")
        assert (failed.exit, failed.out) == (1, "") and "the mail was not sent" in failed.err
        assert (tmp_path / "state").read_text() == state

        mail.write_text('#!/bin/sh\n{ echo "$@"; cat; } >>mails\n')
        sent = runbook("nightly-drift", *words, "--mail", "ops@site.example")
        assert (sent.exit, sent.out, sent.err) == (1, "", "")
        subject, line = (tmp_path / "mails").read_text().splitlines()
        assert subject == f"-s nightly-drift.sh: changes on {self.NODES} ops@site.example"
        assert line.startswith(f"+ node3: drift: {app} ")
        runbook("nightly-drift", *words, "--mail", "ops@site.example")
        assert len((tmp_path / "mails").read_text().splitlines()) == 2

    def test_without_a_host_or_a_set_says_why(self, runbook: Runbook, app: str, words: tuple[str, ...]) -> None:
        assert app
        done = runbook("nightly-drift", "-H", "nobody", *words[2:])
        assert (done.exit, done.out) == (2, "") and "nobody" in done.err
        done = runbook("nightly-drift", *words[:2], "--set", "absent", *words[4:])
        assert (done.exit, done.out) == (2, "") and "absent" in done.err
