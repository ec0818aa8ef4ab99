"""`make bundle`: writes dist/ctr-ferry-VERSION.tar.gz. PYTHONS and MACHINES of the environment say for which ones."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bundle.archive import LOCK, PROJECT, contents, write
from bundle.wheels import MACHINES, PYTHONS, BundleError, Platform, download
from ctr_ferry import __version__
from ctr_ferry.text import size


def main() -> None:
    """Makes the archive, and tells its size and what it is for."""
    parser = argparse.ArgumentParser(prog="python -m bundle", description=__doc__)
    parser.add_argument("--to", type=Path, default=PROJECT / "dist", help="the folder for the archive")
    parser.add_argument("--cache", type=Path, default=PROJECT / "dist/.wheels", help="the folder for fetched wheels")
    args = parser.parse_args()
    pythons = os.environ.get("PYTHONS", "").split() or PYTHONS
    machines = os.environ.get("MACHINES", "").split() or MACHINES
    platforms = [Platform(python, machine) for python in pythons for machine in machines]
    archive = args.to / f"ctr-ferry-{__version__}.tar.gz"
    try:
        wheels = download((PROJECT / LOCK).read_text(), platforms, args.cache, _tell)
        write(contents(wheels, platforms), archive)
    except BundleError as error:
        sys.exit(f"bundle: {error}.")
    except OSError as error:
        sys.exit(f"bundle: {error.filename or archive} cannot be read or written: {error.strerror}.")
    shown = archive.relative_to(Path.cwd()) if archive.is_relative_to(Path.cwd()) else archive
    print(
        f"{shown}: {size(archive.stat().st_size)}, {len(wheels)} wheels, for Python {', '.join(pythons)} "
        f"on {' and '.join(machines)}"
    )


def _tell(text: str) -> None:
    print(f"bundle: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
