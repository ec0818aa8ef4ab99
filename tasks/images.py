"""``images``: which host has which image, complete or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry.ctr import checks
from ctr_ferry.ctr.failures import required
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.errors import FerryError, UsageError
from ctr_ferry.images import inspect
from ctr_ferry.images.item import ImageState
from ctr_ferry.report.answers import grouped, results
from ctr_ferry.report.outcome import Result, Status, Table
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.text import names, shown_name, size

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which images to list: those of ``refs``, or else those that the glob fits; None is the inventory's namespace."""

    refs: tuple[str, ...]
    match: str
    namespace: str | None
    all_namespaces: bool


def parse(
    *,
    match: str | None = None,
    ref: Sequence[str] | None = None,
    set_: Sequence[str] | None = None,
    namespace: str | None = None,
    all_namespaces: bool = False,
    csv: bool = False,  # noqa: ARG001  (the printer of the table reads it)
) -> Request:
    """Makes a request of the options; raises UsageError or BadReference, which names the wrong option."""
    if namespace and all_namespaces:
        raise UsageError("--namespace and --all-namespaces exclude each other", hint="leave --namespace out")
    refs = options.references(ref, set_)
    if match and refs:
        raise UsageError("--match excludes --ref and --set", hint="give the glob with --ref, and leave --match out")
    return Request(refs=refs, match=match or "*", namespace=options.namespace(namespace), all_namespaces=all_namespaces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(ImageState):
    """One image; ``size`` is in bytes, as exactly as ctr prints it, and None where it prints none."""

    size: int | None


@dataclass(frozen=True, slots=True)
class ImagesResult:
    """The images of one host; ``absent`` has those of ``--ref`` and ``--set`` that are not there."""

    images: tuple[Row, ...]
    absent: tuple[str, ...] = ()
    status = Status.OK

    def lines(self) -> list[str]:
        """One line for each image."""
        return [f"{row.namespace} {shown_name(row.reference)} {row.digest} {row.check}" for row in self.images]


def _size(number: int | None) -> str:
    return "-" if number is None else size(number)


def tabulate(answers: Mapping[str, Result | FerryError]) -> Table:
    """One row for each image, with all hosts that have it."""
    found = dict(results(answers, ImagesResult))
    hosts: dict[tuple[str, ...], list[str]] = grouped(
        ((row.reference, row.namespace, row.digest, _size(row.size), ",".join(row.platforms) or "-", row.check), host)
        for host, result in found.items()
        for row in result.images
    )
    listed = sorted(hosts)
    absent = grouped((ref, host) for host, result in found.items() for ref in result.absent)
    notes = [f"{ref} is not on {names(on, every=True)}" for ref, on in absent.items()]
    return Table(
        ("REFERENCE", "NAMESPACE", "DIGEST", "SIZE", "PLATFORMS", "COMPLETE", "HOSTS"),
        tuple((shown_name(name), *cells, names(hosts[name, *cells])) for name, *cells in listed),
        tuple(notes or (["no image fits"] if found and not listed else [])),
        apart=tuple((shown_name(name), *cells, host) for name, *cells in listed for host in hosts[name, *cells]),
    )


@fleet_wide(
    parse,
    tabulate=tabulate,
    read_only=True,
    iterable=["ref", "set_"],
    help={
        "match": "Glob on whole names, such as 'dead.example:5000/*', or a part of names (default: all).",
        "ref": "List this image: a name, its short form, a digest, or a glob; may be repeated.",
        "set_": options.SET_HELP,
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "all_namespaces": "List every namespace of every host.",
        "csv": "Print CSV, one line for each image and host.",
    },
)
def images(fleet: Fleet, request: Request) -> dict[str, Result | FerryError]:
    """List images across the hosts: digest, size, platforms, whether they are complete, and which hosts have them."""
    return fleet.each(lambda host: _inspect(host, request))


def _inspect(host: Host, request: Request) -> ImagesResult:
    first = () if request.all_namespaces else (inspect.namespace(host, request.namespace),)
    facts = inspect.facts(host, first)
    namespaces = first or facts.namespaces
    steps = {f"check-{n}": checks.command(facts.ctr, name) for n, name in enumerate(namespaces)}
    if not first:
        steps |= {f"in-{n}": facts.ctr.images(name) for n, name in enumerate(namespaces)}
    answers = inspect.ask(host, steps)
    rows: list[Row] = []
    there: set[str] = set()
    for number, name in enumerate(namespaces):
        listing = facts.listings.get(name)
        if listing is None:
            listing = Listing.parse(name, required(answers[f"in-{number}"], f"namespace {name}").text)
        checked = checks.parse_checks(answers[f"check-{number}"].text)
        if not checked:
            required(answers[f"check-{number}"], f"namespace {name}")
        meant = listing.select(request.refs)
        there |= {ref for ref, images in meant.items() if images}
        chosen = {image.name: image for images in meant.values() for image in images}
        for image in chosen.values() if request.refs else listing.search(request.match):
            rows.append(Row.of(image, name, checked.get(image.name, checks.UNKNOWN), size=image.bytes))
    return ImagesResult(tuple(rows), tuple(ref for ref in request.refs if ref not in there))
