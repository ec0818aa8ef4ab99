"""`fab save` writes whole archives that every tool reads, or nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ferry import Fab, Stage, eventually, flipped, leftovers, processes, release
from saving import (
    OTHER,
    Images,
    images_fixture,  # noqa: F401
    make_fixture,  # noqa: F401
    skopeo_fixture,  # noqa: F401
    statuses,
)

from lab.fleet import Node
from lab.images import NATIVE, BuiltImage


def files(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def importing(node: Node, file: Path, image: BuiltImage) -> None:
    """Import an archive with the ctr that the node's user gets."""
    flags = ["--all-platforms"] if len(image.manifests) > 1 and release(node) >= (1, 3) else []
    flags += ["--local"] if release(node) >= (1, 7) else []
    node.ctr("images", "import", *flags, "-", stdin=file.read_bytes())


class TestSave:
    @pytest.fixture(params=Images._fields)
    def image(self, images: Images, request: pytest.FixtureRequest) -> BuiltImage:
        """Each image in turn."""
        image: BuiltImage = getattr(images, request.param)
        return image

    def test_writes_the_same_archive_from_every_node_and_all_tools_read_it(
        self, fab: Fab, stage: Stage, skopeo: Callable[..., str], image: BuiltImage, tmp_path: Path
    ) -> None:
        name = stage.name()
        stage.seed(image, name)
        run = fab("-H", ",".join(stage.nodes), "save", "--json", "--ref", name, "--out", f"{tmp_path}/")
        assert run.statuses == dict.fromkeys(stage.nodes, "changed"), run.out
        assert files(tmp_path) == sorted(f"{node}.tar{end}" for node in stage.nodes for end in ("", ".sha256"))
        assert len({(tmp_path / f"{node}.tar").read_bytes() for node in stage.nodes}) == 1
        for node in stage.nodes.values():
            subprocess.run(["sha256sum", "--quiet", "-c", f"{node.name}.tar.sha256"], cwd=tmp_path, check=True)
            result = run.outcomes[node.name]["result"]
            assert (result["size"], result["sha256"]) == told_by_sha256sum(tmp_path / f"{node.name}.tar")
            assert [(i["reference"], i["digest"]) for i in result["images"]] == [(name, image.target.digest)]
            assert leftovers(node) == [], node

        file = tmp_path / "node1.tar"
        assert told_digest(skopeo("inspect", "--raw", f"oci-archive:{file}")) == image.target.digest
        for source in (f"oci-archive:{file}", f"docker-archive:{file}:{name}"):
            target = tmp_path / source.partition(":")[0]
            skopeo("copy", "--preserve-digests" if source.startswith("oci") else "--quiet", source, f"dir:{target}")
            assert image.configs[NATIVE].removeprefix("sha256:") in files(target)
        with tarfile.open(file) as tar:
            assert set(tar.getnames()) >= {"index.json", "oci-layout", "manifest.json"}

        def imported(node: Node) -> list[object]:
            node.real_ctr("images", "rm", "--sync", *stage.records(node, digests=[image.target.digest]))
            importing(node, file, image)
            return [stage.records(node)[name].digest, stage.check(node, name), stage.hello(node, name)]

        new = [node for node in stage.nodes.values() if release(node) >= (1, 2)]
        expected = [image.target.digest, "complete", "hello"]
        assert stage.on_each(imported, new) == {node.name: expected for node in new}

    def test_takes_one_platforms_manifest_where_asked(
        self, fab: Fab, stage: Stage, images: Images, tmp_path: Path
    ) -> None:
        name = stage.name()
        stage.seed(images.both, name)
        words = ("save", "--json", "--ref", name, "--out", f"{tmp_path}/", "--platform", OTHER)
        run = fab("-H", ",".join(stage.nodes), *words)
        assert run.statuses == dict.fromkeys(stage.nodes, "changed"), run.out
        for node in stage.nodes:
            assert run.image(node)["digest"] == images.both.manifests[OTHER]
            assert blobs_in(tmp_path / f"{node}.tar") == images.both.of(OTHER) - {images.both.target.digest}

    def test_takes_of_an_index_what_is_there_or_insists_on_all(
        self, fab: Fab, stage: Stage, images: Images, node3: Node, tmp_path: Path
    ) -> None:
        name, namespace = stage.name(), stage.namespace()
        stage.seed(images.both, name, namespace=namespace, blobs=images.both.of(NATIVE), nodes=[node3])
        words = ("-H", "node3", "save", "--json", "-n", namespace, "--ref", name, "--out", f"{tmp_path}/a.tar")
        run = fab(*words, "--all-platforms")
        assert (run.exit, run.error["kind"]) == (1, "content-missing")
        assert files(tmp_path) == []
        run = fab(*words)
        assert run.statuses == {"node3": "changed"}, run.out
        assert run.image("node3")["platforms"] == [NATIVE]
        assert blobs_in(tmp_path / "a.tar") == images.both.of(NATIVE)

    def test_writes_nothing_twice_and_over_nothing_else(
        self, fab: Fab, stage: Stage, images: Images, node3: Node, tmp_path: Path
    ) -> None:
        name, other = stage.name(), stage.name("other")
        stage.seed(images.plain, name, nodes=[node3])
        stage.seed(images.both, other, nodes=[node3])
        file = tmp_path / "a.tar"
        words = ("save", "--json", "--out", str(file), "--ref")
        assert fab("-H", "node3", *words, name, "--dry-run").statuses == {"node3": "would-change"}
        assert files(tmp_path) == []
        assert statuses(fab("-H", "node3", *words, name, *words, name)) == [
            {"node3": "changed"},
            {"node3": "unchanged"},
        ]
        before = file.stat().st_ino, file.stat().st_mtime_ns
        run = fab("-H", "node3", *words, other)
        assert (run.exit, run.error["kind"]) == (1, "cannot-write")
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == before
        run = fab("-H", "node3", *words, name, "--ref", f"*/{stage.token}/o*", "--force")
        assert run.statuses == {"node3": "changed"}
        assert blobs_in(file) == set(images.plain.blobs) | set(images.both.blobs)
        assert files(tmp_path) == ["a.tar", "a.tar.sha256"]

    def test_refuses_impossible_requests(self, fab: Fab, stage: Stage, tmp_path: Path) -> None:
        file = tmp_path / "a.tar"
        run = fab("-H", "node2,node3", "save", "--json", "--ref", stage.name(), "--out", str(file))
        assert run.exit == 2
        assert "one file, and there are 2 hosts" in run.document["commands"][0]["error"]["message"]
        run = fab("-H", "node3", "save", "--json", "--ref", stage.name(), "--out", str(file))
        assert (run.exit, run.error["kind"]) == (1, "image-not-found")
        assert files(tmp_path) == []

    def test_refuses_a_blob_that_is_not_what_its_name_says(
        self, fab: Fab, stage: Stage, node3: Node, make: Callable[..., BuiltImage], tmp_path: Path
    ) -> None:
        image, name = make(), stage.name()
        stage.seed(image, name, nodes=[node3])
        layer = image.layers[NATIVE][1]
        with flipped(node3, layer):
            run = fab("-H", "node3", "save", "--json", "--ref", name, "--out", f"{tmp_path}/a.tar")
        assert (run.exit, run.error["kind"]) == (1, "content-corrupt")
        assert layer in run.error["message"] + run.error["said"]
        assert run.error["hint"].endswith(f"from another host: fab -H all find --ref {name}")
        assert files(tmp_path) == []

    def test_leaves_nothing_where_the_disk_is_full(
        self, fab: Fab, stage: Stage, node3: Node, images: Images, tmp_path: Path
    ) -> None:
        name = stage.name()
        stage.seed(images.plain, name, nodes=[node3])
        with small_disk(tmp_path):
            run = fab("-H", "node3", "save", "--json", "--ref", name, "--out", f"{tmp_path}/a.tar")
            assert (run.exit, run.error["kind"]) == (1, "cannot-write")
            assert "No space left" in run.error["said"]
            assert files(tmp_path) == []
        assert eventually(lambda: not any("blobs/sha256" in argv for argv in processes(node3).values()))

    def test_leaves_nothing_when_it_is_broken_off(
        self, fab: Fab, stage: Stage, node3: Node, make: Callable[..., BuiltImage], tmp_path: Path
    ) -> None:
        image, name, file = make(layers=(150 << 20,)), stage.name(), tmp_path / "a.tar"
        stage.seed(image, name, nodes=[node3])
        before = processes(node3).keys()

        def sessions() -> list[int]:
            return [pid for pid, argv in processes(node3).items() if pid not in before and argv.startswith("sshd")]

        for code in (130, 4):
            process = fab.start("-H", "node3", "save", "--json", "--ref", name, "--out", str(file))
            assert eventually(lambda: [*tmp_path.glob("a.tar.*.part")]), process.communicate(timeout=60)
            if code == 130:
                process.send_signal(signal.SIGINT)
            else:
                for pid in sessions():
                    os.kill(pid, signal.SIGKILL)
            out, err = process.communicate(timeout=60)
            assert process.returncode == code, out + err
            assert "Traceback" not in out + err
            assert files(tmp_path) == []
            assert eventually(lambda: processes(node3).keys() <= before), processes(node3)
        assert "connection-lost" in out


def blobs_in(file: Path) -> set[str]:
    """Return the digests of an archive's blobs."""
    with tarfile.open(file) as tar:
        return {f"sha256:{name.removeprefix('blobs/sha256/')}" for name in tar.getnames() if name.startswith("blobs/")}


def told_digest(raw: str) -> str:
    """Return the digest of a document."""
    return f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"


def told_by_sha256sum(file: Path) -> tuple[int, str]:
    """Return a file's size and SHA-256."""
    detail = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout
    return file.stat().st_size, detail.split()[0]


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A folder on a disk of 1 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
