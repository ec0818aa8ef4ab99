"""The labels by which ctr asks a registry to take a blob over from another of its repositories ("mount"). Pure.

containerd writes on each blob that it pulls from which repositories the blob came. A push to the same registry names
one of these. Where the registry then denies access (401, or 403), ctr gives up, though an upload would be accepted
(containerd 12163, 14086). Without the label, ctr uploads (docs/decisions/0040).
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

from ctr_ferry import shell
from ctr_ferry.ctr.place import Place
from ctr_ferry.oci.reference import Reference, is_digest

_SOURCE = "containerd.io/distribution.source"
_REPOSITORIES = re.compile(r"[a-z0-9._/,-]+")


@dataclass(frozen=True, slots=True)
class Mounts:
    """What a push to one reference may mount.

    Attributes:
        target: the name in the registry.
        sources: the repositories that blobs came from, with commas between them, by the blob's digest.
    """

    place: Place
    target: Reference
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def _key(self) -> str:
        host, colon, port = self.target.domain.rpartition(":")
        host = host if colon and not port.endswith("]") else self.target.domain
        return f"{_SOURCE}.{host.strip('[]')}"

    def question(self) -> str:
        """Returns sh text that lists the blobs that came from the registry, with their labels."""
        return self._list()

    def read(self, text: str, blobs: Container[str]) -> Mounts:
        """Returns the mounts with the sources of these blobs, as ``content ls`` prints them."""
        found = dict[str, str]()
        for row in text.split("\n"):
            digest, _, columns = row.partition("\t")
            repositories = self._repositories(columns)
            others = repositories.split(",") != [self.target.path] and _REPOSITORIES.fullmatch(repositories)
            if is_digest(digest) and digest in blobs and others:
                found[digest] = repositories
        return Mounts(self.place, self.target, tuple(found.items()))

    def _repositories(self, columns: str) -> str:
        """The value of our label. Commas stand between labels, and between the repositories of one label."""
        parts, found = columns.split(","), list[str]()
        for part in parts:
            key, equals, value = (part.split() or [""])[-1].partition("=")
            if equals and found:
                break
            if found or key == self._key:
                found.append(value if equals else key)
        return ",".join(found)

    def take_off(self) -> str:
        """Returns sh text that takes the labels off; the clean-up must have `put_back`."""
        off = [self.place.ctr.label(self.place.namespace, digest, f"{self._key}=") for digest, _ in self.sources]
        return "{ sources_off=1; " + "; ".join(off) + "; } >/dev/null 2>&1"

    def put_back(self) -> str:
        """Returns sh text that puts labels back where nobody else has set them meanwhile."""
        namespace, ctr = self.place.namespace, self.place.ctr.bounded
        on = [
            f'case "$sourced" in *{shell.join([digest])}*) ;; '
            f"*) {ctr.label(namespace, digest, f'{self._key}={repositories}')};; esac"
            for digest, repositories in self.sources
        ]
        back = "\n".join((f"sourced=$({self._list('-q')})", *on))
        return f'[ -z "$sources_off" ] || {{\n{back}\n}} >/dev/null 2>&1'

    def _list(self, *flags: str) -> str:
        return self.place.ctr.line(self.place.namespace, "content", "ls", *flags, f'labels."{self._key}"')
