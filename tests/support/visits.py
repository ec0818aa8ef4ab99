"""A host's answers to `doctor`, for unit tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ctr_ferry import errors
from ctr_ferry.ctr import health
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.health import Finding, Visit
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.shell import Answer

D = f"sha256:{'a' * 64}"
RUN = "ctr-ferry.20260101T000000Z-retag-dead"
MINE = "ctr-ferry.20260102T000000Z-doctor-1234"
STAGE = f"r.example:5000/a/b:ctr-ferry.20260101T000000Z-pull-dead@{D}"
MARK = "ferry-0123456789abcdef"


def answer(text: str = "", stderr: str = "", exit: int = 0) -> Answer:
    return Answer(exit, text.encode(), stderr)


def facts(client: str = "1.6.20", server: str = "1.6.20", **more: Any) -> Facts:
    version = Version.parse(client)
    capabilities = Capabilities.of_version(version) if version else Capabilities.of_help("tag ")
    made = Facts(
        sudo=False,
        ctr=Ctr(("ctr",), "/x.sock", capabilities),
        client=client,
        server=server,
        sockets=("/x.sock",),
        namespaces=("k8s.io",),
        listings={},
        cri=True,
        content_root="/root/content",
        platform=Platform.parse("linux/amd64"),
    )
    return replace(made, **more)


DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a b {size} 1 {free} 9% /va r\n"


def visit(found: Facts | errors.HostError | None = None, **answers: str) -> Visit:
    texts = {
        "host": "root\nx86_64\nsudo=\n",
        "path": "/usr/bin/ctr\n",
        "leftovers": "namespace k8s.io\nimages 3\n",
        "files": "",
        "space": DF.format(size=1000, free=500),
        "sessions": "1\n",
        "clock": "1000\n",
    }
    steps = {name: answer(text) for name, text in (texts | answers).items()}
    return Visit(found or facts(), steps, began=1000.2, ended=1000.9, login="root@h:22")


def finding(visit: Visit, what: str) -> Finding:
    (found,) = [each for each in health.findings(visit) if each.check == what]
    return found
