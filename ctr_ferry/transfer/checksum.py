"""The SHA-256 that lies beside an archive, in the form that sha256sum writes and checks."""

from __future__ import annotations

import re
from pathlib import Path

from ctr_ferry.errors import BadArchive
from ctr_ferry.transfer import new_file

_MOST = 1 << 20  # bytes of it that are read
_LINE = re.compile(r"\\?([0-9a-f]{64}) [ *](.+)")  # "*" where sha256sum was told that the file is binary


def beside(file: Path) -> Path:
    """Where it lies."""
    return file.with_name(f"{file.name}.sha256")


def told(file: Path) -> str | None:
    """The archive's SHA-256 in hex, as the file beside it tells; None where there is no such file.

    Raises:
        BadArchive: it tells of other files alone; OSError.
    """
    if not beside(file).is_file():
        return None
    with beside(file).open("rb") as opened:
        lines = opened.read(_MOST).decode("utf-8", "replace").splitlines()
    found = [match for line in lines if (match := _LINE.fullmatch(line.strip()))]
    mine = [match[1] for match in found if Path(match[2]).name == file.name]
    if not mine:
        name = beside(file).name
        raise BadArchive(f"{name} does not tell of it", hint=f"mend it, or take it away: {beside(file)}")
    return mine[0]


def write(file: Path, sha256: str) -> None:
    """Writes it whole or not at all.

    Raises:
        CannotWrite.
    """
    with new_file.replacing(beside(file)) as opened:
        opened.write(f"{sha256}  {file.name}\n".encode())
