"""Where a host is and how to log in there: the values that a connection is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tasks.ctr.probe import Settings
from tasks.secrets import Secret


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds.

    Attributes:
        connect: for TCP, greeting and login each.
        probe: for a remote command that only asks.
        command: for a remote command that moves or unpacks content.
    """

    connect: int = 10
    probe: int = 120
    command: int = 3600


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
        ctr: the inventory's settings for this host's ctr.
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
    ctr: Settings = field(default_factory=Settings)
