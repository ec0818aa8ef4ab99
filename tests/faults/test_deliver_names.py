"""Deliveries under names by digest, past names that are none, past damaged blobs, and within limits of failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import counting
from delivering import DeliveryScene, Make, make_fixture, other_nodes, routes  # noqa: F401
from ferry import Fab, Stage, flipped, processes

from lab.fleet import Fleet, Node
from lab.images import NATIVE
from lab.registries import Registries

SOURCE = "node3"


@pytest.fixture
def scene(fab: Fab, stage: Stage, fleet: Fleet, registries: Registries, tmp_path: Path) -> Iterator[DeliveryScene]:
    scene = DeliveryScene(fab, stage, fleet, registries, tmp_path)
    running = stage.on_each(lambda node: set(processes(node)))
    yield scene
    scene.leaves_nothing(running)


@pytest.mark.parametrize("way", ["nowhere", "http"])
def test_an_image_that_is_asked_for_by_digest_gets_the_name_that_kubelet_looks_for(
    scene: DeliveryScene, make: Make, node3: Node, way: str
) -> None:
    image, src = make(), scene.name(getattr(scene.registries, way))
    by_digest = f"{src.rpartition(':')[0]}@{image.target.digest}"
    scene.stage.seed(image, src, nodes=[node3])
    if way == "http":
        scene.registries.http.server.put(image, src.partition("/")[2])
    targets = other_nodes(scene, SOURCE)
    run = scene.deliver(targets, "--ref", f"{src}@{image.target.digest}")
    assert run.statuses == dict.fromkeys(targets, "changed"), run.out
    assert routes(run) == dict.fromkeys(targets, "registry" if way == "http" else "ssh")
    scene.is_as_told(run, by_digest, image.target.digest)
    assert {step["status"] for step in run.outcomes[targets[0]]["result"]["steps"]} <= {"changed"}
    again = scene.deliver(targets, "--ref", by_digest)
    assert again.statuses == dict.fromkeys(targets, "unchanged"), again.out


def test_names_that_are_no_references_are_not_taken_for_a_digest(scene: DeliveryScene, make: Make, node3: Node) -> None:
    image, dst = make(), scene.name(scene.registries.nowhere)
    for name in (f"--{scene.stage.token}", f"-{scene.stage.token}$(reboot)", scene.stage.name()):
        scene.stage.seed(image, name, nodes=[node3])
    run = scene.deliver(["node4"], "--src", image.target.digest, "--dst", dst)
    assert run.exit == 0, run.out
    assert [step["status"] for step in run.outcomes["node4"]["result"]["steps"]] == ["changed"]
    assert scene.stage.records(node3)[dst].digest == image.target.digest


def test_a_damaged_blob_comes_from_the_next_host_that_has_it(scene: DeliveryScene, make: Make) -> None:
    image, src, dst = make(layers=(1000, 2 << 20)), scene.stage.name(), scene.name(scene.registries.nowhere)
    sources, targets = ["node2", SOURCE], ["node4", "node5"]
    scene.stage.seed(image, src, nodes=[scene.nodes[name] for name in sources])
    with flipped(scene.nodes["node2"], image.layers[NATIVE][1]):
        run = scene.deliver(targets, "--src", src, "--dst", dst)
    assert run.statuses == dict.fromkeys(targets, "changed"), run.out
    scene.is_as_told(run, dst, image.target.digest)


def test_hosts_that_are_not_begun_as_too_many_failed_are_left_alone(
    scene: DeliveryScene, make: Make, node3: Node
) -> None:
    image, src, dst = make(), scene.stage.name(), scene.name(scene.registries.nowhere)
    scene.stage.seed(image, src, nodes=[node3])
    inventory = scene.inventory(hosts={"dead": {"ansible_host": f"{node3.address.rpartition('.')[0]}.99"}})
    words = ("--src", src, "--dst", dst, "--serial", "1", "--limit-failures", "1")
    for more in ((), ("--dry-run",)):
        run = scene.deliver(["dead", "node4", "node5"], *words, *more, inventory=inventory)
        assert run.statuses == {"dead": "host-unreachable", "node4": "not-started", "node5": "not-started"}, run.out
        assert run.exit == 4 and "limit-failures" in run.outcomes["node4"]["error"]["hint"]
    assert dst not in scene.stage.records(scene.nodes["node4"])


def test_a_pull_that_fails_counts_before_the_next_host_pulls(scene: DeliveryScene, make: Make, node3: Node) -> None:
    image, src, dst = make(), scene.stage.name(), scene.name(scene.registries.flaky)
    scene.stage.seed(image, src, nodes=[node3])
    kept = [digest for digest in image.blobs if digest not in image.layers[NATIVE]]
    scene.registries.http.server.put(image, dst.partition("/")[2], blobs=kept)
    words = ("--src", src, "--dst", dst, "--via", "registry", "--serial", "1", "--limit-failures", "1")
    with counting([scene.nodes["node5"]]) as counts:
        ((other, count),) = counts.items()
        assert scene.deliver(["node4", other], *words, "--dry-run").exit == 0
        looked = count()
        run = scene.deliver(["node4", other], *words)
        assert count() == 2 * looked, run.out  # the second host was only looked at
    assert (run.outcomes["node4"]["status"], run.statuses[other]) == ("failed", "not-started"), run.out
