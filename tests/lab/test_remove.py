"""`fab remove` removes names, and an image with its last name. What a container uses stays."""

from __future__ import annotations

import os
import pty
import secrets
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from accounts import counting
from ferry import Fab, Run, Stage, eventually, has_cri, leftovers, release, write_inventory
from forkserver import CLONE

from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build

Start = Callable[[Node, str], str]


@pytest.fixture
def stage(few: Stage) -> Stage:
    """Three kinds of ctr are enough."""
    return few


@pytest.fixture(scope="module")
def folder(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where images are built."""
    assert fleet.nodes
    return tmp_path_factory.mktemp("images")


@pytest.fixture
def image(folder: Path) -> BuiltImage:
    """An image whose every blob is this test's alone, since what is freed is looked at."""
    return build(folder, layers=(1000, 2000), cmd=("/bin/sleep", "1000"), seed=secrets.randbits(32))


@pytest.fixture
def start(stage: Stage) -> Iterator[Start]:
    """Starts a container of an image on a node; all are gone at the end, before their images."""
    running: list[tuple[Node, str]] = []

    def start(node: Node, name: str) -> str:
        identity = f"{stage.token}-{len(running)}"
        node.ctr("run", "-d", name, identity)
        running.append((node, identity))
        return identity

    yield start
    for node, identity in running:
        if identity.encode() in node.ctr("containers", "ls", "-q").stdout.split():
            end(node, identity)


def end(node: Node, identity: str) -> None:
    """End a container, and take it away."""
    node.ctr("tasks", "kill", "-s", "SIGKILL", identity, check=False)

    def is_gone() -> bool:
        node.ctr("tasks", "delete", identity, check=False)
        return identity.encode() not in node.ctr("tasks", "ls", "-q").stdout.split()  # 1.2.6 deletes it by itself

    assert eventually(is_gone)
    node.ctr("containers", "rm", identity, check=False)


def remove(fab: Fab, hosts: str, *words: str, inventory: Path | None = None) -> Run:
    """Run `fab -H HOSTS remove --json WORDS…`."""
    return fab("-H", hosts, "remove", "--json", *words, inventory=inventory)


def everywhere(stage: Stage) -> str:
    """Return all nodes as -H takes them."""
    return ",".join(stage.nodes)


def own_blobs(node: Node, image: BuiltImage, namespace: str = "k8s.io") -> set[str]:
    """Return which of an image's blobs a namespace sees."""
    return set(image.blobs) & set(node.real_ctr("content", "ls", "-q", namespace=namespace).stdout.decode().split())


def blob_files(node: Node, image: BuiltImage) -> list[str]:
    """Return which of an image's own layers are on disk."""
    paths = [f"{node.root}/io.containerd.content.v1.content/blobs/{d.replace(':', '/')}" for d in image.layers[NATIVE]]
    return [path for path in paths if not node.exec(["test", "-e", path], check=False).returncode]


def told(run: Run, host: str) -> dict[str, dict[str, object]]:
    """Return what a host says of each name."""
    return {each["reference"]: each for each in run.outcomes[host]["result"]["images"]}


class TestNamesGo:
    def test_one_of_two_leaves_the_image(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        one, two = stage.name("one"), stage.name("two")
        stage.seed(image, one, two)
        run = remove(fab, everywhere(stage), "--ref", one, "--yes")
        assert (run.exit, set(run.statuses.values())) == (0, {"changed"})
        for node in stage.nodes.values():
            assert two in stage.records(node) and one not in stage.records(node)
            assert own_blobs(node, image) == set(image.blobs)
            assert stage.check(node, two) == "complete"
            assert two in str(told(run, node.name)[one]["notes"])

    def test_the_last_one_takes_the_image_with_it_even_where_cri_has_a_record(
        self, fab: Fab, stage: Stage, image: BuiltImage
    ) -> None:
        one, two = stage.name("one"), stage.name("two")
        stage.seed(image, one, two)
        run = remove(fab, everywhere(stage), "--ref", one, "--ref", two, "--yes")
        assert (run.exit, set(run.statuses.values())) == (0, {"changed"})
        time.sleep(1)  # would CRI make its record again?
        for node in stage.nodes.values():
            assert not stage.records(node, digests={image.target.digest})
            assert not own_blobs(node, image)
            assert not blob_files(node, image)
            assert not leftovers(node)

    def test_names_that_are_not_there_change_nothing(self, fab: Fab, stage: Stage) -> None:
        run = remove(fab, everywhere(stage), "--ref", stage.name("nothing"))
        assert (run.exit, set(run.statuses.values())) == (0, {"unchanged"})
        run = remove(fab, everywhere(stage), "--match", f"*{stage.token}*")
        assert (run.exit, set(run.statuses.values())) == (1, {"unchanged"})  # a glob that fits nothing may be a typo

    def test_the_second_time_nothing_is_left_to_do(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        stage.seed(image, stage.name())
        first, second = (remove(fab, everywhere(stage), "--ref", stage.name(), "--yes") for _ in range(2))
        assert {*first.statuses.values()} == {"changed"}
        assert (second.exit, {*second.statuses.values()}) == (0, {"unchanged"})

    def test_a_short_name_means_its_full_form(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        full = f"docker.io/library/{stage.token}:latest"
        stage.seed(image, full)
        run = remove(fab, everywhere(stage), "--ref", stage.token, "--yes")
        assert (run.exit, set(run.statuses.values())) == (0, {"changed"})
        assert all(full not in stage.records(node) for node in stage.nodes.values())

    def test_a_digest_means_all_of_its_names(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        stage.seed(image, stage.name("one"), stage.name("two"))
        run = remove(fab, everywhere(stage), "--ref", image.target.digest, "--yes")
        assert (run.exit, set(run.statuses.values())) == (0, {"changed"})
        assert not any(stage.records(node, digests={image.target.digest}) for node in stage.nodes.values())

    def test_a_glob_takes_what_it_fits_and_no_more(
        self, fab: Fab, stage: Stage, image: BuiltImage, folder: Path
    ) -> None:
        other = build(folder, seed=secrets.randbits(32))
        stage.seed(image, stage.name("one"), stage.name("two"))
        stage.seed(other, stage.name("three"))
        run = remove(fab, everywhere(stage), "--match", f"*/{stage.token}/t*", "--yes")
        assert set(run.statuses.values()) == {"changed"}
        for node in stage.nodes.values():
            assert {name for name in stage.records(node) if stage.token in name} == {stage.name("one")}

    def test_names_of_another_namespace_stay(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        namespace = stage.namespace()
        stage.seed(image, stage.name())
        stage.seed(image, stage.name(), namespace=namespace)
        run = remove(fab, everywhere(stage), "--ref", stage.name(), "-n", namespace, "--yes")
        assert set(run.statuses.values()) == {"changed"}
        for node in stage.nodes.values():
            assert not stage.records(node, namespace)
            assert not own_blobs(node, image, namespace)
            assert stage.name() in stage.records(node)
            assert own_blobs(node, image) == set(image.blobs)

    def test_what_cri_calls_it_by_digest_goes_with_the_tag(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        nodes = [n for n in stage.nodes.values() if has_cri(n) and release(n) >= (1, 3)] or pytest.skip("no CRI")
        pulled = f"{stage.name().rpartition(':')[0]}@{image.target.digest}"
        stage.seed(image, stage.name(), nodes=nodes)
        for node in nodes:
            node.ctr("images", "tag", stage.name(), pulled)
        assert eventually(lambda: all(stage.records(node)[pulled].managed for node in nodes))
        run = remove(fab, ",".join(n.name for n in nodes), "--ref", stage.name(), "--yes")
        assert set(run.statuses.values()) == {"changed"}
        for node in nodes:
            assert pulled in told(run, node.name)[stage.name()]["records"]  # type: ignore[operator]
            assert not stage.records(node, digests={image.target.digest})
            assert not own_blobs(node, image)


class TestWhatAContainerUses:
    def test_keeps_its_last_name_and_the_others_may_go(
        self, fab: Fab, stage: Stage, image: BuiltImage, start: Start
    ) -> None:
        one, two = stage.name("one"), stage.name("two")
        stage.seed(image, one, two)
        stage.on_each(lambda node: start(node, one))
        assert remove(fab, everywhere(stage), "--match", f"*{stage.token}*", "--yes").exit == 1
        assert all({one, two} <= set(stage.records(node)) for node in stage.nodes.values())
        # The name that the container was made from goes; it is known by its snapshot from here on.
        assert remove(fab, everywhere(stage), "--ref", one, "--yes").exit == 0
        run = remove(fab, everywhere(stage), "--ref", two, "--yes")
        assert (run.exit, set(run.statuses.values())) == (1, {"in-use"})
        assert stage.token in run.error["said"]
        assert "--force" in run.error["hint"]
        assert all(two in stage.records(node) for node in stage.nodes.values())

    def test_goes_by_force_and_cris_record_stays_until_the_container_went(
        self, fab: Fab, stage: Stage, image: BuiltImage, start: Start
    ) -> None:
        stage.seed(image, stage.name())
        made = stage.on_each(lambda node: start(node, stage.name()))
        run = remove(fab, everywhere(stage), "--ref", stage.name(), "--yes", "--force")
        assert (run.exit, set(run.statuses.values())) == (0, {"changed"})
        config = image.configs[NATIVE]
        for node in stage.nodes.values():
            assert set(stage.records(node, digests={image.target.digest})) == ({config} if has_cri(node) else set())
            lives = ("tasks", "exec", "--exec-id", "x", made[node.name], "/bin/true")  # ctr 1.4 may lose what it prints
            assert node.ctr(*lives, check=False).returncode == 0
        assert remove(fab, everywhere(stage), "--ref", config, "--yes").exit == int(
            any(map(has_cri, stage.nodes.values()))
        )
        for node in stage.nodes.values():
            end(node, made[node.name])
        assert remove(fab, everywhere(stage), "--ref", config, "--yes").exit == 0
        assert not any(own_blobs(node, image) for node in stage.nodes.values())

    def test_of_another_image_is_no_obstacle(
        self, fab: Fab, stage: Stage, image: BuiltImage, folder: Path, start: Start
    ) -> None:
        other = build(folder, cmd=("/bin/sleep", "1000"), seed=secrets.randbits(32))
        stage.seed(image, stage.name())
        stage.seed(other, stage.name("other"))
        stage.on_each(lambda node: start(node, stage.name("other")))
        run = remove(fab, everywhere(stage), "--ref", stage.name(), "--yes")
        assert (run.exit, set(run.statuses.values())) == (0, {"changed"})

    def test_is_reported_apart_from_the_rest_on_the_same_host(
        self, fab: Fab, stage: Stage, image: BuiltImage, folder: Path, start: Start
    ) -> None:
        other = build(folder, cmd=("/bin/sleep", "1000"), seed=secrets.randbits(32))
        stage.seed(image, stage.name())
        stage.seed(other, stage.name("other"))
        stage.on_each(lambda node: start(node, stage.name("other")))
        run = remove(fab, everywhere(stage), "--match", f"*{stage.token}*", "--yes")
        assert (run.exit, set(run.statuses.values())) == (1, {"some-failed"})
        for node in stage.nodes.values():
            detail = told(run, node.name)
            assert {name: each["status"] for name, each in detail.items()} == {
                stage.name(): "changed",
                stage.name("other"): "failed",
            }
            assert {name for name in stage.records(node) if stage.token in name} == {stage.name("other")}


class TestAsks:
    def test_for_yes_where_nobody_can_be_asked(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        stage.seed(image, stage.name())
        run = fab("-H", everywhere(stage), "remove", "--ref", stage.name())
        assert run.exit == 2
        assert stage.name() in run.err and "--yes" in run.err
        assert all(stage.name() in stage.records(node) for node in stage.nodes.values())

    def test_and_what_follows_on_the_line_is_not_done_either(
        self, fab: Fab, stage: Stage, image: BuiltImage, node3: Node
    ) -> None:
        stage.seed(image, stage.name(), nodes=[node3])
        new = stage.name("new")
        run = fab("-H", "node3", "remove", "--ref", stage.name(), "retag", "--src", stage.name(), "--dst", new)
        assert run.exit == 2
        assert new not in stage.records(node3)

    def test_nothing_in_a_dry_run(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        stage.seed(image, stage.name("one"), stage.name("two"))
        before = stage.on_each(stage.records)
        run = remove(fab, everywhere(stage), "--match", f"*{stage.token}*", "--dry-run")
        assert (run.exit, set(run.statuses.values())) == (0, {"would-change"})
        assert stage.on_each(stage.records) == before

    def test_nothing_for_one_name_at_a_terminal(self, fab: Fab, stage: Stage, image: BuiltImage, node3: Node) -> None:
        stage.seed(image, stage.name(), nodes=[node3])
        exit, detail = at_terminal(fab, "", "-H", "node3", "remove", "--ref", stage.name())
        assert (exit, "[y/N]" in detail) == (0, False)
        assert stage.name() not in stage.records(node3)

    @pytest.mark.parametrize(("answer", "exit"), [("n", 1), ("", 1), ("y", 0)])
    def test_once_for_several_names_at_a_terminal(
        self, fab: Fab, stage: Stage, image: BuiltImage, answer: str, exit: int
    ) -> None:
        nodes = list(stage.nodes.values())[:2]
        names = {stage.name("one"), stage.name("two")}
        stage.seed(image, *names, nodes=nodes)
        words = ("-H", ",".join(n.name for n in nodes), "remove", "--match", f"*{stage.token}*")
        ended, detail = at_terminal(fab, answer, *words)
        assert (ended, detail.count("[y/N]")) == (exit, 1), detail
        assert all(name in detail for name in names)
        for node in nodes:
            assert (names <= set(stage.records(node))) == (answer != "y")


def at_terminal(fab: Fab, answer: str, *words: str) -> tuple[int, str]:
    """Run `fab WORDS…` at a terminal, and answer its question; return the exit status and what was to be seen."""
    ours, its = pty.openpty()
    with subprocess.Popen(
        fab.argv(*words), cwd=CLONE, env=fab.environment(TERM="xterm"), stdin=its, stdout=its, stderr=its
    ) as process:
        os.close(its)
        detail, deadline, answered = b"", time.monotonic() + 60, False
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    detail += os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
            if b"[y/N]" in detail and not answered:
                os.write(ours, f"{answer}\n".encode())
                answered = True
        exit = process.wait(10)
    os.close(ours)
    return exit, detail.decode(errors="replace")


@pytest.fixture
def counted(fleet: Fleet, node3: Node, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], int]]]:
    """An inventory with node3 as `n`, and how many remote commands ran there so far."""
    with counting([node3]) as counts:
        ((login, commands),) = counts.items()
        hosts = {"n": {"ansible_host": node3.address, "ansible_user": login.partition("@")[0]}}
        yield write_inventory(tmp_path / "hosts.yaml", fleet, hosts), commands


class TestRemoteCommands:
    def test_are_three_at_most(
        self, fab: Fab, stage: Stage, image: BuiltImage, counted: tuple[Path, Callable[[], int]]
    ) -> None:
        inventory, commands = counted
        stage.seed(image, stage.name(), nodes=[stage.nodes["node3"]])
        assert remove(fab, "n", "--ref", stage.name("not-there"), inventory=inventory).exit == 0
        assert commands() == 1
        assert remove(fab, "n", "--ref", stage.name(), "--yes", inventory=inventory).exit == 0
        assert commands() == 1 + 3
