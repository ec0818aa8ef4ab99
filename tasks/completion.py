"""``completion``: what a shell reads to complete lines of ctr-ferry."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ctr_ferry import shell
from ctr_ferry.errors import UsageError
from ctr_ferry.report.documents import CompletionData
from ctr_ferry.report.outcome import View
from ctr_ferry.run.command import ControlMachine, on_control_machine
from ctr_ferry.run.places import PROJECT

_SCRIPTS = {"bash": "completion.bash", "zsh": "completion.zsh", "fish": "completion.fish"}
_START = "import sys; sys.path.insert(0, sys.argv[1]); from ctr_ferry.run.completion import main; main()"


def parse(shell: str | None = None) -> str:
    """The shell; raises UsageError for one that there is no completion for."""
    if shell not in _SCRIPTS:
        raise UsageError(
            f"completion is for one of {', '.join(_SCRIPTS)}, and not for {shell!r}",
            hint='write into ~/.bashrc: eval "$(fab completion bash)"',
        )
    return shell


def script(name: str, program: str) -> str:
    """The text that a shell reads.

    Args:
        name: the name of the shell.
        program: the program whose lines are completed, ``fab`` or ``ctr-ferry``.
    """
    # -P: nothing is imported from the folder where TAB is pressed. -B: nothing is written.
    ask = shell.join([_lasting(Path(sys.executable)), "-P", "-B", "-c", _START, _lasting(PROJECT)])
    text = (PROJECT / "ctr_ferry/run" / _SCRIPTS[name]).read_text(encoding="utf-8")
    function = f"_{re.sub(r'[^A-Za-z0-9]', '_', program)}_completion"
    return text.replace("@FUNCTION@", function).replace("@PROGRAM@", program).replace("@ASK@", ask).rstrip()


def _lasting(path: Path) -> str:
    """A path that an upgrade of an installed ctr-ferry keeps: by the link to the version that is in use."""
    current = PROJECT.parent / "current"
    if current.is_symlink() and current.resolve() == PROJECT and path.is_relative_to(PROJECT):
        return str(current / path.relative_to(PROJECT))
    return str(path)


@on_control_machine(parse, positional=["shell"], help={"shell": "One of bash, zsh, fish."})
def completion(control_machine: ControlMachine, name: str) -> View:  # noqa: ARG001
    """Print what lets a shell complete lines, for `eval "$(fab completion bash)"`; also for zsh and fish."""
    program = Path(sys.argv[0]).name
    text = script(name, program if program in ("fab", "ctr-ferry") else "fab")
    return View(CompletionData(shell=name, script=text), text=text, folds=False)
