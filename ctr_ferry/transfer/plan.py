"""One image on its way to one host, from its plan to its result. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ctr_ferry.ctr.ingest import ImageBlobs
from ctr_ferry.errors import ContentCorrupt, ContentMissing, FerryError, SourceLost
from ctr_ferry.images.item import Item
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.transfer.copy_request import ImageCopy
from ctr_ferry.transfer.copy_result import CopiedImage

_FINAL = (ContentCorrupt, ContentMissing, SourceLost)  # errors that another attempt would meet again


@dataclass(slots=True, kw_only=True)
class Plan(Item[CopiedImage]):
    """One image on one host that can be copied.

    Attributes:
        target: what the name shall point at.
        needed: all blobs that must be there.
        again: why the image is to be tried once more.
        done: whether the image is named and was verified.
    """

    image_copy: ImageCopy
    target: Descriptor
    needed: ImageBlobs
    again: FerryError | None = None
    done: bool = False

    @property
    def ready(self) -> bool:
        """Whether nothing has gone wrong with the image so far."""
        return self.pending and not self.again

    def stop(self, error: FerryError) -> None:
        """Notes an error. Unless it is final, the image is tried once more."""
        if isinstance(error, _FINAL):
            self.fail(error)
        else:
            self.again = error

    def not_named(self, error: FerryError) -> None:
        """Notes why the image got no name. Whatever it was, the image is tried once more: blobs may have vanished."""
        self.again = error

    def stop_incomplete(self, failed: Mapping[str, FerryError]) -> None:
        """Stops the image if blobs of it have not come; ``failed`` has the reasons, by digest."""
        errors = [failed[blob.digest] for blob in self.needed.blobs if blob.digest in failed]
        if errors:
            self.stop(next((error for error in errors if isinstance(error, _FINAL)), errors[0]))

    def fail(self, error: FerryError) -> None:
        """Marks the image as failed."""
        self.again = None
        Item.fail(self, error)


def pending(items: Iterable[Item[CopiedImage]]) -> list[Plan]:
    """The plans that are still to be carried out."""
    return [item for item in items if isinstance(item, Plan) and item.pending]
