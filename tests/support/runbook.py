"""Helpers of the tests of runbooks: a runbook as an operator starts it, on the rehearsal fleet."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from ferry import Fab
from forkserver import CLONE
from registry_scene import RegistryScene
from tools import environment_with
from validation import validate

from lab.fleet import Fleet
from lab.images import BuiltImage, build

NOWHERE = "no-such-host.invalid"
LONGEST = 280  # seconds until a runbook counts as hanging
# A jq that keeps what it reads. The last word of a runbook's call is the file.
_KEEPING_JQ = """#!/bin/sh
for file; do :; done
cp "$file" "${0%/*}/$$.read"
exec '@JQ@' "$@"
"""


@dataclass(frozen=True)
class Ended:
    """A runbook that has ended."""

    exit: int
    out: str
    err: str


class Runbook:
    """The runbooks of this clone, with the home of `fab`, in a folder of the test's."""

    def __init__(self, fab: Fab, folder: Path, environment: Mapping[str, str]) -> None:
        self.fab, self.folder, self._environment = fab, folder, environment
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self._programs = folder / "programs"
        self._programs.mkdir()

    def environment(self, inventory: Path | str | None = None, **more: str) -> dict[str, str]:
        """Return the environment of a runbook: that of `fab`, with jq and fab in PATH."""
        with_jq = environment_with(["jq"])
        jq = self._programs / "jq"
        jq.write_text(_KEEPING_JQ.replace("@JQ@", shutil.which("jq", path=with_jq["PATH"]) or ""))
        jq.chmod(0o755)
        # The test may put programs into its folder.
        path = f"{self.folder}:{self._programs}:{Path(sys.executable).parent}:{with_jq['PATH']}"
        changed = {"PATH": path, "TMPDIR": str(self.temporary)}
        changed |= {name: with_jq[name] for name in ("LD_LIBRARY_PATH",) if name in with_jq}
        changed |= {"CTR_FERRY_INVENTORY": str(inventory)} if inventory else {}
        return {**self.fab.environment(), **self._environment, **changed, **more}

    def _validate(self) -> None:
        """Check what the runbook read of `fab`."""
        for file in self._programs.glob("*.read"):
            with suppress(json.JSONDecodeError):  # a test's own program may print something else
                validate(json.loads(file.read_text()))
            file.unlink()

    def cut_off(self, name: str, *words: str, at: str, inventory: Path | str | None = None) -> Ended:
        """Start a runbook as on a terminal, press Ctrl-C once its stderr has the words `at`, and wait for its end."""
        with subprocess.Popen(
            ["env", "--default-signal=INT", CLONE / "runbooks" / f"{name}.sh", *words],
            cwd=self.folder,
            env=self.environment(inventory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stderr
            read = next(line for line in process.stderr if at in line)
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=LONGEST)
        assert not list(self.temporary.iterdir())
        self._validate()
        return Ended(process.returncode, out, read + err)

    def __call__(
        self, name: str, *words: str, inventory: Path | str | None = None, stdin: str = "", **env: str
    ) -> Ended:
        """Run a runbook to its end, in a folder of the test's; it leaves no temporary file."""
        done = subprocess.run(
            [CLONE / "runbooks" / f"{name}.sh", *words],
            cwd=self.folder,
            env=self.environment(inventory, **env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert not list(self.temporary.iterdir())
        self._validate()
        return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(name="image")
def image_fixture(fleet: Fleet, tmp_path: Path) -> BuiltImage:
    """An image of this test alone: no node has its blobs yet."""
    assert fleet.nodes
    return build(tmp_path / "image", layers=(1000, 2000), seed=secrets.randbits(32))


@pytest.fixture(name="other")
def other_fixture(fleet: Fleet, tmp_path: Path) -> BuiltImage:
    """Another one."""
    assert fleet.nodes
    return build(tmp_path / "other", layers=(1000,), seed=secrets.randbits(32))


@pytest.fixture(name="gone")
def gone_fixture() -> dict[str, dict[str, str]]:
    """A host that cannot be reached, as is known at once: its name does not resolve."""
    return {"gone": {"ansible_host": NOWHERE}}


@pytest.fixture(name="runbook")
def runbook_fixture(fab: Fab, scene: RegistryScene, tmp_path: Path) -> Runbook:
    """The runbooks, with the passwords of the registries."""
    return Runbook(fab, tmp_path, scene.registries.environment)
