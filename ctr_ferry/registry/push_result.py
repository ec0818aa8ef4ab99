"""What a push of one image from one host came to."""

from __future__ import annotations

from dataclasses import dataclass

from ctr_ferry.report.outcome import Status
from ctr_ferry.text import shown_name


@dataclass(frozen=True, slots=True)
class PushResult:
    """What the registry has after the push.

    Attributes:
        reference: the name in the registry.
        source: the image's name on the host.
        digest: what the name in the registry points at.
        source_digest: the image's digest on the host; another one where one platform of an index was pushed.
        method: ``push``; ``platform`` where ctr's flag chose one; ``stage`` where one platform was pushed through a
            temporary name; empty where nothing was pushed.
        bytes: of all blobs of the image; None where its manifests were not read.
        present: bytes of these that the repository had before; None where the registry was not asked, as for small
            images.
        seconds: how long ctr took.
        verified: ``digest``, or ``unverified`` where the registry could not be asked; ``reason`` tells why.
        notices: what the user should know besides.
        previous_digest: what the name in the registry pointed at before, where that was another digest; else empty.
    """

    reference: str
    source: str
    namespace: str
    digest: str
    source_digest: str
    status: Status
    ctr: str
    method: str = ""
    bytes: int | None = None
    present: int | None = None
    seconds: float = 0.0
    verified: str = "digest"
    reason: str = ""
    notices: tuple[str, ...] = ()
    previous_digest: str = ""

    def given(self) -> list[tuple[str, str, str]]:
        """The name in the registry, its digest, and the image's digest on the host."""
        return [(self.reference, self.digest, self.source_digest)]

    def lines(self) -> list[str]:
        """Both names, the digest, the notices, and the digest that was replaced."""
        from ctr_ferry.registry.push_pull import result_lines

        lines = result_lines(f"{shown_name(self.source)} -> {self.reference}", self)
        if self.previous_digest:
            lines.append(f"  replaces {self.previous_digest}")
        return lines
