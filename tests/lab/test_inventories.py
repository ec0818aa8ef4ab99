"""An inventory as the field has it reaches the hosts: INI, ansible.cfg, references, a localhost in it."""

from __future__ import annotations

from pathlib import Path

from ferry import Fab

from lab.fleet import Fleet, Node
from lab.layout import PORT


def test_an_ini_inventory_reaches_its_hosts(fab: Fab, fleet: Fleet, node3: Node, node4: Node, tmp_path: Path) -> None:
    ssh = fleet.state / "ssh"
    inventory = tmp_path / "inventory.ini"
    inventory.write_text(f"""
localhost ansible_connection=local
[plain]
there:{PORT} address={node3.address} ansible_host="{{{{ address }}}}"
[k3s]
other ansible_host={node4.address} ansible_port={PORT}
[all:vars]
known={ssh}/known_hosts
ansible_ssh_common_args=-o UserKnownHostsFile={{{{ known }}}}
ctr_registries={{"r.example": {{}}}}
""")
    (tmp_path / "ansible.cfg").write_text(f"[defaults]\nremote_user = root\nprivate_key_file = {ssh}/id_ed25519\n")
    run = fab("-H", "all", "run", "--json", "hostname", inventory=inventory)
    assert (run.exit, run.statuses) == (0, {"there": "ok", "other": "ok"}), run.err
    assert "localhost: ansible_connection is local" in run.err
    listed = fab("hosts", "--json", inventory=inventory)
    assert listed.exit == 0
    assert [host.get("registries") for host in listed.document["commands"][0]["result"]["hosts"]] == [
        None,
        ["r.example"],
        ["r.example"],
    ]


def test_hosts_ends_with_2_for_a_wrong_inventory(fab: Fab, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text("all: {hosts: {good: , 'bad[1:2]': {ansible_host: root@10.0.0.1}}}")
    run = fab("hosts", inventory=inventory)
    assert run.exit == 2 and run.err.count("hosts.yaml:1: ansible_host") == 1
    assert [line.split()[0] for line in run.out.splitlines()] == ["HOST", "good", "bad1", "bad2"]
    run = fab("hosts", "--json", inventory=inventory)
    assert (run.exit, run.document["exit"], run.document["commands"][0]["error"]["kind"]) == (2, 2, "bad-inventory")
