"""The archive: the files that running needs, the wheels, install.sh and checksums; the same input, the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from bundle.wheels import BundleError, Platform

PROJECT = Path(__file__).resolve().parents[1]
LOCK = "requirements-run.lock"
_PAGES = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "README.zh-CN.md", "SECURITY.md")
_SINGLE = ("LICENSE", *_PAGES, "ctr-ferry", "fabfile.py", "fabric.yaml", LOCK)
_FOLDERS = ("ctr_ferry/", "docs/", "runbooks/", "tasks/")
_INSTALL = "bundle/install.sh"


def project_files() -> dict[str, Path]:
    """The tracked files that running needs, and install.sh: path in the archive -> file.

    Raises:
        BundleError: this folder is no clone, or git is missing.
    """
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BundleError("make bundle takes the files that git tracks: it needs git, and a clone") from error
    kept = [path for path in listed.stdout.split("\0") if path in _SINGLE or path.startswith(_FOLDERS)]
    return {path: PROJECT / path for path in kept} | {"install.sh": PROJECT / _INSTALL}


def contents(wheels: Iterable[Path], platforms: Sequence[Platform]) -> dict[str, bytes]:
    """Everything that the archive has, with the checksums of all of it: path -> bytes."""
    files = {path: file.read_bytes() for path, file in project_files().items()}
    files |= {f"wheels/{wheel.name}": wheel.read_bytes() for wheel in wheels}
    for name in ("pythons", "machines"):
        words = dict.fromkeys(getattr(each, name.removesuffix("s")) for each in platforms)
        files[f"wheels/{name}"] = f"{' '.join(words)}\n".encode()
    sums = [f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in sorted(files.items())]
    return files | {"SHA256SUMS": "".join(sums).encode()}


def write(files: Mapping[str, bytes], archive: Path) -> None:
    """Writes the archive. It appears whole, or not at all.

    Args:
        archive: a .tar.gz, whose name is that of the folder in it.
    """
    top = archive.name.removesuffix(".tar.gz")
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        with (
            part.open("wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for path, data in sorted(files.items()):
                tar.addfile(_member(f"{top}/{path}", data), io.BytesIO(data))
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)


def _member(name: str, data: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o755 if data.startswith(b"#!") else 0o644
    member.mtime = int(os.environ.get("SOURCE_DATE_EPOCH", "0")) or _last_commit()
    return member


@cache
def _last_commit() -> int:
    """When the last commit was made, in seconds since 1970."""
    shown = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=PROJECT, capture_output=True, check=True)
    return int(shown.stdout)
