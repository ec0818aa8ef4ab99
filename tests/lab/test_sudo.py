"""The sudoers rules of docs/sudo.md are enough for ctr-ferry, and so is the group of containerd's socket."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doctoring import doctor, seen
from ferry import Fab, Stage
from forkserver import CLONE

from lab.fleet import Node
from lab.images import build

PAGE = (CLONE / "docs/sudo.md").read_text()
RULES = re.findall(r"^ *(ops ALL=.*)$", PAGE, re.MULTILINE)
OPTIONS = ["use_pty", "log_input", "requiretty"]
PASSWORD = {"FABRIC_SUDO_PASSWORD": "ops2-secret"}


@pytest.fixture
def named(stage: Stage, node3: Node, tmp_path: Path) -> Stage:
    """A stage whose name is that of an image on node3."""
    stage.seed(build(tmp_path / "images"), stage.name(), nodes=[node3])
    return stage


@pytest.fixture
def sudoers(node3: Node) -> Iterator[Callable[..., None]]:
    """Replace the rules of ops and ops2 on node3; its sudoers file is put back after the test."""
    before = node3.exec(["cat", "/etc/sudoers"]).stdout

    def write(*lines: str) -> None:
        kept = [line for line in before.decode().splitlines() if not line.startswith("ops")]
        put("\n".join([*kept, *lines, ""]).encode())
        node3.exec(["visudo", "-cf", "/etc/sudoers"])

    def put(text: bytes) -> None:
        node3.exec(["sh", "-c", "cat >/etc/sudoers"], stdin=text)

    yield write
    put(before)


def test_the_page_has_three_rules_and_names_the_options() -> None:
    assert len(RULES) == 3
    assert [option for option in OPTIONS if f"| `{option}` |" not in PAGE] == []


def retag_and_save(fab: Fab, host: str, stage: Stage, folder: Path, **env: str) -> list[dict[str, str]]:
    """A command that changes names and one that reads bytes; return their statuses."""
    words = ("--src", stage.name(), "--dst", stage.name(registry="new.example"))
    retagged = fab.retag(host, *words, **env)
    saved = fab("-H", host, "save", "--json", "--ref", stage.name(), "--out", str(folder / "app.tar"), **env)
    return [retagged.statuses, saved.statuses]


def test_the_rule_without_a_password_is_enough(
    fab: Fab, named: Stage, sudoers: Callable[..., None], tmp_path: Path
) -> None:
    sudoers(*(f"Defaults {option}" for option in OPTIONS), "Defaults:ops !requiretty", RULES[0])
    assert retag_and_save(fab, "node3-ops", named, tmp_path) == [{"node3-ops": "changed"}] * 2
    assert seen(doctor(fab, "node3-ops"), "node3-ops")["sudo"]["message"] == "used by ops"


def test_the_rule_with_a_password_is_enough(
    fab: Fab, named: Stage, sudoers: Callable[..., None], tmp_path: Path
) -> None:
    sudoers(RULES[1].replace("ops", "ops2"))
    assert retag_and_save(fab, "node3-ops2", named, tmp_path, **PASSWORD) == [{"node3-ops2": "changed"}] * 2


def test_without_ansible_become_the_rule_needs_true_as_well(
    fab: Fab, named: Stage, sudoers: Callable[..., None], tmp_path: Path
) -> None:
    sudoers(RULES[0])
    run = fab("-H", "ops@node3", "images", "--json")
    assert run.statuses == {"ops@node3": "permission-denied"}
    assert "a password is required" in run.error["said"]
    sudoers(RULES[2])
    assert retag_and_save(fab, "ops@node3", named, tmp_path) == [{"ops@node3": "changed"}] * 2


def test_a_user_of_the_sockets_group_needs_no_sudo(
    fab: Fab, named: Stage, node3: Node, sudoers: Callable[..., None], tmp_path: Path
) -> None:
    sudoers()
    socket = "/run/containerd/containerd.sock"
    node3.exec(["chgrp", "ops", socket])  # as containerd does with [grpc] gid
    try:
        assert retag_and_save(fab, "ops@node3", named, tmp_path) == [{"ops@node3": "changed"}] * 2
        assert seen(doctor(fab, "ops@node3"), "ops@node3")["sudo"]["message"] == "not used"
    finally:
        node3.exec(["chgrp", "root", socket])
