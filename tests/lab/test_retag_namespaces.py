"""`fab retag --to-namespace` gives an image to another namespace without moving its bytes."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path

import pytest
from ferry import Fab, Stage, blob_stats, eventually, has_cri, leftovers, processes, release

from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build, seed_image

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"


@pytest.fixture
def fresh(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[BuiltImage, set[str] | None]]:
    """Images that no namespace of any node has yet, with the blobs that a node gets."""
    assert fleet.nodes
    folder, seed = tmp_path_factory.mktemp("images"), secrets.randbits(32)
    hello = ("/bin/echo", "hello")
    many = build(folder, layers=(1000,) * 10, seed=seed, cmd=hello)
    both = build(folder, platforms=(NATIVE, OTHER), seed=seed + 1, cmd=hello)
    part = build(folder, platforms=(NATIVE, OTHER), seed=seed + 2, cmd=hello)
    bare = build(folder, platforms=(NATIVE, OTHER), seed=seed + 3, media="docker", cmd=hello)
    return {
        "many layers": (many, None),
        "both platforms": (both, None),
        "layers of the other platform absent": (part, part.of(NATIVE) | {part.manifests[OTHER]}),
        "manifest of the other platform absent": (bare, bare.of(NATIVE)),
        "other platform": (build(folder, platforms=(OTHER,), seed=seed + 4), None),
    }


KINDS = (
    "many layers",
    "both platforms",
    "layers of the other platform absent",
    "manifest of the other platform absent",
    "other platform",
)


class Collector:
    """Forces one garbage collection after the other on a node, until it is told to stop."""

    def __init__(self, stage: Stage, node: Node, image: BuiltImage) -> None:
        self.node, self.namespace = node, stage.namespace("gc")
        self.names = [stage.name("gone", str(n)) for n in range(80)]
        self.rounds = 0
        seed_image(node, image, self.names, self.namespace)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._collect)

    def _collect(self) -> None:
        for name in self.names:
            if self.ended.is_set():
                return
            self.node.real_ctr("images", "rm", "--sync", name, namespace=self.namespace)
            self.rounds += 1

    def __enter__(self) -> Collector:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


class TestFromNamespaceToNamespace:
    def test_images_get_their_own_names_in_k8s_io_and_no_byte_moves(
        self, fab: Fab, stage: Stage, fresh: dict[str, tuple[BuiltImage, set[str] | None]], tmp_path: Path
    ) -> None:
        names, namespace = {kind: stage.name(f"app{i}") for i, kind in enumerate(KINDS)}, stage.namespace()
        there = {digest for image, blobs in fresh.values() for digest in (image.blobs if blobs is None else blobs)}
        for kind, (image, blobs) in fresh.items():
            stage.seed(image, names[kind], namespace=namespace, blobs=blobs)
        pairs = tmp_path / "pairs"
        pairs.write_text("".join(f"{name} {name}\n" for name in names.values()))
        files = stage.on_each(lambda n: blob_stats(n, there))
        running = stage.on_each(processes)
        run = fab.retag(stage.nodes, "-n", namespace, "--to-namespace", "k8s.io", "--map", str(pairs))
        assert run.statuses == dict.fromkeys(stage.nodes, "changed"), run.out
        configs = {digest for image, _ in fresh.values() for digest in image.configs.values()}
        for node in stage.nodes.values():
            assert {image["method"] for image in run.images(node.name)} == {"link"}, run.out
            records = stage.records(node, digests=[*there])
            assert records.keys() <= {*names.values(), *configs}, node
            for kind, (image, _) in fresh.items():
                only_platform = kind.startswith("manifest") and release(node) == (1, 2)
                record = records[names[kind]]
                assert record.digest == (image.manifests[NATIVE] if only_platform else image.target.digest), (
                    node,
                    kind,
                )
                assert record.managed == has_cri(node), (node, kind)
            linked = release(node) >= (1, 1)  # 1.0 writes them anew, from their own files
            assert blob_stats(node, there) == files[node.name] or not linked, node
            assert leftovers(node, ["k8s.io", namespace]) == [], node
            assert eventually(lambda n=node: processes(n).keys() <= running[n.name].keys()), processes(node)  # type: ignore[misc]

        def alone(node: Node) -> dict[str, str]:
            node.real_ctr("images", "rm", "--sync", *names.values(), namespace=namespace)
            return {kind: lives(node, kind, name) for kind, name in names.items()}

        def lives(node: Node, kind: str, name: str) -> str:
            if kind == "other platform":
                exported = stage.exported(node, name)
                return "hello" if fresh[kind][0].of(OTHER) <= exported else f"exported {exported}"
            return stage.hello(node, name) if stage.check(node, name) == "complete" else stage.check(node, name)

        assert stage.on_each(alone) == dict.fromkeys(stage.nodes, dict.fromkeys(KINDS, "hello"))
        again = fab.retag(stage.nodes, "--to-namespace", stage.namespace("back"), "--map", str(pairs))
        assert again.statuses == dict.fromkeys(stage.nodes, "changed"), again.out

    def test_a_garbage_collection_in_between_takes_nothing(
        self,
        fab: Fab,
        stage: Stage,
        fresh: dict[str, tuple[BuiltImage, set[str] | None]],
        node: Node,
    ) -> None:
        if release(node) < (1, 1):
            pytest.skip("containerd 1.0 dies when a collection meets a namespace's first ingest")
        image, _ = fresh["many layers"]
        name, namespace, target = stage.name(), stage.namespace(), stage.namespace("to")
        stage.seed(image, name, namespace=namespace, nodes=[node])
        files = blob_stats(node, image.blobs)
        with Collector(stage, node, image) as collector:
            assert eventually(lambda: collector.rounds > 1)
            before = collector.rounds
            run = fab.retag(
                node.name, "-n", namespace, "--to-namespace", target, "--src", name, "--dst", stage.name("new")
            )
            during = collector.rounds - before
        assert during > 3
        assert run.statuses == {node.name: "changed"}, run.out
        assert run.image(node.name)["method"] == "link", run.out
        assert stage.check(node, stage.name("new"), target) == "complete"
        node.real_ctr("images", "rm", "--sync", name, namespace=namespace)
        assert stage.check(node, stage.name("new"), target) == "complete"
        assert stage.hello(node, stage.name("new"), target) == "hello"
        assert blob_stats(node, image.blobs) == files
        assert leftovers(node, [target]) == []


class TestWhatIsThereAlready:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_the_gc_root_label_of_somebody_else_stays(
        self, fab: Fab, stage: Stage, fresh: dict[str, tuple[BuiltImage, set[str] | None]]
    ) -> None:
        image, _ = fresh["both platforms"]
        name, namespace, target = stage.name(), stage.namespace(), stage.namespace("to")
        stage.seed(image, name, namespace=namespace)
        stage.seed(image, stage.name("before"), namespace=target)
        layer = image.layers[NATIVE][0]
        stage.on_each(lambda n: n.real_ctr("content", "label", layer, "containerd.io/gc.root=theirs", namespace=target))
        run = fab.retag(stage.nodes, "-n", namespace, "--to-namespace", target, "--src", name, "--dst", name)
        assert run.statuses == dict.fromkeys(stage.nodes, "changed"), run.out
        for node in stage.nodes.values():
            lines = node.real_ctr("content", "ls", namespace=target).stdout.decode().splitlines()
            assert [line.split()[0] for line in lines if "gc.root" in line] == [layer], node

    def test_that_fails_leaves_nothing_in_the_other_namespace(
        self, fab: Fab, stage: Stage, fresh: dict[str, tuple[BuiltImage, set[str] | None]]
    ) -> None:
        image, _ = fresh["many layers"]
        name, namespace, target = stage.name(), stage.namespace(), stage.namespace("to")
        stage.seed(image, name, namespace=namespace)
        lost = image.layers[NATIVE][5]
        stage.on_each(lambda n: n.real_ctr("content", "rm", lost, namespace=namespace))
        run = fab.retag(stage.nodes, "-n", namespace, "--to-namespace", target, "--src", name, "--dst", name)
        assert (run.exit, run.statuses) == (1, dict.fromkeys(stage.nodes, "content-missing")), run.out
        assert stage.on_each(lambda n: stage.records(n, target)) == {n: {} for n in stage.nodes}
        assert stage.on_each(lambda n: leftovers(n, [target])) == {n: [] for n in stage.nodes}

    def test_the_archive_does_it_too_when_asked(
        self, fab: Fab, stage: Stage, fresh: dict[str, tuple[BuiltImage, set[str] | None]]
    ) -> None:
        image, _ = fresh["many layers"]
        name, namespace, target = stage.name(), stage.namespace(), stage.namespace("to")
        new = stage.name(registry="new.example")
        stage.seed(image, name, namespace=namespace)
        run = fab.retag(
            stage.nodes,
            *("-n", namespace, "--to-namespace", target, "--src", name, "--dst", new, "--method", "archive"),
        )
        assert run.statuses == dict.fromkeys(stage.nodes, "changed"), run.out
        assert stage.on_each(lambda n: set(stage.records(n, target))) == {n: {new} for n in stage.nodes}
        assert stage.on_each(lambda n: stage.hello(n, new, target)) == dict.fromkeys(stage.nodes, "hello")

    def test_a_second_run_is_unchanged_and_another_digest_is_in_the_way(
        self, fab: Fab, stage: Stage, fresh: dict[str, tuple[BuiltImage, set[str] | None]]
    ) -> None:
        (image, _), (other, _) = fresh["many layers"], fresh["both platforms"]
        name, namespace, target = stage.name(), stage.namespace(), stage.namespace("to")
        stage.seed(image, name, namespace=namespace)
        words = ("-n", namespace, "--to-namespace", target, "--src", name, "--dst", name)
        dry = fab.retag(stage.nodes, *words, "--dry-run")
        assert dry.statuses == dict.fromkeys(stage.nodes, "would-change")
        assert stage.on_each(lambda n: stage.records(n, target)) == {n: {} for n in stage.nodes}
        assert fab.retag(stage.nodes, *words).statuses == dict.fromkeys(stage.nodes, "changed")
        assert fab.retag(stage.nodes, *words).statuses == dict.fromkeys(stage.nodes, "unchanged")
        stage.seed(other, stage.name("b"), namespace=namespace)
        words = ("-n", namespace, "--to-namespace", target, "--src", stage.name("b"), "--dst", name)
        assert fab.retag(stage.nodes, *words).statuses == dict.fromkeys(stage.nodes, "reference-exists")
        assert fab.retag(stage.nodes, *words, "--force").statuses == dict.fromkeys(stage.nodes, "changed")
        digests = stage.on_each(lambda n: stage.records(n, target)[name].digest)
        assert digests == dict.fromkeys(stage.nodes, other.target.digest)
