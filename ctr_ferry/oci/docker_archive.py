"""Archives of ``docker save``: manifest.json names the files of configs and layers, and there is no manifest."""

from __future__ import annotations

import gzip
import hashlib
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import IO

from ctr_ferry.errors import BadArchive
from ctr_ferry.oci import tar
from ctr_ferry.oci.archive_files import File, Files, Part, json_list, json_object, json_value
from ctr_ferry.oci.descriptor import DOCKER_MANIFEST
from ctr_ferry.oci.reference import is_digest

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


@dataclass(frozen=True, slots=True)
class DockerImage:
    """One image; ``manifest`` is what containerd would make for it."""

    tags: tuple[str, ...]
    config: File
    layers: tuple[File, ...]
    manifest: bytes


def images(files: Files, file: IO[bytes]) -> Iterator[DockerImage]:
    """Yields every image after checking the digests of its config and layers; raises BadArchive if one is wrong.

    Args:
        file: the archive, from which compressed layers are read once more.
    """
    plain = cache(lambda layer: _plain_digest(Part(file, layer)))  # images share layers
    for each in json_list(json_value(files.document("manifest.json"), "manifest.json"), "manifest.json"):
        if not isinstance(each, dict):
            raise BadArchive("manifest.json lists something that is no image")
        name = str(each.get("Config", ""))
        config, document = files.named(name), files.document(name)
        layers = [files.named(str(layer)) for layer in json_list(each.get("Layers"), "the layers in manifest.json")]
        diff_ids = _diff_ids(document)
        claimed = f"sha256:{posixpath.basename(name).removesuffix('.json')}"
        if is_digest(claimed) and claimed != config.digest:
            raise BadArchive("a config is not what its name says", detail=f"{name}\n{config.digest}")
        _check_layers(name, diff_ids, layers, plain)
        tags = json_list(each.get("RepoTags") or [], "the tags in manifest.json")
        yield DockerImage(
            tags=tuple(str(tag) for tag in tags),
            config=config,
            layers=tuple(layers),
            manifest=_docker_manifest(config, layers),
        )


def _diff_ids(config: bytes) -> list[str]:
    root = json_object(config, "a config").get("rootfs")
    return [str(each) for each in json_list(root.get("diff_ids") or [] if isinstance(root, dict) else None, "diff_ids")]


def _check_layers(name: str, diff_ids: list[str], layers: list[File], plain: Callable[[File], str]) -> None:
    """Checks that a config lists the digests of the uncompressed layers; ``plain`` uncompresses one."""
    if len(diff_ids) != len(layers):
        raise BadArchive(f"an image has {len(layers)} layers, and its config {len(diff_ids)}", detail=name)
    for diff_id, layer in zip(diff_ids, layers, strict=True):
        found = plain(layer) if layer.packed else layer.digest
        if diff_id != found:
            raise BadArchive(
                "a layer is not the one that its image's config lists",
                detail=f"config {diff_id}\nlayer  {found}",
                hint="the archive was damaged or changed: copy or save it again",
            )


def _docker_manifest(config: File, layers: Iterable[File]) -> bytes:
    """Makes the manifest that containerd 1.4 to 2.1 make of such an archive, byte for byte, so the digests are equal.

    (If containerd has a compressed form of a layer already, it uses that form, and its digest is another one.)
    """

    def descriptor(media_type: str, file: File) -> dict[str, object]:
        return {"mediaType": media_type, "digest": file.digest, "size": file.size}

    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor(DOCKER_CONFIG, config),
        "layers": [descriptor(DOCKER_LAYER + (".gzip" if layer.packed else ""), layer) for layer in layers],
    }
    return json.dumps(manifest, separators=(",", ":")).encode()


def _plain_digest(part: Part) -> str:
    try:
        digest = hashlib.file_digest(gzip.GzipFile(fileobj=part), "sha256")  # type: ignore[call-overload]
    except tar.BROKEN as error:
        raise BadArchive("a compressed layer is broken", detail=str(error)) from error
    return f"sha256:{digest.hexdigest()}"
