"""`fab save` writes archives that every tool reads, and `fab load` reads archives of every tool."""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from ferry import (
    Fab,
    Run,
    Stage,
    counting,
    eventually,
    flipped,
    has_cri,
    leftovers,
    processes,
    release,
    write_inventory,
)

from lab import debian
from lab.fleet import CACHE, Fleet, Node
from lab.images import NATIVE, BuiltImage, build

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"
HELLO = ("/bin/echo", "hello")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's images are made."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def make(fleet: Fleet, folder: Path) -> Callable[..., BuiltImage]:
    """Builds an image of this session alone."""
    assert fleet.nodes

    def make(**options: object) -> BuiltImage:
        layers = options.pop("layers", (1000, 2000))
        return build(folder, layers=layers, cmd=HELLO, seed=secrets.randbits(32), **options)  # type: ignore[arg-type]

    return make


class Images(NamedTuple):
    """One of one platform, docker's types and compressed layers; one of two platforms, OCI's types."""

    plain: BuiltImage
    both: BuiltImage


@pytest.fixture(scope="module")
def images(make: Callable[..., BuiltImage]) -> Images:
    """Images that are only read."""
    return Images(make(media="docker"), make(platforms=(NATIVE, OTHER)))


@pytest.fixture(scope="module")
def skopeo(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Debian's skopeo; fails where it fails."""
    try:
        tree = debian.unpacked(["skopeo"], CACHE, whole=True)
    except debian.Unavailable as why:
        pytest.skip(str(why))
    libraries = ":".join(str(path) for path in (tree / "usr/lib").glob("*-linux-gnu"))
    temporary = tmp_path_factory.mktemp("skopeo")

    def run(*words: str) -> str:
        done = subprocess.run(
            [tree / "usr/bin/skopeo", "--insecure-policy", "--tmpdir", temporary, *words],
            env={**os.environ, "LD_LIBRARY_PATH": libraries, "HOME": str(temporary)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stderr
        return done.stdout

    return run


def files(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def statuses(run: Run) -> list[dict[str, str]]:
    """Return, for each command of a line, the status by host."""
    return [{o["host"]: o["status"] for o in each["outcomes"]} for each in run.document["commands"]]


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
            assert [(i["name"], i["digest"]) for i in result["images"]] == [(name, image.target.digest)]
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
            told = {outcome["result"]["images"][0]["blobs_sent"] for outcome in each["outcomes"]}
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
        assert {node: run.image(node)["bytes_sent"] for node in stage.nodes} == dict.fromkeys(stage.nodes, sent)
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
    for number, digest in enumerate(digests):
        blob = image.blobs[digest]
        data = blob if isinstance(blob, bytes) else blob.read_bytes()
        node.real_ctr("content", "ingest", "--expected-digest", digest, f"{stage.token}-{number}", stdin=data)
        node.real_ctr("content", "label", digest, f"containerd.io/gc.root={stage.token}")
