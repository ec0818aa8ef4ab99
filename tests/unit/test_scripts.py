"""Every text that is sent to a host is correct POSIX sh, for each version of ctr, whatever names are in it; so is every
sh file of the project."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from all_scripts import KINDS, command_lines, texts
from tools import environment_with

EXCLUDED = {
    "SC2041": "a host may have its only ctr named in the inventory: a loop over one quoted word",
    "SC2043": "the same, where the loop's word is plain",
    "SC2320": "a section ends with the exit status of its step, even if the step's last command is echo",
}


CLONE = Path(__file__).resolve().parents[2]
NOT_OURS = (".git", ".venv", ".state", ".mypy", ".ruff", ".pytest", "runs", "dist", "site")  # made or fetched


def sh_files() -> list[str]:
    """Return the paths of the files that sh reads: by their name, or by their first line."""
    found = []
    for top, folders, names in os.walk(CLONE):
        folders[:] = [name for name in folders if not name.startswith(NOT_OURS)]
        for file in (Path(top) / name for name in names):
            if file.suffix == ".sh" or (not file.suffix and file.read_bytes().startswith(b"#!/bin/sh\n")):
                found.append(str(file.relative_to(CLONE)))
    return sorted(found)


@pytest.fixture(scope="module", name="shellcheck")
def shellcheck_fixture() -> Mapping[str, str]:
    """An environment that has shellcheck."""
    return environment_with(["shellcheck"])


def checked(shellcheck: Mapping[str, str], files: Mapping[str, str], folder: Path) -> str:
    """What dash and shellcheck say about the files; empty if all are correct."""
    for name, text in files.items():
        (folder / name).write_text(text)
    said = [
        done.stderr
        for name in files
        if (done := subprocess.run(["sh", "-n", name], cwd=folder, capture_output=True, text=True, check=False)).stderr
    ]
    options = ["--shell=sh", "--norc", "--severity=warning", "--format=gcc", f"--exclude={','.join(EXCLUDED)}"]
    argv = ["env", "shellcheck", *options, *files]  # env looks for it in the PATH of that environment
    done = subprocess.run(argv, cwd=folder, env=shellcheck, capture_output=True, text=True, check=False)
    return "".join([*said, done.stdout, done.stderr])


@pytest.mark.parametrize("kind", KINDS)
def test_each_script_in_its_guard_is_correct(kind: str, shellcheck: Mapping[str, str], tmp_path: Path) -> None:
    assert checked(shellcheck, texts(kind, tmp_path), tmp_path) == ""


def test_each_command_line_is_correct(shellcheck: Mapping[str, str], tmp_path: Path) -> None:
    files = {f"line-{number}": line for number, line in enumerate(command_lines())}
    assert len(files) == 5 and checked(shellcheck, files, tmp_path) == ""


def test_a_wrong_script_is_found(shellcheck: Mapping[str, str], tmp_path: Path) -> None:
    assert "SC2154" in checked(shellcheck, {"unassigned": "echo $nobody_sets_it\n"}, tmp_path)
    assert "Syntax error" in checked(shellcheck, {"open": "if true; then\n"}, tmp_path)


def test_each_sh_file_of_the_project_is_correct(shellcheck: Mapping[str, str]) -> None:
    files = sh_files()
    assert {"bundle/install.sh", "ctr-ferry", "lab/make-venv.sh", "runbooks/common.sh"} <= set(files)
    argv = ["env", "shellcheck", "--shell=sh", *files]
    done = subprocess.run(argv, cwd=CLONE, env=shellcheck, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for file in files:
        done = subprocess.run(["sh", "-n", file], cwd=CLONE, capture_output=True, text=True, check=False)
        assert (file, done.returncode, done.stderr) == (file, 0, "")
