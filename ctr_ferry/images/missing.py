"""Why an image was not found, and where it is instead. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ctr_ferry import shell
from ctr_ferry.ctr.listing import Listing
from ctr_ferry.text import shown_name


def explain(wanted: str, here: Listing, others: Sequence[Listing], sockets: Sequence[str]) -> str:
    """Says what to do about an image that is not in ``here``; the wrong namespace is the most common mistake.

    Args:
        others: the other namespaces of the same containerd.
        sockets: the sockets of every containerd of the host.
    """
    if found := [other.namespace for other in others if other.find(wanted)]:
        first = shell.join([found[0]])
        return (
            f"it is in namespace {' and '.join(map(shown_name, found))}: add --namespace {first}; "
            f"retag --namespace {first} --to-namespace {shell.join([here.namespace])} brings it here"
        )
    close = [(name, listing.namespace) for listing in (here, *others) for name in listing.close_to(wanted)]
    if close:
        return "close names: " + ", ".join(
            f"{shown_name(name)} in {shown_name(namespace)}" for name, namespace in close[:3]
        )
    if len(sockets) > 1:
        return f"this host has several containerds ({', '.join(sockets)}); name another with ctr_address"
    return f"list what is there: {shell.join(['ctr', '-n', here.namespace, 'images', 'ls'])}"
