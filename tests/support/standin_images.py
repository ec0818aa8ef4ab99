"""The images and archives that the records of ctr 1.2.6 were made with, rebuilt."""

import gzip
import io
import json
import random
import tarfile
from collections.abc import Callable
from functools import cached_property
from typing import Any

from archives import NAME as A
from archives import REF as R
from archives import digest

NAME = "localhost:5101/facts/"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

Blobs = dict[str, bytes]


def descriptor(media_type: str, data: bytes, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


class Images:
    """The images and archives that the records were made with, rebuilt: other bytes, the same shape.

    Blobs are known by roles, such as `a.1` for layer 1 of image a. Where ctr goes by the order of digests, the
    rebuilt ones are in the order of the recorded ones.
    """

    def __init__(self) -> None:
        self.random = random.Random()  # new bytes each time: nothing of an earlier run is in the store

    def layers(self, count: int) -> list[bytes]:
        return sorted((self._layer() for _ in range(count)), key=digest)

    def _layer(self) -> bytes:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            data = self.random.randbytes((1 << 20) + 64)
            info = tarfile.TarInfo(self.random.randbytes(4).hex())
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        return gzip.compress(raw.getvalue(), 1, mtime=0)

    def image(self, role: str, layers: list[bytes], architecture: str = "amd64") -> Blobs:
        """A manifest, its config (338 bytes with three layers, as recorded) and its layers."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest(gzip.decompress(layer)) for layer in layers]},
            "author": self.random.randbytes(2).hex(),
        }
        config_blob = json.dumps(config, separators=(", ", ": ")).encode()
        config_blob += b" " * (338 - len(config_blob))
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config_blob),
            "layers": [descriptor(LAYER, layer) for layer in layers],
        }
        blobs = {f"{role}.{number}": layer for number, layer in enumerate(layers)}
        return {**blobs, f"{role}.c": config_blob, f"{role}.m": json.dumps(manifest).encode()}

    @cached_property
    def a(self) -> Blobs:
        """Layer 1 has the smallest digest of all."""
        smallest, middle, greatest = self.layers(3)
        while True:
            image = self.image("a", [greatest, smallest, middle])
            if min(map(digest, image.values())) == digest(smallest):
                return image

    @cached_property
    def multi(self) -> Blobs:
        """Before the first blob that only arm64 has (its manifest aside) come that manifest and a layer."""
        first, second, third, fourth = self.layers(4)
        while True:
            amd = self.image("m.amd", [fourth, first])
            arm = self.image("m.arm", [second, third], "arm64")
            platforms = [{"os": "linux", "architecture": architecture} for architecture in ("amd64", "arm64")]
            children = [
                descriptor(MANIFEST, blob, platform=platform)
                for blob, platform in zip((amd["m.amd.m"], arm["m.arm.m"]), platforms, strict=True)
            ]
            index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).encode()
            blobs = {**amd, **arm, "m.i": index}
            order = sorted(blobs, key=lambda role: digest(blobs[role]))
            if set(order[:2]) == {"m.arm.m", "m.amd.1"} and order[2] == "m.arm.0":
                return blobs

    @cached_property
    def blobs(self) -> Blobs:
        """All blobs by role."""
        shared = self.layers(3)
        later = self.image("d1", [*shared, *self.layers(1)])
        one = {"x": 1, "y": 1}
        singles = {role: self.layers(1)[0] for role in one}
        sizes = {"g": 200_000, "r1": 100_000, "r2": 100_000}
        return {
            **self.a,
            **self.multi,
            **self.image("b", self.layers(2)),
            **self.image("by", self.layers(3)),
            **self.image("u", self.layers(1)),
            **self.image("d0", [*shared, *self.layers(1)]),
            **later,
            **singles,
            **{role: self.random.randbytes(size) for role, size in sizes.items()},
        }

    @cached_property
    def roles(self) -> dict[str, str]:
        """Roles by digest."""
        return {digest(blob): role for role, blob in reversed(self.blobs.items())}

    def of(self, *images: str) -> Blobs:
        return {role: blob for role, blob in self.blobs.items() if role.rpartition(".")[0] in images}

    def entry(self, role: str, name: str = "", ref: str = "") -> dict[str, Any]:
        """A line of index.json: the blob with the annotations A and R."""
        notes = {key: value for key, value in ((A, name), (R, ref)) if value}
        more = {"annotations": notes} if notes else {}
        return descriptor(INDEX if role == "m.i" else MANIFEST, self.blobs[role], **more)

    def archive(self, name: str) -> bytes:
        """One of the archives by its recorded name."""
        whole = self._with_one_full_name()
        return self.full(*whole[name]) if name in whole else self._others()[name]()

    def _with_one_full_name(self) -> dict[str, tuple[str, str, Blobs]]:
        """Name in both annotations, role of what it points at, and blobs, by the archive's recorded name."""
        of = self.of
        arm_manifest = {"m.arm.m": self.blobs["m.arm.m"]}
        swapped = {"a.0": b"not what its digest says" + bytes(1000)}
        return {
            "arm.tar": ("arm:1", "m.arm.m", of("m.arm")),
            "badblob.tar": ("bad:1", "a.m", {**of("a"), **swapped}),
            "bb-a.tar": ("byblob:1", "a.m", {}),
            "bb-by.tar": ("byblob:1", "by.m", {}),
            "d0.tar": ("d:0", "d0.m", of("d0")),
            "delta.tar": ("d:1", "d1.m", {role: self.blobs[role] for role in ("d1.3", "d1.c", "d1.m")}),
            "full.tar": ("a:1", "a.m", of("a")),
            "manifest-only.tar": ("monly:1", "a.m", {"a.m": self.blobs["a.m"]}),
            "mini-abs.tar": ("retag:2", "b.m", {}),
            "mini.tar": ("retag:2", "a.m", {}),
            "mini2.tar": ("retag:3", "a.m", {}),
            "mr.tar": ("m:retag", "m.i", {}),
            "multi.tar": ("m:1", "m.i", of("m", "m.amd", "m.arm")),
            "noplat.tar": ("a:1", "a.m", of("a")),
            "other.tar": ("a:1", "b.m", of("b")),
            "part.tar": ("mp:1", "m.i", of("m", "m.amd")),
            "part2.tar": ("mp2:1", "m.i", {**of("m", "m.amd"), **arm_manifest}),
            "setup-a-1.tar": ("a:1", "a.m", of("a")),
        }

    def _others(self) -> dict[str, Callable[[], bytes]]:
        """All other archives, made when they are called."""
        of, entry, full = self.of, self.entry, self.full
        return {
            "cn-and-tag.tar": lambda: self.tar([entry("a.m", NAME + "a:1", "1")], of("a")),
            "cn-only.tar": lambda: self.tar([entry("a.m", NAME + "a:1")], of("a")),
            "conflict.tar": lambda: self.tar([entry("a.m", NAME + "fromcn:1", NAME + "fromref:1")], of("a")),
            "cut.tar": lambda: full("a:1", "a.m", of("a"))[: -(1 << 20) - 600_000],
            "empty.tar": lambda: b"",
            "full.tar.gz": lambda: gzip.compress(full("a:1", "a.m", of("a")), 1),
            "fullref.tar": lambda: self.tar([entry("a.m", "", NAME + "a:1")], of("a")),
            "garbage.tar": lambda: self.random.randbytes(100_000),
            "last.tar": lambda: full("a:1", "a.m", of("a"), last=True),
            "noann.tar": lambda: self.tar([entry("a.m")], of("a")),
            "nolayout.tar": lambda: full("a:1", "a.m", of("a"), layout=False),
            "tagref.tar": lambda: self.tar([entry("a.m", "", "1")], of("a")),
            "text.tar": lambda: b"no archive at all\n" * 100,
            "two.tar": lambda: self.tar(
                [entry("a.m", NAME + "a:1", NAME + "a:1"), entry("b.m", NAME + "b:1", NAME + "b:1")], of("a", "b")
            ),
            "twoname.tar": lambda: self.tar(
                [entry("a.m", NAME + f"a:{tag}", NAME + f"a:{tag}") for tag in "12"], of("a")
            ),
            "twotag.tar": lambda: self.tar([entry("a.m", "", "t1"), entry("b.m", "", "t2")], of("a", "b")),
            "ub.tar": lambda: full("bad:u", "u.m", {**of("u"), "u.0": self.layers(1)[0]}),
        }

    def full(self, name: str, role: str, blobs: Blobs, *, last: bool = False, layout: bool = True) -> bytes:
        """An archive with one full name in both annotations."""
        return self.tar([self.entry(role, NAME + name, NAME + name)], blobs, last=last, layout=layout)

    def tar(self, entries: list[dict[str, Any]], blobs: Blobs, *, last: bool = False, layout: bool = True) -> bytes:
        index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        head = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'} if layout else {}
        head["index.json"] = index
        body = {
            "blobs/sha256/" + digest(self.blobs[role]).removeprefix("sha256:"): blob for role, blob in blobs.items()
        }
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for name, data in (body | head if last else head | body).items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return raw.getvalue()
