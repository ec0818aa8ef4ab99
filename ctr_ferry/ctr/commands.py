"""ctr's command lines, built purely: flags first (2.x takes them as arguments after a positional), all quoted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctr_ferry import shell
from ctr_ferry.ctr.version import Capabilities

OURS = "ctr-ferry"  # what names, labels, ingests and files of ours begin with
GC_ROOT = "containerd.io/gc.root"
GC_REF = "containerd.io/gc.ref.content"
CRI_MANAGED = "io.cri-containerd.image=managed"
MOST_DOCUMENT = 4 << 20  # bytes of a manifest or index; registries take no larger one (distribution-spec)
_BOUND = "60s"  # for a command of a clean-up: a blob that somebody else is writing would be waited for without end
PINNED = "io.cri-containerd.pinned=pinned"  # keeps kubelet from removing an image


@dataclass(frozen=True, slots=True)
class Ctr:
    """One host's ctr, aimed at one containerd.

    Attributes:
        argv: how it is started there, such as ``("ctr",)`` or ``("k3s", "ctr")``.
        address: the socket.
        capabilities: what this client can do.
        snapshotter: where import unpacks to; None is containerd's default.
    """

    argv: tuple[str, ...]
    address: str
    capabilities: Capabilities
    snapshotter: str | None = None

    def line(self, namespace: str, *words: str) -> str:
        """Any ctr command in a namespace, as sh text."""
        return shell.join((*self.argv, "--address", self.address, "--namespace", namespace, *words))

    @property
    def bounded(self) -> Ctr:
        """The same ctr, each command of which ends by itself after a minute."""
        return replace(self, argv=(*self.argv, "--timeout", _BOUND))

    @property
    def _local(self) -> tuple[str, ...]:
        return ("--local",) if self.capabilities.local else ()

    def images(self, namespace: str, *names: str) -> str:
        """``images ls``: every image of the namespace, or those of exactly these names."""
        return self.line(namespace, "images", "ls", *(f'name=="{name}"' for name in names))

    def content(self, namespace: str, digest: str) -> str:
        """``content get``: a blob's bytes on stdout."""
        return self.line(namespace, "content", "get", digest)

    def document(self, namespace: str, digest: str) -> str:
        """The same of a manifest or index, cut off behind the first byte that is too much; its digest must be checked.

        The exit status tells nothing.
        """
        return f"{self.content(namespace, digest)} | head -c {MOST_DOCUMENT + 1}"

    def digests(self, namespace: str) -> str:
        """``content ls -q``: the digests that this namespace sees."""
        return self.line(namespace, "content", "ls", "-q")

    def label(self, namespace: str, digest: str, *labels: str) -> str:
        """``content label``: sets ``key=value``, takes off ``key=``."""
        return self.line(namespace, "content", "label", digest, *labels)

    def relabel(self, namespace: str, name: str, *labels: str) -> str:
        """``images label``: sets ``key=value`` on a name, takes off ``key=``."""
        return self.line(namespace, "images", "label", name, *labels)

    def tag(self, namespace: str, source: str, target: str) -> str:
        """``images tag`` (1.3 on), which fails where the name exists; ``--force`` would delete it, then create it."""
        return self.line(namespace, "images", "tag", *self._local, source, target)

    def import_stdin(self, namespace: str, *flags: str, oci_name: str | None = None) -> str:
        """``images import -``; to 1.1 with the repository apart."""
        named = ("--oci-name", oci_name) if oci_name else self._local
        snapshotter = ("--snapshotter", self.snapshotter) if self.snapshotter else ()
        return self.line(namespace, "images", "import", *named, *snapshotter, *flags, "-")

    def export_stdout(
        self, namespace: str, name: str, *, all_platforms: bool = False, ref_name: str | None = None
    ) -> str:
        """``images export -``; to 1.2 with the ref name to write (1.2.14 ignores it).

        ``=true``, since from 1.3 to 1.6 a flag without it swaps the ``-`` and the name behind it (urfave/cli 1.22.1).
        """
        named = ("--oci-ref-name", ref_name) if ref_name else ()
        flags = [f"{flag}=true" for flag in self._local] + (["--all-platforms=true"] if all_platforms else [])
        return self.line(namespace, "images", "export", *named, *flags, "-", name)

    def ingest(self, namespace: str, digest: str, size: int, key: str) -> str:
        """``content ingest`` of one blob from stdin; the daemon checks digest and size."""
        return self.line(namespace, "content", "ingest", "--expected-digest", digest, "--expected-size", str(size), key)

    def keep(self, namespace: str, digest: str, owner: str, held: Sequence[str] = ()) -> str:
        """Labels a blob in our run's name as a root of garbage collection that holds others."""
        refs = [f"{GC_REF}.{owner}.{number}={other}" for number, other in enumerate(held)]
        return self.label(namespace, digest, f"{GC_ROOT}={owner}", *refs)

    def release(self, namespace: str, digest: str, owner: str, held: Sequence[str] = ()) -> str:
        """Takes those labels off again."""
        refs = [f"{GC_REF}.{owner}.{number}=" for number in range(len(held))]
        return self.label(namespace, digest, f"{GC_ROOT}=", *refs)

    def remove(self, namespace: str, *names: str, sync: bool = False) -> str:
        """``images rm``: takes names away (exit 0 also where there was none).

        Args:
            sync: whether it waits until the content that nothing names any more is collected.
        """
        return self.line(namespace, "images", "rm", *(("--sync",) if sync else ()), *names)
