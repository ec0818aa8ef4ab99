"""The scripts of the Makefile tell what comes before it comes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[2] / "lab" / "check-machine.sh"


def check(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    """Run check-machine.sh in a folder that plays the clone."""
    release = Path("/etc/os-release").read_text()
    if (
        os.geteuid()
        or not re.search(r"^ID=debian$", release, re.M)
        or not re.search(r'^VERSION_ID="1[23]"$', release, re.M)
    ):
        pytest.skip("the script refuses this machine or this user")
    return subprocess.run(["sh", CHECK, target], cwd=folder, capture_output=True, text=True, check=False)


def test_a_first_run_says_how_much_it_fetches_and_writes(tmp_path: Path) -> None:
    done = check(tmp_path, "demo")
    venv, fleet = done.stderr.splitlines()
    assert done.returncode == 0
    assert all(line.startswith("make demo makes") and "MB" in line for line in (venv, fleet))


@pytest.mark.parametrize("target", ["demo", "lab-down"])
def test_what_is_there_is_not_announced(tmp_path: Path, target: str) -> None:
    if target == "demo":
        (tmp_path / ".venv").mkdir()
        (tmp_path / ".venv/ready").touch()
        (tmp_path / "lab/.state/cache/trees").mkdir(parents=True)
        (tmp_path / "lab/.state/nodes").mkdir()
    done = check(tmp_path, target)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_still_to_be_written_is_announced(tmp_path: Path) -> None:
    (tmp_path / "lab/.state/cache/trees").mkdir(parents=True)
    venv, fleet = check(tmp_path, "lab-up").stderr.splitlines()
    assert ".venv" in venv
    assert "fetches nothing" in fleet


def test_a_bundle_needs_neither_the_fleet_nor_root(tmp_path: Path) -> None:
    venv, wheels = check(tmp_path, "bundle").stderr.splitlines()
    assert ".venv" in venv
    assert "MB of wheels" in wheels
