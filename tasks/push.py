"""``push``: an image of a host goes to a registry, from that host, and the registry is asked what it got."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.ctr.content import Content
from tasks.ctr.failures import content_missing
from tasks.ctr.images import Image
from tasks.ctr.naming import Place
from tasks.ctr.probe import Facts
from tasks.ctr.shell import Script
from tasks.errors import MethodUnsupported, PlatformMissing, UsageError, VerifyFailed
from tasks.fleet import credentials, look, options
from tasks.fleet.command import per_host
from tasks.fleet.outcome import Status
from tasks.oci.descriptor import Descriptor, Platform
from tasks.oci.reference import Reference, is_digest

if TYPE_CHECKING:
    from tasks.fleet.carry import There
    from tasks.ssh.host import Host
    from tasks.ssh.target import Target


@dataclass(frozen=True, slots=True)
class Request:
    """What goes, and under which name; ``target`` None is the image's own."""

    ref: str
    target: Reference | None = None
    platform: Platform | None = None
    all_platforms: bool = False
    namespace: str | None = None


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

    def given(self) -> list[tuple[str, str, str]]:
        """The registry's name with its digest, and the digest of the image that it was made from."""
        return [(self.reference, self.digest, self.source_digest)]

    def lines(self) -> list[str]:
        """The name, its digest, and what is to be known."""
        from tasks.fleet.carry import told

        return told(f"{self.source} -> {self.reference}", self)


def parse(
    *,
    ref: str | None = None,
    as_: str | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    namespace: str | None = None,
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
        ref, target, options.platform(platform, every=all_platforms), all_platforms, options.namespace(namespace)
    )


def before(request: Request, targets: Sequence[Target]) -> None:
    """Finds the logins before any host is touched.

    Raises:
        UsageError: what is wrong with one.
    """
    name = request.target or (None if is_digest(request.ref) else Reference.parse(request.ref))
    for registry in {target.registry(name.domain) for target in targets} if name else ():
        credentials.login(registry)


@dataclass(frozen=True, slots=True)
class Cargo:
    """What of the image is pushed.

    Attributes:
        target: what the name will point at; of an image that is no index, its own, with no size.
        part: the platform, where it is one manifest of an index.
        sizes: of all blobs by digest, as far as they were read.
    """

    target: Descriptor
    part: Platform | None = None
    sizes: dict[str, int] | None = None
    notices: tuple[str, ...] = ()


class Job:
    """One image of one host on its way."""

    def __init__(self, host: Host, request: Request) -> None:
        from tasks.fleet.carry import Carrier

        self.host, self.request = host, request
        self.namespace = request.namespace or host.target.ctr.namespace
        self.facts: Facts = host.facts((self.namespace,))
        here = self.facts.listings[self.namespace]
        found = here.find(request.ref)
        if not found:
            raise look.not_found(host, self.facts, here, [request.ref])[0]
        self.image: Image = found
        self.carrier = Carrier(host, self.facts, self._target())

    def _target(self) -> Reference:
        if not self.request.target and is_digest(self.image.name):
            raise UsageError(f"{self.image.name} is no name to push to", hint="give one with --as")
        own = None if is_digest(self.image.name) else Reference.parse(self.image.name)
        target = self.request.target or own
        assert target  # noqa: S101
        return target if target.tag else target.with_tag((own and own.tag) or "latest")

    def run(self) -> PushResult:
        """Looks at the image and at the registry, pushes where they differ, and asks the registry again.

        Raises:
            FerryError.
        """
        cargo = self._cargo()
        there = self.carrier.look(cargo.sizes)
        if there.digest == cargo.target.digest:
            return self._result(cargo, Status.UNCHANGED, "", notices=("the registry has it already, with this digest",))
        if there.digest == self.image.digest and not self.request.platform:
            cargo = Cargo(Descriptor(self.image.media_type, self.image.digest, 0))
            return self._result(cargo, Status.UNCHANGED, "", notices=("the registry has the whole index already",))
        method = self._method(cargo)
        if self.host.dry_run:
            return self._result(cargo, Status.CHANGED, method, notices=(self._would_move(cargo),))
        return self._push(cargo, method, there)

    def _cargo(self) -> Cargo:
        """Decides what goes; an index, and what is asked for by platform, is read first."""
        image, asked = self.image, self.request.platform
        whole = Descriptor(image.media_type, image.digest, 0)
        if not whole.is_index:
            if asked and str(asked) not in image.platforms.split(","):
                raise PlatformMissing(
                    f"{image.name} is for {image.platforms}, not for {asked}", hint="leave --platform out"
                )
            content = look.content(self.host, self.facts, self.namespace, [image.digest], deep=False)[0]
            return Cargo(whole, sizes=_sizes(content, whole))
        content = look.content(self.host, self.facts, self.namespace, [image.digest], deep=True)[0]
        if image.digest not in content.blobs:
            raise content_missing(image.name, image.digest)
        if not asked and not (absent := self._absent(content, whole)) and self.facts.ctr.capabilities.piped:
            return Cargo(whole, sizes=_sizes(content, whole))
        if self.request.all_platforms:
            raise self._insists(absent)
        return self._part(content, asked or self.facts.platform)

    def _absent(self, content: Content, index: Descriptor) -> list[str]:
        """The platforms of an index of which not everything is there."""
        children = content.manifest(index.digest).children
        lack = [child for child in children if not content.below(child).keys() <= content.visible]
        return [str(child.platform or child.digest) for child in lack]

    def _insists(self, absent: Sequence[str]) -> PlatformMissing | MethodUnsupported:
        if not absent:
            return MethodUnsupported(
                f"ctr {self.facts.client} cannot push an index", hint="leave --all-platforms out: one platform goes"
            )
        return PlatformMissing(
            f"{self.image.name} cannot be pushed whole: not everything is here of {', '.join(absent)}",
            hint="pull it here with --all-platforms, or leave --all-platforms out",
        )

    def _part(self, content: Content, platform: Platform) -> Cargo:
        index = self.image.digest
        if not self.facts.ctr.capabilities.piped and platform != self.facts.platform:
            raise MethodUnsupported(
                f"ctr {self.facts.client} can push no platform but the host's own, {self.facts.platform}",
                hint="push it from a host with a later ctr",
            )
        child = content.manifest(index).child_for(platform)
        if child is None or child.digest not in content.visible:
            there = [str(c.platform) for c in content.manifest(index).children if c.digest in content.visible]
            raise PlatformMissing(
                f"{self.image.name} has no content for {platform} on this host",
                said=f"there: {', '.join(there) or 'none'}",
                hint="choose one that is there with --platform",
            )
        if absent := content.below(child).keys() - content.visible:
            raise content_missing(self.image.name, "\n".join(sorted(absent)))
        notice = f"the manifest of {platform} in index {index}"
        if not self.request.platform:
            notice += ": other platforms of it are not all here" if self.facts.ctr.capabilities.piped else ""
        return Cargo(child, platform, _sizes(content, child), (notice,))

    def _method(self, cargo: Cargo) -> str:
        if not cargo.part:
            return "push"
        return "platform" if self.facts.ctr.capabilities.push_platform else "stage"

    def _would_move(self, cargo: Cargo) -> str:
        return f"would move up to {sum((cargo.sizes or {}).values())} bytes"

    def _push(self, cargo: Cargo, method: str, before: There) -> PushResult:
        def script(terminal: str | None) -> Script:
            return self._script(cargo, method, terminal)

        began = time.monotonic()
        answers = self.carrier.carry(script, "push", cargo.sizes or {})
        seconds = time.monotonic() - began
        if not answers["push"].ok:
            raise self.carrier.failure(answers["push"])
        there = self.carrier.look()
        self._verify(there, cargo)
        notices = [f"{before.present} of its bytes were there already"] if before.present else []
        notices += [f"it was {before.digest} there before"] if before.digest else []
        return self._result(
            cargo, Status.CHANGED, method, there, seconds=seconds, present=before.present, notices=tuple(notices)
        )

    def _script(self, cargo: Cargo, method: str, terminal: str | None) -> Script:
        from tasks.ctr import transfer

        route, remote, local, before, cleanup = self.carrier.route, str(self.carrier.reference), self.image.name, "", ""
        if method == "stage":
            stage = Reference("ctr-ferry.invalid", route.owner.lower(), "0")
            foreign = cargo.part != self.facts.platform
            step, cleanup = transfer.stage(self._place, local, stage, cargo.target, foreign=foreign)
            before, local = f"{{ {step}; }} >/dev/null && ", str(stage)
        by_flag = cargo.part if method == "platform" else None
        names = (remote, local)
        push = transfer.push(self.facts.ctr, self.namespace, route, names, platform=by_flag, terminal=terminal)
        return Script({"push": before + push}, cleanup="\n".join(filter(None, (route.cleanup, cleanup))))

    @property
    def _place(self) -> Place:
        managed = self.namespace == "k8s.io" and self.facts.cri
        owner, root = self.carrier.route.owner, self.facts.content_root
        return Place(self.facts.ctr, self.namespace, self.namespace, root, owner, managed)

    def _verify(self, there: There, cargo: Cargo) -> None:
        if not there.unknown and there.digest != cargo.target.digest:
            raise VerifyFailed(
                f"ctr reports success, but the registry has something else under {self.carrier.reference}",
                said=f"there {there.digest or 'nothing'}\nwanted {cargo.target.digest}",
                hint="somebody else pushes to that name; look again, then run it again",
            )

    def _result(
        self,
        cargo: Cargo,
        status: Status,
        method: str,
        there: There | None = None,
        *,
        seconds: float = 0.0,
        present: int | None = None,
        notices: tuple[str, ...] = (),
    ) -> PushResult:
        unknown = there.unknown if there else ""
        return PushResult(
            str(self.carrier.reference),
            self.image.name,
            self.namespace,
            cargo.target.digest,
            self.image.digest,
            status,
            self.facts.client,
            method,
            sum(cargo.sizes.values()) if cargo.sizes else None,
            present,
            round(seconds, 3),
            "unverified" if unknown else "digest",
            unknown,
            (*cargo.notices, *notices),
        )


def _sizes(content: Content, target: Descriptor) -> dict[str, int]:
    """The sizes of all that a target needs, itself included."""
    sizes = {digest: blob.size for digest, blob in content.below(target).items()}
    return sizes | {target.digest: len(content.blobs.get(target.digest, b""))}


@per_host(
    parse,
    before=before,
    help={
        "ref": "The image as the host has it: a name, its short form, or a digest.",
        "as_": "The name that it gets in the registry (default: its own); no tag is left on the host.",
        "platform": "Push this platform's manifest of a multi-platform image, such as linux/arm64.",
        "all_platforms": "Push all platforms or nothing; by default, where some are absent, the host's own goes.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
    },
)
def push(host: Host, request: Request) -> PushResult:
    """Push an image from its host to a registry, and ask the registry what it has got."""
    return Job(host, request).run()
