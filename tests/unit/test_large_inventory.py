"""The work of reading an inventory and choosing hosts grows with the inventory, and no faster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from ctr_ferry.inventory.selector import HostSelector
from ctr_ferry.ssh.target import Limits, Trust


def many_groups(folder: Path, size: int) -> None:
    """Hosts in groups of ten, each group with a file of its own, and a note that is about every host."""
    everyone = "all: {vars: {ansible_ssh_common_args: -o StrictHostKeyChecking=no}}"
    groups = [f"rack{n}: {{hosts: {{'node[{n}0:{n}9]': {{own: {n}}}}}, vars: {{rack: {n}}}}}" for n in range(1, size)]
    (folder / "hosts.yaml").write_text("\n".join([everyone, *groups]))
    for n in range(1, size):
        (folder / "group_vars" / f"rack{n}").mkdir(parents=True)
        (folder / "group_vars" / f"rack{n}" / "vars.yml").write_text("v: 1")


def nested_groups(folder: Path, size: int) -> None:
    """Two groups on each level, both of which contain both groups of the next level."""
    groups = [f"{side}{n}: {{children: {{a{n + 1}: , b{n + 1}: }}}}" for n in range(size) for side in "ab"]
    last = [f"{side}{size}: {{hosts: {{node{side}: }}}}" for side in "ab"]
    (folder / "hosts.yaml").write_text("\n".join([*groups, *last]))


def calls(folder: Path, pattern: str) -> int:
    """How many functions are called to choose hosts of a folder's inventory and to describe them."""
    selector = HostSelector(folder / "hosts.yaml", Trust(), Limits(), lambda _: False)
    count = 0

    def profile(_frame: FrameType, event: str, _arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        for target in selector.select([pattern]):
            selector.groups_of(target.name)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    ("shape", "size", "pattern"),
    [
        (many_groups, 20, "all"),
        (many_groups, 20, "*"),
        (many_groups, 20, "node15"),
        (nested_groups, 6, "all"),
        (nested_groups, 6, "nodea"),
    ],
)
def test_twice_the_inventory_is_at_most_twice_the_work(
    shape: Callable[[Path, int], None], size: int, pattern: str, tmp_path: Path
) -> None:
    counts = []
    for number, times in enumerate((1, 1, 2)):  # the first fills the caches of modules
        folder = tmp_path / str(number)
        folder.mkdir()
        shape(folder, size * times)
        counts.append(calls(folder, pattern))
    assert counts[2] <= 2.2 * counts[1], counts
