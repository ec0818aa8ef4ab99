"""ctr-ferry and `ansible-inventory --list` agree on hosts, groups and variables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctr_ferry.inventory.ansible import Inventory

CASES = Path(__file__).parents[1] / "data" / "inventories"
ANSIBLE = shutil.which("ansible-inventory", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

pytestmark = pytest.mark.skipif(not ANSIBLE, reason="ansible-core is not installed")


def as_ansible_says(inventory: Path, home: Path) -> dict[str, Any]:
    """The inventory as Ansible lists it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    done = subprocess.run(
        [str(ANSIBLE), "-i", str(inventory), "--list"],
        cwd=home,
        env={**environment, "HOME": str(home), "ANSIBLE_HOME": str(home), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    detail: dict[str, Any] = json.loads(done.stdout)
    return detail


def members(detail: dict[str, Any], group: str) -> set[str]:
    """A group's hosts, with those of its children."""
    body = detail.get(group, {})
    return set(body.get("hosts", [])).union(*(members(detail, child) for child in body.get("children", [])))


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_ctr_ferry_and_ansible_read_the_same(case: str, tmp_path: Path) -> None:
    file = CASES / case / "hosts.yaml"
    detail, ours = as_ansible_says(file, tmp_path), Inventory(file)
    groups = {name: members(detail, name) for name in detail if name not in ("_meta", "all", "ungrouped")}
    assert set(ours.hosts) == members(detail, "all")
    # Ansible lists no group without hosts and children. Ours has its name, so that -H can report it as empty.
    empty = {name for name in ours.groups if not ours.members(name) and name not in groups}
    assert {n: set(ours.members(n)) for n in ours.groups if n not in ("all", "ungrouped", *empty)} == groups
    for host in ours.hosts:
        variables = ours.variables(host).vars
        values = {name: var.value for name, var in variables.items() if name != "ansible_group_priority"}  # no variable
        assert values == detail["_meta"]["hostvars"].get(host, {}), host
