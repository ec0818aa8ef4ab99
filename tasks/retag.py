"""``retag``: gives images of a host a second name, without moving their bytes.

Plan from what the host has, act in one remote command, then report what the host says afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tasks.ctr import missing, naming, shell
from tasks.ctr.commands import Ctr
from tasks.ctr.content import Content
from tasks.ctr.failures import failure, required
from tasks.ctr.images import Image, Listing, parse_digests, parse_images
from tasks.ctr.naming import Naming
from tasks.ctr.probe import Facts
from tasks.ctr.shell import Answer, Script
from tasks.errors import (
    FerryError,
    ImageNotFound,
    MethodUnsupported,
    ReferenceExists,
    SomeFailed,
    UsageError,
    VerifyFailed,
)
from tasks.fleet import options
from tasks.fleet.command import per_host
from tasks.fleet.outcome import Status
from tasks.fleet.pairs import Pair, read_map, refuse_same
from tasks.oci.descriptor import Descriptor, Platform
from tasks.oci.reference import Reference, is_digest, parse_domain
from tasks.ssh.host import Host


class Method(StrEnum):
    """How the name is given."""

    AUTO = "auto"
    TAG = "tag"
    INDEX = "index"
    ARCHIVE = "archive"
    LINK = "link"  # by itself, for another namespace


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
    pairs = _pairs(src, dst, map)
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


def _pairs(src: str | None, dst: str | None, map_file: str | None) -> tuple[Pair, ...]:
    if map_file:
        return read_map(Path(map_file))
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


@dataclass(slots=True)
class Retag:
    """What became of one image.

    Attributes:
        digest: what the new name points at; ``src_digest`` differs where only the platform's manifest can be named.
        method: how it was, or would be, named; empty where nothing is to be done.
        note: what a person should know of it.
        error: why it could not be done.
    """

    src: str
    dst: str
    digest: str = ""
    src_digest: str = ""
    method: str = ""
    status: Status = Status.UNCHANGED
    note: str = ""
    error: dict[str, str] | None = None


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
        return Status.CHANGED if any(i.status is Status.CHANGED for i in self.images) else Status.UNCHANGED

    def lines(self) -> list[str]:
        """A line an image, its digest and note below."""
        return [line for image in self.images for line in _image_lines(image, self)]


def _image_lines(image: Retag, result: RetagResult) -> Iterator[str]:
    where = f" in {result.to_namespace}" if result.to_namespace != result.namespace else ""
    how = f"  ({image.method}, ctr {result.ctr})" if image.method else ""
    state = f"  {image.status}" if len(result.images) > 1 else ""
    yield f"{image.src} -> {image.dst}{where}{how}{state}"
    if image.digest:
        yield f"  {image.digest}"
    if image.note:
        yield f"  {image.note}"
    if image.error:
        yield f"  {image.error['kind']}: {image.error['message']}"
        yield from (f"    said: {line}" for line in image.error["said"].splitlines())
        yield f"    try: {image.error['hint']}"


@dataclass(slots=True)
class Plan:
    """One image on one host: from what was asked to what is to be done."""

    report: Retag
    source: Image
    dst: Reference
    existing: Image | None
    method: Method = Method.AUTO
    target: Descriptor | None = None
    error: FerryError | None = None

    @property
    def open(self) -> bool:
        """Whether there is something to do, and nothing against it so far."""
        return self.error is None and self.report.status is Status.CHANGED

    def unchanged(self, note: str) -> None:
        """Nothing is to be done."""
        self.report.status = Status.UNCHANGED
        self.report.method = ""
        self.report.note = note

    def fail(self, error: FerryError) -> None:
        """It cannot be, or was not, done."""
        self.error = error
        self.report.status = Status.FAILED
        self.report.error = error.to_json()


class Job:
    """The images to be named again on one host, from the first look to the last."""

    def __init__(self, host: Host, request: Request) -> None:
        self.host = host
        self.request = request
        self.namespace = request.namespace or host.target.ctr.namespace
        self.to_namespace = request.to_namespace or self.namespace
        self.crosses = self.to_namespace != self.namespace
        self.facts: Facts = host.facts(tuple(dict.fromkeys((self.namespace, self.to_namespace))))
        self.ctr: Ctr = self.facts.ctr
        self.here: Listing = self.facts.listings[self.namespace]
        self.there: Listing = self.facts.listings[self.to_namespace]
        self.managed = self.to_namespace == "k8s.io" and self.facts.cri
        self.content = Content()
        self.rooted: frozenset[str] = frozenset()
        self.plans: list[Plan] = []
        self.missing: list[Retag] = []

    def run(self) -> RetagResult:
        """Plans, acts where something is to be done, verifies.

        Raises:
            FerryError: the one image's own error, or SomeFailed; both with the result.
        """
        pairs = self._selected() if self.request.match else self.request.pairs
        for pair in pairs:
            self._first_look(pair)
        self._refuse_collisions()
        self._read_content()
        for plan in self.plans:
            if plan.open:
                self._decide(plan)
        if not self.host.dry_run and any(plan.open for plan in self.plans):
            self._act()
        return self._result()

    # Plan

    def _selected(self) -> list[Pair]:
        """``--to-registry``: every image that the glob fits, but for what is there already."""
        registry, glob = str(self.request.to_registry), str(self.request.match)
        pairs = []
        for image in self.here.match(glob):
            try:
                reference = Reference.parse(image.name)
            except UsageError:
                continue
            if not reference.digest and reference.domain != registry:
                pairs.append(Pair(image.name, reference.with_domain(registry)))
        return pairs

    def _first_look(self, pair: Pair) -> None:
        source = self.here.find(pair.src)
        if not source:
            self.missing.append(Retag(pair.src, str(pair.dst), status=Status.FAILED))
            return
        dst = pair.dst if pair.dst.tag else pair.dst.with_tag(_tag_of(source.name))
        existing = self.there.get(str(dst))
        report = Retag(source.name, str(dst), source.digest, source.digest, status=Status.CHANGED)
        plan = Plan(report, source, dst, existing)
        self.plans.append(plan)
        if source.name == str(dst) and not self.crosses:
            plan.unchanged("source and destination are the same name")
        elif existing and existing.digest == source.digest and not self.request.platform:
            plan.unchanged("it is there already, with this digest")

    def _refuse_collisions(self) -> None:
        """Two images of one host cannot both get one name (``a/x:1`` and ``b/x:1`` to one registry)."""
        first: dict[str, Plan] = {}
        for plan in self.plans:
            other = first.setdefault(plan.report.dst, plan)
            if other.source.digest != plan.source.digest:
                plan.fail(
                    ReferenceExists(
                        f"{other.source.name} and {plan.source.name} would both become {plan.dst}",
                        hint="name them apart with --map",
                    )
                )

    def _needs_content(self, plan: Plan) -> bool:
        plain_tag = self.request.method in (Method.AUTO, Method.TAG) and self.ctr.capabilities.tag
        return plan.open and (self.crosses or not plain_tag or bool(self.request.platform))

    def _read_content(self) -> None:
        """Reads the manifests that the plans stand on; one remote command, two from namespace to namespace."""
        tops = [plan.source.digest for plan in self.plans if self._needs_content(plan)]
        if not tops:
            return
        steps = {"visible": self.ctr.digests(self.namespace)}
        if self.crosses:
            steps["rooted"] = self.ctr.rooted(self.to_namespace)
        answers = self._fetch(tops, steps)
        self.content.visible = parse_digests(answers["visible"].text.splitlines())
        if self.crosses:
            self.rooted = parse_digests(answers["rooted"].text.splitlines())
            children = [child.digest for top in tops for child in self.content.manifest(top).children]
            self._fetch([digest for digest in children if digest in self.content.visible], {})

    def _fetch(self, digests: Sequence[str], steps: Mapping[str, str]) -> dict[str, Answer]:
        wanted = list(dict.fromkeys(digests))
        gets = {f"get-{n}": self.ctr.content(self.namespace, digest) for n, digest in enumerate(wanted)}
        if not (gets or steps):
            return {}
        answers = self.host.ask(Script({**gets, **steps}), limit=self.host.target.limits.probe)
        for number, digest in enumerate(wanted):
            if answers[f"get-{number}"].ok:
                self.content.blobs[digest] = answers[f"get-{number}"].stdout
        return answers

    def _decide(self, plan: Plan) -> None:
        """Settles what the new name shall point at, and how it is given; or why not."""
        try:
            self._settle_target(plan)
            if plan.open:
                plan.method = self._method(plan)
                plan.report.method = plan.method
                if self.host.dry_run:
                    plan.report.note = "; ".join(filter(None, (plan.report.note, self._cost(plan))))
        except FerryError as error:
            plan.fail(error)

    def _settle_target(self, plan: Plan) -> None:
        if self._needs_content(plan):
            choice = self.content.choose(
                plan.source,
                self.request.platform,
                self.facts.platform,
                partial_index=self.ctr.capabilities.partial_index,
            )
            plan.target = choice.target
            plan.report.digest, plan.report.note = choice.target.digest, choice.note
        if plan.existing and plan.existing.digest == plan.report.digest:
            part = plan.report.digest != plan.source.digest
            same = f"same (platform manifest of index {plan.source.digest})"
            plan.unchanged(same if part else "it is there already, with this digest")
        elif plan.existing and not self.request.force:
            raise self._exists(plan, plan.existing)

    def _exists(self, plan: Plan, there: Image) -> ReferenceExists:
        return ReferenceExists(
            f"{plan.dst} exists in namespace {self.to_namespace} with another digest",
            said=f"there {there.digest}\nsource {plan.report.digest}",
            hint="add --force to let the name point at the source's digest",
        )

    def _method(self, plan: Plan) -> Method:
        has_tag = self.ctr.capabilities.tag
        part = plan.report.digest != plan.source.digest
        match self.request.method:
            case Method.AUTO:
                if self.crosses:
                    return Method.LINK
                return Method.TAG if has_tag and not part else Method.INDEX
            case Method.TAG if not has_tag:
                raise MethodUnsupported(f"ctr {self.facts.client} has no `images tag`", hint="leave --method out")
            case Method.TAG | Method.ARCHIVE if part:
                raise MethodUnsupported(
                    f"--method {self.request.method} cannot name one platform's manifest of an index",
                    hint="leave --method out, or use --method index",
                )
        return self.request.method

    def _cost(self, plan: Plan) -> str:
        if plan.method is Method.ARCHIVE:
            return f"would move {plan.source.size} through export and import on the host"
        return "would move 0 bytes" + (", containerd unpacks it" if plan.method is Method.LINK else "")

    # Act

    def _act(self) -> None:
        """Names all that is open in one remote command, looks again in the same, and takes back what failed."""
        todo = [plan for plan in self.plans if plan.open]
        steps: dict[str, str] = {}
        cleanups = []
        for number, plan in enumerate(todo):
            if plan.method is Method.LINK:
                steps[f"link-{number}"], cleanup = self._link(plan)
                cleanups.append(cleanup)
            steps[f"name-{number}"] = self._name(plan)
        names = dict.fromkeys(plan.report.dst for plan in todo)
        steps["verify"] = naming.verify(self.ctr, self.to_namespace, names, managed=self.managed)
        answers = self.host.ask(Script(steps, cleanup="\n".join(filter(None, cleanups))))
        listing = Listing(self.to_namespace, parse_images(required(answers["verify"], "verify").text))
        for number, plan in enumerate(todo):
            if plan.method is Method.LINK and not answers[f"link-{number}"].ok:
                plan.report.method = "stream"
                plan.report.note = "linking failed: " + shell.tail(answers[f"link-{number}"].stderr, lines=1)
            self._judge(plan, answers[f"name-{number}"], listing.get(plan.report.dst))
        self._take_back([plan for plan in todo if plan.error and not plan.existing], listing)

    def _naming(self, plan: Plan) -> Naming:
        assert plan.target is not None  # noqa: S101
        platforms = str(plan.target.platform or plan.source.platforms).split(",")
        whole = self.content.below(plan.target).keys() <= self.content.visible
        return Naming(
            self.to_namespace,
            plan.dst,
            plan.target,
            may_replace=plan.existing is not None,
            unpack=self.crosses,
            all_platforms=self.crosses and whole and plan.target.is_index,
            foreign=str(self.facts.platform) not in platforms,
        )

    def _link(self, plan: Plan) -> tuple[str, str]:
        assert plan.target is not None  # noqa: S101
        below = self.content.below(plan.target)
        blobs = [blob for digest, blob in below.items() if digest in self.content.visible]
        root = self.facts.content_root
        step, cleanup = naming.link(self.ctr, root, self.to_namespace, blobs, self.owner, rooted=self.rooted)
        return f"linked=1; {{ {step}; }} && linked=0", cleanup

    @property
    def owner(self) -> str:
        """What our labels and ingests are called on a host."""
        return f"ctr-ferry.{self.host.run_id}"

    def _name(self, plan: Plan) -> str:
        match plan.method:
            case Method.TAG:
                source, dst = plan.source.name, plan.report.dst
                return self.ctr.tag(self.namespace, source, dst, force=bool(plan.existing))
            case Method.INDEX:
                return naming.by_index(self.ctr, self._naming(plan))
            case Method.LINK:
                by_index = naming.by_index(self.ctr, self._naming(plan))
                return f"if [ $linked = 0 ]; then {by_index}; else {self._stream(plan)}; fi"
        return self._stream(plan)

    def _stream(self, plan: Plan) -> str:
        """Export into import; where that would replace the source's name over there, it is not done."""
        source = plan.source.name
        namesake = self.there.get(source)
        if namesake and namesake.digest != plan.source.digest and source != plan.report.dst:
            return f"echo {shell.join([f'{source} in {self.to_namespace} is another image'])} >&2; false"
        there = namesake is not None or source == plan.report.dst
        return naming.by_archive(self.ctr, source, self.namespace, self._naming(plan), source_is_there=there)

    # Verify

    def _judge(self, plan: Plan, answer: Answer, now: Image | None) -> None:
        """What the host says now decides; ctr's exit status alone never does."""
        right = now is not None and plan.report.digest == now.digest
        # 1.0 and 1.1 name an image of another platform, then fail to unpack it.
        tolerated = self.ctr.capabilities.oci_name and self._naming(plan).foreign if plan.target else False
        if naming.ALREADY_EXISTS in answer.stderr and now:
            if right:
                plan.unchanged("somebody else gave that name meanwhile, with this digest")
            else:
                plan.fail(self._exists(plan, now))
        elif not answer.ok and not tolerated:
            plan.fail(failure(answer, plan.source.name))
        elif now is None:
            plan.fail(VerifyFailed(f"ctr reports success, but {plan.dst} is not there", said=shell.tail(answer.stderr)))
        elif not right:
            plan.fail(
                VerifyFailed(
                    f"{plan.dst} points at another digest than it should",
                    said=f"there {now.digest}\nwanted {plan.report.digest}",
                    hint="somebody else may have used the name; look again, then add --force if it is yours",
                )
            )
        elif self.managed and not now.managed:
            plan.fail(
                VerifyFailed(
                    f"{plan.dst} is there, but CRI has not taken notice of it, so kubelet does not see it",
                    hint="look at containerd's log on that host, then run it again",
                )
            )

    def _take_back(self, failed: Sequence[Plan], now: Listing) -> None:
        """Removes the names that failed attempts of ours left, and CRI's record of an image that came with them."""
        names = [plan.report.dst for plan in failed if now.get(plan.report.dst) and self._made_by_us(plan, now)]
        if not names:
            return
        script = {f"rm-{n}": self.ctr.remove(self.to_namespace, name) for n, name in enumerate(names)}
        answers = self.host.ask(Script({**script, "after": self.ctr.images(self.to_namespace)}))
        after = Listing(self.to_namespace, parse_images(required(answers["after"], "after").text))
        digests = {plan.report.digest for plan in failed} - {i.digest for i in after.images if i.ordinary}
        records = [
            image.name
            for image in after.images
            if image.digest in digests and not image.ordinary and not self.there.get(image.name)
        ]
        if records:
            self.host.ask(Script({f"rm-{n}": self.ctr.remove(self.to_namespace, r) for n, r in enumerate(records)}))

    def _made_by_us(self, plan: Plan, now: Listing) -> bool:
        image = now.get(plan.report.dst)
        return image is not None and image.digest == plan.report.digest

    def _result(self) -> RetagResult:
        result = RetagResult(
            self.namespace,
            self.to_namespace,
            self.facts.client,
            self.facts.server,
            tuple([plan.report for plan in self.plans] + self.missing),
        )
        errors = [plan.error for plan in self.plans if plan.error]
        if self.missing:
            errors.append(self._explain_missing())
        if not errors:
            return result
        several = len(result.images) > 1
        error = (
            SomeFailed(
                f"{len(result.images) - _well(result)} of {len(result.images)} images were not done",
                hint="mend these and run it again; the others stay as they are",
            )
            if several
            else errors[0]
        )
        error.result = result if several else None
        raise error

    def _explain_missing(self) -> ImageNotFound:
        """The wrong namespace is the most common mistake: looks into the others before it says no."""
        others = [name for name in self.facts.namespaces if name != self.namespace]
        steps = {f"in-{n}": self.ctr.images(name) for n, name in enumerate(others)}
        answers = self.host.ask(Script(steps), limit=self.host.target.limits.probe) if steps else {}
        listings = [Listing(name, parse_images(answers[f"in-{n}"].text)) for n, name in enumerate(others)]
        errors = [
            ImageNotFound(
                f"no image {report.src} in namespace {self.namespace}",
                hint=missing.explain(report.src, self.here, listings, self.facts.sockets),
            )
            for report in self.missing
        ]
        for report, error in zip(self.missing, errors, strict=True):
            report.error = error.to_json()
        return errors[0]


def _well(result: RetagResult) -> int:
    return sum(image.status is not Status.FAILED for image in result.images)


def _tag_of(name: str) -> str:
    try:
        return (None if is_digest(name) else Reference.parse(name).tag) or "latest"
    except UsageError:
        return "latest"


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
