"""Indexes of indexes, indexes without platforms and artifacts are moved, named and judged as what they are."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from ferry import Fab, Stage, names_of, release
from odd_images import artifact, nested, without_platforms
from registry_scene import RegistryScene, in_repository

from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"


@pytest.fixture(scope="module", name="images")
def images_fixture(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltImage]:
    assert fleet.nodes
    built = build(
        tmp_path_factory.mktemp("images"),
        layers=(1000,),
        seed=secrets.randbits(32),
        platforms=(NATIVE, OTHER),
        cmd=("/bin/echo", "hello"),
    )
    return {"nested": nested(built), "bare": without_platforms(built), "chart": artifact(secrets.randbits(32))}


@pytest.fixture(name="node3")
def node3_fixture(stage: Stage, images: dict[str, BuiltImage], node3: Node) -> Node:
    """A node that has all of them."""
    for kind, image in images.items():
        stage.seed(image, stage.name(kind), nodes=[node3])
    return node3


def test_they_come_to_every_node_whole_and_unpacked_and_get_other_names(
    fab: Fab, stage: Stage, images: dict[str, BuiltImage], node3: Node
) -> None:
    names = [stage.name(kind) for kind in ("nested", "bare")]
    refs = [word for name in names for word in ("--ref", name)]
    targets = [node for node in stage.nodes.values() if node.name != node3.name]
    hosts = ",".join(names_of(targets))

    copied = fab("-H", hosts, "copy", "--from", "node3", *refs, "--all-platforms", "--json")
    assert copied.statuses == dict.fromkeys(names_of(targets), "changed"), copied.out
    run = fab("-H", hosts, "retag", "--src", names[1], "--dst", stage.name("own"), "--platform", NATIVE, "--json")
    assert {run.image(name)["digest"] for name in run.statuses} == {images["bare"].manifests[NATIVE]}
    assert stage.on_each(lambda node: stage.hello(node, names[0]), targets) == dict.fromkeys(names_of(targets), "hello")


def test_an_artifact_is_copied_where_ctr_can_name_it_and_is_called_one(
    fab: Fab, stage: Stage, images: dict[str, BuiltImage], node3: Node, tmp_path: Path
) -> None:
    name, file = stage.name("chart"), tmp_path / "chart.tar"
    copied = fab("-H", "node1,node2,node5", "copy", "--from", node3.name, "--ref", name, "--json")
    assert copied.statuses == {"node1": "method-unsupported", "node2": "changed", "node5": "changed"}, copied.out
    assert stage.records(stage.nodes["node5"])[name].digest == images["chart"].target.digest
    checked = fab("-H", "node2,node3,node5", "check", "--ref", name, "--json")
    results = [checked.image(host) for host in checked.outcomes]
    assert checked.exit == 0 and all(result["artifact"] and result["complete"] for result in results)
    assert fab("-H", "node5", "save", "--ref", name, "--out", str(file)).exit == 0


def test_an_artifact_is_pulled_from_a_registry_once(scene: RegistryScene, images: dict[str, BuiltImage]) -> None:
    registry, namespace = scene.registries.basic, scene.stage.namespace()
    name = scene.name(registry)
    registry.server.put(images["chart"], in_repository(registry, name))
    nodes = [node for node in scene.nodes.values() if release(node) >= (1, 3)]  # the stand-in fetches nothing
    run = scene.pull(names_of(nodes), "--ref", name, "-n", namespace)
    assert set(run.statuses.values()) == {"changed"}, run.out
    for node in nodes:
        assert scene.stage.records(node, namespace)[name].digest == images["chart"].target.digest
    assert set(scene.pull(names_of(nodes), "--ref", name, "-n", namespace).statuses.values()) == {"unchanged"}
