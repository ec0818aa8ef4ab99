"""ctr's command lines, each word quoted, flags first: ctr 2.x takes later ones as arguments. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ctr_ferry import shell
from ctr_ferry.ctr.version import Capabilities

OURS = "ctr-ferry"  # names, labels, ingests and files of ours begin with it
NAMESPACE = "[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*"  # containerd's identifiers.Validate
LONGEST_NAMESPACE = 76
KUBELETS = "k8s.io"  # the namespace that kubelet reads, and in which CRI labels every name
GC_ROOT = "containerd.io/gc.root"
GC_REF = "containerd.io/gc.ref.content"
CRI_MANAGED = "io.cri-containerd.image=managed"
MOST_DOCUMENT = 4 << 20  # bytes of a manifest or index; registries take no larger one (distribution-spec)
_BOUND = "60s"  # for commands of a clean-up: ctr waits without end for a blob that somebody else writes
PINNED = "io.cri-containerd.pinned=pinned"  # keeps kubelet from removing an image


def owner_of(run_id: str) -> str:
    """The word with which all begins that a run leaves on a host: labels, ingests, files and temporary names."""
    return f"{OURS}.{run_id}"


@dataclass(frozen=True, slots=True)
class Ctr:
    """One host's ctr, aimed at one containerd.

    Attributes:
        argv: its command, such as ``("ctr",)`` or ``("k3s", "ctr")``.
        address: the path of containerd's socket.
        snapshotter: where import and pull unpack to; None means containerd's default.
    """

    argv: tuple[str, ...]
    address: str
    capabilities: Capabilities
    snapshotter: str | None = None

    def line(self, namespace: str, *words: str) -> str:
        """Builds any ctr command in a namespace, as sh text."""
        return shell.join((*self.argv, "--address", self.address, "--namespace", namespace, *words))

    @property
    def bounded(self) -> Ctr:
        """The same ctr with commands that end by themselves after a minute."""
        return replace(self, argv=(*self.argv, "--timeout", _BOUND))

    @property
    def unpacking(self) -> tuple[str, ...]:
        """The flags that name the snapshotter."""
        return ("--snapshotter", self.snapshotter) if self.snapshotter else ()

    @property
    def _local(self) -> tuple[str, ...]:
        return ("--local",) if self.capabilities.local else ()

    def images(self, namespace: str, *names: str) -> str:
        """``images ls``: all images of the namespace, or those of exactly these names."""
        return self.line(namespace, "images", "ls", *(f'name=="{name}"' for name in names))

    def existing(self, namespace: str, *names: object) -> str:
        """``images ls -q``: those of the names that exist."""
        return self.line(namespace, "images", "ls", "-q", *(f'name=="{name}"' for name in names))

    def content(self, namespace: str, digest: str) -> str:
        """``content get``: prints a blob."""
        return self.line(namespace, "content", "get", digest)

    def document(self, namespace: str, digest: str, content_root: str = "") -> str:
        """Prints a manifest or index, at most a byte more than allowed; only its digest tells whether it is whole.

        Args:
            content_root: where its file may be read, which is many times faster; empty to ask containerd. The file
                may be there for another namespace alone.
        """
        most = f"head -c {MOST_DOCUMENT + 1}"
        asked = f"{self.content(namespace, digest)} | {most}"
        if not content_root:
            return asked
        file = shell.join([f"{content_root}/blobs/{digest.replace(':', '/')}"])
        return f"if [ -r {file} ]; then {most} {file}; else {asked}; fi"

    def digests(self, namespace: str) -> str:
        """``content ls -q``: the digests that are visible in the namespace."""
        return self.line(namespace, "content", "ls", "-q")

    def label(self, namespace: str, digest: str, *labels: str) -> str:
        """``content label``: ``key=value`` sets a label, ``key=`` removes it."""
        return self.line(namespace, "content", "label", digest, *labels)

    def relabel(self, namespace: str, name: str, *labels: str) -> str:
        """``images label``: ``key=value`` sets a label of a name, ``key=`` removes it."""
        return self.line(namespace, "images", "label", name, *labels)

    def tag(self, namespace: str, source: str, target: str) -> str:
        """``images tag`` (from 1.3): fails if the name exists; ``--force`` would delete the name before creating it."""
        return self.line(namespace, "images", "tag", *self._local, source, target)

    def import_stdin(self, namespace: str, *flags: str, oci_name: str | None = None) -> str:
        """``images import -``; ctr up to 1.1 takes the repository as ``oci_name``."""
        named = ("--oci-name", oci_name) if oci_name else self._local
        return self.line(namespace, "images", "import", *named, *self.unpacking, *flags, "-")

    def export_stdout(
        self, namespace: str, name: str, *, all_platforms: bool = False, ref_name: str | None = None
    ) -> str:
        """``images export -``; ctr up to 1.2 takes the ref name to write, which 1.2.14 ignores.

        The flags have ``=true``: without it, 1.3 to 1.6 swap the ``-`` and the name behind it (urfave/cli 1.22.1).
        """
        named = ("--oci-ref-name", ref_name) if ref_name else ()
        flags = [f"{flag}=true" for flag in self._local] + (["--all-platforms=true"] if all_platforms else [])
        return self.line(namespace, "images", "export", *named, *flags, "-", name)

    def ingest(self, namespace: str, digest: str, size: int, key: str) -> str:
        """``content ingest``: takes in one blob from stdin; the daemon checks digest and size."""
        return self.line(namespace, "content", "ingest", "--expected-digest", digest, "--expected-size", str(size), key)

    def remove(self, namespace: str, *names: str, sync: bool = False) -> str:
        """``images rm``, with exit status 0 for absent names; ``sync`` waits until unnamed content is collected."""
        return self.line(namespace, "images", "rm", *(("--sync",) if sync else ()), *names)
