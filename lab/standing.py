"""The registries that `python -m lab up` brings along, so that people can rehearse push and pull."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import cgroups, debian
from lab.certificates import Authority
from lab.docker_registry import PORT, DockerRegistry
from lab.fleet import Fleet, LabError

DEMO = "docker-registry.i.demo"
DEMO_NODES = ("node1", "node2", "node3")  # these reach it; node4 is refused, node5 cannot resolve its name
DEMO_PORT = 443  # what a reference without a port means
PLAIN = "http.registry.demo"
DAYS = 365  # for how long the certificates are valid


class StandingRegistries:
    """One registry that speaks plain HTTP, and one that speaks TLS. Neither wants a login.

    They outlive the process that starts them, until the fleet goes down. `Fleet.up` alone, as in the tests, does not
    start them. The nodes have their names in /etc/hosts, and the fleet's inventory has them in `ctr_registries`.

    Args:
        fleet: the fleet whose nodes get the names. The registries listen on its network, at .220 and .221.

    Attributes:
        plain: http.registry.demo:5000, for all nodes.
        tls: docker-registry.i.demo, for DEMO_NODES.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.folder, self._group = fleet, fleet.state / "standing", f"{fleet.group}/standing"
        self.plain = DockerRegistry(self.folder / "plain", self._address(0), f"{self._group}/plain")
        self.tls = DockerRegistry(
            self.folder / "tls", self._address(1), f"{self._group}/tls", names=[DEMO], days=DAYS, port=DEMO_PORT
        )

    def up(self) -> None:
        """Start the registries unless they run, and make their names known; raise LabError. They keep their images."""
        if not all(self._running()):
            cgroups.destroy(self._group)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            try:
                program = (
                    debian.unpacked(["docker-registry"], self.fleet.cache, tell=self.fleet.tell)
                    / "usr/bin/docker-registry"
                )
            except debian.Unavailable as error:
                raise LabError(f"the registries need Debian's package docker-registry: {error}") from error
            authority = Authority(self.folder / "ca.pem", days=DAYS)
            for server in (self.plain, self.tls):
                server.prepare(program, authority)
                server.launch()
        self._tell(True)
        self.fleet.publish(settings(self.folder))

    def down(self) -> bool:
        """Stop the registries; return whether one ran. They keep their images until the fleet goes down."""
        if not any(self._running()):
            return False
        cgroups.destroy(self._group)
        self._tell(False)
        self.fleet.publish({})
        return True

    def _running(self) -> list[bool]:
        """Return for each registry whether it runs."""
        return [bool(cgroups.members(f"{self._group}/{kind}")) for kind in ("plain", "tls")]

    def _tell(self, known: bool) -> None:
        """Write the registries' names to the nodes' /etc/hosts, or remove them."""
        nodes = list(self.fleet.nodes.values())
        with ThreadPoolExecutor(max(1, len(nodes))) as pool:
            list(pool.map(lambda node: node.resolve(self._names(node.name) if known else {}), nodes))

    def _names(self, node: str) -> dict[str, str]:
        """Return what a node resolves. Nothing listens at the third address."""
        return {PLAIN: self._address(0), **demo_name(node, self._address(1), self._address(2))}

    def _address(self, place: int) -> str:
        return f"{self.fleet.network}.{220 + place}"


def demo_name(node: str, living: str, dead: str) -> dict[str, str]:
    """Return DEMO with the address that a node gets for it: a living one, a dead one or none."""
    if node in DEMO_NODES:
        return {DEMO: living}
    return {DEMO: dead} if node == "node4" else {}


def settings(folder: Path) -> dict[str, dict[str, str]]:
    """Return `ctr_registries` of an inventory, for the standing registries that write to a folder."""
    return {DEMO: {"ca_file": str(folder / "ca.pem")}, f"{PLAIN}:{PORT}": {"scheme": "http"}}
