"""Images of one host that get second names: what is asked, planned, applied, verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctr_ferry.ctr.failures import content_missing
from ctr_ferry.ctr.listing import Image, parse_digests
from ctr_ferry.ctr.methods import ByArchive, ByIndex, ByLink, ByTag, Method, Naming
from ctr_ferry.ctr.verdict import exists
from ctr_ferry.errors import FerryError, MethodUnsupported, ReferenceExists
from ctr_ferry.images import fitness
from ctr_ferry.images.content import Content
from ctr_ferry.images.item import ImageResult, Item, NamedImages, doubt, refuse_artifact, refuse_wrong_digest, settle
from ctr_ferry.images.mappings import Pair, moved_to
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.report.answers import grouped
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer
from ctr_ferry.text import shown_name, tail

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host

ALREADY = "it is there already, with this digest"


@dataclass(frozen=True, slots=True)
class RetagRequest:
    """The options, checked before the first connection."""

    pairs: tuple[Pair, ...] = ()
    to_registry: str | None = None
    match: str | None = None
    namespace: str | None = None
    to_namespace: str | None = None
    method: Method = Method.AUTO
    platform: Platform | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class RetagResult(NamedImages):
    """One host's result: the namespaces of sources and new names, the versions, and one entry per source.

    Attributes:
        already: how many names that the glob fits are on that registry already.
        notes: what the user should know.
    """

    namespace: str
    to_namespace: str
    ctr: str
    containerd: str
    images: tuple[ImageResult, ...]
    already: int = 0
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """One line per image; its digest and notes are indented below."""
        if not self.images:
            already = ["what fits is on that registry already"] if self.already else []
            return [*self.notes, *already] or [f"no image of namespace {self.namespace} fits"]
        where = f" in {self.to_namespace}" if self.to_namespace != self.namespace else ""
        several = len(self.images) > 1
        lines = [line for image in self.images for line in image.lines(where=where, ctr=self.ctr, several=several)]
        return [*lines, *self.notes]


@dataclass(slots=True, kw_only=True)
class Plan(Item[ImageResult]):
    """One image on one host: what is asked and what is planned; ``dst`` has its tag.

    Attributes:
        target: what the name is to point at; None where `images tag` gives the name, which needs no content.
        duplicate_of: an earlier plan that gives the same name to the same image.
    """

    source: Image
    dst: Reference
    target: Descriptor | None = None
    duplicate_of: Plan | None = None

    @property
    def is_platform_manifest(self) -> bool:
        """Whether one platform's manifest of an index gets the name."""
        return self.result.digest != self.source.digest

    def note_answers(self, number: int, answers: Mapping[str, Answer]) -> None:
        """Notes that content was streamed, where linking failed."""
        link = answers.get(f"link-{number}")
        if link and not link.ok:
            self.result.method = Method.STREAM
            self.result.notes = (f"linking failed: {tail(link.stderr, lines=1)}",)


def refuse_collisions(plans: Sequence[Plan], *, within_namespace: bool) -> None:
    """Fails the plans that would give one name to two images, or a name that is the source of another plan.

    ``a/x:1`` and ``b/x:1`` would both become ``c/x:1`` on registry ``c``. If both have the same digest, the second plan
    becomes a duplicate of the first. A name in another namespace is no source.
    """
    sources = {plan.source.name for plan in plans} if within_namespace else set()
    by_name = grouped((plan.result.reference, plan) for plan in plans)
    for plan in plans:
        same_name = by_name[plan.result.reference]
        if others := [rival.source.name for rival in same_name if rival.source.digest != plan.source.digest]:
            both = f"{shown_name(plan.source.name)} and {shown_name(others[0])}"
            plan.fail(_collision(f"{both} would both become {plan.dst}"))
        elif plan is not same_name[0] and plan.pending:
            plan.duplicate_of = same_name[0]
            plan.unchanged(f"the same image gets that name from {shown_name(same_name[0].source.name)}")
        elif plan.pending and plan.result.reference in sources:
            plan.fail(_collision(f"{plan.dst} is the source of another line"))


def _collision(message: str) -> ReferenceExists:
    return ReferenceExists(message, hint="give each a name of its own with --map, or retag them in two runs")


class RetagJob(Session):
    """One run of retag on one host: inspects, plans, applies, verifies."""

    def __init__(self, host: Host, request: RetagRequest) -> None:
        super().__init__(host, request.namespace, request.to_namespace)
        self.request = request
        self.content = Content()
        self.visible_there: frozenset[str] = frozenset()
        self.plans: list[Plan] = []
        self.missing: list[Item[ImageResult]] = []
        self.already = 0

    def run(self) -> RetagResult:
        """Does all steps; raises SomeFailed with the result, or the FerryError of the only image or of the host."""
        for pair in self._pairs():
            self._plan(pair)
        refuse_collisions(self.plans, within_namespace=not self.place.crosses)
        self._inspect_content()
        for plan in self.plans:
            if plan.pending:
                self._decide(plan)
        todo = [plan for plan in self.plans if plan.pending]
        if todo and not self.host.dry_run:
            self.give(todo, [self._naming(plan) for plan in todo])
        return self._result()

    def _pairs(self) -> tuple[Pair, ...]:
        if not self.request.match:
            return self.request.pairs
        fitting = self.here.carried(self.request.match)
        pairs = moved_to(str(self.request.to_registry), fitting)
        self.already = len(fitting) - len(pairs)
        return pairs

    def _plan(self, pair: Pair) -> None:
        """Plans one pair by the listings alone."""
        source = self.here.find(pair.src)
        if not source:
            self.missing.append(Item(ImageResult(pair.src, str(pair.dst)), None))
            return
        tag = source.reference.tag if source.reference else None
        dst = pair.dst.or_tagged(tag or "latest")
        existing = self.there.get(str(dst))
        result = ImageResult(source.name, str(dst), source.digest, source.digest, status=Status.CHANGED)
        plan = Plan(result=result, existing=existing, source=source, dst=dst)
        self.plans.append(plan)
        if source.name == str(dst) and not self.place.crosses:
            plan.unchanged("source and destination are the same name")
        elif existing and existing.digest == source.digest and not self.request.platform and not self.place.crosses:
            plan.unchanged(ALREADY)

    def _needs_content(self, plan: Plan) -> bool:
        by_tag = self.request.method in (Method.AUTO, Method.TAG) and self.facts.ctr.capabilities.tag
        moves = plan.moves and self.request.force
        return plan.pending and (self.place.crosses or not by_tag or moves or bool(self.request.platform))

    def _inspect_content(self) -> None:
        """Reads the manifests that the plans need, in one remote command; in two with those of indexes, or in none."""
        tops = [plan.source.digest for plan in self.plans if self._needs_content(plan)]
        if not tops:
            return
        crosses = self.place.crosses
        more = {"there": self.facts.ctr.digests(self.place.namespace)} if crosses else {}
        moves = self.request.force and any(plan.moves for plan in self.plans if plan.pending)
        deep = crosses or moves or self.request.method in (Method.INDEX, Method.ARCHIVE)
        self.content, answers = self.read(tops, deep=deep, more=more)
        if crosses:
            self.visible_there = parse_digests(answers["there"].text.splitlines())

    def _decide(self, plan: Plan) -> None:
        """Decides what the new name points at and which method gives it, or fails the plan."""
        try:
            if self._needs_content(plan):
                self._choose_target(plan)
            if self.place.cri_managed and not self.request.platform:
                fitness.refuse_other_platforms(plan.source, self.facts, self.place.namespace)
            refuse_wrong_digest(plan.dst, plan.result, self.facts)
            if plan.existing and not plan.moves and self._is_whole_there(plan):
                of_index = f"same (platform manifest of index {plan.source.digest})"
                plan.unchanged(of_index if plan.is_platform_manifest else ALREADY)
            elif plan.existing and plan.moves and not self.request.force:
                raise exists(plan.result.reference, self.there.namespace, plan.existing.digest, plan.result.digest)
            else:
                plan.result.method = self._method(plan)
                plan.result.previous_digest = plan.existing.digest if plan.existing and plan.moves else ""
                plan.add_note(doubt(plan.dst, plan.source.name, self.host))
                plan.add_note(self._cost(plan))
        except FerryError as error:
            plan.fail(error)

    def _choose_target(self, plan: Plan) -> None:
        asked, host = self.request.platform, self.facts.platform
        partial_index = self.facts.ctr.capabilities.partial_index
        choice = self.content.choose(plan.source, asked, host, partial_index=partial_index)
        plan.target = choice.target
        plan.result.digest = choice.target.digest
        plan.add_note(choice.note)
        self.content.below(choice.target)  # raises here what cannot be read, so that only this image fails
        if self.content.is_artifact(choice.target):
            refuse_artifact(plan.source.name, self.facts)
        if self.place.crosses:
            needed = self.content.needed(choice.target, asked or host)
            if absent := [blob.digest for blob in needed if blob.digest not in self.content.visible]:
                raise content_missing(shown_name(plan.source.name), "\n".join(absent))

    def _is_whole_there(self, plan: Plan) -> bool:
        """Whether the existing name has its content; in another namespace, a failed import may leave a name without."""
        if not self.place.crosses or plan.target is None:
            return True
        needed = self.content.needed(plan.target, self.request.platform or self.facts.platform)
        return all(blob.digest in self.visible_there for blob in needed)

    def _method(self, plan: Plan) -> Method:
        """Chooses the method. `tag` never moves an existing name, since it would delete that name first."""
        method, has_tag = self.request.method, self.facts.ctr.capabilities.tag
        if method is Method.AUTO:
            if self.place.crosses:
                return Method.LINK
            return Method.TAG if has_tag and not plan.is_platform_manifest and not plan.moves else Method.INDEX
        if method is Method.TAG and not has_tag:
            raise MethodUnsupported(f"ctr {self.facts.client} has no `images tag`", hint="leave --method out")
        if method is not Method.INDEX and plan.is_platform_manifest:
            raise MethodUnsupported(
                f"--method {method} cannot name one platform's manifest of an index",
                hint="leave --method out, or use --method index",
            )
        return Method.INDEX if method is Method.TAG and plan.moves else method

    def _cost(self, plan: Plan) -> str:
        if not self.host.dry_run:
            return ""
        if plan.result.method == Method.ARCHIVE:
            return f"would move {plan.source.size} through export and import on the host"
        return "would move 0 B" + (", containerd unpacks it" if self.place.crosses else "")

    def _naming(self, plan: Plan) -> Naming:
        target, source, replaces = plan.target, plan.source, plan.existing is not None
        if target is None or plan.result.method == Method.TAG:
            return ByTag(name=plan.dst, source=source.name, target_digest=plan.result.digest, replaces=replaces)
        below, visible = self.content.below(target), self.content.visible
        whole = below.keys() <= visible
        platforms = str(target.platform or source.platforms).split(",")
        fields: dict[str, Any] = {
            "name": plan.dst,
            "replaces": replaces,
            "labels": plan.existing.others_labels if plan.existing else (),
            "target": target,
            "whole": whole,
            "foreign": str(self.facts.platform) not in platforms or self.content.is_artifact(target),
            "rest": self.content.rest(target, self.facts.platform) if target.is_index and not whole else {},
        }
        if plan.result.method == Method.INDEX:
            return ByIndex(**fields)
        namesake = self.there.get(source.name)
        fields |= {
            "source": source.name,
            "source_digest": source.digest,
            "source_stays": namesake is not None or source.name == plan.result.reference,
            "may_stream": namesake is None or namesake.digest == source.digest,
        }
        if plan.result.method == Method.ARCHIVE:
            return ByArchive(**fields)
        return ByLink(**fields, links=tuple(blob for digest, blob in below.items() if digest in visible))

    def _result(self) -> RetagResult:
        for plan in self.plans:
            if plan.duplicate_of and plan.duplicate_of.error:
                plan.fail(plan.duplicate_of.error)
        if self.missing:
            errors = self.not_found([item.result.source for item in self.missing])
            for item, error in zip(self.missing, errors, strict=True):
                item.fail(error)
        items = [*self.plans, *self.missing]
        result = RetagResult(
            namespace=self.here.namespace,
            to_namespace=self.there.namespace,
            ctr=self.facts.client,
            containerd=self.facts.server,
            images=tuple(item.result for item in items),
            already=self.already,
            notes=tuple(filter(None, [self.passed_by([self.request.match or ""])])),
        )
        settle(
            result,
            len(items),
            [item.error for item in items if item.error],
            "images did not get their new name",
            "the other names stay; follow the hint of each, then run the command again",
        )
        return result
