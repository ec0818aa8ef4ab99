"""Which images containers use is told by their names and by their snapshots."""

from __future__ import annotations

import pytest

from ctr_ferry import errors
from ctr_ferry.ctr import usage
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.usage import Blob, Container
from ctr_ferry.oci.descriptor import OCI_MANIFEST

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
CONFIG, LAYERS, OTHER_LAYERS = (f"sha256:{letter * 64}" for letter in "def")
ONE, TWO = "r.example/app:1", "r.example/app:2"
MARK = "ferry-0123456789abcdef"


def image(name: str, digest: str = A, *labels: str) -> Image:
    return Image(name, OCI_MANIFEST, digest, "3.0 MiB", "linux/amd64", frozenset(labels))


LABELS = (
    f"{A}\t551 B\t2 minutes\tcontainerd.io/gc.ref.content.config={CONFIG},containerd.io/gc.ref.content.l.0={C}\n"
    f"{CONFIG}\t1 B\t2 minutes\tcontainerd.io/gc.ref.snapshot.overlayfs={LAYERS}\n"
)


def test_labels_that_refer_to_one_another_without_end_are_refused() -> None:
    many = [f"sha256:{number:064x}" for number in range(3000)]
    here = Listing("k8s.io", tuple(image(f"r/app:{number}", digest) for number, digest in enumerate(many)))
    ring = {digest: Blob(frozenset({many[number - 1]}), frozenset()) for number, digest in enumerate(many)}
    with pytest.raises(errors.AnswerTooLarge):
        usage.used(here, (), {}, ring)
    one = {digest: Blob(frozenset(), frozenset({LAYERS})) for digest in many}
    containers = [Container(f"c{number}", "-") for number in range(3000)]
    with pytest.raises(errors.AnswerTooLarge):
        usage.used(here, containers, {each.id: LAYERS for each in containers}, one)


class TestUsage:
    def test_tables(self) -> None:
        text = (
            "CONTAINER    IMAGE    RUNTIME\nc1    r/app:1    io.containerd.runc.v2\nc2    -    io.containerd.runc.v2\n"
        )
        assert usage.parse_containers(text) == (Container("c1", "r/app:1"), Container("c2", "-"))
        text = f"KEY PARENT KIND\nc1 {LAYERS} Active\n{LAYERS}   Committed\n"
        assert usage.parse_parents(text) == {"c1": LAYERS}
        assert usage.parse_blobs("DIGEST SIZE AGE LABELS\n" + LABELS) == {
            A: Blob(frozenset({CONFIG, C}), frozenset()),
            CONFIG: Blob(frozenset(), frozenset({LAYERS})),
        }

    def test_empty_tables(self) -> None:
        assert (usage.parse_containers(""), usage.parse_parents(""), usage.parse_blobs("")) == ((), {}, {})

    def test_a_circle_of_labels_ends(self) -> None:
        blobs = {A: Blob(frozenset({B}), frozenset()), B: Blob(frozenset({A}), frozenset({LAYERS}))}
        here = Listing("n", (image(ONE),))
        assert usage.used(here, [Container("c", "gone")], {"c": LAYERS}, blobs) == {A: ["c"]}

    def test_a_name_that_fits_the_snapshot_is_enough(self) -> None:
        """Two images with the same layers: only the one that the container names is used."""
        blobs = {digest: Blob(frozenset(), frozenset({LAYERS})) for digest in (A, B)}
        here = Listing("n", (image(ONE), image(TWO, B)))
        assert usage.used(here, [Container("c", ONE)], {"c": LAYERS}, blobs) == {A: ["c"]}
        assert set(usage.used(here, [Container("c", "gone")], {"c": LAYERS}, blobs)) == {A, B}
        assert usage.used(here, [Container("c", "gone")], {"c": OTHER_LAYERS}, blobs) == {}
