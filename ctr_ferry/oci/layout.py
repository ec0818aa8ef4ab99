"""OCI image layouts as small archives (image-spec, image-layout.md).

An *index-only* archive has ``oci-layout`` and ``index.json`` and no blob. ``ctr images import`` of it gives names to
content that the namespace already has, in constant time, with every ctr from 1.0 to 2.1 (measured).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctr_ferry.oci import tar
from ctr_ferry.oci.descriptor import OCI_INDEX, Descriptor, Manifest

NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"


def index_only(named: Iterable[tuple[str, str, Descriptor]]) -> bytes:
    """Builds an index-only archive.

    Args:
        named: full name, ref name and target of each image. The ref name must be the full name from ctr 1.2 on. For
            1.0 and 1.1 it must be the tag; the command line of import has the repository.

    Returns:
        A few KiB of tar, always the same bytes for the same names.
    """
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_entry(full, ref, target) for full, ref, target in named],
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, "oci-layout", {"imageLayoutVersion": "1.0.0"})
        _add(tar, "index.json", index)
    # tarfile pads to records of 10 KiB. Two blocks of zeros are enough, and every byte here is sent as text.
    return buffer.getvalue().rstrip(b"\0").ljust(_round_up(len(buffer.getvalue().rstrip(b"\0"))), b"\0") + bytes(1024)


@dataclass(frozen=True, slots=True)
class Saved:
    """An image that is to be written into an archive.

    Attributes:
        manifest: for `docker load`, which knows no index and takes one platform.
    """

    name: str
    target: Descriptor
    manifest: Manifest


def documents(images: Sequence[Saved]) -> dict[str, bytes]:
    """Builds the files of an archive besides its blobs, by name; manifest.json is for `docker load`."""
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_entry(image.name, image.name, image.target) for image in images],
    }
    tags: dict[tuple[Descriptor, ...], list[str]] = {}
    for image in images:
        tags.setdefault(image.manifest.blobs, []).append(image.name)
    docker = [
        {"Config": blob_path(config.digest), "RepoTags": names, "Layers": [blob_path(each.digest) for each in layers]}
        for (config, *layers), names in tags.items()
    ]
    found = {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": index, "manifest.json": docker}
    return {name: _json(document) for name, document in found.items()}


def blob_path(digest: str) -> str:
    """Returns the path of a blob in a layout."""
    return f"blobs/{digest.replace(':', '/')}"


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def around(blob: Descriptor) -> tuple[bytes, bytes]:
    """Returns the bytes that turn a blob into an archive without images: those before the blob and those behind it."""
    algorithm, _, value = blob.digest.partition(":")
    version, index = b'{"imageLayoutVersion":"1.0.0"}', b'{"schemaVersion":2,"manifests":[]}'
    head = _file("oci-layout", version) + tar.header(f"blobs/{algorithm}/{value}", blob.size)
    return head, tar.padding(blob.size) + _file("index.json", index) + tar.END


def _file(name: str, data: bytes) -> bytes:
    return tar.header(name, len(data)) + data + tar.padding(len(data))


def _entry(full: str, ref: str, target: Descriptor) -> dict[str, object]:
    entry: dict[str, object] = {
        "mediaType": target.media_type,
        "digest": target.digest,
        "size": target.size,
        "annotations": {NAME: full, REF_NAME: ref},
    }
    if target.platform:
        entry["platform"] = {
            "os": target.platform.os,
            "architecture": target.platform.architecture,
            **({"variant": target.platform.variant} if target.platform.variant else {}),
        }
    return entry


def _add(tar: tarfile.TarFile, name: str, document: object) -> None:
    data = _json(document)
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def _round_up(length: int) -> int:
    return -(-length // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
