"""A host for unit tests of `retag`. The test says which images it has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from records import record

from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.images.retag import RetagJob, RetagResult
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Platform
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.target import Limits, Target
from tasks.retag import parse

A, B, CHILD, OTHER = (f"sha256:{letter * 64}" for letter in "abcd")
CONFIG = "sha256:" + "e" * 64
MANAGED = "io.cri-containerd.image=managed"
OLD, NEW = "old.example/app:1", "new.example/app:1"


def image(name: str, digest: str = A, *labels: str, media_type: str = OCI_MANIFEST) -> Image:
    platforms = "linux/amd64,linux/arm64" if media_type == OCI_INDEX else "linux/amd64"
    return Image(name, media_type, digest, "3.0 MiB", platforms, frozenset(labels))


def table(*images: Image) -> Answer:
    rows = [f"{i.name} {i.media_type} {i.digest} {i.size} {i.platforms} {','.join(i.labels) or '-'}" for i in images]
    return Answer(0, "\n".join(["REF TYPE DIGEST SIZE PLATFORMS LABELS", *rows, ""]).encode(), "")


MANIFEST = json.dumps({"config": {"digest": CONFIG, "size": 2}, "layers": []}).encode()
INDEX = json.dumps(
    {
        "manifests": [
            {"mediaType": OCI_MANIFEST, "digest": CHILD, "size": 5, "platform": {"os": "linux", "architecture": arch}}
            | ({"digest": OTHER} if arch == "arm64" else {})
            for arch in ("amd64", "arm64")
        ]
    }
).encode()


@dataclass
class FakeHost:
    """A host without a connection.

    Attributes:
        images: the images of the namespace k8s.io.
        elsewhere: the images of other namespaces.
        blobs: the content by digest.
        absent: digests in `blobs` that the content store does not list.
        there: digests that the destination's namespace has.
        answers: answers that replace the host's own, by step.
        scripts: all scripts that the host was asked to run.
    """

    images: Sequence[Image]
    version: str = "1.6.20"
    elsewhere: Mapping[str, Sequence[Image]] = field(default_factory=dict)
    blobs: Mapping[str, bytes] = field(default_factory=lambda: {A: MANIFEST, B: MANIFEST, CHILD: MANIFEST})
    absent: Sequence[str] = ()
    there: Sequence[str] = ()
    cri: bool = False
    dry_run: bool = False
    answers: dict[str, Answer | Callable[[str], Answer]] = field(default_factory=dict)
    scripts: list[Script] = field(default_factory=list)
    name: str = "node1"
    run_id: str = "20260101T000000Z-abcd"
    target: Target = field(default_factory=lambda: Target("n", "n", limits=Limits(probe=1)))

    def facts(self, namespaces: Sequence[str]) -> Facts:
        parsed = Version.parse(record(self.version, "--version").stdout)
        assert parsed
        all_of_it = {"k8s.io": self.images, **self.elsewhere}
        return Facts(
            sudo=False,
            ctr=Ctr(("ctr",), "/x.sock", Capabilities.of_version(parsed)),
            client=parsed.text,
            server=parsed.text,
            sockets=("/x.sock",),
            namespaces=tuple(all_of_it),
            listings={name: Listing(name, tuple(all_of_it.get(name, ()))) for name in namespaces},
            cri=self.cri,
            content_root="/root",
            platform=Platform.parse("linux/amd64"),
        )

    def survey(self, namespaces: Sequence[str], more: Mapping[str, str]) -> tuple[Facts, dict[str, Answer]]:
        return self.facts(namespaces), {name: self._answer(name, text) for name, text in more.items()}

    def ask(self, script: Script, **_: object) -> dict[str, Answer]:
        self.scripts.append(script)
        return {name: self._answer(name, text) for name, text in script.steps.items()}

    def _answer(self, name: str, text: str) -> Answer:
        if name in self.answers:
            answer = self.answers[name]
            return answer if isinstance(answer, Answer) else answer(text)
        lists = {
            "visible": {*self.blobs, CONFIG} - {*self.absent},
            "there": self.there,
            "kept": re.findall(r"echo (\d+)", text),
        }
        if name in lists:
            return Answer(0, "\n".join(lists[name]).encode(), "")
        if name.startswith("get-"):
            digest = text.partition(" | ")[0].rsplit(maxsplit=1)[-1]
            known = digest in self.blobs
            return Answer(
                0 if known else 1, self.blobs.get(digest, b""), "" if known else f"content digest {digest}: not found"
            )
        if name == "was":
            return table(*self.images)
        if name.startswith("in-"):
            return table(*self.elsewhere[text.split("--namespace ")[1].split(maxsplit=1)[0]])
        return Answer(0, b"", "")

    @property
    def steps(self) -> list[str]:
        return [name for script in self.scripts for name in script.steps]

    @property
    def removed(self) -> list[str]:
        texts = [text for script in self.scripts for name, text in script.steps.items() if name.startswith("rm-")]
        return [text.split()[-1] for text in texts]

    @property
    def changes(self) -> list[str]:
        """The text of every step that could change something."""
        verbs = (" tag ", " import ", " rm ", " ingest ", " label ")
        return [
            text for script in self.scripts for text in script.steps.values() if any(v in f"{text} " for v in verbs)
        ]


def retag(host: FakeHost, **options: object) -> RetagResult:
    if "to_registry" not in options and "map" not in options:
        options = {"src": OLD, "dst": NEW, **options}
    return RetagJob(host, parse(**options)).run()  # type: ignore[arg-type]


CROSSING = {"namespace": "default", "to_namespace": "k8s.io"}
WHOLE_INDEX = {A: INDEX, CHILD: MANIFEST, OTHER: MANIFEST}


def failing(text: str) -> Answer:
    return Answer(1, b"", f"ctr: {text}")
