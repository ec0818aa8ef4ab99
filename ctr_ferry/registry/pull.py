"""Images that one host pulls from registries: each inspected, planned, pulled, verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctr_ferry.ctr import checks, naming
from ctr_ferry.ctr.failures import required
from ctr_ferry.ctr.listing import Image, Listing, parse_digests
from ctr_ferry.ctr.verdict import Verdict, is_taken, judge, labels_gone, numbers, unproved
from ctr_ferry.errors import Drift, FerryError, MethodUnsupported, ReferenceExists
from ctr_ferry.images import fitness, inspect
from ctr_ferry.images.content import Content
from ctr_ferry.images.session import BY_OTHERS, Session
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.oci.registry import RegistryState
from ctr_ferry.registry import mirrors, pull_space
from ctr_ferry.registry.pull_plan import Move, PullPlan
from ctr_ferry.registry.pull_space import PullSpace
from ctr_ferry.registry.results import PulledImage, PullResult, TransferSetResult
from ctr_ferry.registry.several import TransferSet
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer

if TYPE_CHECKING:
    from ctr_ferry.registry.access import RegistryAccesses
    from ctr_ferry.ssh.host import Host


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What to pull. The registry's tag must point at ``digest``, where one is given."""

    reference: Reference
    digest: str | None = None
    platform: Platform | None = None
    all_platforms: bool = False
    namespace: str | None = None
    force: bool = False


class ImagePull:
    """One image on its way from a registry to one host. The constructor asks nothing, and needs a session that did.

    Raises FerryError where the host's ctr cannot do what is asked for.
    """

    def __init__(
        self, session: Session, request: PullRequest, space: PullSpace, accesses: RegistryAccesses | None = None
    ) -> None:
        from ctr_ferry.registry.access import RegistryAccesses
        from ctr_ferry.registry.push_pull import RegistryTransfer

        self.session, self.request, self._space = session, request, space
        self.host, self.facts, self.place = session.host, session.facts, session.place
        self._refuse_platforms()
        self.transfer = RegistryTransfer(session, request.reference, accesses or RegistryAccesses(session))

    def ask(self) -> None:
        """Asks the registry what it has, and plans the pull; raises FerryError where the registry does not tell."""
        request = self.request
        self.remote = self.transfer.inspect()
        self.plan = PullPlan(
            place=self.place,
            reference=request.reference,
            wanted=request.digest or request.reference.digest or self.remote.digest,
            existing=self.session.here.get(str(request.reference)),
            platform=request.platform,
            all_platforms=request.all_platforms,
            host_platform=self.facts.platform,
        )
        self.unchanged = PullResult(
            reference=self.plan.name,
            namespace=self.place.namespace,
            digest=self.plan.wanted or "",
            status=Status.UNCHANGED,
            ctr=self.facts.client,
            notes=self._notes(),
            verified=self.remote.verified,
        )

    def _notes(self, *more: str) -> tuple[str, ...]:
        return tuple(filter(None, (self.remote.doubt, self.transfer.access.way, *more)))

    def refuse(self) -> None:
        """Raises FerryError where the registry has no such image, or another digest than the one that is wanted."""
        if not self.remote.digest and not self.remote.unknown:
            raise self.transfer.error(RegistryState.NOT_FOUND)
        self._refuse_moved_tag()

    @property
    def has_name(self) -> bool:
        """Whether the host has the wanted digest under the name; the image may still lack content."""
        return self.plan.existing is not None and not self.plan.replaced

    def whole(self, content: Content, check: Answer) -> PullResult | None:
        """The result where the host has the wanted digest under that name, whole and unpacked; else None."""
        plan, image = self.plan, self.plan.existing
        if not image or plan.replaced or plan.shortcoming(image, content, check):
            return None
        unpacked = "" if self._is_artifact(content) else " and unpacked"
        already = f"the host has it already, with the registry's digest, whole{unpacked}"
        return replace(self.unchanged, size=plan.size(image, content), notes=self._notes(already))

    def pull(self) -> PullResult:
        """Pulls the image and verifies that, or says what would be done; raises FerryError if it cannot."""
        if self.plan.replaced:
            self._refuse_to_replace(self.plan.replaced)
        plan = self.plan
        platform = None if plan.all_platforms else plan.platform or plan.host_platform
        self._refuse_unfit(platform)
        size, notices, blobs = self._space.check(self.transfer, platform)
        if not self.host.dry_run:
            result = self._pull(notices)
        else:
            result = replace(
                self.unchanged,
                status=Status.CHANGED,
                method=plan.method,
                size=size,
                notes=self._notes(*notices),
                previous_digest=plan.replaced.digest if plan.replaced else "",
            )
        self._space.take(blobs)
        return result

    def _refuse_platforms(self) -> None:
        asked = self.request.platform or self.request.all_platforms
        if asked and not self.facts.ctr.capabilities.pull_platform:
            raise MethodUnsupported(
                f"ctr {self.facts.client} pulls only the host's own platform; nothing was pulled",
                hint="leave --platform and --all-platforms out",
            )

    def _refuse_unfit(self, platform: Platform | None) -> None:
        """Refuses what this host cannot use, before a byte moves: by one manifest more that is read in the registry."""
        asked, facts, name = self.request.platform, self.facts, self.plan.name
        listed = self.transfer.platforms()
        why = fitness.not_for(name, listed, facts)
        if why and not (asked or self.plan.all_platforms):
            raise fitness.nothing_for(f"{why}; nothing was pulled", listed, elsewhere=self.place.cri_managed)
        unlike = asked and not fitness.runs_here([asked], facts) and not facts.ctr.capabilities.pulls_configs
        if listed and (why or unlike) and self.place.cri_managed:
            what = why or f"{name} for {asked} alone is nothing for CRI, since this host is {facts.platform}"
            raise fitness.nothing_for(f"{what}; nothing was pulled", [asked] if asked else listed, elsewhere=True)
        if fitness.unpacks_no_zstd(facts):
            fitness.refuse_zstd(name, self.transfer.contents(platform) or (), facts)

    def _refuse_moved_tag(self) -> None:
        wanted, found = self.request.digest, self.remote.digest
        if wanted and found and found != wanted:
            by_digest = f"{self.request.reference.repository}@{wanted}"
            raise Drift(
                f"{self.plan.name} points at another digest in the registry than it should; nothing was pulled",
                detail=f"registry {found}\nwanted   {wanted}",
                hint=f"find out who moved the tag, or pull by digest: fab -H HOST pull --ref {by_digest}",
            )

    def _refuse_to_replace(self, existing: Image) -> None:
        """Refuses to move a name without --force, or if a failed pull could lose it; else completes the plan."""
        plan = self.plan
        if not self.request.force:
            raise ReferenceExists(
                f"{plan.name} exists in namespace {self.place.namespace} with another digest than the registry's; "
                "nothing was pulled",
                detail=f"host     {existing.digest}\nregistry {plan.wanted or self.remote.unknown}",
                hint="add --force to move the name to the registry's digest",
            )
        # ctr believes type and length, so the manifest itself is read.
        target = self.transfer.described(plan.wanted) if self.remote.digest and plan.wanted else None
        able = self.facts.ctr.capabilities
        partial = target and target.is_index and not able.partial_index
        if target is None or partial or (plan.only(target) and not able.import_platform):
            raise MethodUnsupported(
                f"{plan.name} cannot be moved: if the pull failed, this host would lose what the name points at now; "
                "nothing was pulled",
                detail=self.remote.unknown
                or f"ctr {self.facts.client} cannot name a multi-platform image that was pulled only in part",
                hint=f"remove the name first: fab -H HOST remove --ref {plan.name} --namespace {self.place.namespace}",
            )
        raw = self.session.read([existing.digest], deep=False)[0].blobs.get(existing.digest)
        old = Descriptor(existing.media_type, existing.digest, len(raw)) if raw else None
        self.plan = replace(plan, move=Move(target, old))

    def _pull(self, notices: tuple[str, ...]) -> PullResult:
        """Runs the script, and verifies what the host has afterwards."""
        plan = self.plan
        answers = self.transfer.run(plan.script, "pull", {})
        was = naming.was(self.place, answers).get(plan.name)
        now = Listing.parse(self.place.namespace, required(answers["verify"], "verify").text).get(plan.name)
        content, verdict = self._content(now, answers), self._judge(now, answers)
        proved = bool(numbers(answers["kept"]))
        error = verdict.error or (plan.shortcoming(now, content, answers["check"]) if now else None)
        if (error or not proved) and self._is_artifact(content) and not plan.artifact:
            self.plan = replace(plan, artifact=True)
            return self._pull((*notices, "an artifact, not an image: it is not unpacked"))
        if error and now and proved and verdict.ours and not plan.existing:
            self.session.roll_back(plan.name, now.digest)
        if error or not now or (verdict.ours and not proved):
            error = error or unproved(plan.name, existed=plan.existing is not None)
            if plan.artifact and plan.replaced and not self.facts.ctr.capabilities.no_unpack:
                error = MethodUnsupported(
                    f"{plan.name} is an artifact, not an image, and ctr {self.facts.client} cannot move a name to one",
                    detail=error.detail,
                    hint=f"remove the name first: fab -H {self.host.name} remove --ref {plan.name} "
                    f"--namespace {self.place.namespace}",
                )
            raise self._with_digest(error, now, answers)
        other = "" if self.plan.beyond_host_platform else fitness.other_platform(now, self.facts)
        notices += tuple(filter(None, [other, labels_gone(plan.existing, now), "" if verdict.ours else BY_OTHERS]))
        return replace(
            self.unchanged,
            digest=now.digest,
            status=Status.CHANGED if verdict.ours else Status.UNCHANGED,
            method=plan.method if verdict.ours else "",
            seconds=self.transfer.seconds,
            size=plan.size(now, content),
            notes=self._notes(*notices),
            previous_digest=was.digest if was and was.digest != now.digest else "",
        )

    def _with_digest(self, error: FerryError, now: Image | None, answers: Mapping[str, Answer]) -> FerryError:
        """Adds to the error what the name points at now, where the name was moved."""
        plan = self.plan
        if plan.replaced and now and now.digest == plan.wanted:
            shown = answers.get("back")
            after = Listing.parse(self.place.namespace, shown.text).get(plan.name) if shown and shown.ok else now
            found = after.digest if after else "nothing"
            again = "again" if found == plan.replaced.digest else f"now, and no longer at {plan.replaced.digest}"
            error.detail = "\n".join(filter(None, (error.detail, f"{plan.name} points at {found} {again}")))
        return error

    def _content(self, now: Image | None, answers: Mapping[str, Answer]) -> Content:
        """What the host has after the pull, as far as it must be read."""
        content = Content(parse_digests(answers["visible"].text.splitlines()))
        if self.plan.wanted and (answers["top"].stdout or (now and now.digest == self.plan.wanted)):
            content.take(self.plan.wanted, answers["top"], self.host.name)
            if self.plan.beyond_host_platform:
                self.session.deepen(content)
        return content

    def _is_artifact(self, content: Content) -> bool:
        """Whether what was pulled is an artifact, which `images pull` fails to unpack."""
        manifest = content.manifest(self.plan.wanted) if self.plan.wanted else None
        return manifest is not None and manifest.is_artifact

    def _judge(self, now: Image | None, answers: Mapping[str, Answer]) -> Verdict:
        """Judges whether the pull gave the name. A failure of the registry keeps its own error."""
        plan = self.plan
        if not answers["pull"].ok and not is_taken(answers["pull"], plan.name):
            return Verdict(self.transfer.failure(answers["pull"]), ours=True)
        return judge(
            plan.name,
            plan.wanted or (now.digest if now else ""),
            answers["pull"],
            now,
            namespace=self.place.namespace,
            cri_managed=self.place.cri_managed,
            tolerant=False,
            fresh=plan.existing is None and plan.stage is not None,
        )


class PullJob(ImagePull):
    """One image that one host pulls. The constructor asks the host and the registry what they have.

    Args:
        session: the host, where it is open already; None is one of its own, with a probe.

    Raises FerryError where one of them does not tell, or the host's ctr cannot do what is asked for.
    """

    def __init__(self, host: Host, request: PullRequest, session: Session | None = None) -> None:
        session = session or Session(host, request.namespace, more=_questions(host))
        super().__init__(session, request, PullSpace(session))
        self.ask()

    def run(self) -> PullResult:
        """Pulls the image where the host does not have it, and verifies that; raises FerryError if it cannot."""
        self.refuse()
        if self.has_name:
            check = checks.command(self.facts.ctr, self.place.namespace, self.plan.name)
            content, answers = self.session.read(
                [str(self.plan.wanted)], deep=self.plan.beyond_host_platform, more={"check": check}
            )
            if found := self.whole(content, answers["check"]):
                return found
        return self.pull()


class PullSet(TransferSet[ImagePull]):
    """Several images that one host pulls. The constructor asks the host what it has; raises as `Session`."""

    def __init__(self, host: Host, requests: Sequence[PullRequest]) -> None:
        session = Session(host, requests[0].namespace, more=_questions(host))
        super().__init__(session, (_unknown(session, str(request.reference)) for request in requests))
        space = PullSpace(session)
        for item, request in zip(self.items, requests, strict=True):
            try:
                item.job = ImagePull(session, request, space, self.accesses)
            except FerryError as error:
                item.fail(error)

    def run(self) -> TransferSetResult:
        """Pulls what the host lacks; raises SomeFailed, with the result, where some images could not be pulled."""
        with self.going_on():
            self.each(_ask)
            self._find_whole()
            self.each(ImagePull.pull)
        return self.settled("images were not pulled")

    def _find_whole(self) -> None:
        """Asks the host which of the images it has whole: in one remote command, for other platforms in up to three."""
        named = [(item, pull) for item, pull in self.pending if pull.has_name]
        if not named:
            return
        names = [pull.plan.name for _, pull in named]
        check = {"check": checks.command(self.session.facts.ctr, self.session.here.namespace, *names)}
        if any(pull.plan.beyond_host_platform for _, pull in named):
            content, answers = self.session.read([str(pull.plan.wanted) for _, pull in named], deep=True, more=check)
        else:  # `images check` tells it, and only what is not unpacked must be read: it may be an artifact
            content, answers = Content(), inspect.ask(self.session.host, check)
            states = checks.parse_checks(answers["check"].text)
            odd = [p for _, p in named if not states.get(p.plan.name, checks.UNKNOWN).unpacked]
            if odd:
                content, _ = self.session.read([str(pull.plan.wanted) for pull in odd], deep=False)
        for item, pull in named:
            if found := pull.whole(content, answers["check"]):
                item.end(found)


def _questions(host: Host) -> dict[str, str]:
    return pull_space.question(host) | mirrors.question(host)


def _ask(pull: ImagePull) -> None:
    pull.ask()
    pull.refuse()


def _unknown(session: Session, name: str) -> PulledImage:
    namespace, ctr = session.here.namespace, session.facts.client
    return PulledImage(reference=name, namespace=namespace, digest="", status=Status.SKIPPED, ctr=ctr)
