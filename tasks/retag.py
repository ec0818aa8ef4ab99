"""``retag``: gives images of a host a second name, without moving their bytes.

Plan from what the host has, act in one remote command, then report what the host says afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctr_ferry.ctr import naming
from ctr_ferry.ctr.failures import content_missing, required
from ctr_ferry.ctr.listing import Listing, parse_digests
from ctr_ferry.ctr.naming import Method, Naming, Place
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.ctr.verdict import exists, judge, numbers, tell_moved, unproved
from ctr_ferry.errors import FerryError, MethodUnsupported, SomeFailed, UsageError
from ctr_ferry.images import inspect
from ctr_ferry.images.content import Content
from ctr_ferry.images.mappings import Pair, moved_to, read_map, refuse_same
from ctr_ferry.images.retag import ALREADY, Plan, Retag, refuse_collisions, tag_of
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.oci.reference import parse_domain
from ctr_ferry.report.outcome import Status, error_lines
from ctr_ferry.run import options
from ctr_ferry.run.command import per_host
from ctr_ferry.text import tail

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for, checked before any host is touched."""

    pairs: tuple[Pair, ...] = ()
    to_registry: str | None = None
    match: str | None = None
    namespace: str | None = None
    to_namespace: str | None = None
    method: Method = Method.AUTO
    platform: Platform | None = None
    force: bool = False


def parse(
    *,
    src: str | None = None,
    dst: str | None = None,
    map: str | None = None,
    to_registry: str | None = None,
    match: str | None = None,
    namespace: str | None = None,
    to_namespace: str | None = None,
    method: str | None = None,
    platform: str | None = None,
    force: bool = False,
) -> Request:
    """Options to a request.

    Raises:
        UsageError: or BadReference, with the option that is wrong.
    """
    ways = [bool(src or dst), bool(map), bool(to_registry or match)]
    if sum(ways) != 1:
        raise UsageError(
            "retag needs one of: --src with --dst, --map FILE, or --to-registry HOST with --match GLOB",
            hint="fab -H node1 retag --src old.example/app:1 --dst new.example/app:1",
        )
    if to_registry or match:
        if not (to_registry and match):
            raise UsageError("--to-registry and --match go together", hint="such as --match 'dead.example:5000/*'")
        to_registry = parse_domain(to_registry)
    pairs = _pairs(src, dst, map, crosses=bool(to_namespace))
    if not to_namespace:
        refuse_same(pairs)
    return Request(
        pairs=pairs,
        to_registry=to_registry,
        match=match,
        namespace=options.namespace(namespace),
        to_namespace=options.namespace(to_namespace, "--to-namespace"),
        method=_method(method, crosses=bool(to_namespace)),
        platform=options.platform(platform),
        force=force,
    )


def _pairs(src: str | None, dst: str | None, map_file: str | None, *, crosses: bool) -> tuple[Pair, ...]:
    if map_file:
        return read_map(Path(map_file), apart=crosses)
    if not (src or dst):
        return ()
    if not (src and dst):
        raise UsageError(f"--{'dst' if src else 'src'} is missing", hint="retag needs both --src and --dst")
    return (Pair.parse(src, dst),)


def _method(text: str | None, *, crosses: bool) -> Method:
    method = Method(options.choice(text, "--method", [Method.AUTO, Method.TAG, Method.INDEX, Method.ARCHIVE]))
    if crosses and method in (Method.TAG, Method.INDEX):
        raise UsageError(
            f"--method {method} gives names within one namespace only", hint="leave --method out with --to-namespace"
        )
    return method


@dataclass(frozen=True, slots=True)
class RetagResult:
    """One host's result: every image, and what did the work."""

    namespace: str
    to_namespace: str
    ctr: str
    containerd: str
    images: tuple[Retag, ...]

    @property
    def status(self) -> Status:
        """changed where any image got a name."""
        return Status.of_all(image.status for image in self.images)

    def given(self) -> list[tuple[str, str, str]]:
        """Each name that an image has now, with its digest and the source's."""
        return [(i.dst, i.digest, i.src_digest) for i in self.images if i.status is not Status.FAILED]

    def lines(self) -> list[str]:
        """A line an image, its digest and note below."""
        if not self.images:
            return [f"no image of namespace {self.namespace} fits"]
        return [line for image in self.images for line in _image_lines(image, self)]


def _image_lines(image: Retag, result: RetagResult) -> Iterator[str]:
    where = f" in {result.to_namespace}" if result.to_namespace != result.namespace else ""
    how = f"  ({image.method}, ctr {result.ctr})" if image.method else ""
    state = f"  {image.status}" if len(result.images) > 1 else ""
    yield f"{image.src} -> {image.dst}{where}{how}{state}"
    if image.digest:
        yield f"  {image.digest}"
    if image.previous_digest:
        yield f"  replaces {image.previous_digest}"
    if image.note:
        yield f"  {image.note}"
    if image.error:
        yield from (f"  {line}" for line in error_lines(image.error))


class Job:
    """The images to be named again on one host, from the first look to the last."""

    def __init__(self, host: Host, request: Request) -> None:
        self.host, self.request = host, request
        here = inspect.namespace(host, request.namespace)
        there = request.to_namespace or here
        self.facts: Facts = inspect.facts(host, tuple(dict.fromkeys((here, there))))
        self.here, self.there = self.facts.listings[here], self.facts.listings[there]
        self.place = Place(
            self.facts.ctr,
            namespace=there,
            from_namespace=here,
            content_root=self.facts.content_root,
            owner=f"ctr-ferry.{host.run_id}",
            cri_managed=there == "k8s.io" and self.facts.cri,
        )
        self.content = Content()
        self.visible_there: frozenset[str] = frozenset()
        self.plans: list[Plan] = []
        self.missing: list[Retag] = []

    def run(self) -> RetagResult:
        """Plans, acts where something is to be done, verifies.

        Raises:
            FerryError: the one image's own error, or SomeFailed with the result.
        """
        for pair in self._pairs():
            self._first_look(pair)
        refuse_collisions(self.plans, within_namespace=not self.place.crosses)
        self._second_look()
        for plan in self.plans:
            if plan.open:
                self._decide(plan)
        todo = [plan for plan in self.plans if plan.open]
        if todo and not self.host.dry_run:
            self._act(todo)
        return self._result()

    def _pairs(self) -> tuple[Pair, ...]:
        if not self.request.match:
            return self.request.pairs
        return moved_to(str(self.request.to_registry), self.here.match(self.request.match))

    def _first_look(self, pair: Pair) -> None:
        source = self.here.find(pair.src)
        if not source:
            self.missing.append(Retag(pair.src, str(pair.dst), status=Status.FAILED))
            return
        dst = pair.dst if pair.dst.tag else pair.dst.with_tag(tag_of(source.name))
        existing = self.there.get(str(dst))
        report = Retag(source.name, str(dst), source.digest, source.digest, status=Status.CHANGED)
        plan = Plan(report, source, dst, existing)
        self.plans.append(plan)
        if source.name == str(dst) and not self.place.crosses:
            plan.unchanged("source and destination are the same name")
        elif existing and existing.digest == source.digest and not self.request.platform and not self.place.crosses:
            plan.unchanged(ALREADY)

    def _needs_content(self, plan: Plan) -> bool:
        by_tag = self.request.method in (Method.AUTO, Method.TAG) and self.facts.ctr.capabilities.tag
        by_tag = by_tag and not (plan.moves and self.request.force)
        return plan.open and (self.place.crosses or not by_tag or bool(self.request.platform))

    def _second_look(self) -> None:
        """Reads the manifests that the plans stand on; one remote command, two from namespace to namespace."""
        tops = [plan.source.digest for plan in self.plans if self._needs_content(plan)]
        if not tops:
            return
        ctr, there, crosses = self.facts.ctr, self.place.namespace, self.place.crosses
        more = {"there": ctr.digests(there)} if crosses else {}
        moves = self.request.force and any(plan.moves for plan in self.plans if plan.open)
        deep = crosses or moves or self.request.method in (Method.INDEX, Method.ARCHIVE)
        self.content, answers = inspect.content(
            self.host, self.facts, self.place.from_namespace, tops, deep=deep, more=more
        )
        if crosses:
            self.visible_there = parse_digests(answers["there"].text.splitlines())

    def _decide(self, plan: Plan) -> None:
        """Settles what the new name shall point at, and how it is given; or why not."""
        try:
            if self._needs_content(plan):
                self._choose_target(plan)
            if plan.existing and plan.existing.digest == plan.report.digest and self._is_whole_there(plan):
                plan.unchanged(
                    f"same (platform manifest of index {plan.source.digest})" if plan.is_platform_manifest else ALREADY
                )
            elif plan.existing and plan.existing.digest != plan.report.digest and not self.request.force:
                raise exists(plan.report.dst, self.there.namespace, plan.existing.digest, plan.report.digest)
            else:
                plan.report.method = self._method(plan)
                plan.report.previous_digest = plan.existing.digest if plan.existing and plan.moves else ""
                plan.report.note = "; ".join(filter(None, (plan.report.note, self._cost(plan))))
        except FerryError as error:
            plan.fail(error)

    def _choose_target(self, plan: Plan) -> None:
        asked, host = self.request.platform, self.facts.platform
        partial_index = self.facts.ctr.capabilities.partial_index
        choice = self.content.choose(plan.source, asked, host, partial_index=partial_index)
        plan.target = choice.target
        plan.report.digest, plan.report.note = choice.target.digest, choice.note
        self.content.below(choice.target)  # what cannot be read of it is this image's trouble alone
        if self.place.crosses:
            needed = self.content.needed(choice.target, asked or host)
            if absent := [blob.digest for blob in needed if blob.digest not in self.content.visible]:
                raise content_missing(plan.source.name, "\n".join(absent))

    def _is_whole_there(self, plan: Plan) -> bool:
        """In another namespace, a name may be what an import that failed has left."""
        if not self.place.crosses or plan.target is None:
            return True
        needed = self.content.needed(plan.target, self.request.platform or self.facts.platform)
        return all(blob.digest in self.visible_there for blob in needed)

    def _method(self, plan: Plan) -> Method:
        """A name that exists is never moved by tag, which deletes it first; import moves it in one go."""
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

    def _whole(self, plan: Plan) -> bool:
        return plan.target is not None and self.content.below(plan.target).keys() <= self.content.visible

    def _cost(self, plan: Plan) -> str:
        if not self.host.dry_run:
            return ""
        if plan.report.method == Method.ARCHIVE:
            return f"would move {plan.source.size} through export and import on the host"
        return "would move 0 bytes" + (", containerd unpacks it" if self.place.crosses else "")

    def _naming(self, plan: Plan) -> Naming:
        target, source = plan.target, plan.source.name
        platforms = str((target and target.platform) or plan.source.platforms).split(",")
        whole = self._whole(plan)
        linked = self.content.below(target) if target and self.place.crosses else {}
        namesake = self.there.get(source)
        return Naming(
            Method(plan.report.method),
            source,
            plan.dst,
            target,
            replaces=plan.existing is not None,
            whole=whole,
            foreign=str(self.facts.platform) not in platforms,
            blobs=tuple(blob for digest, blob in linked.items() if digest in self.content.visible),
            rest=self.content.rest(target, self.facts.platform) if target and target.is_index and not whole else {},
            source_stays=namesake is not None or source == plan.report.dst,
            may_stream=namesake is None or namesake.digest == plan.source.digest,
            digest=plan.report.digest,
            source_digest=plan.source.digest,
        )

    def _act(self, todo: Sequence[Plan]) -> None:
        """Gives all names in one remote command, which looks again and takes back what it cannot prove."""
        namings = [self._naming(plan) for plan in todo]
        answers = self.host.ask(naming.script(self.place, namings))
        now = Listing.parse(self.there.namespace, required(answers["verify"], "verify").text)
        was, kept = naming.was(self.place, answers), numbers(answers["kept"])
        for number, plan in enumerate(todo):
            if plan.report.method == Method.LINK and not answers[f"link-{number}"].ok:
                plan.report.method = Method.STREAM
                plan.report.note = "linking failed: " + tail(answers[f"link-{number}"].stderr, lines=1)
            verdict = judge(
                plan.report.dst,
                plan.report.digest,
                answers[f"name-{number}"],
                now.get(plan.report.dst),
                namespace=now.namespace,
                cri_managed=self.place.cri_managed,
                tolerant=self.facts.ctr.capabilities.oci_name and namings[number].foreign,
                fresh=plan.existing is None,
            )
            if verdict.error:
                plan.fail(verdict.error)
            elif not verdict.ours:
                plan.unchanged("somebody else gave that name meanwhile, with this digest")
            elif number not in kept:
                plan.fail(unproved(plan.report.dst))
            elif plan.existing:
                tell_moved(plan.report, was.get(plan.report.dst), now.get(plan.report.dst))

    def _result(self) -> RetagResult:
        for plan in self.plans:
            if plan.duplicate_of and plan.duplicate_of.error:
                plan.fail(plan.duplicate_of.error)
        errors = [plan.error for plan in self.plans if plan.error]
        not_found = (
            inspect.not_found(self.host, self.facts, self.here, [m.src for m in self.missing]) if self.missing else []
        )
        for report, error in zip(self.missing, not_found, strict=True):
            report.error = error.to_json()
        result = RetagResult(
            self.here.namespace,
            self.there.namespace,
            self.facts.client,
            self.facts.server,
            tuple([plan.report for plan in self.plans] + self.missing),
        )
        if failed := [*errors, *not_found]:
            raise failed[0] if len(result.images) == 1 else some_failed(len(failed), len(result.images), result)
        return result


def some_failed(failed: int, of: int, result: RetagResult) -> SomeFailed:
    """The error of a host where not every image could be done."""
    return SomeFailed(
        f"{failed} of {of} images were not done", hint="mend these and run it again; the others stay", result=result
    )


@per_host(
    parse,
    help={
        "src": "The image as the host has it: a name, its short form, or a digest.",
        "dst": "The new name; without a tag it takes the source's.",
        "map": "File with two columns, source and destination, '#' comments; all are done in one go.",
        "to_registry": "With --match: give every matching image the same name on this registry host.",
        "match": "With --to-registry: glob on whole names, such as 'dead.example:5000/*'.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "to_namespace": "Give the name in this namespace instead; content is linked, not moved.",
        "method": "auto (default), tag, index, or archive (the classic export and import).",
        "platform": "Name this platform's manifest of a multi-platform image, such as linux/arm64.",
        "force": "Let an existing name point at the source's digest.",
    },
)
def retag(host: Host, request: Request) -> RetagResult:
    """Give images a second name on the host itself, in constant time, without moving their bytes."""
    return Job(host, request).run()
