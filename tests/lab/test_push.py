"""`fab push` gives a registry the image that a node has, once, and moves a name that is taken only by force."""

from __future__ import annotations

from typing import Any

import pytest
from ferry import Stage, eventually, leftovers, processes, release
from pushing import (
    OTHER,
    images_fixture,  # noqa: F401
    plain_fixture,  # noqa: F401
    with_foreign_layer,
    with_layers_thrice,
)
from registry_scene import RegistryScene, in_repository

from lab.fleet import Node
from lab.images import NATIVE, BuiltImage
from lab.registries import DEMO_NODES, Registry


def uploads(scene: RegistryScene, registry: Registry, repository: str = "app") -> list[str]:
    """Return the requests by which a repository of this test was sent something."""
    sent = [f'"{verb} /v2/{scene.stage.token}/{repository}/' for verb in ("PUT", "POST", "PATCH")]
    return [line for line in registry.server.requests() if any(start in line for start in sent)]


class TestEveryNode:
    def test_pushes_to_every_registry_that_it_can_use_and_only_once(
        self, scene: RegistryScene, plain: BuiltImage, node: Node
    ) -> None:
        all_, stage = scene.registries, scene.stage
        usable = [all_.http, all_.tls, all_.basic, all_.token, *([all_.demo] if node.name in DEMO_NODES else [])]
        names = {registry: scene.name(registry, tag=f"{node.name}-{number}") for number, registry in enumerate(usable)}
        stage.seed(plain, *names.values(), nodes=[node])
        before, running = stage.records(node), processes(node).keys()

        def run() -> list[dict[str, Any]]:
            words = [word for name in names.values() for word in ("push", "--json", "--ref", name)]
            done = scene.run([node.name], *words)
            assert done.exit == 0, done.out
            return [command["outcomes"][0] for command in done.document["commands"]]

        for (registry, name), outcome in zip(names.items(), run(), strict=True):
            (told,) = outcome["result"]["images"]
            assert (outcome["status"], told["reference"], told["verified"]) == ("changed", name, "digest")
            assert told["digest"] == scene.there(registry, name) == plain.target.digest
        sent = {registry: uploads(scene, registry) for registry in usable}
        assert all(sent.values())
        assert [outcome["status"] for outcome in run()] == ["unchanged"] * len(usable)
        assert {registry: uploads(scene, registry) for registry in usable} == sent
        assert stage.records(node) == before
        assert leftovers(node) == []
        assert eventually(lambda: processes(node).keys() <= running), processes(node)

    def test_pushes_an_index_whole_where_it_has_all_of_it_and_else_its_own_platform(
        self, scene: RegistryScene, images: dict[str, BuiltImage], node: Node
    ) -> None:
        registry, whole, part = scene.registries.basic, images["index"], images["part"]
        names = [scene.name(registry, name, node.name) for name in ("whole", "part", "asked")]
        scene.stage.seed(whole, names[0], names[2], nodes=[node])
        scene.stage.seed(part, names[1], nodes=[node], blobs=part.of(NATIVE) | {part.manifests[OTHER]})
        words = [word for name in names for word in ("push", "--json", "--ref", name)]
        run = scene.run([node.name], *words, "--platform", OTHER)
        outcomes = [command["outcomes"][0] for command in run.document["commands"]]
        *told, asked = [outcome["result"]["images"][0] if "result" in outcome else {} for outcome in outcomes]
        wanted: list[str | None] = [whole.target.digest, part.manifests[NATIVE], whole.manifests[OTHER]]
        if release(node) < (1, 1):  # which cannot push an index at all, nor any platform but its own
            wanted = [whole.manifests[NATIVE], part.manifests[NATIVE], None]
            assert run.statuses == {node.name: "method-unsupported"}, run.out
        else:
            assert run.exit == 0, run.out
            assert asked["digest"] == wanted[2]
        assert [result["digest"] for result in told] == wanted[:2]
        assert [scene.there(registry, name) for name in names] == wanted
        notice = " ".join(told[1]["notes"])
        assert NATIVE in notice and part.target.digest in notice
        assert told[1]["source_digest"] == part.target.digest

    def test_fails_clearly_where_all_platforms_are_asked_for_and_absent(
        self, scene: RegistryScene, images: dict[str, BuiltImage]
    ) -> None:
        registry, part = scene.registries.http, images["part"]
        name = scene.name(registry)
        scene.stage.seed(part, name, blobs=part.of(NATIVE) | {part.manifests[OTHER]})
        run = scene.push(scene.nodes, "--ref", name, "--all-platforms")
        assert (run.exit, set(run.statuses.values())) == (1, {"platform-missing"})
        assert OTHER in run.error["message"]
        assert scene.there(registry, name) is None


class TestAnImageWithALayerThatComesSeveralTimes:
    def test_is_pushed_by_every_ctr(self, scene: RegistryScene, images: dict[str, BuiltImage]) -> None:
        registry, image = scene.registries.http, with_layers_thrice(images["plain"])
        names = [scene.name(registry, f"thrice{number}") for number in range(3)]
        scene.stage.seed(image, *names)
        run = scene.push(scene.nodes, *[word for name in names for word in ("--ref", name)])
        assert run.exit == 0, run.out
        assert {scene.there(registry, name) for name in names} == {image.target.digest}


class TestAnotherName:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_is_pushed_and_leaves_no_tag_on_any_node(self, scene: RegistryScene, plain: BuiltImage) -> None:
        registry, source = scene.registries.token, scene.stage.name()
        goal = scene.name(registry, "published")
        scene.stage.seed(plain, source)
        before = scene.stage.on_each(scene.stage.records)
        run = scene.push(scene.nodes, "--ref", source, "--as", goal)
        assert run.exit == 0, run.out
        assert "changed" in run.statuses.values() and set(run.statuses.values()) <= {"changed", "unchanged"}
        assert scene.there(registry, goal) == plain.target.digest
        assert scene.stage.on_each(scene.stage.records) == before

    def test_is_only_reported_in_a_dry_run(self, scene: RegistryScene, plain: BuiltImage) -> None:
        registry, source = scene.registries.basic, scene.stage.name()
        goal = scene.name(registry, "dry")
        scene.stage.seed(plain, source)
        run = scene.push(scene.nodes, "--ref", source, "--as", goal, "--dry-run")
        assert (run.exit, set(run.statuses.values())) == (0, {"would-change"})
        assert scene.there(registry, goal) is None
        assert uploads(scene, registry, "dry") == []


class TestAForeignLayer:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_is_pushed_where_that_is_asked_for_and_else_its_absence_is_told(
        self, scene: RegistryScene, plain: BuiltImage
    ) -> None:
        registry, (image, layer) = scene.registries.basic, with_foreign_layer(plain)
        for node in scene.nodes.values():
            name = scene.name(registry, node.name)
            scene.stage.seed(image, name, nodes=[node])
            words = ("push", "--json", "--ref", name)
            run = scene.run([node.name], *words, *words, "--foreign-layers", *words, "--foreign-layers")
            assert run.exit == 0, run.out
            first, *others = [command["outcomes"][0] for command in run.document["commands"]]
            leaves = release(node) >= (1, 6)
            assert ("1 foreign layer" in str(first["result"]["images"])) is leaves
            assert [each["status"] for each in others] == ["changed" if leaves else "unchanged", "unchanged"]
            assert not any("foreign" in str(each["result"]["images"]) for each in others)
            path = in_repository(registry, name).partition(":")[0]
            assert layer in registry.server.blobs(path)


class TestANameThatIsTaken:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_moves_only_by_force_and_the_old_digest_is_reported(
        self, scene: RegistryScene, images: dict[str, BuiltImage]
    ) -> None:
        registry, (old, new) = scene.registries.tls, (images["part"], images["plain"])
        name = scene.name(registry)
        scene.stage.seed(new, name)
        registry.server.put(old, in_repository(registry, name))
        for flags in ((), ("--dry-run",)):
            run = scene.push(scene.nodes, "--ref", name, *flags)
            assert (run.exit, run.statuses) == (1, dict.fromkeys(scene.nodes, "reference-exists")), run.out
            assert old.target.digest in run.error["said"] and new.target.digest in run.error["said"]
            assert scene.there(registry, name) == old.target.digest
        assert uploads(scene, registry) == []
        run = scene.push(scene.nodes, "--ref", name, "--force")
        assert (run.exit, set(run.statuses.values()) <= {"changed", "unchanged"}) == (0, True), run.out
        replaced = [run.image(host)["previous_digest"] for host in run.outcomes]
        assert old.target.digest in replaced and set(replaced) <= {"", old.target.digest}
        assert scene.there(registry, name) == new.target.digest

    def test_gets_no_digest_where_hosts_would_push_different_ones(
        self, scene: RegistryScene, images: dict[str, BuiltImage]
    ) -> None:
        registry, name, nodes = scene.registries.basic, scene.name(scene.registries.basic), scene.nodes
        first, *others = nodes.values()
        scene.stage.seed(images["plain"], name, nodes=[first])
        scene.stage.seed(images["index"], name, nodes=others)
        for flags in ((), ("--dry-run",), ("--force", "--serial", "1")):
            run = scene.push(nodes, "--ref", name, *flags)
            assert (run.exit, run.statuses) == (1, dict.fromkeys(nodes, "drift")), run.out
            assert f"{images['plain'].target.digest} on {first.name}" in run.error["said"]
        assert scene.there(registry, name) is None
        assert uploads(scene, registry) == []
