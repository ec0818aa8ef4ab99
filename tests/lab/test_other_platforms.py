"""What a node cannot use is refused before a byte moves, the same on every ctr; what is for other machines is named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from archives import NAME, OCI_MANIFEST, Image, described, layout, path, tarred
from ferry import Fab, Stage, leftovers, release
from saving import make_fixture  # noqa: F401

from lab.images import BuiltImage

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OTHERS = ("linux/s390x", "linux/riscv64")


def test_an_index_of_other_platforms_alone(
    fab: Fab, stage: Stage, make: Callable[..., BuiltImage], tmp_path: Path
) -> None:
    index, single = stage.name("index"), stage.name("single")
    both, one = make(platforms=OTHERS), make(platforms=OTHERS[:1])
    for image, name in ((both, index), (one, single)):
        with (tmp_path / f"{name.rpartition('/')[2]}.tar").open("wb") as opened:
            image.write_archive(opened, [name])
    everywhere = ",".join(stage.nodes)
    run = fab("-H", everywhere, "load", "--json", "--archive", str(tmp_path / "index:1.tar"))
    assert run.statuses == dict.fromkeys(stage.nodes, "platform-missing"), run.out
    assert f"{index} is for {', '.join(OTHERS)}; this host is linux/" in run.error["message"]
    run = fab("-H", everywhere, "load", "--json", "--archive", str(tmp_path / "single:1.tar"))
    assert run.statuses == dict.fromkeys(stage.nodes, "changed"), run.out
    assert all(f"{single} is for {OTHERS[0]}" in str(run.image(node)["notes"]) for node in stage.nodes)
    assert all(set(stage.records(node)) == {single} for node in stage.nodes.values())
    run = fab("-H", everywhere, "check", "--json", "--ref", single)
    assert run.statuses == dict.fromkeys(stage.nodes, "platform-missing"), run.out


def test_layers_with_zstd_for_a_containerd_that_cannot_unpack_them(fab: Fab, stage: Stage, tmp_path: Path) -> None:
    name, image = stage.name(), Image(packed=True, pack=zstd.compress)
    manifest = image.manifest.replace(b"+gzip", b"+zstd")
    blobs = {**image.blobs, path(manifest): manifest}
    named = {**described(manifest, OCI_MANIFEST), "annotations": {NAME: name}}
    (tmp_path / "zstd.tar").write_bytes(tarred(layout(blobs, named)))
    run = fab("-H", ",".join(stage.nodes), "load", "--json", "--archive", str(tmp_path / "zstd.tar"))
    old = {node.name for node in stage.nodes.values() if release(node) < (1, 5)}
    expected = {node: "method-unsupported" if node in old else "changed" for node in stage.nodes}
    assert run.statuses == expected, run.out
    run = fab("-H", ",".join(old), "copy", "--json", "--from", "node3", "--ref", name)
    assert run.statuses == dict.fromkeys(old, "method-unsupported"), run.out
    assert {node for node in old if stage.records(stage.nodes[node])} == set()
    assert [node for node in stage.nodes.values() if leftovers(node)] == []
