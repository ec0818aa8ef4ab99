"""A terminal of a certain width: a real pseudo-terminal, for tests of what people see."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def seen(argv: Sequence[str], columns: int, env: Mapping[str, str] | None = None, *, stderr: bool = False) -> str:
    """Runs a program whose stdout, and perhaps stderr, is a terminal of so many columns; returns what it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment = {**clean, "TERM": "xterm", **(env or {})}
    error = theirs if stderr else subprocess.DEVNULL
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=error) as program:
        os.close(theirs)
        text = b""
        while chunk := _read(ours):
            text += chunk
        os.close(ours)
        program.wait(60)
    return text.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other end is closed
        return b""


def rendered(code: str, columns: int, env: Mapping[str, str] | None = None, *, stderr: bool = False) -> str:
    """What Python code shows on a terminal of so many columns."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "support")))
    return seen([sys.executable, "-c", code], columns, {"PYTHONPATH": paths, **(env or {})}, stderr=stderr)
