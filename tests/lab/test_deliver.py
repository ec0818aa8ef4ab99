"""`fab deliver` brings images to every node in the way that it says, and what it says is what the nodes have."""

from __future__ import annotations

import shlex
from pathlib import Path

from accounts import counting
from delivering import OTHER, DeliveryScene, Make, make_fixture, other_nodes, routes, scene_fixture  # noqa: F401
from ferry import release

from lab.fleet import Node

SOURCE = "node3"
BOTH = ("linux/amd64", "linux/arm64")


class TestTheRoute:
    def test_leads_through_the_registry_where_all_reach_it(self, scene: DeliveryScene, make: Make, node3: Node) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.moving)
        scene.stage.seed(image, src, nodes=[node3])
        targets = other_nodes(scene, SOURCE)
        with scene.leading(dict.fromkeys(scene.nodes, "alive")) as registry:
            run = scene.deliver(targets, "--src", src, "--dst", dst)
        assert run.exit == 0, run.out
        assert run.statuses == dict.fromkeys(targets, "changed")
        assert routes(run) == dict.fromkeys(targets, "registry")
        scene.is_as_told(run, dst, image.target.digest)
        assert scene.there(registry, dst) == image.target.digest
        assert scene.stage.records(node3)[dst].digest == image.target.digest

    def test_leads_over_ssh_where_none_reaches_the_registry(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.moving)
        scene.stage.seed(image, src, nodes=[node3])
        targets = other_nodes(scene, SOURCE)
        with scene.leading(dict(zip(targets, ["dead", "none"] * len(targets), strict=False))):
            run = scene.deliver(targets, "--src", src, "--dst", dst)
        assert run.exit == 0, run.out
        assert routes(run) == dict.fromkeys(targets, "ssh")
        assert all("registry of" in run.image(host)["why"] for host in targets)
        scene.is_as_told(run, dst, image.target.digest)

    def test_leads_through_a_target_that_pushes_where_the_source_does_not_reach_the_registry(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.moving)
        scene.stage.seed(image, src, nodes=[node3])
        targets = other_nodes(scene, SOURCE)
        with scene.leading(dict.fromkeys(targets, "alive") | {SOURCE: "dead"}) as registry:
            run = scene.deliver(targets, "--src", src, "--dst", dst)
        assert run.exit == 0, run.out
        assert routes(run) == dict.fromkeys(targets, "registry") | {targets[0]: "ssh"}
        assert scene.there(registry, dst) == image.target.digest
        assert ("pushed", targets[0]) in {
            (step["action"], step["host"]) for step in run.outcomes[targets[0]]["result"]["steps"]
        }
        scene.is_as_told(run, dst, image.target.digest)

    def test_is_chosen_for_each_node_where_half_of_them_reach_the_registry(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.moving)
        scene.stage.seed(image, src, nodes=[node3])
        targets = other_nodes(scene, SOURCE)
        seeing, blind = targets[::2], targets[1::2]
        with scene.leading(dict.fromkeys([SOURCE, *seeing], "alive") | dict.fromkeys(blind, "dead")):
            run = scene.deliver(targets, "--src", src, "--dst", dst)
        assert run.exit == 0, run.out
        assert routes(run) == dict.fromkeys(seeing, "registry") | dict.fromkeys(blind, "ssh")
        scene.is_as_told(run, dst, image.target.digest)

    def test_may_be_ssh_alone_and_leaves_the_registry_alone_then(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.registries.http)
        scene.stage.seed(image, src, nodes=[node3])
        targets = other_nodes(scene, SOURCE)
        before = len(scene.registries.http.server.requests())
        run = scene.deliver(targets, "--src", src, "--dst", dst, "--via", "ssh")
        assert routes(run) == dict.fromkeys(targets, "ssh"), run.out
        assert len(scene.registries.http.server.requests()) == before
        scene.is_as_told(run, dst, image.target.digest)

    def test_may_be_the_registry_alone_and_says_before_anything_who_cannot_use_it(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.moving)
        scene.stage.seed(image, src, nodes=[node3])
        targets = other_nodes(scene, SOURCE)
        ways = dict.fromkeys([SOURCE, *targets], "alive") | {targets[0]: "dead", targets[1]: "none"}
        with scene.leading(ways):
            run = scene.deliver(targets, "--src", src, "--dst", dst, "--via", "registry")
            mend = (
                run.outcomes[targets[0]]["error"]["hint"].rpartition(": fab ")[2].replace("deliver", "deliver --json")
            )
            fine = [host for host in targets if ways[host] == "alive"]
            assert run.statuses == {
                **dict.fromkeys(fine, "changed"),
                targets[0]: "registry-unreachable",
                targets[1]: "registry-unresolved",
            }
            assert [scene.stage.records(scene.nodes[host]) for host in targets[:2]] == [{}, {}]
            scene.is_as_told(run, dst, image.target.digest, fine)
            mended = scene.fab(*mend.split(), inventory=scene.inventory(), **scene.registries.environment)
        assert mended.exit == 0, mended.out + mended.err
        assert routes(mended) == {targets[0]: "ssh"}

    def test_is_told_by_a_dry_run_that_changes_nothing(self, scene: DeliveryScene, make: Make, node3: Node) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.moving)
        scene.stage.seed(image, src, nodes=[node3])
        targets = other_nodes(scene, SOURCE)
        with scene.leading({SOURCE: "alive", targets[0]: "alive"}) as registry:
            run = scene.deliver(targets, "--src", src, "--dst", dst, "--dry-run")
        assert run.statuses == dict.fromkeys(targets, "would-change"), run.out
        assert routes(run) == dict.fromkeys(targets, "ssh") | {targets[0]: "registry"}
        assert all(run.image(host)["bytes"] == sum(map(image.size, image.blobs)) for host in targets)
        steps = {(step["action"], step["host"], step["status"]) for step in run.outcomes[targets[0]]["result"]["steps"]}
        assert steps == {("named", SOURCE, "would-change"), ("pushed", SOURCE, "would-change")}
        assert all(dst not in scene.stage.records(node) for node in scene.nodes.values())
        assert scene.there(registry, dst) is None


class TestWhatIsThereAlready:
    def test_is_named_without_a_byte_where_the_host_has_it_under_another_name(
        self, scene: DeliveryScene, make: Make
    ) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.registries.http)
        scene.stage.seed(image, src)
        before = len(scene.registries.http.server.requests())
        run = scene.deliver(scene.nodes, "--src", src, "--dst", dst, "--via", "ssh")
        assert run.statuses == dict.fromkeys(scene.nodes, "changed"), run.out
        assert routes(run) == dict.fromkeys(scene.nodes, "named")
        assert {run.image(host)["bytes"] for host in scene.nodes} == {0}
        assert len(scene.registries.http.server.requests()) == before
        scene.is_as_told(run, dst, image.target.digest)

    def test_of_several_images_is_named_at_once(self, scene: DeliveryScene, make: Make, tmp_path: Path) -> None:
        images = [make() for _ in range(3)]
        pairs = {(scene.stage.name(f"a{n}"), scene.name(scene.registries.http, f"a{n}")): n for n in range(3)}
        for (src, _), number in pairs.items():
            scene.stage.seed(images[number], src)
        file = tmp_path / "map"
        file.write_text("".join(f"{src} {dst}\n" for src, dst in pairs))
        run = scene.deliver(scene.nodes, "--map", str(file), "--via", "ssh")
        assert run.statuses == dict.fromkeys(scene.nodes, "changed"), run.out
        for host, node in scene.nodes.items():
            told = {(i["route"], i["status"], i["bytes"], i["method"]) for i in run.images(host)}
            assert told == {("named", "changed", 0, "tag" if release(node) >= (1, 3) else "index")}, host
        for (_, dst), number in pairs.items():
            scene.is_as_told(run, dst, images[number].target.digest)
        again = scene.deliver(scene.nodes, "--map", str(file), "--via", "ssh")
        assert again.statuses == dict.fromkeys(scene.nodes, "unchanged"), again.out

    def test_is_pushed_under_its_new_name_also_where_no_host_would_pull_it(
        self, scene: DeliveryScene, make: Make
    ) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.registries.http)
        scene.stage.seed(image, src)
        run = scene.deliver(scene.nodes, "--src", src, "--dst", dst)
        assert routes(run) == dict.fromkeys(scene.nodes, "named"), run.out
        assert scene.there(scene.registries.http, dst) == image.target.digest
        steps = run.outcomes[SOURCE]["result"]["steps"]
        assert [(step["action"], step["status"]) for step in steps] == [("pushed", "changed")]
        again = scene.deliver(scene.nodes, "--src", src, "--dst", dst)
        assert again.statuses == dict.fromkeys(scene.nodes, "unchanged"), again.out
        assert again.outcomes[SOURCE]["result"]["steps"] == []

    def test_keeps_its_name_and_comes_over_ssh_where_the_registrys_tag_has_moved(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        old, new, name = make(), make(), scene.name(scene.registries.http)
        scene.registries.http.server.put(new, name.partition("/")[2])
        scene.stage.seed(old, name, nodes=[node3])
        targets = other_nodes(scene, SOURCE)
        run = scene.deliver(targets, "--ref", name)
        assert routes(run) == dict.fromkeys(targets, "ssh"), run.out
        assert "another digest" in run.image(targets[0])["why"]
        assert scene.there(scene.registries.http, name) == new.target.digest
        scene.is_as_told(run, name, old.target.digest)

    def test_costs_a_probe_and_three_commands_at_most_and_moves_nothing(
        self, scene: DeliveryScene, make: Make, node3: Node, tmp_path: Path
    ) -> None:
        pairs = {scene.stage.name(f"a{n}"): scene.name(scene.registries.http, f"a{n}") for n in range(5)}
        for src in pairs:
            scene.stage.seed(make(platforms=BOTH), src, nodes=[node3])
        file = tmp_path / "map"
        file.write_text("".join(f"{src} {dst}\n" for src, dst in pairs.items()))
        targets = other_nodes(scene, SOURCE)
        first = scene.deliver(targets, "--map", str(file))
        assert first.exit == 0, first.out
        with counting(scene.nodes.values()) as counts:
            hosts = {user: {"ansible_host": scene.nodes[user.partition("@")[2]].address} for user in counts}
            again = scene.deliver(counts, "--map", str(file), "--from", f"root@{SOURCE}")
            asked = [count() for count in counts.values()]
        assert hosts and set(again.statuses.values()) == {"unchanged"}, again.out
        assert {image["route"] for host in again.outcomes for image in again.images(host)} == {"there"}
        assert max(asked) <= 4

    def test_is_refused_where_the_name_is_another_image_unless_forced(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        old, new, src, dst = make(), make(), scene.stage.name(), scene.name(scene.registries.http)
        scene.stage.seed(new, src, nodes=[node3])
        targets = other_nodes(scene, SOURCE)
        scene.stage.seed(old, dst, nodes=[scene.nodes[targets[0]]])
        run = scene.deliver(targets, "--src", src, "--dst", dst)
        assert run.statuses == dict.fromkeys(targets, "changed") | {targets[0]: "reference-exists"}, run.out
        assert scene.stage.records(scene.nodes[targets[0]])[dst].digest == old.target.digest
        forced = scene.deliver(targets, "--src", src, "--dst", dst, "--force")
        assert forced.statuses == dict.fromkeys(targets, "unchanged") | {targets[0]: "changed"}, forced.out
        assert forced.image(targets[0])["previous_digest"] == old.target.digest
        scene.is_as_told(forced, dst, new.target.digest)

    def test_in_the_registry_with_another_digest_is_refused_unless_forced_or_left_alone(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        old, new, src, dst = make(), make(), scene.stage.name(), scene.name(scene.registries.http)
        registry = scene.registries.http
        registry.server.put(old, dst.partition("/")[2])
        scene.stage.seed(new, src, nodes=[node3])
        targets = other_nodes(scene, SOURCE)
        run = scene.deliver(targets, "--src", src, "--dst", dst)
        assert run.statuses == dict.fromkeys(targets, "reference-exists"), run.out
        assert run.error["hint"].endswith("--via ssh")
        assert all(dst not in scene.stage.records(node) for node in scene.nodes.values())
        alone = scene.deliver(targets[:1], "--src", src, "--dst", dst, "--via", "ssh")
        assert routes(alone) == {targets[0]: "ssh"}
        assert scene.there(registry, dst) == old.target.digest
        forced = scene.deliver(targets, "--src", src, "--dst", dst, "--force")
        assert routes(forced) == dict.fromkeys(targets, "registry") | {targets[0]: "there"}, forced.out
        assert scene.there(registry, dst) == new.target.digest
        scene.is_as_told(forced, dst, new.target.digest)


class TestTheSource:
    def test_with_another_digest_than_another_host_is_refused_with_who_has_which(
        self, scene: DeliveryScene, make: Make, node2: Node, node3: Node
    ) -> None:
        images, src, dst = {node2: make(), node3: make()}, scene.stage.name(), scene.name(scene.registries.http)
        for node, image in images.items():
            scene.stage.seed(image, src, nodes=[node])
        run = scene.deliver(["node4"], "--src", src, "--dst", dst)
        assert run.statuses == {"node4": "drift"}
        assert all(f"{node.name} {image.target.digest}" in run.error["said"] for node, image in images.items())
        right = images[node3].target.digest
        run = scene.deliver(["node4"], "--src", src, "--dst", dst, "--digest", right)
        assert run.exit == 0, run.out
        scene.is_as_told(run, dst, right)

    def test_that_lacks_a_platform_is_not_pushed_and_gives_what_it_has(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        image, src, dst = (
            make(platforms=BOTH),
            scene.stage.name(),
            scene.name(scene.registries.http),
        )
        native = next(name for name in image.manifests if name != OTHER)
        scene.stage.seed(image, src, nodes=[node3], blobs=image.of(native) | {image.manifests[OTHER]})
        targets = other_nodes(scene, SOURCE)
        run = scene.deliver(targets, "--src", src, "--dst", dst)
        assert run.exit == 0, run.out
        assert routes(run) == dict.fromkeys(targets, "ssh")
        assert all("not all platforms" in run.image(host)["why"] for host in targets)
        assert scene.there(scene.registries.http, dst) is None
        scene.is_as_told(run, dst, image.target.digest)

    def test_may_lack_what_the_registry_has(self, scene: DeliveryScene, make: Make, node3: Node) -> None:
        image, src, dst = (
            make(platforms=BOTH),
            scene.stage.name(),
            scene.name(scene.registries.http),
        )
        scene.registries.http.server.put(image, dst.partition("/")[2])
        scene.stage.seed(image, src, nodes=[node3])
        lost = next(digest for name, layers in image.layers.items() if name != OTHER for digest in layers)
        node3.real_ctr("content", "rm", lost)
        run = scene.deliver(["node4", "node5"], "--src", src, "--dst", dst)
        assert routes(run) == {"node4": "registry", "node5": "registry"}, run.out
        scene.is_as_told(run, dst, image.target.digest)

    def test_of_two_platforms_gives_each_node_what_it_needs_over_ssh_and_all_to_the_registry(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        image, src, dst = make(platforms=BOTH), scene.stage.name(), scene.name(scene.moving)
        scene.stage.seed(image, src, nodes=[node3])
        targets = other_nodes(scene, SOURCE)
        with scene.leading({SOURCE: "alive", targets[0]: "alive", targets[1]: "alive"}) as registry:
            run = scene.deliver(targets, "--src", src, "--dst", dst)
            assert run.exit == 0, run.out
            assert scene.there(registry, dst) == image.target.digest
            scene.is_as_told(run, dst, image.target.digest)
            again = scene.deliver(targets, "--src", src, "--dst", dst)
        assert again.statuses == dict.fromkeys(targets, "unchanged"), again.out

    def test_in_another_namespace_of_the_source_has_the_commands_that_bring_it(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        image, name, namespace = make(), scene.name(scene.registries.http), scene.stage.namespace()
        scene.stage.seed(image, name, namespace=namespace, nodes=[node3])
        words = ("--ref", name, "--from", SOURCE, "--via", "ssh")
        run = scene.deliver(["node4"], *words)
        assert run.statuses == {"node4": "image-not-found"}, run.out
        _, _, commands = run.error["hint"].partition("first: ")
        for command in commands.split("; then: "):
            done = scene.fab(*shlex.split(command)[1:], inventory=scene.inventory())
            assert done.exit == 0, done.out
        again = scene.deliver(["node4"], *words)
        assert again.statuses == {"node4": "unchanged"}, again.out
        scene.is_as_told(again, name, image.target.digest)

    def test_that_no_host_has_is_reported_and_the_others_come(
        self, scene: DeliveryScene, make: Make, node3: Node
    ) -> None:
        there, missing = scene.name(scene.registries.http, "there"), scene.name(scene.registries.http, "missing")
        image = make()
        scene.stage.seed(image, there, nodes=[node3])
        run = scene.deliver(["node4"], "--ref", there, "--ref", missing)
        assert run.statuses == {"node4": "some-failed"}
        told = {each["reference"]: each for each in run.images("node4")}
        assert told[missing]["error"]["kind"] == "image-not-found"
        scene.is_as_told(run, there, image.target.digest)

    def test_may_be_an_archive(self, scene: DeliveryScene, make: Make, tmp_path: Path) -> None:
        image, src, dst = make(platforms=BOTH), scene.stage.name(), scene.name(scene.moving)
        file = tmp_path / "images.tar"
        with file.open("wb") as opened:
            image.write_archive(opened, [src])
        words = ("--src", src, "--dst", dst, "--archive", str(file))
        with scene.leading(dict.fromkeys(list(scene.nodes)[:3], "alive")):
            dry = scene.deliver(scene.nodes, *words, "--dry-run")
            run = scene.deliver(scene.nodes, *words)
        assert run.exit == 0, run.out
        sizes = {host: run.image(host)["bytes"] for host in scene.nodes}
        assert {host: dry.image(host)["bytes"] for host in scene.nodes} == sizes
        assert sizes["node1"] > sizes["node4"], "who pushes for the others needs all platforms"
        assert list(routes(run).values()) == ["ssh", "registry", "registry", "ssh", "ssh"][: len(scene.nodes)]
        scene.is_as_told(run, dst, image.target.digest)

    def test_among_the_targets_gets_the_name_as_well(self, scene: DeliveryScene, make: Make, node3: Node) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.registries.http)
        scene.stage.seed(image, src, nodes=[node3])
        run = scene.deliver(scene.nodes, "--src", src, "--dst", dst, "--via", "ssh")
        assert routes(run) == dict.fromkeys(scene.nodes, "ssh") | {SOURCE: "named"}, run.out
        scene.is_as_told(run, dst, image.target.digest)
