"""``deliver``: brings images to where they are needed, each by the route that moves least; may be run again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ctr_ferry.errors import FerryError, UsageError
from ctr_ferry.images.mappings import read_map
from ctr_ferry.oci.reference import is_digest, is_glob
from ctr_ferry.report.outcome import Answer, Table
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.ssh.local_path import local_path

if TYPE_CHECKING:
    from ctr_ferry.delivery.request import DeliverRequest
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.transfer.source_inventory import ImageSelector


def parse(
    *,
    src: str | None = None,
    dst: str | None = None,
    ref: list[str] | None = None,
    map: str | None = None,
    set_: list[str] | None = None,
    archive: str | None = None,
    from_: list[str] | None = None,
    via: str | None = None,
    namespace: str | None = None,
    platform: str | None = None,
    digest: str | None = None,
    force: bool = False,
    foreign_layers: bool = False,
    plan: str | None = None,
) -> DeliverRequest:
    """Turns the options into a request; reads files, so that no host is touched if one of them is wrong.

    Raises:
        UsageError, BadReference: an option is wrong.
        BadArchive: the archive is broken, or lacks what the options name.
    """
    from ctr_ferry.delivery.plan_file import HEAD
    from ctr_ferry.delivery.request import DeliverRequest, Via
    from ctr_ferry.transfer.archive_images import archive_images, by_selectors
    from ctr_ferry.transfer.source_inventory import ANY

    if archive and from_:
        raise UsageError("--archive and --from exclude each other", hint="the archive is the source: leave --from out")
    selectors, words = _selectors(src, dst, map, (ref or [], set_ or []), may_be_all=bool(archive))
    if digest and not is_digest(digest):
        raise UsageError(
            f"--digest {digest!r} is no digest",
            hint="give sha256: and 64 hex digits; hosts tell theirs: fab -H all find --match '*'",
        )
    if digest and len(selectors) != 1:
        raise UsageError("--digest is for one image", hint="name one image, or leave --digest out")
    if plan:
        options.file_to_write(plan, "--plan", HEAD)
    wanted = options.platform(platform)
    return DeliverRequest(
        selectors=selectors,
        sources=tuple(from_ or (ANY,)),
        archive=archive_images(local_path(archive), by_selectors(selectors, wanted)) if archive else None,
        via=Via(options.choice(via, "--via", list(Via))),
        namespace=options.namespace(namespace),
        platform=wanted,
        digest=digest,
        force=force,
        foreign_layers=foreign_layers,
        plan=plan,
        words=words,
    )


def _selectors(
    src: str | None, dst: str | None, map_file: str | None, named: tuple[list[str], list[str]], *, may_be_all: bool
) -> tuple[tuple[ImageSelector, ...], tuple[str, ...]]:
    """The images that are meant, and the words of the command line that name them; ``named`` has refs and sets."""
    from ctr_ferry.transfer.source_inventory import ImageSelector

    refs = options.references(*named)
    ways = [bool(src or dst), bool(refs), bool(map_file)]
    if sum(ways) > 1 or not (any(ways) or may_be_all):
        raise UsageError(
            "deliver needs one of: --src REF with --dst REF, --ref REF, --set FILE, or --map FILE",
            hint="fab -H HOST deliver --src old.example/app:1 --dst new.example/app:1",
        )
    if dst and not src:
        raise UsageError("--src is missing", hint="--dst is the name that the image --src gets")
    if map_file:
        pairs = read_map(Path(map_file))
        return tuple(ImageSelector(pair.src, pair.dst) for pair in pairs), ("--map", map_file)
    if not src:
        words = [(option, word) for option, given in zip(("--ref", "--set"), named, strict=True) for word in given]
        return tuple(map(ImageSelector, refs)), tuple(word for pair in words for word in pair)
    if dst and is_glob(src):
        raise UsageError(
            "--dst is for one image",
            hint="give each image its name in a file of two columns with --map, or leave --dst out",
        )
    (given,) = options.references([src], ())
    return (ImageSelector(given, options.new_name(dst)),), ("--src", src, *(("--dst", dst) if dst else ()))


def tabulate(answers: Mapping[str, Answer]) -> Table:
    """One row for each image and route, with all hosts that it came to by that route."""
    from ctr_ferry.delivery import results

    return results.tabulate(answers)


@fleet_wide(
    parse,
    if_cut="run the same deliver again: it sends a host only what is not there yet",
    iterable=["ref", "set_", "from_"],
    tabulate=tabulate,
    read_only=lambda request: request.plan is not None,
    help={
        "src": "The image as the source has it: a name, its short form, or a digest.",
        "dst": "The name to give (default: its own); without a tag it takes the source's.",
        "ref": "An image under its own name; may be repeated, and takes globs.",
        "map": "File with two columns, source and destination name, '#' comments.",
        "set_": options.SET_HELP,
        "archive": "The source is this archive, as for load.",
        "from_": "A host that has the image; may be repeated (default: any, which is the whole inventory).",
        "via": "auto (default), registry or ssh: the only route that bytes may take.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "platform": "Name only this platform's manifest of a multi-platform image.",
        "digest": "The digest that the image must have.",
        "force": "Let names that exist on hosts or in the registry point at this image.",
        "foreign_layers": "Where hosts push to a registry: push foreign layers, too, which ctr from 1.6 on leaves out.",
        "plan": "Write what would be done to this file, and do nothing; `apply` carries it out.",
    },
)
def deliver(fleet: Fleet, request: DeliverRequest) -> dict[str, Answer]:
    """Bring images to hosts: named where they are, else pulled from their registry, else copied over SSH."""
    from ctr_ferry.delivery.delivery import Delivery
    from ctr_ferry.delivery.inspection import inspect
    from ctr_ferry.delivery.routing import route
    from ctr_ferry.transfer.new_file import replacing

    try:
        found = inspect(fleet, request)
    except UsageError:
        raise
    except FerryError as error:
        return fleet.fail(error)
    delivery = Delivery(fleet, found, route(fleet, found))
    if request.plan:
        with replacing(local_path(request.plan)) as file:
            file.write(delivery.plan().to_json())
    return delivery.foretell() if fleet.dry_run or request.plan else delivery.run()
