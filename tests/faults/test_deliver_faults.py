"""A delivery whose registry, target or sender dies says what is true then, leaves nothing, and can be run again."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from delivering import DeliveryScene, Make, make_fixture, other_nodes, routes, scene_fixture  # noqa: F401
from ferry import Run, eventually, processes
from stalling import LARGE, go_on, is_stalled, stalling

from lab.fleet import Node
from lab.images import NATIVE

SOURCE = "node3"
MIB = 1 << 20


class Running:
    """A delivery that is at work; ended with the block."""

    def __init__(self, scene: DeliveryScene, hosts: list[str], *words: str) -> None:
        self._scene, self._words = scene, ("-H", ",".join(hosts), "deliver", "--json", *words)

    def __enter__(self) -> Running:
        environment = self._scene.registries.environment
        self.process = self._scene.fab.start(*self._words, inventory=self._scene.inventory(), **environment)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ended(self) -> Run:
        """Wait for `fab`."""
        out, err = self.process.communicate(timeout=120)
        assert "Traceback" not in out + err
        return Run(self.process.returncode, out, err)


def seen(node: Node) -> set[str]:
    """The digests that k8s.io of a node sees."""
    return set(node.real_ctr("content", "ls", "-q").stdout.decode().split())


def kill_sessions(node: Node, before: set[int]) -> None:
    """End every SSH session that has begun on a node since."""
    sessions = [pid for pid, argv in processes(node).items() if pid not in before and argv.startswith("sshd")]
    assert sessions
    for pid in sessions:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_registry_that_dies_between_push_and_pull_is_done_without(
    scene: DeliveryScene, make: Make, node3: Node
) -> None:
    registry = scene.registries.slow
    image, src, dst = make(layers=(6 * MIB,)), scene.stage.name(), scene.name(registry)
    scene.stage.seed(image, src, nodes=[node3])
    targets = other_nodes(scene, SOURCE, "node2")
    with scene.registries.throttled(3 * MIB), Running(scene, targets, "--src", src, "--dst", dst) as running:
        try:
            assert eventually(lambda: scene.there(registry, dst) == image.target.digest), running.ended()
            registry.server.kill()
            run = running.ended()
        finally:
            registry.server.start()
    assert run.exit == 0, run.out
    assert routes(run) == dict.fromkeys(targets, "ssh")
    assert all("the registry failed" in run.image(host)["why"] for host in targets)
    scene.is_as_told(run, dst, image.target.digest)


def test_a_target_that_dies_is_reported_and_the_others_get_all(scene: DeliveryScene, make: Make, node3: Node) -> None:
    image, src = make(layers=(1000, LARGE)), scene.stage.name()
    dst = scene.name(scene.registries.nowhere)
    scene.stage.seed(image, src, nodes=[node3])
    targets = other_nodes(scene, SOURCE, "node2")
    dying, *others = (scene.nodes[name] for name in targets)
    with stalling(node3) as user:
        before = set(processes(dying))
        words = ("--src", src, "--dst", dst)
        with Running(scene, targets, *words, "--from", f"{user}@{SOURCE}") as running:
            layer = image.layers[NATIVE][0]
            at_it = lambda: is_stalled(node3, user) and all(layer in seen(scene.nodes[name]) for name in targets)  # noqa: E731
            assert eventually(at_it), running.ended()
            kill_sessions(dying, before)
            assert eventually(lambda: set(processes(dying)) <= before), processes(dying)
            go_on(node3, user)
            run = running.ended()
    assert run.statuses == dict.fromkeys(targets, "changed") | {dying.name: "connection-lost"}, run.out
    assert run.exit == 4
    assert f"fab -H {dying.name} deliver" in run.outcomes[dying.name]["error"]["hint"]
    assert run.image(dying.name)["status"] == "failed"
    assert dst not in scene.stage.records(dying)
    scene.is_as_told(run, dst, image.target.digest, [node.name for node in others])
    again = scene.deliver(targets, *words)
    assert again.statuses == dict.fromkeys(targets, "unchanged") | {dying.name: "changed"}, again.out
    scene.is_as_told(again, dst, image.target.digest)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)], ids=["KILL", "INT"]
)
def test_a_sender_that_is_killed_over_ssh_leaves_nothing_and_goes_on(
    scene: DeliveryScene, make: Make, node3: Node, number: int, status: int
) -> None:
    image, src = make(layers=(1000, LARGE)), scene.stage.name()
    dst = scene.name(scene.registries.nowhere)
    scene.stage.seed(image, src, nodes=[node3])
    targets, words = other_nodes(scene, SOURCE, "node2"), ("--src", src, "--dst", dst)
    before = {name: set(processes(node)) for name, node in scene.nodes.items()}
    with stalling(node3) as user:
        with Running(scene, targets, *words, "--from", f"{user}@{SOURCE}") as running:
            assert eventually(lambda: is_stalled(node3, user)), running.ended()
            running.process.send_signal(number)
            run = running.ended()
            assert run.exit == status
        if number == signal.SIGINT:
            assert set(run.statuses.values()) == {"interrupted"}
            assert {run.image(host)["status"] for host in targets} <= {"skipped", "failed"}
        scene.leaves_nothing(before)
    assert all(dst not in scene.stage.records(scene.nodes[name]) for name in targets)
    again = scene.deliver(targets, *words)
    assert again.statuses == dict.fromkeys(targets, "changed"), again.out
    scene.is_as_told(again, dst, image.target.digest)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["KILL", "INT"])
def test_a_sender_that_is_killed_while_hosts_pull_leaves_nothing_and_goes_on(
    scene: DeliveryScene, make: Make, node3: Node, number: int
) -> None:
    registry = scene.registries.slow
    image, src, dst = make(layers=(6 * MIB,)), scene.stage.name(), scene.name(registry)
    scene.stage.seed(image, src, nodes=[node3])
    targets, words = other_nodes(scene, SOURCE, "node2"), ("--src", src, "--dst", dst)
    before = {name: set(processes(node)) for name, node in scene.nodes.items()}
    with scene.registries.throttled(3 * MIB), Running(scene, targets, *words) as running:
        on_targets = [scene.nodes[name] for name in targets]
        pulling = lambda: any(" images pull " in argv for node in on_targets for argv in processes(node).values())  # noqa: E731
        assert eventually(pulling), running.ended()
        running.process.send_signal(number)
        run = running.ended()
        scene.leaves_nothing(before)
    if number == signal.SIGINT:  # the registry did not fail, and no other way was tried
        cut = [run.image(host) for host in targets if "result" in run.outcomes[host]]
        assert cut and {image["route"] for image in cut} == {"registry"}, run.out
    again = scene.deliver(targets, *words)
    assert set(again.statuses.values()) <= {"changed", "unchanged"}, again.out
    assert set(routes(again).values()) <= {"registry", "there"}
    scene.is_as_told(again, dst, image.target.digest)


def test_a_target_that_is_down_has_the_command_for_later_and_the_others_get_all(
    scene: DeliveryScene, make: Make, node3: Node
) -> None:
    image, src, dst = make(), scene.stage.name(), scene.name(scene.registries.nowhere)
    scene.stage.seed(image, src, nodes=[node3])
    down = {"ansible_host": f"{node3.address.rpartition('.')[0]}.99"}
    targets = other_nodes(scene, SOURCE, "node2")
    run = scene.deliver([*targets, "down"], "--src", src, "--dst", dst, inventory=scene.inventory(hosts={"down": down}))
    assert run.exit == 4
    assert run.statuses == dict.fromkeys(targets, "changed") | {"down": "host-unreachable"}, run.out
    assert run.outcomes["down"]["error"]["hint"].endswith(f"fab -H down deliver --src {src} --dst {dst}")
    scene.is_as_told(run, dst, image.target.digest, targets)
