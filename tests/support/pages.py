"""The pages for people, and a reader who types what a page shows, at a terminal of the rehearsal fleet."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from forkserver import CLONE
from tools import environment_with
from transcripts import ESCAPE, Shown, commands

from lab.fleet import STATE, Fleet
from lab.images import NATIVE
from lab.rehearsal import inventory

COLUMNS, LINES = 100, 40  # of the terminal
LONGEST = 120  # seconds until a command counts as hanging
HOME = "~/ctr-ferry"  # how a page calls the folder of a clone
SHOWN_NATIVE, SHOWN_NETWORK = "linux/amd64", "127.0.10"  # what a page has for this machine's own
# In its own shell, each command finds the folder and the variables that the commands before it left.
SCRIPT = '. "$0"\n{}\n_status=$?\n{{ export -p; echo "cd \'$PWD\'"; }} >"$0"\nexit $_status\n'


def every_page(folder: Path = CLONE) -> list[str]:
    """Return the paths of the pages whose commands people type: the READMEs, and docs/ without the decisions."""
    decisions = folder / "docs/decisions"
    found = [*folder.glob("README*.md"), *(p for p in folder.glob("docs/**/*.md") if decisions not in p.parents)]
    return sorted(str(path.relative_to(folder)) for path in found)


def shown_on(page: str) -> list[Shown]:
    """Return the commands of the text of a page, for this machine."""
    return commands(page.replace(SHOWN_NATIVE, NATIVE))


@dataclass(frozen=True)
class Printed:
    """What a command printed: on its terminal, and on stderr, which is a file; and its exit status."""

    out: str
    err: str
    status: int

    def wrong(self, shown: Shown) -> str:
        """Return what is wrong with the command; empty for nothing."""
        quiet = not any(line.strip() not in ("", "…") for line in shown.output)
        if shown.fits(self.out) and not (quiet and self.status):
            return ""
        return f"{shown.line}: {shown.command}\nended with {self.status}, and printed\n{self.out}{self.err}"


class Reader:
    """Someone who works through a page, in a folder that is like a clone.

    Args:
        fleet: the fleet, as `make lab-up` leaves it.
        folder: an empty folder for the clone, the home and what commands write.
        environment: the variables of the shell.
    """

    def __init__(self, fleet: Fleet, folder: Path, environment: Mapping[str, str]) -> None:
        self._fleet, self.project, self._state = fleet, folder / "clone", folder / "shell"
        home = folder / "home"
        home.mkdir()
        self._make_clone()
        with_jq = environment_with(["jq"])  # pages show how to read JSON with it
        path = f"{self.project}/.venv/bin:{with_jq['PATH']}"
        ours = {"PATH": path, "HOME": str(home), "CTR_FERRY_LAB": f"{fleet.state}:{fleet.network}"}
        ours |= {"CTR_FERRY_INVENTORY": str(self.project / "hosts.yaml"), "NO_COLOR": "1", "TERM": "xterm"}
        ours |= {"FABRIC_FLEET_RUNS": str(self.project / "runs")}
        ours |= {name: with_jq[name] for name in ("LD_LIBRARY_PATH",) if name in with_jq}
        self._environment = {**environment, **ours}
        self._environment.pop("COLUMNS", None)
        self._state.write_text("")

    def type(self, shown: Shown) -> Printed:
        """Run one command of the page in the folder of the clone; return what it printed, as a page would say it."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (LINES, COLUMNS))
        argv = ["sh", "-c", SCRIPT.format(shown.command), str(self._state)]
        with tempfile.TemporaryFile() as err, os.fdopen(ours, "rb", 0) as screen:
            with subprocess.Popen(
                argv,
                cwd=self.project,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=err,
                start_new_session=True,
            ) as process:
                os.close(theirs)
                clock = threading.Timer(LONGEST, os.killpg, (process.pid, signal.SIGKILL))
                clock.start()
                out = b"".join(_read(screen.fileno()))
                clock.cancel()
            err.seek(0)
            told, complained = (self._as_on_a_page(each.decode(errors="replace")) for each in (out, err.read()))
        return Printed(told, complained, process.returncode)

    def _as_on_a_page(self, text: str) -> str:
        """Return a text with the words of a page for what is this machine's and this test's own."""
        state, home = str(self._fleet.state), str(self.project.parent / "home")
        text = ESCAPE.sub("", text)
        for ours, theirs in ((state, f"{HOME}/lab/.state"), (str(self.project), HOME), (home, "~")):
            text = text.replace(ours, theirs)
        return text.replace(f"{self._fleet.network}.", f"{SHOWN_NETWORK}.").replace(NATIVE, SHOWN_NATIVE)

    def _make_clone(self) -> None:
        """Make a folder like a clone after `make lab-up`: with that fleet's inventory, and its state in lab/.state."""
        (self.project / "lab").mkdir(parents=True)
        for source in (*CLONE.glob("[!.]*"), *(CLONE / "lab").glob("[!.]*")):
            target = self.project / source.relative_to(CLONE)
            if source.name not in ("hosts.yaml", "lab", "runs", "site"):
                target.symlink_to(source)
        (self.project / ".venv").symlink_to(sys.prefix)
        (self.project / "lab" / STATE.name).symlink_to(self._fleet.state)
        (self.project / "hosts.yaml").write_text(inventory(self._fleet).read_text())


def _read(terminal: int) -> Iterator[bytes]:
    """Yield what is printed on a terminal, until nobody has it open any more."""
    try:
        while part := os.read(terminal, 1 << 16):
            yield part
    except OSError:  # EIO: the other side has been closed
        return
