"""A push to the lab's slow registry, or a pull from it, that a test cuts off in the middle."""

from __future__ import annotations

import pytest
from ferry import Run, eventually, leftovers, names_of, processes
from registry_scene import RegistryScene

from lab.fleet import Node

MIB = 1 << 20


def some(scene: RegistryScene, *wanted: str) -> list[Node]:
    """Return those of some nodes that the fleet has."""
    return [node for name, node in scene.nodes.items() if name in wanted] or pytest.skip("the fleet has none of them")


class Running:
    """A push to the slow registry, or a pull from it, on some nodes; ended with the block."""

    def __init__(self, scene: RegistryScene, nodes: list[Node], *words: str, **env: str) -> None:
        self.scene, self.nodes, self._words, self._env = scene, nodes, words, env
        self._before = {node.name: processes(node).keys() for node in nodes}
        self._seen = scene.registries.seen("slow")

    def __enter__(self) -> Running:
        environment = {**self.scene.registries.environment, **self._env}
        words = ("-H", ",".join(names_of(self.nodes)), *self._words)
        self.process = self.scene.fab.start(*words, inventory=self.scene.inventory(), **environment)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def moved(self, way: str = "sent") -> int:
        """How many bytes clients have sent (or got) through the slow registry."""
        moved: int = self.scene.registries.seen("slow")[way] - self._seen[way]
        return moved

    def new(self, node: Node) -> dict[int, str]:
        """Return a node's processes since it began."""
        return {pid: argv for pid, argv in processes(node).items() if pid not in self._before[node.name]}

    def in_the_middle(self, size: int, way: str = "sent") -> bool:
        """Wait until so many bytes have moved and all nodes are at it; tell whether that came to pass."""
        verb = f" images {self._words[0]} "
        at_it = lambda: all(any(verb in argv for argv in self.new(node).values()) for node in self.nodes)  # noqa: E731
        return eventually(lambda: self.moved(way) > size and at_it())

    def ended(self) -> Run:
        """Wait for `fab`."""
        out, err = self.process.communicate(timeout=60)
        assert "Traceback" not in out + err
        return Run(self.process.returncode, out, err)

    def leaves_nothing(self) -> None:
        """No process and no file of ours is on the nodes, within the guard's patience."""
        for node in self.nodes:
            assert eventually(lambda n=node: not self.new(n)), self.new(node)  # type: ignore[misc]
            assert leftovers(node) == []
