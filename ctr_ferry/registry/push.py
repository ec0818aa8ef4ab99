"""Images that one host pushes to registries: each inspected, decided, pushed, verified."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ctr_ferry.ctr.mounts import Mounts
from ctr_ferry.errors import (
    FerryError,
    MethodUnsupported,
    ReferenceExists,
    UsageError,
    VerifyFailed,
)
from ctr_ferry.images.content import Content
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.registry import mirrors
from ctr_ferry.registry.push_content import PushContent, choose
from ctr_ferry.registry.refusals import REFUSED
from ctr_ferry.registry.results import PushedImage, PushResult, TransferSetResult
from ctr_ferry.registry.several import TransferItem, TransferSet
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer, Script
from ctr_ferry.text import shown_name, size

if TYPE_CHECKING:
    from ctr_ferry.ctr.listing import Image
    from ctr_ferry.ctr.push_pull import Route
    from ctr_ferry.registry.access import RegistryAccesses
    from ctr_ferry.registry.push_pull import RemoteImage
    from ctr_ferry.ssh.host import Host

_LACKS_LAYERS = re.compile(r"\b400\b|blob unknown")


@dataclass(frozen=True, slots=True)
class PushRequest:
    """What to push, and under which name; where ``target`` is None, under the image's own.

    Attributes:
        foreign_layers: whether the registry must get foreign layers, too.
    """

    ref: str
    target: Reference | None = None
    platform: Platform | None = None
    all_platforms: bool = False
    namespace: str | None = None
    force: bool = False
    foreign_layers: bool = False


class ImagePush:
    """One image on its way from one host to a registry. The constructor asks nothing, and needs a session that did.

    If the host is ``alone`` in the run, `run` does not ask the registry again.

    Attributes:
        is_there: whether the registry is known to have the whole image under the name.

    Raises FerryError where the image has no name in a registry, or the host's ctr cannot push there.
    """

    def __init__(
        self,
        session: Session,
        request: PushRequest,
        image: Image,
        *,
        alone: bool,
        accesses: RegistryAccesses | None = None,
    ) -> None:
        from ctr_ferry.registry.access import RegistryAccesses
        from ctr_ferry.registry.push_pull import RegistryTransfer

        self.host, self.facts, self.place, self.here = session.host, session.facts, session.place, session.here
        self.request, self.alone, self.image, self.is_there = request, alone, image, False
        self.transfer = RegistryTransfer(session, self._target(), accesses or RegistryAccesses(session, pushes=True))
        self.pushed = PushContent(Descriptor(image.media_type, image.digest, 0))
        self._foreign: dict[str, int] = {}  # bytes of the image's foreign layers, by digest
        self._sends_foreign = request.foreign_layers or not self.facts.ctr.capabilities.leaves_foreign

    def ask(self) -> None:
        """Asks the registry whether it has the whole image under the name; raises FerryError where it does not tell."""
        self.remote = self.transfer.inspect()
        same = self.remote.digest == self.image.digest
        self.is_there = same and not (self.request.platform or self.request.foreign_layers)

    def look(self, content: Content) -> None:
        """Decides what is pushed, and asks the registry what it has.

        Raises FerryError where the image cannot be pushed, or the name in the registry points at another digest.

        Args:
            content: the image's manifests, as far as the host has them.
        """
        asked, every = self.request.platform, self.request.all_platforms
        self.pushed = choose(self.facts, self.image, content, asked, all_platforms=every)
        below = content.below(self.pushed.target)
        self._foreign = {digest: blob.size for digest, blob in below.items() if blob.is_foreign}
        if not self._sends_foreign:
            sizes = {digest: size for digest, size in self.pushed.sizes.items() if digest not in self._foreign}
            self.pushed = replace(self.pushed, sizes=sizes)
        self.remote = self.transfer.inspect(self.pushed.sizes if self.alone else {})
        self._decide()

    def _target(self) -> Reference:
        own = None if is_digest(self.image.name) else Reference.parse(self.image.name)
        target = self.request.target or own
        if not target:
            raise UsageError(
                f"{shown_name(self.image.name)} is a digest and no name in a registry; nothing was pushed",
                hint="give the name in the registry with --as",
            )
        return target.or_tagged((own and own.tag) or "latest")

    def run(self) -> PushResult:
        """Pushes the image where the registry does not have it, and verifies that; raises FerryError if it cannot."""
        if not self.alone and not self.host.dry_run:
            remote = self.transfer.inspect(self.pushed.sizes)
            # Up to 1.2, ctr on another host lets the tag point at each manifest of the index before the index itself.
            passing = remote.digest in self.pushed.sizes and remote.digest != self.pushed.target.digest
            self.remote = replace(remote, digest=None) if passing else remote
        if done := self._decide():
            return done
        if self.host.dry_run:
            would = f"would move up to {size(sum(self.pushed.sizes.values()))}"
            lacks = "" if self._sends_foreign else self._lacks()
            return self.result(Status.CHANGED, self._method, would, lacks)
        return self._push()

    def verify_again(self) -> None:
        """Asks the registry once more, after all hosts have pushed; raises FerryError where it has something else."""
        self._verify(self.transfer.inspect())

    def _decide(self) -> PushResult | None:
        """The result where the registry has the image already; None where it must be pushed, and may be."""
        remote = self.remote
        if remote.digest == self.pushed.target.digest:
            lacks = self._lacks()
            if lacks and self.request.foreign_layers:
                return None
            return self.result(Status.UNCHANGED, "", "the registry has this digest already", lacks)
        if remote.digest == self.image.digest and not self.request.platform:
            self.pushed = PushContent(Descriptor(self.image.media_type, self.image.digest, 0))
            return self.result(Status.UNCHANGED, "", "the registry has the whole image already")
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
                hint=f"{remote.remedy}, or add --force to push whatever the name points at there",
            )
        return None

    @property
    def _method(self) -> str:
        if not self.pushed.platform:
            return "push"
        return "platform" if self.facts.ctr.capabilities.push_platform and self.pushed.listed else "stage"

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
        if mounts := self._refused_mounts(answers["push"]):
            answers = self.transfer.run(partial(self._script, mounts=mounts), "push", self.pushed.sizes)
        if not answers["push"].ok:
            raise self._failure(answers["push"])
        remote, present = self.transfer.inspect(), self.remote.present
        if self.alone:  # several hosts verify when none pushes any longer
            self._verify(remote)
        had = f"the registry had {present} of these bytes already" if present else ""
        uploaded = "uploaded, since the registry let no blob be mounted from another repository" if mounts else ""
        lacks = self._lacks()
        if lacks and self._sends_foreign:
            raise VerifyFailed(
                f"ctr reports success, but the registry lacks foreign layers of {self.transfer.reference}",
                detail=lacks,
                hint="the registry may refuse such layers (its log tells): run the same command again",
            )
        return replace(
            self.result(Status.CHANGED, self._method, remote.doubt, had, uploaded, lacks),
            seconds=self.transfer.seconds,
            bytes_there=present,
            verified=remote.verified,
        )

    def _lacks(self) -> str:
        """Which foreign layers the registry lacks, in words; empty where it has all of them, or does not tell."""
        if not self._foreign:
            return ""
        with self.transfer.access.connection() as client:
            there = client.present(self.transfer.reference.path, self._foreign)
        absent = [long for digest, long in self._foreign.items() if there is not None and digest not in there]
        if not absent:
            return ""
        layers = f"{len(absent)} foreign layer{'s' if len(absent) > 1 else ''} ({size(sum(absent))})"
        return f"the registry lacks {layers}; --foreign-layers pushes such layers, too"

    def _failure(self, answer: Answer) -> FerryError:
        """The error of a push that failed. A registry may refuse a manifest whose layers it lacks, with status 400."""
        error = self.transfer.failure(answer)
        if self._foreign and not self._sends_foreign and _LACKS_LAYERS.search(error.detail):
            error.hint = "add --foreign-layers: ctr left out foreign layers, and this registry wants all layers"
        return error

    def _refused_mounts(self, answer: Answer) -> Mounts | None:
        """The mounts that the registry may have refused, rather than the push; None where there are none."""
        if self.transfer.meaning(answer) not in REFUSED:
            return None
        mounts = Mounts(self.place, self.transfer.reference)
        listed = self.host.ask(Script({"sources": mounts.question()}))["sources"]
        mounts = mounts.read(listed.text, self.pushed.sizes)
        return mounts if mounts.sources else None

    def _script(self, route: Route, mounts: Mounts | None = None) -> Script:
        """The script of the push. Its clean-up removes the certificates, and the temporary name where there is one.

        Args:
            mounts: what ctr is not to mount; the clean-up lets ctr mount it again.
        """
        from ctr_ferry.ctr import push_pull

        local, step, cleanups = self.image.name, "", [route.cleanup]
        pushed, method = self.pushed, self._method
        if method == "stage":
            stage = self.place.stage(0)
            foreign = pushed.platform != self.facts.platform
            give, cleanup = push_pull.stage(self.place, local, stage, pushed.target, foreign=foreign)
            step, local = f"{{ {give}; }} >/dev/null && ", str(stage)
            cleanups.append(cleanup)
        if mounts:
            step = f"{mounts.take_off()}\n{step}"
            cleanups.append(mounts.put_back())
        push = push_pull.push(
            self.facts.ctr,
            self.here.namespace,
            route,
            (str(self.transfer.reference), local),
            platform=pushed.platform if method == "platform" else None,
            foreign_layers=self.request.foreign_layers,
        )
        return Script({"push": step + push}, cleanup="\n".join(filter(None, cleanups)))

    def _verify(self, remote: RemoteImage) -> None:
        wanted = self.pushed.target.digest
        if not remote.unknown and remote.digest != wanted:
            raise VerifyFailed(
                f"ctr reports success, but {self.transfer.reference} has another digest in the registry",
                detail=f"registry {remote.digest or 'nothing'}\nwanted   {wanted}",
                hint="somebody else may push to that name: run the same command again",
            )

    def result(self, status: Status, method: str, *notes: str) -> PushResult:
        """The result by what is known so far; empty notes are left out."""
        pushed = self.pushed
        moved = status is Status.CHANGED and self.remote.digest != pushed.target.digest
        return PushResult(
            reference=str(self.transfer.reference),
            source=self.image.name,
            namespace=self.here.namespace,
            digest=pushed.target.digest,
            source_digest=self.image.digest,
            status=status,
            ctr=self.facts.client,
            method=method,
            size=sum(pushed.sizes.values()) if pushed.sizes else None,
            notes=tuple(filter(None, (*pushed.notices, self.transfer.access.way, *notes))),
            previous_digest=(self.remote.digest or "") if moved else "",
        )


class PushJob(ImagePush):
    """One image that one host pushes. The constructor asks the host and the registry what they have.

    Args:
        session: the host, where it is open already; None is one of its own, with a probe.

    Raises FerryError where the image cannot be pushed, or the name in the registry points at another digest.
    """

    def __init__(self, host: Host, request: PushRequest, *, alone: bool, session: Session | None = None) -> None:
        session = session or Session(host, request.namespace, more=mirrors.question(host))
        super().__init__(session, request, session.find(request.ref), alone=alone)
        self.look(session.read([self.image.digest], deep=self.pushed.target.is_index)[0])

    @property
    def pushes(self) -> list[tuple[None, ImagePush]]:
        """The one push, as `PushSet` has several."""
        return [(None, self)]

    def verify(self, result: TransferSetResult) -> TransferSetResult:
        """Verifies again; an error then has the result."""
        try:
            self.verify_again()
        except FerryError as error:
            error.result = TransferSetResult.of(result.images[0], error)
            raise
        return result


class PushSet(TransferSet[ImagePush]):
    """Several images that one host pushes. The constructor asks the host and the registries what they have.

    Raises as `Session`. An image that cannot be pushed has its own error.
    """

    def __init__(self, host: Host, requests: Sequence[PushRequest], *, alone: bool) -> None:
        session = Session(host, requests[0].namespace, more=mirrors.question(host))
        super().__init__(session, (_unknown(session, request) for request in requests), pushes=True)
        images = session.here.find_all(request.ref for request in requests)
        missing = [ref for ref, image in images.items() if not image]
        errors = dict(zip(missing, session.not_found(missing) if missing else (), strict=True))
        for item, request in zip(self.items, requests, strict=True):
            try:
                image = images[request.ref]
                if not image:
                    raise errors[request.ref]
                item.job = ImagePush(session, request, image, alone=alone, accesses=self.accesses)
                item.end(item.job.result(Status.SKIPPED, ""))
            except FerryError as error:
                item.fail(error)
        with self.going_on():
            self.each(ImagePush.ask)
            self._look()

    def _look(self) -> None:
        """Reads the manifests of what the registries lack, in two remote commands, and decides what is pushed."""
        lacking = [(item, push) for item, push in self.pending if not push.is_there]
        if not lacking:
            return
        deep = any(push.pushed.target.is_index for _, push in lacking)
        content = self.session.read([push.image.digest for _, push in lacking], deep=deep)[0]
        self.each(lambda push: push.look(content), lacking)

    @property
    def pushes(self) -> list[tuple[TransferItem[ImagePush], ImagePush]]:
        """The images that can be pushed so far."""
        return list(self.jobs)

    def run(self) -> TransferSetResult:
        """Pushes what the registries lack; raises SomeFailed, with the result, where that failed for some images."""
        with self.going_on():
            self.each(ImagePush.run)
        return self._settled()

    def verify(self, _: TransferSetResult) -> TransferSetResult:
        """Verifies all images again. Raises as `run`."""
        with self.going_on():
            self.each(ImagePush.verify_again, self.jobs)
        return self._settled()

    def _settled(self) -> TransferSetResult:
        return self.settled("images were not pushed")


def _unknown(session: Session, request: PushRequest) -> PushedImage:
    return PushedImage(
        reference=request.ref,
        source=request.ref,
        namespace=session.here.namespace,
        digest="",
        source_digest="",
        status=Status.SKIPPED,
        ctr=session.facts.client,
    )
