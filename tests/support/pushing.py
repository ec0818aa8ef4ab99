"""Small images for the tests of `fab push` on the fleet."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import replace

import pytest

from lab.fleet import Fleet
from lab.images import NATIVE, BuiltImage, Descriptor, build

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


def with_foreign_layer(built: BuiltImage) -> tuple[BuiltImage, str]:
    """Return an image of one platform whose first layer is a foreign one instead, and that layer's digest."""
    manifest = json.loads(bytes(built.blobs[built.target.digest]))
    layer = manifest["layers"][0]
    layer |= {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar", "urls": ["https://invalid/layer"]}
    raw = json.dumps(manifest).encode()
    target = Descriptor(f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw), built.target.media_type)
    blobs = {digest: blob for digest, blob in built.blobs.items() if digest != built.target.digest}
    return replace(built, target=target, blobs={**blobs, target.digest: raw}), str(layer["digest"])


def with_layers_thrice(image: BuiltImage) -> BuiltImage:
    """Return the image with each of its layers three times, as images with empty layers have them."""
    config, manifest = (json.loads(bytes(image.blobs[each])) for each in (image.configs[NATIVE], image.target.digest))
    config["rootfs"]["diff_ids"] *= 3
    raw = json.dumps(config).encode()
    manifest["layers"] *= 3
    manifest["config"] |= {"digest": f"sha256:{hashlib.sha256(raw).hexdigest()}", "size": len(raw)}
    top = json.dumps(manifest).encode()
    target = replace(image.target, digest=f"sha256:{hashlib.sha256(top).hexdigest()}", size=len(top))
    layers = {digest: image.blobs[digest] for digest in image.layers[NATIVE]}
    return BuiltImage(
        target,
        {NATIVE: target.digest},
        {NATIVE: manifest["config"]["digest"]},
        image.layers,
        {**layers, manifest["config"]["digest"]: raw, target.digest: top},
    )
