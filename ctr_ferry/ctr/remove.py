"""Which names are removed, and how. Pure.

In ``k8s.io`` CRI keeps records of its own beside the names that people give: ``sha256:<config>``, and
``repository@digest`` for what it pulled itself. These records keep the content from being collected, so they are
removed with the last name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctr_ferry import shell
from ctr_ferry.ctr.commands import KUBELETS, Ctr
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.shell import Script

TAKEN_UP = 75  # exit status of the step if a container began to use an image meanwhile
_AT_ONCE = 500  # names in one command line


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be removed from a namespace.

    Attributes:
        here: all images of the namespace.
        images: those to remove, one record per name.
        absent: names that the namespace does not have.
    """

    here: Listing
    images: tuple[Image, ...]
    absent: tuple[str, ...] = ()

    @classmethod
    def of_names(cls, here: Listing, refs: Iterable[str]) -> Wanted:
        """Takes exactly these names, references in short or full form; for a digest, all images that point at it."""
        found = {ref: _by_digest(here, ref) if is_digest(ref) else _by_name(here, ref) for ref in refs}
        images = {image.name: image for alike in found.values() for image in alike}
        return cls(here, tuple(images.values()), tuple(ref for ref, alike in found.items() if not alike))

    def left(self, digest: str) -> list[str]:
        """Returns the names of a digest that stay, without CRI's own records."""
        going = {image.name for image in self.images} | set(self._pulled(digest))
        return [i.name for i in self.here.images if i.digest == digest and i.user_named and i.name not in going]

    @property
    def last(self) -> frozenset[str]:
        """The digests that lose their last name."""
        return frozenset(i.digest for i in self.images if not self.left(i.digest))

    def records(self, digest: str) -> tuple[str, ...]:
        """Returns CRI's own records of an image that loses its last name."""
        if self.here.namespace != KUBELETS:
            return ()
        names = {image.name for image in self.images}
        own = [i.name for i in self.here.images if i.digest == digest and not i.user_named and i.name not in names]
        return (*self._pulled(digest), *own)

    def _pulled(self, digest: str) -> tuple[str, ...]:
        """CRI's ``repository@digest``, if a tag of that repository is to be removed."""
        if self.here.namespace != KUBELETS:
            return ()
        names = {image.name for image in self.images}
        alike = [image for image in self.images if image.digest == digest]
        pulled = {f"{image.repository}@{digest}" for image in alike if "@" not in image.name}
        return tuple(i.name for i in self.here.images if i.name in pulled and i.cri_managed and i.name not in names)


def _by_digest(here: Listing, digest: str) -> list[Image]:
    """All names of a digest; CRI's own record only if no other name is left."""
    record = here.get(digest)
    alike = here.by_digest(record.digest if record else digest)
    return [image for image in alike if image.user_named] or alike


def _by_name(here: Listing, ref: str) -> list[Image]:
    """Exactly this name; unlike `Listing.find`, ``repository@digest`` never means another repository's name."""
    if exact := here.get(ref):
        return [exact]
    reference = Reference.of_name(ref)
    if reference and reference.digest:
        return [image for image in here.by_digest(reference.digest) if image.repository == reference.repository]
    found = here.find(ref)
    return [found] if found else []


def script(ctr: Ctr, namespace: str, names: Sequence[str], guarded: Sequence[str]) -> Script:
    """Builds the script that removes names in this order and lists the images again: steps ``remove`` and ``after``.

    The last removal waits until containerd has collected the content. No container used the ``guarded`` names at
    inspection. If one does now, nothing is removed.
    """
    parts = [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]
    steps = [ctr.remove(namespace, *part, sync=part is parts[-1]) for part in parts]
    removing = "; ".join([*(f"{step} || failed=$?" for step in steps), "(exit $failed)"])
    if guarded:
        patterns = "|".join(shell.join([name]) for name in guarded)
        seen = (
            f'while read -r id image _; do case "$image" in {patterns}) echo "container $id uses $image";; esac; done'
        )
        listed = f"{ctr.line(namespace, 'containers', 'ls')} | {seen}"
        removing = (
            f'users=$({listed})\nif [ -n "$users" ]; then echo "$users" >&2; (exit {TAKEN_UP}); else {removing}; fi'
        )
    return Script({"remove": f"failed=0\n{removing}", "after": ctr.images(namespace)})
