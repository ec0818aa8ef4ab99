"""Rolls back what a failed attempt left on a host, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.failures import required
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.ctr.verdict import records_left
from ctr_ferry.shell import Script

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host


def remove_names(host: Host, ctr: Ctr, before: Listing, names: Sequence[str], digests: Iterable[str]) -> None:
    """Removes names that an attempt gave, and CRI's records that came with them.

    Args:
        before: the images of the namespace before the attempt.
        names: must not be in ``before``.
        digests: of the images that the attempt named.
    """
    namespace = before.namespace
    steps = {f"rm-{n}": ctr.remove(namespace, name) for n, name in enumerate(names)}
    answers = host.ask(Script({**steps, "after": ctr.images(namespace)}))
    after = Listing.parse(namespace, required(answers["after"], "after").text)
    if records := records_left(digests, before, after):
        host.ask(Script({f"rm-{n}": ctr.remove(namespace, record) for n, record in enumerate(records)}))
