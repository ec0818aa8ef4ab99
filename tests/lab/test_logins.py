"""A login that a real sshd refuses for good costs one connection, and the error tells what was tried."""

from __future__ import annotations

import json
from pathlib import Path

import paramiko
from agent import Agent, answering
from ferry import Fab
from second_sshd import second_sshd

from lab.fleet import Node

PORT = 2241


def test_too_many_keys_of_the_agent_cost_one_connection(fab: Fab, node3: Node, tmp_path: Path) -> None:
    keys = [paramiko.ECDSAKey.generate() for _ in range(7)]
    options = f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile='{tmp_path}/known'"
    host = {"ansible_host": node3.address, "ansible_port": PORT, "ansible_user": "root"}
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text(json.dumps({"all": {"hosts": {"there": {**host, "ansible_ssh_common_args": options}}}}))
    with (
        second_sshd(node3, PORT, LogLevel="VERBOSE") as log,
        answering(Agent(tmp_path / "agent", keys)) as agent,
    ):
        words = ("-H", "there", "run", "--json", "hostname")
        run = fab(*words, inventory=inventory, HOME=str(tmp_path), SSH_AUTH_SOCK=str(agent.path))
        said = log()
    assert run.statuses == {"there": "login-refused"}
    assert "too many authentication failures: 6 keys of the agent were tried" in run.error["message"]
    assert (said.count("Connection from"), said.count("Failed publickey")) == (1, 6)
