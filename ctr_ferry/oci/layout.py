"""OCI image layouts as small archives (image-spec, image-layout.md).

An *index-only* archive has ``oci-layout`` and ``index.json`` and no blob. ``ctr images import`` of it gives names to
content that the namespace already has, in constant time, with every ctr from 1.0 to 2.3 (measured).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ctr_ferry.oci import tar
from ctr_ferry.oci.descriptor import OCI_INDEX, Descriptor, Manifest

NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_VERSION = {"imageLayoutVersion": "1.0.0"}


def index_only(named: Iterable[tuple[str, str, Descriptor]]) -> bytes:
    """Builds an index-only archive: a few KiB of tar, always the same bytes for the same names.

    Args:
        named: full name, ref name and target of each image. The ref name must be the full name from ctr 1.2 on. For
            1.0 and 1.1 it must be the tag; the command line of import has the repository.
    """
    return _file("oci-layout", _VERSION) + _file("index.json", _index(named)) + tar.END


def documents(images: Sequence[tuple[str, Descriptor, Manifest | None]]) -> dict[str, bytes]:
    """Builds the files of an archive besides its blobs, by name.

    Args:
        images: name and target of each image, and its manifest for `docker load`, which knows no index, takes one
            platform, and refuses names with a digest; None for nothing that docker loads.
    """
    tags: dict[tuple[Descriptor, ...], list[str]] = {}
    for name, _, manifest in images:
        if manifest:
            tags.setdefault(manifest.blobs, []).extend([] if "@" in name else [name])
    docker = [
        {"Config": blob_path(config.digest), "RepoTags": names, "Layers": [blob_path(each.digest) for each in layers]}
        for (config, *layers), names in tags.items()
    ]
    index = _index((name, name, target) for name, target, _ in images)
    found = {"oci-layout": _VERSION, "index.json": index, "manifest.json": docker}
    return {name: _json(document) for name, document in found.items()}


def blob_path(digest: str) -> str:
    """Returns the path of a blob in a layout."""
    return f"blobs/{digest.replace(':', '/')}"


def around(blob: Descriptor) -> tuple[bytes, bytes]:
    """Returns the bytes that turn a blob into an archive without images: those before the blob and those behind it."""
    head = _file("oci-layout", _VERSION) + tar.header(blob_path(blob.digest), blob.size)
    return head, tar.padding(blob.size) + _file("index.json", {"schemaVersion": 2, "manifests": []}) + tar.END


def _file(name: str, document: object) -> bytes:
    data = _json(document)
    return tar.header(name, len(data)) + data + tar.padding(len(data))


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _index(named: Iterable[tuple[str, str, Descriptor]]) -> dict[str, object]:
    manifests = [_entry(full, ref, target) for full, ref, target in named]
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}


def _entry(full: str, ref: str, target: Descriptor) -> dict[str, object]:
    entry: dict[str, object] = {
        "mediaType": target.media_type,
        "digest": target.digest,
        "size": target.size,
        "annotations": {NAME: full, REF_NAME: ref},
    }
    if target.platform:
        platform = {"os": target.platform.os, "architecture": target.platform.architecture}
        variant = {"variant": target.platform.variant} if target.platform.variant else {}
        entry["platform"] = platform | variant
    return entry
