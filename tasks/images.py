"""``images``: which host has which image, complete or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry.ctr import checks
from ctr_ferry.ctr.failures import failure, required
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.errors import FerryError, UsageError
from ctr_ferry.images import inspect
from ctr_ferry.report.outcome import Result, Status, Table
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.shell import Answer
from ctr_ferry.text import names, shown_name

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host


@dataclass(frozen=True, slots=True)
class Request:
    """Which images to list; without a namespace, those of the inventory's namespace."""

    match: str
    namespace: str | None
    all_namespaces: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One name on one host; ``complete`` and ``unpacked`` are about the host's platform alone."""

    name: str
    namespace: str
    digest: str
    size: str
    platforms: str
    complete: bool
    unpacked: bool
    check: str


@dataclass(frozen=True, slots=True)
class ImagesResult:
    """The images of one host."""

    images: tuple[Row, ...]

    @property
    def status(self) -> Status:
        """ok, since the command only reads."""
        return Status.OK

    def lines(self) -> list[str]:
        """One line for each image."""
        return [f"{row.namespace} {shown_name(row.name)} {row.digest} {row.check}" for row in self.images]


def parse(
    *,
    match: str | None = None,
    namespace: str | None = None,
    all_namespaces: bool = False,
    csv: bool = False,  # noqa: ARG001  (the printer of the table reads it)
) -> Request:
    """Makes a request of the options; raises UsageError for a wrong namespace, or one with ``--all-namespaces``."""
    if namespace and all_namespaces:
        raise UsageError("--namespace and --all-namespaces exclude each other", hint="leave one of them out")
    return Request(match or "*", options.namespace(namespace), all_namespaces)


def tabulate(answers: Mapping[str, Result | FerryError]) -> Table:
    """One row for each image, with all hosts that have it."""
    hosts: dict[tuple[str, ...], list[str]] = {}
    for host, answer in answers.items():
        for row in answer.images if isinstance(answer, ImagesResult) else ():
            cells = (row.name, row.namespace, row.digest, row.size, row.platforms, row.check)
            hosts.setdefault(cells, []).append(host)
    listed, any_answered = sorted(hosts), any(isinstance(answer, ImagesResult) for answer in answers.values())
    return Table(
        ("REFERENCE", "NAMESPACE", "DIGEST", "SIZE", "PLATFORMS", "COMPLETE", "HOSTS"),
        tuple((shown_name(name), *cells, names(hosts[name, *cells])) for name, *cells in listed),
        ("no image fits",) if any_answered and not listed else (),
        apart=tuple((shown_name(name), *cells, host) for name, *cells in listed for host in hosts[name, *cells]),
    )


@fleet_wide(
    parse,
    tabulate=tabulate,
    read_only=True,
    help={
        "match": "Glob on whole names, such as 'dead.example:5000/*' (default: all).",
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
    names = first or facts.namespaces
    steps = {f"check-{n}": checks.command(facts.ctr, name) for n, name in enumerate(names)}
    if not first:
        steps |= {f"in-{n}": facts.ctr.images(name) for n, name in enumerate(names)}
    answers = inspect.ask(host, steps)
    rows: list[Row] = []
    for number, name in enumerate(names):
        listing = facts.listings.get(name)
        if listing is None:
            listing = Listing.parse(name, required(answers[f"in-{number}"], f"namespace {name}").text)
        rows += _rows(listing, request.match, answers[f"check-{number}"])
    return ImagesResult(tuple(rows))


def _rows(listing: Listing, match: str, answer: Answer) -> list[Row]:
    checked = checks.parse_checks(answer.text)
    if not answer.ok and not checked:
        raise failure(answer, f"namespace {listing.namespace}")
    rows = []
    for image in listing.match(match):
        check = checked.get(image.name, checks.UNKNOWN)
        rows.append(
            Row(
                name=image.name,
                namespace=listing.namespace,
                digest=image.digest,
                size=image.size,
                platforms=image.platforms,
                complete=check.complete,
                unpacked=check.unpacked,
                check=check.status,
            )
        )
    return rows
