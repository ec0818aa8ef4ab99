"""Whether the images that one host pulls fit there, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctr_ferry.ctr import free_space, sandbox
from ctr_ferry.ctr.listing import parse_digests
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.errors import DiskFull
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.shell import Script
from ctr_ferry.text import size

if TYPE_CHECKING:
    from ctr_ferry.images.session import Session
    from ctr_ferry.registry.push_pull import RegistryTransfer
    from ctr_ferry.ssh.host import Host

_STEP = "room"
_PLENTY = 64 << 30  # bytes; with more free space, a pull does not compare its size first


def question(host: Host) -> dict[str, str]:
    """The step, for the probe's remote command, that asks for the free space."""
    return {_STEP: free_space.question(host.target.variables_of(Settings))}


class PullSpace:
    """The free space on one host, less what the images of this run take.

    Args:
        session: its probe has asked the `question`; otherwise no size is compared.
    """

    def __init__(self, session: Session) -> None:
        answer = session.answers.get(_STEP)
        self._session = session
        self._room = free_space.parse(answer.text) if answer else None
        self._taken: dict[str, Descriptor] = {}
        self._there: frozenset[str] | None = None  # blobs that the host has, in any namespace, since that matters

    def check(
        self, transfer: RegistryTransfer, platform: Platform | None
    ) -> tuple[int | None, tuple[str, ...], Sequence[Descriptor]]:
        """Compares the size of the image in the registry with the free space on the host.

        Args:
            platform: the platform that is pulled; None is all of them.

        Returns:
            Bytes of all blobs, None where they are not known; what the user should know about the space; and the blobs,
            for `take`.

        Raises:
            DiskFull: the image does not fit.
        """
        room, dry_run = self._room, self._session.host.dry_run
        # Registries count how often a manifest is read, so it is read only where space may be short, and in a dry run.
        short = room is not None and min(room.blobs.available, room.unpacked.available) < _PLENTY
        blobs = transfer.contents(platform) if short or dry_run else None
        if blobs is None:
            return None, (), ()
        found, would = self._judge(blobs)
        # Only now it matters which blobs the host has already. Some of them came in this run: then more seems to fit.
        if found and self._there is None:
            self._there = self._digests_on_host()
            found, _ = self._judge(blobs)
        if isinstance(found, DiskFull):
            raise found
        return sum(blob.size for blob in blobs), tuple(filter(None, (found, would if dry_run else ""))), blobs

    def take(self, blobs: Sequence[Descriptor]) -> None:
        """Counts blobs that have come, or would come in a dry run."""
        self._taken |= {blob.digest: blob for blob in blobs}

    def _judge(self, blobs: Sequence[Descriptor]) -> tuple[DiskFull | str, str]:
        """Whether the blobs fit beside those that were counted so far; and what a dry run tells."""
        there = self._there or frozenset()
        coming = [blob for blob in blobs if blob.digest not in self._taken.keys() | there]
        taken = [blob for blob in self._taken.values() if blob.digest not in there]
        room = self._room and self._room.less(sum(blob.size for blob in taken), free_space.growth(taken))
        much, growth = sum(blob.size for blob in coming), free_space.growth(coming)
        would = f"would move up to {size(much)}; {free_space.needs(room, much, growth)}"
        return free_space.judge(room, much, growth), would

    def _digests_on_host(self) -> frozenset[str]:
        """The blobs that a pull finds on the host: in its own namespace, or in all where they share content."""
        facts, own = self._session.facts, self._session.place.namespace
        steps = {f"has-{n}": facts.ctr.digests(each) for n, each in enumerate(facts.namespaces)}
        answers = self._session.host.ask(Script({"sharing": sandbox.sharing(facts.ctr, facts.content_root), **steps}))
        seen = [own] if sandbox.is_isolated(answers["sharing"]) else facts.namespaces
        texts = [answers[f"has-{n}"].text for n, each in enumerate(facts.namespaces) if each in seen]
        return parse_digests(line for text in texts for line in text.splitlines())
