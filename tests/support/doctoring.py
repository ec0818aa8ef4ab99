"""What tests of `fab doctor` on the fleet share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ferry import Fab, Run, write_inventory

from lab.fleet import Fleet, Node

RUN = "ctr-ferry.20260101T000000Z-retag-dead"


def doctor(fab: Fab, hosts: str, *words: str, inventory: Path | None = None, **env: str) -> Run:
    """Run `fab -H HOSTS doctor --json WORDS…`."""
    return fab("-H", hosts, "doctor", "--json", *words, inventory=inventory, **env)


def seen(run: Run, host: str) -> dict[str, dict[str, str]]:
    """Return a host's findings by what was looked at."""
    return {finding["check"]: finding for finding in run.outcomes[host]["result"]["findings"]}


def health(run: Run, host: str) -> dict[str, str]:
    """Return what is not ok."""
    return {what: f["status"] for what, f in seen(run, host).items() if f["status"] != "ok"}


Hosts = Callable[..., Path]


@pytest.fixture(name="hosts")
def hosts_fixture(fleet: Fleet, node3: Node, tmp_path: Path) -> Hosts:
    """Writes an inventory with node3 as `n`, and variables of the test's own."""

    def write(**variables: Any) -> Path:
        made = {"n": {"ansible_host": node3.address, **variables}}
        return write_inventory(tmp_path / "hosts.yaml", fleet, made)

    return write
