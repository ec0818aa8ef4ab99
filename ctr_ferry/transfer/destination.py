"""One host of a copy: what it has, what is to be done there with each image, and the names that images get."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from ctr_ferry.ctr import checks, free_space, ingest, sandbox
from ctr_ferry.ctr.checks import Check
from ctr_ferry.ctr.commands import PINNED
from ctr_ferry.ctr.failures import failure, required
from ctr_ferry.ctr.free_space import Room
from ctr_ferry.ctr.ingest import ImageBlobs, Store
from ctr_ferry.ctr.listing import Image, parse_digests
from ctr_ferry.ctr.methods import ByBlobs, Method
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.ctr.verdict import exists
from ctr_ferry.ctr.version import DaemonCapabilities
from ctr_ferry.errors import READ_LOG, ContentMissing, DiskFull, FerryError, MethodUnsupported, VerifyFailed
from ctr_ferry.images import fitness, inspect
from ctr_ferry.images.content import Content
from ctr_ferry.images.item import Item, doubt, refuse_artifact, refuse_wrong_digest
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import DOCUMENTS, INDEXES, Descriptor
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.host import Host
from ctr_ferry.transfer.copy_request import CopyOptions, CopyRequest, ImageCopy, blobs_to_copy, lacking
from ctr_ferry.transfer.copy_result import CopiedImage
from ctr_ferry.transfer.plan import Plan, pending


@dataclass(frozen=True, slots=True)
class Destination:
    """What is to come to a host, and what the host has before that.

    Attributes:
        session: the host, open for the namespace that the images go to.
        content: the manifests that the source or this host has, and all blobs that either of them has.
        checks: by name, whether an image that is there already is complete and unpacked.
        room: None if the host does not say.
    """

    copy_request: CopyRequest
    session: Session
    store: Store
    content: Content
    checks: Mapping[str, Check]
    room: Room | None = None

    @classmethod
    def inspect(
        cls, host: Host, copy_request: CopyRequest, owner: str | None = None, *, session: Session | None = None
    ) -> Destination:
        """Asks a host what it has, in one remote command, or two where it must read manifests.

        Args:
            owner: the word that the names of this copy's labels and ingests begin with; None means the run's id.
            session: the host, where it was probed already.

        Raises:
            HostError: the host has no ctr that can be used, or does not answer.
        """
        namespace = inspect.namespace(host, copy_request.options.namespace)
        names = [str(image_copy.dst) for image_copy in copy_request.image_copies]
        questions = ingest.questions(host.target.variables_of(Settings), namespace, names)
        if session:
            answers = inspect.ask_as_the_probe(host, questions)
        else:
            session = Session(host, namespace, owner=owner, more=questions)
            answers = session.answers
        text, active = (required(answers[step], step).text for step in ("store", "active"))
        store = ingest.parse_store(text, active, namespace, datetime.now(UTC))
        return cls(
            copy_request=copy_request,
            session=session,
            store=store,
            content=_content(session, copy_request, store),
            checks=checks.parse_checks(answers["check"].text),
            room=free_space.parse(answers["room"].text),
        )

    @property
    def _options(self) -> CopyOptions:
        return self.copy_request.options

    def plan_images(self) -> list[Item[CopiedImage]]:
        """Decides what is to be done with each image; one that cannot be copied is no `Plan`, and has its error."""
        items = [self._plan(image_copy) for image_copy in self.copy_request.image_copies]
        self._count_blobs(pending(items))
        return items

    def _plan(self, image_copy: ImageCopy) -> Item[CopiedImage]:
        image, dst = image_copy.image, str(image_copy.dst)
        result = CopiedImage(
            source=image.name, reference=dst, digest=image.digest, source_digest=image.digest, status=Status.CHANGED
        )
        item: Item[CopiedImage] = Item(result, self.session.there.get(dst))
        try:
            item = plan = self._decide(item, image_copy)
            self._compare_with_existing(plan)
        except FerryError as error:
            if isinstance(error, ContentMissing):
                error.hint = error.hint or self.copy_request.remedy
            item.fail(error)
        return item

    def _decide(self, item: Item[CopiedImage], image_copy: ImageCopy) -> Plan:
        """Settles what the name shall point at, and which blobs it needs."""
        options, facts, content = self._options, self.session.facts, self.content
        if options.pin:
            self._refuse_pin_without_cri()
        image, partial_index = image_copy.image, facts.ctr.capabilities.partial_index
        if not options.platform:
            self._refuse_unfit(image)
        choice = content.choose(image, options.platform, facts.platform, partial_index=partial_index)
        item.result.digest = choice.target.digest
        item.add_note(choice.note)
        item.add_note(doubt(image_copy.dst, image.name, self.session.host))
        refuse_wrong_digest(image_copy.dst, item.result, facts)
        platform = options.platform or facts.platform
        blobs = blobs_to_copy(
            content, image, choice.target, platform, every=options.every, origin=self.copy_request.origin
        )
        if options.own:
            kept = {blob.digest for blob in content.needed(choice.target, platform)}
            if not partial_index:
                kept |= {document.digest for document in content.tree(choice.target).documents}
            blobs = [blob for blob in blobs if blob.digest in kept]
        if options.unpack and not content.is_artifact(choice.target):
            fitness.refuse_zstd(image.name, content.needed(choice.target, platform), facts, content.zstd)
        documents = {blob.digest: content.blobs[blob.digest] for blob in blobs if blob.digest in content.blobs}
        return Plan(
            result=item.result,
            existing=item.existing,
            image_copy=image_copy,
            target=choice.target,
            needed=ImageBlobs(tuple(blobs), documents),
        )

    def _refuse_unfit(self, image: Image) -> None:
        """Raises for an index that has nothing for this host's platform, or of which nobody has that part."""
        facts = self.session.facts
        fitness.refuse_other_platforms(image, facts, self.session.place.namespace)
        manifests = self.content.tree(Descriptor(image.media_type, image.digest, 0)).manifests
        usable = [each.digest for each in manifests if each.platform and fitness.runs_here([each.platform], facts)]
        if usable and image.media_type in INDEXES and self.content.visible.isdisjoint(usable):
            raise lacking(image, usable, self.copy_request.origin)

    def _compare_with_existing(self, plan: Plan) -> None:
        result, image = plan.result, plan.image_copy.image
        if plan.existing and plan.moves:
            if not self._options.force:
                raise exists(result.reference, self.session.place.namespace, plan.existing.digest, result.digest)
            result.previous_digest = plan.existing.digest
        elif plan.existing and self._is_whole(plan, plan.existing):
            is_part = result.digest != image.digest
            plan.unchanged(f"same (platform manifest of index {image.digest})" if is_part else "it is there already")
        if plan.pending and self.content.is_artifact(plan.target):
            refuse_artifact(image.name, self.session.facts)
        if plan.pending and not self._options.platform:
            plan.add_note(fitness.other_platform(image, self.session.facts))
        if plan.pending and not self._options.unpack and not self.session.facts.ctr.capabilities.no_unpack:
            plan.add_note(f"ctr {self.session.facts.client} always unpacks")

    def _refuse_pin_without_cri(self) -> None:
        server, place = self.session.facts.server, self.session.place
        if not (place.cri_managed and DaemonCapabilities.of(server).pins):
            raise MethodUnsupported(
                f"containerd {server} does not pin {place.namespace}'s images",
                detail="CRI heeds the label from containerd 1.7 on, in k8s.io alone",
                hint="leave --pin out for this host",
            )

    def _is_whole(self, plan: Plan, existing: Image) -> bool:
        """Tells whether the existing name has all of its content: a failed import may have left the name without."""
        platform = self._options.platform or self.session.facts.platform
        needed = self.content.needed(plan.target, platform) if self._options.own else plan.needed.blobs
        there = all(blob.digest in self.store.here for blob in needed)
        pinned = not self._options.pin or PINNED in existing.labels
        known = existing.cri_managed or not self.session.place.cri_managed
        return (
            there and pinned and known and self._is_usable(plan, self.checks.get(plan.result.reference, checks.UNKNOWN))
        )

    def _is_usable(self, plan: Plan, check: Check) -> bool:
        """Tells whether containerd says that an image is complete and unpacked, as far as this host's platform goes."""
        unpacked = check.unpacked or not self._options.unpack
        return self._is_foreign(plan) or (check.complete and unpacked)

    def _is_foreign(self, plan: Plan) -> bool:
        """Tells whether containerd does not unpack it: an image of another platform than the host's, or an artifact."""
        if self.content.is_artifact(plan.target):
            return True
        if plan.target.platform:
            return plan.target.platform != self.session.facts.platform
        image = plan.image_copy.image
        return image.platforms == "-" or not image.is_for(self.session.facts.platform)

    def _count_blobs(self, plans: Iterable[Plan]) -> None:
        """Counts what is to be sent. A blob that several images need counts for the first."""
        counted: set[str] = set()
        for plan in plans:
            result, has = plan.result, self.store.here | self.store.elsewhere | counted
            sent = [blob for blob in plan.needed.blobs if blob.digest not in has]
            saved = [blob for blob in plan.needed.blobs if blob.digest in has]
            counted |= {blob.digest for blob in sent}
            result.blobs, result.bytes = len(sent), sum(blob.size for blob in sent)
            result.blobs_there, result.bytes_there = len(saved), sum(blob.size for blob in saved)
            linked = any(blob.digest in self.store.elsewhere - self.store.here for blob in saved)
            result.method = Method.BLOBS if sent else Method.LINK if linked else Method.INDEX

    def without_links(self, unlinked: Collection[str], plans: Sequence[Plan]) -> Destination:
        """Returns the same host where other namespaces do not share these blobs; the plans count anew what is sent."""
        if not unlinked:
            return self
        taken_in = {digest for plan in plans for digest in plan.needed.documents}
        store = replace(self.store, elsewhere=self.store.elsewhere - taken_in.union(unlinked))
        found = replace(self, store=store)
        found._count_blobs(plans)
        return found

    def without_isolated(self, plans: Sequence[Plan]) -> Destination:
        """For a dry run, which links nothing: the same host without the blobs that its namespaces would not share."""
        if not any(blob.digest in self.store.elsewhere for plan in plans for blob in plan.needed.blobs):
            return self
        facts = self.session.facts
        steps = Script({"sharing": sandbox.sharing(facts.ctr, facts.content_root)})
        isolated = sandbox.is_isolated(self.session.host.ask(steps)["sharing"])
        return self.without_links(self.store.elsewhere if isolated else (), plans)

    def check_room(self, todo: Sequence[Plan], *, dry_run: bool) -> tuple[str, ...]:
        """Fails the images that surely do not fit, before anything is sent.

        Returns:
            What the user should know: what may not fit, and in a dry run how much room is needed.
        """
        coming, unpacked = sum(plan.result.bytes for plan in todo), self._growth(todo)
        verdict = free_space.judge(self.room, coming, unpacked)
        if isinstance(verdict, DiskFull):
            for plan in todo:
                if plan.result.bytes:
                    plan.fail(verdict)
            return ()
        needs = free_space.needs(self.room, coming, unpacked) if dry_run and (coming or unpacked) else ""
        return tuple(filter(None, (verdict, needs)))

    def _growth(self, todo: Sequence[Plan]) -> int:
        """Estimates the bytes that unpacking takes. Layers that are here already are mostly unpacked."""
        if not self._options.unpack:
            return 0
        platform = self._options.platform or self.session.facts.platform
        targets = [plan.target for plan in todo if not self._is_foreign(plan)]
        layers = {blob.digest: blob for target in targets for blob in self.content.needed(target, platform)}
        return free_space.growth(blob for digest, blob in layers.items() if digest not in self.store.here)

    def name_images(self, ready: Sequence[Plan]) -> None:
        """Names images whose blobs are there, in one remote command; verifies each, and notes the result in its plan.

        Raises:
            FerryError: the host did not answer.
        """
        self.session.give(ready, [self._naming(plan) for plan in ready], partial(self._explain, ready))
        for plan in ready:
            plan.done = plan.again is None

    def _naming(self, plan: Plan) -> ByBlobs:
        target, needed = plan.target, tuple(blob.digest for blob in plan.needed.blobs)
        content = replace(self.content, visible=frozenset(needed))
        whole, foreign = content.below(target).keys() <= content.visible, self._is_foreign(plan)
        return ByBlobs(
            name=plan.image_copy.dst,
            target=target,
            replaces=plan.existing is not None,
            whole=whole,
            foreign=foreign,
            rest=content.rest(target, self.session.facts.platform) if target.is_index and not whole else {},
            unpack=self._options.unpack,
            complete=not foreign,
            pin=self._options.pin,
            labels=plan.existing.others_labels if plan.existing else (),
            blobs=needed,
        )

    def _explain(self, ready: Sequence[Plan], number: int, answers: Mapping[str, Answer]) -> FerryError | None:
        """Returns what is wrong with a named image besides its name, by what the host says."""
        plan, there = ready[number], parse_digests(answers["there"].text.splitlines())
        dst = plan.result.reference
        if absent := [blob.digest for blob in plan.needed.blobs if blob.digest not in there]:
            return VerifyFailed(
                f"{dst} is named, but blobs of it have vanished meanwhile",
                detail="\n".join(absent),
                hint="something removes images on that host all the time: run the same command again",
            )
        listed = checks.parse_checks(answers["check"].text) if "check" in answers else {}
        check = listed.get(dst, checks.UNKNOWN)
        if not self._is_usable(plan, check):
            return VerifyFailed(
                f"{dst} is named, but containerd says that the image is not whole or not unpacked",
                detail=f"{check.status}, {'unpacked' if check.unpacked else 'not unpacked'}",
                hint=READ_LOG,
            )
        pinned = answers.get(f"pin-{number}")
        return failure(pinned, dst) if pinned and not pinned.ok else None


def _content(session: Session, copy_request: CopyRequest, store: Store) -> Content:
    """Adds what this host has to what the source has.

    A manifest that only this host has is read here. A manifest that cannot be read counts as absent.
    """
    given = copy_request.content
    own = replace(given, visible=store.here, blobs=dict(given.blobs), bad=dict(given.bad))
    session.deepen(own)
    indexes = [index for digest in own.blobs if (index := own.manifest(digest))]
    listed = {child.digest for index in indexes for child in index.children if child.media_type in DOCUMENTS}
    unread = listed - own.blobs.keys() - given.bad.keys()
    return replace(own, visible=given.visible | ((store.here | store.elsewhere) - unread), bad=given.bad)
