"""An inventory, and what a host selector finds in it, for tests of `-H`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctr_ferry import ranges
from ctr_ferry.inventory.selector import HostSelector
from ctr_ferry.ssh.target import Limits, Trust

HOSTS = """
all:
  vars: {ansible_user: ops, ansible_port: 2222}
  hosts: {free: }
  children:
    web: {hosts: {web1: {ansible_host: 10.0.0.1}, web2: , web-old: }}
    db: {hosts: {db1: , web1: }}
    empty: {hosts: {}}
    noted: {hosts: {odd: {ansible_ssh_common_args: -C}}}
"""


@pytest.fixture(name="file")
def file_fixture(tmp_path: Path) -> Path:
    """The inventory `HOSTS`, alone in a folder."""
    file = tmp_path / "hosts.yaml"
    file.write_text(HOSTS)
    return file


def selector(file: Path, past: Any = None) -> HostSelector:
    """Return a selector of an inventory's hosts; ssh_config knows `bastion`."""
    return HostSelector(file, Trust(), Limits(connect=3), {"bastion"}.__contains__, past)


def names(file: Path, patterns: str) -> list[str]:
    """Return the names of the hosts that patterns with commas between them mean."""
    return [found.name for found in selector(file).select(ranges.split(patterns))]
