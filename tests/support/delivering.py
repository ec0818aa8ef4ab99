"""Helpers of the tests of `fab deliver`: whom a registry's name leads where, and what the hosts say afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from ferry import Fab, Run, Stage, eventually, has_cri, leftovers, processes
from registry_scene import RegistryScene

from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build
from lab.registries import DEMO, Registries, Registry

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"
Make = Callable[..., BuiltImage]


@pytest.fixture(scope="session", name="make")
def make_fixture(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Build images that no host and no registry has had before."""
    assert fleet.nodes
    folder = tmp_path_factory.mktemp("images")

    def image(**options: object) -> BuiltImage:
        arguments = {"layers": (1000, 2000), "cmd": ("/bin/echo", "hello"), "seed": secrets.randbits(32), **options}
        return build(folder, **arguments)  # type: ignore[arg-type]

    return image


class DeliveryScene(RegistryScene):
    """One test's images, and a registry that each node sees in its own way."""

    def deliver(self, hosts: Iterable[str], *words: str, inventory: Path | str | None = None, **env: str) -> Run:
        """Run `fab -H HOSTS deliver --json WORDS…`."""
        return self.run(hosts, "deliver", "--json", *words, inventory=inventory, **env)

    def apply(self, plan: Path, *words: str, **env: str) -> Run:
        """Run `fab apply --json --plan PLAN WORDS…`."""
        env = {**self.registries.environment, **env}
        return self.fab("apply", "--json", "--plan", str(plan), *words, inventory=self.inventory(), **env)

    @property
    def moving(self) -> Registry:
        """The registry whose name `leading` can lead elsewhere."""
        return self.registries.demo

    @contextmanager
    def leading(self, ways: Mapping[str, str]) -> Iterator[Registry]:
        """Lead the name of `moving` on each node to a living registry, a dead one or none during the block.

        Args:
            ways: `alive`, `dead` or `none` by node; nodes that are not named get `none`.
        """
        at = {"alive": self.registries.tls.address, "dead": self.registries.absent.address}
        with ExitStack() as stack:
            for node in self._fleet.nodes.values():
                before = node.exec(["cat", "/etc/hosts"]).stdout
                stack.callback(node.exec, ["sh", "-c", "cat >/etc/hosts"], stdin=before)
                lines = [line for line in before.decode().splitlines() if DEMO not in line.split()]
                way = ways.get(node.name, "none")
                lines += [f"{at[way]} {DEMO}"] if way in at else []
                node.exec(["sh", "-c", "cat >/etc/hosts"], stdin=("\n".join(lines) + "\n").encode())
            yield self.moving

    def is_as_told(self, run: Run, dst: str, digest: str, hosts: Iterable[str] | None = None) -> None:
        """What the run told of each host is what the host says: the digest, complete, unpacked, known to CRI."""
        for host in hosts or run.outcomes:
            node, told = self.nodes[host], {image["reference"]: image for image in run.images(host)}[dst]
            record = self.stage.records(node)[dst]
            assert (told["digest"], record.digest) == (digest, digest), host
            assert record.managed or not has_cri(node), host
            assert self.stage.check(node, dst) == "complete", host
            assert self.stage.hello(node, dst) == "hello", host

    def leaves_nothing(self, running: Mapping[str, Iterable[int]]) -> None:
        """Neither processes nor anything else of ours is on the nodes."""
        for node in self.nodes.values():
            before = set(running[node.name])
            assert eventually(lambda n=node, b=before: processes(n).keys() <= b), processes(node)  # type: ignore[misc]
            assert eventually(lambda n=node: leftovers(n) == []), leftovers(node)  # type: ignore[misc]


@pytest.fixture(name="scene")
def scene_fixture(
    fab: Fab, stage: Stage, fleet: Fleet, registries: Registries, tmp_path: Path
) -> Iterator[DeliveryScene]:
    """One test's scene; afterwards, nothing of ours may be left on the nodes."""
    scene = DeliveryScene(fab, stage, fleet, registries, tmp_path)
    running = stage.on_each(lambda node: set(processes(node)))
    yield scene
    scene.leaves_nothing(running)


def routes(run: Run) -> dict[str, str]:
    """The way of the only image to each host."""
    return {host: run.image(host)["route"] for host in run.outcomes}


def other_nodes(scene: RegistryScene, *without: str) -> list[str]:
    """The names of all nodes but some."""
    return [name for name in scene.nodes if name not in without]


__all__ = ["OTHER", "DeliveryScene", "Make", "Node", "make_fixture", "other_nodes", "routes"]
