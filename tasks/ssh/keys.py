"""Host keys: what known_hosts says decides. (Fabric by itself accepts any key.)"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import paramiko

_APPEND = threading.Lock()


class AcceptNew(paramiko.MissingHostKeyPolicy):
    """Writes an unknown host's key down, as OpenSSH's ``StrictHostKeyChecking=accept-new``.

    One line is appended under a lock; paramiko's own saving rewrites the whole file and loses lines in parallel.
    """

    def __init__(self, known_hosts: Path) -> None:
        self._file = known_hosts

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        """Called by paramiko for a host that known_hosts does not name."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _APPEND, self._file.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
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
