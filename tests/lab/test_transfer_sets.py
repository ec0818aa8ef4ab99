"""A set of images is pulled and pushed as one: a few remote commands, one connection, and a status for each image."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any

import pytest
from ferry import Run, Stage, leftovers
from registry_scene import RegistryScene, in_repository

from lab.fleet import Fleet, Node
from lab.images import BuiltImage, build

MANY = 120


@pytest.fixture(scope="module")
def plain(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """A small image, of this module alone."""
    assert fleet.nodes
    return build(tmp_path_factory.mktemp("images"), layers=(1000, 2000), seed=secrets.randbits(32))


@pytest.fixture
def stage(few: Stage) -> Stage:
    """Three kinds of ctr are enough."""
    return few


def remote_commands(scene: RegistryScene, host: str) -> int:
    """Count the remote commands that the last run sent to a host."""
    *_, last = sorted(path for path in (scene.fab.home / "runs").iterdir() if path.is_dir())
    return len(re.findall(r"^# \S+Z  exit ", (last / f"{host}.log").read_text(), re.MULTILINE))


def told(run: Run, host: str) -> list[tuple[str, str]]:
    """The status of each image on a host; if it failed, the error's kind."""
    images: list[dict[str, Any]] = run.images(host)
    return [(each["reference"], each["error"]["kind"] if each["error"] else each["status"]) for each in images]


class TestASet:
    def test_is_pulled_although_one_image_is_missing_and_a_second_run_pulls_nothing(
        self, scene: RegistryScene, plain: BuiltImage, tmp_path: Path
    ) -> None:
        all_, stage = scene.registries, scene.stage
        names = [scene.name(registry, tag=str(n)) for n, registry in enumerate((all_.http, all_.token, all_.basic))]
        for name, registry in zip(names, (all_.http, all_.token, all_.basic), strict=True):
            registry.server.put(plain, in_repository(registry, name))
        absent = scene.name(all_.tls, tag="none")
        (tmp_path / "set").write_text("\n".join(["# a site", names[0], absent, f"{names[1]}  # signed", names[2]]))
        for status in ("changed", "unchanged"):
            run = scene.pull(scene.nodes, "--set", str(tmp_path / "set"))
            assert (run.exit, run.statuses) == (1, dict.fromkeys(scene.nodes, "some-failed")), run.out
            for node in scene.nodes:
                order = [names[0], absent, names[1], names[2]]
                kinds = [status, "repository-not-found", status, status]
                assert told(run, node) == list(zip(order, kinds, strict=True))
        assert {remote_commands(scene, node) for node in scene.nodes} == {2}
        for node, records in stage.on_each(stage.records).items():
            assert {name: record.digest for name, record in records.items()} == dict.fromkeys(
                names, plain.target.digest
            ), node
        assert stage.on_each(leftovers) == {node: [] for node in scene.nodes}

    def test_is_pushed_although_one_image_is_missing_and_a_second_run_pushes_nothing(
        self, scene: RegistryScene, plain: BuiltImage, tmp_path: Path
    ) -> None:
        all_, stage = scene.registries, scene.stage
        registries = (all_.http, all_.token, all_.basic)
        names = [scene.name(registry, tag=str(number)) for number, registry in enumerate(registries)]
        absent, taken = scene.name(all_.tls, tag="none"), scene.name(all_.http, "taken")
        stage.seed(plain, *names, taken)
        other = build(tmp_path, layers=(1000,), seed=secrets.randbits(32))
        all_.http.server.put(other, in_repository(all_.http, taken))
        words = [word for name in (*names, absent, taken) for word in ("--ref", name)]
        for first in (True, False):
            run = scene.push(scene.nodes, *words)
            assert (run.exit, run.statuses) == (1, dict.fromkeys(scene.nodes, "some-failed")), run.out
            statuses = [told(run, node) for node in scene.nodes]
            for found in statuses:
                assert [name for name, _ in found] == [*names, absent, taken]
                assert [kind for _, kind in found][3:] == ["image-not-found", "reference-exists"]
            pushed = {kind for found in statuses for _, kind in found[:3]}
            assert first == ("changed" in pushed) and pushed <= {"changed", "unchanged"}
        assert [scene.there(*each) for each in zip(registries, names, strict=True)] == [plain.target.digest] * 3
        assert scene.there(all_.http, taken) == other.target.digest
        # The probe, the manifests of what the registry has otherwise, and where else the missing image may be.
        assert {remote_commands(scene, node) for node in scene.nodes} <= {2, 3}
        assert stage.on_each(leftovers) == {node: [] for node in scene.nodes}

    def test_of_over_a_hundred_takes_a_remote_command_or_two_and_one_connection_in_a_second_run(
        self, scene: RegistryScene, plain: BuiltImage, tmp_path: Path, node3: Node
    ) -> None:
        registry = scene.registries.slow  # behind a front that counts connections
        names = [scene.name(registry, f"app{number % 10}", str(number)) for number in range(MANY)]
        for name in names:
            registry.server.put(plain, in_repository(registry, name))
        scene.stage.seed(plain, *names, nodes=[node3])
        (tmp_path / "set").write_text("\n".join(names))
        for verb, commands in (("pull", 2), ("push", 1)):
            before = scene.registries.seen("slow")["connections"]
            run = scene.run(["node3"], verb, "--json", "--set", str(tmp_path / "set"))
            assert run.exit == 0, run.out
            assert told(run, "node3") == [(name, "unchanged") for name in names]
            assert remote_commands(scene, "node3") == commands
            assert scene.registries.seen("slow")["connections"] - before == 1
