"""The check sum file beside an archive, in the form that sha256sum writes and checks."""

from __future__ import annotations

import re
from pathlib import Path

from ctr_ferry.errors import BadArchive
from ctr_ferry.transfer import new_file

_MOST = 1 << 20  # bytes of the file that are read
_LINE = re.compile(r"\\?([0-9a-f]{64}) [ *](.+)")  # sha256sum --binary writes "*"


def beside(file: Path) -> Path:
    """Returns the path of an archive's check sum file."""
    return file.with_name(f"{file.name}.sha256")


def expected(file: Path) -> str | None:
    """Returns the SHA-256 in hex that the check sum file has for an archive; None if there is no such file.

    Raises:
        BadArchive: the check sum file names other files alone.
        OSError: it cannot be read.
    """
    if not beside(file).is_file():
        return None
    with beside(file).open("rb") as opened:
        lines = opened.read(_MOST).decode("utf-8", "replace").splitlines()
    found = [match for line in lines if (match := _LINE.fullmatch(line.strip()))]
    mine = [match[1] for match in found if Path(match[2]).name == file.name]
    if not mine:
        name = beside(file).name
        raise BadArchive(f"{name} does not name this archive", hint=f"correct it, or remove it: rm {beside(file)}")
    return mine[0]


def write(file: Path, sha256: str) -> None:
    """Writes an archive's check sum file, whole or not at all; raises CannotWrite."""
    with new_file.replacing(beside(file)) as opened:
        opened.write(f"{sha256}  {file.name}\n".encode())
