"""`fab run` runs any text: the text can neither break the answers nor harm ctr-ferry's own processes on a host."""

from __future__ import annotations

from pathlib import Path

import pytest
from accounts import account
from ferry import Fab, leftovers, write_inventory

from lab.fleet import Fleet, Node


def test_the_output_comes_although_a_process_stays_behind(fab: Fab, node3: Node) -> None:
    pidfile = f"/tmp/{node3.name}-behind"
    run = fab("-H", "node3", "run", "--json", f"sleep 300 & echo $! > {pidfile}; echo started")
    try:
        assert (run.exit, run.outcomes["node3"]["result"]["stdout"]) == (0, "started\n")
    finally:
        node3.exec(["sh", "-c", f'kill "$(cat {pidfile})"; rm {pidfile}'])


@pytest.mark.parametrize(
    ("text", "exit"),
    [("if then", 2), (" ) ; echo broken out; (", 2), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("exit 97", 97)],
)
def test_a_text_that_sh_cannot_parse_is_a_failed_command(fab: Fab, node3: Node, text: str, exit: int) -> None:
    run = fab("-H", "node3", "run", "--json", text)
    assert (run.exit, run.statuses) == (1, {"node3": "command-failed"})
    assert run.outcomes["node3"]["result"]["exit"] == exit
    assert "ferry-" not in run.out and "broken out\n" not in run.out
    assert not leftovers(node3)


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_a_command_that_kills_its_shell_fails_and_the_host_is_not_unreachable(
    fab: Fab, node3: Node, signal: str
) -> None:
    run = fab("-H", "node3", "run", "--json", f"kill -{signal} $PPID")
    assert (run.exit, run.statuses) == (1, {"node3": "command-failed"})
    assert "signal" in run.error["message"] and "ferry-" not in run.out
    assert not leftovers(node3)


def test_a_dry_run_asks_every_host_whether_it_could_and_runs_nothing(fab: Fab, node3: Node, tmp_path: Path) -> None:
    made = f"/tmp/{tmp_path.name}"
    run = fab("-H", "node3,127.0.0.1:1", "run", "--json", "--dry-run", f"touch {made}")
    assert run.statuses == {"node3": "ok", "127.0.0.1:1": "host-unreachable"}
    assert "would run" in run.outcomes["node3"]["result"]["stdout"]
    assert node3.exec(["test", "-e", made], check=False).returncode == 1
    run = fab("-H", "node3", "run", "--json", "--dry-run", "if then")
    assert (run.exit, run.statuses) == (1, {"node3": "command-failed"})


def test_an_account_that_runs_nothing_is_reported_with_its_own_words(fab: Fab, fleet: Fleet, node3: Node) -> None:
    assert fleet.nodes
    detail = "This account is currently not available."
    with account(node3, "{home}/shell", {"shell": f"#!/bin/sh\necho {detail}\nexit 1\n"}) as user:
        run = fab("-H", f"{user}@node3", "run", "--json", "hostname")
    assert (run.exit, run.error["kind"], run.error["said"]) == (1, "garbled-answer", detail)
    assert "account" in run.error["hint"]


def test_endless_output_on_either_stream_is_clipped_and_changes_no_verdict(fab: Fab, node3: Node) -> None:
    assert node3.name
    run = fab("-H", "node3", "run", "--json", "for n in 1 2; do head -c 9000000 /dev/zero | tr '\\0' $n >&$n; done")
    result = run.outcomes["node3"]["result"]
    assert (run.exit, run.statuses) == (0, {"node3": "ok"})
    for stream, text in (("stdout", "1"), ("stderr", "2")):
        assert set(result[stream].partition("\n… ")[0]) == {text} and "bytes are left out here" in result[stream]
        assert len(result[stream]) < 400_000 and result[stream].endswith(text)


def test_a_vaulted_password_may_come_from_the_environment(fab: Fab, fleet: Fleet, node3: Node, tmp_path: Path) -> None:
    variables = {"ansible_become": True, "ansible_become_password": "{{ vault_sudo }}"}
    hosts = {n: {"ansible_host": node3.address, "ansible_user": "ops2", **variables} for n in ("a", "b")}
    file = write_inventory(tmp_path / "hosts.yaml", fleet, hosts)
    run = fab("-H", "all", "run", "--json", "id -u", inventory=file, FABRIC_SUDO_PASSWORD="ops2-secret")
    assert run.exit == 0, run.out
    assert [run.outcomes[name]["result"]["stdout"] for name in "ab"] == ["0\n", "0\n"]
    assert run.err.count("a, b: ansible_become_password is a template or a vault") == 1
