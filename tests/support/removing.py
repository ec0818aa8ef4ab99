"""A host that answers `remove` by the names that a test says it has."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retagging import A, image, table

from ctr_ferry.ctr.commands import CRI_MANAGED, Ctr
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.target import Limits, Target
from tasks.remove import RemoveResult, Request, apply, plan

CONFIG, LAYERS = (f"sha256:{letter * 64}" for letter in "de")
ONE, TWO = "r.example/app:1", "r.example/app:2"


def record(name: str = CONFIG, digest: str = A) -> Image:
    return image(name, digest, CRI_MANAGED)


@dataclass
class FakeHost:
    """A namespace that obeys `images rm`."""

    images: list[Image]
    containers: str = ""
    snapshots: str = ""
    content: str = ""
    namespace: str = "k8s.io"
    stubborn: Sequence[str] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    name: str = "n"
    run_id: str = "20260101T000000Z-abcd"
    dry_run: bool = False
    failed: bool = False
    scripts: list[Script] = field(default_factory=list)

    @property
    def target(self) -> Any:
        return Target("n", "n", limits=Limits(probe=1), variables={Settings: Settings(namespace=self.namespace)})

    def facts(self, namespaces: Sequence[str]) -> Facts:
        version = Version.parse("1.6.20")
        assert version
        return Facts(
            sudo=False,
            ctr=Ctr(("ctr",), "/x.sock", Capabilities.of_version(version)),
            client="1.6.20",
            server="1.6.20",
            sockets=("/x.sock",),
            namespaces=tuple(namespaces),
            listings={name: Listing(name, tuple(self.images)) for name in namespaces},
            cri=True,
            content_root="/root",
            platform=Platform.parse("linux/amd64"),
        )

    def ask(self, script: Script, **_: object) -> dict[str, Answer]:
        self.scripts.append(script)
        return {name: self.answers.get(name) or self._answer(name, text) for name, text in script.steps.items()}

    def _answer(self, name: str, text: str) -> Answer:
        if name == "remove":
            going = shlex.split(text.split("images rm --sync ")[1].partition("||")[0])
            self.images = [i for i in self.images if i.name not in going or i.name in self.stubborn]
        if name == "after":
            return table(*self.images)
        texts = {"containers": "CONTAINER IMAGE RUNTIME\n" + self.containers}
        texts |= {"snapshots": "KEY PARENT KIND\n" + self.snapshots, "content": "DIGEST\n" + self.content}
        return Answer(0, texts.get(name, "").encode(), "")

    def mark_failed(self) -> None:
        self.failed = True


def run(host: Any, **options: Any) -> RemoveResult:
    return apply(host, plan(host, Request(**options)))


def statuses(result: RemoveResult) -> dict[str, Status]:
    return {name.reference: name.status for name in result.images}
