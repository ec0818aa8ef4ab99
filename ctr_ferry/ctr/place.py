"""Where names are given on a host. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ctr_ferry.ctr.commands import OURS, Ctr
from ctr_ferry.oci.reference import Reference


@dataclass(frozen=True, slots=True)
class Place:
    """The namespace of a host in which names are given.

    Attributes:
        from_namespace: where the sources are.
        content_root: the content store's directory.
        owner: the run's id with our prefix; our labels, ingests and temporary names have it in their names.
        cri_managed: whether CRI must label every new name.
    """

    ctr: Ctr
    namespace: str
    from_namespace: str
    content_root: str
    owner: str
    cri_managed: bool

    @property
    def crosses(self) -> bool:
        """Whether content comes from another namespace, so that it must be unpacked here."""
        return self.namespace != self.from_namespace

    def stage(self, number: int) -> Reference:
        """A temporary name of this run."""
        return Reference(f"{OURS}.invalid", self.owner.lower(), str(number))
