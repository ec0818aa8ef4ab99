"""Hosts and a fleet that only list and check images, for unit tests of the commands that report what hosts have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ctr_ferry import errors
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.oci.descriptor import OCI_MANIFEST, Platform
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.target import Limits, Target

A, B, CONFIG, C = (f"sha256:{letter * 64}" for letter in "abcd")
APP = "old.example/app:1"
AMD64 = {"os": "linux", "architecture": "amd64"}
INDEX = json.dumps({"manifests": [{"mediaType": OCI_MANIFEST, "digest": B, "size": 5, "platform": AMD64}]}).encode()


def image(name: str = APP, digest: str = A, media_type: str = OCI_MANIFEST) -> Image:
    return Image(name, media_type, digest, "3.0 MiB", "linux/amd64", frozenset())


def listed(images: Sequence[Image]) -> Answer:
    rows = [f"{i.name} {i.media_type} {i.digest} {i.size} {i.platforms} -" for i in images]
    return Answer(0, "\n".join(["REF TYPE DIGEST SIZE PLATFORMS LABELS", *rows, ""]).encode(), "")


@dataclass
class FakeHost:
    """Answers from the images that it has, by socket and namespace; keeps the scripts that it was sent."""

    images: Mapping[str, Sequence[Image]]
    name: str = "n"
    run_id: str = "20260101T000000Z-abcd"
    version: str = "1.6.20"
    cri: bool = False
    others: Mapping[str, Mapping[str, Sequence[Image]]] = field(default_factory=dict)
    status: str = "complete (4/4)"
    unpacked: bool = True
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    failed: bool = False
    scripts: list[Script] = field(default_factory=list)
    target: Target = field(default_factory=lambda: Target("n", "n", limits=Limits(probe=1)))

    def facts(self, namespaces: Sequence[str]) -> Facts:
        parsed = Version.parse(f"ctr github.com/containerd/containerd v{self.version}")
        assert parsed
        return Facts(
            sudo=False,
            ctr=Ctr(("ctr",), "/x.sock", Capabilities.of_version(parsed)),
            client=parsed.text,
            server=parsed.text,
            sockets=("/x.sock", *self.others),
            namespaces=tuple(self.images),
            listings={name: Listing(name, tuple(self.images.get(name, ()))) for name in namespaces},
            cri=self.cri,
            content_root="/root",
            platform=Platform.parse("linux/amd64"),
        )

    def ask(self, script: Script, **_: object) -> dict[str, Answer]:
        self.scripts.append(script)
        return {name: self._answer(text.split()) for name, text in script.steps.items()}

    def mark_failed(self) -> None:
        self.failed = True

    def _answer(self, words: list[str]) -> Answer:
        held = {"/x.sock": self.images, **self.others}[words[words.index("--address") + 1]]
        if "namespaces" in words:
            return Answer(0, "\n".join(held).encode(), "")
        if words[-3:] == ["content", "ls", "-q"]:
            return Answer(0, "\n".join(self.blobs).encode(), "")
        if "get" in words:
            data = self.blobs.get(words[words.index("get") + 1])
            return Answer(0 if data else 1, data or b"", "" if data else "not found")
        here = held[words[words.index("--namespace") + 1]]
        if "check" not in words:
            return listed(here)
        rows = [f"{i.name} {i.media_type} {i.digest} {self.status} 3.0 MiB/3.0 MiB {self.unpacked}" for i in here]
        return Answer(0, "\n".join(["REF TYPE DIGEST STATUS SIZE UNPACKED", *rows, ""]).lower().encode(), "")


class FakeFleet:
    """Hosts that work one after the other."""

    dry_run = False

    def __init__(self, **hosts: FakeHost | errors.FerryError) -> None:
        self.hosts = {n: h if isinstance(h, errors.FerryError) else replace(h, name=n) for n, h in hosts.items()}

    def each(self, work: Callable[[Any], Any]) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        for name, host in self.hosts.items():
            try:
                answers[name] = host if isinstance(host, errors.FerryError) else work(host)
            except errors.FerryError as error:
                answers[name] = error
        return answers
