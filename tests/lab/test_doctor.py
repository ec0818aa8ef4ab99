"""`fab doctor` finds what is wrong on a host, names it, and says what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from accounts import counting
from doctoring import (
    Hosts,
    doctor,
    health,
    hosts_fixture,  # noqa: F401
    seen,
)
from ferry import Fab, Stage, has_cri, write_inventory

from lab.fleet import Fleet, Node
from lab.images import build


class TestAHealthyHost:
    def test_of_any_kind_has_nothing_to_mend(self, fab: Fab, stage: Stage, tmp_path: Path) -> None:
        stage.seed(build(tmp_path, layers=(1000,)), stage.name())  # or other namespaces alone might have images
        run = doctor(fab, ",".join(stage.nodes))
        assert (run.exit, set(run.statuses.values())) == (0, {"ok"})
        for node in stage.nodes.values():
            found = seen(run, node.name)
            assert health(run, node.name).keys() <= {"content store", "leftovers"}  # the machine's disk, other tests
            assert node.version.lstrip("v") in found["version"]["message"]
            assert node.socket in found["socket"]["message"]
            assert node.root in found["content store"]["message"]
            assert (found["CRI"]["message"] == "on") == has_cri(node)
            assert " ".join(node.model.ctr).split(" --")[0].rpartition("/")[2] in found["ctr"]["message"]

    def test_shows_what_is_well_only_when_asked(self, fab: Fab) -> None:
        for hosts in ("node3", "node2,node3"):
            assert "platform" not in fab("-H", hosts, "doctor").out
            assert "platform" in fab("-H", hosts, "doctor", "--all").out

    def test_whose_listing_has_a_line_break_gets_a_finding(
        self, fab: Fab, stage: Stage, node3: Node, tmp_path: Path
    ) -> None:
        namespace, name = stage.namespace(), stage.name()
        stage.seed(build(tmp_path, layers=(1000,)), name, namespace=namespace, nodes=[node3])
        node3.ctr("images", "label", name, "note=two\nlines", namespace=namespace)
        try:
            run = doctor(fab, "node3")
            found = seen(run, "node3")["listings"]
            assert (run.exit, found["status"]) == (1, "fail")
            assert f"in {namespace} '{name}" in found["message"] and "note=two' is no row" in found["message"]
            assert namespace in found["hint"]
            run = fab("-H", "node3", "images", "--json", "-n", namespace)
            assert (run.exit, run.error["kind"]) == (1, "garbled-answer")
            assert namespace in run.error["message"] and name in run.error["said"]
            run = fab("-H", "node3", "find", "--json", "--match", name)
            assert (run.exit, run.document["commands"][0]["error"]["kind"]) == (1, "nothing-found")
            assert namespace in run.document["commands"][0]["error"]["said"]
        finally:
            node3.ctr("images", "rm", name, namespace=namespace)

    def test_whose_ctr_is_no_ctr_gets_a_finding(self, fab: Fab, hosts: Hosts) -> None:
        inventory = hosts(ctr_command="true")
        found = seen(doctor(fab, "n", inventory=inventory), "n")["ctr"]
        assert (found["status"], found["message"]) == ("fail", "'true' is no ctr")
        run = fab("-H", "n", "images", "--json", inventory=inventory)
        assert run.statuses == {"n": "ctr-not-found"}

    def test_costs_one_remote_command(self, fab: Fab, fleet: Fleet, node3: Node, tmp_path: Path) -> None:
        with counting([node3]) as counts:
            ((login, commands),) = counts.items()
            found = {"n": {"ansible_host": node3.address, "ansible_user": login.partition("@")[0]}}
            assert doctor(fab, "n", inventory=write_inventory(tmp_path / "hosts.yaml", fleet, found)).exit == 0
            assert commands() == 1

    def test_counts_images_as_people_do(
        self, fab: Fab, stage: Stage, tmp_path_factory: pytest.TempPathFactory, node3: Node
    ) -> None:
        image, namespace = build(tmp_path_factory.mktemp("images")), stage.namespace()
        stage.seed(image, stage.name("a"), stage.name("b"), namespace=namespace, nodes=[node3])
        assert f"{namespace} (2 images)" in seen(doctor(fab, "node3"), "node3")["namespaces"]["message"]

    def test_uses_sudo_where_it_must(self, fab: Fab) -> None:
        run = doctor(fab, "node3-ops,ops@node3")
        assert run.exit == 0
        assert all(seen(run, host)["sudo"]["message"] == "used by ops" for host in ("node3-ops", "ops@node3"))
        run = doctor(fab, "node3-ops2", FABRIC_SUDO_PASSWORD="ops2-secret")
        assert (run.exit, seen(run, "node3-ops2")["sudo"]["message"]) == (0, "used by ops2, with a password")


@pytest.fixture
def change_sudo(node3: Node) -> Iterator[Callable[[str], object]]:
    """Runs sh text on node3. Its sudo and its sudoers file are put back after the test."""
    node3.exec(["cp", "-p", "/etc/sudoers", "/etc/sudoers.before"])
    yield lambda text: node3.exec(["sh", "-c", text])
    back = "mv /etc/sudoers.before /etc/sudoers; ! [ -e /usr/bin/sudo.away ] || mv /usr/bin/sudo.away /usr/bin/sudo"
    node3.exec(["sh", "-c", back])


def test_a_sudo_that_logs_its_input_leaves_the_script_alone(fab: Fab, change_sudo: Callable[[str], object]) -> None:
    change_sudo("echo 'Defaults log_input' >>/etc/sudoers")
    run = fab("-H", "node3-ops", "images", "--json")
    assert run.statuses == {"node3-ops": "ok"}
    run = fab("-H", "node3-ops,node3-ops2", "images", "--json", FABRIC_SUDO_PASSWORD="ops2-secret")
    assert run.statuses == {"node3-ops": "ok", "node3-ops2": "ok"}


class TestWhatIsBroken:
    def test_no_ctr_is_a_finding_among_others(self, fab: Fab, hosts: Hosts) -> None:
        run = doctor(fab, "n", inventory=hosts(ctr_command="/nowhere/ctr"))
        assert (run.exit, run.statuses) == (1, {"n": "unhealthy"})
        found = seen(run, "n")
        assert found["ctr"]["status"] == "fail"
        assert "ctr_command" in found["ctr"]["hint"]
        assert {found[what]["status"] for what in ("reachable", "clock", "content store")} <= {"ok", "warn"}

    def test_a_missing_socket_is_a_finding(self, fab: Fab, hosts: Hosts) -> None:
        run = doctor(fab, "n", inventory=hosts(ctr_address="/run/nowhere.sock"))
        assert (run.exit, health(run, "n")["socket"]) == (1, "fail")

    def test_a_stopped_containerd_is_a_finding(self, fab: Fab, node2: Node) -> None:
        node2.stop_containerd()
        try:
            run = doctor(fab, "node2")
        finally:
            node2.start_containerd()
        assert (run.exit, health(run, "node2")["socket"]) == (1, "fail")
        assert "start containerd" in seen(run, "node2")["socket"]["hint"]

    def test_a_sudo_that_lets_nobody_through_is_a_finding(self, fab: Fab) -> None:
        run = doctor(fab, "node3-ops2,node3")
        assert (run.exit, run.statuses) == (1, {"node3-ops2": "unhealthy", "node3": "ok"})
        assert health(run, "node3-ops2") == {"sudo": "fail"}

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ("echo 'Defaults requiretty' >>/etc/sudoers", ("must have a tty", "!requiretty")),
            ("mv /usr/bin/sudo /usr/bin/sudo.away", ("not found", "ansible_user: root")),
        ],
        ids=["wants a terminal", "is not there"],
    )
    def test_a_sudo_that_cannot_help_is_shown_with_its_own_words(
        self, fab: Fab, change_sudo: Callable[[str], object], change: str, words: tuple[str, str]
    ) -> None:
        change_sudo(change)
        for password in ({}, {"FABRIC_SUDO_PASSWORD": "ops2-secret"}):
            run = fab("-H", "node3-ops,node3-ops2", "images", "--json", **password)
            assert run.statuses == dict.fromkeys(("node3-ops", "node3-ops2"), "permission-denied")
            for error in (outcome["error"] for outcome in run.outcomes.values()):
                assert words[0] in error["said"] and words[1] in error["hint"]

    def test_a_host_that_is_not_there_is_unreachable(self, fab: Fab, hosts: Hosts) -> None:
        run = doctor(fab, "n", inventory=hosts(ansible_port=1))
        assert (run.exit, run.statuses) == (4, {"n": "host-unreachable"})

    def test_a_clock_that_is_off_is_a_finding(self, fab: Fab, node3: Node) -> None:
        real = node3.exec(["sh", "-c", "command -v date"]).stdout.decode().strip()
        fake = f'#!/bin/sh\n[ "$*" = +%s ] && exec {real} -d "2 minutes ago" +%s\nexec {real} "$@"\n'
        node3.exec(["sh", "-c", "cat >/usr/local/sbin/date; chmod 755 /usr/local/sbin/date"], stdin=fake.encode())
        try:
            run = doctor(fab, "node3")
        finally:
            node3.exec(["rm", "/usr/local/sbin/date"])
        assert (run.exit, health(run, "node3")["clock"]) == (0, "warn")
        assert "behind" in seen(run, "node3")["clock"]["message"]

    @pytest.mark.parametrize(("free", "health_"), [(20, "ok"), (10, "warn"), (3, "fail")])
    def test_a_full_disk_is_a_finding(self, fab: Fab, node3: Node, free: int, health_: str) -> None:
        row = f"/dev/a b 100000 {100 - free}000 {free}000 {100 - free}% /var"
        fake = f"#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted on'\necho '{row}'\n"
        node3.exec(["sh", "-c", "cat >/usr/local/sbin/df; chmod 755 /usr/local/sbin/df"], stdin=fake.encode())
        try:
            run = doctor(fab, "node3")
        finally:
            node3.exec(["rm", "/usr/local/sbin/df"])
        assert run.exit == int(health_ == "fail")
        assert health(run, "node3").get("content store", "ok") == health_
