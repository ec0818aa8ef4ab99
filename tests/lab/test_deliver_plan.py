"""`fab apply` does what a plan of `fab deliver` shows, and refuses it on a node that has changed since."""

from __future__ import annotations

import json
from pathlib import Path

from delivering import DeliveryScene, Make, make_fixture, other_nodes, routes, scene_fixture  # noqa: F401

from lab.fleet import Node

SOURCE = "node3"


class TestAPlan:
    def test_is_carried_out_as_it_was_shown(
        self, scene: DeliveryScene, make: Make, node3: Node, tmp_path: Path
    ) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.moving)
        scene.stage.seed(image, src, nodes=[node3])
        targets, file = other_nodes(scene, SOURCE, "node2"), tmp_path / "plan.json"
        with scene.leading({SOURCE: "alive", targets[0]: "alive"}):
            plan = scene.deliver(targets, "--src", src, "--dst", dst, "--plan", str(file))
            assert plan.statuses == dict.fromkeys(targets, "would-change"), plan.out
            assert all(dst not in scene.stage.records(node) for node in scene.nodes.values())
            planned = json.loads(file.read_text())["hosts"]
            assert set(planned) == set(targets)
            for host, on in planned.items():
                (told,) = on["images"]
                assert (told["before"], told["digest"]) == (None, image.target.digest)
                assert told["bytes"] == sum(blob["size"] for blob in told["needed"]), host
            shown = scene.apply(file, "--dry-run")
            done = scene.apply(file)
        assert shown.statuses == dict.fromkeys(targets, "would-change"), shown.out
        assert routes(plan) == routes(shown) == routes(done) == dict.fromkeys(targets, "ssh") | {targets[0]: "registry"}
        assert done.statuses == dict.fromkeys(targets, "changed"), done.out
        scene.is_as_told(done, dst, image.target.digest)
        again = scene.apply(file)
        assert again.statuses == dict.fromkeys(targets, "unchanged"), again.out

    def test_is_refused_on_a_host_that_has_changed_since(
        self, scene: DeliveryScene, make: Make, node3: Node, tmp_path: Path
    ) -> None:
        image, other, src, dst = make(), make(), scene.stage.name(), scene.name(scene.registries.nowhere)
        scene.stage.seed(image, src, nodes=[node3])
        targets, file = other_nodes(scene, SOURCE, "node2"), tmp_path / "plan.json"
        assert scene.deliver(targets, "--src", src, "--dst", dst, "--plan", str(file)).exit == 0
        changed = targets[0]
        scene.stage.seed(other, dst, nodes=[scene.nodes[changed]])
        run = scene.apply(file)
        assert run.statuses == dict.fromkeys(targets, "changed") | {changed: "plan-outdated"}, run.out
        assert other.target.digest in run.error["said"]
        assert f"fab -H {changed} deliver" in run.error["hint"]
        assert scene.stage.records(scene.nodes[changed])[dst].digest == other.target.digest
        scene.is_as_told(run, dst, image.target.digest, targets[1:])

    def test_may_be_narrowed_to_some_of_its_hosts(
        self, scene: DeliveryScene, make: Make, node3: Node, tmp_path: Path
    ) -> None:
        image, src, dst = make(), scene.stage.name(), scene.name(scene.registries.nowhere)
        scene.stage.seed(image, src, nodes=[node3])
        targets, file = other_nodes(scene, SOURCE, "node2"), tmp_path / "plan.json"
        assert scene.deliver(targets, "--src", src, "--dst", dst, "--plan", str(file)).exit == 0
        run = scene.run(targets[:1], "apply", "--json", "--plan", str(file))
        assert run.statuses == {targets[0]: "changed"}, run.out
        assert scene.run([SOURCE], "apply", "--json", "--plan", str(file)).exit == 2

    def test_that_is_refused_on_all_hosts_pushes_nothing(
        self, scene: DeliveryScene, make: Make, node3: Node, tmp_path: Path
    ) -> None:
        src, dst, file = scene.stage.name(), scene.name(scene.registries.http), tmp_path / "plan.json"
        scene.stage.seed(make(), src, nodes=[node3])
        (target, *_) = other_nodes(scene, SOURCE, "node2")
        assert scene.deliver([target], "--src", src, "--dst", dst, "--plan", str(file)).exit == 0
        scene.stage.seed(make(), dst, nodes=[scene.nodes[target]])
        run = scene.apply(file)
        assert run.statuses == {target: "plan-outdated"}, run.out
        assert scene.there(scene.registries.http, dst) is None

    def test_that_is_none_is_refused(self, scene: DeliveryScene, tmp_path: Path) -> None:
        file = tmp_path / "plan.json"
        for text in ("", "{}", '{"version": 2}', "[" * 100_000):
            file.write_text(text)
            run = scene.apply(file)
            assert (run.exit, run.error["kind"]) == (2, "bad-arguments"), run.out
        assert scene.apply(tmp_path / "none").exit == 2
