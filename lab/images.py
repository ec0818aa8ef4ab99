"""A small image builder. It makes images with given layers and platforms, which containerd imports and runs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform as machine
import random
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from lab import debian
from lab.fleet import CACHE, LabError, Node

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine.machine(), machine.machine())
NATIVE = f"linux/{ARCHITECTURE}"
APPLETS = ("sh", "echo", "true", "cat", "ls", "sleep", "uname")
STEP = 1 << 20
Media = Literal["oci", "docker"]

OCI = {
    "index": "application/vnd.oci.image.index.v1+json",
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "layer": "application/vnd.oci.image.layer.v1.tar",
    "layer+gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
}
DOCKER = {
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "layer": "application/vnd.docker.image.rootfs.diff.tar",
    "layer+gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


@dataclass(frozen=True)
class Descriptor:
    """A blob's digest, exact size and media type."""

    digest: str
    size: int
    media_type: str

    def json(self) -> dict[str, Any]:
        """Return the descriptor as a manifest or an index has it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class BuiltImage:
    """An image on this machine.

    Attributes:
        target: the descriptor that the image's names point at.
        manifests, configs, layers: digests by platform.
        blobs: every blob by digest: layers as files, all others as bytes.
    """

    target: Descriptor
    manifests: Mapping[str, str]
    configs: Mapping[str, str]
    layers: Mapping[str, tuple[str, ...]]
    blobs: Mapping[str, Path | bytes]

    def size(self, digest: str) -> int:
        """Return the size of one blob in bytes."""
        blob = self.blobs[digest]
        return len(blob) if isinstance(blob, bytes) else blob.stat().st_size

    def of(self, *platforms: str) -> set[str]:
        """Return the digests of all blobs of `platforms`, and the target's digest."""
        found = {self.target.digest}
        for name in platforms:
            found |= {self.manifests[name], self.configs[name], *self.layers[name]}
        return found

    def write_archive(
        self,
        file: IO[bytes],
        names: Sequence[str],
        blobs: Collection[str] | None = None,
        *,
        bare_tags: bool = False,
    ) -> None:
        """Write the image as an OCI layout in a tar, front to back.

        Args:
            file: the file to write; may be a pipe.
            names: the full references that an import gives the image.
            blobs: the digests of the blobs to write; None is all.
            bare_tags: whether the annotation is the tag alone, as ctr up to 1.1 needs it.
        """
        index = {"schemaVersion": 2, "manifests": [self._entry(name, bare_tags) for name in names]}
        with tarfile.open(fileobj=file, mode="w|", bufsize=STEP) as tar:
            _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            for digest, blob in self.blobs.items():
                if blobs is None or digest in blobs:
                    _add(tar, f"blobs/{digest.replace(':', '/')}", blob)
            _add(tar, "index.json", json.dumps(index).encode())

    def _entry(self, name: str, bare_tags: bool) -> dict[str, Any]:
        """Return the entry of index.json that gives the image this name."""
        if bare_tags:
            annotations = {"org.opencontainers.image.ref.name": _split(name)[1]}
        else:
            annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
        return {**self.target.json(), "annotations": annotations}


def build(
    folder: Path,
    *,
    layers: Sequence[int] = (1000,),
    platforms: Sequence[str] = (NATIVE,),
    media: Media = "oci",
    index: bool | None = None,
    gzip: bool | None = None,
    seed: int = 0,
    cmd: Sequence[str] = ("/bin/sh",),
    busybox: Path | None = None,
) -> BuiltImage:
    """Build an image around Debian's static busybox. The same arguments give the same digests.

    Args:
        folder: the folder for the layers, which are written as blobs/sha256/HEX.
        layers: for each layer, the size of its incompressible file in bytes.
        platforms: such as linux/amd64 and linux/arm64. Each platform gets layers of its own.
        media: OCI's or Docker's (schema 2) media types.
        index: whether the target is an index; by default, it is one if there are several platforms.
        gzip: whether layers are compressed; by default, Docker's are and OCI's are not.
        seed: another seed gives other content.
        cmd: the default command of a container.
        busybox: the static busybox to use; by default the one in the lab's cache.

    Raises:
        debian.Unavailable: the cache has no busybox yet.
    """
    types = DOCKER if media == "docker" else OCI
    packed = media == "docker" if gzip is None else gzip
    program = busybox or debian.busybox(CACHE)
    blobs: dict[str, Path | bytes] = {}
    entries, configs, layer_digests = {}, {}, {}
    for platform in platforms:
        made = [
            _layer(folder, _files(place, size, f"{seed} {platform} {place}", platform, program), packed)
            for place, size in enumerate(layers)
        ]
        described = [
            Descriptor(digest, path.stat().st_size, types["layer+gzip" if packed else "layer"])
            for digest, _, path in made
        ]
        blobs |= {digest: path for digest, _, path in made}
        config = _blob(blobs, _config(platform, [diff for _, diff, _ in made], cmd), types["config"])
        manifest = {
            "schemaVersion": 2,
            "mediaType": types["manifest"],
            "config": config.json(),
            "layers": [layer.json() for layer in described],
        }
        entries[platform] = _blob(blobs, manifest, types["manifest"])
        configs[platform] = config.digest
        layer_digests[platform] = tuple(layer.digest for layer in described)
    target = next(iter(entries.values()))
    if index or (index is None and len(entries) > 1):
        children = [{**entry.json(), "platform": _platform(name)} for name, entry in entries.items()]
        listing = {"schemaVersion": 2, "mediaType": types["index"], "manifests": children}
        target = _blob(blobs, listing, types["index"])
    manifests = {name: entry.digest for name, entry in entries.items()}
    return BuiltImage(target, manifests, configs, layer_digests, blobs)


def seed_image(
    node: Node,
    image: BuiltImage,
    names: Sequence[str],
    namespace: str = "k8s.io",
    blobs: Collection[str] | None = None,
) -> None:
    """Import an image on a node, with the ctr of its own containerd and the flags of that version.

    Args:
        node: a node that is up.
        image: the image to import.
        names: the full references that the image gets.
        namespace: containerd's namespace.
        blobs: the digests of the blobs that the node gets; None is all. The import must succeed with them.

    Raises:
        LabError: the import failed; the text has ctr's error.
    """
    major, minor, *_ = node.real_version.lstrip("v").split(".")
    version = int(major), int(minor)
    if version < (1, 2):
        for name in names:
            repository = _split(name)[0]
            _stream(node, image, [name], namespace, blobs, "--oci-name", repository, bare_tags=True)
        return
    flags = []
    if version >= (1, 3) and (blobs is None or set(image.blobs) <= set(blobs)):
        if set(image.manifests) != {NATIVE}:
            flags.append("--all-platforms")
        if NATIVE not in image.manifests:
            flags.append("--no-unpack")
    _stream(node, image, names, namespace, blobs, *flags)


def _stream(
    node: Node,
    image: BuiltImage,
    names: Sequence[str],
    namespace: str,
    blobs: Collection[str] | None,
    *flags: str,
    bare_tags: bool = False,
) -> None:
    """Pipe an image's archive into `ctr images import` on the node; raise LabError."""
    argv = node.argv(node.real_ctr_argv("images", "import", *flags, "-", namespace=namespace))
    with (
        tempfile.TemporaryFile() as detail,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=detail) as ctr,
    ):
        assert ctr.stdin
        with contextlib.suppress(BrokenPipeError):  # ctr's stderr says why it stopped reading
            image.write_archive(ctr.stdin, names, blobs, bare_tags=bare_tags)
            ctr.stdin.close()
        if ctr.wait():
            detail.seek(0)
            raise LabError(f"{node.name}: import of {names}: {detail.read().decode(errors='replace').strip()}")


def _split(name: str) -> tuple[str, str]:
    """Return repository and tag of a full reference."""
    repository, _, tag = name.rpartition(":")
    return repository, tag


def _blob(blobs: dict[str, Path | bytes], document: Mapping[str, Any], media_type: str) -> Descriptor:
    """Add a JSON document to `blobs`; return its descriptor."""
    data = json.dumps(document, separators=(",", ":")).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    blobs[digest] = data
    return Descriptor(digest, len(data), media_type)


def _platform(name: str) -> dict[str, str]:
    """Return a platform such as linux/arm/v7 in the form of an index or a config."""
    return dict(zip(("os", "architecture", "variant"), name.split("/"), strict=False))


def _config(platform: str, diff_ids: Sequence[str], cmd: Sequence[str]) -> dict[str, Any]:
    """Return an image's config document."""
    return {
        "created": "2024-01-01T00:00:00Z",
        **_platform(platform),
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": list(cmd)},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "lab"} for _ in diff_ids],
    }


Member = tuple[tarfile.TarInfo, Any]


def _files(place: int, size: int, seed: str, platform: str, busybox: Path) -> Iterator[Member]:
    """Yield the files of layer number `place`. Layer 0 has the programs."""
    if place == 0:
        for name in ("bin", "data", "etc", "tmp"):
            yield _member(name, kind=tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755), None
        with busybox.open("rb") as program:
            yield _member("bin/busybox", size=busybox.stat().st_size, mode=0o755), program
        for name in APPLETS:
            yield _member(f"bin/{name}", kind=tarfile.SYMTYPE, link="busybox"), None
        text = f"{platform}\n".encode()
        yield _member("etc/platform", size=len(text)), io.BytesIO(text)
    yield _member(f"data/layer-{place}", size=size), _Noise(size, seed)


def _member(
    name: str, *, kind: bytes = tarfile.REGTYPE, size: int = 0, mode: int = 0o644, link: str = ""
) -> tarfile.TarInfo:
    """Return a tar header that is the same on every machine."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.linkname, info.mtime = kind, size, mode, link, 1704067200
    return info


def _layer(folder: Path, members: Iterator[Member], packed: bool) -> tuple[str, str, Path]:
    """Write one layer below `folder` as a stream; return its digest, its diff id and its file."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=blobs, delete=False) as file:
        sink = _Sink(file, packed)
        with tarfile.open(fileobj=sink, mode="w|", bufsize=STEP, format=tarfile.USTAR_FORMAT) as tar:
            for info, data in members:
                tar.addfile(info, data)
        sink.finish()
    digest = sink.stored.hexdigest()
    path = Path(file.name).rename(blobs / digest)
    path.chmod(0o644)
    return f"sha256:{digest}", f"sha256:{sink.plain.hexdigest()}", path


class _Sink(io.RawIOBase):
    """A file that hashes what goes through it, before and after compression."""

    def __init__(self, file: Any, packed: bool) -> None:
        self.file = file
        self.stored = hashlib.sha256()
        self.plain = hashlib.sha256() if packed else self.stored
        # Noise does not shrink. gzip at level 0 has the right form and takes almost no time.
        self.packer = zlib.compressobj(0, wbits=31) if packed else None

    def writable(self) -> bool:
        """Return True: the file can be written."""
        return True

    def write(self, data: Any) -> int:
        """Write plain bytes."""
        if self.packer:
            self.plain.update(data)
        self._store(self.packer.compress(data) if self.packer else data)
        return len(data)

    def finish(self) -> None:
        """Write what the compressor still has."""
        if self.packer:
            self._store(self.packer.flush())

    def _store(self, data: bytes) -> None:
        """Write bytes, compressed if they are to be, and hash them."""
        self.stored.update(data)
        self.file.write(data)


class _Noise(io.RawIOBase):
    """A file of `size` incompressible bytes that depend only on `seed`. A read makes its bytes."""

    def __init__(self, size: int, seed: str) -> None:
        self.size, self.place = size, 0
        self.block = bytearray(random.Random(seed).randbytes(STEP))

    def readable(self) -> bool:
        """Return True: the file can be read."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes, or all that are left."""
        left = self.size - self.place
        wanted = left if size is None or size < 0 else min(size, left)
        parts = []
        while wanted:
            number, start = divmod(self.place, STEP)
            # The blocks differ in a number only: fresh noise is slow, and gzip looks back 32 KiB, less than a block.
            self.block[:8] = number.to_bytes(8, "big")
            parts.append(bytes(self.block[start : start + wanted]))
            self.place += len(parts[-1])
            wanted -= len(parts[-1])
        return b"".join(parts)


def _add(tar: tarfile.TarFile, name: str, blob: Path | bytes) -> None:
    """Add a file or bytes to a tar under `name`."""
    if isinstance(blob, bytes):
        tar.addfile(_member(name, size=len(blob)), io.BytesIO(blob))
    else:
        with blob.open("rb") as file:
            tar.addfile(_member(name, size=blob.stat().st_size), file)
