"""``check``: whether every host has the same image, complete and unpacked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctr_ferry.ctr import checks
from ctr_ferry.ctr.failures import content_missing, failure
from ctr_ferry.errors import Drift, FerryError, NotUnpacked, PlatformMissing, UsageError
from ctr_ferry.images.item import ImageState
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.report.answers import grouped, results
from ctr_ferry.report.outcome import Result, Status, Table
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.text import names, shown_name

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host

PLATFORM_MANIFEST = "same (platform manifest)"
OTHER = "other"
UNDECIDED = "no majority"


@dataclass(frozen=True, slots=True)
class Request:
    """Which image to check. Without a digest, the digest of more than half of the hosts is expected."""

    ref: str
    digest: str | None
    namespace: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult(ImageState):
    """What one host has under the name.

    Attributes:
        platform: the platform of the host.
        missing: the blobs that the host's platform needs and the namespace lacks.
        verdict: ``same``, `PLATFORM_MANIFEST` or `OTHER`, compared with the expected digest; `UNDECIDED` without one.
        parts: whether this ctr can name only one platform's manifest of an index that was pulled in part.
    """

    platform: str
    missing: tuple[str, ...] = ()
    verdict: str = ""
    parts: bool = False
    status = Status.OK

    def lines(self) -> list[str]:
        """The result in one line."""
        unpacked = "unpacked" if self.unpacked else "not unpacked"
        return [f"{shown_name(self.name)} {self.digest} {self.verdict}, {self.check}, {unpacked}"]


def parse(*, ref: str | None = None, digest: str | None = None, namespace: str | None = None) -> Request:
    """Makes a request of the options; raises UsageError or BadReference, which names the wrong option."""
    if not ref:
        raise UsageError("check needs --ref REF", hint="fab -H all check --ref r.example/app:1")
    if not is_digest(ref):
        Reference.parse(ref)
    if digest and not is_digest(digest):
        raise UsageError(f"--digest {digest!r} is no digest", hint="give sha256: and 64 hex digits")
    return Request(ref, digest, options.namespace(namespace))


def tabulate(answers: Mapping[str, Result | FerryError]) -> Table:
    """One row for each digest and state, with its hosts; the row with most hosts first."""
    hosts = grouped(
        ((found.digest, found.verdict, found.check, "yes" if found.unpacked else "no"), host)
        for host, found in results(answers, CheckResult)
    )
    return Table(
        ("DIGEST", "VERDICT", "COMPLETE", "UNPACKED", "HOSTS"),
        tuple((*c, names(hosts[c], every=True)) for c in sorted(hosts, key=lambda c: (-len(hosts[c]), c))),
    )


@fleet_wide(
    parse,
    tabulate=tabulate,
    read_only=True,
    help={
        "ref": "The image: a name, its short form, or a digest.",
        "digest": "The digest that it must have (default: that of more than half of the hosts that have it).",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
    },
)
def check(fleet: Fleet, request: Request) -> dict[str, Result | FerryError]:
    """Check that every host has an image: with the same digest, all of its blobs, unpacked."""
    indexes: dict[str, tuple[str, ...]] = {}
    answers: dict[str, Result | FerryError] = dict(fleet.each(lambda host: _inspect(host, request, indexes)))
    found = dict(results(answers, CheckResult))
    expected = request.digest or _majority(list(found.values()), indexes)
    by_digest = grouped((result.digest, name) for name, result in found.items())
    most_first = sorted(by_digest.items(), key=lambda each: (-len(each[1]), each[0]))
    every_holder = "\n".join(f"{digest} on {names(on, every=True)}" for digest, on in most_first)
    holders = names(by_digest.get(expected, ())) if expected else every_holder
    for name, result in found.items():
        judged = replace(result, verdict=_verdict(result, expected, indexes))
        error = _fault(judged, expected, holders)
        if error:
            error.result = judged
            fleet.hosts[name].mark_failed()
        answers[name] = error or judged
    return answers


def _inspect(host: Host, request: Request, indexes: dict[str, tuple[str, ...]]) -> CheckResult:
    """Runs the probe, reads the image's state and manifest and, where blobs are missing, its index's manifests."""
    session = Session(host, request.namespace)
    facts, namespace = session.facts, session.here.namespace
    image = session.find(request.ref)
    tops = [image.digest, *([request.digest] if request.digest else [])]
    more = {"check": checks.command(facts.ctr, namespace, image.name)}
    content, answers = session.read(tops, deep=False, more=more)
    state = checks.parse_checks(answers["check"].text).get(image.name)
    if state is None:
        raise failure(answers["check"], shown_name(image.name))
    content.manifest(image.digest)  # raises if the manifest cannot be read
    for top in content.blobs:
        if children := content.manifest(top).children:
            indexes[top] = tuple(child.digest for child in children)
    needed: list[Descriptor] = []
    if not state.complete:
        session.deepen(content)
        needed = content.needed(Descriptor(image.media_type, image.digest, 0), facts.platform)
    return CheckResult.of(
        image,
        namespace,
        state,
        platform=str(facts.platform),
        missing=tuple(blob.digest for blob in needed if blob.digest not in content.visible),
        parts=not facts.ctr.capabilities.partial_index,
    )


def _majority(found: list[CheckResult], indexes: Mapping[str, tuple[str, ...]]) -> str:
    """The digest of more than half of the hosts; empty if no digest has so many.

    If a host's ctr can name no more than a platform's manifest, that manifest counts as the index of other hosts.
    """
    tops = {result.digest for result in found}
    counted = Counter(
        next((top for top in indexes if result.parts and top in tops and result.digest in indexes[top]), result.digest)
        for result in found
    )
    return next((digest for digest, count in counted.items() if 2 * count > len(found)), "")


def _verdict(result: CheckResult, expected: str, indexes: Mapping[str, tuple[str, ...]]) -> str:
    if not expected:
        return UNDECIDED
    if result.digest == expected:
        return "same"
    return PLATFORM_MANIFEST if result.parts and result.digest in indexes.get(expected, ()) else OTHER


def _fault(result: CheckResult, expected: str, holders: str) -> FerryError | None:
    """What is wrong on a host; ``holders`` names the hosts of the expected digest, or of every digest if none is."""
    what = f"{shown_name(result.name)} in namespace {result.namespace}"
    if result.verdict == UNDECIDED:
        return Drift(
            f"{what} has no digest that more than half of the hosts have",
            detail=holders,
            hint="choose the right digest with --digest",
        )
    if result.verdict == OTHER:
        return Drift(
            f"{what} has another digest than expected",
            detail=f"here     {result.digest}\nexpected {expected}" + (f" (as on {holders})" if holders else ""),
            hint="copy or pull the expected image to this host, or choose another digest with --digest",
        )
    if _foreign(result):
        return PlatformMissing(
            f"{what} has no content for this host's platform {result.platform}",
            detail=f"it is for {result.platforms}",
            hint="pull or import an image for this platform",
        )
    if not result.complete:
        missing = "\n".join(("missing", *result.missing)) if result.missing else result.check
        return content_missing(shown_name(result.name), missing)
    if not result.unpacked:
        return NotUnpacked(
            f"{what} is complete, but not unpacked", hint="pull or import the image again: that unpacks it"
        )
    return None


def _foreign(result: CheckResult) -> bool:
    """Whether the image is for other machines. Variants are ignored: ctr knows which variant runs which."""
    if (result.complete and result.unpacked) or result.platforms == "-":
        return False
    machine = result.platform.split("/")[:2]
    return all(each.split("/")[:2] != machine for each in result.platforms.split(","))
