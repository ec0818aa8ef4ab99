"""Descriptors, platforms and manifests are parsed strictly, and the index-only archive is always the same bytes."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from ctr_ferry.oci import layout
from ctr_ferry.oci.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    Platform,
)

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("Linux/ARM64/v8", "linux/arm64"),
        ("linux/arm/v7", "linux/arm"),
        ("linux/arm/v6", "linux/arm/v6"),
        (" windows/amd64 ", "windows/amd64"),
    ],
)
def test_a_platform_has_one_plain_form(text: str, plain: str) -> None:
    assert str(Platform.parse(text)) == plain


@pytest.mark.parametrize("text", ["", "amd64", "linux/", "/amd64", "linux//v7", "linux/arm/v7/x"])
def test_what_is_no_platform_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="no platform"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm"),
        ("armv6l", "linux/arm/v6"),
        ("i686", "linux/386"),
        ("loongarch64", "linux/loong64"),
        ("newarch", "linux/newarch"),
    ],
)
def test_uname_names_the_platform_of_a_host(machine: str, platform: str) -> None:
    assert str(Platform.of_machine(machine)) == platform


def test_an_index_and_a_host_agree_on_arm64() -> None:
    detail = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    assert Platform.of_json(detail) == Platform.of_machine("aarch64") == Platform.parse("linux/arm64")


def descriptor(**more: object) -> dict[str, object]:
    return {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 7, **more}


def test_a_descriptor_keeps_type_digest_size_and_platform() -> None:
    data = descriptor(platform={"os": "linux", "architecture": "arm", "variant": "v6"}, annotations={"a": "b"})
    assert Descriptor.of_json(data) == Descriptor(OCI_MANIFEST, DIGEST, 7, Platform("linux", "arm", "v6"))


@pytest.mark.parametrize("data", [{}, {"digest": DIGEST}, {"size": 1}, {"digest": DIGEST, "size": None}, [], "x", None])
def test_what_is_no_descriptor_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="not a descriptor"):
        Descriptor.of_json(data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("media_type", "is_index"),
    [(OCI_INDEX, True), (DOCKER_INDEX, True), (OCI_MANIFEST, False), (DOCKER_MANIFEST, False)],
)
def test_an_index_is_known_by_its_media_type(media_type: str, is_index: bool) -> None:
    assert Descriptor(media_type, DIGEST, 1).is_index is is_index


def test_a_manifest_points_at_its_config_and_then_its_layers() -> None:
    raw = json.dumps({"config": descriptor(), "layers": [descriptor(digest=OTHER)]}).encode()
    manifest = Manifest.parse(raw)
    assert [blob.digest for blob in manifest.blobs] == [DIGEST, OTHER]
    assert manifest.children == ()


def test_an_index_points_at_its_manifests_and_finds_one_by_platform() -> None:
    amd64 = descriptor(platform={"os": "linux", "architecture": "amd64"})
    arm64 = descriptor(digest=OTHER, platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
    index = Manifest.parse(json.dumps({"manifests": [amd64, arm64]}).encode())
    assert [child.digest for child in index.children] == [DIGEST, OTHER]
    found = index.child_for(Platform.parse("linux/arm64"))
    assert found and found.digest == OTHER
    assert index.child_for(Platform.parse("linux/s390x")) is None


@pytest.mark.parametrize(
    "raw", [b"{}", b"[]", b"null", b"3", b"\xff\x00", b"{", b'{"manifests": [1]}', b'{"config": 1}']
)
def test_what_is_neither_manifest_nor_index_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Manifest.parse(raw)


@pytest.mark.parametrize("raw", [b'{"manifests": null}', b'{"manifests": []}'])
def test_an_empty_index_has_no_children(raw: bytes) -> None:
    assert Manifest.parse(raw) == Manifest()


NAMED = [
    ("r.example/a:1", "r.example/a:1", Descriptor(OCI_INDEX, DIGEST, 1234)),
    ("r.example/b:2", "2", Descriptor(DOCKER_MANIFEST, OTHER, 5, Platform("linux", "arm", "v6"))),
]


def members(archive: bytes) -> dict[str, dict[str, object]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name: json.loads(tar.extractfile(m).read()) for m in tar.getmembers()}  # type: ignore[union-attr]


def test_an_index_only_archive_is_a_tar_of_a_layout_without_blobs() -> None:
    assert list(members(layout.index_only(NAMED))) == ["oci-layout", "index.json"]
    assert members(layout.index_only(NAMED))["oci-layout"] == {"imageLayoutVersion": "1.0.0"}


def test_an_index_only_archive_names_each_target_with_both_annotations() -> None:
    first, second = members(layout.index_only(NAMED))["index.json"]["manifests"]  # type: ignore[misc]
    assert first == {
        "mediaType": OCI_INDEX,
        "digest": DIGEST,
        "size": 1234,
        "annotations": {
            "io.containerd.image.name": "r.example/a:1",
            "org.opencontainers.image.ref.name": "r.example/a:1",
        },
    }
    assert second["annotations"]["org.opencontainers.image.ref.name"] == "2"


def test_an_index_only_archive_keeps_the_whole_platform_of_a_target() -> None:
    entry = members(layout.index_only(NAMED))["index.json"]["manifests"][1]  # type: ignore[index]
    assert entry["platform"] == {"os": "linux", "architecture": "arm", "variant": "v6"}


def test_an_index_only_archive_is_the_same_bytes_for_the_same_names() -> None:
    assert layout.index_only(NAMED) == layout.index_only(list(NAMED))
    assert layout.index_only(NAMED) != layout.index_only(NAMED[:1])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_an_index_only_archive_is_whole_blocks_and_ends_with_exactly_two_zero_ones(count: int) -> None:
    archive = layout.index_only([(f"r.example/{n}:1", f"r.example/{n}:1", NAMED[0][2]) for n in range(count)])
    assert len(archive) % 512 == 0
    assert archive.endswith(bytes(1024))
    assert not archive.endswith(bytes(1024 + 512))
    assert len(members(archive)["index.json"]["manifests"]) == count  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "given", "takes"),
    [
        ("linux/amd64/v3", "linux/amd64", True),
        ("linux/arm64", "linux/arm/v7", True),
        ("linux/amd64", "linux/386", True),
        ("linux/386", "linux/amd64", False),
        ("linux/amd64", "linux/arm64", False),
        ("linux/amd64", "windows/amd64", False),
    ],
)
def test_containerd_takes_what_a_platform_can_run(asked: str, given: str, takes: bool) -> None:
    assert Platform.parse(asked).takes(Platform.parse(given)) is takes
