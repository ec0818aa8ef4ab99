"""The program ``ctr-ferry``: stock ``fab`` with this project, from any folder.

A small subclass of Fabric's program. It also tells in one sentence, with exit status 2, what stock ``fab`` shows as a
traceback before it has loaded this project, and refuses a command behind ``--``, which Fabric would run on hosts whose
keys it does not check.
"""

from __future__ import annotations

import getpass
import signal
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fabric.config
from fabric import Config, Executor
from fabric.main import Fab
from invoke.config import merge_dicts
from invoke.parser.argument import Argument

from ctr_ferry import __version__, shell
from ctr_ferry.errors import FerryError, UsageError
from ctr_ferry.run import stock
from ctr_ferry.run.places import NAME, PROJECT, own_places, own_settings
from ctr_ferry.ssh.local_path import ls_line

_LEAST = {"list-depth": 0}  # of the options that take a number, those that may be 0
_LISTINGS = ("flat", "nested", "json")
_SETTINGS = (".yaml", ".yml", ".json", ".py")
_UNASKED = {  # where a password may come from instead
    "prompt-for-sudo-password": "give it here: read -rs FABRIC_SUDO_PASSWORD && export FABRIC_SUDO_PASSWORD",
    "prompt-for-login-password": "write into hosts.yaml, for these hosts: ansible_password: PASSWORD",
    "prompt-for-passphrase": "unlock the key for the agent: ssh-add",
}


class Program(Fab):  # type: ignore[misc]
    """Fabric's program with this project.

    Args:
        name: the name that it was started by. As ``ctr-ferry`` it finds this project from any folder, takes
            ``./hosts.yaml`` or the user's own inventory, and keeps its records in the user's folder for state. As
            ``fab`` it looks for fabfile.py and its settings as stock ``fab`` does.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            version=__version__,
            name=NAME,
            binary=name,
            binary_names=[name],
            executor_class=Executor,
            config_class=Config,
        )
        self._started = False  # whether the executor has the command line, and tells all errors itself

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """Runs the command line.

        Raises:
            SystemExit: with the exit status.
        """
        try:
            super().run(argv, exit)
        except FerryError as error:
            _fail(error)
        except Exception as error:
            if self._started:
                raise
            _fail(_unreadable(error))

    def create_config(self) -> None:
        """Fabric's hook. From Python 3.13 on, Fabric would end for a user without a name; before, it goes on."""
        try:
            getpass.getuser()
        except (KeyError, OSError):
            fabric.config.get_local_user = lambda: None
        super().create_config()

    def core_args(self) -> list[Argument]:
        """Invoke's hook: a number that is none is refused."""
        args: list[Argument] = super().core_args()
        for arg in args:
            if arg.kind is int:
                arg.__class__ = _Number
        return args

    def task_args(self) -> list[Argument]:
        """Invoke's hook: the folder where fabfile.py is looked for."""
        args: list[Argument] = super().task_args()
        for arg in args:
            if arg.name == "search-root" and self.binary == NAME:
                arg.default = str(PROJECT)
        return args

    def parse_core(self, argv: list[str] | None) -> None:
        """Invoke's hook: refuses wrong values of Invoke's own options."""
        super().parse_core(argv)
        if (listing := self.args["list-format"].value) not in _LISTINGS:
            hint = f"such as {_typed_with(('list-format', 'F'), 'flat')}"
            raise UsageError(f"-F must be one of {', '.join(_LISTINGS)}, and is {listing!r}", hint=hint)
        file = self.args.config.value
        if file and (not Path(file).is_file() or Path(file).suffix not in _SETTINGS):
            raise UsageError(
                f"-f must name a file of settings that exists ({', '.join(_SETTINGS)}), and is {file!r}",
                hint=f"see what is there: {ls_line(file)}",
            )

    def load_collection(self) -> None:
        """Fabric's hook: loads fabfile.py, and the user's own settings besides those of the project."""
        refuse_command(self.core)
        super().load_collection()
        if self.binary == NAME:
            for settings in (own_places(), own_settings()):
                merge_dicts(self.config._project, settings)
            self.config.merge()

    def update_config(self) -> None:
        """Fabric's hook: asks for the passwords of ``--prompt-for-…``.

        Raises:
            UsageError: there is no terminal to ask at.
        """
        try:
            super().update_config()
        except EOFError:
            given = next(name for name, arg in self.args.items() if name.startswith("prompt-for-") and arg.value)
            raise UsageError(
                f"--{given} asks at a terminal, and there is none",
                hint=f"run the command at a terminal, or {_UNASKED[given]}",
            ) from None

    def print_version(self) -> None:
        """Invoke's hook: the version of ctr-ferry, and those of the libraries that a fault may come from."""
        print(f"{NAME} {__version__}")
        for library in ("Fabric", "Invoke", "Paramiko"):
            print(f"{library} {version(library)}")

    def execute(self) -> None:
        """Invoke's hook: hands over to the executor."""
        self._started = True
        super().execute()


class _Number(Argument):
    """An option of Invoke's or Fabric's own that takes a whole number."""

    def set_value(self, value: Any, cast: bool = True) -> None:
        """Invoke's hook.

        Raises:
            UsageError: the text is no number, or too small a one.
        """
        least, name = _LEAST.get(str(self.name), 1), min(self.names, key=len)
        if cast and not (str(value).isascii() and str(value).isdecimal() and int(value) >= least):
            hint = f"such as {_typed_with(self.names, '30')}"
            raise UsageError(f"-{name} must be a whole number from {least} on, and is {value!r}", hint=hint)
        super().set_value(value, cast)


def refuse_command(core: Any) -> None:
    """Refuses ``fab -H HOST -- COMMAND``: Fabric would run it, and accept any key of the host.

    Args:
        core: Invoke's result of parsing its own options.

    Raises:
        UsageError: there is such a command; the hint has the command line with the task that runs it.
    """
    if core.remainder and not core[0].args.complete.value:
        words = ["fab", "-H", core[0].args.hosts.value or "all", "run", core.remainder]
        raise UsageError(
            "Fabric would run what follows -- without checking any host key, so nothing was run",
            hint=f"let ctr-ferry run it: {shell.join(words)}",
        )


def _typed_with(names: Iterable[str], value: str) -> str:
    """The command line as it was typed, with another value of the option that has these names."""
    options = {f"-{name}" if len(name) == 1 else f"--{name}" for name in names}
    words = sys.argv[1:]
    for at, word in enumerate(words):
        option, equals, _ = word.partition("=")
        if word in options:
            words[at + 1 : at + 2] = [value]
        elif option in options or word[:2] in options:
            words[at] = f"{option if option in options else word[:2]}{equals}{value}"
        else:
            continue
        break
    return shell.join([Path(sys.argv[0]).name, *words])


def _unreadable(error: Exception) -> FerryError:
    """The error that stands for whatever Invoke and Fabric raise before any command has started."""
    problem = " ".join(str(error).split()) or type(error).__name__
    return UsageError(f"the settings or the command line cannot be read: {type(error).__name__}: {problem}")


def _fail(error: FerryError) -> None:
    from ctr_ferry.report import render

    render.open_streams()
    render.failure(error, as_json=stock.wants_json(sys.argv[1:]))
    sys.exit(error.exit_code)


def main(name: str, *words: str) -> None:
    """Runs the command line; hints then name the program as it was started.

    Args:
        name: ``ctr-ferry`` or ``fab``.
    """
    sys.argv[:] = [name, *words]
    stock.extend()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # so that Ctrl-C is silent before; from here on it is told
        signal.signal(signal.SIGINT, signal.default_int_handler)
    Program(name).run()
