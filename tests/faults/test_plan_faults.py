"""`fab apply` does what its plan says and nothing else: not where the fleet, or the plan itself, was changed since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from delivering import DeliveryScene, Make, make_fixture, routes, scene_fixture  # noqa: F401

from lab.fleet import Node
from lab.images import BuiltImage

SOURCE, TARGETS = "node3", ["node4", "node5"]


class Planned:
    """A new image on one node, and a plan to push it under a new name and to bring it to two others."""

    def __init__(self, scene: DeliveryScene, make: Make, file: Path) -> None:
        self.image: BuiltImage = make()
        self.src, self.dst, self.file = scene.stage.name(), scene.name(scene.registries.http), file
        scene.stage.seed(self.image, self.src, nodes=[scene.nodes[SOURCE]])
        run = scene.deliver(TARGETS, "--src", self.src, "--dst", self.dst, "--plan", str(file))
        assert run.exit == 0, run.out
        self.plan: dict[str, Any] = json.loads(file.read_text())

    def of(self, host: str) -> dict[str, Any]:
        """The plan's image of a host."""
        image: dict[str, Any] = self.plan["hosts"][host]["images"][0]
        return image

    def write(self) -> None:
        self.file.write_text(json.dumps(self.plan))


@pytest.fixture
def planned(scene: DeliveryScene, make: Make, tmp_path: Path) -> Planned:
    return Planned(scene, make, tmp_path / "plan.json")


def nothing_was_done(scene: DeliveryScene, dst: str) -> None:
    """No node has the name, nor has the registry."""
    assert all(dst not in scene.stage.records(node) for node in scene.nodes.values())
    assert scene.there(scene.registries.http, dst) is None


def test_a_plan_says_who_names_and_who_pushes(planned: Planned) -> None:
    besides = {"host": SOURCE, "namespace": "k8s.io", "reference": planned.dst, "digest": planned.image.target.digest}
    assert planned.plan["names"] == [besides]
    assert planned.plan["pushes"] == [{**besides, "relay": False}]


def test_a_plan_narrowed_away_from_the_host_that_pushes_first_says_so(
    scene: DeliveryScene, make: Make, node3: Node, tmp_path: Path
) -> None:
    image, src, dst, file = make(), scene.stage.name(), scene.name(scene.moving), tmp_path / "relay.json"
    scene.stage.seed(image, src, nodes=[node3])
    with scene.leading(dict.fromkeys(TARGETS, "alive") | {SOURCE: "dead"}):
        made = scene.deliver(TARGETS, "--src", src, "--dst", dst, "--plan", str(file))
        (push,) = json.loads(file.read_text())["pushes"]
        assert push["relay"], made.out
        other = next(host for host in TARGETS if host != push["host"])
        run = scene.apply(file, "-H", other)
        assert run.statuses == {other: "plan-outdated"}, run.out
        assert run.error["hint"] == f"fab -H {push['host']} apply --plan {file}"
        assert dst not in scene.stage.records(scene.nodes[other])
        assert scene.apply(file, "-H", push["host"]).exit == 0
        last = scene.apply(file, "-H", other)
    assert routes(last) == {other: "registry"}, last.out
    scene.is_as_told(last, dst, image.target.digest)


def test_another_image_at_the_source_is_neither_named_nor_pushed(
    scene: DeliveryScene, planned: Planned, make: Make, node3: Node
) -> None:
    node3.real_ctr("images", "rm", "--sync", planned.src)
    scene.stage.seed(make(), planned.src, nodes=[node3])
    run = scene.apply(planned.file)
    assert run.statuses == dict.fromkeys(TARGETS, "plan-outdated"), run.out
    assert run.outcomes["node4"]["result"]["steps"] == []
    nothing_was_done(scene, planned.dst)


def test_what_a_plan_does_not_name_or_push_is_left_alone(scene: DeliveryScene, planned: Planned, node3: Node) -> None:
    planned.plan |= {"names": [], "pushes": []}
    planned.of("node4")["route"] = planned.of("node5")["route"] = "ssh"
    planned.of("node4")["origin"] = planned.of("node5")["origin"] = SOURCE
    planned.write()
    run = scene.apply(planned.file)
    assert routes(run) == dict.fromkeys(TARGETS, "ssh"), run.out
    scene.is_as_told(run, planned.dst, planned.image.target.digest)
    assert planned.dst not in scene.stage.records(node3)
    assert scene.there(scene.registries.http, planned.dst) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("route", "there"), ("route", "named"), ("digest", f"sha256:{'a' * 64}"), ("source_digest", f"sha256:{'a' * 64}")],
)
def test_an_edited_way_or_digest_is_refused(scene: DeliveryScene, planned: Planned, key: str, value: str) -> None:
    for host in TARGETS:
        planned.of(host)[key] = value
    planned.write()
    run = scene.apply(planned.file)
    assert run.statuses == dict.fromkeys(TARGETS, "plan-outdated"), run.out
    nothing_was_done(scene, planned.dst)


@pytest.mark.parametrize("there", [False, True], ids=["missing", "there"])
def test_a_plan_for_another_namespace_is_refused(scene: DeliveryScene, planned: Planned, there: bool) -> None:
    if there:
        assert scene.apply(planned.file).exit == 0
    for host in TARGETS:
        planned.plan["hosts"][host]["namespace"] = "other"
    planned.write()
    assert scene.apply(planned.file).statuses == dict.fromkeys(TARGETS, "plan-outdated")
    if not there:
        nothing_was_done(scene, planned.dst)


def test_hosts_that_wait_for_a_push_are_refused_where_it_cannot_be_made(scene: DeliveryScene, planned: Planned) -> None:
    planned.plan["pushes"][0]["namespace"] = "other"
    planned.write()
    run = scene.apply(planned.file)
    assert run.statuses == dict.fromkeys(TARGETS, "plan-outdated"), run.out
    assert scene.there(scene.registries.http, planned.dst) is None
