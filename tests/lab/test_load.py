"""`fab load` gives nodes the images of archives of every tool, whole, and sends only what a node lacks."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

from accounts import counting
from archives import NAME, REF, Image, as_json, described, digest, layout, listing, path, tarred
from ferry import Fab, Stage, eventually, has_cri, leftovers, processes, release, write_inventory
from saving import (
    Images,
    images_fixture,  # noqa: F401
    make_fixture,  # noqa: F401
    skopeo_fixture,  # noqa: F401
    statuses,
)

from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST
from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKERS: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "gzip": gzip.compress, "zstd": zstd.compress}


class TestLoad:
    def test_gives_every_node_images_that_are_whole_and_run(
        self, fab: Fab, stage: Stage, make: Callable[..., BuiltImage], skopeo: Callable[..., str], tmp_path: Path
    ) -> None:
        kinds = ("oci-plain", "oci-gzip", "docker-zstd")
        images = {kind: make(media="docker") for kind in kinds}
        names = {kind: stage.name(kind) for kind in kinds}
        words = ["-H", ",".join(stage.nodes)]
        for kind, name in names.items():
            made, file = tmp_path / f"{kind}.made", tmp_path / f"{kind}.tar"
            with made.open("wb") as opened:
                images[kind].write_archive(opened, [name])
            if kind.startswith("docker"):
                skopeo("copy", f"oci-archive:{made}", f"docker-archive:{made}.docker:{name}")
                made = made.with_name(f"{made.name}.docker")
            file.write_bytes(PACKERS[kind.partition("-")[2]](made.read_bytes()))
            words += ["load", "--json", "--archive", str(file)]
        running = stage.on_each(processes)

        changed, unchanged = (dict.fromkeys(stage.nodes, status) for status in ("changed", "unchanged"))
        run = fab(*words)
        assert statuses(run) == [changed] * 3, run.out
        for each in run.document["commands"]:
            told = {outcome["result"]["images"][0]["blobs"] for outcome in each["outcomes"]}
            assert told == {4}  # manifest, config and two layers
        assert statuses(fab(*words)) == [unchanged] * 3
        for node in stage.nodes.values():
            records = stage.records(node)
            assert set(records) == set(names.values())
            same = {kind: records[names[kind]].digest == image.target.digest for kind, image in images.items()}
            assert same == {"oci-plain": True, "oci-gzip": True, "docker-zstd": False}
            assert {record.managed for record in records.values()} == {has_cri(node)}
            assert leftovers(node) == [], node
            assert eventually(lambda n=node: processes(n).keys() <= running[n.name].keys()), processes(node)  # type: ignore[misc]

        def state(node: Node) -> list[str]:
            return [detail for name in names.values() for detail in (stage.check(node, name), stage.hello(node, name))]

        assert stage.on_each(state) == {node: ["complete", "hello"] * 3 for node in stage.nodes}

    def test_makes_the_same_image_of_a_docker_archive_as_ctr_does(
        self, fab: Fab, stage: Stage, make: Callable[..., BuiltImage], skopeo: Callable[..., str], tmp_path: Path
    ) -> None:
        name, file = stage.name(), tmp_path / "docker.tar"
        with (tmp_path / "made.tar").open("wb") as opened:
            make().write_archive(opened, [name])  # one that no node has: ctr would take its compressed layers instead
        skopeo("copy", f"oci-archive:{tmp_path}/made.tar", f"docker-archive:{file}:{name}")
        nodes = [node for node in stage.nodes.values() if not node.real_is_legacy]  # 1.2 made another manifest
        stage.on_each(lambda node: node.real_ctr("images", "import", "-", stdin=file.read_bytes()), nodes)
        before = stage.on_each(lambda node: stage.records(node)[name].digest, nodes)
        run = fab("-H", ",".join(before), "load", "--json", "--archive", str(file))
        assert run.exit == 0, run.out
        assert {node: run.image(node)["digest"] for node in before} == before

    def test_sends_only_what_a_node_lacks(
        self, fab: Fab, stage: Stage, make: Callable[..., BuiltImage], tmp_path: Path
    ) -> None:
        image, name, file = make(layers=(1000, 200_000)), stage.name(), tmp_path / "app.tar"
        with file.open("wb") as opened:
            image.write_archive(opened, [name])
        second = image.layers[NATIVE][1]
        missing = {second, image.target.digest}
        stage.on_each(lambda node: ingest(stage, node, image, set(image.blobs) - missing))
        run = fab("-H", ",".join(stage.nodes), "load", "--json", "--archive", str(file))
        assert run.statuses == dict.fromkeys(stage.nodes, "changed"), run.out
        sent = sum(image.size(digest) for digest in missing)
        assert {node: run.image(node)["bytes"] for node in stage.nodes} == dict.fromkeys(stage.nodes, sent)
        assert stage.on_each(lambda node: stage.hello(node, name)) == dict.fromkeys(stage.nodes, "hello")

    def test_gives_another_name_and_respects_the_one_that_is_there(
        self, fab: Fab, stage: Stage, images: Images, node3: Node, tmp_path: Path
    ) -> None:
        name, file = stage.name(), tmp_path / "app.tar"
        with file.open("wb") as opened:
            images.both.write_archive(opened, ["of.the/archive:1"])
        stage.seed(images.plain, name, nodes=[node3])
        words = ("load", "--json", "--archive", str(file), "--as", name)
        run = fab("-H", "node3", *words)
        assert (run.exit, run.error["kind"]) == (1, "reference-exists")
        assert fab("-H", "node3", *words, "--force", "--dry-run").statuses == {"node3": "would-change"}
        assert stage.records(node3)[name].digest == images.plain.target.digest
        assert fab("-H", "node3", *words, "--force").statuses == {"node3": "changed"}
        assert stage.records(node3) == {name: stage.records(node3)[name]}
        assert stage.records(node3)[name].digest == images.both.target.digest

    def test_takes_what_save_has_written_of_all_platforms(
        self, fab: Fab, stage: Stage, images: Images, node3: Node, tmp_path: Path
    ) -> None:
        name, namespace = stage.name(), stage.namespace()
        stage.seed(images.both, name, namespace=namespace, nodes=[node3])
        words = ("--json", "--ref", name, "--out", f"{tmp_path}/a.tar", "--all-platforms")
        assert fab("-H", "node3", "save", "-n", namespace, *words).exit == 0
        other = stage.namespace("to")
        words = ("--json", "--archive", f"{tmp_path}/a.tar", "--all-platforms", "-n", other)
        run = fab("-H", ",".join(stage.nodes), "load", *words)
        assert run.statuses == dict.fromkeys(stage.nodes, "changed"), run.out
        for node in stage.nodes.values():
            there = node.real_ctr("content", "ls", "-q", namespace=other).stdout.decode().split()
            assert set(images.both.blobs) <= set(there), node

    def test_takes_archives_as_the_field_has_them(self, fab: Fab, stage: Stage, tmp_path: Path) -> None:
        """In one run: an index of indexes beside what is no image, and a folder whose image has a tag alone."""
        amd = Image(layers=(tarred({"etc/of": stage.token.encode()}),))
        arm = Image(amd.layers, platform={"os": "linux", "architecture": "arm64"})
        sbom = as_json({"of": stage.token})
        names = {"nested": stage.name("nested"), "tagged": stage.name("tagged", "v1")}
        inner = [listing(described(image.manifest, OCI_MANIFEST)) for image in (amd, arm)]
        unknown = described(sbom, "application/vnd.oci.artifact.manifest.v1+json")
        outer, entry = listing(*(described(raw, OCI_INDEX) for raw, _ in inner), unknown, name=names["nested"])
        blobs = {path(raw): raw for raw in (outer, sbom, *(raw for raw, _ in inner))} | amd.blobs | arm.blobs
        file = tmp_path / "nested.tar"
        file.write_bytes(tarred(layout(blobs, entry, {**unknown, "annotations": {NAME: "r.example/sbom:1"}})))
        folder = tmp_path / "folder"
        for name, data in layout(blobs, amd.entry(**{REF: "v1"}), arm.entry(**{REF: "v2"})).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

        run = fab(
            *("-H", ",".join(stage.nodes), "load", "--json", "--archive", str(file)),
            *("load", "--archive", str(folder), "--base-name", names["tagged"].removesuffix(":v1"), "--ref", "v1"),
        )
        assert statuses(run) == [dict.fromkeys(stage.nodes, "changed")] * 2, run.out
        assert f"{file}: passed by:" in run.err
        for node in stage.nodes.values():
            old = release(node) == (1, 2)  # it cannot name an index that lists types which nobody knows
            digests = {name: record.digest for name, record in stage.records(node).items()}
            nested = amd.manifest if old else outer
            assert digests == {names["nested"]: digest(nested), names["tagged"]: digest(amd.manifest)}
            there = node.real_ctr("content", "ls", "-q").stdout.decode().split()
            assert {digest(blob) for blob in (amd.blobs if old else blobs).values()} <= set(there), node
            assert leftovers(node) == [], node

    def test_makes_the_same_image_of_layers_with_zstd_as_ctr_does(self, fab: Fab, stage: Stage, tmp_path: Path) -> None:
        image = Image((tarred({"etc/of": stage.token.encode()}),), packed=True, pack=zstd.compress)
        name, file = stage.name("zstd"), tmp_path / "docker.tar"
        file.write_bytes(tarred(image.saved(name)))
        run = fab("-H", ",".join(stage.nodes), "load", "--json", "--archive", str(file))
        able = {node.name: node for node in stage.nodes.values() if release(node) >= (1, 5)}
        assert run.statuses == {node: "changed" if node in able else "method-unsupported" for node in stage.nodes}
        for node in stage.nodes.values():
            there = node.real_ctr("content", "ls", "-q").stdout.decode().split()
            assert (digest(image.stored[0]) in there) == (node.name in able), node
        other = stage.namespace("ctr")
        for node in able.values():
            node.real_ctr("images", "import", "-", stdin=file.read_bytes(), namespace=other)
            assert stage.records(node)[name].digest == stage.records(node, other)[name].digest, node

    def test_touches_no_host_if_the_archive_is_none(
        self, fab: Fab, fleet: Fleet, images: Images, tmp_path: Path
    ) -> None:
        nowhere = write_inventory(tmp_path / "hosts.yaml", fleet, {"nowhere": {"ansible_host": "127.0.0.1"}})
        with (tmp_path / "good.tar").open("wb") as opened:
            images.plain.write_archive(opened, ["r.example/app:1"])
        good = (tmp_path / "good.tar").read_bytes()
        layer = images.plain.layers[NATIVE][1].removeprefix("sha256:").encode()
        at = good.index(layer) + 700
        changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        bad = {"cut off": good[:at], "changed": changed}
        for what, data in bad.items():
            file = tmp_path / "bad.tar"
            file.write_bytes(data)
            run = fab("-H", "nowhere", "load", "--json", "--archive", str(file), inventory=nowhere)
            assert (run.exit, run.error["kind"]) == (2, "bad-archive"), what
            assert str(file) in run.error["message"]

    def test_takes_few_remote_commands(self, fab: Fab, stage: Stage, images: Images, tmp_path: Path) -> None:
        file = tmp_path / "app.tar"
        with file.open("wb") as opened:
            images.plain.write_archive(opened, [stage.name()])
        nodes = list(stage.nodes.values())[1:3]
        with counting(nodes) as counts:
            run = fab("-H", ",".join(counts), "load", "--json", "--archive", str(file))
            asked = {host: count() for host, count in counts.items()}
        assert run.statuses == dict.fromkeys(counts, "changed"), run.out
        assert max(asked.values()) <= 8


def ingest(stage: Stage, node: Node, image: BuiltImage, digests: set[str]) -> None:
    """Give a node some blobs, which a label of this test keeps there until it ends."""
    for number, each in enumerate(digests):
        blob = image.blobs[each]
        data = blob if isinstance(blob, bytes) else blob.read_bytes()
        node.real_ctr("content", "ingest", "--expected-digest", each, f"{stage.token}-{number}", stdin=data)
        node.real_ctr("content", "label", each, f"containerd.io/gc.root={stage.token}")
