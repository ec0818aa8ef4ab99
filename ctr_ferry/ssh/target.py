"""Where a host is and how to log in there: the values that a connection is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from ctr_ferry.errors import UsageError
from ctr_ferry.secrets import Secret

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds.

    Attributes:
        connect: for TCP, greeting and login each.
        retries: how often a refused connection is tried again, within ``connect`` seconds.
        probe: for a remote command that only asks.
        command: for a remote command that moves or unpacks content.
        idle: without a byte, not even the guard's heartbeat, until a host counts as gone.
        registry: without progress, until a registry counts as gone.
    """

    connect: int = 10
    retries: int = 3
    probe: int = 120
    command: int = 3600
    idle: int = 60
    registry: int = 120


@dataclass(frozen=True, slots=True)
class Trust:
    """Which host keys are believed.

    Attributes:
        known_hosts: files that are read; the first is written to by ``accept_new``.
        accept_new: whether an unknown host's key is taken down rather than refused.
    """

    known_hosts: tuple[Path, ...] = (Path("~/.ssh/known_hosts").expanduser(),)
    accept_new: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """One host, by the name that the user gave it. None means: as ssh_config or Fabric's defaults say.

    Attributes:
        become: whether everything runs through sudo; else it is used only where the login user's rights do not do.
        gateway: a jump host, or a ProxyCommand.
        variables: what else the inventory says of the host, by the type that has it; `variables_of` reads them.
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
        """What the inventory says of one subject, such as the host's ctr.

        Args:
            kind: the type that has it; called without arguments, it has what is true of a host without variables.
        """
        found = self.variables.get(kind)
        return found if isinstance(found, kind) else kind()

    def behind(self, hops: str) -> Target:
        """The same host behind the hops of ``-J`` or ProxyJump: ``user@host:port``, the first one first.

        Each hop is trusted as the host is.

        Raises:
            UsageError: where a port is none.
        """
        gateway: Target | None = None
        for hop in hops.split(","):
            user, host, port = parse_address(hop.strip())
            gateway = replace(
                self,
                name=hop,
                address=host,
                port=port,
                user=user,
                password=None,
                become=False,
                become_password=None,
                gateway=gateway,
            )
        return replace(self, gateway=gateway)


def parse_address(text: str) -> tuple[str | None, str, int | None]:
    """Parts ``user@host:port``; ``[::1]:22`` and a bare ``::1`` are IPv6.

    Raises:
        UsageError: where the port is none.
    """
    user, at, rest = text.rpartition("@")
    host, colon, port = rest.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")) or rest.endswith("]"):
        return user if at else None, rest.strip("[]"), None
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} has no port number after its last ':'", hint="write it as host:22")
    return user if at else None, host.strip("[]"), int(port)
