"""Descriptors, platforms, manifests and indexes (OCI image-spec 1.1, docker schema 2)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ctr_ferry.text import shown_name

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
DOCUMENTS = INDEXES | MANIFESTS  # entries of an index with other types are blobs like layers to containerd
SCHEMA_1 = frozenset({f"application/vnd.docker.distribution.manifest.v1+{form}" for form in ("json", "prettyjws")})
# Docker before 1.10 wrote application/octet-stream, which containerd's pull takes for an image's config, or nothing.
IMAGE_CONFIGS = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
        "application/octet-stream",
        "",
    }
)

# `uname -m` against Go's GOARCH and variant, where they differ (containerd platforms/database.go).
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "loongarch64": ("loong64", ""),
}
_DEFAULT_VARIANTS = {("arm64", "v8"), ("amd64", "v1"), ("arm", "v7")}
MOST = (1 << 63) - 1  # bytes, the largest size: an int64 as in image-spec
_FOREIGN = ("application/vnd.docker.image.rootfs.foreign.", "application/vnd.oci.image.layer.nondistributable.")
_LONGEST = 256  # characters of a media type, of a digest, or of a part of a platform


@dataclass(frozen=True, slots=True)
class Platform:
    """``os/architecture[/variant]``; the default variants arm64/v8, amd64/v1 and arm/v7 are left out."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Parses ``linux/amd64`` or ``linux/arm/v7``.

        Raises:
            ValueError: it has not two or three non-empty parts.
        """
        parts = text.strip().lower().split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(f"{text!r} is no platform: give os/architecture, such as linux/amd64")
        return cls(*parts)._plain()

    @classmethod
    def of_machine(cls, machine: str) -> Platform:
        """Returns the platform of a Linux host whose ``uname -m`` prints ``machine``."""
        architecture, variant = _MACHINES.get(machine, (machine, ""))
        return cls("linux", architecture, variant)._plain()

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Platform:
        """Parses the ``platform`` object of a descriptor; characters other than visible ASCII are escaped.

        Raises:
            ValueError: a part of it is no text, or too long.
        """
        parts = (data.get("os"), data.get("architecture"), data.get("variant"))
        return cls(*(shown_name(_word(part or "")) for part in parts))._plain()

    @classmethod
    def of_config(cls, raw: bytes) -> Platform | None:
        """Returns the platform that an image's config tells; None if it tells none, or is no config."""
        try:
            document = json.loads(raw)
            return cls.of_json(document) if document["os"] and document["architecture"] else None
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
            return None

    def takes(self, other: Platform) -> bool:
        """Whether containerd runs the other platform's images on this one (`platforms.Only`); variants do not count."""
        instead = {("arm64", "arm"), ("amd64", "386")}
        same = self.architecture == other.architecture
        return self.os == other.os and (same or (self.architecture, other.architecture) in instead)

    def runs(self, other: Platform, *, substitutes: bool) -> bool:
        """Whether containerd on this platform takes the other one's manifest of an index (`platforms.Only`).

        Args:
            substitutes: whether it also takes 386 on amd64, and arm on arm64.
        """
        if self.os != other.os or self.architecture != other.architecture:
            return substitutes and self.takes(other)
        if self.architecture == "arm":
            return (other.variant or "v7") <= (self.variant or "v7")
        return self.variant == other.variant

    def _plain(self) -> Platform:
        if (self.architecture, self.variant) in _DEFAULT_VARIANTS:
            return Platform(self.os, self.architecture)
        return self

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to a blob: media type, digest, exact size in bytes, and the platform if an index tells it."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Descriptor:
        """Parses a descriptor of an index or manifest.

        Raises:
            ValueError: digest or size are absent, or a value has the wrong type.
        """
        try:
            platform = data.get("platform")
            return cls(
                media_type=_word(data.get("mediaType") or ""),
                digest=_word(data["digest"]),
                size=_size(data["size"]),
                platform=Platform.of_json(platform) if platform else None,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a descriptor: {ascii(data)[:_LONGEST]}") from error

    @property
    def is_index(self) -> bool:
        """Whether the blob is an index, by its media type."""
        return self.media_type in INDEXES

    @property
    def is_zstd(self) -> bool:
        """Whether the blob is a layer that is compressed with zstd, by its media type."""
        return self.media_type.endswith(("+zstd", ".zstd"))

    @property
    def is_foreign(self) -> bool:
        """Whether the blob is a layer that whoever made it does not let others distribute, by its media type."""
        return self.media_type.startswith(_FOREIGN)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index points at (``children``, its manifests) or a manifest (``blobs``, config and layers), in order."""

    children: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """Parses a manifest or an index; raises ValueError if it is neither."""
        try:
            data = json.loads(raw)
        except RecursionError as error:
            raise ValueError("its JSON is nested too deeply") from error
        if not isinstance(data, dict):
            raise ValueError("neither a manifest nor an index")
        if data.get("manifests") is not None and data.get("config") is not None:
            raise ValueError("both a manifest and an index")
        if "manifests" in data and data.get("config") is None:
            return cls(children=tuple(Descriptor.of_json(d) for d in _list(data["manifests"])))
        if "config" in data:
            return cls(blobs=tuple(Descriptor.of_json(d) for d in (data["config"], *_list(data.get("layers")))))
        raise ValueError("neither a manifest nor an index")

    @property
    def is_artifact(self) -> bool:
        """Whether it is the manifest of an artifact: its config is no image's config. containerd cannot unpack it."""
        return bool(self.blobs) and self.blobs[0].media_type not in IMAGE_CONFIGS

    def child_for(self, platform: Platform) -> Descriptor | None:
        """Returns the index's manifest for exactly this platform, the first of several; None if there is none."""
        return next((child for child in self.children if child.platform == platform), None)


def _word(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError(f"a text of at most {_LONGEST} characters is expected")
    return value


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MOST:
        raise ValueError(f"an integer from 0 to {MOST} is expected")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value or [], list):
        raise ValueError("a list is expected")
    return value or []
