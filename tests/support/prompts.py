"""A real shell on a pseudo-terminal: what it makes of keys such as TAB."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shlex
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from tools import environment_with

from tasks.completion import script

ROOT = Path(__file__).parents[2]
START = {"bash": ["--noprofile", "--norc", "-i"], "zsh": ["-f", "-i"], "fish": ["-i"]}
SETUP = {  # with the folders of a shell that is only unpacked
    "bash": ["PS1=$READY"],
    "zsh": [
        "module_path=($SHARE/../lib/*/zsh/*(N) $module_path)",
        "fpath=($SHARE/zsh/functions/**/*(/N) $fpath)",
        "PS1=$READY",
    ],
    "fish": [
        "set -p fish_function_path $SHARE/fish/functions",
        "set -p fish_complete_path $SHARE/fish/completions",
        "function fish_prompt; echo -n $READY; end",
    ],
}
READY = "(ready) "
PATIENCE = 60.0  # seconds


class Prompt:
    """A shell in a folder of its own, with the completion set up as README says.

    A stand-in for the program writes down the words that the shell gives it. So a test sees what a line became after
    TAB and Enter, and what the shell ran of it.

    Args:
        shell: bash, zsh or fish.
        home: an empty folder.
        program: fab or ctr-ferry.
        folder: where the shell is; for fab that of the project.
        given: further variables of the environment.
    """

    def __init__(
        self, shell: str, home: Path, given: Mapping[str, str], program: str = "fab", folder: Path = ROOT
    ) -> None:
        self.program, self.file = program, home / "words.json"
        (home / "bin").mkdir(exist_ok=True)
        stub = home / "bin" / program
        stub.write_text(
            "#!/usr/bin/env python3\nimport json, os, sys\n"
            f"open('{self.file}.part', 'w').write(json.dumps(sys.argv[1:]))\n"
            f"os.rename('{self.file}.part', '{self.file}')\n"
        )
        stub.chmod(0o755)
        setup = home / "setup"
        setup.write_text("\n".join([*SETUP[shell], script(shell, program), ""]))
        environment = environment_with([shell])
        tree = Path(environment["PATH"].split(":")[0]).parent
        environment |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "TERM": "dumb", "READY": READY}
        environment |= {"XDG_DATA_HOME": str(home / ".data"), "SHARE": str(tree / "share"), **given}
        environment["PATH"] = f"{home / 'bin'}:{environment['PATH']}"
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            with contextlib.suppress(BaseException):
                os.chdir(folder)
                os.execvpe(shell, [shell, *START[shell]], environment)
            os._exit(127)
        self.seen = ""
        self._send(f"{'source' if shell == 'fish' else '.'} {shlex.quote(str(setup))}\n")
        self._until(lambda: READY in self.seen)

    def words(self, typed: str) -> list[str]:
        """The words that the program gets after these keys and Enter."""
        self.file.unlink(missing_ok=True)
        self.seen = ""
        self._send(f"{typed}\n")
        self._until(self.file.exists)
        self._until(lambda: READY in self.seen.rpartition("\n")[2])
        found: list[str] = json.loads(self.file.read_text())
        return found

    def close(self) -> None:
        """Ends the shell."""
        os.close(self.terminal)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _send(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def _until(self, done: object) -> None:
        assert callable(done)
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, f"the shell shows {self.seen!r}"
            if select.select([self.terminal], [], [], 0.05)[0]:
                self.seen += os.read(self.terminal, 65536).decode(errors="replace")
