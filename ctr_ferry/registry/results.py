"""What a push or a pull came to on one host."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from ctr_ferry.errors import ErrorData, FerryError
from ctr_ferry.report.answers import way
from ctr_ferry.report.outcome import Status, error_lines
from ctr_ferry.text import shown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryTransferResult:
    """What push and pull tell alike.

    Attributes:
        reference: the name in the registry.
        digest: what the name points at.
        method: how the image was moved; empty where nothing was to be done.
        size: bytes of all blobs of the image; None where its manifests were not read.
        seconds: how long ctr took.
        verified: ``digest``, or ``unverified`` where the registry could not be asked; a note tells why.
        previous_digest: what the name pointed at before it was moved, or would be moved; else empty.
    """

    reference: str
    namespace: str
    digest: str
    status: Status
    ctr: str
    method: str = ""
    size: int | None = None
    seconds: float = 0.0
    verified: str = "digest"
    notes: tuple[str, ...] = ()
    previous_digest: str = ""

    def given(self) -> list[tuple[str, str, str]]:
        """The name with its digest."""
        return [(self.reference, self.digest, "")]

    def told(self, title: str) -> list[str]:
        """The title with the method, then the digest, and the notes, each on a line."""
        how = f"  ({way(self.method, self.ctr)})" if self.method else ""
        below = (self.digest, *self.notes)
        return [f"{title}{how}", *(f"  {line}" for line in below if line)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PullResult(RegistryTransferResult):
    """What the host has after the pull. The method is ``pull``, or ``stage`` where a name was moved."""

    def lines(self) -> list[str]:
        """The name, its digest, the digest that was replaced, and the notes."""
        lines = self.told(f"{self.reference} in {self.namespace}")
        if self.previous_digest:
            lines.insert(2, f"  replaces {self.previous_digest}")
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult(RegistryTransferResult):
    """What the registry has after the push.

    The method is ``push``; ``platform`` where ctr's flag chose one; ``stage`` where one platform was pushed through a
    temporary name.

    Attributes:
        source: the image's name on the host.
        source_digest: the image's digest on the host; another one where one platform of an index was pushed.
        bytes_there: bytes that the repository had before; None where the registry was not asked, as for small images.
    """

    source: str
    source_digest: str
    bytes_there: int | None = None

    def given(self) -> list[tuple[str, str, str]]:
        """The name in the registry, its digest, and the image's digest on the host."""
        return [(self.reference, self.digest, self.source_digest)]

    def lines(self) -> list[str]:
        """Both names, the digest, the notes, and the digest that was replaced."""
        lines = self.told(f"{shown_name(self.source)} -> {self.reference}")
        if self.previous_digest:
            lines.append(f"  replaces {self.previous_digest}")
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledImage(PullResult):
    """One image that was pulled; with ``error``, which tells why it was not, `digest` may be empty."""

    error: ErrorData | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedImage(PushResult):
    """One image that was pushed; with ``error``, which tells why it was not, `digest` may be empty."""

    error: ErrorData | None = None


def image_of(result: RegistryTransferResult, error: FerryError | None = None) -> PulledImage | PushedImage:
    """A result as one of a list; with an error, as one that failed."""
    kind = PushedImage if isinstance(result, PushResult) else PulledImage
    image = kind(**{each.name: getattr(result, each.name) for each in fields(result)})
    return replace(image, status=Status.FAILED, error=error.to_json()) if error else image


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSetResult:
    """What a push or pull came to on one host; an image that was not tried is ``skipped``."""

    namespace: str
    ctr: str
    images: tuple[PulledImage | PushedImage, ...]

    @classmethod
    def of(cls, result: RegistryTransferResult, error: FerryError | None = None) -> TransferSetResult:
        """The result of the only image; with an error, that of its failure."""
        return cls(namespace=result.namespace, ctr=result.ctr, images=(image_of(result, error),))

    @property
    def status(self) -> Status:
        """``changed`` if any image was changed."""
        return Status.of_all(image.status for image in self.images)

    def given(self) -> list[tuple[str, str, str]]:
        """The names with their digests."""
        there = (image for image in self.images if image.status not in (Status.FAILED, Status.SKIPPED))
        return [each for image in there for each in image.given()]

    def lines(self) -> list[str]:
        """The only image; of several, those that were changed or failed, with status, and how many the others are."""
        if len(self.images) == 1:
            return self.images[0].lines()
        quiet = {Status.UNCHANGED: 0, Status.SKIPPED: 0}
        lines = []
        for image in self.images:
            if image.status in quiet and image.verified == "digest":
                quiet[image.status] += 1
                continue
            first, *below = image.lines()
            errors = error_lines(image.error) if image.error else []
            lines += [f"{first}  {image.status}", *below, *(f"  {line}" for line in errors)]
        return [*lines, *(f"{count} of {len(self.images)} {status}" for status, count in quiet.items() if count)]
