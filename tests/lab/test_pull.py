"""`fab pull` gives every node an image from every registry that the node can use: whole, and only once."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest
from ferry import PINS, Stage, eventually, has_cri, leftovers, names_of, processes, release
from registry_scene import RegistryScene, in_repository

from lab.fleet import Fleet
from lab.images import NATIVE, BuiltImage, build
from lab.registries import Registry

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"


@pytest.fixture(scope="module")
def images(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltImage]:
    """Small images, of this module alone."""
    assert fleet.nodes
    folder, seed, hello = tmp_path_factory.mktemp("images"), secrets.randbits(32), ("/bin/echo", "hello")
    return {
        "plain": build(folder, layers=(1000, 2000), seed=seed, cmd=hello),
        "another": build(folder, layers=(1000,), seed=seed + 1, cmd=hello),
        "index": build(folder, layers=(1000,), seed=seed + 2, platforms=(NATIVE, OTHER)),
    }


@pytest.fixture(scope="module")
def plain(images: dict[str, BuiltImage]) -> BuiltImage:
    """An image of one platform."""
    return images["plain"]


def offer(registry: Registry, name: str, image: BuiltImage, **how: Any) -> None:
    """Let a registry have an image."""
    registry.server.put(image, in_repository(registry, name), **how)


def fetches(scene: RegistryScene, registry: Registry) -> list[str]:
    """Return the requests by which this test's repository was asked for blobs."""
    start = f'"GET /v2/{scene.stage.token}/app/blobs/'
    return [line for line in registry.server.requests() if start in line]


class TestEveryNode:
    def test_pulls_from_every_registry_that_it_can_use_and_only_once(
        self, scene: RegistryScene, plain: BuiltImage
    ) -> None:
        all_, stage, nodes = scene.registries, scene.stage, scene.nodes
        usable = [all_.http, all_.tls, all_.basic, all_.reader]
        names = {scene.name(registry, tag=str(number)): registry for number, registry in enumerate(usable)}
        for name, registry in names.items():
            offer(registry, name, plain)
        running = stage.on_each(lambda node: processes(node).keys())

        def run() -> list[dict[str, Any]]:
            words = [word for name in names for word in ("pull", "--json", "--ref", name)]
            done = scene.run(nodes, *words)
            assert done.exit == 0, done.out
            return [outcome for command in done.document["commands"] for outcome in command["outcomes"]]

        told = [(o["status"], image["reference"], image["digest"]) for o in run() for image in o["result"]["images"]]
        assert told == [("changed", name, plain.target.digest) for name in names for _ in nodes]
        records = stage.on_each(stage.records)
        first = next(iter(names))
        for node in nodes.values():
            found = records[node.name]
            assert found.keys() == names.keys()
            assert {record.digest for record in found.values()} == {plain.target.digest}
            assert {record.managed for record in found.values()} == {has_cri(node)}
        assert set(stage.on_each(lambda node: stage.check(node, first)).values()) == {"complete"}
        assert set(stage.on_each(lambda node: stage.hello(node, first)).values()) == {"hello"}
        asked = [fetches(scene, registry) for registry in usable]
        assert any(asked)
        assert {outcome["status"] for outcome in run()} == {"unchanged"}
        assert [fetches(scene, registry) for registry in usable] == asked
        assert stage.on_each(stage.records) == records
        assert stage.on_each(leftovers) == {node: [] for node in nodes}
        for node in nodes.values():
            assert eventually(lambda n=node: processes(n).keys() <= running[n.name]), processes(node)  # type: ignore[misc]

    def test_pulls_the_platforms_that_it_is_asked_for(
        self, scene: RegistryScene, images: dict[str, BuiltImage]
    ) -> None:
        registry, index, stage = scene.registries.http, images["index"], scene.stage
        # 1.0 knows no platforms, 1.1 pulls the host's own besides.
        nodes = [node for node in scene.nodes.values() if release(node) >= (1, 2)]
        flags = {"own": (), "other": ("--platform", OTHER), "all": ("--all-platforms",)}
        wanted = {"own": index.of(NATIVE), "other": index.of(OTHER), "all": set(index.blobs)}
        for kind, blobs in wanted.items():
            name, namespace = scene.name(registry, kind), stage.namespace(kind)
            offer(registry, name, index)
            run = scene.pull(names_of(nodes), "--ref", name, "-n", namespace, *flags[kind])
            assert set(run.statuses.values()) == {"changed"}, run.out
            for node in nodes:
                assert stage.records(node, namespace)[name].digest == index.target.digest
                visible = set(node.real_ctr("content", "ls", "-q", namespace=namespace).stdout.decode().split())
                assert blobs <= visible, node
                assert (set(index.layers[OTHER]) <= visible) == (kind != "own"), node
                assert (set(index.layers[NATIVE]) <= visible) == (kind != "other"), node


class TestManyNodes:
    def test_pull_in_batches_with_serial(self, scene: RegistryScene, plain: BuiltImage) -> None:
        registry, namespace = scene.registries.token, scene.stage.namespace()
        name = scene.name(registry)
        offer(registry, name, plain)
        run = scene.pull(scene.nodes, "--ref", name, "-n", namespace, "--serial", "2")
        assert run.statuses == dict.fromkeys(scene.nodes, "changed"), run.out
        found = scene.stage.on_each(lambda node: scene.stage.records(node, namespace)[name].digest)
        assert found == dict.fromkeys(scene.nodes, plain.target.digest)


class TestATag:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_that_moved_is_refused_where_a_digest_is_expected(
        self, scene: RegistryScene, images: dict[str, BuiltImage]
    ) -> None:
        registry, (old, new) = scene.registries.tls, (images["plain"], images["another"])
        name = scene.name(registry)
        offer(registry, name, old)
        offer(registry, name, new)
        run = scene.pull(scene.nodes, "--ref", name, "--digest", old.target.digest)
        assert (run.exit, run.statuses) == (1, dict.fromkeys(scene.nodes, "drift"))
        assert new.target.digest in run.error["said"]
        assert scene.stage.on_each(scene.stage.records) == {node: {} for node in scene.nodes}
        run = scene.pull(scene.nodes, "--ref", name, "--digest", new.target.digest)
        assert (run.exit, run.statuses) == (0, dict.fromkeys(scene.nodes, "changed"))

    def test_that_names_something_else_on_the_node_moves_only_by_force(
        self, scene: RegistryScene, images: dict[str, BuiltImage]
    ) -> None:
        registry, (old, new), stage = scene.registries.tls, (images["plain"], images["another"]), scene.stage
        name = scene.name(registry)
        stage.seed(old, name)
        offer(registry, name, new)
        run = scene.pull(scene.nodes, "--ref", name)
        assert (run.exit, run.statuses) == (1, dict.fromkeys(scene.nodes, "reference-exists"))
        found = stage.on_each(lambda node: stage.records(node)[name].digest)
        assert found == dict.fromkeys(scene.nodes, old.target.digest)
        stage.on_each(lambda node: node.real_ctr("images", "label", name, *PINS))
        run = scene.pull(scene.nodes, "--ref", name, "--force")
        assert (run.exit, run.statuses) == (0, dict.fromkeys(scene.nodes, "changed")), run.out
        assert {run.image(host)["previous_digest"] for host in run.outcomes} == {old.target.digest}
        records = stage.on_each(stage.records)
        assert all(set(PINS) <= set(found[name].labels.split(",")) for found in records.values()), records
        assert {node: {n: r.digest for n, r in found.items()} for node, found in records.items()} == {
            node: {name: new.target.digest} for node in scene.nodes
        }
        assert stage.on_each(leftovers) == {node: [] for node in scene.nodes}

    def test_that_the_registry_does_not_have_is_reported(self, scene: RegistryScene) -> None:
        run = scene.pull(scene.nodes, "--ref", scene.name(scene.registries.basic, tag="none"))
        assert (run.exit, run.statuses) == (1, dict.fromkeys(scene.nodes, "repository-not-found"))

    def test_of_which_the_registry_lacks_a_layer_is_refused_and_leaves_no_name(
        self, scene: RegistryScene, tmp_path: Path
    ) -> None:
        registry = scene.registries.http
        name, broken = scene.name(registry), build(tmp_path, layers=(1000, 2000), seed=secrets.randbits(32))
        offer(registry, name, broken, blobs=broken.blobs.keys() - {broken.layers[NATIVE][1]})
        run = scene.pull(scene.nodes, "--ref", name)
        assert run.exit == 1
        assert set(run.statuses.values()) <= {"repository-not-found", "content-missing"}, run.out
        assert scene.stage.on_each(scene.stage.records) == {node: {} for node in scene.nodes}


class TestARegistryThatANodeCannotUse:
    @pytest.mark.parametrize(
        ("kind", "described", "expected"),
        [
            ("nowhere", {}, "registry-unresolved"),
            ("expired", {}, "registry-tls"),
            ("wrong", {}, "registry-tls"),
            ("http", {"scheme": "https"}, "registry-scheme"),
            ("token", {"username": None, "password_env": None}, "registry-denied"),
        ],
    )
    def test_is_refused_with_the_reason(
        self, scene: RegistryScene, *, kind: str, described: dict[str, Any], expected: str
    ) -> None:
        registry: Registry = getattr(scene.registries, kind)
        run = scene.pull(scene.nodes, "--ref", scene.name(registry), inventory=scene.described(registry, **described))
        assert (run.exit, run.statuses) == (1, dict.fromkeys(scene.nodes, expected))
        assert registry.name in run.error["message"] and run.error["hint"]
        assert scene.stage.on_each(scene.stage.records) == {node: {} for node in scene.nodes}

    def test_a_wrong_password_is_refused_and_never_shown(self, scene: RegistryScene, plain: BuiltImage) -> None:
        registry = scene.registries.basic
        name = scene.name(registry)
        offer(registry, name, plain)
        run = scene.pull(scene.nodes, "--ref", name, **{registry.password_env: "wr0ng-w0rd"})
        assert run.statuses == dict.fromkeys(scene.nodes, "registry-unauthorized")
        assert "wr0ng-w0rd" not in run.out + run.err
