"""``copy``: copies images from host to hosts over SSH; only missing blobs travel, and nothing is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ctr_ferry.errors import FerryError, UsageError
from ctr_ferry.images.mappings import read_map
from ctr_ferry.oci.reference import is_glob
from ctr_ferry.report.outcome import Result
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.transfer.source_inventory import ImageSelector, SourceRequest


def parse(
    *,
    from_: list[str] | None = None,
    ref: list[str] | None = None,
    set_: list[str] | None = None,
    as_: str | None = None,
    map: str | None = None,
    namespace: str | None = None,
    to_namespace: str | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    no_unpack: bool = False,
    force: bool = False,
    pin: bool = False,
) -> SourceRequest:
    """Turns the options into a request; raises UsageError or BadReference where an option is wrong."""
    from ctr_ferry.transfer.copy_request import CopyOptions
    from ctr_ferry.transfer.source_inventory import SourceRequest

    if not from_:
        raise UsageError("copy needs --from HOST", hint="name the host that has the image, or take any with --from any")
    source = options.namespace(namespace)
    return SourceRequest(
        sources=tuple(from_),
        selectors=_selectors(options.references(ref, set_), as_, map),
        namespace=source,
        options=CopyOptions(
            namespace=options.namespace(to_namespace, "--to-namespace") or source,
            platform=options.platform(platform, every=all_platforms),
            every=all_platforms,
            unpack=not no_unpack,
            force=force,
            pin=pin,
        ),
    )


def _selectors(refs: tuple[str, ...], as_: str | None, map_file: str | None) -> tuple[ImageSelector, ...]:
    from ctr_ferry.transfer.source_inventory import ImageSelector

    if bool(refs) == bool(map_file):
        raise UsageError(
            "copy needs images with --ref REF or --set FILE, or else with --map FILE",
            hint="fab -H HOST copy --from any --ref r.example/app:1",
        )
    if map_file:
        if as_:
            raise UsageError(
                "--map and --as exclude each other", hint="the map's second column is the name: leave --as out"
            )
        return tuple(ImageSelector(pair.src, pair.dst) for pair in read_map(Path(map_file), apart=True))
    selectors = tuple(ImageSelector(ref, options.new_name(as_)) for ref in refs)
    if as_ and (len(selectors) > 1 or is_glob(selectors[0].ref)):
        raise UsageError(
            "--as is for one image",
            hint="give each image its name in a file of two columns with --map, or leave --as out",
        )
    return selectors


@fleet_wide(
    parse,
    if_cut="run the same copy again: it sends a host only what is not there yet",
    iterable=["from_", "ref", "set_"],
    help={
        "from_": "A host that has the image; may be repeated: a blob comes from the first that has it; any finds one.",
        "ref": "The image as the source has it: a name, its short form, a digest, or a glob; may be repeated.",
        "set_": options.SET_HELP,
        "as_": "The name to give, if it is one image (default: its own).",
        "map": "File with two columns, source and destination name, '#' comments.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "to_namespace": "The namespace at the destination, if it is another.",
        "platform": "Copy only this platform's manifest of a multi-platform image.",
        "all_platforms": "Insist that all platforms are there.",
        "no_unpack": "Do not unpack the images.",
        "force": "Let an existing name point at the source's digest.",
        "pin": "Let kubelet keep the images (CRI of containerd 1.7 on).",
    },
)
def copy(fleet: Fleet, request: SourceRequest) -> dict[str, Result | FerryError]:
    """Copy images from host to hosts over SSH: a blob goes only where it is missing, and is read once for a batch."""
    from ctr_ferry.transfer.host_copy import copy_images
    from ctr_ferry.transfer.source_inventory import images_from

    try:
        copy_request, source = images_from(fleet, request)
    except UsageError:
        raise
    except FerryError as error:
        return fleet.fail(error)
    return copy_images(fleet, copy_request, source)
