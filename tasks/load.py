"""``load``: copies the images of an archive to hosts, and sends each host only the blobs that it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctr_ferry.errors import FerryError, UsageError
from ctr_ferry.report.outcome import Result
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.ssh.local_path import local_path

if TYPE_CHECKING:
    from ctr_ferry.oci.archive import Archive
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.transfer.copy_request import CopyRequest


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for; the archive is read and checked before any host is touched."""

    file: Path
    archive: Archive
    copy_request: CopyRequest


def parse(
    *,
    archive: str | None = None,
    ref: Sequence[str] | None = None,
    set_: Sequence[str] | None = None,
    as_: str | None = None,
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
    from ctr_ferry.transfer import archive_images
    from ctr_ferry.transfer.copy_request import CopyOptions, CopyRequest

    if not archive:
        raise UsageError("load needs --archive FILE", hint="fab -H node1 load --archive app.tar")
    name, wanted = options.new_name(as_), options.platform(platform, every=all_platforms)
    where, refs = options.namespace(namespace), options.references(ref, set_)
    file = local_path(archive)
    with archive_images.telling(file):
        found = archive_images.read(file)
        images = archive_images.chosen(found.entries, refs)
        image_copies = archive_images.image_copies(found, images, name)
        archive_images.check_platforms(found, images, wanted, every=all_platforms)
    how = CopyOptions(namespace=where, platform=wanted, every=all_platforms, unpack=not no_unpack, force=force, pin=pin)
    return Request(file, found, CopyRequest(image_copies, archive_images.content(found), how))


@fleet_wide(
    parse,
    iterable=["ref", "set_"],
    help={
        "archive": "The file: an OCI layout or what docker save wrote, plain or compressed with gzip or zstd.",
        "ref": "Load only this image: a name, a glob on whole names, or a digest; may be repeated.",
        "set_": options.SET_HELP,
        "as_": "The name to give, if it is one image.",
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
    from ctr_ferry.transfer.sources import ArchiveSource

    return copy_images(fleet, request.copy_request, ArchiveSource(request.file, request.archive))
