"""`python -m lab` shows the rehearsal fleet, runs commands on its nodes, and says in one sentence what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from forkserver import CLONE

from lab import __main__ as command_line
from lab import debian
from lab.fleet import CACHE, Fleet, LabError


class TestCommandLine:
    def test_without_root_it_says_so_in_one_sentence(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert command_line.main(["up"]) == 2
        assert capsys.readouterr().err == "lab: the rehearsal fleet needs root: run it as root or with sudo\n"

    def test_on_another_system_it_says_so_in_one_sentence(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def elsewhere() -> str:
            raise debian.Unavailable("the rehearsal fleet needs Debian 12 or later")

        monkeypatch.setattr(debian, "codename", elsewhere)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert command_line.main(["up"]) == 2
        assert capsys.readouterr().err == "lab: the rehearsal fleet needs Debian 12 or later\n"

    def test_status_shows_a_line_per_node(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(command_line.Fleet, "chosen", lambda: fleet)  # the default one may be another worker's
        assert command_line.main(["status"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == list(fleet.nodes)
        assert all(line.endswith("containerd sshd") for line in lines)

    def test_exec_runs_on_the_node_and_keeps_the_exit_status(self, fleet: Fleet) -> None:
        program = (  # `python -m lab`, whose default fleet is this worker's
            "import runpy, sys; from pathlib import Path; from lab.fleet import Fleet;"
            "Fleet.__init__.__defaults__ = (Path(sys.argv.pop(1)),); runpy.run_module('lab', run_name='__main__')"
        )
        argv = [sys.executable, "-c", program, str(fleet.state), "exec", "node3", "--", "sh", "-c", "hostname; exit 7"]
        done = subprocess.run(argv, cwd=CLONE, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (7, "node3\n")

    def test_an_unknown_node_is_named(self, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
        assert command_line.main(["exec", "node99", "--", "true"]) == 2
        assert "there is no node99" in capsys.readouterr().err
        assert fleet.nodes

    def test_a_failing_command_names_node_and_reason(self, fleet: Fleet) -> None:
        node = next(iter(fleet.nodes.values()))
        with pytest.raises(LabError, match=f"{node.name}: ls /nowhere: exit 2: .*No such file"):
            node.exec(["ls", "/nowhere"])


def test_the_cache_is_below_the_lab() -> None:
    assert CACHE == CLONE / "lab/.state/cache"
