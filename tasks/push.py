"""``push``: each host pushes images to registries, and the registries are asked afterwards what they have.

All hosts inspect images and registries before any host pushes. A name that would get several digests, or that points at
another digest already, is refused then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from ctr_ferry import shell
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
    from ctr_ferry.registry.push import PushJob, PushRequest, PushSet
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.ssh.target import Target


def parse(
    *,
    ref: Sequence[str] | None = None,
    set_: Sequence[str] | None = None,
    as_: str | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    namespace: str | None = None,
    force: bool = False,
    foreign_layers: bool = False,
) -> PushRequest | tuple[PushRequest, ...]:
    """Turns the options into a request, or several; raises UsageError or BadReference where an option is wrong."""
    from ctr_ferry.registry.push import PushRequest

    refs = options.references(ref, set_)
    if not refs:
        raise UsageError("push needs --ref REF or --set FILE", hint="fab -H HOST push --ref registry.example/app:1")
    several = bool(set_) or len(refs) > 1
    if as_ and several:
        raise UsageError(
            "--as is for one image", hint="name the images for the registry first: fab -H HOST retag --map names.txt"
        )
    for each in refs:
        source = None if is_digest(each) else Reference.parse(each)
        if not as_ and (source is None or source.digest):
            what = "has a digest, and a push gives a tag" if source else "is a digest, which may have several names"
            raise UsageError(
                f"--ref {each} {what}",
                hint=f"{'push it alone, and ' if several else ''}give the name in the registry with --as; "
                f"the names that it has: fab -H HOST images {shell.join(['--ref', each])}",
            )
    target = Reference.parse(as_) if as_ else None
    if target and target.digest:
        raise UsageError(
            f"--as {as_} has a digest", hint="give a name with a tag and no digest, such as --as r.example/app:1"
        )
    request = PushRequest(
        ref=refs[0],
        target=target,
        platform=options.platform(platform, every=all_platforms),
        all_platforms=all_platforms,
        namespace=options.namespace(namespace),
        force=force,
        foreign_layers=foreign_layers,
    )
    return tuple(replace(request, ref=each) for each in refs) if several else request


def before(request: PushRequest | tuple[PushRequest, ...], targets: Sequence[Target]) -> None:
    """Checks the logins before any host is touched; raises UsageError where one is missing, or cannot be used."""
    from ctr_ferry.oci.registry import Registries
    from ctr_ferry.registry import credentials

    requests = request if isinstance(request, tuple) else (request,)
    domains = {(each.target or Reference.parse(each.ref)).domain for each in requests}  # a digest has a target
    credentials.check({target.variables_of(Registries).named(domain) for target in targets for domain in domains})


@fleet_wide(
    parse,
    before=before,
    iterable=["ref", "set_"],
    help={
        "ref": "The image as the host has it: a name, its short form, or a digest; may be repeated.",
        "set_": options.SET_HELP,
        "as_": "The name in the registry (default: the image's own); the host keeps no further name.",
        "platform": "Push this platform's manifest of a multi-platform image, such as linux/arm64.",
        "all_platforms": "Push all platforms or nothing (default: the host's own where others are not there).",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "force": "Move a name that the registry has already to the digest that is pushed.",
        "foreign_layers": "Push foreign layers (of Windows images), too: ctr from 1.6 on leaves them out.",
    },
)
def push(fleet: Fleet, request: PushRequest | tuple[PushRequest, ...]) -> dict[str, Result | FerryError]:
    """Push images from each host to registries, and ask the registries what they have then."""
    from ctr_ferry.registry.push import PushJob, PushSet
    from ctr_ferry.registry.results import TransferSetResult
    from ctr_ferry.registry.several import as_set

    jobs: dict[str, PushJob | PushSet] = {}
    alone = len(fleet.hosts) == 1

    def inspect_images(host: Host) -> Result:
        if isinstance(request, tuple):
            jobs[host.name] = several = PushSet(host, request, alone=alone)
            return several.result()
        jobs[host.name] = one = PushJob(host, request, alone=alone)
        return TransferSetResult.of(one.result(Status.OK, ""))  # a run that is interrupted now reports no change

    def verify(host: Host) -> TransferSetResult:
        answer = pushed[host.name]
        if isinstance(answer, FerryError):
            raise answer
        return jobs[host.name].verify(cast("TransferSetResult", answer))

    answers: dict[str, Result | FerryError] = dict(fleet.each(inspect_images, close=False, looks=True))
    for name, error in _refuse_conflicts(jobs).items():
        answers[name] = fleet.answers[name] = error
        fleet.hosts[name].mark_failed()
    once = alone or any(host.dry_run for host in fleet)
    pushed = fleet.each(lambda host: as_set(jobs[host.name].run()), close=once)
    if once:
        return answers | pushed
    again = fleet.each(verify, done=pushed)
    return answers | pushed | {name: answer for name, answer in again.items() if not isinstance(answer, NotStarted)}


def _refuse_conflicts(jobs: Mapping[str, PushJob | PushSet]) -> dict[str, Drift]:
    """Finds names in registries that would get different digests from different hosts.

    Returns an error for every host that would push one image. Of several images, only those concerned fail.
    """
    goals = grouped(
        (str(push.transfer.reference), (push.pushed.target.digest, host, item))
        for host, job in jobs.items()
        for item, push in job.pushes
    )
    errors = {}
    for reference, goal in goals.items():
        digests = grouped((digest, host) for digest, host, _ in goal)
        if len(digests) == 1:
            continue
        detail = "\n".join(f"{digest} on {names(hosts, every=True)}" for digest, hosts in digests.items())
        for _, host, item in goal:
            error = Drift(
                f"{reference} would get {len(digests)} digests from these hosts; nothing was pushed",
                detail=detail,
                hint=f"choose the hosts of one digest: fab -H all find --ref {reference}",
            )
            if item:
                item.fail(error)
            else:
                errors[host] = error
    return errors
