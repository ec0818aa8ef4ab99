"""What stock ``fab`` lacks before it hands the command line to our executor; loaded with fabfile.py.

Invoke tells a wrong command line on stderr alone, also where a script reads JSON on stdout, and shows a traceback where
a reader closes the pipe early, as ``fab --list | head -1`` does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import takewhile
from typing import Any

from invoke.exceptions import Exit, ParseError
from invoke.program import Program

from ctr_ferry.errors import Interrupted, UsageError

_Step = Callable[[Any], None]
_CUT = 130  # exit status after Ctrl-C
_PARSER_EXIT = 1  # Invoke's exit status for a line that its parser refuses


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON; what stands behind ``--`` is no option."""
    return "--json" in takewhile(lambda word: word != "--", words)


def tell_refusal(error: Exception, words: Sequence[str]) -> None:
    """Prints the JSON document of a command line that Invoke's parser refuses, if the line asks for JSON.

    Args:
        words: the command line, without the program.
    """
    if wants_json(words):
        from ctr_ferry.report import render

        refusal = UsageError(str(error), hint="see what there is: fab --list")
        render.failure_document(refusal, _PARSER_EXIT)


def tell_cut(code: int, *, as_json: bool) -> int:
    """Tells that the run was interrupted before any host was touched; returns the exit status."""
    from ctr_ferry.report import render

    message = "interrupted before any host was touched"
    render.note(message)
    if as_json:
        render.failure_document(Interrupted(message), code)
    return code


def _step(step: _Step) -> _Step:
    """A step of Invoke's program that tells of a refusal or Ctrl-C as we do, and minds no reader that has left."""

    def extended(program: Any) -> None:
        try:
            try:
                step(program)
            finally:
                if sys.stdout:  # None where the caller closed it
                    sys.stdout.flush()
        except ParseError as error:
            tell_refusal(error, program.argv[1:])
            raise
        except KeyboardInterrupt:
            raise Exit(code=tell_cut(_CUT, as_json=wants_json(program.argv[1:]))) from None
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
            raise Exit from None

    return extended


def _with_executor(step: _Step) -> _Step:
    """The step, and then the import of the executor: where Invoke does it, nobody is told of Ctrl-C."""

    def extended(program: Any) -> None:
        step(program)
        import_module("ctr_ferry.run.executor")

    return extended


def extend() -> None:
    """Extends Invoke's program, and with it Fabric's, once; steps that a program has begun stay as they are."""
    if Program.parse_tasks.__module__ != __name__:
        Program.parse_collection = _step(Program.parse_collection)  # type: ignore[method-assign,assignment]
        Program.parse_tasks = _step(Program.parse_tasks)  # type: ignore[method-assign,assignment]
        Program.parse_cleanup = _step(_with_executor(Program.parse_cleanup))  # type: ignore[method-assign,assignment]
