"""The rehearsal fleet: bring it up, use its nodes, take it down."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import cgroups, debian, login
from lab.layout import MODELS, NODE3, PORT, STREAM_PORT, Model, Place, describe, hard_links
from lab.nodes import START_PATIENCE, LabError, Node, NodeGone

__all__ = ["CACHE", "STATE", "Fleet", "LabError", "Node", "NodeGone"]

STATE = Path(__file__).resolve().parent / ".state"
CACHE = STATE / "cache"
STANDIN = Path(__file__).resolve().parent / "standin" / "ctr.py"

# What starts containers: of a containerd from 1.3 on, and of an older one.
SHIMS = ("containerd-shim-runc-v2", "containerd-shim")

# Starts the command in the background, so that it outlives the process that started it.
DETACH = '"$@" &'


class Fleet:
    """The rehearsal fleet of one state folder.

    Args:
        state: the folder for everything that the fleet writes. `down` removes its content, except the cache.
        cache: the folder for unpacked Debian packages. It stays when the fleet is down.
        network: the first three numbers of the nodes' loopback addresses.

    Attributes:
        group: the fleet's control group.
        missing: after `up`, the reasons why suites are not available.
        tell: called with a line of text at each step of `up`.
    """

    def __init__(self, state: Path = STATE, *, cache: Path = CACHE, network: str = "127.0.10") -> None:
        if not ipaddress.ip_address(f"{network}.1").is_loopback:
            raise LabError(f"the fleet needs a network of loopback, and {network}.0 is none")
        self.state, self.cache, self.network = state.resolve(), cache.resolve(), network
        self.group = f"ctr-ferry-lab-{hashlib.sha256(bytes(self.state)).hexdigest()[:8]}"
        self.missing: list[str] = []
        self.tell: Callable[[str], object] = lambda _: None
        self._known: dict[tuple[Path, str], Node] = {}

    @classmethod
    def chosen(cls) -> Fleet:
        """Return the fleet that CTR_FERRY_LAB=DIR:NETWORK names; without that variable, the fleet of this clone."""
        folder, _, network = os.environ.get("CTR_FERRY_LAB", "").rpartition(":")
        return cls(Path(folder), network=network) if folder else cls()

    @property
    def nodes(self) -> dict[str, Node]:
        """The nodes that are up, by name. A node keeps its object until it goes down."""
        found = []
        for path in self.state.glob("nodes/*/node.json"):
            # An `up` that was killed, or another version of the lab, may have left files that cannot be read.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                start = (path.parent, (path.parent / "pid").read_text())
                node = self._known.get(start) or Node(path.parent)
                found.append(self._known.setdefault(start, node))  # another thread may have added it first
        return {node.name: node for node in sorted(found, key=lambda n: n.number) if node.pid}

    @property
    def inventory(self) -> Path:
        """The inventory that `up` writes."""
        return self.state / "hosts.yaml"

    def up(self, extra: int = 0) -> None:
        """Start every node that is down, and every service that has ended on a node that is up.

        Args:
            extra: the number of further nodes like node3, from node6 on.

        Raises:
            LabError: the user is not root, the system is not Debian, packages are missing, or a node does not start.
        """
        self._demand_root()
        with self._lock():
            trees = self._packages()
            machine = next(found.machine for found in trees.values() if found.machine)
            login.make_key(self.state / "ssh/id_ed25519", "ctr-ferry-lab", machine)
            (self.state / "nodes").mkdir(mode=0o700, exist_ok=True)
            numbers = {*MODELS, *range(6, 6 + extra), *(node.number for node in self.nodes.values())}
            wanted = {number: MODELS.get(number, NODE3) for number in sorted(numbers)}
            have = {n: suite for n, m in wanted.items() for suite in reversed(m.suites) if suite in trees}
            self.tell(f"bringing up {len(have)} nodes")
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda n: self._ensure(n, wanted[n], trees[have[n]], machine), have))
            self.publish()

    def down(self) -> None:
        """End every process of this fleet, and remove everything that it wrote except the cache; raise LabError."""
        self._demand_root()
        if not self.state.exists():
            return
        with self._lock():
            try:
                cgroups.destroy(self.group)
            except TimeoutError as error:
                raise LabError(str(error)) from error
            except OSError as error:
                raise LabError(f"nothing was taken down: {error}") from error
            self._end_recorded()
            for path in self.state.iterdir():
                if path == self.cache or path.name == "lock":
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            (self.state / "lock").unlink()
        with contextlib.suppress(OSError):  # the folder is not empty if the cache is in it
            self.state.rmdir()

    def _end_recorded(self) -> None:
        """End nodes outside the fleet's groups by killing their recorded process 1; raise LabError.

        A node that was just killed in its group is also listed for a moment.
        """
        deadline = time.monotonic() + START_PATIENCE
        while nodes := self.nodes:
            for node in nodes.values():
                if pid := node.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise LabError(f"{', '.join(nodes)} still run after {START_PATIENCE:.0f} s: end them by hand")
            time.sleep(0.1)

    def _packages(self) -> dict[str, debian.Trees]:
        """Return the trees of all available suites; raise LabError if the machine's own suite is not among them."""
        try:
            own = debian.codename()
            runner = self._within("up")
            with self._lock(self.cache):
                got = debian.fetch(list(dict.fromkeys((*debian.SUITES, own))), self.cache, runner, self.tell)
        except debian.Unavailable as error:
            raise LabError(str(error)) from error
        if isinstance(why := got[own], debian.Unavailable):
            raise LabError(f"the rehearsal fleet needs packages of {why}")
        self.missing = [str(why) for why in got.values() if isinstance(why, debian.Unavailable)]
        return {suite: trees for suite, trees in got.items() if isinstance(trees, debian.Trees)}

    def _ensure(self, number: int, model: Model, trees: debian.Trees, machine: Path) -> None:
        """Start node `number`, or, if it is up, its services that have ended; raise LabError."""
        folder = self.state / "nodes" / f"node{number}"
        given = os.environ.get(model.variable, "") if model.variable else ""
        if (node := self.nodes.get(f"node{number}")) and node.given == given:
            with contextlib.suppress(NodeGone):  # the node has just ended: the code below starts it again
                node.start_containerd()
                node.start_sshd()
                return
        group = f"{self.group}/node{number}"
        cgroups.destroy(group)
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "root").mkdir(parents=True)
        place = self._place(number, model, machine, given)
        demand_free(place.address, PORT, STREAM_PORT)
        for path, source in self._programs(model, place, trees).items():
            target = Path(f"{folder}/lower{path}")
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)
        spec = describe(model, place, trees, machine)
        groups = cgroups.create(group)
        spec["cgroups"] = [(str(h.folder), h.kind, h.options) for h in cgroups.hierarchies()]
        (folder / "node.json").write_text(json.dumps(spec))
        self._launch(place, groups)

    def _place(self, number: int, model: Model, machine: Path, given: str) -> Place:
        """Return the particulars of node `number`, in which it differs from other nodes of its model."""
        key = self.state / "ssh/host_keys" / f"node{number}"
        login.make_key(key, f"node{number}", machine)
        return Place(
            number,
            f"{self.network}.{number}",
            self.state / "nodes" / f"node{number}",
            host_key=key.read_text(),
            client_key=(self.state / "ssh/id_ed25519.pub").read_text(),
            python=Path(sys.executable).resolve(),
            standin=STANDIN if model.legacy and not given and STANDIN.exists() else None,
            given=given,
            unprivileged=not _may_lower_oom_scores(),
        )

    def _programs(self, model: Model, place: Place, trees: debian.Trees) -> dict[str, Path]:
        """Return the programs that this node has besides its packages: path -> source; raise LabError."""
        if not place.given:
            return hard_links(model, place, trees)
        given, needed = Path(place.given), ("ctr", "containerd", SHIMS[model.legacy])
        if not all((given / name).is_file() for name in needed):
            raise LabError(f"{model.variable}={given} must have {', '.join(needed)}")
        # Where programs have a folder of their own, `describe` puts the given ones over the package's.
        return {f"/usr/bin/{path.name}": path for path in given.iterdir() if model.programs == "/usr/bin"}

    def _launch(self, place: Place, groups: list[Path]) -> None:
        """Start a node's process 1 and wait until all its services answer; raise LabError."""
        leaves = [group / "init" for group in groups if (group / "cgroup.type").exists()]
        for leaf in leaves:  # with cgroup v2, a group that has child groups must not have processes itself
            leaf.mkdir(exist_ok=True)
        unshare = ["unshare", "--mount", "--propagation=private", "--uts", "--pid", "--fork", "--kill-child"]
        program = [str(place.python), "-I", "-S", str(Path(__file__).with_name("node.py"))]
        inside = cgroups.joining(leaves, [*unshare, *program, str(place.folder / "node.json")])
        argv = ["sh", "-c", DETACH, "detach", *cgroups.joining(groups, ["unshare", "--cgroup", *inside])]
        log = place.folder / "log"
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            ) as started,
        ):
            assert started.stdout
            answer = started.stdout.readline().decode().strip()
        if answer != "ready":
            lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
            raise LabError(f"{place.name} did not start: {answer or lines[-1]}")

    def publish(self, registries: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Write known_hosts and the inventory of the nodes that are up.

        Args:
            registries: the inventory's `ctr_registries` from now on; None keeps those of before.
        """
        kept = self.state / "registries.json"
        if registries is not None:
            kept.write_text(json.dumps(registries))
        nodes = list(self.nodes.values())
        keys = [(node.address, (self.state / "ssh/host_keys" / f"{node.name}.pub").read_text()) for node in nodes]
        (self.state / "ssh/known_hosts").write_text(login.known_hosts(keys))
        listed = [(n.name, n.address, n.model.group, n.number == 3) for n in nodes]
        known = json.loads(kept.read_text()) if kept.exists() else {}
        self.inventory.write_text(login.inventory(self.state, listed, known))

    def _within(self, name: str) -> list[str]:
        """Return the beginning of an argv that starts a command in the fleet's group `name`, where `down` finds it."""
        try:
            return cgroups.joining(cgroups.create(f"{self.group}/{name}"), [])
        except OSError as error:
            raise LabError(f"the rehearsal fleet needs control groups it can write to: {error}") from error

    def _demand_root(self) -> None:
        """Raise LabError unless the user is root."""
        if os.geteuid():
            raise LabError("the rehearsal fleet needs root: run it as root or with sudo")

    @contextlib.contextmanager
    def _lock(self, folder: Path | None = None) -> Iterator[None]:
        """Hold the lock of the fleet, or of the cache, against other processes."""
        path = (folder or self.state) / "lock"
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                    yield
                    return


def demand_free(address: str, *ports: int) -> None:
    """Raise LabError if another program listens on one of these ports."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                text = f"{address}:{port} cannot be had ({error.strerror}); is a fleet of another clone up?"
                raise LabError(text) from error


def _may_lower_oom_scores() -> bool:
    """Tell whether this process has CAP_SYS_RESOURCE."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> 24 & 1)


def _link(source: Path, target: Path) -> None:
    """Link `source` to `target`, or copy it if they are on different file systems."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
