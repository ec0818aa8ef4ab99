"""From what was found to the route of each image to each host: asks registries as far as that is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ctr_ferry.ctr import ingest
from ctr_ferry.delivery.inspection import Inspection
from ctr_ferry.delivery.request import Via
from ctr_ferry.delivery.routes import Decision, Holder, Question, Route, Target, decide
from ctr_ferry.delivery.views import Views
from ctr_ferry.errors import ContentMissing, FerryError, PlatformMissing, ReferenceExists
from ctr_ferry.images import fitness
from ctr_ferry.images.item import Item
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import INDEXES
from ctr_ferry.report.answers import grouped
from ctr_ferry.transfer.copy_request import ImageCopy
from ctr_ferry.transfer.copy_result import CopiedImage
from ctr_ferry.transfer.plan import Plan

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet

_OF_CONTENT = (ContentMissing, PlatformMissing)  # the sources lack it; a registry may have it


def route(fleet: Fleet, found: Inspection) -> list[Decision]:
    """Decides the route of each image to each target; one decision for each image, in their order."""
    drafts = [Draft(found, number, each) for number, each in enumerate(found.copies.image_copies)]
    views = Views(fleet, found.sessions)
    _ask(views, [(host, draft) for draft in drafts for host in (*draft.needy, *draft.candidates[:1])])
    _ask(views, [(host, draft) for draft in drafts if draft.lacks_pusher(views) for host in draft.candidates[1:]])
    return [draft.decide(views) for draft in drafts]


def _ask(views: Views, asked: Sequence[tuple[str, Draft]]) -> None:
    views.ask(grouped((host, draft.image_copy.dst) for host, draft in asked))


class Draft:
    """One image, before its routes are decided.

    Attributes:
        items: what is to be done with it, by target.
        needy: the targets that might pull it.
        publishes: whether the registry is to have it under a new name.
        candidates: the hosts that might push it, the best first; none if nobody needs it in the registry.
    """

    def __init__(self, found: Inspection, number: int, image_copy: ImageCopy) -> None:
        self._found, self.image_copy = found, image_copy
        self.items = {host: target.items[number] for host, target in found.targets.items()}
        self.needy = [host for host, item in self.items.items() if self._might_pull(host, item)]
        self.publishes = self._publishes()
        self.candidates = list(dict.fromkeys(self._candidates())) if self.needy or self.publishes else []

    def _publishes(self) -> bool:
        """Whether the image gets a new name as a whole, and may come by the registry."""
        request, own = self._found.request, self.image_copy.image.reference
        return request.via is not Via.SSH and not request.platform and str(own) != str(self.image_copy.dst)

    def _might_pull(self, host: str, item: Item[CopiedImage]) -> bool:
        """Whether bytes must come to a host, and a pull would give its name the digest that it shall have."""
        request, whole = self._found.request, item.result.digest == self.image_copy.image.digest
        if request.via is Via.SSH or request.platform or not whole:
            return False
        return not self._is_lost(host, item) and self._without_bytes(host, item) is None

    def _is_lost(self, host: str, item: Item[CopiedImage]) -> bool:
        """Whether a host cannot have the image, whoever gives it."""
        if not isinstance(item.error, _OF_CONTENT):
            return item.error is not None
        whole, facts = not self._found.request.platform, self._found.sessions[host].facts
        return whole and bool(fitness.other_platform(self.image_copy.image, facts))

    def _candidates(self) -> Iterator[str]:
        targets = {host: target.destination for host, target in self._found.targets.items()}
        having = [(source.name, source.session, source.content.visible) for source in self._found.holders]
        having += [(host, target.session, target.store.here) for host, target in targets.items()]
        for host, session, digests in having:
            named = session.here.by_digest(self.image_copy.image.digest)
            if named and self._pushes(session) and self._found.has_all(self.image_copy, digests):
                yield host

    def _pushes(self, session: Session) -> bool:
        """Whether a host's ctr can push such an image as a whole."""
        return session.facts.ctr.capabilities.push_index or self.image_copy.image.media_type not in INDEXES

    def _without_bytes(self, host: str, item: Item[CopiedImage]) -> Route | None:
        if item.error:
            return None
        if not isinstance(item, Plan) or not item.pending:
            return Route.THERE
        return None if ingest.to_send([item.needed], self._found.targets[host].destination.store) else Route.NAMED

    def lacks_pusher(self, views: Views) -> bool:
        """Whether the registry is to have the image, and the first candidate does not reach it."""
        first = views.of(self.candidates[0], self.image_copy.dst) if self.candidates else None
        seen = [view for host in self.needy if (view := views.of(host, self.image_copy.dst)) and not view.error]
        waiting = any(view.digest != self.image_copy.image.digest for view in seen)
        return bool(first and first.error) and (waiting or self.publishes)

    def decide(self, views: Views) -> Decision:
        """Decides the routes by what the registries told. A target that cannot have the image has none."""
        name, request = self.image_copy.dst, self._found.request
        targets = tuple(
            Target(
                host=host,
                route=self._without_bytes(host, item),
                view=views.of(host, name) if host in self.needy else None,
                pushes=self._pushes(self._found.sessions[host]),
                error=item.error,
            )
            for host, item in self.items.items()
            if not self._is_lost(host, item)
        )
        seen = [(host, views.of(host, name)) for host in self.candidates]
        giver = self._found.giver(self.image_copy)
        whole = self._found.has_all(self.image_copy, self._found.copies.content.visible)
        return decide(
            Question(
                reference=str(name),
                digest=self.image_copy.image.digest,
                targets=targets,
                holders=tuple(Holder(host, view) for host, view in seen if view),
                publishes=self.publishes,
                unpushable="" if whole else f"{giver} has not all platforms of it to push",
                giver=giver,
                via=request.via,
                force=request.force,
                refusal=self._taken_at_source(),
            )
        )

    def _taken_at_source(self) -> FerryError | None:
        """The error where a host that gives the image has something else under its new name."""
        name, digest = str(self.image_copy.dst), self.image_copy.image.digest
        for source in self._found.givers(self.image_copy):
            existing = source.session.here.get(name)
            if existing and existing.digest != digest and not self._found.request.force:
                return ReferenceExists(
                    f"{name} exists on {source.name}, which gives the image, with another digest; nothing was changed",
                    detail=f"there {existing.digest}\nimage {digest}",
                    hint="add --force to let the name point at the image on every host",
                )
        return None
