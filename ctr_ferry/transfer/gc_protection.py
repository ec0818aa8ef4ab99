"""Protection from garbage collection on one host, for as long as blobs come and images are named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from ctr_ferry.ctr import gc_protection
from ctr_ferry.errors import FerryError
from ctr_ferry.shell import Answer
from ctr_ferry.ssh.host import Host
from ctr_ferry.transfer.destination import Destination
from ctr_ferry.transfer.plan import Plan

_DAY = 86400  # seconds that a host protects what arrived, at most


@contextlib.contextmanager
def protected(host: Host, todo: Sequence[Plan], found: Destination) -> Iterator[dict[str, Answer]]:
    """Protects the blobs of images while the block runs; yields the answers of ``prepare-N``, one for each image.

    The host ends the protection by itself if this process or the connection is gone. If the protection does not end
    as it should, each image gets a note; what is named and verified stays.
    """
    script = gc_protection.protect(found.place, [plan.needed for plan in todo], found.store)
    protection = host.run_in_background(script, limit=_DAY)
    try:
        with host.lost_connection():
            prepared = protection.prepared(host.target.limits.command)
        yield prepared
    except BaseException:
        with contextlib.suppress(FerryError), host.lost_connection():
            protection.release()
        raise
    try:
        with host.lost_connection():
            protection.release(b"" if any(plan.error or plan.again for plan in todo) else gc_protection.ALL_NAMED)
    except FerryError as error:
        for plan in todo:
            plan.add_note(
                f"the protection of its blobs did not end as it should ({error.message}): run doctor on that host"
            )
