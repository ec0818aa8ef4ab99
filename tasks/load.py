"""``load``: copies the images of an archive to hosts, and sends each host only the blobs that it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry.errors import FerryError, UsageError
from ctr_ferry.oci.reference import Reference
from ctr_ferry.report.outcome import Result
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.ssh.local_path import local_path

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.transfer.archive_images import ArchiveImages
    from ctr_ferry.transfer.copy_request import CopyRequest


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for; the archive is read and checked before any host is touched."""

    images: ArchiveImages
    copy_request: CopyRequest

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the archive is passed by."""
        return self.images.notes


def parse(
    *,
    archive: str | None = None,
    ref: Sequence[str] | None = None,
    set_: Sequence[str] | None = None,
    as_: str | None = None,
    base_name: str | None = None,
    namespace: str | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    no_unpack: bool = False,
    force: bool = False,
    pin: bool = False,
) -> Request:
    """Turns the options into a request; reads and checks the archive.

    Raises:
        UsageError, BadReference: an option is wrong.
        BadArchive: the archive is broken, or lacks what the options name.
    """
    from ctr_ferry.transfer.archive_images import REMEDY, Wanted, archive_images
    from ctr_ferry.transfer.copy_request import CopyOptions, CopyRequest

    if not archive:
        raise UsageError("load needs --archive FILE", hint="fab -H HOST load --archive app.tar")
    name, base, wanted = options.new_name(as_), _base(base_name), options.platform(platform, every=all_platforms)
    where, refs = options.namespace(namespace), options.references(ref, set_)
    if name and base:
        raise UsageError("--as and --base-name exclude each other", hint="leave --base-name out")
    images = archive_images(local_path(archive), Wanted(((refs, name),), base, wanted, every=all_platforms))
    how = CopyOptions(namespace=where, platform=wanted, every=all_platforms, unpack=not no_unpack, force=force, pin=pin)
    copies, content = images.image_copies, images.content
    return Request(images, CopyRequest(copies, content, how, remedy=REMEDY, origin="the archive", verb="loaded"))


def _base(text: str | None) -> Reference | None:
    base = Reference.parse(text) if text is not None else None
    if base and (base.tag or base.digest):
        raise UsageError(
            f"--base-name {text} is no repository", hint=f"leave out the tag, such as --base-name {base.repository}"
        )
    return base


@fleet_wide(
    parse,
    if_cut="run the same load again: it sends a host only what is not there yet",
    iterable=["ref", "set_"],
    help={
        "archive": "A file, plain or with gzip or zstd, or a folder: an OCI layout, or what docker save wrote.",
        "ref": "Load only this image: a name, a glob on whole names, a digest, or its tag alone; may be repeated.",
        "set_": options.SET_HELP,
        "as_": "The name to give, if it is one image.",
        "base_name": "The repository of images that the archive calls by a tag alone.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "platform": "Load only this platform's manifest of a multi-platform image.",
        "all_platforms": "Insist that all platforms are there.",
        "no_unpack": "Do not unpack the images.",
        "force": "Let an existing name point at the archive's digest.",
        "pin": "Let kubelet keep the images (CRI of containerd 1.7 on).",
    },
)
def load(fleet: Fleet, request: Request) -> dict[str, Result | FerryError]:
    """Copy an archive's images to hosts; each host gets only the blobs that it lacks, checked before they are sent."""
    from ctr_ferry.transfer.host_copy import copy_images

    return copy_images(fleet, request.copy_request, request.images.source)
