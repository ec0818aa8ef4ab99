"""The programs of a host that POSIX does not promise: how each is found, and whether it needs root. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from ctr_ferry import shell


class Program(StrEnum):
    """Programs that the host's search path may have. None of them needs root."""

    CURL = "curl"
    WGET = "wget"  # where there is no curl, and no login is needed
    FLOCK = "flock"  # without it, a run waits for a moment
    MKTEMP = "mktemp"  # needed where certificates or an empty file go to the host

    @property
    def is_there(self) -> str:
        """A sh test of it."""
        return f"command -v {self} >/dev/null"


TEMPORARY = '"${TMPDIR:-/tmp}"'  # the folder of temporary files, as a word of sh


def temporary_file(name: str) -> str:
    """A sh command that makes a file whose name begins with ``name`` and a dot, and prints its path.

    mktemp puts letters of its own in the place of the last six.
    """
    return f"{Program.MKTEMP} {TEMPORARY}/{shell.join([name])}.XXXXXX"


class Flavour(NamedTuple):
    """One containerd with its ctr. The ctr needs root, unless the login user may write to the socket.

    Attributes:
        word: is in the command of its ctr.
        title: for people.
        commands: may be its ctr, also where it is installed outside of the search path.
        socket: where its containerd listens.
    """

    word: str
    title: str
    commands: tuple[str, ...]
    socket: str


_K3S = "/run/k3s/containerd/containerd.sock"
_MICROK8S = "/var/snap/microk8s/common/run/containerd.sock"
KUBERNETES = (
    Flavour("k3s", "k3s", ("k3s ctr", "/usr/local/bin/k3s ctr", "/opt/bin/k3s ctr"), _K3S),
    Flavour("rke2", "RKE2", ("/var/lib/rancher/rke2/bin/ctr",), _K3S),
    Flavour("k0s", "k0s", ("k0s ctr", "/usr/local/bin/k0s ctr"), "/run/k0s/containerd.sock"),
    Flavour("microk8s", "MicroK8s", ("microk8s ctr", "/snap/bin/microk8s ctr"), _MICROK8S),
)
_FOLDERS = ("/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/opt/containerd/bin", "/opt/bin")
_CTRS = ("ctr", *(f"{folder}/ctr" for folder in _FOLDERS))
PLAIN = Flavour("ctr", "containerd's own", _CTRS, "/run/containerd/containerd.sock")
_DOCKER = Flavour("docker", "Docker", (), "/run/docker/containerd/containerd.sock")  # its ctr is containerd's own
COMMANDS = tuple(command for flavour in (PLAIN, *KUBERNETES) for command in flavour.commands)
# Kubelet's come first: beside k3s, the plain containerd is Docker's.
SOCKETS = tuple(dict.fromkeys(flavour.socket for flavour in (*KUBERNETES, PLAIN, _DOCKER)))
KUBELETS_OWN = frozenset(flavour.socket for flavour in KUBERNETES)  # their containerd serves kubelet alone
