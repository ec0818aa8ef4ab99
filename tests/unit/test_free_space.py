"""How much room a host has, and what is reported where blobs do not, or may not, fit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ctr_ferry.ctr import free_space
from ctr_ferry.ctr.free_space import Room, Space
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.errors import DiskFull
from ctr_ferry.oci.descriptor import OCI_MANIFEST, Descriptor

HEAD = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n"
GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def one(free: int, available: int | None = None, mount: str = "/") -> Space:
    return Space(1000, free, free if available is None else available, mount)


ONE = Room(one(100, 90), one(100, 90))
TWO = Room(one(100, 90, "/blobs"), one(50, mount="/unpacked"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{HEAD}/dev/sda1 10 4 5 45% /\n", Space(10240, 6144, 5120, "/")),
        (f"{HEAD}//nas/a share 10 4 6 40% /mnt/a disk\n", Space(10240, 6144, 6144, "/mnt/a disk")),
        (f"{HEAD}/dev/b 10 4 6 40% /mnt/\x1b[2Jx\n", Space(10240, 6144, 6144, "/mnt/x")),
        (f"{HEAD}tmpfs 10 12 -2 120% /x\n", Space(10240, 0, 0, "/x")),
    ],
)
def test_dfs_rows_are_read(text: str, expected: Space) -> None:
    assert free_space.parse(text) == Room(expected, expected)
    assert free_space.parse(f"{text}other 3 1 2 33% /other\n") == Room(expected, Space(3072, 2048, 2048, "/other"))


@pytest.mark.parametrize(
    "text", ["", HEAD, f"{HEAD}none 0 0 0 - /x\n", f"{HEAD}none - - - - /\n", "1 2 3 4%\n", "a\n" * 9]
)
def test_what_is_no_row_is_none(text: str) -> None:
    assert free_space.parse(text) is None


def test_compressed_layers_grow_and_what_is_no_layer_takes_nothing() -> None:
    layer = "application/vnd.oci.image.layer.v1.tar"
    kinds = {f"{layer}+gzip": 30, f"{layer}+zstd": 30, layer: 10, GZIP: 30, GZIP.removesuffix(".gzip"): 10}
    assert {kind: free_space.growth([Descriptor(kind, "sha256:1", 10)]) for kind in kinds} == kinds
    config = "application/vnd.oci.image.config.v1+json"
    assert free_space.growth([Descriptor(kind, "sha256:1", 10) for kind in (config, OCI_MANIFEST)]) == 0


@pytest.mark.parametrize(
    ("where", "coming", "unpacked", "detail"),
    [
        (ONE, 40, 50, ""),
        (ONE, 0, 0, ""),
        (None, 4000, 5000, ""),
        (ONE, 40, 51, "it may not fit: 40 B, and about 51 B more when unpacked are needed, and 90 B are free on /"),
        (ONE, 100, 0, "it may not fit: 100 B are needed, and 90 B are free on /"),  # root may have its reserve
        (TWO, 90, 50, ""),
        (TWO, 91, 50, "it may not fit: 91 B are needed, and 90 B are free on /blobs"),
        (TWO, 90, 51, "it may not fit unpacked: about 51 B are needed, and 50 B are free on /unpacked"),
    ],
)
def test_what_may_not_fit_is_a_warning(where: Room | None, coming: int, unpacked: int, detail: str) -> None:
    assert free_space.judge(where, coming, unpacked) == detail


@pytest.mark.parametrize("where", [ONE, TWO])
def test_what_surely_does_not_fit_is_refused_with_both_sizes(where: Room) -> None:
    error = free_space.judge(where, 101, 0)
    assert isinstance(error, DiskFull)
    assert "101 B are needed, and 100 B are free on /" in error.message and "df -h /" in error.hint


def test_a_full_disk_refuses_nothing_that_sends_nothing() -> None:
    full = one(0)
    assert free_space.judge(Room(full, full), 0, 0) == ""
    assert str(free_space.judge(Room(full, full), 0, 5)).startswith("it may not fit")


def test_a_dry_run_tells_what_is_needed_and_free() -> None:
    assert free_space.needs(ONE, 40, 0) == "40 B are needed, and 90 B are free on /"
    assert free_space.needs(None, 40, 5).endswith("are needed, and what is free is not known")


@pytest.mark.parametrize("known", [True, False])
def test_the_content_store_is_asked_and_containerds_root(tmp_path: Path, known: bool) -> None:
    root = tmp_path / "its root"
    (root / "io.containerd.content.v1.content").mkdir(parents=True)
    shim = tmp_path / "bin"
    shim.mkdir()
    (shim / "df").write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    plugins = f"Type:  io.containerd.content.v1\nExports:\n     root      {root}/io.containerd.content.v1.content\n"
    (shim / "ctr").write_text(f"#!/bin/sh\ncat <<'E'\n{plugins}\nE\n")
    for each in shim.iterdir():
        each.chmod(0o755)
    ask = free_space.question(Settings(root=str(root) if known else None))
    text = f"set -f; plugins=$(ctr plugins ls -d)\n{ask}"  # which the probe keeps
    detail = subprocess.run(
        ["/bin/sh", "-c", text], env={"PATH": f"{shim}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    ).stdout
    assert detail == f"<-Pk><{root}/io.containerd.content.v1.content><{root}/>"
