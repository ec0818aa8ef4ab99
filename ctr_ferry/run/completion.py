"""What a shell offers when TAB is pressed in a line of ``fab`` or ``ctr-ferry``.

The shell's script (completion.bash, .zsh and .fish beside this file) starts `main` with the line. It prints ``words``,
``files`` or ``folders``, and then the words, one a line. It connects to nothing and writes nothing, and what is wrong,
such as the inventory, is no error here: there is nothing to offer then. Fabric is not imported: paramiko alone would
take longer than a person waits.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ctr_ferry.run.offers import Completion, Offer, starting
from ctr_ferry.run.places import NAME, PROJECT, own_places, own_settings
from ctr_ferry.run.typed import Typed, for_bash, split

FABRICS_OWN = {  # options of `fab`, and whether they take a value
    ("H", "hosts"): str,
    ("i", "identity"): list,
    ("list-agent-keys",): bool,
    ("prompt-for-login-password",): bool,
    ("prompt-for-passphrase",): bool,
    ("S", "ssh-config"): str,
    ("t", "connect-timeout"): int,
}
_OURS = re.compile(r"fabric|fabfile$|tasks\b|ctr_ferry\.run\.command$")  # modules that know a class of Fabric's
_PATIENCE = 10  # seconds, for the completion of another project


class ProjectCommands:
    """The commands of this project; of a command that has a file in tasks/, only that file is imported."""

    @cached_property
    def core(self) -> Any:
        """The options of ``fab`` itself."""
        from invoke.parser.argument import Argument
        from invoke.parser.context import ParserContext
        from invoke.program import Program

        program = Program()
        own = [Argument(names=names, kind=kind) for names, kind in FABRICS_OWN.items()]
        return ParserContext(args=[*program.core_args(), *program.task_args(), *own])

    def names(self) -> Iterable[str]:
        """The names of all commands."""
        return [name for context in self._contexts for name in (context.name, *context.aliases)]

    def get(self, name: str) -> Any:
        """The options of a command; None if there is no such command."""
        from invoke.collection import Collection

        if name.isidentifier() and (PROJECT / f"tasks/{name}.py").is_file():
            module = _imported(f"tasks.{name}")
            return Collection(getattr(module, name)).to_contexts()[0]
        return next((each for each in self._contexts if name in (each.name, *each.aliases)), None)

    @cached_property
    def _contexts(self) -> list[Any]:
        from invoke.collection import Collection

        return list(Collection.from_module(_imported("fabfile")).to_contexts())


def _imported(module: str) -> Any:
    """Imports our declarations of commands without Fabric, or with it where tasks of the user's own need it."""
    from invoke.tasks import Task

    stub: Any = types.ModuleType("fabric")
    stub.Task, stub.Config = Task, type("Config", (), {})
    sys.modules.setdefault("fabric", stub)
    try:
        return importlib.import_module(module)
    except ImportError:
        for name in [n for n in sys.modules if _OURS.match(n)]:
            del sys.modules[name]
        return importlib.import_module(module)


class ProjectKnown:
    """What this machine knows: the inventory and the records, by the settings of the program.

    Args:
        program: ``fab`` or ``ctr-ferry``.
        file: the file of settings that ``-f`` names.
    """

    def __init__(self, program: str, file: str | None = None) -> None:
        self._program, self._file = program, file

    @cached_property
    def _fleet(self) -> dict[str, Any]:
        from invoke.config import Config, merge_dicts

        class Settings(Config):
            prefix = "fabric"

        config = Settings(project_location=PROJECT, runtime_path=Path(self._file) if self._file else None)
        config.load_project(merge=False)
        if self._program == NAME:
            for settings in (own_places(), own_settings()):
                merge_dicts(config._project, settings)
        config.load_runtime()
        config.load_shell_env()
        return dict(config.get("fleet", {}))

    @cached_property
    def _inventory(self) -> Any:
        from ctr_ferry.inventory.ansible import Inventory, inventory_file

        return Inventory(inventory_file(self._fleet.get("inventory"), PROJECT))

    @property
    def hosts(self) -> Sequence[str]:
        """The hosts of the inventory."""
        return list(self._inventory.hosts)

    @property
    def groups(self) -> Sequence[str]:
        """The groups of the inventory that have hosts."""
        used = set().union(*(self._inventory.groups_of(host) for host in self._inventory.hosts))
        return [name for name in self._inventory.groups if name in used]

    @property
    def registries(self) -> Sequence[str]:
        """The registries of the inventory."""
        found: dict[str, None] = {}
        for host in self._inventory.hosts:
            given = self._inventory.variables(host).vars.get("ctr_registries")
            if given and isinstance(given.value, dict):
                found |= dict.fromkeys(map(str, given.value))
        return list(found)

    @property
    def _runs_folder(self) -> Path:
        from ctr_ferry.ssh.local_path import local_path

        return PROJECT / local_path(self._fleet.get("runs") or "runs")

    @property
    def images(self) -> Sequence[str]:
        """Names of images in the newest records."""
        from ctr_ferry.report.past_names import image_names

        return image_names(self._runs_folder)

    @property
    def runs(self) -> Sequence[str]:
        """Ids of the newest runs."""
        from ctr_ferry.report.past_names import run_ids

        return run_ids(self._runs_folder)


def _value(words: Sequence[str], *flags: str) -> str | None:
    """The value that one of Invoke's own options has in the line."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word in flags:
            return following
        flag, equals, value = word.partition("=")
        if equals and flag in flags:
            return value
    return None


def _is_ours(program: str, words: Sequence[str]) -> bool:
    """Whether the line is for this project, and not for the fabfile of another folder."""
    if _value(words, "-c", "--collection"):
        return False
    root = _value(words, "-r", "--search-root")
    if not root and program == NAME:
        return True
    start = Path(os.path.expanduser(root or ".")).resolve()  # noqa: PTH111
    folders = (
        folder
        for folder in (start, *start.parents)
        if (folder / "fabfile.py").exists() or (folder / "fabfile").is_dir()
    )
    return next(folders, None) == PROJECT


def _of_others(typed: Typed) -> Offer:
    """What Invoke's own completion offers for another project; as there, the names of files where that is nothing."""
    words = [*typed.words, typed.word]
    program = shutil.which(os.path.expanduser(words[0]))  # noqa: PTH111
    if not program:
        return Offer("files")
    done = subprocess.run(
        [program, "--complete", "--", *words[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_PATIENCE,
        text=True,
        check=False,
    )
    found = starting(typed.word, done.stdout.split() if not done.returncode else ())
    return found if found.words else Offer("files")


def _read(shell: str, words: Sequence[str]) -> Typed:
    """The line. bash gives COMP_WORDBREAKS and the line as one text; the others give the words as they are typed."""
    if shell == "bash":
        breaks, line = words
        return split(line, breaks)
    *before, last = words
    return Typed(tuple(split(f"{word} ").words[0] for word in before if word.strip()), split(last).word)


def main() -> None:
    """Prints what fits: the arguments are the shell, the program's name, and the line.

    Never ends with an error: whatever it says would stand in the line that a person types.
    """
    with contextlib.suppress(Exception):
        shell, program, *words = sys.argv[2:]
        typed = _read(shell, words)
        if _is_ours(program, typed.words[1:]):
            known = ProjectKnown(program, _value(typed.words[1:], "-f", "--config"))
            found = Completion(ProjectCommands(), known).offer(typed)
        else:
            found = _of_others(typed)
        print("\n".join([found.kind, found.head, *(for_bash(typed, found.words) if shell == "bash" else found.words)]))
