"""One image as a host has it, compared with the digest that is expected of all hosts. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctr_ferry import shell
from ctr_ferry.ctr.failures import content_missing
from ctr_ferry.errors import Drift, FerryError, NotUnpacked, PlatformMissing
from ctr_ferry.images.item import ImageState
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.report.outcome import Status
from ctr_ferry.text import shown_name

PLATFORM_MANIFEST = "same (platform manifest)"
OTHER = "other"
UNDECIDED = "no majority"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult(ImageState):
    """What one host has under the name.

    Attributes:
        platform: the platform of the host.
        missing: the blobs that the host's platform needs and the namespace lacks.
        verdict: ``same``, `PLATFORM_MANIFEST` or `OTHER`, compared with the expected digest; `UNDECIDED` without one.
        parts: whether this ctr can name only one platform's manifest of an index that was pulled in part.
        artifact: whether it is an artifact and no image, so that all of its blobs count and nothing is unpacked.
    """

    platform: str
    missing: tuple[str, ...] = ()
    verdict: str = ""
    parts: bool = False
    artifact: bool = False
    status = Status.OK

    @property
    def cell(self) -> str:
        """What a table says about its being unpacked."""
        return "artifact" if self.artifact else "yes" if self.unpacked else "no"

    def lines(self) -> list[str]:
        """The result in one line."""
        unpacked = "an artifact, not an image" if self.artifact else "unpacked" if self.unpacked else "not unpacked"
        return [f"{shown_name(self.reference)} {self.digest} {self.verdict}, {self.check}, {unpacked}"]


def majority(found: Sequence[CheckResult], indexes: Mapping[str, tuple[str, ...]]) -> str:
    """The digest of more than half of the hosts; empty if no digest has so many.

    If a host's ctr can name no more than a platform's manifest, that manifest counts as the index of other hosts.
    """
    tops = {result.digest for result in found}
    counted = Counter(
        next((top for top in indexes if result.parts and top in tops and result.digest in indexes[top]), result.digest)
        for result in found
    )
    return next((digest for digest, count in counted.items() if 2 * count > len(found)), "")


def verdict(result: CheckResult, expected: str, indexes: Mapping[str, tuple[str, ...]]) -> str:
    """The verdict on a host's digest; ``indexes`` has the manifests of each index that was read."""
    if not expected:
        return UNDECIDED
    if result.digest == expected:
        return "same"
    return PLATFORM_MANIFEST if result.parts and result.digest in indexes.get(expected, ()) else OTHER


def fault(result: CheckResult, expected: str, holders: str) -> FerryError | None:
    """What is wrong on a host; ``holders`` names the hosts of the expected digest, or of every digest if none is."""
    what = f"{shown_name(result.reference)} in namespace {result.namespace}"
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
            hint=f"bring the expected image: {_replace(result.reference, expected)}",
        )
    if _foreign(result):
        return PlatformMissing(
            f"{what} has no content for this host's platform {result.platform}",
            detail=f"it is for {', '.join(result.platforms)}",
            hint=f"see which hosts have it for this platform: fab -H all images --ref {shell.join([result.reference])}",
        )
    if not result.complete:
        missing = "\n".join(("missing", *result.missing)) if result.missing else result.check
        return content_missing(shown_name(result.reference), missing)
    if not result.unpacked and not result.artifact:
        return NotUnpacked(
            f"{what} is complete, but not unpacked",
            hint=f"pull it again, which unpacks it: fab -H HOST pull --ref {shell.join([result.reference])}",
        )
    return None


def _foreign(result: CheckResult) -> bool:
    """Whether the image is for other machines. Variants are ignored: ctr knows which variant runs which.

    ctr unpacks a single manifest of any platform, so that the image may be complete and unpacked.
    """
    if not result.platforms or result.artifact:
        return False
    host, usable = Platform.parse(result.platform), result.complete and result.unpacked
    listed = [Platform.parse(each) for each in result.platforms if each.count("/") in (1, 2)]
    return not any(host.takes(each) if usable else host.architecture == each.architecture for each in listed)


def _replace(name: str, digest: str) -> str:
    """A command line that gives a name to the image of another digest, from any host that has it."""
    ref = name if is_digest(name) else f"{Reference.parse(name).repository}@{digest}"
    return f"fab -H HOST copy --from any {shell.join(['--ref', ref, '--as', name])} --force"
