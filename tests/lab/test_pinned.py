"""An image that is asked for by its digest gets that very name on other nodes: kubelet looks for it by that name."""

from __future__ import annotations

from pathlib import Path

import pytest
from delivering import OTHER, DeliveryScene, Make, make_fixture, other_nodes, routes, scene_fixture  # noqa: F401
from ferry import Fab, Stage, has_cri, release

from lab.fleet import Node
from lab.images import NATIVE

SOURCE = "node3"


@pytest.mark.parametrize("tag", ["", ":1"], ids=["digest", "tag and digest"])
def test_a_copy_is_named_by_repository_and_digest(fab: Fab, stage: Stage, make: Make, tag: str, tmp_path: Path) -> None:
    image, src, source = make(), stage.name(), stage.nodes[SOURCE]
    stage.seed(image, src, nodes=[source])
    repository = src.rpartition(":")[0]
    dst = f"{repository}@{image.target.digest}"
    targets = [node for node in stage.nodes.values() if node.name != SOURCE]
    (tmp_path / "set").write_text(f"{repository}{tag}@{image.target.digest}\n")
    words = ("-H", ",".join(node.name for node in targets), "copy", "--from", SOURCE, "--set", str(tmp_path / "set"))
    for status in ("changed", "unchanged"):
        run = fab(*words, "--json")
        assert run.statuses == {node.name: status for node in targets}, run.out
    for node in targets:
        records = stage.records(node)
        assert list(records) == [dst] and records[dst].digest == image.target.digest
        assert records[dst].managed or not has_cri(node)
        assert stage.hello(node, dst) == "hello"
    assert list(stage.records(source)) == [src]


def test_such_a_name_is_given_and_kept_and_carried_as_any_other(
    fab: Fab, stage: Stage, make: Make, node3: Node, tmp_path: Path
) -> None:
    image, src = make(), stage.name()
    repository, digest = src.rpartition(":")[0], image.target.digest
    pinned, moved = f"{repository}@{digest}", f"new.example/{repository.partition('/')[2]}@{digest}"
    stage.seed(image, src, nodes=[node3])
    assert fab.retag([SOURCE], "--src", src, "--dst", f"{repository}@sha256:{'0' * 64}").error["kind"] == "drift"
    assert fab.retag([SOURCE], "--src", src, "--dst", f"{src}@{digest}").exit == 0
    node3.real_ctr("images", "rm", src)
    assert fab.retag([SOURCE], "--to-registry", "new.example", "--match", f"172*{stage.token}*").exit == 0
    assert fab("-H", SOURCE, "save", "--ref", f"172*{stage.token}*", "--out", str(tmp_path / "a.tar")).exit == 0
    targets = [name for name in stage.nodes if name != SOURCE]
    for words in (
        ("load", "--archive", str(tmp_path / "a.tar")),
        ("copy", "--from", SOURCE, "--ref", f"new.example/{stage.token}/*"),
    ):
        run = fab("-H", ",".join(targets), *words, "--json")
        assert run.statuses == dict.fromkeys(targets, "changed"), run.out
    for name, node in stage.nodes.items():
        records = stage.records(node)
        assert {name: record.digest for name, record in records.items()} == dict.fromkeys((pinned, moved), digest), name
        assert all(record.managed for record in records.values()) or not has_cri(node)


def test_no_name_by_digest_is_given_to_one_platforms_manifest(fab: Fab, stage: Stage, make: Make, node3: Node) -> None:
    image, src = make(platforms=(NATIVE, OTHER)), stage.name()
    stage.seed(image, src, blobs=image.of(NATIVE), nodes=[node3])
    dst = f"{src.rpartition(':')[0]}@{image.target.digest}"
    targets = [node for node in stage.nodes.values() if node.name != SOURCE]
    run = fab("-H", ",".join(node.name for node in targets), "copy", "--from", SOURCE, "--ref", dst, "--json")
    parts = {node.name for node in targets if release(node) <= (1, 2)}
    assert run.statuses == {node.name: "method-unsupported" if node.name in parts else "changed" for node in targets}
    assert {node.name for node in targets if dst in stage.records(node)} == {node.name for node in targets} - parts


def test_a_delivery_gives_that_name_on_each_way(scene: DeliveryScene, make: Make, node3: Node, tmp_path: Path) -> None:
    image, src = make(), scene.name(scene.moving)
    scene.stage.seed(image, src, nodes=[node3])
    dst = f"{src.rpartition(':')[0]}@{image.target.digest}"
    (tmp_path / "set").write_text(f"{dst}\n")
    targets = other_nodes(scene, SOURCE)
    seeing, blind = targets[::2], targets[1::2]
    with scene.leading(dict.fromkeys([SOURCE, *seeing], "alive") | dict.fromkeys(blind, "dead")) as registry:
        run = scene.deliver(targets, "--set", str(tmp_path / "set"), "--from", SOURCE)
    assert run.exit == 0, run.out
    assert run.statuses == dict.fromkeys(targets, "changed"), run.out
    assert routes(run) == dict.fromkeys(seeing, "registry") | dict.fromkeys(blind, "ssh")
    scene.is_as_told(run, dst, image.target.digest)
    repository = dst.partition("/")[2].partition("@")[0]
    assert registry.server.blobs(repository) and not registry.server.tags(repository)  # a digest moves no tag


def test_a_delivery_gives_several_such_names_where_the_host_has_the_images(
    scene: DeliveryScene, make: Make, node3: Node
) -> None:
    names = {}
    for number in range(2):
        image, src = make(), scene.stage.name(f"a{number}")
        scene.stage.seed(image, src, nodes=[node3])
        names[f"{src.rpartition(':')[0]}@{image.target.digest}"] = image.target.digest
    words = [word for name in names for word in ("--ref", name)]
    run = scene.deliver([SOURCE], *words, "--from", SOURCE, "--via", "ssh")
    assert run.statuses == {SOURCE: "changed"}, run.out
    for name, digest in names.items():
        scene.is_as_told(run, name, digest)
