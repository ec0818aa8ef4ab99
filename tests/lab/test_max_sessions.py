"""Where sshd allows few sessions at once on a connection (MaxSessions), all goes on with fewer, or the error tells."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fabric import Config
from ferry import Fab, Stage, leftovers, write_inventory
from second_sshd import second_sshd

from ctr_ferry.errors import SessionRefused
from ctr_ferry.inventory.selector import HostSelector
from ctr_ferry.shell import Script
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.target import Limits, Trust
from lab.fleet import Fleet, Node
from lab.images import build

SESSIONS = {"one": 1, "two": 2}


@pytest.fixture
def inventory(fleet: Fleet, stage: Stage, node2: Node, node3: Node, tmp_path: Path) -> Iterator[Path]:
    """node3 once for each number of sessions, with a namespace for each; and node2."""
    options = f"-o UserKnownHostsFile={tmp_path}/known_hosts -o StrictHostKeyChecking=accept-new"
    hosts = {
        name: {
            "ansible_host": node3.address,
            "ansible_port": 2230 + most,
            "ansible_ssh_common_args": options,
            "ctr_namespace": stage.namespace(name),
        }
        for name, most in SESSIONS.items()
    }
    with ExitStack() as stack:
        for most in SESSIONS.values():
            stack.enter_context(second_sshd(node3, 2230 + most, MaxSessions=most))
        yield write_inventory(tmp_path / "hosts.yaml", fleet, {**hosts, "node2": {"ansible_host": node2.address}})


def test_images_come_and_go_with_the_sessions_that_there_are(
    fab: Fab, stage: Stage, inventory: Path, tmp_path: Path
) -> None:
    image = build(tmp_path, layers=(100_000,) * 6, seed=secrets.randbits(32))
    node2, node3, name, file = stage.nodes["node2"], stage.nodes["node3"], stage.name(), tmp_path / "image.tar"
    with file.open("wb") as opened:
        image.write_archive(opened, [name])
    load = fab("-H", "two", "load", "--json", "--archive", str(file), inventory=inventory)
    assert load.statuses == {"two": "changed"} and load.image("two")["blobs"] > 6, load.out
    refused = fab("-t", "1", "-H", "one", "load", "--json", "--archive", str(file), inventory=inventory)
    assert refused.statuses == {"one": "session-refused"}, refused.out
    namespaces = [stage.namespace(host) for host in SESSIONS]
    assert leftovers(node3, namespaces) == []

    stage.seed(image, name, nodes=[node3], namespace=namespaces[0])
    copy = fab("-H", "node2", "copy", "--json", "--from", "one", "--ref", name, inventory=inventory)
    assert copy.statuses == {"node2": "changed"} and copy.image("node2")["blobs"] > 6, copy.out
    assert stage.check(node2, name) == "complete"


def test_a_session_that_is_needed_and_refused_is_told_as_such(inventory: Path) -> None:
    (target,) = HostSelector(inventory, Trust(), Limits(connect=1), lambda _: False).select(["one"])
    host = Host(target, Config(), run_id="test")
    host.open()
    with host.terminal(60), pytest.raises(SessionRefused, match="one allows 1 session at once") as refused:
        host.ask(Script({"well": "echo well"}))
    assert "MaxSessions 2 or more" in refused.value.hint
    assert host.ask(Script({"well": "echo well"}))["well"].text == "well\n"
    host.close_quietly()
