"""Archives of ``docker save``: manifest.json names the files of configs and layers, and there is no manifest."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, cast

from ctr_ferry.errors import BadArchive
from ctr_ferry.oci import tar
from ctr_ferry.oci.archive_files import CUT, File, Files, Part, json_list, json_object, json_value
from ctr_ferry.oci.descriptor import DOCKER_MANIFEST
from ctr_ferry.oci.reference import is_digest

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


@dataclass(frozen=True, slots=True)
class DockerImage:
    """One image; ``manifest`` is what containerd would make for it.

    Attributes:
        name: the config's name in the archive, for messages.
        diff_ids: the digests of the uncompressed layers, as the config lists them; None if it lists none.
    """

    name: str
    tags: tuple[str, ...]
    config: File
    layers: tuple[File, ...]
    diff_ids: tuple[str, ...] | None
    manifest: bytes


def images(files: Files) -> Iterator[DockerImage]:
    """Yields every image that manifest.json lists; `check` compares digests. Raises BadArchive if a file is absent."""
    listed = json_list(json_value(files.document("manifest.json"), "manifest.json"), "manifest.json")
    if not all(isinstance(each, dict) for each in listed):
        raise BadArchive("manifest.json lists something that is no image")
    named = {name: files.json_named(name) for name in (str(each.get("Config", "")) for each in listed)}
    documents = files.documents(named.values())
    diff_ids = {digest: _diff_ids(raw) for digest, raw in documents.items()}  # images may share a config
    for each in listed:
        name = str(each.get("Config", ""))
        config = named[name]
        layers = [files.named(str(layer)) for layer in json_list(each.get("Layers"), "the layers in manifest.json")]
        yield DockerImage(
            name=name,
            tags=tuple(str(tag) for tag in json_list(each.get("RepoTags") or [], "the tags in manifest.json")),
            config=config,
            layers=tuple(layers),
            diff_ids=diff_ids[config.digest],
            manifest=_docker_manifest(config, layers),
        )


def _diff_ids(config: bytes) -> tuple[str, ...] | None:
    root = json_object(config, "a config").get("rootfs")
    found = (root.get("diff_ids") or []) if isinstance(root, dict) else None
    return tuple(map(str, found)) if isinstance(found, list) else None


def unpack(images: Iterable[DockerImage], file: IO[bytes], plain: dict[str, str]) -> None:
    """Finds the digests of uncompressed layers; reads the compressed ones once more, all of them in one go.

    Args:
        file: the archive.
        plain: the digests that are known already, by the layer's digest; gets those that are found.

    Raises:
        BadArchive: a layer cannot be read.
    """
    layers = {layer.digest: layer for image in images for layer in image.layers if layer.digest not in plain}
    stream = tar.Stream(file)
    for layer in sorted(layers.values(), key=lambda layer: layer.offset):
        plain[layer.digest] = _plain_digest(stream, layer) if layer.packed in tar.READ else layer.digest


def check(image: DockerImage, plain: Mapping[str, str]) -> None:
    """Checks that a config has the digest of its name, and lists the digests of the uncompressed layers.

    Args:
        plain: what `unpack` found.

    Raises:
        BadArchive: a digest is another one, or a layer is compressed otherwise.
    """
    claimed = f"sha256:{posixpath.basename(image.name).removesuffix('.json')}"
    if is_digest(claimed) and claimed != image.config.digest:
        raise BadArchive("a config is not what its name says", detail=f"{image.name}\n{image.config.digest}")
    if image.diff_ids is None:
        raise BadArchive("a config does not list its image's layers", detail=image.name, hint=CUT)
    if len(image.diff_ids) != len(image.layers):
        raise BadArchive(
            f"an image has {len(image.layers)} layers, and its config {len(image.diff_ids)}", detail=image.name
        )
    for diff_id, layer in zip(image.diff_ids, image.layers, strict=True):
        found = plain[layer.digest]
        if diff_id != found and layer.packed not in ("", *tar.READ):
            raise BadArchive(
                f"a layer is compressed with {layer.packed}, which containerd does not take",
                detail=layer.digest,
                hint="save the image with layers that are plain, or compressed with gzip or zstd",
            )
        if diff_id != found:
            raise BadArchive(
                "a layer is not the one that its image's config lists",
                detail=f"config {diff_id}\nlayer  {found}",
                hint="the archive was damaged or changed: copy or save it again",
            )


def _docker_manifest(config: File, layers: Iterable[File]) -> bytes:
    """Makes the manifest that containerd 1.4 to 2.1 make of such an archive, byte for byte, so the digests are equal.

    Layers with zstd get gzip's type, too: who unpacks them goes by their first bytes (seen on 1.6 and 1.7).
    (If containerd has a compressed form of a layer already, it uses that form, and its digest is another one.)
    """

    def descriptor(media_type: str, file: File) -> dict[str, object]:
        return {"mediaType": media_type, "digest": file.digest, "size": file.size}

    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor(DOCKER_CONFIG, config),
        "layers": [descriptor(DOCKER_LAYER + (".gzip" if layer.packed in tar.READ else ""), layer) for layer in layers],
    }
    return json.dumps(manifest, separators=(",", ":")).encode()


def _plain_digest(stream: tar.Stream, layer: File) -> str:
    with tar.unpacking("a layer"):
        data = tar.unpacked(cast("IO[bytes]", Part(stream, layer)), layer.packed)
        return f"sha256:{hashlib.file_digest(data, 'sha256').hexdigest()}"  # type: ignore[arg-type]
