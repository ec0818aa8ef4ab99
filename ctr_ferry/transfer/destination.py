"""One host of a copy, as it was found: which ctr is there, what its content store has, how much room is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ctr_ferry.ctr import checks, free_space, ingest
from ctr_ferry.ctr.checks import Check
from ctr_ferry.ctr.failures import required
from ctr_ferry.ctr.free_space import Room
from ctr_ferry.ctr.ingest import Store
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.images import inspect
from ctr_ferry.images.content import Content
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import INDEXES, MANIFESTS
from ctr_ferry.ssh.host import Host
from ctr_ferry.transfer.copy_request import CopyRequest


@dataclass(frozen=True, slots=True)
class Destination:
    """What a host has before images come.

    Attributes:
        session: the host, open for the namespace that the images go to.
        content: the manifests that the source or this host has, and all blobs that either of them has.
        checks: by name, whether an image that is there already is complete and unpacked.
        room: None if the host does not say.
    """

    session: Session
    store: Store
    content: Content
    checks: Mapping[str, Check]
    room: Room | None = None

    @property
    def facts(self) -> Facts:
        """What the probe found."""
        return self.session.facts

    @property
    def place(self) -> Place:
        """Where names are given, and under which owner."""
        return self.session.place


def inspect_destination(host: Host, copy_request: CopyRequest, owner: str) -> Destination:
    """Asks a host what it has, in one remote command, or two where it must read manifests.

    Args:
        owner: the word that the names of this copy's labels and ingests begin with.

    Raises:
        HostError: the host has no ctr that can be used, or does not answer.
    """
    namespace = inspect.namespace(host, copy_request.namespace)
    names = [str(image_copy.dst) for image_copy in copy_request.image_copies]
    questions = ingest.questions(host.target.variables_of(Settings), namespace, names)
    session = Session(host, namespace, owner=owner, more=questions)
    text, active = (required(session.answers[step], step).text for step in ("store", "active"))
    store = ingest.parse_store(text, active, namespace, datetime.now(UTC))
    return Destination(
        session=session,
        store=store,
        content=_content(session, copy_request, store),
        checks=checks.parse_checks(session.answers["check"].text),
        room=free_space.parse(session.answers["room"].text),
    )


def _content(session: Session, copy_request: CopyRequest, store: Store) -> Content:
    """Adds what this host has to what the source has.

    A manifest that only this host has is read here. A manifest that cannot be read counts as absent.
    """
    given = copy_request.content
    digests = [each.image.digest for each in copy_request.image_copies if each.image.digest not in given.bad]
    children = [child for digest in digests for child in given.manifest(digest).children]
    listed = {child.digest for child in children if child.media_type in INDEXES | MANIFESTS}
    unread = listed - given.blobs.keys() - given.bad.keys()
    own = Content()
    session.fetch(sorted(unread & store.here), own)
    there = (store.here | store.elsewhere) - (unread - own.blobs.keys())
    return replace(given, visible=given.visible | there, blobs={**given.blobs, **own.blobs})
