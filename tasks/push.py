"""``push``: each host pushes an image to a registry, and the registry is asked afterwards what it has.

All hosts inspect image and registry before any host pushes. A name that would get several digests, or that points at
another digest already, is refused then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ctr_ferry.errors import (
    Drift,
    FerryError,
    NotStarted,
    UsageError,
)
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.report.answers import grouped
from ctr_ferry.report.outcome import Result, Status
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.text import names

if TYPE_CHECKING:
    from ctr_ferry.registry.push import PushJob, PushRequest
    from ctr_ferry.registry.results import PushResult
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.ssh.target import Target


def parse(
    *,
    ref: str | None = None,
    as_: str | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    namespace: str | None = None,
    force: bool = False,
) -> PushRequest:
    """Turns the options into a request; raises UsageError or BadReference where an option is wrong."""
    from ctr_ferry.registry.push import PushRequest

    if not ref:
        raise UsageError("push needs --ref REF", hint="fab -H node1 push --ref registry.example/app:1")
    source = None if is_digest(ref) else Reference.parse(ref)
    if not as_ and (source is None or source.digest):
        raise UsageError(
            f"--ref {ref} is a digest, which may have several names on a host",
            hint="give the name in the registry with --as",
        )
    target = Reference.parse(as_) if as_ else None
    if target and target.digest:
        raise UsageError(f"--as {as_} has a digest", hint="give a name with a tag and no digest")
    return PushRequest(
        ref=ref,
        target=target,
        platform=options.platform(platform, every=all_platforms),
        all_platforms=all_platforms,
        namespace=options.namespace(namespace),
        force=force,
    )


def before(request: PushRequest, targets: Sequence[Target]) -> None:
    """Checks the logins before any host is touched; raises UsageError where one is missing, or cannot be used."""
    from ctr_ferry.oci.registry import Registries
    from ctr_ferry.registry import credentials

    name = request.target or Reference.parse(request.ref)  # a digest has a target
    credentials.check({target.variables_of(Registries).named(name.domain) for target in targets})


@fleet_wide(
    parse,
    before=before,
    help={
        "ref": "The image as the host has it: a name, its short form, or a digest.",
        "as_": "The name in the registry (default: the image's own); the host keeps no further name.",
        "platform": "Push this platform's manifest of a multi-platform image, such as linux/arm64.",
        "all_platforms": "Push all platforms or nothing (default: the host's own where others are not there).",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "force": "Move a name that the registry has already to the digest that is pushed.",
    },
)
def push(fleet: Fleet, request: PushRequest) -> dict[str, Result | FerryError]:
    """Push an image from each host to a registry, and ask the registry what it has then."""
    from ctr_ferry.registry.push import PushJob

    jobs: dict[str, PushJob] = {}
    alone = len(fleet.hosts) == 1

    def inspect_image(host: Host) -> PushResult:
        jobs[host.name] = PushJob(host, request, alone=alone)
        return jobs[host.name].result(Status.OK)  # a run that is interrupted now reports no change

    def verify(host: Host) -> Result:
        answer = pushed[host.name]
        if isinstance(answer, FerryError):
            raise answer
        return jobs[host.name].verify(answer)

    answers: dict[str, Result | FerryError] = dict(fleet.each(inspect_image, close=False, looks=True))
    for name, error in _conflicts(jobs).items():
        answers[name] = fleet.answers[name] = error
        fleet.hosts[name].mark_failed()
    once = alone or any(host.dry_run for host in fleet)
    pushed = fleet.each(lambda host: jobs[host.name].run(), close=once)
    if once:
        return answers | pushed
    again = fleet.each(verify, done=pushed)
    return answers | pushed | {name: answer for name, answer in again.items() if not isinstance(answer, NotStarted)}


def _conflicts(jobs: Mapping[str, PushJob]) -> dict[str, Drift]:
    """An error for every host whose name in the registry would get another digest from another host."""
    goals = grouped((str(job.transfer.reference), (job.pushed.target.digest, host)) for host, job in jobs.items())
    errors = {}
    for reference, goal in goals.items():
        digests = grouped(goal)
        if len(digests) == 1:
            continue
        detail = "\n".join(f"{digest} on {names(hosts, every=True)}" for digest, hosts in digests.items())
        for _, host in goal:
            errors[host] = Drift(
                f"{reference} would get {len(digests)} digests from these hosts; nothing was pushed",
                detail=detail,
                hint="push from the hosts of one digest, or from each host under a name of its own with --as",
            )
    return errors
