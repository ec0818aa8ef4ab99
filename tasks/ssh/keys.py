"""Host keys: what known_hosts says decides. (Fabric by itself accepts any key.)"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

_READ, _APPEND = threading.Lock(), threading.Lock()


def host_name(address: str, port: int) -> str:
    """A host as known_hosts calls it."""
    return address if port == paramiko.config.SSH_PORT else f"[{address}]:{port}"


def known_keys(host: str, files: Iterable[Path]) -> list[paramiko.PKey]:
    """The keys that known_hosts files have for a host, the first of each type.

    A file is read once for all hosts: paramiko reads it anew for each, comparing each line with all before it.
    """
    found: dict[str, paramiko.PKey] = {}
    for file in files:
        for line in _lines(host, file):
            try:
                entry = HostKeyEntry.from_line(line)
            except (paramiko.SSHException, InvalidHostKey):  # a key of which only its line is broken is none
                continue
            if entry:
                found.setdefault(entry.key.get_name(), entry.key)
    return list(found.values())


def _lines(host: str, file: Path) -> list[str]:
    try:
        state = file.stat()
    except FileNotFoundError:
        return []
    with _READ:
        plain, others = _read(file, state.st_mtime_ns, state.st_size)
    return plain.get(host, []) + [line for names, line in others if _fits(host, names)]


@lru_cache(maxsize=16)
def _read(file: Path, mtime: int, size: int) -> tuple[dict[str, list[str]], list[tuple[list[str], str]]]:  # noqa: ARG001
    """A file's lines by host name; apart, those whose names are hashed or patterns."""
    plain: dict[str, list[str]] = {}
    others = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        field, *rest = line.split(None, 1)[:2] or [""]
        names, key = field.split(","), f"- {rest[0].strip()}" if rest else ""
        if not key or field.startswith(("#", "@")):
            continue
        if any(name.startswith("|") or set("*?!") & set(name) for name in names):
            others.append((names, key))
        else:
            for name in names:
                plain.setdefault(name, []).append(key)
    return plain, others


def _fits(host: str, names: Sequence[str]) -> bool:
    if any(name.startswith("!") and _is(host, name[1:]) for name in names):
        return False
    return any(_is(host, name) for name in names if not name.startswith("!"))


def _is(host: str, name: str) -> bool:
    if name.startswith("|1|"):
        try:
            return paramiko.HostKeys.hash_host(host, name) == name
        except (ValueError, AssertionError, IndexError):
            return False
    return fnmatchcase(host, name.replace("[", "[[]"))


class AcceptNew(paramiko.MissingHostKeyPolicy):
    """Writes an unknown host's key down, as OpenSSH's ``StrictHostKeyChecking=accept-new``.

    One line is appended under a lock; paramiko's own saving rewrites the whole file and loses lines in parallel.
    What another connection wrote down in the meantime counts: the same key is not written twice, another is refused.
    """

    def __init__(self, known_hosts: Path) -> None:
        self._file = known_hosts

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        """Called by paramiko for a host that known_hosts does not name."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _APPEND, self._file.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if known := known_keys(hostname, [self._file]):
                if key not in known:
                    raise paramiko.BadHostKeyException(hostname, key, known[0])
                return
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            unfinished = file.read(1) not in (b"\n", b"")
            line = f"{hostname} {key.get_name()} {key.get_base64()}\n"
            file.write(b"\n" * unfinished + line.encode())


class RefuseUnknown(paramiko.MissingHostKeyPolicy):
    """Refuses an unknown host, keeping what a person needs to check it by."""

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        """Called by paramiko for a host that known_hosts does not name."""
        raise UnknownKeyError(hostname, key)


class UnknownKeyError(paramiko.SSHException):
    """known_hosts has no line for this host."""

    def __init__(self, hostname: str, key: paramiko.PKey) -> None:
        super().__init__(f"no key of {hostname} in known_hosts")
        self.hostname = hostname
        self.fingerprint = f"{key.get_name()} {key.fingerprint}"
