"""Small images for the tests of `fab push` on the fleet."""

from __future__ import annotations

import secrets

import pytest

from lab.fleet import Fleet
from lab.images import NATIVE, BuiltImage, build

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"


@pytest.fixture(scope="module", name="images")
def images_fixture(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltImage]:
    """Small images, of this module alone."""
    assert fleet.nodes
    folder, seed = tmp_path_factory.mktemp("images"), secrets.randbits(32)
    return {
        "plain": build(folder, layers=(1000, 2000), seed=seed),
        "index": build(folder, layers=(1000,), seed=seed + 1, platforms=(NATIVE, OTHER)),
        "part": build(folder, layers=(1000,), seed=seed + 2, platforms=(NATIVE, OTHER)),
    }


@pytest.fixture(scope="module", name="plain")
def plain_fixture(images: dict[str, BuiltImage]) -> BuiltImage:
    """An image of one platform."""
    return images["plain"]
