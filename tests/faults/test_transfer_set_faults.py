"""A set of images that is cut off in the middle tells what became of each image, leaves nothing, and goes on later."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from registry_scene import RegistryScene, in_repository
from running import MIB, Running, some

from lab.fleet import Node
from lab.images import BuiltImage, build


@pytest.fixture
def images(tmp_path: Path) -> list[BuiltImage]:
    """A small image, a large one and another small one, which no registry has had."""
    return [build(tmp_path, layers=size, seed=secrets.randbits(32)) for size in ((1000,), (8 * MIB,), (2000,))]


def size(image: BuiltImage) -> int:
    return sum(map(image.size, image.blobs))


def interrupt(running: Running, _: Node) -> None:
    running.process.send_signal(signal.SIGINT)


def cut(running: Running, node: Node) -> None:
    for pid in [pid for pid, argv in running.new(node).items() if argv.startswith("sshd")]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("end", "kind"), [(interrupt, "interrupted"), (cut, "connection-lost")])
def test_a_pull_that_is_cut_off_goes_on_from_there(
    scene: RegistryScene, images: list[BuiltImage], *, end: Callable[[Running, Node], None], kind: str
) -> None:
    registry, (node,) = scene.registries.slow, some(scene, "node3")
    names = [scene.name(registry, tag=str(number)) for number in range(3)]
    for name, image in zip(names, images, strict=True):
        registry.server.put(image, in_repository(registry, name))
    words = [word for name in names for word in ("--ref", name)]
    with scene.registries.throttled(MIB), Running(scene, [node], "pull", "--json", *words) as running:
        assert running.in_the_middle(size(images[0]) + MIB, "got"), running.ended()
        end(running, node)
        run = running.ended()
        running.leaves_nothing()
    assert run.statuses == {"node3": kind}, run.out
    assert [each["status"] for each in run.images("node3")] == ["changed", "skipped", "skipped"]
    assert scene.stage.records(node).keys() == {names[0]}
    again = scene.pull(["node3"], *words)
    assert [each["status"] for each in again.images("node3")] == ["unchanged", "changed", "changed"], again.out


def test_a_registry_that_dies_between_the_images_is_told_for_each(
    scene: RegistryScene, images: list[BuiltImage]
) -> None:
    registry, (node,) = scene.registries.slow, some(scene, "node3")
    names = [scene.name(registry, tag=str(number)) for number in range(3)]
    for name, image in zip(names, images, strict=True):
        scene.stage.seed(image, name, nodes=[node])
    words = [word for name in names for word in ("--ref", name)]
    with Running(scene, [node], "push", "--json", *words) as running:
        with scene.registries.throttled(MIB):
            assert running.in_the_middle(size(images[0]) + MIB), running.ended()
            registry.server.kill()
        try:
            run = running.ended()
        finally:
            registry.server.start()
        running.leaves_nothing()
    assert (run.exit, run.statuses) == (1, {"node3": "some-failed"}), run.out
    first, *others = run.images("node3")
    assert first["status"] == "changed" and {each["status"] for each in others} == {"failed"}, run.out
    assert all(each["error"]["kind"].startswith("registry-") for each in others), run.out
    assert [scene.there(registry, name) for name in names] == [images[0].target.digest, None, None]
    again = scene.push(["node3"], *words)
    assert [each["status"] for each in again.images("node3")] == ["unchanged", "changed", "changed"], again.out
