"""A push or a pull whose registry, disk or `fab` fails reports it, leaves nothing, and goes on later."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ferry import eventually, leftovers, names_of
from registry_scene import RegistryScene, in_repository, key_without_forwarding
from running import MIB, Running, some

from lab.fleet import Node
from lab.images import NATIVE, BuiltImage, build

NODES = ("node1", "node3", "node5")


def fresh(folder: Path, *layers: int) -> BuiltImage:
    """Build an image that no registry has had: of others ctr would not send a byte again."""
    return build(folder, layers=layers or (1000,), seed=secrets.randbits(32))


class TestAPush:
    def test_that_a_killed_registry_interrupted_goes_on_from_there(
        self, scene: RegistryScene, tmp_path: Path, node3: Node
    ) -> None:
        registry, name = scene.registries.slow, scene.name(scene.registries.slow)
        image = fresh(tmp_path, 20 * MIB, 30 * MIB, 150 * MIB)
        scene.stage.seed(image, name, nodes=[node3])
        size, repository = sum(map(image.size, image.blobs)), in_repository(registry, name).partition(":")[0]
        with Running(scene, [node3], "push", "--json", "--ref", name) as running:
            with scene.registries.throttled(60 * MIB):
                layers = set(image.layers[NATIVE])
                assert eventually(lambda: registry.server.blobs(repository) & layers), running.ended()
                registry.server.kill()
            try:
                run = running.ended()
            finally:
                registry.server.start()
            assert (run.exit, run.statuses) == (1, {"node3": "registry-broken-off"}), run.out
            first = running.moved()
            assert first < size, "all of it had been sent: this test shows nothing"
            assert scene.there(registry, name) is None
            running.leaves_nothing()
            again = scene.push(["node3"], "--ref", name)
            assert again.statuses == {"node3": "changed"}, again.out
            assert again.image("node3")["bytes_there"] >= image.size(image.layers[NATIVE][0])
            assert scene.there(registry, name) == image.target.digest
            assert running.moved() - first < size - image.size(image.layers[NATIVE][0]) / 2

    def test_to_a_registry_that_stops_answering_in_the_middle_is_given_up(
        self, scene: RegistryScene, tmp_path: Path
    ) -> None:
        registry, nodes = scene.registries.slow, some(scene, *NODES)
        name = scene.name(registry)
        scene.stage.seed(fresh(tmp_path), name, nodes=nodes)
        words = ("push", "--json", "--ref", name)
        with Running(scene, nodes, *words, FABRIC_TIMEOUTS_REGISTRY="2") as running:
            with scene.registries.throttled(200_000):
                assert running.in_the_middle(300_000), running.ended()
                with registry.server.frozen():
                    run = running.ended()
            assert (run.exit, run.statuses) == (1, dict.fromkeys(names_of(nodes), "registry-timeout")), run.out
            running.leaves_nothing()

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
    def test_that_is_cut_off_leaves_nothing_on_the_nodes(
        self, scene: RegistryScene, tmp_path: Path, number: int, status: int
    ) -> None:
        registry, nodes = scene.registries.slow, some(scene, *NODES)
        name = scene.name(registry)
        scene.stage.seed(fresh(tmp_path), name, nodes=nodes)
        with (
            scene.registries.throttled(100_000),
            Running(scene, nodes, "push", "--json", "--ref", name) as running,
        ):
            assert running.in_the_middle(200_000), running.ended()
            running.process.send_signal(number)
            assert running.ended().exit == status
            running.leaves_nothing()
        assert scene.there(registry, name) is None

    def test_whose_connection_is_cut_is_reported_and_leaves_nothing_on_the_node(
        self, scene: RegistryScene, tmp_path: Path, node3: Node
    ) -> None:
        registry = scene.registries.slow
        name = scene.name(registry)
        scene.stage.seed(fresh(tmp_path), name, nodes=[node3])
        with (
            scene.registries.throttled(100_000),
            Running(scene, [node3], "push", "--json", "--ref", name) as running,
        ):
            assert running.in_the_middle(200_000), running.ended()
            for pid in [pid for pid, argv in running.new(node3).items() if argv.startswith("sshd")]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            run = running.ended()
            assert (run.exit, run.statuses) == (4, {"node3": "connection-lost"}), run.out
            running.leaves_nothing()


class TestARegistryThatAnswersWithAnError:
    WRITES = ("POST", "PUT", "PATCH")

    @pytest.mark.parametrize(
        ("name", "status"),
        [
            ("node1", "503 Service Unavailable"),
            ("node3", "429 Too Many Requests"),
            ("node5", "500 Internal Server Error"),
        ],
    )
    def test_is_tried_again(self, scene: RegistryScene, tmp_path: Path, name: str, status: str) -> None:
        (node,), registry = some(scene, name), scene.registries.flaky
        goal, image = scene.name(registry), fresh(tmp_path)
        scene.stage.seed(image, goal, nodes=[node])
        with scene.registries.failing(status, 2, methods=self.WRITES) as answered:
            run = scene.push([name], "--ref", goal)
            assert answered() == 2
        assert run.statuses == {name: "changed"}, run.out
        assert scene.there(registry, goal) == image.target.digest

    @pytest.mark.parametrize(
        ("status", "code", "message", "kind"),
        [
            ("507 Insufficient Storage", "UNKNOWN", "no space left on device", "registry-failed"),
            ("403 Forbidden", "DENIED", "quota of this project is exceeded", "registry-denied"),
            ("405 Method Not Allowed", "UNSUPPORTED", "read only", "registry-refused"),
            ("413 Request Entity Too Large", "UNKNOWN", "too large", "registry-refused"),
        ],
    )
    def test_is_given_up_in_the_end_with_its_own_message(
        self, scene: RegistryScene, tmp_path: Path, *, status: str, code: str, message: str, kind: str
    ) -> None:
        registry, nodes = scene.registries.flaky, some(scene, *NODES)
        name = scene.name(registry)
        scene.stage.seed(fresh(tmp_path), name, nodes=nodes)
        with scene.registries.failing(status, 10_000, code=code, message=message, methods=self.WRITES):
            run = scene.push(names_of(nodes), "--ref", name)
        assert (run.exit, run.statuses) == (1, dict.fromkeys(names_of(nodes), kind)), run.out
        assert status[:3] in run.error["said"]
        assert scene.there(registry, name) is None

    def test_that_lets_no_blob_be_mounted_gets_it_uploaded_and_the_labels_stay(
        self, scene: RegistryScene, tmp_path: Path
    ) -> None:
        registry, nodes = scene.registries.flaky, some(scene, "node3", "node5")
        image, source = fresh(tmp_path), scene.stage.name()
        scene.stage.seed(image, source, nodes=nodes)
        (layer,), host = image.layers[NATIVE], registry.name.partition(":")[0]
        label = f"containerd.io/distribution.source.{host}=team/a,team/secret"
        for node in nodes:
            node.ctr("content", "label", layer, label, namespace="k8s.io")
        goals = {node.name: scene.name(registry, node.name) for node in nodes}
        with scene.registries.failing("403 Forbidden", 100, code="DENIED", within="mount=") as answered:
            runs = [scene.push([node.name], "--ref", source, "--as", goals[node.name]) for node in nodes]
            assert answered() >= 2
        assert [run.statuses for run in runs] == [{node.name: "changed"} for node in nodes], runs[-1].out
        assert {scene.there(registry, goal) for goal in goals.values()} == {image.target.digest}
        for node in nodes:
            assert label in node.ctr("content", "ls", namespace="k8s.io").stdout.decode()

    def test_that_shows_a_page_for_people_is_no_registry(self, scene: RegistryScene) -> None:
        registry, names = scene.registries.flaky, names_of(some(scene, *NODES))
        page = {"Content-Type": "text/html; charset=utf-8"}
        with scene.registries.failing("200 OK", 100, headers=page):
            run = scene.pull(names, "--ref", scene.name(registry))
        assert (run.exit, run.statuses) == (1, dict.fromkeys(names, "registry-error")), run.out
        assert "no registry" in run.error["message"]

    def test_that_accepts_a_manifest_and_loses_it_is_found_out(self, scene: RegistryScene, tmp_path: Path) -> None:
        registry, nodes = scene.registries.flaky, some(scene, *NODES)
        name, other = scene.name(registry), scene.name(registry, tag="other")
        image = fresh(tmp_path)
        scene.stage.seed(image, name, nodes=nodes)
        assert scene.push(names_of(nodes)[:1], "--ref", name).exit == 0  # so that only the manifest is to be sent
        headers = {"Docker-Content-Digest": image.target.digest}
        with scene.registries.failing("201 Created", 100, methods=("PUT",), headers=headers) as answered:
            run = scene.push(names_of(nodes), "--ref", name, "--as", other)
            assert answered() == len(nodes)
        assert (run.exit, run.statuses) == (1, dict.fromkeys(names_of(nodes), "verify-failed")), run.out
        assert image.target.digest in run.error["said"]
        assert scene.there(registry, other) is None


class TestAPull:
    def test_that_a_killed_registry_interrupted_leaves_no_name_and_succeeds_afterwards(
        self, scene: RegistryScene, tmp_path: Path
    ) -> None:
        registry, nodes = scene.registries.slow, some(scene, *NODES)
        name, image = scene.name(registry), fresh(tmp_path, 8 * MIB)
        registry.server.put(image, in_repository(registry, name))
        with Running(scene, nodes, "pull", "--json", "--ref", name) as running:
            with scene.registries.throttled(400_000):
                assert running.in_the_middle(400_000, "got"), running.ended()
                registry.server.kill()
            try:
                run = running.ended()
            finally:
                registry.server.start()
            assert (run.exit, run.statuses) == (1, dict.fromkeys(names_of(nodes), "registry-broken-off")), run.out
            running.leaves_nothing()
        assert [scene.stage.records(node) for node in nodes] == [{} for _ in nodes]
        again = scene.pull(names_of(nodes), "--ref", name)
        assert again.statuses == dict.fromkeys(names_of(nodes), "changed"), again.out

    def test_on_a_full_disk_is_reported_leaves_no_name_and_succeeds_with_space(
        self, scene: RegistryScene, tmp_path: Path
    ) -> None:
        registry, nodes = scene.registries.http, some(scene, "node2", "node3", "node5")
        name, image = scene.name(registry), fresh(tmp_path, 1000, 30 * MIB)
        registry.server.put(image, in_repository(registry, name))
        with contextlib.ExitStack() as stack:
            for node in nodes:
                stack.enter_context(small_disk(node, "24m"))
            refused = scene.pull(names_of(nodes), "--ref", name)
            pulled = [line for line in registry.server.requests() if f"/{scene.stage.token}/app/blobs/" in line]
            for node in nodes:
                node.exec(["mount", "-o", "remount,size=48m", node.root])  # the layers, but not once more unpacked
            run = scene.pull(names_of(nodes), "--ref", name)
            records = [scene.stage.records(node) for node in nodes]
        assert (refused.exit, set(refused.statuses.values()), pulled) == (1, {"disk-full"}, [])
        assert "31.9 MiB are needed, and 24.0 MiB are free" in refused.error["message"]
        assert (run.exit, set(run.statuses.values())) == (1, {"disk-full"}), run.out
        assert "no space left on device" in run.error["said"]
        assert records == [{} for _ in nodes]
        again = scene.pull(names_of(nodes), "--ref", name)
        assert again.statuses == dict.fromkeys(names_of(nodes), "changed"), again.out


@contextlib.contextmanager
def small_disk(node: Node, size: str) -> Iterator[None]:
    """A disk of its own for all that containerd keeps, empty at first."""
    node.stop_containerd()
    node.exec(["mount", "-t", "tmpfs", "-o", f"size={size}", "test", node.root])
    try:
        node.start_containerd()
        yield
    finally:
        node.stop_containerd()
        node.exec(["umount", "-R", node.root])
        node.start_containerd()


class TestAnSshdThatForbidsForwarding:
    @pytest.mark.parametrize("tools", [True, False])
    def test_has_a_push_verified_by_the_hosts_own_tools_or_reported_as_unverified(
        self, scene: RegistryScene, tmp_path: Path, node3: Node, tools: bool
    ) -> None:
        found = node3.exec(["sh", "-c", "command -v curl wget || :"]).stdout.decode().split()
        if tools and not found:
            pytest.skip("this machine, and so the node, has neither curl nor wget")
        registry, name = scene.registries.basic, scene.name(scene.registries.basic)
        image = fresh(tmp_path)
        scene.stage.seed(image, name, nodes=[node3])
        with contextlib.ExitStack() as stack:
            key = stack.enter_context(key_without_forwarding(node3, tmp_path / "key"))
            for tool in [] if tools else found:
                node3.exec(["mount", "--bind", "/dev/null", tool])
                stack.callback(node3.exec, ["umount", tool])
            host = {"n": {"ansible_host": node3.address, "ansible_ssh_private_key_file": str(key)}}
            inventory = scene.inventory(hosts=host)
            if not tools:  # nobody can tell whether it has something else under that name
                run = scene.push(["n"], "--ref", name, inventory=inventory)
                assert run.statuses == {"n": "method-unsupported"}, run.out
                assert scene.there(registry, name) is None
            run = scene.push(["n"], "--ref", name, *([] if tools else ["--force"]), inventory=inventory)
        assert run.statuses == {"n": "changed"}, run.out
        assert scene.there(registry, name) == image.target.digest
        told = run.image("n")
        assert (told["verified"], "unverified" in str(told["notes"])) == (
            ("digest", False) if tools else ("unverified", True)
        )
        assert leftovers(node3) == []
