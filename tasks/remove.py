"""``remove``: removes names of images, and an image with its last name.

The command first inspects all hosts, so that it can show what would go and ask once. Then it removes the names and
lists the images again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ctr_ferry.ctr import remove as ctr_remove
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.failures import failure, required
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.remove import Wanted
from ctr_ferry.errors import ErrorData, FerryError, InUse, NotStarted, UsageError, VerifyFailed
from ctr_ferry.images import inspect
from ctr_ferry.images.item import settle
from ctr_ferry.images.session import Session
from ctr_ferry.oci.reference import Reference, is_digest, is_glob
from ctr_ferry.report.answers import grouped, nothing_fits
from ctr_ferry.report.outcome import Result, Status, error_lines
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.shell import Answer
from ctr_ferry.text import names, shown_name, tail

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options, checked before the first connection."""

    ref: Sequence[str] | None = None
    match: str | None = None
    namespace: str | None = None
    force: bool = False
    yes: bool = False

    def __post_init__(self) -> None:
        if bool(self.ref) == bool(self.match):
            raise UsageError(
                "remove needs --ref REF, which may be repeated, or --match GLOB",
                hint="fab -H HOST remove --ref old.example/app:1",
            )
        for each in filter(is_glob, self.refs):
            Reference.parse(each)  # any other text may be the name that a host has
        options.namespace(self.namespace)

    @property
    def refs(self) -> tuple[str, ...]:
        """What is to be removed, each once."""
        return tuple(dict.fromkeys(self.ref or ()))


@dataclass(slots=True)
class Removed:
    """The result for one name; its fields are keys of the JSON output.

    Attributes:
        digest: what the name pointed at; empty if there was no such name.
        records: CRI's own records of the image, which are removed with its last name.
        error: why the name is still there.
    """

    reference: str
    digest: str = ""
    status: Status = Status.UNCHANGED
    records: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: ErrorData | None = None


@dataclass(frozen=True, slots=True)
class RemoveResult:
    """One host's result: every name that was asked for or that the glob fits."""

    namespace: str
    images: tuple[Removed, ...]

    @property
    def status(self) -> Status:
        """``changed`` if any name was removed."""
        return Status.of_all(image.status for image in self.images)

    def lines(self) -> list[str]:
        """One line per name; what was removed with it is indented below."""
        if not self.images:
            return [f"no name in namespace {self.namespace} fits"]
        return [line for image in self.images for line in _name_lines(image, several=len(self.images) > 1)]


def _name_lines(removed: Removed, *, several: bool) -> Iterator[str]:
    yield f"{shown_name(removed.reference)} {removed.digest}".rstrip() + (f"  {removed.status}" if several else "")
    for record in removed.records:
        yield f"  and CRI's record {shown_name(record)}"
    yield from (f"  {note}" for note in removed.notes)
    if removed.error and several:
        yield from (f"  {line}" for line in error_lines(removed.error))


@dataclass(slots=True)
class Plan:
    """One host's plan; ``guarded`` names the images that would go, and that no container used at inspection."""

    ctr: Ctr
    namespace: str
    names: list[Removed]
    guarded: tuple[str, ...]
    errors: list[FerryError] = field(default_factory=list)
    status = Status.OK  # an inspection changes nothing

    def lines(self) -> list[str]:
        """Nothing: only the result is shown."""
        return []

    @property
    def going(self) -> list[Removed]:
        """The names that are to be removed."""
        return [each for each in self.names if each.status is Status.CHANGED]

    def fail(self, removed: Removed, error: FerryError) -> None:
        """Marks a name as not removed, and keeps the error."""
        removed.status, removed.error = Status.FAILED, error.to_json()
        self.errors.append(error)


@fleet_wide(
    Request,
    help={
        "ref": "A name to remove, or a digest, which means all of its names; may be repeated.",
        "match": "Glob on whole names, such as 'dead.example:5000/*'.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "force": "Remove the last name of an image although a container uses it.",
        "yes": "Do not ask; needed where nobody can be asked.",
    },
    iterable=["ref"],
)
def remove(fleet: Fleet, request: Request) -> dict[str, Result | FerryError]:
    """Remove names of images; an image goes with its last name, unless a container uses it."""
    plans: dict[str, Plan] = {}

    def planned(host: Host) -> Result:
        plans[host.name] = plan(host, request)
        return plans[host.name]

    inspected = fleet.each(planned, close=False, looks=True)
    going = {host: plan.going for host, plan in plans.items() if plan.going}
    if going and not request.yes and not any(host.dry_run for host in fleet):
        _ask(fleet, going, request)
    answers = inspected | fleet.each(lambda host: apply(host, plans[host.name]))
    if request.match and plans and not any(plan.names for plan in plans.values()):
        raise nothing_fits(request.match, answers)
    return answers


def _ask(fleet: Fleet, going: Mapping[str, Sequence[Removed]], request: Request) -> None:
    """Asks the operator once for all hosts; raises an error unless the operator agrees.

    One name on one host, typed at a terminal, needs no question.
    """
    hosts = grouped((each.reference, host) for host, removals in going.items() for each in removals)
    if len(hosts) == len(going) == 1 and not request.match and fleet.at_terminal:
        return
    for host in fleet:
        if not host.failed:
            fleet.answers[host.name] = NotStarted("nothing was removed")
    shown = "\n".join(f"{shown_name(name)} on {names(on, every=True)}" for name, on in hosts.items())
    what = "1 name" if len(hosts) == 1 else f"{len(hosts)} names"
    if fleet.at_terminal and fleet.confirm(f"{shown}\nRemove {what} from {names(going, every=True)}?"):
        return
    for host in fleet:
        host.mark_failed()  # later commands of this command line may depend on it
    if fleet.at_terminal:
        raise NotStarted("Nothing was removed.")
    raise UsageError(f"{what} would be removed, and nothing was", detail=shown, hint="check the list, then add --yes")


def plan(host: Host, request: Request) -> Plan:
    """Inspects a host: its images, and what its containers use if the last name of an image is to go."""
    session = Session(host, request.namespace)
    here, ctr = session.here, session.facts.ctr
    wanted = Wanted(here, here.match(request.match)) if request.match else Wanted.of_names(here, request.refs)
    users = _users(session) if wanted.last else {}
    gone = frozenset() if request.force else wanted.last - users.keys()
    guarded = tuple(image.name for image in here.images if image.digest in gone)
    absent = [Removed(name, notes=(_why_absent(name),)) for name in wanted.absent]
    made = Plan(ctr, here.namespace, absent, guarded)
    _decide(made, wanted, users, force=request.force)
    return made


def _why_absent(name: str) -> str:
    known = is_digest(name) or Reference.of_name(name)
    return "it is not there" if known else "it is not there, and it is no image reference: check how it is written"


def _users(session: Session) -> Mapping[str, Sequence[str]]:
    """Asks the host for the ids of containers by the digest of the image that they use."""
    from ctr_ferry.ctr import usage

    namespace = session.here.namespace
    answers = inspect.ask(session.host, usage.questions(session.facts.ctr, namespace))
    return usage.used(
        session.here,
        usage.parse_containers(required(answers["containers"], f"containers of {namespace}").text),
        usage.parse_parents(answers["snapshots"].text),  # fails under another snapshotter, and then tells nothing
        usage.parse_blobs(required(answers["content"], f"content of {namespace}").text),
    )


def _decide(made: Plan, wanted: Wanted, users_by_digest: Mapping[str, Sequence[str]], *, force: bool) -> None:
    last = wanted.last
    for image in wanted.images:
        removed = Removed(image.name, image.digest, Status.CHANGED)
        made.names.append(removed)
        if image.digest not in last:
            removed.notes = (f"the image stays under the name {shown_name(wanted.left(image.digest)[0])}",)
            continue
        users = users_by_digest.get(image.digest, [])
        if users and not force:
            made.fail(removed, _in_use(image, made.namespace, users))
            continue
        if image is next(i for i in reversed(wanted.images) if i.digest == image.digest):
            records = wanted.records(image.digest)
            removed.records = () if users else records
            if users and records:
                removed.notes = (
                    f"CRI's record of it stays while a container uses it: {', '.join(map(shown_name, users[:3]))}",
                )


def _in_use(image: Image, namespace: str, users: Sequence[str]) -> InUse:
    return InUse(
        f"a container uses the image of {shown_name(image.name)}, which would have no name left in {namespace}",
        detail="\n".join(f"container {shown_name(user)}" for user in users[:5]),
        hint="remove the container first, or add --force",
    )


def apply(host: Host, made: Plan) -> RemoveResult:
    """Removes the names and lists the images again, in one remote command; the listing decides the result.

    Raises SomeFailed with the result if some of several names are still there, else the FerryError of name or host.
    """
    if (going := made.going) and not host.dry_run:
        everything = [each.reference for each in going] + [record for each in going for record in each.records]
        answers = host.ask(ctr_remove.script(made.ctr, made.namespace, everything, made.guarded))
        after = Listing.parse(made.namespace, required(answers["after"], "after").text)
        for each in going:
            if left := [name for name in (each.reference, *each.records) if after.get(name)]:
                made.fail(each, _still_there(left[0], answers["remove"], made.namespace))
    result = RemoveResult(made.namespace, tuple(made.names))
    settle(
        result,
        len(made.names),
        made.errors,
        "names were not removed",
        "names without an error are gone; follow the hint of each, then run the command again",
    )
    return result


def _still_there(name: str, answer: Answer, namespace: str) -> FerryError:
    """Says why a name is there that was to be removed."""
    if answer.exit == ctr_remove.TAKEN_UP:
        return InUse(
            f"a container began to use an image that was to be removed from namespace {namespace}; nothing was removed",
            detail=tail(answer.stderr),
            hint="the containers are inspected first: run the command again",
        )
    if not answer.ok:
        return failure(answer, shown_name(name))
    return VerifyFailed(
        f"ctr reports success, but {shown_name(name)} is still there",
        detail=tail(answer.stderr),
        hint="somebody else may have given that name again: run the command again",
    )
