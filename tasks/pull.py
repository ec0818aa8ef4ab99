"""``pull``: hosts take an image from a registry, each by itself, and it is looked at what they got."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctr_ferry.ctr import checks, free_space, naming, roll_back
from ctr_ferry.ctr.failures import content_missing, required
from ctr_ferry.ctr.listing import Image, Listing, parse_digests
from ctr_ferry.ctr.naming import Method, Naming, Place
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.ctr.roll_back import Given, Records
from ctr_ferry.ctr.verdict import is_taken, judge, labels_gone, numbers, unproved
from ctr_ferry.errors import (
    Drift,
    FerryError,
    HostError,
    MethodUnsupported,
    NotUnpacked,
    PlatformMissing,
    ReferenceExists,
    UsageError,
)
from ctr_ferry.images import inspect
from ctr_ferry.images.content import Content
from ctr_ferry.images.roll_back import remove_names
from ctr_ferry.oci.descriptor import INDEXES, Descriptor, Platform
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.oci.registry import Registries
from ctr_ferry.registry import credentials
from ctr_ferry.report.outcome import Status
from ctr_ferry.run import options
from ctr_ferry.run.command import per_host
from ctr_ferry.shell import Answer, Script

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.ssh.target import Target

ALREADY = "it is there already, with the registry's digest, whole and unpacked"


@dataclass(frozen=True, slots=True)
class Request:
    """What is pulled; ``digest`` is what its tag must point at."""

    reference: Reference
    digest: str | None = None
    platform: Platform | None = None
    all_platforms: bool = False
    namespace: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class PullResult:
    """What the host has now.

    Attributes:
        digest: what the name points at.
        previous_digest: what it pointed at before it was, or would be, moved; empty where it is new.
        bytes: of all blobs that the platforms asked for need; None where they were not read.
        seconds: that ctr took.
        method: pull, or stage (through a name of its own, where a name was moved); empty where nothing was to be done.
        verified: ``digest``, or ``unverified`` where the registry could not be asked; ``reason`` tells why.
        notices: what a person should know of it.
    """

    reference: str
    namespace: str
    digest: str
    status: Status
    ctr: str
    method: str = ""
    bytes: int | None = None
    seconds: float = 0.0
    verified: str = "digest"
    reason: str = ""
    notices: tuple[str, ...] = ()
    previous_digest: str = ""

    def given(self) -> list[tuple[str, str, str]]:
        """The name with its digest."""
        return [(self.reference, self.digest, "")]

    def lines(self) -> list[str]:
        """The name, its digest, and what is to be known."""
        from ctr_ferry.registry.push_pull import told

        name, *below = told(f"{self.reference} in {self.namespace}", self)
        return [name, *below[:1], *([f"  replaces {self.previous_digest}"] if self.previous_digest else []), *below[1:]]


def parse(
    *,
    ref: str | None = None,
    digest: str | None = None,
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
        raise UsageError("pull needs --ref REF", hint="fab -H all pull --ref registry.example/app:1")
    reference = Reference.parse(ref)
    if digest and not is_digest(digest):
        raise UsageError(f"--digest {digest!r} is no digest", hint="a digest is sha256: and 64 hex digits")
    if reference.digest and (reference.tag or digest):
        raise UsageError(
            f"--ref {ref} has a digest and {'a tag' if reference.tag else '--digest another'}",
            hint="give a tag with --ref, and what it must point at with --digest",
        )
    reference = reference if reference.tag or reference.digest else reference.with_tag("latest")
    return Request(
        reference,
        digest,
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
    credentials.check({target.variables_of(Registries).named(request.reference.domain) for target in targets})


class Job:
    """One image on its way to one host."""

    def __init__(self, host: Host, request: Request) -> None:
        from ctr_ferry.registry.push_pull import RegistryTransfer, There

        self.host, self.request, self.name = host, request, str(request.reference)
        self.namespace = inspect.namespace(host, request.namespace)
        facts, answers = inspect.survey(
            host, (self.namespace,), {"room": free_space.question(host.target.variables_of(Settings))}
        )
        if isinstance(facts, HostError):
            raise facts
        self.facts: Facts = facts
        self.room = free_space.parse(answers["room"].text)
        self.before: Listing = self.facts.listings[self.namespace]
        self.existing: Image | None = self.before.get(self.name)
        if (request.platform or request.all_platforms) and not self.facts.ctr.capabilities.piped:
            raise MethodUnsupported(
                f"ctr {self.facts.client} pulls the host's own platform alone",
                hint="leave --platform and --all-platforms out",
            )
        self.transfer = RegistryTransfer(host, self.facts, request.reference)
        self.there = There(None)
        self.notices: tuple[str, ...] = ()
        self.previous = ""
        self.taken = False

    def run(self) -> PullResult:
        """Looks at both ends, pulls where they differ, and looks at what came.

        Raises:
            FerryError.
        """
        self.there = self.transfer.look()
        if not self.there.target and not self.there.unknown:
            raise self.transfer.missing()
        self._refuse_moved_tag()
        if self.existing and self.existing.digest == self.wanted and (found := self._whole()):
            return found
        if self.existing and self.moves:
            self._refuse_to_replace()
            self.previous = self.existing.digest
        method = "stage" if self.moves else "pull"
        every = self.request.all_platforms
        platform = None if every else self.request.platform or self.facts.platform
        size, self.notices = self.transfer.weigh(self.room, platform)
        if self.host.dry_run:
            return self._result(self.wanted or "", Status.CHANGED, method, size=size)
        return self._pull(method)

    @property
    def moves(self) -> bool:
        """Whether the name points elsewhere so far."""
        return self.existing is not None and self.existing.digest != self.wanted

    @property
    def wanted(self) -> str | None:
        """The digest that the name shall have; None where neither user nor registry told."""
        return self.request.digest or self.request.reference.digest or self.there.digest

    def _refuse_moved_tag(self) -> None:
        if self.request.digest and self.there.digest and self.there.digest != self.request.digest:
            raise Drift(
                f"{self.name} points at another digest in the registry than it should",
                detail=f"there  {self.there.digest}\nwanted {self.request.digest}",
                hint="find out who moved it; or pull by digest: --ref "
                f"{self.request.reference.repository}@{self.request.digest}",
            )

    def _refuse_to_replace(self) -> None:
        """A name that points elsewhere stays, unless told otherwise, and unless it can be moved at the very end."""
        assert self.existing  # noqa: S101
        if not self.request.force:
            raise ReferenceExists(
                f"{self.name} exists in namespace {self.namespace} with another digest than the registry's",
                detail=f"there    {self.existing.digest}\nregistry {self.wanted or self.there.unknown}",
                hint="add --force to let the name point at what comes",
            )
        target, able = self.there.target, self.facts.ctr.capabilities
        partial = target and target.is_index and not able.partial_index
        if target is None or partial or (self._only and not able.import_platform):
            raise MethodUnsupported(
                f"{self.name} cannot be moved on this host without losing what it was, should the pull fail",
                detail=self.there.unknown or f"ctr {self.facts.client} cannot name an index with absent platforms",
                hint="take the name away first, with remove",
            )

    @property
    def _only(self) -> Platform | None:
        """The one platform of an index that comes, where it is not the host's."""
        target, platform = self.there.target, self.request.platform
        return platform if target and target.is_index and platform != self.facts.platform else None

    def _whole(self) -> PullResult | None:
        """The result where the host has it all already."""
        check = checks.command(self.facts.ctr, self.namespace, self.name)
        tops = [str(self.wanted)]
        content, answers = inspect.content(
            self.host, self.facts, self.namespace, tops, deep=self._deep, more={"check": check}
        )
        image = self.existing
        assert image  # noqa: S101
        if self._lacks(image, content, answers["check"]):
            return None
        self.notices = (ALREADY,)
        return self._result(image.digest, Status.UNCHANGED, "", size=self._size(image, content))

    @property
    def _deep(self) -> bool:
        """Whether ctr's own check, which knows the host's platform alone, does not do."""
        return self.request.all_platforms or self.request.platform not in (None, self.facts.platform)

    def _needed(self, image: Image, content: Content) -> list[Descriptor]:
        top = Descriptor(image.media_type, image.digest, len(content.blobs.get(image.digest, b"")))
        if self.request.all_platforms:
            return list(content.below(top).values())
        return content.needed(top, self.request.platform or self.facts.platform)

    def _size(self, image: Image, content: Content) -> int | None:
        needed = self._needed(image, content)
        whole = len(needed) > 1 and (self._deep or not needed[0].is_index)
        return sum(blob.size for blob in needed) if whole else None

    def _lacks(self, image: Image, content: Content, check: Answer) -> FerryError | None:
        """Why the image is not as it must be, if so."""
        wanted = self.request.platform
        other = wanted and image.listed and not any(wanted.takes(each) for each in image.listed)
        if other and image.media_type not in INDEXES:
            return PlatformMissing(
                f"{self.name} is for {image.platforms}, not for {wanted}", hint="leave --platform out"
            )
        try:
            needed = self._needed(image, content)
        except FerryError as error:  # a manifest that is there cannot be read
            return error
        if self._deep:
            absent = [blob.digest for blob in needed if blob.digest not in content.visible]
            return content_missing(self.name, "\n".join(absent)) if absent else None
        state = checks.parse_checks(check.text).get(self.name, checks.UNKNOWN)
        if not state.complete:
            return content_missing(self.name, state.status)
        if not state.unpacked:
            return NotUnpacked(
                f"{self.name} in namespace {self.namespace} is whole, but not unpacked",
                hint="look at containerd's log on that host, then run it again",
            )
        return None

    def _pull(self, method: str) -> PullResult:
        began = time.monotonic()
        answers = self.transfer.run(self._script, "pull", {})
        seconds = time.monotonic() - began
        was = naming.was(self._place, answers).get(self.name)
        now = Listing.parse(self.namespace, required(answers["verify"], "verify").text).get(self.name)
        content = Content(parse_digests(answers["visible"].text.splitlines()))
        if now and self.wanted == now.digest:
            content.take(now.digest, answers["top"], self.host.name)
            if self._deep:
                inspect.deepen(self.host, self.facts, self.namespace, content)
        kept = bool(numbers(answers["kept"]))
        error = self._judge(now, content, answers)
        if error and now and kept and not self.existing:
            remove_names(self.host, self.facts.ctr, self.before, [self.name], {now.digest})
        if error := error or (None if kept or self.taken else unproved(self.name)):
            raise error
        assert now  # noqa: S101
        size = self._size(now, content)
        self.notices += tuple(filter(None, [labels_gone(self.existing, now)]))
        self.previous = was.digest if was and was.digest != now.digest else ""
        if self.taken:
            self.notices += ("somebody else gave that name meanwhile, with this digest",)
            return self._result(now.digest, Status.UNCHANGED, "", seconds=seconds, size=size)
        return self._result(now.digest, Status.CHANGED, method, seconds=seconds, size=size)

    @property
    def _stage(self) -> Reference | None:
        """A name of this run alone, for the digest, which no tag that moves and nobody else who pulls gets at.

        The name follows when it is whole. None where that cannot be: then the name itself is pulled.
        """
        able = self.facts.ctr.capabilities.tag or self.moves
        if not (self.wanted and self.request.reference.tag and able):
            return None
        return replace(self.request.reference, tag=self._place.owner, digest=self.wanted)

    def _script(self, terminal: str | None) -> Script:
        from ctr_ferry.ctr import push_pull

        ctr, namespace, request, place, stage = self.facts.ctr, self.namespace, self.request, self._place, self._stage
        pulled = push_pull.pull(
            ctr,
            namespace,
            self.transfer.route,
            str(stage or self.name),
            platform=request.platform,
            all_platforms=request.all_platforms,
            terminal=terminal,
        )
        there = ctr.line(namespace, "images", "ls", "-q", f'name=="{self.name}"')
        first = "staged_0=1" if stage else f'[ -n "$({there})" ] || began_0=1'
        was = f"was=$({ctr.images(namespace, self.name)})\n" if self.moves else ""
        last = f" && {self._follow(stage)}" if stage else ""
        moment = "" if ctr.capabilities.tag else f"{naming.MOMENT}\n"
        given, records = self._given(stage), Records(ctr, namespace) if place.cri_managed else None
        undo = roll_back.undo(ctr, namespace, [given], records, cri_managed=place.cri_managed)
        return Script(
            {
                "pull": f"{was}{first}\n{{ {pulled}; }}{last}\nnamed_0=$?; (exit $named_0)",
                **({"was": "printf '%s\\n' \"$was\""} if self.moves else {}),
                "verify": moment + naming.verify(place, filter(None, (self.name, given.stage))),
                "check": naming.check(place, self.name),
                "kept": roll_back.kept([given], cri_managed=place.cri_managed),
                "top": ctr.document(namespace, self.wanted) if self.wanted else "false",
                "visible": ctr.digests(namespace),
            },
            records.before if records else "",
            cleanup=f"{undo}\n{self.transfer.route.cleanup}",
        )

    def _given(self, stage: Reference | None) -> Given:
        """What the pull gives; without a stage, kubelet may pull the same image by the same name meanwhile."""
        whole = not self._deep
        shared = checks.command(self.facts.ctr, self.namespace, self.name) if whole and not stage else ""
        name = str(stage or "")
        return Given(0, self.name, self.wanted, name, complete=whole, unpacked=whole, shared=shared)

    @property
    def _place(self) -> Place:
        cri_managed = self.namespace == "k8s.io" and self.facts.cri
        owner = f"ctr-ferry.{self.host.run_id}"
        return Place(self.facts.ctr, self.namespace, self.namespace, self.facts.content_root, owner, cri_managed)

    def _follow(self, stage: Reference) -> str:
        """The name follows the one that was pulled, which is whole by then; one that is right already stays."""
        place, target, platform = self._place, self.there.target, self.request.platform
        if self.existing and not self.moves:
            return ":"
        named = Naming(Method.TAG, str(stage), self.request.reference, digest=self.wanted)
        if not self.moves:
            return naming.by_tag(place, named, self.namespace, str(stage))
        assert target  # noqa: S101
        every = self.request.all_platforms
        named = replace(
            named,
            method=Method.INDEX,
            target=target,
            replaces=True,
            whole=every,
            foreign=platform not in (None, self.facts.platform) and not target.is_index,
            only=self._only,
        )
        steps = [naming.keep_children(place, target.digest)] if target.is_index and not every else []
        return " &&\n".join([*steps, naming.by_index(place, named)])

    def _judge(self, now: Image | None, content: Content, answers: Mapping[str, Answer]) -> FerryError | None:
        if not answers["pull"].ok and not is_taken(answers["pull"], self.name):
            return self.transfer.failure(answers["pull"])
        verdict = judge(
            self.name,
            self.wanted or (now.digest if now else ""),
            answers["pull"],
            now,
            namespace=self.namespace,
            cri_managed=self._place.cri_managed,
            tolerant=False,
            fresh=self.existing is None and self._stage is not None,
        )
        if not verdict.ours:
            self.taken = verdict.error is None
        return verdict.error or (self._lacks(now, content, answers["check"]) if now else None)

    def _result(
        self,
        digest: str,
        status: Status,
        method: str,
        *,
        seconds: float = 0.0,
        size: int | None = None,
    ) -> PullResult:
        return PullResult(
            self.name,
            self.namespace,
            digest,
            status,
            self.facts.client,
            method,
            size,
            round(seconds, 3),
            "unverified" if self.there.unknown else "digest",
            self.there.unknown,
            self.notices,
            self.previous,
        )


@per_host(
    parse,
    before=before,
    help={
        "ref": "The image's name in the registry, with a tag (default: latest) or a digest.",
        "digest": "What the tag must point at; a tag that has moved is refused.",
        "platform": "Pull this platform of a multi-platform image rather than the host's own.",
        "all_platforms": "Pull all platforms of a multi-platform image.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "force": "Let an existing name point at what comes.",
    },
)
def pull(host: Host, request: Request) -> PullResult:
    """Pull an image from a registry on every host, and look at what came; --serial N spares the registry."""
    return Job(host, request).run()
