"""A host is reached through a ProxyCommand or a gateway, and an error there names the gateway."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ferry import Fab, write_inventory

from lab.fleet import Fleet, Node

PROXY = """\
import os, socket, sys, threading
address, port, user, percent, log = sys.argv[1:]
open(log, "w").write(f"{address} {port} {user} {percent}")
there = socket.create_connection((address, int(port)))
def back():
    while data := there.recv(65536):
        os.write(1, data)
threading.Thread(target=back, daemon=True).start()
while data := os.read(0, 65536):
    there.sendall(data)
"""


def test_a_proxy_command_gets_address_and_port_of_the_host(fab: Fab, fleet: Fleet, node3: Node, tmp_path: Path) -> None:
    program, log = tmp_path / "proxy.py", tmp_path / "log"
    program.write_text(PROXY)
    file = write_inventory(tmp_path / "hosts.yaml", fleet, {"behind": {"ansible_host": node3.address}})
    command = f"-o 'ProxyCommand={sys.executable} {program} %h %p %r 100%% {log}'"
    file.write_text(file.read_text().replace("-o UserKnownHostsFile", f"{command} -o UserKnownHostsFile"))
    run = fab("-H", "behind", "run", "--json", "hostname", inventory=file)
    assert run.exit == 0, run.out
    assert run.outcomes["behind"]["result"]["stdout"] == "node3\n"
    assert log.read_text() == f"{node3.address} {node3.port} root 100%"


@pytest.fixture
def troubled(fleet: Fleet, node2: Node, node3: Node, tmp_path: Path) -> Path:
    """An inventory with a host behind a gateway that is down, and one that is down behind a gateway."""
    known = f"-o UserKnownHostsFile='{fleet.state}/ssh/known_hosts'"
    hosts: dict[str, dict[str, Any]] = {
        "lost": {"ansible_host": node3.address, "ansible_ssh_common_args": f"{known} -J root@127.0.0.1:1"},
        "down": {
            "ansible_host": node3.address,
            "ansible_port": 1,
            "ansible_ssh_common_args": f"{known} -J root@{node2.address}:{node2.port}",
        },
    }
    return write_inventory(tmp_path / "hosts.yaml", fleet, hosts)


def test_an_error_of_a_gateway_names_the_gateway(fab: Fab, troubled: Path) -> None:
    run = fab("-H", "all", "run", "--json", "hostname", inventory=troubled)
    assert (run.exit, set(run.statuses.values())) == (4, {"host-unreachable"})
    messages = {host: outcome["error"]["message"] for host, outcome in run.outcomes.items()}
    assert messages["lost"].startswith("gateway of lost: no connection to root@127.0.0.1:1")
    assert messages["down"].startswith("gateway root@127.") and "of down has no way to" in messages["down"]
