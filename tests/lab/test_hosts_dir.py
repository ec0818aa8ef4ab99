"""`fab pull` and `fab push` ask the servers that a node's hosts.toml names, as kubelet does, and give them no login."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from ferry import leftovers, release
from pushing import (
    images_fixture,  # noqa: F401
    plain_fixture,  # noqa: F401
)
from registry_scene import RegistryScene, in_repository

from lab.images import BuiltImage

FOLDER = "/etc/containerd/mirrors.d"


@pytest.fixture(name="describe")
def describe_fixture(scene: RegistryScene) -> Iterator[Callable[..., None]]:
    """A function that gives all nodes a hosts.toml for a registry: with the mirrors of these addresses."""

    def describe(registry: str, *mirrors: str) -> None:
        told = 'capabilities = ["pull", "resolve"]\nca = "ca.pem"\n'
        text = "".join(f'[host."{mirror}"]\n{told}' for mirror in mirrors)
        ca = (scene.registries.folder / "ca.pem").read_text()
        for node in scene.nodes.values():
            folder = f"{FOLDER}/{registry}"
            node.exec(["mkdir", "-p", folder])
            for file, content in (("hosts.toml", text), ("ca.pem", ca)):
                node.exec(["sh", "-c", f"cat >'{folder}/{file}'"], stdin=content.encode())

    yield describe
    for node in scene.nodes.values():
        node.exec(["rm", "-r", FOLDER])


def test_every_node_that_can_pulls_from_the_mirror_and_says_who_was_asked(
    scene: RegistryScene, plain: BuiltImage, describe: Callable[..., None]
) -> None:
    http, mirrored = scene.registries.http, scene.registries.nowhere.name
    describe(mirrored, f"http://{scene.registries.absent.name}", f"http://{http.name}")
    there = scene.name(http)
    http.server.put(plain, in_repository(http, there))
    name = there.replace(http.name, mirrored)
    inventory = scene.inventory(ctr_hosts_dir=FOLDER)
    run = scene.run(scene.nodes, "pull", "--json", "--ref", name, inventory=inventory)
    for host, outcome in run.outcomes.items():
        if release(scene.nodes[host]) < (1, 4):
            assert outcome["error"]["kind"] == "registry-unresolved", run.out
            assert "no --hosts-dir" in outcome["error"]["said"]
            continue
        (result,) = outcome["result"]["images"]
        assert (outcome["status"], result["verified"]) == ("changed", "digest"), run.out
        assert result["digest"] == plain.target.digest
        assert f"http://{http.name}/v2, then" in str(result["notes"])
    able = [host for host in scene.nodes if release(scene.nodes[host]) >= (1, 4)]
    described = scene.inventory(ctr_hosts_dir=FOLDER, ctr_registries={mirrored: {}})
    for host, outcome in scene.run(able, "registry", "--json", inventory=described).outcomes.items():
        (told,) = outcome["result"]["registries"]
        assert (outcome["status"], told["status"]) == ("ok", "warn"), (host, told)
        assert f"http://{http.name}/v2 answers, so that pulls work" in told["message"]
    again = scene.run(scene.nodes, "pull", "--json", "--ref", name, inventory=inventory)
    assert {"changed", "failed"}.isdisjoint(
        each["status"] for host, each in again.outcomes.items() if release(scene.nodes[host]) >= (1, 4)
    )
    for node in scene.nodes.values():
        assert leftovers(node) == []


def test_a_login_goes_to_no_mirror_but_to_the_registry_itself(
    scene: RegistryScene, plain: BuiltImage, describe: Callable[..., None]
) -> None:
    basic, mirror = scene.registries.basic, scene.registries.token  # which takes the same login
    name = scene.name(basic)
    basic.server.put(plain, in_repository(basic, name))
    describe(basic.name, f"https://{mirror.name}")
    before = len(mirror.server.requests())
    run = scene.run(scene.nodes, "pull", "--json", "--ref", name, inventory=scene.inventory(ctr_hosts_dir=FOLDER))
    assert set(run.statuses.values()) == {"changed"}, run.out
    ways = [str(run.image(node)["notes"]) for node in run.outcomes if release(scene.nodes[node]) >= (1, 4)]
    assert ways and all(f"a login goes to {basic.name} alone" in way for way in ways)
    asked = mirror.server.requests()[before:]
    assert asked and all('" 401 ' in line for line in asked)
