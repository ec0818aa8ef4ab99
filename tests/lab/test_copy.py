"""`fab copy` takes images from every node to every other: whole, verified, named, and only what is missing."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from accounts import account, counting
from ferry import PINS, Fab, Run, Stage, eventually, has_cri, leftovers, names_of, processes, release

from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"
Make = Callable[..., BuiltImage]


@pytest.fixture(scope="session")
def make(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Build images that nobody has had before: two small layers, and a program that says hello."""
    assert fleet.nodes
    folder = tmp_path_factory.mktemp("images")

    def image(**options: object) -> BuiltImage:
        arguments = {"layers": (1000, 2000), "cmd": ("/bin/echo", "hello"), "seed": secrets.randbits(32), **options}
        return build(folder, **arguments)  # type: ignore[arg-type]

    return image


def copy(fab: Fab, hosts: str | list[str], *words: str) -> Run:
    """Run `fab -H HOSTS copy --json WORDS…`."""
    return fab("-H", hosts if isinstance(hosts, str) else ",".join(hosts), "copy", "--json", *words)


def others(stage: Stage, node: Node) -> list[Node]:
    """Return all nodes but this."""
    return [other for other in stage.nodes.values() if other.name != node.name]


def size(image: BuiltImage, digests: set[str]) -> int:
    """Return the bytes of some blobs."""
    return sum(image.size(digest) for digest in digests)


def blobs(node: Node, namespace: str = "k8s.io") -> set[str]:
    """Return the digests that a namespace of a node sees."""
    return set(node.real_ctr("content", "ls", "-q", namespace=namespace).stdout.decode().split())


def test_every_node_gives_images_of_every_kind_to_all_others(fab: Fab, stage: Stage, make: Make, node: Node) -> None:
    single, index = ("oci", "docker") if node.number % 2 else ("docker", "oci")
    kinds = {
        "single": make(media=single),
        "index": make(platforms=(NATIVE, OTHER), media=index),
        "part": make(platforms=(NATIVE, OTHER), media=single),
    }
    part = kinds["part"]
    there = {kind: set(image.blobs) for kind, image in kinds.items()}
    there["part"] = part.of(NATIVE) | {part.manifests[OTHER]}
    for kind, image in kinds.items():
        stage.seed(image, stage.name(kind), nodes=[node], blobs=there[kind] if kind == "part" else None)
    targets = others(stage, node)
    running = stage.on_each(processes, [node, *targets])

    run = copy(fab, names_of(targets), "--from", node.name, "--ref", stage.name("*", "*"))

    assert run.statuses == dict.fromkeys(names_of(targets), "changed"), run.out
    assert run.exit == 0
    for target in targets:
        told = {image["source"]: image for image in run.images(target.name)}
        records = stage.records(target)
        for kind, image in kinds.items():
            name = stage.name(kind)
            assert records[name].digest == told[name]["digest"] == image.target.digest, (target, kind)
            assert records[name].managed == has_cri(target), (target, kind)
            assert there[kind] <= blobs(target), (target, kind)
            assert (told[name]["blobs"], told[name]["blobs_there"]) == (len(there[kind]), 0), (target, kind)
            assert told[name]["bytes"] == size(image, there[kind])
    for each in [node, *targets]:
        assert leftovers(each) == [], each
        assert eventually(lambda n=each: processes(n).keys() <= running[n.name].keys()), processes(each)  # type: ignore[misc]

    def runs(target: Node) -> str:
        kind = [*kinds][(node.number + target.number) % len(kinds)]  # another one for each pair
        return stage.hello(target, stage.name(kind))

    assert stage.on_each(runs, targets) == dict.fromkeys(names_of(targets), "hello")


class TestOnlyWhatIsMissing:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_a_second_run_moves_nothing(self, fab: Fab, stage: Stage, make: Make, node3: Node) -> None:
        stage.seed(make(), stage.name(), nodes=[node3])
        targets = names_of(others(stage, node3))
        words = ("--from", "node3", "--ref", stage.name())
        assert set(copy(fab, targets, *words).statuses.values()) == {"changed"}
        with counting([node3]) as counts:
            again = copy(fab, targets, "--from", *counts, "--ref", stage.name())
            (asked,) = (count() for count in counts.values())
        assert again.statuses == dict.fromkeys(targets, "unchanged")
        assert [again.image(name)["bytes"] for name in targets] == [0] * len(targets)
        assert asked == 2  # what it has, and the manifest

    def test_a_layer_that_is_there_is_not_sent_and_each_other_is_read_once(
        self, fab: Fab, stage: Stage, make: Make, node3: Node
    ) -> None:
        seed = secrets.randbits(32)
        base, more = make(seed=seed, layers=(1000,)), make(seed=seed, layers=(1000, 300_000))
        assert set(base.layers[NATIVE]) < set(more.layers[NATIVE])
        targets = others(stage, node3)
        stage.seed(base, stage.name("base"), nodes=targets)
        stage.seed(more, stage.name("more"), nodes=[node3])
        with counting([node3]) as counts:
            run = copy(fab, names_of(targets), "--from", *counts, "--ref", stage.name("more"))
            (asked,) = (count() for count in counts.values())
        missing = set(more.blobs) - set(base.blobs)
        assert asked == 2 + 2, "each of config and layer once, for all hosts together"
        for target in targets:
            told = run.image(target.name)
            assert (told["bytes"], told["blobs_there"]) == (size(more, missing), 1)
            assert run.outcomes[target.name]["result"]["bytes"] == size(more, missing - {more.target.digest})
        assert stage.on_each(lambda n: stage.hello(n, stage.name("more")), targets) == dict.fromkeys(
            names_of(targets), "hello"
        )

    def test_a_dry_run_tells_what_would_move_and_changes_nothing(
        self, fab: Fab, stage: Stage, make: Make, node3: Node
    ) -> None:
        image = make()
        stage.seed(image, stage.name(), nodes=[node3])
        targets = others(stage, node3)
        before = stage.on_each(blobs, targets)
        run = copy(fab, names_of(targets), "--from", "node3", "--ref", stage.name(), "--dry-run")
        assert run.statuses == dict.fromkeys(names_of(targets), "would-change")
        for target in targets:
            told = run.image(target.name)
            assert (told["blobs"], told["bytes"]) == (len(image.blobs), size(image, set(image.blobs)))
            assert (told["method"], told["reference"]) == ("blobs", stage.name())
            assert stage.records(target) == {}
        assert stage.on_each(blobs, targets) == before

    def test_another_namespace_of_the_same_host_gets_links_and_no_bytes(
        self, fab: Fab, stage: Stage, make: Make
    ) -> None:
        image = make()
        here, there = stage.namespace("a"), stage.namespace("b")
        stage.seed(image, stage.name(), namespace=here)
        for node in stage.nodes.values():
            words = ("--from", node.name, "-n", here, "--to-namespace", there, "--ref", stage.name())
            run = copy(fab, node.name, *words)
            assert run.statuses == {node.name: "changed"}, run.out
            assert run.image(node.name)["method"] == "link"
            assert run.outcomes[node.name]["result"]["bytes"] == 0
            assert stage.hello(node, stage.name(), there) == "hello"
            assert leftovers(node, [here, there]) == []


class TestNames:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_an_image_gets_another_name(self, fab: Fab, stage: Stage, make: Make, node3: Node) -> None:
        stage.seed(make(), stage.name(), nodes=[node3])
        targets = others(stage, node3)
        new = stage.name("renamed", "2", "new.example")
        run = copy(fab, names_of(targets), "--from", "node3", "--ref", stage.name(), "--as", new)
        assert run.exit == 0
        assert stage.on_each(lambda n: list(stage.records(n)), targets) == {t.name: [new] for t in targets}

    def test_a_map_names_many(self, fab: Fab, stage: Stage, make: Make, node3: Node, tmp_path: Path) -> None:
        pairs = {stage.name(repository): stage.name(repository, registry="new.example") for repository in "ab"}
        for src in pairs:
            stage.seed(make(), src, nodes=[node3])
        file = tmp_path / "map"
        file.write_text("".join(f"{src} {dst}  # moved\n" for src, dst in pairs.items()))
        run = copy(fab, "node1", "--from", "node3", "--map", str(file))
        assert run.exit == 0
        assert set(stage.records(stage.nodes["node1"])) == set(pairs.values())

    def test_a_name_that_points_elsewhere_is_moved_only_by_force(
        self, fab: Fab, stage: Stage, make: Make, node3: Node
    ) -> None:
        old, new = make(), make()
        targets = others(stage, node3)
        stage.seed(old, stage.name(), nodes=targets)
        stage.seed(new, stage.name(), nodes=[node3])
        words = ("--from", "node3", "--ref", stage.name())
        run = copy(fab, names_of(targets), *words)
        assert (run.exit, set(run.statuses.values())) == (1, {"reference-exists"})
        assert all(stage.records(target)[stage.name()].digest == old.target.digest for target in targets)
        stage.on_each(lambda node: node.real_ctr("images", "label", stage.name(), *PINS), targets)
        run = copy(fab, names_of(targets), *words, "--force")
        assert run.exit == 0
        for target in targets:
            assert run.image(target.name)["previous_digest"] == old.target.digest
            assert set(PINS) <= set(stage.records(target)[stage.name()].labels.split(",")), target
            assert stage.records(target)[stage.name()].digest == new.target.digest
            assert leftovers(target) == []


class TestSources:
    def test_an_image_that_no_source_has_is_named(self, fab: Fab, stage: Stage, make: Make, node3: Node) -> None:
        image = make()
        stage.seed(image, stage.name(), nodes=[node3])
        lost = image.layers[NATIVE][1]
        node3.real_ctr("content", "rm", lost)
        run = copy(fab, "node2,node4", "--from", "node3", "--ref", stage.name())
        assert (run.exit, run.statuses) == (1, {"node2": "content-missing", "node4": "content-missing"})
        assert run.error["said"] == lost
        assert "--from any" in run.error["hint"]

    def test_each_blob_comes_from_a_source_that_has_it(
        self, fab: Fab, stage: Stage, make: Make, node2: Node, node3: Node
    ) -> None:
        image = make()
        stage.seed(image, stage.name(), nodes=[node3, node2])
        node3.real_ctr("content", "rm", image.layers[NATIVE][1])
        node2.real_ctr("content", "rm", image.layers[NATIVE][0])
        run = copy(fab, "node4", "--from", "node3", "--from", "node2", "--ref", stage.name())
        assert run.statuses == {"node4": "changed"}, run.out
        assert stage.hello(stage.nodes["node4"], stage.name()) == "hello"
        assert copy(fab, "node5", "--from", "any", "--ref", stage.name()).image("node5")["source"] == stage.name()

    def test_any_source_means_the_host_that_has_the_image_whole(
        self, fab: Fab, stage: Stage, make: Make, node3: Node, node2: Node
    ) -> None:
        image = make()
        stage.seed(image, stage.name(), nodes=[node2, node3])
        node2.real_ctr("content", "rm", image.layers[NATIVE][0])
        run = copy(fab, "node4", "--from", "any", "--ref", stage.name())
        assert run.statuses == {"node4": "changed"}, run.out
        assert run.outcomes["node4"]["result"]["origin"].startswith("node3")

    def test_each_platform_comes_from_a_source_that_has_it_whole(
        self, fab: Fab, stage: Stage, make: Make, node2: Node, node3: Node
    ) -> None:
        image = make(platforms=(NATIVE, OTHER))
        stage.seed(image, stage.name(), nodes=[node2, node3])
        for node, lacks in ((node2, OTHER), (node3, NATIVE)):
            node.real_ctr("content", "rm", *image.layers[lacks])
        machine = {"linux/arm64": "aarch64", "linux/amd64": "x86_64"}[OTHER]
        shell = '#!/bin/sh\nPATH="$HOME/bin:$PATH"; export PATH\nexec /bin/bash "$@"\n'
        node4 = stage.nodes["node4"]
        with account(node4, "{home}/shell", {"shell": shell, "bin/uname": f"#!/bin/sh\necho {machine}\n"}) as user:
            foreign, words = f"{user}@node4", ("--from", "any", "--dry-run", "--ref", stage.name())
            run = copy(fab, [foreign, "node5"], *words)
        assert run.statuses == {foreign: "would-change", "node5": "would-change"}, run.out
        for host, platform in ((foreign, OTHER), ("node5", NATIVE)):
            assert run.image(host)["blobs"] == len(image.of(platform)), "no more than the host's own platform"

    def test_any_source_is_refused_where_hosts_have_different_images(
        self, fab: Fab, stage: Stage, make: Make, node2: Node, node3: Node
    ) -> None:
        for node in (node2, node3):
            stage.seed(make(), stage.name(), nodes=[node])
        run = copy(fab, "node4", "--from", "any", "--ref", stage.name())
        assert run.statuses == {"node4": "drift"}
        assert "node2" in run.error["said"] and "node3" in run.error["said"]

    def test_a_missing_image_is_reported_with_the_place_where_it_is(
        self, fab: Fab, stage: Stage, make: Make, node3: Node
    ) -> None:
        namespace = stage.namespace()
        stage.seed(make(), stage.name(), namespace=namespace, nodes=[node3])
        run = copy(fab, "node2", "--from", "node3", "--ref", stage.name())
        assert run.statuses == {"node2": "image-not-found"}
        assert "node3" in run.error["message"] and namespace in run.error["hint"]

    def test_a_source_that_is_no_host_is_refused_before_anything(self, fab: Fab) -> None:
        run = copy(fab, "node2", "--from", "nodeX", "--ref", "a.example/b:1")
        assert run.exit == 2
        assert "nodeX" in run.err + run.out

    def test_sudo_is_used_on_both_ends_where_it_must_be(
        self, fab: Fab, stage: Stage, make: Make, node2: Node, node3: Node
    ) -> None:
        stage.seed(make(), stage.name("to"), nodes=[node2])
        stage.seed(make(), stage.name("from"), nodes=[node3])
        to = copy(fab, "node3-ops", "--from", "node2", "--ref", stage.name("to"))
        back = copy(fab, "node2", "--from", "node3-ops", "--ref", stage.name("from"))
        assert (to.statuses, back.statuses) == ({"node3-ops": "changed"}, {"node2": "changed"}), to.out + back.out
        assert stage.hello(node3, stage.name("to")) == stage.hello(node2, stage.name("from")) == "hello"


class TestPlatforms:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_one_platform_gets_the_name(self, fab: Fab, stage: Stage, make: Make, node3: Node) -> None:
        image = make(platforms=(NATIVE, OTHER))
        stage.seed(image, stage.name(), nodes=[node3])
        targets = others(stage, node3)
        run = copy(fab, names_of(targets), "--from", "node3", "--ref", stage.name(), "--platform", OTHER)
        assert run.statuses == dict.fromkeys(names_of(targets), "changed"), run.out
        for target in targets:
            assert stage.records(target)[stage.name()].digest == image.manifests[OTHER]
            assert image.of(OTHER) - {image.target.digest} <= blobs(target)
            assert not set(image.layers[NATIVE]) & blobs(target)

    def test_all_platforms_refuses_an_index_with_a_missing_platform(
        self, fab: Fab, stage: Stage, make: Make, node3: Node
    ) -> None:
        image = make(platforms=(NATIVE, OTHER))
        stage.seed(image, stage.name(), nodes=[node3], blobs=image.of(NATIVE) | {image.manifests[OTHER]})
        run = copy(fab, "node1", "--from", "node3", "--ref", stage.name(), "--all-platforms")
        assert run.statuses == {"node1": "content-missing"}
        assert stage.records(stage.nodes["node1"]) == {}

    def test_an_index_without_its_manifests_is_named_as_far_as_ctr_can(
        self, fab: Fab, stage: Stage, make: Make, node3: Node
    ) -> None:
        image = make(platforms=(NATIVE, OTHER))
        stage.seed(image, stage.name(), nodes=[node3], blobs=image.of(NATIVE))
        targets = others(stage, node3)
        words = ("--from", "node3", "--ref", stage.name())
        run = copy(fab, names_of(targets), *words)
        for target in targets:
            only_platform = release(target) == (1, 2)
            digest = image.manifests[NATIVE] if only_platform else image.target.digest
            assert stage.records(target)[stage.name()].digest == digest, run.out
            assert stage.hello(target, stage.name()) == "hello"
        assert set(copy(fab, names_of(targets), *words).statuses.values()) == {"unchanged"}


class TestOptions:
    def test_no_unpack_leaves_the_image_packed(self, fab: Fab, stage: Stage, make: Make, node3: Node) -> None:
        stage.seed(make(), stage.name(), nodes=[node3])
        run = copy(fab, "node1,node4", "--from", "node3", "--ref", stage.name(), "--no-unpack")
        assert run.statuses == {"node1": "changed", "node4": "changed"}
        detail = stage.nodes["node4"].real_ctr("images", "check", f"name=={stage.name()}").stdout.decode()
        assert "complete" in detail and "false" in detail
        assert "always unpacks" in str(run.image("node1")["notes"])
        again = copy(fab, "node4", "--from", "node3", "--ref", stage.name())
        assert again.statuses == {"node4": "changed"}
        assert stage.hello(stage.nodes["node4"], stage.name()) == "hello"

    def test_a_pinned_image_has_kubelets_label_and_old_containerds_refuse_a_pin(
        self, fab: Fab, stage: Stage, make: Make, node2: Node
    ) -> None:
        stage.seed(make(), stage.name(), nodes=[node2])
        words = ("--from", "node2", "--ref", stage.name())
        assert copy(fab, "node4", *words).statuses == {"node4": "changed"}  # there, and not pinned yet
        run = copy(fab, "node3,node4,node5", *words, "--pin")
        assert run.statuses == {"node3": "method-unsupported", "node4": "changed", "node5": "changed"}
        assert run.image("node4")["blobs"] == 0
        assert copy(fab, "node4,node5", *words, "--pin").statuses == dict.fromkeys(("node4", "node5"), "unchanged")
        for name in ("node4", "node5"):
            assert "io.cri-containerd.pinned=pinned" in stage.records(stage.nodes[name])[stage.name()].labels
        assert stage.records(stage.nodes["node3"]) == {}

    @pytest.mark.parametrize(
        "words",
        [
            ("--ref", "a.example/b:1"),
            ("--from", "node3"),
            ("--from", "node3", "--ref", "a.example/b:1", "--platform", "linux/arm64", "--all-platforms"),
            ("--from", "node3", "--ref", "a.example/b:1", "--ref", "a.example/c:1", "--as", "a.example/d:1"),
            ("--from", "node3", "--ref", "a.example/*", "--as", "a.example/d:1"),
            ("--from", "node3", "--ref", "A B"),
        ],
    )
    def test_wrong_options_are_refused_before_any_host_is_touched(self, fab: Fab, words: tuple[str, ...]) -> None:
        run = copy(fab, "node2", *words)
        assert run.exit == 2
        assert run.document["commands"] == []
