"""How much a host may make paramiko hold and count, which by itself has no bounds, also before a key is checked."""

from __future__ import annotations

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.packet import Packetizer

_GREETING = 64 << 10  # bytes, until the version of its ssh
_PACKET = 1 << 20  # bytes; sshd's own limit is 256 KiB
_COUNT = 100  # of extensions, and of questions at once


class Packets(Packetizer):
    """paramiko's reader of packets, within bounds."""

    _greeted = 0

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """So many bytes, as the host told.

        Raises:
            SSHException: too many of them.
        """
        if n > _PACKET:
            raise paramiko.SSHException(f"the host announces a packet of {n} bytes")
        return super().read_all(n, check_rekey)

    def _read_timeout(self, timeout: float) -> bytes:
        """Some bytes of the greeting."""
        self._greeted += len(detail := super()._read_timeout(timeout))  # type: ignore[misc]
        if self._greeted > _GREETING:
            raise paramiko.SSHException(", which has no end")  # behind "Error reading SSH protocol banner"
        return bytes(detail)


class Authentication(AuthHandler):
    """paramiko's login, within bounds."""

    def _parse_userauth_info_request(self, m: paramiko.Message) -> None:
        look = paramiko.Message(m.get_remainder())
        for _ in ("title", "instructions", "language"):
            look.get_binary()
        demand_few(look.get_int())
        super()._parse_userauth_info_request(m)  # type: ignore[misc]


def demand_few(count: int) -> None:
    """Refuses to count as far as a host tells.

    Raises:
        SSHException.
    """
    if count > _COUNT:
        raise paramiko.SSHException(f"the host announces {count} things at once")
