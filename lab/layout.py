"""Descriptions of the rehearsal fleet's nodes. `lab/fleet.py` starts the nodes from these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.debian import Trees

PORT = 2222
NAMES = 199  # the last number of the address of the lab's name server
STREAM_PORT = 10010  # CRI opens it, for `kubectl exec` and the like
CONFIG = "/etc/containerd/config.toml"
UID_MAP = "/etc/containerd/uid_map"
USERS = {"ops": 1000, "ops2": 1001}
# The password is ops2-secret. sudo asks ops2 for it.
OPS2_HASH = "$6$ctrferry$wQcWA3qH5YPHO143mZUEEOUz77o0FnQFn2TZxLbvyL5KaXUZ.1QMZt7AqtYHtRhPDtWRhah8O8K2jVsiUjQbw/"
TOOLS = ("containerd", "ctr", "runc", "docker", "nerdctl", "crictl", "kubectl", "k3s", "rke2", "microk8s")


@dataclass(frozen=True)
class Model:
    """One kind of node.

    Attributes:
        suites: the Debian suites that have its containerd, the best first.
        group: its group in the inventory.
        layout: where its programs are: `plain`, `sudo`, `k3s` or `rke2`.
        cri: whether containerd's CRI plugin is on.
        legacy: whether it has the stand-in for ctr 1.2.6, or a real containerd older than 1.3.
        variable: the environment variable that may name a folder with a real containerd to run instead.
        root, state: containerd's folders for content and for sockets.
        ctr: the command that a user of this node types.
    """

    suites: tuple[str, ...]
    group: str
    layout: str = "plain"
    cri: bool = True
    legacy: bool = False
    variable: str = ""
    root: str = "/var/lib/containerd"
    state: str = "/run/containerd"
    ctr: tuple[str, ...] = ("ctr",)

    @property
    def socket(self) -> str:
        """Return the path of containerd's socket."""
        return f"{self.state}/containerd.sock"

    @property
    def programs(self) -> str:
        """Return the folder of containerd's programs."""
        return {
            "k3s": "/var/lib/rancher/k3s/data/current/bin",
            "rke2": "/var/lib/rancher/rke2/bin",
        }.get(self.layout, "/usr/bin")


NODE3 = Model(("bookworm",), "plain", layout="sudo")
MODELS = {
    1: Model(("bullseye", "bookworm"), "legacy", legacy=True, variable="CTR_FERRY_LEGACY"),
    2: Model(("bullseye",), "plain", cri=False),
    3: NODE3,
    4: Model(
        ("trixie",),
        "kubernetes",
        layout="k3s",
        root="/var/lib/rancher/k3s/agent/containerd",
        state="/run/k3s/containerd",
        ctr=("k3s", "ctr"),
    ),
    5: Model(
        ("sid",),
        "kubernetes",
        layout="rke2",
        root="/var/lib/rancher/rke2/agent/containerd",
        state="/run/k3s/containerd",
        ctr=("/var/lib/rancher/rke2/bin/ctr", "--address", "/run/k3s/containerd/containerd.sock"),
        variable="CTR_FERRY_NEWEST",
    ),
}


@dataclass(frozen=True)
class Place:
    """The particulars of one node, which its model does not have.

    Attributes:
        number, address, folder: its number, its address, and its folder on this machine.
        host_key, client_key: its sshd's private key, and the public key that may log in.
        python, standin: the interpreter and the script of node1's stand-in for ctr; None for no stand-in.
        given: the folder with the containerd that the node runs in place of its package's; "" for none.
        unprivileged: whether root of this machine may not lower an OOM score, as in many containers.
    """

    number: int
    address: str
    folder: Path
    host_key: str
    client_key: str
    python: Path
    standin: Path | None = None
    given: str = ""
    unprivileged: bool = False

    @property
    def name(self) -> str:
        """Return the node's name."""
        return f"node{self.number}"


def hard_links(model: Model, place: Place, trees: Trees) -> dict[str, Path]:
    """Return the programs that this node has at other paths than their packages: path -> source."""
    ctr = trees.runtime / "usr/bin/ctr"
    if model.layout == "sudo":
        return {"/usr/local/sbin/ctr": ctr}
    if place.standin:
        return {"/usr/libexec/lab/ctr": ctr}
    return {}


def describe(model: Model, place: Place, trees: Trees, machine: Path) -> dict[str, Any]:
    """Return the description from which `node.py` builds the node.

    Args:
        model: the kind of node.
        place: the node's particulars.
        trees: the unpacked packages of the node's suite.
        machine: the unpacked sshd, sudo and busybox of the machine's own suite.
    """
    plain = model.layout in ("plain", "sudo")
    usr = [place.folder / "lower/usr", *([trees.runtime / "usr"] if plain else []), machine / "usr"]
    if trees.libraries:
        usr.insert(-1, trees.libraries / "usr")
    runtime = [Path(place.given)] if place.given else []
    runtime += [trees.runtime / "usr/sbin", trees.runtime / "usr/bin"]
    outside = [] if place.python.is_relative_to("/usr") else [place.python.parent.parent]
    return {
        "name": place.name,
        "folder": str(place.folder),
        "usr": [str(folder) for folder in usr if folder.is_dir()],
        "etc": [str(machine / "etc")],
        "keep": [str(path) for path in ([*outside, place.standin.parent] if place.standin else outside)],
        "stacks": {} if plain else {model.programs: [str(folder) for folder in runtime if folder.is_dir()]},
        "absent": _absent(model),
        "links": {"/etc/localtime": "/usr/share/zoneinfo/UTC"},
        "files": _files(model, place),
        "users": USERS if model.layout == "sudo" else {},
        "services": {
            "containerd": (
                _daemon(model, place),
                f"unix:{model.socket}",
                model.programs,
            ),
            "sshd": (["/usr/sbin/sshd", "-D", "-e"], f"tcp:{place.address}:{PORT}", "/usr/sbin"),
        },
        "model": asdict(model),
        "place": {"number": place.number, "address": place.address, "given": place.given},
        "real_ctr": real_ctr(model, place),
    }


def _daemon(model: Model, place: Place) -> list[str]:
    """Return the command line that starts containerd."""
    argv = [f"{model.programs}/containerd", "--config", CONFIG]
    if model.legacy and place.given and place.unprivileged:
        # Up to 1.2, containerd fails if it cannot lower an OOM score, except in a user namespace: pretend to be in one.
        return ["/bin/sh", "-c", f'mount --bind {UID_MAP} /proc/$$/uid_map; exec "$@"', "containerd", *argv]
    return argv


def real_ctr(model: Model, place: Place) -> list[str]:
    """Return the command line of the ctr that belongs to this node's containerd."""
    if place.standin:
        return ["/usr/libexec/lab/ctr"]
    return list(model.ctr)


def _absent(model: Model) -> list[str]:
    """Return the paths to hide: the machine's own container tools and settings of its own daemons."""
    folders = ["/usr/local/bin", "/usr/local/sbin"]
    tools = [f"/usr/bin/{tool}" for tool in TOOLS[3:]]
    if model.layout in ("k3s", "rke2"):
        folders += ["/usr/bin", "/usr/sbin"]
    elif model.layout == "sudo":
        folders.remove("/usr/local/sbin")
        tools.append("/usr/bin/ctr")
    tools += [f"{folder}/{tool}" for folder in folders for tool in TOOLS]
    settings = ("ssh", "sudoers.d", "profile.d", "containerd", "environment", "rancher", "docker", "cni", "resolv.conf")
    return tools + [f"/etc/{name}" for name in settings]


def _files(model: Model, place: Place) -> Mapping[str, tuple[int, str]]:
    """Return the node's own files: path -> mode and text."""
    name = place.name
    files = {
        "/etc/hostname": (0o644, f"{name}\n"),
        "/etc/hosts": (0o644, f"127.0.0.1 localhost\n{place.address} {name}\n::1 localhost ip6-localhost\n"),
        "/etc/nsswitch.conf": (0o644, NSSWITCH),
        # The lab's own name server answers while the registries are up. So no node asks the machine's network.
        "/etc/resolv.conf": (0o644, f"nameserver {place.address.rpartition('.')[0]}.{NAMES}\noptions timeout:1\n"),
        "/etc/ssh/ssh_host_ed25519_key": (0o600, place.host_key),
        "/etc/ssh/authorized_keys": (0o644, place.client_key),
        "/etc/ssh/sshd_config": (0o644, _sshd(model, place)),
        "/etc/sudoers": (0o440, SUDOERS),
        "/etc/pam.d/sudo": (0o644, PAM),
        CONFIG: (0o644, _containerd(model, place)),
        UID_MAP: (0o644, "         0          0 4294967294\n"),
        **_accounts(USERS if model.layout == "sudo" else {}),
    }
    if place.standin:
        run = f"LAB_REAL_CTR=/usr/libexec/lab/ctr exec {place.python} -I -S '{place.standin}' \"$@\""
        files["/usr/bin/ctr"] = (0o755, f"#!/bin/sh\n{run}\n")
    if model.layout == "k3s":
        files["/usr/local/bin/k3s"] = (0o755, K3S.replace("PROGRAMS", model.programs))
    return files


NSSWITCH = """\
passwd: files
group: files
shadow: files
hosts: files dns
"""

SUDOERS = """\
Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) ALL
ops  ALL=(ALL:ALL) NOPASSWD: ALL
ops2 ALL=(ALL:ALL) ALL
"""

PAM = """\
auth required pam_unix.so
account required pam_unix.so
session required pam_permit.so
"""

# Like the real one: `k3s ctr` is ctr with k3s' own socket and the namespace k8s.io as its defaults.
K3S = """\
#!/bin/sh
case $1 in
ctr)
    shift
    export CONTAINERD_ADDRESS="${CONTAINERD_ADDRESS:-/run/k3s/containerd/containerd.sock}"
    export CONTAINERD_NAMESPACE="${CONTAINERD_NAMESPACE:-k8s.io}"
    exec PROGRAMS/ctr "$@" ;;
--version | -v)
    echo "k3s version v1.32.4+k3s1 (6b330558)"
    echo "go version go1.23.6" ;;
*)
    echo "No help topic for '$1'" >&2
    exit 3 ;;
esac
"""


def _sshd(model: Model, place: Place) -> str:
    """Return the node's sshd_config."""
    text = f"""\
Port {PORT}
ListenAddress {place.address}
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
PrintMotd no
PidFile none
MaxStartups 100
AllowTcpForwarding yes
ClientAliveInterval 0
AcceptEnv LANG LC_*
"""
    if model.layout == "sudo":  # ctr is in /usr/local/sbin; `ops` keeps the stock PATH, which does not have that folder
        text += "Match User ops2\n    SetEnv PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin\n"
    return text


def _containerd(model: Model, place: Place) -> str:
    """Return containerd's configuration: its folders, and ports on the node's own address only."""
    before_1_3 = model.legacy and bool(place.given)
    plugin = "cri" if before_1_3 else "io.containerd.grpc.v1.cri"
    lines = [] if before_1_3 else ["version = 2"]
    lines += [f'root = "{model.root}"', f'state = "{model.state}"']
    if not model.cri:
        lines.append(f'disabled_plugins = ["{plugin}"]')
    lines += ["[grpc]", f'address = "{model.socket}"']
    if model.cri:
        lines += [
            f"[plugins.{json.dumps(plugin)}]",
            f'stream_server_address = "{place.address}"',
            f'stream_server_port = "{STREAM_PORT}"',
        ]
    return "\n".join(lines) + "\n"


def _accounts(users: Mapping[str, int]) -> dict[str, tuple[int, str]]:
    """Return passwd, group and shadow of a small Debian, with `users` added."""
    people = [
        ("root", 0, "/root", "/bin/bash"),
        ("daemon", 1, "/usr/sbin", "/usr/sbin/nologin"),
        ("sshd", 105, "/run/sshd", "/usr/sbin/nologin"),
        ("nobody", 65534, "/nonexistent", "/usr/sbin/nologin"),
        *((user, uid, f"/home/{user}", "/bin/bash") for user, uid in users.items()),
    ]
    groups = {"tty": 5, "shadow": 42, "nogroup": 65534} | {n: i for n, i, _, _ in people if i != 65534}
    secret = {"ops2": OPS2_HASH}
    return {
        "/etc/passwd": (0o644, "".join(f"{n}:x:{i}:{i}::{home}:{sh}\n" for n, i, home, sh in people)),
        "/etc/group": (0o644, "".join(f"{name}:x:{number}:\n" for name, number in groups.items())),
        "/etc/shadow": (
            0o600,
            "".join(f"{p[0]}:{secret.get(p[0], '*')}:20000:0:99999:7:::\n" for p in people),
        ),
    }
