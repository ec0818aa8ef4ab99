"""A small image of two platforms, with the digests that its blobs really have."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ctr_ferry.ctr.listing import Image
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Platform

AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")
NAME = "r.example/app:1"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def listed(kind: str, data: bytes, platform: Platform | None = None) -> dict[str, Any]:
    where = {"platform": {"os": platform.os, "architecture": platform.architecture}} if platform else {}
    return {"mediaType": kind, "digest": digest(data), "size": len(data), **where}


def manifest(*blobs: bytes) -> bytes:
    config = listed("application/vnd.oci.image.config.v1+json", blobs[0])
    layers = [listed("blob", each) for each in blobs[1:]]
    return json.dumps({"config": config, "layers": layers}).encode()


BLOBS = [b"config of amd64", b"layer of amd64", b"config of arm64", b"layer of arm64"]
AMD64, ARM64 = manifest(*BLOBS[:2]), manifest(*BLOBS[2:])
INDEX = json.dumps({"manifests": [listed(OCI_MANIFEST, AMD64, AMD), listed(OCI_MANIFEST, ARM64, ARM)]}).encode()
IMAGE = Image(NAME, OCI_INDEX, digest(INDEX), "1 KiB", "linux/amd64,linux/arm64", frozenset())
ALL = {digest(data): data for data in (INDEX, AMD64, ARM64, *BLOBS)}
