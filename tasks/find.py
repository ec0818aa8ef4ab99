"""``find``: where an image is, in every namespace of every containerd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctr_ferry import shell
from ctr_ferry.ctr.commands import KUBELETS
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.ctr.probe import MOST_NAMESPACES, Facts
from ctr_ferry.errors import FerryError, GarbledAnswer, NothingFound, UsageError
from ctr_ferry.images import inspect
from ctr_ferry.images.mappings import Pair
from ctr_ferry.report.answers import grouped, look_wider, results
from ctr_ferry.report.hints import at_hosts
from ctr_ferry.report.outcome import Result, Status, Table
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.text import names, shown_name, tail

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host

_ELSEWHERE, _UNREAD = "kubelet reads another containerd", "kubelet does not read this namespace"


@dataclass(frozen=True, slots=True)
class Place:
    """One name in one namespace of one containerd; ``notes`` say why kubelet, if any, does not see it there."""

    reference: str
    digest: str
    namespace: str
    socket: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundImage:
    """Where one image was found, or all that a glob fits.

    Attributes:
        asked: how it was asked for: the image, or the glob of ``--match``.
    """

    asked: str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class FindResult:
    """What was found on one host; ``unread`` has the sockets and namespaces that could not be read, and why."""

    images: tuple[FoundImage, ...]
    unread: tuple[str, ...] = ()
    status = Status.OK

    @property
    def places(self) -> tuple[Place, ...]:
        """The places of all images."""
        return tuple(place for image in self.images for place in image.places)

    def lines(self) -> list[str]:
        """One line for each place."""
        return [
            f"{shown_name(p.reference)} {p.digest} in {p.namespace} at {p.socket} {'; '.join(p.notes)}".rstrip()
            for p in self.places
        ]


@dataclass(frozen=True, slots=True)
class Request:
    """The glob or text that names must fit, or the images; one of both is empty."""

    match: str
    refs: tuple[str, ...]


def parse(*, match: str | None = None, ref: Sequence[str] | None = None, set_: Sequence[str] | None = None) -> Request:
    """Makes a request of the options; raises UsageError or BadReference, which names the wrong option."""
    refs = options.references(ref, set_)
    if bool(match) == bool(refs):
        raise UsageError(
            "find needs --match GLOB, or images with --ref REF or --set FILE", hint="fab -H HOST find --match '*/app:1'"
        )
    return Request(match or "", refs)


def tabulate(answers: Mapping[str, Result | FerryError]) -> Table:
    """One row for each place, with all hosts that have it; below the rows, what to do if kubelet does not see it."""
    hosts = grouped(
        (place, host) for host, found in results(answers, FindResult) for place in dict.fromkeys(found.places)
    )
    listed = sorted(hosts, key=lambda p: (p.reference, p.namespace, p.socket, p.digest, p.notes))
    hints = [
        _hint(place, hosts[place]) for place in listed if _UNREAD in place.notes and _can_be_given(place.reference)
    ]
    hints += [
        f"try: to work with that containerd, set ctr_address: {place.socket} for the host in the inventory"
        for place in listed
        if _ELSEWHERE in place.notes
    ]
    return Table(
        ("REFERENCE", "DIGEST", "NAMESPACE", "SOCKET", "HOSTS", "NOTE"),
        tuple(
            (
                shown_name(p.reference),
                p.digest,
                p.namespace,
                p.socket,
                names(hosts[p], every=True),
                "; ".join(p.notes),
            )
            for p in listed
        ),
        (*_not_read(answers), *dict.fromkeys(hints)),
    )


def _not_read(answers: Mapping[str, Result | FerryError]) -> list[str]:
    return [f"{host}: not read: {each}" for host, found in results(answers, FindResult) for each in found.unread]


def _can_be_given(name: str) -> bool:
    """Whether retag accepts the name as a destination."""
    try:
        Pair.parse(name, name)
    except UsageError:
        return False
    return True


def _hint(place: Place, hosts: Sequence[str]) -> str:
    name = shell.join([place.reference])
    line = f"fab -H HOST retag --src {name} --dst {name} -n {place.namespace} --to-namespace {KUBELETS}"
    return f"try: {at_hosts(line, hosts)}"


@fleet_wide(
    parse,
    tabulate=tabulate,
    read_only=True,
    iterable=["ref", "set_"],
    help={
        "match": "Glob on whole names, such as '*/app:1'; a text without '*', '?' and '[' fits any part of a name.",
        "ref": "An image: a name, its short form, a digest, or a glob; may be repeated.",
        "set_": options.SET_HELP,
    },
)
def find(fleet: Fleet, request: Request) -> dict[str, Result | FerryError]:
    """Find images in every namespace of every containerd of the hosts, and show where kubelet does not see them."""
    answers = fleet.each(lambda host: _inspect(host, request))
    found = [result for _, result in results(answers, FindResult)]
    if found and not any(result.places for result in found):
        what = f"{request.match!r}" if request.match else ", ".join(request.refs[:3])
        raise NothingFound(
            f"no image fits {what} on any host that answered",
            detail="\n".join(_not_read(answers)),
            hint=look_wider(request.match or request.refs[0]),
            result=answers,
        )
    there = {image.asked for result in found for image in result.images if image.places}
    if nowhere := [ref for ref in request.refs if found and ref not in there]:
        raise NothingFound(
            f"{len(nowhere)} of {len(request.refs)} images are on no host that answered",
            detail="\n".join([*nowhere, *_not_read(answers)]),
            hint=look_wider(nowhere[0]),
            result=answers,
        )
    return answers


def _inspect(host: Host, request: Request) -> FindResult:
    """Asks every containerd for its namespaces, then lists all images in one remote command."""
    facts = inspect.facts(host, ())
    unread: list[str] = []
    where = [(facts.ctr.address, namespace) for namespace in facts.namespaces]
    where += _further_namespaces(host, facts, unread)
    steps = {f"in-{n}": replace(facts.ctr, address=at[0]).images(at[1]) for n, at in enumerate(where)}
    listings = inspect.ask(host, steps)
    found: list[tuple[str, Listing]] = []
    for number, (socket, namespace) in enumerate(where):
        answer = listings[f"in-{number}"]
        if not answer.ok:
            unread.append(f"namespace {namespace} of {socket}: {tail(answer.stderr, lines=1)}")
            continue
        try:
            found.append((socket, Listing.parse(namespace, answer.text)))
        except GarbledAnswer as error:
            unread.append(f"{error.message} ({error.detail}); {error.hint}")
    places = _places(facts, found, request)
    return FindResult(tuple(FoundImage(asked, tuple(there)) for asked, there in places.items()), tuple(unread))


def _further_namespaces(host: Host, facts: Facts, unread: list[str]) -> list[tuple[str, str]]:
    """Socket and namespace of each namespace of further containerds; adds to ``unread`` those that do not answer."""
    others = facts.others
    ask = ("namespaces", "ls", "-q")
    steps = {f"on-{n}": shell.join((*facts.ctr.argv, "--address", each, *ask)) for n, each in enumerate(others)}
    answers = inspect.ask(host, steps)
    found: list[tuple[str, str]] = []
    for number, socket in enumerate(others):
        answer = answers[f"on-{number}"]
        if answer.ok:
            found += [(socket, word) for word in answer.text.split()[:MOST_NAMESPACES]]
        else:
            unread.append(f"{socket}: {tail(answer.stderr, lines=1)}")
    return found


def _places(facts: Facts, found: list[tuple[str, Listing]], request: Request) -> dict[str, list[Place]]:
    """The places of each image that was asked for, or of the glob."""
    kubelets = facts.kubelets
    kubelets_own = [listing for socket, listing in found if (socket, listing.namespace) == (kubelets, KUBELETS)]
    read = {(image.name, image.digest) for listing in kubelets_own for image in listing.images}
    places: dict[str, list[Place]] = {text: [] for text in request.refs or [request.match]}
    for socket, listing in found:
        unseen = _UNREAD if socket == kubelets else _ELSEWHERE
        match = {} if request.refs else {request.match: listing.search(request.match)}
        for text, images in (match or listing.select(request.refs)).items():
            for image in images:
                notes = (unseen,) if kubelets and (image.name, image.digest) not in read else ()
                places[text].append(Place(image.name, image.digest, listing.namespace, socket, notes))
    return places
