"""Sets of images on the rehearsal fleet: one list serves find, check, images, copy, save, load and needs."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import counting
from ferry import Fab, Stage, has_cri

from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build


@pytest.fixture(scope="module")
def built(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> list[BuiltImage]:
    """Two small images that nobody else has."""
    assert fleet.nodes
    folder, seed = tmp_path_factory.mktemp("images"), secrets.randbits(32)
    return [build(folder, layers=(1000, 2000), seed=seed + n) for n in range(2)]


def a_set(file: Path, *names: str) -> str:
    """Write a set, and return its file."""
    file.write_text("".join(f"{name}\n" for name in ("# of a test", *names)))
    return str(file)


def everywhere(stage: Stage) -> str:
    """Return all nodes as -H takes them."""
    return ",".join(stage.nodes)


class TestManyImages:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_300_names_take_a_probe_and_one_more_remote_command(
        self, fab: Fab, stage: Stage, built: list[BuiltImage], tmp_path: Path
    ) -> None:
        names = [stage.name(f"app{n}") for n in range(300)]
        namespace = stage.namespace()  # CRI would give 300 labels in the others
        stage.seed(built[0], *names, namespace=namespace)
        file = a_set(tmp_path / "set", *names)
        for words in (("check", "-n", namespace), ("images", "-n", namespace), ("find",)):
            with counting(stage.nodes.values()) as counts:
                run = fab("-H", ",".join(counts), *words, "--set", file, "--json")
                asked = {login: count() for login, count in counts.items()}
            assert run.exit == 0, run.out[-2000:]
            assert asked == dict.fromkeys(counts, 2), words
            assert all(len(run.images(login)) == 300 for login in counts), words

    def test_what_one_host_lacks_is_told_with_the_command_that_brings_it(
        self, fab: Fab, stage: Stage, built: list[BuiltImage], tmp_path: Path
    ) -> None:
        first, second, third = (stage.name(f"app{n}") for n in range(3))
        *most, odd = stage.nodes.values()
        stage.seed(built[0], first, second)
        stage.seed(built[0], third, nodes=most)
        stage.on_each(lambda node: node.real_ctr("images", "rm", second), [odd])
        stage.seed(built[1], second, nodes=[odd])
        file = a_set(tmp_path / "set", first, second, third)
        run = fab("-H", everywhere(stage), "check", "--set", file, "--json")
        assert (run.exit, run.statuses) == (1, {**{n.name: "ok" for n in most}, odd.name: "some-failed"})
        told = {image["asked"]: image.get("error") and image["error"]["kind"] for image in run.images(odd.name)}
        assert told == {first: None, second: "drift", third: "image-not-found"}
        assert f"fab -H {odd.name} deliver --set {file}" in run.error["hint"]
        shown = fab("-H", everywhere(stage), "check", "--set", file)
        assert "1 of 3 images are the same, complete and unpacked" in shown.out
        assert shown.exit == 1


def test_a_set_is_copied_saved_and_loaded(fab: Fab, few: Stage, built: list[BuiltImage], tmp_path: Path) -> None:
    source, *others = few.nodes.values()
    names = [few.name("one"), few.name("two")]
    for image, name in zip(built, names, strict=True):
        few.seed(image, name, nodes=[source])
    file = a_set(tmp_path / "set", *names)
    to = ("-H", ",".join(node.name for node in others))
    run = fab(*to, "copy", "--from", source.name, "--set", file, "--json")
    assert run.statuses == {node.name: "changed" for node in others}, run.out
    assert fab("-H", everywhere(few), "check", "--set", file).exit == 0
    archive = tmp_path / "set.tar"
    assert fab("-H", source.name, "save", "--set", file, "--out", str(archive)).exit == 0
    for node in others:
        node.real_ctr("images", "rm", *names)
    run = fab(*to, "load", "--archive", str(archive), "--set", file, "--json")
    assert run.statuses == {node.name: "changed" for node in others}, run.out
    assert fab("-H", everywhere(few), "check", "--set", file).exit == 0
    a_set(tmp_path / "set", *names, few.name("three"), few.name("four"))
    for command in (("copy", "--from", source.name), ("save", "--out", str(tmp_path / "x.tar"))):
        run = fab("-H", source.name, *command, "--set", file, "--json")
        assert (run.exit, run.error["kind"]) == (1, "image-not-found")
        assert all(few.name(name) in run.error["said"] for name in ("three", "four")), run.error
    run = fab(*to, "load", "--archive", str(archive), "--set", file, "--json")
    assert (run.exit, run.error["kind"]) == (2, "bad-archive")


def test_a_set_on_stdin_serves_all_commands_of_a_line(fab: Fab, few: Stage, built: list[BuiltImage]) -> None:
    name = few.name()
    few.seed(built[0], name)
    words = ("-H", everywhere(few), "find", "--set", "-", "check", "--set", "-", "--json")
    done = subprocess.run(
        fab.argv(*words), env=fab.environment(), input=f"{name}\n", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    commands = json.loads(done.stdout)["commands"]
    assert [command["command"] for command in commands] == ["find", "check"]


def test_a_wrong_set_starts_nothing(fab: Fab, few: Stage, tmp_path: Path) -> None:
    file = a_set(tmp_path / "set", few.name(), "not a name")
    for command in ("find", "check", "images", "copy --from any", "save --out x", "load --archive x"):
        run = fab("-H", everywhere(few), *command.split(), "--set", file, "--json")
        assert (run.exit, run.document["commands"]) == (2, []), command
        assert f"{file}:3: 'not a name' is no image reference" in run.error["said"]


class TestNeeds:
    @pytest.fixture
    def used(self, stage: Stage, built: list[BuiltImage]) -> Iterator[str]:
        """An image that a container of each node uses, whether it runs or not."""
        name = stage.name("used")
        stage.seed(built[0], name)
        stage.seed(built[1], stage.name("idle"))
        stage.on_each(lambda node: node.real_ctr("containers", "create", name, stage.token))
        yield name
        stage.on_each(lambda node: node.real_ctr("containers", "rm", stage.token))

    def test_what_containers_use_and_each_sandbox_image(
        self, fab: Fab, stage: Stage, used: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "site.images"
        with counting(stage.nodes.values()) as counts:
            run = fab("-H", ",".join(counts), "needs", "--json", "--out", str(file))
            asked = {login: count() for login, count in counts.items()}
        assert run.exit == 0 and asked == dict.fromkeys(counts, 2)
        for login, outcome in run.outcomes.items():
            node = stage.nodes[login.partition("@")[2]]
            by = {image["reference"]: image["by"] for image in outcome["result"]["images"]}
            assert by[used] == ["container"] and stage.name("idle") not in by
            plain = node.socket == "/run/containerd/containerd.sock"
            assert any("sandbox" in each for each in by.values()) == (has_cri(node) and plain), (login, by)
        assert used in file.read_text().splitlines()
        assert fab("-H", everywhere(stage), "images", "--set", str(file)).exit == 0
        again = fab("-H", everywhere(stage), "needs", "--out", str(file))
        assert f"{file} has " in again.out

    def test_the_sandbox_image_of_k3s(self, fab: Fab, node4: Node) -> None:
        folder = f"{node4.root.rpartition('/')[0]}/etc/containerd"
        text = '[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "rancher/mirrored-pause:3.6"\n'
        node4.exec(["sh", "-c", f"mkdir -p {folder}; cat >{folder}/config.toml"], stdin=text.encode())
        try:
            run = fab("-H", "node4", "needs", "--json")
        finally:
            node4.exec(["rm", "-r", folder])
        assert {"reference": "docker.io/rancher/mirrored-pause:3.6", "by": ["sandbox"]} in run.images("node4")

    def test_an_id_becomes_the_name_that_the_image_has(self, fab: Fab, stage: Stage, built: list[BuiltImage]) -> None:
        name, nodes = stage.name(), [node for node in stage.nodes.values() if has_cri(node)]
        stage.seed(built[0], name, nodes=nodes)
        record = built[0].configs[NATIVE]  # CRI gives the image this name as well, and kubelet hands it to containers
        stage.on_each(lambda node: node.real_ctr("containers", "create", record, stage.token), nodes)
        try:
            run = fab("-H", ",".join(node.name for node in nodes), "needs", "--json")
        finally:
            stage.on_each(lambda node: node.real_ctr("containers", "rm", stage.token), nodes)
        for node in nodes:
            assert {"reference": name, "by": ["container"]} in run.images(node.name)
            assert not any(image["reference"].startswith("sha256:") for image in run.images(node.name))
