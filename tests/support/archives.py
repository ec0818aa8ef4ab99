"""Small archives, good and bad ones, for tests of `load` and of the tar reader."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from ctr_ferry.oci import archive, tar
from ctr_ferry.oci.descriptor import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

REF = "org.opencontainers.image.ref.name"
NAME = "io.containerd.image.name"


def digest(data: bytes) -> str:
    """Return the digest of a blob."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def path(data: bytes) -> str:
    """Return a blob's path in an OCI layout."""
    return f"blobs/{digest(data).replace(':', '/')}"


def as_json(document: Any) -> bytes:
    """Return a document as JSON, in bytes."""
    return json.dumps(document).encode()


def tarred(files: Mapping[str, bytes] | list[tuple[str, bytes]], *, end: bytes = tar.END) -> bytes:
    """Return a tar of files, in the order given."""
    pairs = files.items() if isinstance(files, Mapping) else files
    return b"".join(tar.header(name, len(data)) + data + tar.padding(len(data)) for name, data in pairs) + end


def linked(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> bytes:
    """Return the header of a tar member that is a link."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info.tobuf(tarfile.GNU_FORMAT)


def gzipped(data: bytes) -> bytes:
    """Return the data compressed, always to the same bytes."""
    return gzip.compress(data, mtime=0)


@dataclass
class Image:
    """An image of one platform. Its layers are plain tars, or compressed if it is `packed`."""

    layers: tuple[bytes, ...] = (tarred({"etc/a": b"a"}), tarred({"etc/b": b"b" * 3000}))
    platform: dict[str, str] = field(default_factory=lambda: {"os": "linux", "architecture": "amd64"})
    packed: bool = False
    pack: Callable[[bytes], bytes] = gzipped

    @property
    def config(self) -> bytes:
        """The config."""
        return as_json({**self.platform, "rootfs": {"type": "layers", "diff_ids": [digest(d) for d in self.layers]}})

    @property
    def stored(self) -> list[bytes]:
        """The layers as blobs."""
        return [self.pack(layer) if self.packed else layer for layer in self.layers]

    @property
    def manifest(self) -> bytes:
        """The manifest, OCI's."""
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if self.packed else "")
        return as_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": described(self.config, "application/vnd.oci.image.config.v1+json"),
                "layers": [described(layer, kind) for layer in self.stored],
            }
        )

    @property
    def blobs(self) -> dict[str, bytes]:
        """All files below blobs/."""
        return {path(blob): blob for blob in (self.config, *self.stored, self.manifest)}

    def entry(self, **annotations: str) -> dict[str, Any]:
        """Return the image's entry in an index."""
        return {**described(self.manifest, OCI_MANIFEST), "annotations": annotations}

    def layout(self, **annotations: str) -> dict[str, bytes]:
        """Return the files of an OCI layout."""
        return layout(self.blobs, self.entry(**annotations))

    def saved(self, *tags: str) -> dict[str, bytes]:
        """Return the files of an archive of `docker save` before docker wrote OCI layouts."""
        config = f"{digest(self.config)[7:]}.json"
        layers = {f"layer{n}/layer.tar": layer for n, layer in enumerate(self.stored)}
        listed = [{"Config": config, "RepoTags": list(tags) or None, "Layers": list(layers)}]
        return {config: self.config, **layers, "manifest.json": as_json(listed)}

    @property
    def docker_manifest(self) -> bytes:
        """The manifest that containerd makes of `saved`."""
        layer = "application/vnd.docker.image.rootfs.diff.tar" + (".gzip" if self.packed else "")
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": described(self.config, "application/vnd.docker.container.image.v1+json"),
            "layers": [described(each, layer) for each in self.stored],
        }
        return json.dumps(document, separators=(",", ":")).encode()


def described(blob: bytes, media_type: str) -> dict[str, Any]:
    """Return a blob's descriptor."""
    return {"mediaType": media_type, "digest": digest(blob), "size": len(blob)}


def layout(blobs: Mapping[str, bytes], *entries: Any) -> dict[str, bytes]:
    """Return the files of an OCI layout."""
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', **blobs, "index.json": as_json(index)}


def index_of(*images: Image) -> tuple[bytes, dict[str, Any]]:
    """Return an index of several platforms, and its entry in index.json, with a name."""
    return listing(*({**described(i.manifest, OCI_MANIFEST), "platform": i.platform} for i in images))


def listing(*children: dict[str, Any], name: str = "r.example/both:1") -> tuple[bytes, dict[str, Any]]:
    """Return an index that lists what is described, and its entry in index.json, with a name."""
    raw = as_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})
    return raw, {**described(raw, OCI_INDEX), "annotations": {NAME: name}}


def read_whole(file: IO[bytes]) -> archive.Archive:
    """Read an archive, and check all its images."""
    found, _ = archive.read(file, lambda found: found.check(found.entries, file))
    return found


def opened(data: bytes) -> io.BytesIO:
    """Return a file of these bytes."""
    return io.BytesIO(data)
