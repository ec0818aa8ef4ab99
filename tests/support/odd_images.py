"""Images that are rare, and artifacts, made from those of the lab."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from lab.images import OCI, BuiltImage, Descriptor


def _with_target(built: BuiltImage, document: dict[str, Any], media_type: str, *more: bytes) -> BuiltImage:
    raw = json.dumps(document).encode()
    target = Descriptor(_digest(raw), len(raw), media_type)
    return replace(built, target=target, blobs={**built.blobs, **{_digest(blob): blob for blob in (*more, raw)}})


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def nested(built: BuiltImage) -> BuiltImage:
    """Return an index that lists the image's index."""
    return _with_target(built, {"schemaVersion": 2, "manifests": [built.target.json()]}, OCI["index"])


def without_platforms(built: BuiltImage) -> BuiltImage:
    """Return the same index without the platforms, which the configs tell."""
    index = json.loads(bytes(built.blobs[built.target.digest]))
    listed = [{key: value for key, value in each.items() if key != "platform"} for each in index["manifests"]]
    return _with_target(built, index | {"manifests": listed}, built.target.media_type)


def artifact(seed: int) -> BuiltImage:
    """Return a chart."""
    config, chart = json.dumps({"name": f"chart{seed}", "version": "1"}).encode(), f"chart {seed}".encode()
    layer = Descriptor(_digest(chart), len(chart), "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    described = Descriptor(_digest(config), len(config), "application/vnd.cncf.helm.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": OCI["manifest"], "config": described.json(), "layers": [layer.json()]}
    empty = BuiltImage(target=layer, manifests={}, configs={}, layers={}, blobs={})
    return _with_target(empty, manifest, OCI["manifest"], config, chart)
