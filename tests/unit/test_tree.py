"""A target is walked through indexes that list indexes, to a bounded depth; each blob is there once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from archives import as_json, described, digest
from two_platforms import AMD, ARM

from ctr_ferry.oci import tree
from ctr_ferry.oci.descriptor import DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST, SCHEMA_1, Descriptor, Manifest, Platform
from ctr_ferry.oci.tree import Tree

CONFIG, LAYER = b"config", b"layer"
ODD = described(b"odd", "application/vnd.oci.artifact.manifest.v1+json")


def manifest(config: bytes = CONFIG, *layers: bytes) -> bytes:
    listed = [described(layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers]
    config_type = "application/vnd.oci.image.config.v1+json"
    return as_json({"mediaType": OCI_MANIFEST, "config": described(config, config_type), "layers": listed})


def index(*entries: dict[str, Any]) -> bytes:
    return as_json({"mediaType": OCI_INDEX, "manifests": entries})


def entry(raw: bytes, platform: Platform | None = None) -> dict[str, Any]:
    told = {"platform": {"os": platform.os, "architecture": platform.architecture}} if platform else {}
    return {**described(raw, OCI_INDEX if b'"manifests"' in raw else OCI_MANIFEST), **told}


def walk(top: bytes, *others: bytes, platforms: dict[str, Platform] | None = None, kind: str = "") -> Tree:
    read = {digest(raw): Manifest.parse(raw) for raw in (top, *others)}
    target = Descriptor.of_json(entry(top) | ({"mediaType": kind} if kind else {}))
    return Tree.of(target, read.get, (platforms or {}).get)


ONE, TWO = manifest(CONFIG, LAYER), manifest(b"another config", LAYER)


class TestIndexes:
    INNER = (index(entry(ONE, AMD)), index(entry(TWO, ARM), ODD))
    TOP = index(*map(entry, INNER))

    def test_that_list_indexes_are_walked_to_their_manifests(self) -> None:
        found = walk(self.TOP, *self.INNER, ONE, TWO)
        assert [each.digest for each in found.indexes] == [digest(raw) for raw in (self.TOP, *self.INNER)]
        assert [each.digest for each in found.manifests] == [digest(ONE), digest(TWO), ODD["digest"]]
        blobs = {digest(raw) for raw in (self.TOP, *self.INNER, ONE, TWO, CONFIG, b"another config", LAYER, b"odd")}
        assert found.all.keys() == blobs
        assert not found.unread

    def test_give_the_way_to_the_manifest_of_a_platform(self) -> None:
        found = walk(self.TOP, *self.INNER, ONE, TWO)
        there = found.manifest_for(ARM)
        assert there
        needed = [self.TOP, self.INNER[1], TWO, b"another config", LAYER]
        assert [each.digest for each in found.whole(there)] == [digest(raw) for raw in needed]
        assert found.manifest_for(Platform("linux", "s390x")) is None

    def test_that_are_absent_have_nothing_below_them(self) -> None:
        found = walk(self.TOP, self.INNER[1])
        assert [each.digest for each in found.unread] == [digest(self.INNER[0]), digest(TWO)]
        assert [each.digest for each in found.manifests] == [digest(TWO), ODD["digest"]]
        assert found.blobs(found.manifests[0]) == ()

    def test_are_walked_to_a_bounded_depth(self) -> None:
        chain = [index(entry(ONE, AMD))]
        for _ in range(tree.DEEPEST):
            chain.append(index(entry(chain[-1])))
        assert walk(*reversed(chain[:-1]), ONE).manifest_for(AMD)
        with pytest.raises(ValueError, match="more than 8 deep"):
            walk(*reversed(chain), ONE)

    def test_that_list_the_same_many_times_are_walked_once(self) -> None:
        raw, others = index(entry(ONE)), [ONE]
        for level in range(tree.DEEPEST - 1):
            others.append(raw)
            raw = as_json({"level": level, "manifests": [entry(raw)] * 1000})
        reads: list[str] = []
        known = {digest(each): Manifest.parse(each) for each in (raw, *others)}

        def read(wanted: str) -> Manifest | None:
            reads.append(wanted)
            return known.get(wanted)

        assert len(Tree.of(Descriptor.of_json(entry(raw)), read).all) == len(set(reads)) + 2 == len(reads) + 2


def test_a_manifest_without_a_platform_has_that_of_its_config() -> None:
    found = walk(index(entry(ONE), entry(TWO, AMD)), ONE, TWO, platforms={digest(CONFIG): ARM, digest(b"x"): AMD})
    assert [each.platform for each in found.manifests] == [ARM, AMD]
    assert [each.platform for each in walk(index(entry(ONE)), platforms={digest(CONFIG): ARM}).manifests] == [None]


def test_a_manifest_is_its_own_tree() -> None:
    found = walk(ONE)
    assert (found.indexes, found.way(found.target)) == ((), [])
    assert [each.digest for each in found.whole(found.target)] == [digest(raw) for raw in (ONE, CONFIG, LAYER)]


@pytest.mark.parametrize("kind", [*sorted(SCHEMA_1), "application/x-unknown", ""])
def test_a_blob_of_another_type_has_nothing_below_it(kind: str) -> None:
    target = Descriptor(kind, digest(ONE), len(ONE))
    found = Tree.of(target, lambda _: pytest.fail("it is no document"))
    assert found.all == {target.digest: target}


@pytest.mark.parametrize(("raw", "kind"), [(index(entry(ONE)), OCI_MANIFEST), (ONE, DOCKER_INDEX), (b"{}", OCI_INDEX)])
def test_a_document_of_another_type_than_its_descriptor_says_is_refused(raw: bytes, kind: str) -> None:
    with pytest.raises(ValueError, match=r"another type|neither"):
        walk(raw, kind=kind)


def test_what_is_both_a_manifest_and_an_index_is_refused() -> None:
    both = json.loads(ONE) | json.loads(index(entry(TWO)))
    with pytest.raises(ValueError, match="both"):
        Manifest.parse(as_json(both))


@pytest.mark.parametrize(
    ("config_type", "is_artifact"),
    [
        ("application/vnd.oci.image.config.v1+json", False),
        ("application/vnd.docker.container.image.v1+json", False),
        ("application/vnd.oci.empty.v1+json", True),
        ("application/vnd.cncf.helm.config.v1+json", True),
    ],
)
def test_an_artifact_is_known_by_the_type_of_its_config(config_type: str, is_artifact: bool) -> None:
    assert Manifest.parse(as_json({"config": described(b"{}", config_type)})).is_artifact is is_artifact


@pytest.mark.parametrize(
    ("config", "platform"),
    [
        (as_json({"os": "linux", "architecture": "arm64", "variant": "v8"}), ARM),
        (as_json({"os": "linux"}), None),
        (b"{}", None),
        (b"[" * 100_000, None),
        (b"\xff", None),
        (as_json({"os": 1, "architecture": "amd64"}), None),
    ],
)
def test_the_platform_of_a_config_is_what_it_tells(config: bytes, platform: Platform | None) -> None:
    assert Platform.of_config(config) == platform
