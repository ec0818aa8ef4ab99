"""Every text that can be sent to a host, for each set of capabilities: scripts in their guard, and command lines."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from records import DATA

from ctr_ferry.ctr import (
    checks,
    gc_protection,
    health,
    hosts_dir,
    ingest,
    leftovers,
    naming,
    probe,
    push_pull,
    sandbox,
    usage,
)
from ctr_ferry.ctr import remove as ctr_remove
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.ingest import ImageBlobs, Store
from ctr_ferry.ctr.leftovers import InNamespace
from ctr_ferry.ctr.listing import Image
from ctr_ferry.ctr.methods import ByArchive, ByBlobs, ByIndex, ByLink, ByTag, Naming
from ctr_ferry.ctr.mounts import Mounts
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.ctr.programs import SOCKETS
from ctr_ferry.ctr.push_pull import Route
from ctr_ferry.ctr.version import Capabilities
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.oci.registry import Registry
from ctr_ferry.registry import http
from ctr_ferry.registry.pull_plan import Move, PullPlan
from ctr_ferry.registry.push import PushJob
from ctr_ferry.registry.push_content import PushContent
from ctr_ferry.shell import Script
from ctr_ferry.ssh import guard
from ctr_ferry.ssh.terminal import open_terminal

ABILITIES = {
    **{version: Capabilities(**able) for version, able in json.loads((DATA / "capabilities.json").read_text()).items()},
    "unknown": Capabilities.of_help(""),
}
HARMLESS, NASTY = (
    "word",
    """it's a "word" $(false) `false` $HOME \\ ; & | > < * ? # ! ~ %s
-n {a,b} end""",
)
OWNER = "ctr-ferry.20261129T120000Z-12ab"
BOUNDARY, MARKER, DEVICE = "ferry-" + "0a" * 16, "ferry-" + "0a" * 8, "/dev/pts/3"
AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


TOP, CHILD = Descriptor(OCI_INDEX, digest(1), 10), Descriptor(OCI_MANIFEST, digest(2), 20)
LAYER, FAR = Descriptor("layer", digest(3), 30), Descriptor("layer", digest(4), 40)


class _Asked(Exception):
    """A host has got its script."""


@dataclass
class Recorder:
    """A host, and a channel to it, that write down what is sent and answer nothing."""

    run_id: str = "20261129T120000Z-12ab"
    proxy: str | None = None
    sent: list[Any] = field(default_factory=list)

    @property
    def target(self) -> Any:
        return SimpleNamespace(variables_of=lambda _: self, limits=SimpleNamespace(probe=1))

    def ask(self, script: Script, **_: object) -> None:
        self.sent.append(script)
        raise _Asked

    @contextlib.contextmanager
    def terminal(self, _: int) -> Iterator[Any]:
        yield SimpleNamespace(device=DEVICE, type=lambda _: None)

    def get_pty(self, **_: object) -> None:
        pass

    def exec_command(self, command: str) -> None:
        self.sent.append(command)
        raise _Asked

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Scripts:
    """All scripts for one ctr.

    Attributes:
        word: is a part of every name, path and value that is not checked before it comes into a script.
    """

    able: Capabilities
    word: str
    folder: Path

    @property
    def ctr(self) -> Ctr:
        return Ctr(
            (f"/opt/{self.word.splitlines()[0]}", self.word),
            f"/run/{self.word}.sock",
            self.able,
            f"snapshots {self.word}",
        )

    def place(self, from_namespace: str = "k8s.io", *, cri_managed: bool = True) -> Place:
        return Place(self.ctr, "k8s.io", from_namespace, f"/root/{self.word}", OWNER, cri_managed)

    def name(self, number: int = 0, **more: Any) -> Reference:
        return Reference("r.example", f"{self.word}/{number}", **{"tag": f"1{self.word}", **more})

    def questions(self) -> Iterator[Script]:
        """The probe with all that follows it, and what is asked later."""
        word, ctr, names = self.word, self.ctr, [str(self.name(n)) for n in range(2)]
        given = Settings(f"{word} ctr", f"/run/{word}.sock", word, f"/var/{word}", word)
        for settings in (Settings(), given):
            script = probe.script(settings, (word, "k8s.io"))
            yield probe.further(settings, ingest.questions(settings, word, names))
            for more in ({}, health.questions(settings), ingest.questions(settings, word, names)):
                yield replace(script, steps={**script.steps, **more})
        steps = [
            *(
                ctr.images(word, *names),
                ctr.document(word, digest(1)),
                ctr.document(word, digest(1), word),
                ctr.digests(word),
                checks.command(ctr, word),
            ),
            *(naming.check(self.place(), *names), ingest.read(ctr, word, word, LAYER), push_pull.SYSTEM_BUNDLE),
            *usage.questions(ctr, word).values(),
            *("ctr=k3s\n" + hosts_dir.question(given) for given in (None, f"/{word}/x")),
            hosts_dir.read(f"/{word}/x"),
            *(sandbox.question(replace(ctr, address=at), f"/{word}/x") for at in (ctr.address, *SOCKETS)),
            sandbox.sharing(ctr, f"/{word}/x"),
        ]
        yield Script({f"step-{n}": step for n, step in enumerate(steps)})

    def names(self, *, replaces: bool) -> Iterator[Script]:
        """Names that are new or that are moved, by each method, one and many."""
        here, far = self.place(), self.place(self.word)
        wanted: dict[str, Any] = {"target": TOP, "rest": {digest(1): (digest(2),)}, "only": ARM}
        source: dict[str, Any] = {"source": str(self.name(9)), "source_digest": digest(9), "source_stays": False}
        blobs: dict[str, Any] = {"blobs": (digest(1), digest(2)), "complete": True, "unpack": True, "pin": True}
        named: dict[str, Any] = {"name": self.name(), "replaces": replaces}
        made: list[tuple[Place, Naming]] = [
            (here, ByIndex(**named, **wanted)),
            (here, ByIndex(**named, target=CHILD, foreign=True)),
            (here, ByArchive(**named, **wanted, **source)),
            (far, ByArchive(**named, target=TOP, whole=True, **source)),
            (far, ByArchive(**named, target=TOP, **source, may_stream=False)),
            (far, ByLink(**named, **wanted, **source, links=(TOP, LAYER))),
            (far, ByLink(**named, target=TOP, **{**source, "source": str(self.name())})),
            (here, ByBlobs(**named, **wanted, **blobs)),
        ]
        if self.able.tag:
            made.append((here, ByTag(**named, source=str(self.name(9)), target_digest=digest(1))))
        for number, (place, each) in enumerate(made):
            yield naming.script(replace(place, cri_managed=replaces ^ bool(number % 2)), [each])
        if not replaces:
            yield naming.script(here, [ByIndex(name=self.name(n), target=TOP) for n in range(3)])

    def copies(self) -> Iterator[Script]:
        """The protection, and the intake of a blob."""
        labels = {digest(1): (f"containerd.io/gc.root.{self.word}",)}
        image = ImageBlobs((TOP, CHILD, LAYER, FAR), {digest(1): b"{}", digest(2): self.word.encode()})
        for store in (Store(), Store(frozenset(), frozenset({digest(4)}), labels, (self.word,))):
            yield gc_protection.protect(self.place(), [image, image], store)
        yield Script({"ingest": ingest.intake(self.place(), LAYER, 0).step})

    def routes(self) -> Iterator[Route]:
        registry, pem = Registry("r.example"), self.word.encode()
        yield Route(replace(registry, scheme="http"))
        yield Route(replace(registry, skip_verify=True), proxy=f"http://{self.word}")
        yield Route(registry, authorities=pem, owner=OWNER, hosts_dir=f"/{self.word}")
        proxy = f"http://{self.word}"
        yield Route(registry, self.word, pem, exclusive=True, proxy=proxy, owner=OWNER, terminal=DEVICE)

    def pushes(self) -> Iterator[Script]:
        """By name, one platform, and by a temporary name."""
        for route, method in zip(self.routes(), ("push", "stage", "platform", "stage"), strict=True):
            job = SimpleNamespace(
                transfer=SimpleNamespace(reference=self.name()),
                request=SimpleNamespace(foreign_layers=method == "push"),
                pushed=PushContent(CHILD, ARM),
                _method=method,
                image=SimpleNamespace(name=str(self.name(1))),
                place=self.place(),
                facts=SimpleNamespace(ctr=self.ctr, platform=AMD),
                here=SimpleNamespace(namespace=self.word),
            )
            yield PushJob._script(job, route)
            yield PushJob._script(job, route, Mounts(self.place(), self.name(), ((digest(1), "team/a,team/b"),)))

    def pulls(self) -> Iterator[Script]:
        """New names, moved ones, and names of which nobody knows the digest yet."""
        there = Image(str(self.name()), OCI_INDEX, digest(8), "1 MiB", "linux/amd64", frozenset())
        old = Descriptor(OCI_INDEX, digest(8), 80)
        new = PullPlan(self.place(), self.name(), digest(1), None, None, False, AMD)
        moved = replace(new, existing=there, move=Move(TOP, old))
        plans = [
            new,
            replace(new, wanted=None),
            moved,
            replace(moved, platform=ARM),
            replace(moved, all_platforms=True),
        ]
        plans += [
            replace(moved, move=Move(CHILD, None)),
            replace(new, existing=replace(there, digest=digest(1))),
        ]
        for plan, route in zip(plans, itertools.cycle(self.routes()), strict=False):
            yield plan.script(route)
        yield replace(new, place=self.place(cri_managed=False)).script(route)

    def requests(self) -> Iterator[Script]:
        """What the host's own curl or wget asks."""
        (self.folder / "ca").write_bytes(self.word.encode())
        registry, url = Registry("r.example", ca_file=str(self.folder / "ca")), f"https://r.example/{self.word}"
        ways = [(registry, None), (replace(registry, skip_verify=True), f"http://{self.word}")]
        for (way, proxy), method, login in (
            (w, m, a) for w in ways for m in ("GET", "HEAD", "POST") for a in (False, True)
        ):
            host = Recorder(proxy=proxy)
            with mock.patch.object(http, "context"), contextlib.suppress(_Asked):
                requests = http.Requests(host, way, limit=10, allow_curl=True)
                headers = {"Accept": self.word} | ({"Authorization": "Basic abc"} if login else {})
                if login:
                    requests.log_in()
                requests._by_curl(method, url, headers)
            yield from host.sent

    def removals(self) -> Iterator[Script]:
        """What `remove` and `doctor --clean` take away."""
        names = [str(self.name(n)) for n in range(2)]
        yield ctr_remove.script(self.ctr, self.word, names, [])
        yield ctr_remove.script(self.ctr, self.word, names, names)
        left = InNamespace(self.word, 1, names, [self.word], {digest(1): ["containerd.io/gc.root", self.word]})
        for found in (left, replace(left, namespace="k8s.io", labels={digest(1): [self.word]})):
            yield leftovers.clean(self.ctr, Settings(), [found], [f"/tmp/{self.word}"], OWNER)


def command_lines() -> Iterator[str]:
    """What sshd itself is asked to run."""
    boot = guard.bootstrap(MARKER, 1000)
    yield guard.as_login_user(boot)
    yield guard.as_root_if_needed(boot, probe.rights_check(Settings()))
    yield guard.through_sudo(boot)
    yield guard.through_sudo_with_password(boot, "prompt", f"{MARKER}-ready")
    channel = Recorder()
    with contextlib.suppress(_Asked), open_terminal(channel, 10, 1):
        pass
    yield from channel.sent


KINDS = {
    "questions": Scripts.questions,
    "new-names": partial(Scripts.names, replaces=False),
    "moved-names": partial(Scripts.names, replaces=True),
    "copies": Scripts.copies,
    "pushes": Scripts.pushes,
    "pulls": Scripts.pulls,
    "requests": Scripts.requests,
    "removals": Scripts.removals,
}


def texts(kind: str, folder: Path) -> Mapping[str, str]:
    """Returns the texts of one kind by the version of ctr and the word for which each was made first.

    Of texts that differ only in ctr's long options, there is one. Harmless words come with the oldest and the newest
    version and the unknown one: what they may be told of (a loop over one word) depends on no other version.
    """
    found: dict[str, str] = {}
    known = list(ABILITIES)
    for word, named, versions in ((HARMLESS, "harmless", [known[0], *known[-2:]]), (NASTY, "nasty", known)):
        for version in versions:
            for number, script in enumerate(KINDS[kind](Scripts(ABILITIES[version], word, folder))):
                text = guard.render(script, BOUNDARY, 60, stdin_is_data=kind == "copies").decode()
                if (alike := re.sub(r" '?--[a-z-]+(?=[ =\n])", "", text)) not in found:
                    found[alike] = f"{kind}-{number}-{version}-{named}\0{text}"
    return dict(each.split("\0", 1) for each in found.values())
