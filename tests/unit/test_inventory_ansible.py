"""ctr-ferry reads an inventory as `ansible-inventory --list` does: hosts, groups and variables, in YAML and in INI.

Each folder of `tests/data/inventories` has an inventory, and in `ansible.json` what Ansible says of it. To record it:
`ansible-inventory -i FILE --list > ansible.json`.
"""

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
from ctr_ferry.inventory.contents import Opaque, Plain

CASES = sorted((Path(__file__).parents[1] / "data" / "inventories").iterdir())
ANSIBLE = shutil.which("ansible-inventory", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def inventory_of(case: Path) -> Path:
    (file,) = (path for path in case.iterdir() if path.is_file() and path.name != "ansible.json")
    return file


def as_ansible_says(inventory: Path, home: Path, *options: str) -> dict[str, Any]:
    """The inventory as Ansible lists it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    done = subprocess.run(
        [str(ANSIBLE), "-i", str(inventory), "--list", *options],
        cwd=home,
        env={**environment, "HOME": str(home), "ANSIBLE_HOME": str(home), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    detail: dict[str, Any] = json.loads(done.stdout or "{}")
    return detail


def members(detail: dict[str, Any], group: str) -> set[str]:
    """A group's hosts, with those of its children."""
    body = detail.get(group, {})
    return set(body.get("hosts", [])).union(*(members(detail, child) for child in body.get("children", [])))


def as_listed(value: Any) -> Any:
    """A value as Ansible lists it."""
    marks = {Opaque: "__ansible_vault", Plain: "__ansible_unsafe"}
    return {marks[type(value)]: getattr(value, "text", value)} if type(value) in marks else value


def assert_same(ours: Inventory, detail: dict[str, Any]) -> None:
    groups = {name: members(detail, name) for name in detail if name != "_meta"}
    assert set(ours.hosts) == members(detail, "all")
    # Ansible lists no group without hosts and children. Ours has its name, so that -H can report it as empty.
    empty = {name for name in ours.groups if not ours.members(name) and not groups.get(name)}
    assert {n: set(ours.members(n)) for n in ours.groups if n not in empty} == {
        name: hosts for name, hosts in groups.items() if name not in empty
    }
    for host in ours.hosts:
        variables = ours.variables(host).vars
        variables.pop("ansible_group_priority", None)  # it is no variable
        values = {name: as_listed(var.value) for name, var in variables.items()}
        assert values == detail["_meta"]["hostvars"].get(host, {}), host


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_inventory_is_read_as_ansible_reads_it(case: Path) -> None:
    assert_same(Inventory(inventory_of(case)), json.loads((case / "ansible.json").read_text()))


@pytest.mark.skipif(not ANSIBLE, reason="ansible-core is not installed")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_recorded_is_what_ansible_says(case: Path, tmp_path: Path) -> None:
    assert as_ansible_says(inventory_of(case), tmp_path) == json.loads((case / "ansible.json").read_text())


@pytest.mark.skipif(not ANSIBLE, reason="ansible-core is not installed")
def test_a_plain_file_that_ansible_makes_as_a_hint_says_is_read_alike(tmp_path: Path) -> None:
    file = next(inventory_of(case) for case in CASES if case.name == "kubespray-ini")
    as_ansible_says(file, tmp_path, "--yaml", "--output", str(tmp_path / "hosts.yaml"))
    assert_same(Inventory(tmp_path / "hosts.yaml"), as_ansible_says(file, tmp_path))
