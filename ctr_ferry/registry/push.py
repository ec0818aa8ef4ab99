"""One image that one host pushes to a registry: inspected, decided, pushed, verified."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctr_ferry.errors import (
    FerryError,
    MethodUnsupported,
    ReferenceExists,
    UsageError,
    VerifyFailed,
)
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.registry.push_content import PushContent, choose
from ctr_ferry.registry.results import PushResult
from ctr_ferry.report.outcome import Result, Status
from ctr_ferry.shell import Script
from ctr_ferry.text import shown_name

if TYPE_CHECKING:
    from ctr_ferry.ctr.push_pull import Route
    from ctr_ferry.registry.push_pull import RemoteImage
    from ctr_ferry.ssh.host import Host


@dataclass(frozen=True, slots=True)
class PushRequest:
    """What to push, and under which name; where ``target`` is None, under the image's own."""

    ref: str
    target: Reference | None = None
    platform: Platform | None = None
    all_platforms: bool = False
    namespace: str | None = None
    force: bool = False


class PushJob(Session):
    """One image that one host pushes. The constructor asks the host and the registry what they have.

    It raises FerryError where the image cannot be pushed, or the name in the registry points at another digest. If the
    host is ``alone`` in the run, `run` does not ask the registry again.
    """

    def __init__(self, host: Host, request: PushRequest, *, alone: bool) -> None:
        from ctr_ferry.registry.push_pull import RegistryTransfer

        super().__init__(host, request.namespace)
        self.request, self.alone, self.image = request, alone, self.find(request.ref)
        self.transfer = RegistryTransfer(self, self._target())
        self.pushed = choose(self, self.image, request.platform, all_platforms=request.all_platforms)
        self.remote = self.transfer.inspect(self.pushed.sizes if alone else {})
        self._decide()

    def _target(self) -> Reference:
        own = None if is_digest(self.image.name) else Reference.parse(self.image.name)
        target = self.request.target or own
        if not target:
            raise UsageError(
                f"{shown_name(self.image.name)} is a digest and no name in a registry; nothing was pushed",
                hint="give the name in the registry with --as",
            )
        return target if target.tag else target.with_tag((own and own.tag) or "latest")

    def run(self) -> PushResult:
        """Pushes the image where the registry does not have it, and verifies that; raises FerryError if it cannot."""
        if not self.alone and not self.host.dry_run:
            self.remote = self.transfer.inspect(self.pushed.sizes)
        if done := self._decide():
            return done
        if self.host.dry_run:
            would = f"would move up to {sum(self.pushed.sizes.values())} bytes"
            return self.result(Status.CHANGED, self._method, notices=(would,))
        return self._push()

    def verify(self, result: Result) -> Result:
        """Asks the registry once more, after all hosts have pushed. An error then has the result."""
        try:
            self._verify(self.transfer.inspect())
        except FerryError as error:
            error.result = result
            raise
        return result

    def _decide(self) -> PushResult | None:
        """The result where the registry has the image already; None where it must be pushed, and may be."""
        remote = self.remote
        if remote.digest == self.pushed.target.digest:
            return self.result(Status.UNCHANGED, notices=("the registry has this digest already",))
        if remote.digest == self.image.digest and not self.request.platform:
            self.pushed = PushContent(Descriptor(self.image.media_type, self.image.digest, 0))
            return self.result(Status.UNCHANGED, notices=("the registry has the whole image already",))
        if remote.digest and not self.request.force:
            raise ReferenceExists(
                f"{self.transfer.reference} exists in the registry with another digest; nothing was pushed",
                detail=f"registry {remote.digest}\nhost     {self.pushed.target.digest}",
                hint="add --force to move the name to this host's digest, or push under another name with --as",
            )
        if remote.unknown and not self.request.force:
            raise MethodUnsupported(
                f"it is unknown what {self.transfer.reference} points at in the registry; nothing was pushed",
                detail=remote.unknown,
                hint="let this host ask the registry, or add --force to push whatever the name points at there",
            )
        return None

    @property
    def _method(self) -> str:
        if not self.pushed.platform:
            return "push"
        return "platform" if self.facts.ctr.capabilities.push_platform else "stage"

    def _push(self) -> PushResult:
        done: PushResult | None = None

        def is_done(remote: RemoteImage) -> bool:
            nonlocal done
            self.remote = remote  # with a login, the registry may show more
            done = self._decide()
            return done is not None

        answers = self.transfer.run(self._script, "push", self.pushed.sizes, is_done=is_done)
        if done:
            return done
        if not answers["push"].ok:
            raise self.transfer.failure(answers["push"])
        remote, present = self.transfer.inspect(), self.remote.present
        self._verify(remote)
        notices = (f"the registry had {present} of these bytes already",) if present else ()
        return replace(
            self.result(Status.CHANGED, self._method, notices=notices),
            seconds=self.transfer.seconds,
            present=present,
            verified=remote.verified,
            reason=remote.unknown,
        )

    def _script(self, route: Route) -> Script:
        """The script of the push. Its clean-up removes the certificates, and the temporary name where there is one."""
        from ctr_ferry.ctr import push_pull

        local, step, cleanups = self.image.name, "", [route.cleanup]
        pushed, method = self.pushed, self._method
        if method == "stage":
            stage = self.place.stage(0)
            foreign = pushed.platform != self.facts.platform
            give, cleanup = push_pull.stage(self.place, local, stage, pushed.target, foreign=foreign)
            step, local = f"{{ {give}; }} >/dev/null && ", str(stage)
            cleanups.append(cleanup)
        push = push_pull.push(
            self.facts.ctr,
            self.here.namespace,
            route,
            (str(self.transfer.reference), local),
            platform=pushed.platform if method == "platform" else None,
        )
        return Script({"push": step + push}, cleanup="\n".join(filter(None, cleanups)))

    def _verify(self, remote: RemoteImage) -> None:
        wanted = self.pushed.target.digest
        if not remote.unknown and remote.digest != wanted:
            raise VerifyFailed(
                f"ctr reports success, but {self.transfer.reference} has another digest in the registry",
                detail=f"registry {remote.digest or 'nothing'}\nwanted   {wanted}",
                hint="somebody else may push to that name; run the same command again to see what it has now",
            )

    def result(self, status: Status, method: str = "", *, notices: tuple[str, ...] = ()) -> PushResult:
        """The result by what is known so far."""
        pushed = self.pushed
        return PushResult(
            reference=str(self.transfer.reference),
            source=self.image.name,
            namespace=self.here.namespace,
            digest=pushed.target.digest,
            source_digest=self.image.digest,
            status=status,
            ctr=self.facts.client,
            method=method,
            bytes=sum(pushed.sizes.values()) if pushed.sizes else None,
            notices=(*pushed.notices, *notices),
            previous_digest=(self.remote.digest or "") if status is Status.CHANGED else "",
        )
