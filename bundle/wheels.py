"""The locked wheels for the Pythons and machines of a bundle: which ones, by the lock's markers, and their files."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement

MACHINES = ("x86_64", "aarch64")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_GLIBC = ("2_17", "2_28")  # the oldest first: a wheel for an older one also runs on newer ones
_COMPLETE = "complete"


class BundleError(Exception):
    """Why there is no bundle, in one sentence."""


@dataclass(frozen=True, slots=True)
class Platform:
    """A CPython, such as 3.12, on Linux with glibc on one kind of machine."""

    python: str
    machine: str

    def takes(self, marker: Marker | None) -> bool:
        """Whether a package of the lock is for this platform."""
        here = {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }
        return marker is None or marker.evaluate(here)

    @property
    def options(self) -> list[str]:
        """The words that tell pip to download for this platform, and not for this Python."""
        tags = [f"manylinux_{version}_{self.machine}" for version in _GLIBC] + [f"manylinux2014_{self.machine}"]
        words = ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.python}"]
        return words + [f"--platform={tag}" for tag in tags]


def requirements(lock: str, platform: Platform) -> str:
    """The lines of a lock that are for one platform, without their markers: pip would try them on its own Python.

    Args:
        lock: the text of a lock file with hashes.
    """
    kept = []
    for entry in re.sub(r"^\s*#.*\n", "", lock, flags=re.M).replace("\\\n", "").splitlines():
        head, _, hashes = entry.partition(" --hash=")
        package = Requirement(head.strip())
        if platform.takes(package.marker):
            kept.append(f"{package.name}{package.specifier} --hash={' '.join(hashes.split())}\n")
    return "".join(kept)


def download(lock: str, platforms: Iterable[Platform], cache: Path, tell: Callable[[str], None]) -> list[Path]:
    """The wheels of all platforms, each file once. What an earlier call has downloaded is taken from the cache.

    Args:
        tell: is called with a sentence before each download.

    Raises:
        BundleError: pip could not get a wheel.
    """
    found: dict[str, Path] = {}
    for platform in platforms:
        wanted = requirements(lock, platform)
        key = hashlib.sha256("\n".join([*platform.options, wanted]).encode()).hexdigest()[:12]
        folder = cache / f"{platform.python}-{platform.machine}-{key}"
        if not (folder / _COMPLETE).exists():
            tell(f"fetching {wanted.count('==')} wheels for Python {platform.python} on {platform.machine}")
            _fetch(wanted, platform, folder)
        found |= {wheel.name: wheel for wheel in folder.glob("*.whl")}
    return [found[name] for name in sorted(found)]


def _fetch(wanted: str, platform: Platform, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / "requirements"
    listed.write_text(wanted)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *platform.options]
    done = subprocess.run(
        [*pip, "--dest", folder, "--requirement", listed], capture_output=True, text=True, check=False
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise BundleError(
            f"there is no wheel for Python {platform.python} on {platform.machine}: {' '.join(errors)[:300]}"
        )
    (folder / _COMPLETE).touch()
