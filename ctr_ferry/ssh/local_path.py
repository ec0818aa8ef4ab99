"""Paths of the control machine as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def local_path(text: str | Path) -> Path:
    """The path with its ~ or ~user expanded. As in sh, the name of a user who does not exist stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  (Path.expanduser raises RuntimeError for such a user)
