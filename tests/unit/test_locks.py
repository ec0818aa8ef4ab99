"""The two locks, the version and pyproject.toml agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import ctr_ferry

ROOT = Path(__file__).parents[2]


def project() -> dict[str, Any]:
    """Return the section `project` of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def locked(name: str) -> dict[str, str]:
    """Return each line of a lock (package, version and marker) with its hashes."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / name).read_text(), flags=re.M).replace("\\\n", "")
    return {head.strip(): hashes for head, _, hashes in (line.partition(" --hash=") for line in text.splitlines())}


def distribution(line: str) -> str:
    """Return the normal form of the package's name at the start of a line."""
    return re.sub(r"[-_.]+", "-", re.split(r"[=~<>\[; ]", line)[0]).lower()


def test_the_version_is_told_once() -> None:
    assert project()["version"] == ctr_ferry.__version__


def test_what_running_needs_is_locked_as_for_developing() -> None:
    running, developing = locked("requirements-run.lock"), locked("requirements.lock")
    assert len(running) > 10
    assert running.items() <= developing.items()


def test_the_lock_for_running_has_what_pyproject_asks_for_and_no_tool_of_a_developer() -> None:
    running = {distribution(line) for line in locked("requirements-run.lock")}
    tools = {distribution(line) for line in project()["optional-dependencies"]["dev"]}
    assert {distribution(line) for line in project()["dependencies"]} <= running
    assert not tools & running
