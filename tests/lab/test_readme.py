"""Every `$ fab` line of README.md does on the rehearsal fleet what the page says, from `make lab-up` on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ferry import Fab
from forkserver import CLONE
from free_network import beside
from transcripts import Shown, commands, normalised

from lab.fleet import Fleet
from lab.images import NATIVE
from lab.rehearsal import inventory


@pytest.fixture
def people(fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet beside that of the tests, as `make lab-up` brings it up."""
    made = Fleet(tmp_path / "state", cache=fleet.cache, network=beside(fleet.network))
    env = {**os.environ, "CTR_FERRY_LAB": f"{made.state}:{made.network}"}
    try:
        subprocess.run([sys.executable, "-m", "lab", "up"], cwd=CLONE, env=env, check=True)
        yield made
    finally:
        made.down()


@pytest.fixture
def project(people: Fleet, tmp_path: Path) -> Path:
    """A folder like a clone, with the inventory of that fleet as its hosts.yaml."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("fabfile.py", "fabric.yaml", "tasks", "ctr_ferry", "runbooks"):
        (folder / name).symlink_to(CLONE / name)
    (folder / "hosts.yaml").write_text(inventory(people).read_text())
    return folder


def differs(shown: Shown, done: subprocess.CompletedProcess[str]) -> str:
    """Return what is wrong with a command that ran; empty for nothing."""
    page = normalised("\n".join(shown.output))
    if normalised(done.stdout) == page or (not page and done.returncode == 0):
        return ""
    where = f"README.md:{shown.line}: {shown.command}"
    return f"{where}\nended with {done.returncode}, and printed\n{done.stdout}{done.stderr}"


def test_each_command_of_the_page_prints_what_the_page_shows(fab: Fab, project: Path) -> None:
    env = fab.environment(
        CTR_FERRY_INVENTORY=str(project / "hosts.yaml"),
        FABRIC_FLEET_RUNS=str(project / "runs"),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    wrong = []
    for shown in commands((CLONE / "README.md").read_text().replace("linux/amd64", NATIVE), "fab"):
        argv, none = ["sh", "-c", shown.command], subprocess.DEVNULL
        # On stderr is the progress of each host, which a terminal does not keep.
        done = subprocess.run(argv, cwd=project, env=env, stdin=none, capture_output=True, text=True, check=False)
        wrong.append(differs(shown, done))
    assert len(wrong) > 10, "the page has lost its commands"
    assert not any(wrong), "\n".join(filter(None, wrong))
