"""`fab retag` gives a name by every method on every node. The name is whole, is the only new one, and stays."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import NamedTuple

import pytest
from accounts import counting
from ferry import Fab, Stage, blob_stats, eventually, has_cri, leftovers, names_of, processes, release

from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"
METHODS = ("tag", "index", "archive")


class Kind(NamedTuple):
    """An image, and which of its blobs a node has."""

    image: BuiltImage
    blobs: frozenset[str] | None = None
    foreign: bool = False
    index_absent_on_12: bool = False

    @property
    def there(self) -> set[str]:
        """The digests that the node has."""
        return set(self.image.blobs if self.blobs is None else self.blobs)


@pytest.fixture(scope="session")
def kinds(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    """Images of every kind, small, and of this session alone."""
    assert fleet.nodes
    folder = tmp_path_factory.mktemp("images")
    seed = secrets.randbits(32)

    def image(number: int, **options: object) -> BuiltImage:
        return build(folder, layers=(1000, 2000), cmd=("/bin/echo", "hello"), seed=seed + number, **options)  # type: ignore[arg-type]

    both = image(3, platforms=(NATIVE, OTHER))
    part = image(4, platforms=(NATIVE, OTHER))
    bare = image(5, platforms=(NATIVE, OTHER), media="docker")
    return {
        "plain": Kind(image(1)),
        "docker": Kind(image(2, media="docker")),
        "both platforms": Kind(both),
        "layers of the other platform absent": Kind(part, frozenset(part.of(NATIVE) | {part.manifests[OTHER]})),
        "manifest of the other platform absent": Kind(bare, frozenset(bare.of(NATIVE)), index_absent_on_12=True),
        "other platform": Kind(image(6, platforms=(OTHER,)), foreign=True),
    }


@pytest.fixture(scope="session")
def plain(kinds: dict[str, Kind]) -> BuiltImage:
    """An image of one platform."""
    return kinds["plain"].image


@pytest.fixture(scope="session")
def another(kinds: dict[str, Kind]) -> BuiltImage:
    """Another image."""
    return kinds["docker"].image


def with_method(stage: Stage, method: str) -> list[Node]:
    """Return the nodes whose ctr can do it."""
    able = [node for node in stage.nodes.values() if method != "tag" or release(node) >= (1, 3)]
    return able or pytest.skip(f"no node can {method}")


def names_only_the_platform(node: Node, kind: Kind) -> bool:
    """Tell whether this ctr can name no index of this kind."""
    return kind.index_absent_on_12 and release(node) == (1, 2)


def exports(node: Node, kind: str) -> bool:
    """Tell whether this ctr exports such an image: 1.2 exports all platforms or nothing."""
    return release(node) != (1, 2) or kind not in KINDS[3:5]


KINDS = (
    "plain",
    "docker",
    "both platforms",
    "layers of the other platform absent",
    "manifest of the other platform absent",
    "other platform",
)


def able_kinds(node: Node, method: str) -> tuple[str, ...]:
    """Return the kinds that this node can have and name so."""
    there = KINDS if release(node) >= (1, 2) else KINDS[:-1]  # 1.0 and 1.1 import no other platform's image
    return tuple(kind for kind in there if method != "archive" or exports(node, kind))


def named_digest(node: Node, kind: Kind) -> str:
    """Return what a new name points at."""
    return kind.image.manifests[NATIVE] if names_only_the_platform(node, kind) else kind.image.target.digest


class TestEveryMethodOnEveryNode:
    @pytest.mark.parametrize("method", METHODS)
    def test_gives_names_that_are_whole_and_stay_when_the_old_ones_go(
        self, fab: Fab, stage: Stage, kinds: dict[str, Kind], method: str, tmp_path: Path
    ) -> None:
        able = {node.name: able_kinds(node, method) for node in with_method(stage, method)}
        names = {k: (stage.name(f"app{i}"), stage.name(f"app{i}", registry="new.i.demo")) for i, k in enumerate(KINDS)}
        for kind, (src, _) in names.items():
            nodes = [node for node in stage.nodes.values() if kind in able.get(node.name, ())]
            stage.seed(kinds[kind].image, src, blobs=kinds[kind].blobs, nodes=nodes)
        running: dict[str, dict[int, str]] = {}
        for group in sorted(set(able.values())):  # kinds that the same nodes can name so, in one run
            nodes = [stage.nodes[name] for name in able if able[name] == group]
            there = {digest for kind in group for digest in kinds[kind].there}
            before = stage.on_each(lambda node: set(stage.records(node)), nodes)
            files = stage.on_each(lambda node, there=there: blob_stats(node, there), nodes)  # type: ignore[misc]
            running |= stage.on_each(processes, nodes)
            pairs = tmp_path / "pairs"
            pairs.write_text("".join(" ".join(names[kind]) + "\n" for kind in group))

            run = fab.retag(names_of(nodes), "--map", str(pairs), "--method", method)

            assert run.statuses == {node.name: "changed" for node in nodes}, run.out
            assert run.exit == 0
            for node in nodes:
                records = stage.records(node)
                assert set(records) == before[node.name] | {names[kind][1] for kind in group}, node
                told = {image["source"]: image for image in run.images(node.name)}
                for kind in group:
                    src, dst = names[kind]
                    digest, image = named_digest(node, kinds[kind]), told[src]
                    assert (image["reference"], image["method"]) == (dst, method), (node, kind)
                    assert (image["digest"], image["source_digest"]) == (digest, kinds[kind].image.target.digest)
                    assert bool(image["notes"]) == names_only_the_platform(node, kinds[kind]), (node, kind)
                    assert records[dst].digest == digest, (node, kind)
                    assert records[dst].managed == has_cri(node), (node, kind)
                assert blob_stats(node, there) == files[node.name], node
                assert leftovers(node) == [], node
                ours = running[node.name].keys()
                assert eventually(lambda n=node, ours=ours: processes(n).keys() <= ours), processes(node)  # type: ignore[misc]

            def outlive(node: Node, group: tuple[str, ...] = group) -> dict[str, list[object]]:
                node.real_ctr("images", "rm", "--sync", *(names[kind][0] for kind in group))
                return {kind: self.of_the_new_name(stage, node, names[kind][1], kind, kinds[kind]) for kind in group}

            expected = {k: [True] if kinds[k].foreign else [True, "complete", "hello"] for k in group}
            assert stage.on_each(outlive, nodes) == {node.name: expected for node in nodes}

    def of_the_new_name(self, stage: Stage, node: Node, dst: str, kind: str, made: Kind) -> list[object]:
        """Return what is left where the old name went: exported, checked and run."""
        if made.foreign:
            return [made.image.of(OTHER) <= stage.exported(node, dst)]
        needed = made.image.of(NATIVE) - {made.image.target.digest} | {named_digest(node, made)}
        exported = not exports(node, kind) or needed <= stage.exported(node, dst)
        return [exported, stage.check(node, dst), stage.hello(node, dst)]

    @pytest.mark.parametrize("kind", KINDS[3:5])
    def test_the_archive_is_refused_where_ctr_cannot_export_the_image(
        self, fab: Fab, stage: Stage, node1: Node, kinds: dict[str, Kind], kind: str
    ) -> None:
        if exports(node1, kind):
            pytest.skip(f"ctr {node1.version} exports one platform of an index")
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(kinds[kind].image, src, blobs=kinds[kind].blobs, nodes=[node1])
        run = fab.retag("node1", "--src", src, "--dst", dst, "--method", "archive")
        assert run.exit == 1
        assert run.error["kind"] in ("method-unsupported", "content-missing")
        assert dst not in stage.records(node1)
        assert leftovers(node1) == []

    def test_auto_tags_where_ctr_can_and_else_imports_an_index(self, fab: Fab, stage: Stage, plain: BuiltImage) -> None:
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(plain, src)
        run = fab.retag(stage.nodes, "--src", src, "--dst", dst)
        methods = {name: run.image(name)["method"] for name in stage.nodes}
        assert methods == {n.name: "tag" if release(n) >= (1, 3) else "index" for n in stage.nodes.values()}
        assert run.outcomes["node1"]["result"]["ctr"] == stage.nodes["node1"].version

    def test_tag_is_refused_where_ctr_has_none(self, fab: Fab, stage: Stage, node1: Node, plain: BuiltImage) -> None:
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(plain, src, nodes=[node1])
        run = fab.retag("node1", "--src", src, "--dst", dst, "--method", "tag")
        assert (run.exit, run.error["kind"]) == (1, "method-unsupported")
        assert dst not in stage.records(node1)

    def test_a_second_run_takes_the_platforms_manifest_for_equal(
        self, fab: Fab, stage: Stage, kinds: dict[str, Kind]
    ) -> None:
        kind = kinds["manifest of the other platform absent"]
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(kind.image, src, blobs=kind.blobs)
        words = ("--src", src, "--dst", dst)
        assert fab.retag(stage.nodes, *words).exit == 0
        run = fab.retag(stage.nodes, *words)
        assert run.statuses == dict.fromkeys(stage.nodes, "unchanged")
        for node in stage.nodes.values():
            assert ("same (platform manifest" in str(run.image(node.name)["notes"])) == names_only_the_platform(
                node, kind
            )

    def test_one_platform_of_an_index_can_be_named(self, fab: Fab, stage: Stage, kinds: dict[str, Kind]) -> None:
        image = kinds["both platforms"].image
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(image, src)
        run = fab.retag(stage.nodes, "--src", src, "--dst", dst, "--platform", OTHER)
        assert {n: run.image(n)["digest"] for n in stage.nodes} == dict.fromkeys(stage.nodes, image.manifests[OTHER])
        for node in stage.nodes.values():
            assert stage.records(node)[dst].digest == image.manifests[OTHER]

    def test_an_absent_platform_is_refused(self, fab: Fab, stage: Stage, kinds: dict[str, Kind]) -> None:
        kind = kinds["manifest of the other platform absent"]
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(kind.image, src, blobs=kind.blobs)
        run = fab.retag(stage.nodes, "--src", src, "--dst", dst, "--platform", OTHER)
        assert run.statuses == dict.fromkeys(stage.nodes, "platform-missing")
        assert run.exit == 1

    @pytest.mark.parametrize("method", METHODS)
    def test_it_takes_three_remote_commands_at_most_and_a_second_run_changes_nothing(
        self, fab: Fab, stage: Stage, plain: BuiltImage, method: str
    ) -> None:
        nodes = with_method(stage, method)
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(plain, src, nodes=nodes)
        words = ("--src", src, "--dst", dst, "--method", method)
        with counting(nodes) as counts:
            run = fab.retag(counts, *words)
            asked = {host: count() for host, count in counts.items()}
        assert run.statuses == dict.fromkeys(counts, "changed"), run.out
        assert asked == dict.fromkeys(counts, 2 if method == "tag" else 3)
        again = fab.retag(names_of(nodes), *words)
        assert (again.exit, again.statuses) == (0, dict.fromkeys(names_of(nodes), "unchanged"))
