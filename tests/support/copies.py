"""An image of two platforms, and the ctr of a host that receives the image, for tests without hosts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar, cast

from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.ingest import ImageBlobs
from ctr_ferry.ctr.listing import Image
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, Platform

AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def blob(number: int, kind: str = "layer", platform: Platform | None = None) -> Descriptor:
    return Descriptor(kind, digest(number), number * 10, platform)


def manifest(*blobs: Descriptor, config: str = "application/vnd.oci.image.config.v1+json") -> bytes:
    listed = [{"mediaType": b.media_type, "digest": b.digest, "size": b.size} for b in blobs]
    listed[0]["mediaType"] = config
    return json.dumps({"config": listed[0], "layers": listed[1:]}).encode()


def index(children: Mapping[Platform, Descriptor]) -> bytes:
    listed = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": child.digest,
            "size": child.size,
            "platform": {"os": platform.os, "architecture": platform.architecture},
        }
        for platform, child in children.items()
    ]
    return json.dumps({"manifests": listed}).encode()


class Two:
    """An image of two platforms: index 1, manifests 2 and 3, configs 4 and 5, layers 6 and 7."""

    top, amd, arm = blob(1, OCI_INDEX), blob(2, OCI_MANIFEST, AMD), blob(3, OCI_MANIFEST, ARM)
    documents: ClassVar = {
        digest(1): index({AMD: blob(2), ARM: blob(3)}),
        digest(2): manifest(blob(4), blob(6)),
        digest(3): manifest(blob(5), blob(7)),
    }

    @classmethod
    def content(cls, *visible: int) -> Content:
        return Content(frozenset(map(digest, visible)), dict(cls.documents))


def image(name: str = "r.example/app:1", number: int = 1, media_type: str = OCI_INDEX) -> Image:
    return Image(name, media_type, digest(number), "1 MiB", "linux/amd64,linux/arm64", frozenset())


CTR = Ctr(("ctr",), "/run/c.sock", Capabilities.of_version(cast(Version, Version.parse("1.6.20"))))
PLACE = Place(CTR, "k8s.io", "k8s.io", "/var/content", "ctr-ferry.20261124T000000Z-copy-12ab", cri_managed=True)
NEEDED = ImageBlobs((Two.top, Two.amd, blob(4), blob(6)), Two.documents)
