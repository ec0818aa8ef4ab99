"""Helpers of the tests of push and pull: the fleet's nodes with the lab's registries."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ferry import Fab, Run, Stage, write_inventory

from lab.fleet import Fleet, Node
from lab.registries import Registries, Registry


class RegistryScene:
    """One test's images on the nodes and in the lab's registries."""

    def __init__(self, fab: Fab, stage: Stage, fleet: Fleet, registries: Registries, folder: Path) -> None:
        self.fab, self.stage, self.registries = fab, stage, registries
        self.nodes, self._fleet, self._folder = stage.nodes, fleet, folder

    def inventory(self, *, hosts: Mapping[str, Mapping[str, Any]] | None = None, **variables: Any) -> Path:
        """Write an inventory of all nodes.

        Args:
            hosts: further hosts, with their variables.
            variables: variables of every host. By default, `ctr_registries` describes all registries correctly.
        """
        common = {"ctr_registries": self.registries.settings(), **variables}
        listed = {node.name: {"ansible_host": node.address, **common} for node in self._fleet.nodes.values()}
        listed |= {name: {**common, **given} for name, given in (hosts or {}).items()}
        return write_inventory(self._folder / f"{uuid.uuid4().hex}.yaml", self._fleet, listed)

    def described(self, registry: Registry, **changed: Any) -> Path:
        """Write an inventory in which some settings of one registry are changed; None removes a setting."""
        given = {**self.registries.settings(), registry.name: registry.settings(**changed)}
        return self.inventory(ctr_registries=given)

    def run(self, hosts: Iterable[str], *words: str, inventory: Path | str | None = None, **env: str) -> Run:
        """Run `fab -H HOSTS WORDS…` with the passwords of all registries, and an inventory that knows them."""
        env = {**self.registries.environment, **env}
        return self.fab("-H", ",".join(hosts), *words, inventory=inventory or self.inventory(), **env)

    def push(self, hosts: Iterable[str], *words: str, inventory: Path | str | None = None, **env: str) -> Run:
        """Run `fab -H HOSTS push --json WORDS…`."""
        return self.run(hosts, "push", "--json", *words, inventory=inventory, **env)

    def pull(self, hosts: Iterable[str], *words: str, inventory: Path | str | None = None, **env: str) -> Run:
        """Run `fab -H HOSTS pull --json WORDS…`."""
        return self.run(hosts, "pull", "--json", *words, inventory=inventory, **env)

    def name(self, registry: Registry, repository: str = "app", tag: str = "1") -> str:
        """Return a reference in a registry that no other test has."""
        return self.stage.name(repository, tag, registry.name)

    def there(self, registry: Registry, reference: str) -> str | None:
        """Return the digest that a registry has under a reference; None if it has no such tag."""
        return registry.server.digest(in_repository(registry, reference))


def in_repository(registry: Registry, reference: str) -> str:
    """Return the `repository:tag` of a reference."""
    return reference.removeprefix(f"{registry.name}/")


@contextmanager
def key_without_forwarding(node: Node, key: Path) -> Iterator[Path]:
    """Make a private key that logs in as root of a node, and for which sshd forwards nothing; yield its file."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    line = f"no-port-forwarding {key.with_suffix('.pub').read_text()}"
    before = node.exec(["cat", "/etc/ssh/authorized_keys"]).stdout
    node.exec(["sh", "-c", "cat >>/etc/ssh/authorized_keys"], stdin=line.encode())
    try:
        yield key
    finally:
        node.exec(["sh", "-c", "cat >/etc/ssh/authorized_keys"], stdin=before)
