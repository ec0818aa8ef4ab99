"""``push``: an image of a host goes to a registry, from that host, and the registry is asked what it got.

All hosts look first: a name that would get several digests, or lose another one, is refused before anything moves.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry.ctr.listing import Image
from ctr_ferry.ctr.naming import Place
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.errors import (
    Drift,
    FerryError,
    MethodUnsupported,
    NotStarted,
    ReferenceExists,
    UsageError,
    VerifyFailed,
)
from ctr_ferry.images import inspect
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.oci.registry import Registries
from ctr_ferry.registry import credentials
from ctr_ferry.registry.push_content import PushContent, choose
from ctr_ferry.report.outcome import Result, Status
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.shell import Script
from ctr_ferry.text import names

if TYPE_CHECKING:
    from ctr_ferry.registry.push_pull import There
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.ssh.target import Target


@dataclass(frozen=True, slots=True)
class Request:
    """What goes, and under which name; ``target`` None is the image's own."""

    ref: str
    target: Reference | None = None
    platform: Platform | None = None
    all_platforms: bool = False
    namespace: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class PushResult:
    """What the registry has now.

    Attributes:
        reference: its name there; ``source`` is the image's on the host.
        digest: what that name points at; ``source_digest`` differs where one platform of an index was pushed.
        bytes: of all blobs that the name stands for; None where they were not read.
        present: of those, what the repository had before; None where that was not asked, as of small images.
        seconds: that ctr took.
        method: push, platform (by ctr's flag) or stage (through a name of ours); empty where nothing was to be done.
        verified: ``digest``, or ``unverified`` where the registry could not be asked; ``reason`` tells why.
        notices: what a person should know of it.
        previous_digest: what the name there pointed at, where that was something else; empty where it was not.
    """

    reference: str
    source: str
    namespace: str
    digest: str
    source_digest: str
    status: Status
    ctr: str
    method: str = ""
    bytes: int | None = None
    present: int | None = None
    seconds: float = 0.0
    verified: str = "digest"
    reason: str = ""
    notices: tuple[str, ...] = ()
    previous_digest: str = ""

    def given(self) -> list[tuple[str, str, str]]:
        """The registry's name with its digest, and the digest of the image that it was made from."""
        return [(self.reference, self.digest, self.source_digest)]

    def lines(self) -> list[str]:
        """The name, its digest, and what is to be known."""
        from ctr_ferry.registry.push_pull import told

        replaced = [f"  replaces {self.previous_digest}"] if self.previous_digest else []
        return told(f"{self.source} -> {self.reference}", self) + replaced


def parse(
    *,
    ref: str | None = None,
    as_: str | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    namespace: str | None = None,
    force: bool = False,
) -> Request:
    """Options to a request.

    Raises:
        UsageError: or BadReference, with the option that is wrong.
    """
    if not ref:
        raise UsageError("push needs --ref REF", hint="fab -H node1 push --ref registry.example/app:1")
    if not is_digest(ref):
        Reference.parse(ref)
    if not as_ and (is_digest(ref) or Reference.parse(ref).digest):
        raise UsageError(
            f"--ref {ref} is a digest, which may have several names on a host", hint="say with --as where it goes"
        )
    target = Reference.parse(as_) if as_ else None
    if target and target.digest:
        raise UsageError(f"--as {as_} has a digest", hint="a name to push to has a tag alone")
    return Request(
        ref,
        target,
        options.platform(platform, every=all_platforms),
        all_platforms,
        options.namespace(namespace),
        force,
    )


def before(request: Request, targets: Sequence[Target]) -> None:
    """Finds the logins that the inventory names before any host is touched.

    Raises:
        UsageError: what is wrong with one.
    """
    name = request.target or (None if is_digest(request.ref) else Reference.parse(request.ref))
    credentials.check({target.variables_of(Registries).named(name.domain) for target in targets} if name else ())


class Job:
    """One image of one host on its way."""

    def __init__(self, host: Host, request: Request) -> None:
        from ctr_ferry.registry.push_pull import RegistryTransfer

        self.host, self.request = host, request
        self.namespace = inspect.namespace(host, request.namespace)
        self.facts: Facts = inspect.facts(host, (self.namespace,))
        here = self.facts.listings[self.namespace]
        found = here.find(request.ref)
        if not found:
            raise inspect.not_found(host, self.facts, here, [request.ref])[0]
        self.image: Image = found
        self.transfer = RegistryTransfer(host, self.facts, self._target())

    def _target(self) -> Reference:
        if not self.request.target and is_digest(self.image.name):
            raise UsageError(f"{self.image.name} is no name to push to", hint="give one with --as")
        own = None if is_digest(self.image.name) else Reference.parse(self.image.name)
        target = self.request.target or own
        assert target  # noqa: S101
        return target if target.tag else target.with_tag((own and own.tag) or "latest")

    def look(self, *, alone: bool) -> PushResult:
        """Looks at the image and at the registry.

        Args:
            alone: whether nobody else pushes before this one does, so that it need not look again.

        Raises:
            FerryError: also where the name there stands for something else.
        """
        self.pushed = choose(
            self.host,
            self.facts,
            self.namespace,
            self.image,
            self.request.platform,
            all_platforms=self.request.all_platforms,
        )
        self.there = self.transfer.look(self.pushed.sizes if alone else None)
        self._decide()
        return self._result(Status.OK, "")  # so that a run that is cut off now tells of no change

    def run(self, *, alone: bool) -> PushResult:
        """Pushes where the registry has something else, and asks it again.

        Raises:
            FerryError.
        """
        if not alone and not self.host.dry_run:
            self.there = self.transfer.look(self.pushed.sizes)
        if done := self._decide():
            return done
        method = self._method()
        if self.host.dry_run:
            return self._result(Status.CHANGED, method, notices=(self._would_move(self.pushed),))
        return self._push(self.pushed, method, self.there)

    def verify(self, result: PushResult) -> PushResult:
        """Asks the registry once more, when all hosts are done.

        Raises:
            FerryError: with the result.
        """
        try:
            self._verify(self.transfer.look(), self.pushed)
        except FerryError as error:
            error.result = result
            raise
        return result

    def _decide(self) -> PushResult | None:
        """The result where nothing is to be done.

        Raises:
            ReferenceExists, MethodUnsupported: the name there is not to be moved.
        """
        there = self.there
        if there.digest == self.pushed.target.digest:
            return self._result(Status.UNCHANGED, "", notices=("the registry has it already, with this digest",))
        if there.digest == self.image.digest and not self.request.platform:
            self.pushed = PushContent(Descriptor(self.image.media_type, self.image.digest, 0))
            return self._result(Status.UNCHANGED, "", notices=("the registry has the whole index already",))
        if there.digest and not self.request.force:
            raise ReferenceExists(
                f"{self.transfer.reference} exists in the registry with another digest",
                detail=f"there {there.digest}\nhere  {self.pushed.target.digest}",
                hint="push it under another name with --as, or add --force to let the name there point at this one",
            )
        if there.unknown and not self.request.force:
            raise MethodUnsupported(
                f"it cannot be known whether {self.transfer.reference} is something else in the registry",
                detail=there.unknown,
                hint="let this host ask it, or add --force to push whatever the name there points at",
            )
        return None

    def _method(self) -> str:
        if not self.pushed.part:
            return "push"
        return "platform" if self.facts.ctr.capabilities.push_platform else "stage"

    def _would_move(self, pushed: PushContent) -> str:
        return f"would move up to {sum((pushed.sizes or {}).values())} bytes"

    def _push(self, pushed: PushContent, method: str, before: There) -> PushResult:
        def script(terminal: str | None) -> Script:
            return self._script(pushed, method, terminal)

        began = time.monotonic()
        answers = self.transfer.run(script, "push", pushed.sizes or {})
        seconds = time.monotonic() - began
        if not answers["push"].ok:
            raise self.transfer.failure(answers["push"])
        there = self.transfer.look()
        self._verify(there, pushed)
        notices = [f"{before.present} of its bytes were there already"] if before.present else []
        return self._result(
            Status.CHANGED, method, there, seconds=seconds, present=before.present, notices=tuple(notices)
        )

    def _script(self, pushed: PushContent, method: str, terminal: str | None) -> Script:
        from ctr_ferry.ctr import push_pull

        route, remote, local, before, cleanup = (
            self.transfer.route,
            str(self.transfer.reference),
            self.image.name,
            "",
            "",
        )
        if method == "stage":
            stage = Reference("ctr-ferry.invalid", route.owner.lower(), "0")
            foreign = pushed.part != self.facts.platform
            step, cleanup = push_pull.stage(self._place, local, stage, pushed.target, foreign=foreign)
            before, local = f"{{ {step}; }} >/dev/null && ", str(stage)
        by_flag = pushed.part if method == "platform" else None
        names = (remote, local)
        push = push_pull.push(self.facts.ctr, self.namespace, route, names, platform=by_flag, terminal=terminal)
        return Script({"push": before + push}, cleanup="\n".join(filter(None, (route.cleanup, cleanup))))

    @property
    def _place(self) -> Place:
        cri_managed = self.namespace == "k8s.io" and self.facts.cri
        owner, root = self.transfer.route.owner, self.facts.content_root
        return Place(self.facts.ctr, self.namespace, self.namespace, root, owner, cri_managed)

    def _verify(self, there: There, pushed: PushContent) -> None:
        if not there.unknown and there.digest != pushed.target.digest:
            raise VerifyFailed(
                f"ctr reports success, but the registry has something else under {self.transfer.reference}",
                detail=f"there {there.digest or 'nothing'}\nwanted {pushed.target.digest}",
                hint="somebody else pushes to that name; look again, then run it again",
            )

    def _result(
        self,
        status: Status,
        method: str,
        there: There | None = None,
        *,
        seconds: float = 0.0,
        present: int | None = None,
        notices: tuple[str, ...] = (),
    ) -> PushResult:
        unknown, pushed = there.unknown if there else "", self.pushed
        return PushResult(
            str(self.transfer.reference),
            self.image.name,
            self.namespace,
            pushed.target.digest,
            self.image.digest,
            status,
            self.facts.client,
            method,
            sum(pushed.sizes.values()) if pushed.sizes else None,
            present,
            round(seconds, 3),
            "unverified" if unknown else "digest",
            unknown,
            (*pushed.notices, *notices),
            (self.there.digest or "") if status is Status.CHANGED else "",
        )


@fleet_wide(
    parse,
    before=before,
    help={
        "ref": "The image as the host has it: a name, its short form, or a digest.",
        "as_": "The name that it gets in the registry (default: its own); no tag is left on the host.",
        "platform": "Push this platform's manifest of a multi-platform image, such as linux/arm64.",
        "all_platforms": "Push all platforms or nothing; by default, where some are absent, the host's own goes.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "force": "Let a name that the registry has already point at what comes.",
    },
)
def push(fleet: Fleet, request: Request) -> dict[str, Result | FerryError]:
    """Push an image from its host to a registry, and ask the registry what it has got."""
    jobs: dict[str, Job] = {}
    alone = len(fleet.hosts) == 1

    def look_at(host: Host) -> PushResult:
        jobs[host.name] = Job(host, request)
        return jobs[host.name].look(alone=alone)

    answers: dict[str, Result | FerryError] = dict(fleet.each(look_at, close=False))
    for name, error in _at_odds({n: job for n, job in jobs.items() if isinstance(answers[n], PushResult)}).items():
        answers[name] = fleet.answers[name] = error
        fleet.hosts[name].mark_failed()
    once = alone or any(host.dry_run for host in fleet)
    pushed = fleet.each(lambda host: jobs[host.name].run(alone=alone), close=once)
    if once:
        return answers | pushed
    again = fleet.each(lambda host: jobs[host.name].verify(_of(pushed[host.name])))
    return answers | pushed | {name: answer for name, answer in again.items() if not isinstance(answer, NotStarted)}


def _of(answer: Result | FerryError) -> PushResult:
    """What a host has pushed; one that has not is asked nothing more."""
    if isinstance(answer, FerryError):
        raise answer
    assert isinstance(answer, PushResult)  # noqa: S101
    return answer


def _at_odds(jobs: Mapping[str, Job]) -> dict[str, Drift]:
    """The error of every host whose name in the registry another host would give another digest."""
    goals: dict[str, dict[str, list[str]]] = {}
    for host, job in jobs.items():
        goals.setdefault(str(job.transfer.reference), {}).setdefault(job.pushed.target.digest, []).append(host)
    errors = {}
    for reference, digests in goals.items():
        detail = "\n".join(f"{digest} on {names(hosts, every=True)}" for digest, hosts in digests.items())
        for host in [each for hosts in digests.values() for each in hosts] if len(digests) > 1 else ():
            errors[host] = Drift(
                f"{reference} would get {len(digests)} digests from these hosts; none was pushed",
                detail=detail,
                hint="push it from one host, or from each under a name of its own with --as",
            )
    return errors
