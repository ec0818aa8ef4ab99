"""By which route an image comes to each host, decided before anything changes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ctr_ferry.delivery.request import Via
from ctr_ferry.errors import ContentMissing, FerryError, ReferenceExists, RepositoryNotFound


class Route(StrEnum):
    """How an image comes to a host, the cheapest first."""

    THERE = "there"
    NAMED = "named"
    REGISTRY = "registry"
    SSH = "ssh"


_TOLD = {
    Route.THERE: "there already",
    Route.NAMED: "named there",
    Route.REGISTRY: "pulled",
    Route.SSH: "copied over SSH",
}


def told(route: str) -> str:
    """A route in the words of a table; any other text as it is."""
    return _TOLD[Route(route)] if route in set(Route) else route


@dataclass(frozen=True, slots=True)
class View:
    """How one host sees a name in its registry.

    Attributes:
        digest: what the name points at there; None if there is no such name, or the registry does not tell.
        error: why the host cannot use the registry.
    """

    digest: str | None = None
    error: FerryError | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One host that shall have an image.

    Attributes:
        route: `THERE` or `NAMED` if no bytes have to come; else None.
        view: None if the registry was not asked, or cannot give the host what its name shall point at.
        pushes: whether the host's ctr can push such an image.
        error: why the image cannot come over SSH.
    """

    host: str
    route: Route | None = None
    view: View | None = None
    pushes: bool = True
    error: FerryError | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """One host that has an image with all platforms, and whose ctr can push it."""

    host: str
    view: View


@dataclass(frozen=True, slots=True)
class Question:
    """One image, and who needs it.

    Attributes:
        reference, digest: the name to give, and what it shall point at.
        holders: those who were asked for their view of the registry, the best first.
        publishes: whether the image gets a new name, so that the registry of that name is to have it, too.
        unpushable: why a push would not give the registry the image's digest; empty if it would.
        giver: who gives the image over SSH, in words.
        refusal: why the name is given nowhere, unless it is there already.
    """

    reference: str
    digest: str
    targets: tuple[Target, ...]
    holders: tuple[Holder, ...] = ()
    publishes: bool = False
    unpushable: str = ""
    giver: str = ""
    via: Via = Via.AUTO
    force: bool = False
    refusal: FerryError | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The route to one host, and why."""

    route: Route
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The route of one image to each host, or why there is none.

    Attributes:
        pusher: who pushes the image before others pull it; None if nobody does.
        relay: whether the pusher itself gets the image over SSH first.
    """

    choices: Mapping[str, Choice | FerryError]
    pusher: str | None = None
    relay: bool = False

    @property
    def leads(self) -> bool:
        """Whether any host gets the image."""
        return any(isinstance(choice, Choice) for choice in self.choices.values())


def decide(question: Question) -> Decision:
    """Decides the route of one image to every target."""
    needy = [target for target in question.targets if target.route is None]
    publisher = next((holder for holder in question.holders if not holder.view.error), None)
    refusal = question.refusal or (_conflict(question, publisher) if question.publishes and publisher else None)
    pusher, relay = (None, False) if refusal else _pusher(question, needy, publisher)
    choices: dict[str, Choice | FerryError] = {}
    for target in question.targets:
        if target.route is Route.THERE or (target.route and not refusal):
            choices[target.host] = Choice(target.route, _WITHOUT_BYTES[target.route])
        else:
            choices[target.host] = refusal or _way(question, target, pusher, relay=relay)
    return Decision(choices, pusher, relay)


_WITHOUT_BYTES = {Route.THERE: "it is there already", Route.NAMED: "all that it needs is on the host already"}


def _conflict(question: Question, publisher: Holder) -> FerryError | None:
    """The error where the registry has something else under a new name, as the host sees it that would push.

    An image that keeps its name comes over SSH then: tags of a registry may move.
    """
    if publisher.view.digest in (None, question.digest) or question.force:
        return None
    return ReferenceExists(
        f"{question.reference} exists in the registry with another digest; nothing was changed",
        detail=f"registry {publisher.view.digest} (as {publisher.host} sees it)\nimage    {question.digest}",
        hint="leave the registry alone with --via ssh, or move the name there with --force",
    )


def _pusher(question: Question, needy: list[Target], publisher: Holder | None) -> tuple[str | None, bool]:
    """Who pushes the image, and whether it must get the image first.

    Nobody, if the registry has it, or has something else that may not be moved, or if no host would pull an image that
    keeps its name.
    """
    waiting = [target for target in needy if _would_pull(question, target)]
    if question.unpushable or not (waiting or question.publishes):
        return None, False
    if publisher:
        digest = publisher.view.digest
        pushes = digest is None or (question.force and digest != question.digest)
        return (publisher.host if pushes else None), False
    able = [target for target in waiting if target.pushes and not target.error]
    if question.via is Via.AUTO and able and (question.publishes or len(waiting) > 1):
        return able[0].host, True
    return None, False


def _would_pull(question: Question, target: Target) -> bool:
    """Whether a host would pull the image, once its registry has it."""
    view = target.view
    if view is None or view.error:
        return False
    return view.digest is None or (question.force and view.digest != question.digest)


def _way(question: Question, target: Target, pusher: str | None, *, relay: bool) -> Choice | FerryError:
    view = target.view
    if view and not view.error and view.digest == question.digest:
        return Choice(Route.REGISTRY, "the registry has it")
    if pusher and pusher != target.host and _would_pull(question, target):
        first = "gets it over SSH and pushes it" if relay else "pushes it"
        return Choice(Route.REGISTRY, f"{pusher} {first} to the registry first")
    why, error = _why_not(question, target, pusher)
    if question.via is Via.REGISTRY:
        return error
    if target.error:
        return target.error
    return Choice(Route.SSH, f"from {question.giver}: {why}")


def _why_not(question: Question, target: Target, pusher: str | None) -> tuple[str, FerryError]:
    """Why a host does not pull the image: in words, and as the error where it may come by no other route."""
    view, name = target.view, question.reference
    if question.via is Via.SSH:
        return "asked for with --via ssh", ContentMissing(f"{name} may not come over SSH")
    if view is None:
        why = "the registry has no name for the one platform that this host is to have"
        return why, ContentMissing(f"{name}: {why}", hint="deliver it with --via ssh")
    if view.error:
        return view.error.message, view.error
    if view.digest not in (None, question.digest):
        why = "the registry has another digest under that name, as this host sees it"
        detail = f"registry {view.digest}\nimage    {question.digest}"
        return why, ReferenceExists(f"{name}: {why}", detail=detail, hint="deliver it with --via ssh")
    if pusher == target.host:
        why = "it pushes the image, which no host that has it can do"
    elif question.unpushable:
        why = f"the registry lacks it, and {question.unpushable}"
    elif (asked := next((h for h in question.holders if not h.view.error), None)) is None:
        why = "the registry lacks it, and no host that has it reaches the registry"
    elif asked.view.digest == question.digest:
        why = f"the registry lacks it as this host sees it, and has it as {asked.host} does"
    else:
        why = f"the registry has another digest under that name, as {asked.host} sees it, and it keeps that"
    return why, RepositoryNotFound(f"{name}: {why}", hint="let a host that reaches the registry push it")
