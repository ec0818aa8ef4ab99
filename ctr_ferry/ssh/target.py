"""Values that a connection is made of: where a host is, how to log in, which keys to trust, and time limits."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from ctr_ferry.errors import UsageError
from ctr_ferry.secrets import Secret
from ctr_ferry.ssh.local_path import local_path

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a host. All but ``retries`` are times in seconds.

    Attributes:
        connect: for each of TCP, greeting and login.
        retries: how often a refused connection is tried again, within ``connect`` seconds.
        probe: for a remote command that only asks what every command must know.
        command: for a remote command that moves or unpacks content.
        idle: without a byte, heartbeats included, after which a host counts as gone.
        registry: without progress, after which a registry counts as gone.
    """

    connect: int = 10
    retries: int = 3
    probe: int = 120
    command: int = 3600
    idle: int = 60
    registry: int = 120


@dataclass(frozen=True, slots=True)
class Trust:
    """Which host keys are trusted.

    Attributes:
        known_hosts: files that are read. New keys are added to the first file.
        accept_new: whether the key of an unknown host is accepted and added, rather than refused.
        revoked: files with public keys that are never accepted, of whatever host.
    """

    known_hosts: tuple[Path, ...] = (local_path("~/.ssh/known_hosts"),)
    accept_new: bool = False
    revoked: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """One host. Where a field is None, ssh_config or Fabric's defaults decide.

    Attributes:
        name: the host's name in the inventory or on the command line.
        become: whether everything runs through sudo. Otherwise sudo is used only if the login user's rights are not
            enough.
        gateway: a jump host, or a ProxyCommand; empty for none, whatever ssh_config says.
        variables: further values of the inventory by their type, for other rooms; `variables_of` reads them.
    """

    name: str
    address: str
    port: int | None = None
    user: str | None = None
    key_file: Path | None = None
    password: Secret | None = None
    become: bool = False
    become_password: Secret | None = None
    gateway: Target | str | None = None
    trust: Trust = field(default_factory=Trust)
    limits: Limits = field(default_factory=Limits)
    variables: Mapping[type, object] = field(default_factory=dict, hash=False)

    def variables_of(self, kind: type[_T]) -> _T:
        """What the inventory says about one subject, such as the host's ctr; without an entry, ``kind()``."""
        found = self.variables.get(kind)
        return found if isinstance(found, kind) else kind()

    def behind(self, hops: str) -> Target:
        """The same host behind gateways. They get no password of it. Their keys are checked against the same files.

        Args:
            hops: the value of ``-J`` or ProxyJump: ``user@host:port`` or ``ssh://user@host:port``, the first hop first,
                separated by commas.

        Raises:
            UsageError: a port is not a port number.
        """
        gateway: Target | None = None
        for hop in hops.split(","):
            user, host, port = parse_address(hop.strip().removeprefix("ssh://").rstrip("/"))
            gateway = Target(
                hop, host, port, user, self.key_file, gateway=gateway, trust=self.trust, limits=self.limits
            )
        return replace(self, gateway=gateway)


def is_address(text: str) -> bool:
    """Whether a text is a host's name or address alone, without user, port and brackets."""
    if ":" not in text:
        return bool(text) and not re.search(r"^-|[\s@/\[\]]", text)
    with contextlib.suppress(ValueError):
        return ip_address(text).version == 6
    return False


def parse_address(text: str) -> tuple[str | None, str, int | None]:
    """Splits ``user@host:port`` into its parts; ``[::1]:22`` and a bare ``::1`` are IPv6 addresses.

    Raises:
        UsageError: the port is not a port number.
    """
    user, at, rest = text.rpartition("@")
    host, colon, port = rest.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")) or rest.endswith("]"):
        return user if at else None, rest.strip("[]"), None
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(
            f"{text!r} has no port number after its last ':'",
            hint=f"write a port from 1 to 65535, with {text.rpartition(':')[0]}:22 in place of {text}",
        )
    return user if at else None, host.strip("[]"), int(port)
