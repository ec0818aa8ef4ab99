"""What `deliver` is asked for: values that are checked before the first connection."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ctr_ferry import shell
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.transfer.copy_request import CopyOptions
from ctr_ferry.transfer.source_inventory import ANY, ImageSelector, SourceRequest

if TYPE_CHECKING:
    from ctr_ferry.transfer.archive_images import ArchiveImages


class Via(StrEnum):
    """Which routes images may take."""

    AUTO = "auto"
    REGISTRY = "registry"
    SSH = "ssh"


@dataclass(frozen=True, slots=True)
class DeliverRequest:
    """The options.

    Attributes:
        selectors: the images as the source has them, each with the name to give.
        sources: patterns of the inventory, or `ANY` for all of it.
        archive: the source, if it is an archive.
        digest: what the one image must be.
        foreign_layers: whether a registry to which hosts push must get foreign layers, too.
        plan: the file that gets the plan; None to carry it out.
        words: the words of the command line that name the images.
    """

    selectors: tuple[ImageSelector, ...]
    sources: tuple[str, ...] = (ANY,)
    archive: ArchiveImages | None = None
    via: Via = Via.AUTO
    namespace: str | None = None
    platform: Platform | None = None
    digest: str | None = None
    force: bool = False
    foreign_layers: bool = False
    plan: str | None = None
    words: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the archive is passed by."""
        return self.archive.notes if self.archive else ()

    @property
    def options(self) -> CopyOptions:
        """How images are copied: a host gets what its own platform needs."""
        return CopyOptions(namespace=self.namespace, platform=self.platform, own=True, force=self.force)

    @property
    def source_request(self) -> SourceRequest:
        """What the possible sources are asked for."""
        return SourceRequest(self.sources, self.selectors, self.namespace, self.options, self.digest)

    def command(self, host: str, images: tuple[str, ...] = (), *more: str, without: str = "") -> str:
        """The command line that delivers the same to one host.

        Args:
            images: words that name the images; without any, those of this request.
            more: further words, which take the place of options that this request has.
            without: an option to leave out.
        """
        options = {
            "--from": None if ANY in self.sources or self.archive else " ".join(self.sources),
            "--namespace": self.namespace,
            "--platform": self.platform and str(self.platform),
            "--digest": self.digest,
            "--via": None if self.via is Via.AUTO else str(self.via),
            "--plan": self.plan,
        }
        words = ["fab", "-H", host, "deliver", *(images or self.words)]
        words += ["--archive", str(self.archive.file)] if self.archive else []
        words += [
            word
            for option, given in options.items()
            if option not in (*more, without)
            for value in (given or "").split()
            for word in (option, value)
        ]
        words += ["--force"] if self.force and "--force" not in more else []
        words += ["--foreign-layers"] if self.foreign_layers else []
        return shell.join([*words, *more])
