"""Made-up answers of commands, and what a person sees of them: run as a program on a terminal.

``python shown_answers.py COMMAND [--wide]`` prints what the command would, with its recap.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ctr_ferry.ctr.health import Finding, Health
from ctr_ferry.delivery.results import DeliveredImage, DeliverResult
from ctr_ferry.delivery.results import tabulate as deliveries
from ctr_ferry.errors import ConnectTimeout, FerryError, ImageNotFound
from ctr_ferry.images.item import ImageResult
from ctr_ferry.images.retag import RetagResult
from ctr_ferry.report import render
from ctr_ferry.report.outcome import Outcome, Result, Status, Table, View
from ctr_ferry.report.past_runs import Run
from ctr_ferry.transfer.copy_result import CopiedImage, CopyResult
from tasks import check, doctor, images, show

DIGEST, OTHER = (f"sha256:{letters * 16}" for letters in ("0c32", "b2d6"))
OLD = "172.1.1.34:5000/library/cambricon-k8s-device-plugin:v1.1.3"
NEW = "docker-registry.i.demo/library/cambricon-k8s-device-plugin:v1.1.3"
LONG = f"registry.example:5000/a/repository/of/somebody/with/many/words/and-a-long-name@{DIGEST}"
NODES = [f"node{n}" for n in range(1, 7)]
GPUS = [f"gpu{n:02}" for n in range(1, 41)]
RUN = "20261124T031500Z-retag-1f2e"
STATE = {"namespace": "k8s.io", "digest": DIGEST, "complete": True, "unpacked": True, "platforms": ("linux/amd64",)}

Answers = dict[str, Result | FerryError]


def _images() -> tuple[Answers, Table]:
    names = {OLD: 3492563, NEW: 734, LONG: 10 << 30}
    rows = tuple(images.Row(reference=n, size=s, check="complete (4/4)", **STATE) for n, s in names.items())  # type: ignore[arg-type]
    answers: Answers = {host: images.ImagesResult(rows[: 2 + (host in GPUS)]) for host in NODES + GPUS}
    return answers, images.tabulate(answers)


def _check() -> tuple[Answers, Table]:
    state = {**STATE, "reference": NEW, "check": "complete (4/4)", "platform": "linux/amd64"}
    well = check.ChecksResult((check.CheckedImage(asked=NEW, verdict="same", **state),))  # type: ignore[arg-type]
    answers: Answers = dict.fromkeys(NODES + GPUS, well)
    answers["node5"] = ImageNotFound(
        f"no image {NEW} in namespace k8s.io of node5", hint=f"fab -H HOST pull --ref {NEW}"
    )
    return answers, check.tabulate(answers)


def _retag() -> tuple[Answers, None]:
    image = ImageResult(OLD, NEW, DIGEST, previous_digest=OTHER, method="index", status=Status.CHANGED)
    answers: Answers = {host: RetagResult("k8s.io", "k8s.io", "v1.2.6", "v1.2.6", (image,)) for host in NODES + GPUS}
    answers["node4"] = ImageNotFound(
        f"no image {OLD} in namespace k8s.io of node4", detail="ctr: not found", hint="look: fab -H HOST find --match x"
    )
    answers["node6"] = ConnectTimeout("node6 did not answer within 10 s")
    return answers, None


def _copy() -> tuple[Answers, None]:
    image = CopiedImage(OLD, NEW, DIGEST, method="blobs", status=Status.CHANGED, blobs=4, bytes=3492563, blobs_there=1)
    result = CopyResult("node1", "k8s.io", "1.6.20", "1.6.20", (image,), 3492563, 1.0, 3492563)
    return dict.fromkeys(NODES, result), None


def _deliver() -> tuple[Answers, Table]:
    def one(route: str, why: str, size: int) -> DeliveredImage:
        return DeliveredImage(NEW, NEW, DIGEST, status=Status.CHANGED, route=route, why=why, bytes=size, seconds=1.25)

    by_ssh, named = (
        one("ssh", "from node1: the registry lacks it, and no host that has it reaches the registry", 3492563),
        one("named", "all that it needs is on the host already", 0),
    )
    answers: Answers = {h: DeliverResult("k8s.io", "1.6.20", "1.6.20", (by_ssh,)) for h in GPUS}
    answers |= {h: DeliverResult("k8s.io", "1.6.20", "1.6.20", (named,)) for h in NODES}
    return answers, deliveries(answers)


def _doctor() -> tuple[Answers, Table]:
    found = (
        Finding("reachable", Health.OK, "root@node1:22"),
        Finding("containerd", Health.OK, "containerd 1.6.20 at /run/containerd/containerd.sock"),
        Finding("disk", Health.WARN, "1.2 GiB free of 50.0 GiB on /var/lib/containerd", "see: fab -H HOST run 'df -h'"),
    )
    answers: Answers = {host: doctor.DoctorResult(found) for host in NODES + GPUS}
    return answers, doctor.tabulate(answers)


COMMANDS = {each.__name__[1:]: each for each in (_images, _check, _retag, _copy, _deliver, _doctor)}


def _show() -> View:
    lines = [f"{OLD} -> {NEW}  (by ctr images tag, ctr 1.6.20)", f"  {DIGEST}"]
    outcomes = [{"host": host, "status": "changed", "seconds": 0.4, "lines": lines} for host in NODES + GPUS]
    command = {"command": "retag", "arguments": {"src": OLD, "dst": NEW}, "dry_run": False, "outcomes": outcomes}
    data: dict[str, Any] = {"id": RUN, "started": "2026-11-24T03:15:00Z", "ended": "2026-11-24T03:15:02Z", "pid": 1}
    data |= {"hosts": NODES + GPUS, "patterns": ["all"], "exit": 0, "commands": [command]}
    return View(data, text="\n".join(show._text(Run(data, Path()), data, None)))


def main(name: str, *options: str) -> None:
    """Prints what a person sees."""
    arguments = {"wide": "--wide" in options}
    if name == "show":
        render.table(render.Done("show", arguments, [], view=_show()))
        return
    answers, table = COMMANDS[name]()
    done = render.Done(name, arguments, [Outcome.of(host, 0.4, each) for host, each in answers.items()], table=table)
    render.table(done)
    render.recap([done], RUN)


if __name__ == "__main__":
    main(*sys.argv[1:])
