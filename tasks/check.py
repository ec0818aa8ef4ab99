"""``check``: whether every host has the same images, complete and unpacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from ctr_ferry import shell
from ctr_ferry.ctr import checks
from ctr_ferry.ctr.checks import Check
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.failures import failure
from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import ErrorData, FerryError, SomeFailed, UsageError
from ctr_ferry.images import inspect
from ctr_ferry.images.check_result import CheckResult, fault, majority, verdict
from ctr_ferry.images.content import Content, refuse_unknown
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import OCI_INDEX, Descriptor
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.ranges import folded
from ctr_ferry.report.answers import grouped, results
from ctr_ferry.report.outcome import Result, Status, Table, error_lines
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.text import names, shown_name

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host

_ABSENT = "absent"
_MOST_TOLD = 10  # failed images that a host's error has


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which images to check. Without a digest, the digest of more than half of the hosts is expected.

    Attributes:
        given: the options that name the images, for a hint.
    """

    refs: tuple[str, ...]
    given: tuple[str, ...]
    digest: str | None
    namespace: str | None

    @property
    def several(self) -> bool:
        """Whether a host may have more to tell than one error."""
        return len(self.refs) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedImage(CheckResult):
    """One image; ``asked`` is how it was asked for, and ``error`` what is wrong with it."""

    asked: str
    status: Status = Status.OK
    error: ErrorData | None = None


@dataclass(frozen=True, slots=True)
class ChecksResult:
    """What one host has of the images."""

    images: tuple[CheckedImage, ...]
    status = Status.OK

    def lines(self) -> list[str]:
        """One line for each image; of several, what is wrong is indented below."""
        lines, several = [], len(self.images) > 1
        for image in self.images:
            lines += image.lines() if image.digest else [f"{shown_name(image.reference)} {_ABSENT}"]
            lines += [f"  {line}" for line in error_lines(image.error)] if image.error and several else []
        return lines


_NOTHING = CheckResult(  # of an image that is not there
    reference="", namespace="", digest="", check=_ABSENT, complete=False, unpacked=False, platforms=(), platform=""
)
Found = dict[str, CheckResult | FerryError]  # what one host has, by reference


@dataclass(slots=True)
class Seen:
    """What the hosts had, by host; and the manifests of indexes, by the digest of the index."""

    found: dict[str, Found] = field(default_factory=dict)
    ctrs: dict[str, tuple[Ctr, str]] = field(default_factory=dict)
    indexes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def read(self, content: Content) -> None:
        """Notes the indexes that a host gave."""
        for top in content.blobs:
            if (index := content.manifest(top)) and index.children:
                with suppress(FerryError):  # it contradicts itself, and no host has a part of it
                    documents = content.tree(Descriptor(OCI_INDEX, top, 0)).documents
                    self.indexes[top] = tuple(document.digest for document in documents[1:])


def parse(
    *,
    ref: Sequence[str] | None = None,
    set_: Sequence[str] | None = None,
    digest: str | None = None,
    namespace: str | None = None,
) -> Request:
    """Makes a request of the options; raises UsageError or BadReference, which names the wrong option."""
    refs = options.references(ref, set_)
    if not refs:
        raise UsageError("check needs --ref REF or --set FILE", hint="fab -H HOST check --ref r.example/app:1")
    for each in refs:
        if not is_digest(each):
            Reference.parse(each)
    if digest and not is_digest(digest):
        raise UsageError(
            f"--digest {digest!r} is no digest",
            hint="give sha256: and 64 hex digits; hosts tell theirs: fab -H all find --match '*'",
        )
    if digest and (set_ or len(refs) > 1):
        raise UsageError("--digest is for one --ref", hint="check that image alone, or leave --digest out")
    given = options.naming(ref, set_) + (["--namespace", namespace] if namespace else [])
    where = options.namespace(namespace)
    return Request(refs=refs, given=tuple(given), digest=digest, namespace=where)


def tabulate(answers: Mapping[str, Result | FerryError]) -> Table:
    """One row for each image, digest and state; below those that are well, where they are read first, the others."""
    found = dict(results(answers, ChecksResult))
    hosts = grouped(
        (
            (
                image.status is Status.FAILED,
                *(shown_name(image.reference), image.digest or "-", image.verdict or "-", image.check),
                image.cell,
            ),
            host,
        )
        for host, result in found.items()
        for image in result.images
    )
    every = {image.asked for result in found.values() for image in result.images}
    wrong = {image.asked for result in found.values() for image in result.images if image.status is Status.FAILED}
    well = f"{len(every) - len(wrong)} of {len(every)} images are the same, complete and unpacked"
    return Table(
        ("REFERENCE", "DIGEST", "VERDICT", "COMPLETE", "UNPACKED", "HOSTS"),
        tuple((*row[1:], names(hosts[row], every=row[0])) for row in sorted(hosts)),
        (f"{well} on {names(found)}",) if every else (),
    )


@fleet_wide(
    parse,
    tabulate=tabulate,
    read_only=True,
    iterable=["ref", "set_"],
    help={
        "ref": "The image: a name, its short form, or a digest; may be repeated.",
        "set_": options.SET_HELP,
        "digest": "The digest that it must have (default: that of more than half of the hosts that have it).",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
    },
)
def check(fleet: Fleet, request: Request) -> dict[str, Result | FerryError]:
    """Check that every host has an image, or a set of images: with the same digest, all of its blobs, unpacked."""
    seen = Seen()
    answers: dict[str, Result | FerryError] = dict(fleet.each(lambda host: _inspect(host, request, seen)))
    if request.several and (wanted := _further_indexes(seen)):
        answers |= fleet.each(lambda host: _read_indexes(host, wanted, seen))
    for ref in request.refs:
        _judge(ref, request.digest, seen)
    failed: dict[str, FerryError] = {}
    for name, found in seen.found.items():
        try:
            answers[name] = _result(found)
        except FerryError as error:
            answers[name] = failed[name] = error
            fleet.hosts[name].mark_failed()
    _hint_at_command(failed, request)
    return answers


def _hint_at_command(failed: Mapping[str, FerryError], request: Request) -> None:
    """Gives hosts with the same error one command that mends all of them."""
    alike = grouped(((error.message, error.detail), host) for host, error in failed.items())
    for hosts in alike.values() if request.several else ():
        for host in hosts:
            hosts_word = shell.join([",".join(folded(hosts))])
            failed[host].hint = f"bring them there: fab -H {hosts_word} deliver {shell.join(request.given)}"


def _judge(ref: str, digest: str | None, seen: Seen) -> None:
    """Compares what the hosts have under one reference, and puts a verdict or an error into what was found."""
    found = {host: one for host, all_ in seen.found.items() if isinstance(one := all_[ref], CheckResult)}
    expected = digest or majority(list(found.values()), seen.indexes)
    by_digest = grouped((result.digest, name) for name, result in found.items())
    most_first = sorted(by_digest.items(), key=lambda each: (-len(each[1]), each[0]))
    every_holder = "\n".join(f"{digest} on {names(on, every=True)}" for digest, on in most_first)
    holders = names(by_digest.get(expected, ())) if expected else every_holder
    for name, result in found.items():
        judged = replace(result, verdict=verdict(result, expected, seen.indexes))
        error = fault(judged, expected, holders)
        if error:
            error.result = judged
        seen.found[name][ref] = error or judged


def _result(found: Found) -> Result:
    """The result of a host; raises the only image's error, or SomeFailed if any of several images is not well."""
    result = ChecksResult(tuple(_checked(ref, one) for ref, one in found.items()))
    failed = [one for one in found.values() if isinstance(one, FerryError)]
    if not failed:
        return result
    if len(found) == 1:
        failed[0].result = result
        raise failed[0]
    told = [f"{error.kind}: {error.message}" for error in failed[:_MOST_TOLD]]
    more = [f"… and {len(failed) - _MOST_TOLD} more" for _ in failed[_MOST_TOLD : _MOST_TOLD + 1]]
    raise SomeFailed(
        f"{len(failed)} of {len(found)} images are not as they should be",
        detail="\n".join([*told, *more]),
        result=result,
    )


def _checked(ref: str, found: CheckResult | FerryError) -> CheckedImage:
    if isinstance(found, CheckResult):
        return CheckedImage(asked=ref, **asdict(found))
    if isinstance(found.result, ChecksResult):  # the only image's error, which was told on its host already
        return found.result.images[0]
    state = found.result if isinstance(found.result, CheckResult) else _NOTHING
    name = state.reference or ref
    return replace(
        CheckedImage(asked=ref, **asdict(state)), reference=name, status=Status.FAILED, error=found.to_json()
    )


def _inspect(host: Host, request: Request, seen: Seen) -> Result:
    """Looks for the images on a host: the probe, one command for all, and more of them where something is missing."""
    session = Session(host, request.namespace)
    ctr, namespace = session.facts.ctr, session.here.namespace
    images = session.here.find_all(request.refs)
    listed = {image.name: image for image in images.values() if image}
    content, states = Content(), dict[str, Check | FerryError]()
    if listed:
        tops = [*(image.digest for image in listed.values()), *filter(None, [request.digest])]
        more = {"check": checks.command(ctr, namespace, *listed)}
        content, answers = session.read([] if request.several else tops, deep=False, more=more)
        states |= checks.parse_checks(answers["check"].text)
        states |= {name: failure(answers["check"], shown_name(name)) for name in listed if name not in states}
    if odd := [image for image in listed.values() if _is_odd(states[image.name])]:
        session.fetch((image.digest for image in odd if request.several), content)
        session.deepen(content)
    seen.read(content)
    absent = [ref for ref, image in images.items() if image is None]
    errors = dict(zip(absent, session.not_found(absent), strict=True)) if absent else {}
    for error in errors.values():
        error.result = replace(_NOTHING, namespace=namespace, platform=str(session.facts.platform))
    seen.ctrs[host.name] = ctr, namespace
    found = seen.found[host.name] = {}
    for ref, image in images.items():
        found[ref] = _state(session, image, states[image.name], content) if image else errors[ref]
    return ChecksResult(()) if request.several else _result(found)


def _is_odd(state: Check | FerryError) -> bool:
    return isinstance(state, Check) and not (state.complete and state.unpacked)


def _state(session: Session, image: Image, state: Check | FerryError, content: Content) -> CheckResult | FerryError:
    """What a host has of one image, or why that cannot be told."""
    if isinstance(state, FerryError):
        return state
    facts = session.facts
    try:
        target = Descriptor(image.media_type, image.digest, 0)
        refuse_unknown(image)
        content.refuse_bad([target])
        artifact = content.is_artifact(target)
        needed = [] if state.complete and not artifact else content.needed(target, facts.platform)
    except FerryError as error:
        return error
    missing = tuple(blob.digest for blob in needed if blob.digest not in content.visible)
    if artifact:  # ctr up to 1.2 does not know which blobs it has
        there = f"({len(needed) - len(missing)}/{len(needed)})"
        state = Check(not missing, False, f"{'incomplete' if missing else 'complete'} {there}")
    return CheckResult.of(
        image,
        session.here.namespace,
        state,
        platform=str(facts.platform),
        missing=missing,
        parts=not facts.ctr.capabilities.partial_index,
        artifact=artifact,
    )


def _further_indexes(seen: Seen) -> dict[str, list[str]]:
    """Which digests are to be read on which hosts: those that may be indexes of a manifest that an old ctr names."""
    wanted: dict[str, str] = {}
    for ref in {ref for found in seen.found.values() for ref in found}:
        results = {host: one for host, found in seen.found.items() if isinstance(one := found[ref], CheckResult)}
        by_digest = {result.digest: host for host, result in results.items()}
        if len(by_digest) > 1 and any(result.parts for result in results.values()):
            wanted |= {digest: host for digest, host in by_digest.items() if digest not in seen.indexes}
    return grouped((host, digest) for digest, host in wanted.items())


def _read_indexes(host: Host, wanted: Mapping[str, Sequence[str]], seen: Seen) -> Result:
    """Reads manifests on a host, if any are wanted there."""
    if digests := wanted.get(host.name, ()):
        ctr, namespace = seen.ctrs[host.name]
        content = Content()
        answers = inspect.ask(host, {f"get-{n}": ctr.document(namespace, each) for n, each in enumerate(digests)})
        for number, digest in enumerate(digests):
            content.take(digest, answers[f"get-{number}"], host.name)
        seen.read(content)
    return ChecksResult(())
