"""Host keys are checked against known_hosts files. (Fabric by itself accepts any key.)"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

from ctr_ferry.errors import HostKeyChanged, HostKeyUnknown
from ctr_ferry.shell import join
from ctr_ferry.ssh.certificates import certificate_fault
from ctr_ferry.ssh.local_path import local_path
from ctr_ferry.ssh.openssh import HostConfig
from ctr_ferry.ssh.target import Trust

_OF_ALL_USERS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")  # ssh_config(5)
_READ, _APPEND = threading.Lock(), threading.Lock()


def known_keys(host: str, files: Sequence[Path]) -> list[paramiko.PKey]:
    """The keys of a host that are not revoked. There may be several of one type.

    The host's name is its address, or ``[address]:port`` for another port than 22. A file that does not exist is empty.
    Where a file cannot be read, HostKeyUnknown is raised.
    """
    revoked = revoked_keys(host, files)
    return [key for key in _keys(host, files, "") if key not in revoked]


def revoked_keys(host: str, files: Sequence[Path]) -> list[paramiko.PKey]:
    """The keys that known_hosts files mark as ``@revoked`` for a host (sshd(8)). They are never accepted."""
    return list(_keys(host, files, "@revoked"))


def authorities(host: str, files: Sequence[Path]) -> list[paramiko.PKey]:
    """The keys that may sign a certificate of a host: those of ``@cert-authority`` lines for it, on any port.

    A key that is revoked for the host, on any port, may not.
    """
    names = dict.fromkeys((host, _without_port(host)))
    revoked = [key for name in names for key in revoked_keys(name, files)]
    found = [key for name in names for key in _keys(name, files, "@cert-authority")]
    return [key for key in found if key not in revoked]


def _without_port(host: str) -> str:
    return host.removeprefix("[").partition("]:")[0]


def _keys(host: str, files: Sequence[Path], marker: str) -> Iterator[paramiko.PKey]:
    for file in files:
        for line in _lines(host, file, marker):
            try:
                entry = HostKeyEntry.from_line(line)
            except (paramiko.SSHException, InvalidHostKey):  # a broken line has no key
                continue
            if entry:
                yield entry.key


def _lines(host: str, file: Path, marker: str) -> list[str]:
    try:
        state = file.stat()
        with _READ:
            lines = _read(file, state.st_mtime_ns, state.st_size).get(marker, _Lines())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostKeyUnknown(
            f"{file} cannot be read",
            detail=error.strerror or "",
            hint=f"host keys are checked against that file; make it readable: chmod u+r {join([str(file)])}",
        ) from error
    return lines.plain.get(host, []) + [line for names, line in lines.others if _fits(host, names)]


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of a file with one marker: by host name, and those whose names are hashed or patterns."""

    plain: dict[str, list[str]] = field(default_factory=dict)
    others: list[tuple[list[str], str]] = field(default_factory=list)


@lru_cache(maxsize=16)
def _read(file: Path, mtime: int, size: int) -> dict[str, _Lines]:  # noqa: ARG001
    """A file's lines by marker, read once for all hosts, and anew if time or size change.

    paramiko compares every two lines.
    """
    found: dict[str, _Lines] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        words = " ".join(line.split())
        marker, _, rest = words.partition(" ") if words.startswith("@") else ("", "", words)
        first, *key = rest.split(None, 1) or ["#"]
        if first.startswith("#") or not key:
            continue
        names, lines = first.split(","), found.setdefault(marker, _Lines())
        if any(name.startswith("|") or set("*?!") & set(name) for name in names):
            lines.others.append((names, f"- {key[0]}"))
        else:
            for name in names:
                lines.plain.setdefault(name, []).append(f"- {key[0]}")
    return found


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


def configured_trust(trust: Trust, configured: HostConfig) -> Trust:
    """The trust in a host's keys by what ssh_config says about known_hosts files.

    Its UserKnownHostsFile stands for ``~/.ssh/known_hosts``, and for no other file that a run names. The files of all
    users (GlobalKnownHostsFile) are read besides.
    """
    files = trust.known_hosts
    if files == (local_path("~/.ssh/known_hosts"),) and configured.get("userknownhostsfile"):
        files = tuple(map(Path, configured.files("userknownhostsfile") or [os.devnull]))
    of_all = configured.files("globalknownhostsfile") if configured.get("globalknownhostsfile") else _OF_ALL_USERS
    can_add = files[0].is_file() or not files[0].exists()
    files += tuple(file for file in map(Path, of_all) if file.is_file() and file not in files)
    revoked = tuple(map(local_path, configured.files("revokedhostkeys")))
    return Trust(files, accept_new=trust.accept_new and can_add, revoked=revoked)


def _revoked_everywhere(files: Sequence[Path]) -> list[paramiko.PKey]:
    """The keys in files of RevokedHostKeys, of which each line is a public key.

    Raises:
        HostKeyUnknown: a file is not there, cannot be read, or is a KRL. As with ssh, no host is trusted then.
    """
    found = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
            if text.startswith("SSHKRL"):
                raise OSError("it is a KRL")
        except (OSError, UnicodeDecodeError) as error:
            raise HostKeyUnknown(
                f"{file}, which RevokedHostKeys names, cannot be read as lines of public keys",
                detail=str(error),
                hint=f"write the revoked keys there as lines, as ssh-keyscan prints them: ls -l {join([str(file)])}",
            ) from error
        for line in text.splitlines():
            with suppress(paramiko.SSHException, InvalidHostKey):
                if entry := HostKeyEntry.from_line(f"- {line}"):
                    found.append(entry.key)
    return found


def _certificate_fault(key: paramiko.PKey, name: str, signers: Sequence[paramiko.PKey]) -> str:
    """Why a host is not known by its certificate; empty if it is."""
    if not key.public_blob:
        return "it has no certificate"
    return certificate_fault(key.public_blob.key_blob, name, signers, time.time())


class KnownKeys(paramiko.MissingHostKeyPolicy):
    """Accepts every key that known_hosts has for a host, and no other.

    paramiko's own check knows the first key of each type only.

    Args:
        where: the login as ``user@host:port``, for messages.
        name: the host's name in known_hosts.
    """

    def __init__(self, trust: Trust, where: str, name: str) -> None:
        self._files, self._accept_new, self._where, self._name = trust.known_hosts, trust.accept_new, where, name
        self._revoked = trust.revoked

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        """paramiko's hook, called with the key that the host has sent. The key of an unknown host may be added.

        Raises:
            HostKeyChanged: known_hosts has revoked the key, or has other keys for the host.
            HostKeyUnknown: known_hosts has no key for the host.
        """
        hostname = self._name
        files, sent = " ".join(map(str, self._files)), f"it sent {key.get_name()} {key.fingerprint}"
        revoked = _revoked_everywhere(self._revoked)
        if key in (*revoked, *revoked_keys(hostname, self._files)):
            where = " ".join(map(str, self._revoked)) if key in revoked else files
            raise HostKeyChanged(
                f"the host key of {self._where} is revoked in {where}",
                detail=sent,
                hint="give the host a new key: whoever has the revoked key can pretend to be this host",
            )
        if signers := [each for each in authorities(hostname, self._files) if each not in revoked]:
            fault = _certificate_fault(key, _without_port(hostname), signers)
            if not fault:
                return
            sent += f"; {fault}"
        known = known_keys(hostname, self._files)
        if not known and not self._accept_new:
            line = f"{hostname} {key.get_name()} {key.get_base64()}"
            add = f"{join(['echo', line])} >> {join([str(self._files[0])])}"
            hint = f"compare that fingerprint with the host's own, then add the key: {add}"
            if self._files[0] == Path(os.devnull):
                hint = "write into ~/.ssh/config, for this host: UserKnownHostsFile ~/.ssh/known_hosts"
            raise HostKeyUnknown(f"{files} has no key for {self._where}", detail=sent, hint=hint)
        if key not in (known or _add(self._files[0], hostname, key)):
            remove = join(("ssh-keygen", "-f", str(self._files[0]), "-R", hostname))
            raise HostKeyChanged(
                f"the host key of {self._where} is not the one in {files}",
                detail=sent,
                hint=f"find out why; if the host was rebuilt, remove its old lines: {remove}",
            )


def _add(file: Path, hostname: str, key: paramiko.PKey) -> list[paramiko.PKey]:
    """Appends one line under a lock. paramiko's own saving rewrites the file and loses lines of other processes.

    Returns:
        The keys that the file then has for the host. If another connection has added some meanwhile, none is added.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _APPEND, file.open("a+b") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        if known := known_keys(hostname, [file]):
            return known
        opened.seek(max(0, opened.seek(0, os.SEEK_END) - 1))
        line = f"{hostname} {key.get_name()} {key.get_base64()}\n"
        if opened.read(1) not in (b"\n", b""):  # the last line has no end
            line = f"\n{line}"
        opened.write(line.encode())
    return [key]
