"""Whether a host can use an image is told at the inspection, by platform and by how its layers are packed."""

from __future__ import annotations

import pytest
from visits import facts

from ctr_ferry import errors
from ctr_ferry.ctr.listing import Image
from ctr_ferry.images import fitness
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, Platform

D = f"sha256:{'a' * 64}"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


def image(platforms: str, media_type: str = OCI_INDEX) -> Image:
    return Image("r.example/app:1", media_type, D, "1 B", platforms, frozenset())


@pytest.mark.parametrize(
    ("host", "platforms", "runs_from"),
    [
        ("linux/amd64", "linux/amd64", (1, 2)),
        ("linux/amd64", "linux/arm64,linux/amd64", (1, 2)),
        ("linux/amd64", "-", (1, 2)),  # nobody knows
        ("linux/amd64", "linux/386,linux/arm64", (1, 5)),
        ("linux/arm64", "linux/arm/v6", (1, 5)),
        ("linux/arm/v7", "linux/arm/v6", (1, 2)),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("linux/amd64", "linux/amd64/v2,linux/arm64", None),
        ("linux/amd64", "linux/arm64,linux/s390x,unknown/unknown", None),
        ("linux/amd64", "windows/amd64", None),
        ("linux/amd64", "unknown/unknown", None),
    ],
)
@pytest.mark.parametrize("version", ["1.2.6", "1.4.13", "1.5.18", "2.1.9"])
def test_an_index_with_nothing_for_the_host_is_refused_before_a_byte_moves(
    host: str, platforms: str, runs_from: tuple[int, int] | None, version: str
) -> None:
    found = facts(version, version, platform=Platform.parse(host))
    release = tuple(int(part) for part in version.split(".")[:2])
    if runs_from and release >= runs_from:
        fitness.refuse_other_platforms(image(platforms), found, "k8s.io")
        return
    with pytest.raises(errors.PlatformMissing, match=f"this host is {host}; nothing was moved") as caught:
        fitness.refuse_other_platforms(image(platforms), found, "k8s.io")
    first = Platform.parse(platforms.partition(",")[0])
    assert caught.value.hint.endswith(f"add --platform {first}" if first.os != "unknown" else "for this platform")


def test_another_namespace_may_have_it_where_ctr_can_import_it() -> None:
    foreign = image("linux/arm64")
    fitness.refuse_other_platforms(foreign, facts("1.4.13"), "spare")
    with pytest.raises(errors.PlatformMissing, match="is for linux/arm64"):
        fitness.refuse_other_platforms(foreign, facts("1.2.6"), "spare")


def test_a_single_manifest_for_another_platform_is_told_and_not_refused() -> None:
    single = image("linux/arm64", OCI_MANIFEST)
    fitness.refuse_other_platforms(single, facts(), "k8s.io")
    told = fitness.other_platform(single, facts())
    assert told == "r.example/app:1 is for linux/arm64; this host is linux/amd64"
    assert fitness.other_platform(image("unknown/unknown"), facts()).startswith(
        "r.example/app:1 has attestations alone"
    )


@pytest.mark.parametrize(
    ("server", "media_type", "able"),
    [
        ("1.4.13~ds1", ZSTD, False),
        ("v1.2.6", "application/vnd.docker.image.rootfs.diff.tar.zstd", False),
        ("1.4.13", ZSTD.replace("zstd", "gzip"), True),
        ("1.5.18", ZSTD, True),
        ("", ZSTD, True),  # no version: a recent one, most likely
    ],
)
def test_layers_with_zstd_are_refused_where_containerd_cannot_unpack_them(
    server: str, media_type: str, able: bool
) -> None:
    blobs = [Descriptor(OCI_MANIFEST, D, 3), Descriptor(media_type, D, 4)]
    if able:
        fitness.refuse_zstd("r.example/app:1", blobs, facts(server=server))
        return
    with pytest.raises(errors.MethodUnsupported, match="layers with zstd; nothing was moved"):
        fitness.refuse_zstd("r.example/app:1", blobs, facts(server=server))


def test_layers_with_zstd_are_refused_though_their_type_says_gzip_where_that_is_known() -> None:
    blobs = [Descriptor(ZSTD.replace("zstd", "gzip"), D, 4)]
    fitness.refuse_zstd("r.example/app:1", blobs, facts(server="1.5.18"), {D})
    with pytest.raises(errors.MethodUnsupported, match="layers with zstd"):
        fitness.refuse_zstd("r.example/app:1", blobs, facts(server="1.4.13"), {D})
