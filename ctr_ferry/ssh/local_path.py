"""Paths of the control machine as people write them."""

from __future__ import annotations

import os
from pathlib import Path

from ctr_ferry.shell import join


def local_path(text: str | Path) -> Path:
    """The path with its ~ or ~user expanded. As in sh, the name of a user who does not exist stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  (Path.expanduser raises RuntimeError for such a user)


def ls_line(text: str | Path) -> str:
    """The command line that lists a path, or the nearest folder above it that is there; for hints."""
    path = local_path(text)
    there = next((each for each in (path, *path.parents) if os.path.lexists(each)), path)
    return join(["ls", "-l", f"./{there}" if str(there).startswith("-") else str(there)])
