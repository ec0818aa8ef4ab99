"""Programs that some tests need besides Python: the machine's own, else Debian's, which only root fetches."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import pytest

from lab import debian
from lab.fleet import CACHE


def environment_with(programs: Sequence[str]) -> dict[str, str]:
    """Return this process's environment, in which PATH has the programs; skip the test where one cannot be had.

    Args:
        programs: names of programs; each is also the name of its Debian package.
    """
    found = dict(os.environ)
    for program in programs:
        if shutil.which(program):
            continue
        if os.geteuid():
            pytest.skip(f"there is no {program}: install it, or run as root")
        try:
            debian.codename()
        except debian.Unavailable as why:
            pytest.skip(f"there is no {program}: install it ({why})")
        tree = debian.unpacked([program], CACHE, whole=True)
        libraries = [str(path) for path in (tree / "usr/lib").glob("*-linux-gnu")]
        found["PATH"] = f"{tree / 'usr/bin'}:{found['PATH']}"
        found["LD_LIBRARY_PATH"] = ":".join([*libraries, *filter(None, [found.get("LD_LIBRARY_PATH")])])
    return found
