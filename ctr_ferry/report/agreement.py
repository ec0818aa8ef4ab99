"""Warnings: whether all hosts of a command gave one name to one image, and what else to know about a host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ctr_ferry.report.answers import grouped
from ctr_ferry.report.outcome import Outcome
from ctr_ferry.text import names, shown_name


@runtime_checkable
class Gives(Protocol):
    """The result of a command that gives names to images."""

    def given(self) -> list[tuple[str, str, str]]:
        """Each name with its digest and, where that is a platform's manifest, the digest of the index (else empty)."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One name that points at different images on different hosts.

    Attributes:
        digests: the hosts that have each digest, the digest of most hosts first.
    """

    reference: str
    digests: dict[str, list[str]]

    @property
    def message(self) -> str:
        """The disagreement in one sentence."""
        return f"{len(self.digests)} digests under this name: {shown_name(self.reference)}"

    def lines(self) -> list[str]:
        """The warning that a person reads."""
        holders = [f"  {digest} on {names(hosts, every=True)}" for digest, hosts in self.digests.items()]
        return [f"warning: {self.message}", *holders]

    def to_json(self) -> dict[str, Any]:
        """The warning as ``--json`` and run.json have it."""
        return {"kind": "digests-differ", "message": self.message, "reference": self.reference, "digests": self.digests}


@dataclass(frozen=True, slots=True)
class HostNote:
    """What the user should know about some hosts, whatever the command."""

    message: str
    hosts: list[str]

    def lines(self) -> list[str]:
        """The warning that a person reads."""
        return [f"note: {names(self.hosts, every=True)}: {self.message}"]

    def to_json(self) -> dict[str, Any]:
        """The warning as ``--json`` and run.json have it."""
        return {"kind": "host-note", "message": self.message, "hosts": self.hosts}


def host_notes(notes: Mapping[str, Iterable[str]]) -> list[HostNote]:
    """The notes of all hosts, by host; hosts with the same note share it."""
    hosts = grouped((text, host) for host, texts in notes.items() for text in texts)
    return [HostNote(text, its) for text, its in hosts.items()]


def disagreements(outcomes: Iterable[Outcome]) -> list[Disagreement]:
    """The names that hosts gave to different images. An index and its platforms' manifests count as one image."""
    holders: dict[str, dict[str, list[str]]] = {}
    kin: dict[str, list[set[str]]] = {}
    for outcome in outcomes:
        for name, digest, source in outcome.result.given() if isinstance(outcome.result, Gives) else ():
            if digest:
                holders.setdefault(name, {}).setdefault(digest, []).append(outcome.host)
                kin[name] = _joined(kin.get(name, []), {digest, source or digest})
    return [
        Disagreement(name, dict(sorted(holders[name].items(), key=lambda each: -len(each[1]))))
        for name, images in kin.items()
        if len(images) > 1
    ]


def _joined(groups: list[set[str]], more: set[str]) -> list[set[str]]:
    """Adds a group, and merges it with all groups that share a digest with it."""
    apart = [group for group in groups if not group & more]
    return [*apart, more.union(*(group for group in groups if group & more))]
