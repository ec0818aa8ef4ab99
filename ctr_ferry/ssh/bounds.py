"""Bounds of what paramiko reads from a host. Without them any host could exhaust memory, before its key is checked."""

from __future__ import annotations

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.packet import Packetizer

_GREETING = 64 << 10  # bytes up to the line with the version of the host's ssh
_PACKET = 1 << 20  # bytes; sshd's own limit is 256 KiB
_COUNT = 100  # extensions, or questions at once


class Packets(Packetizer):
    """paramiko's reader of packets, with a limit for a packet and for the greeting."""

    _greeted = 0

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Reads ``n`` bytes, as the host announced; raises SSHException if these are too many."""
        if n > _PACKET:
            raise paramiko.SSHException(f"the host announces a packet of {n} bytes")
        return super().read_all(n, check_rekey)

    def _read_timeout(self, timeout: float) -> bytes:
        """Reads some bytes of the greeting."""
        data = bytes(super()._read_timeout(timeout))  # type: ignore[misc]
        self._greeted += len(data)
        if self._greeted > _GREETING:
            raise paramiko.SSHException(", which has no end")  # paramiko puts "Error reading SSH protocol banner" first
        return data


class Authentication(AuthHandler):
    """paramiko's login, with a limit for the number of questions. A key that cannot sign ends no connection."""

    def _parse_service_accept(self, m: paramiko.Message) -> None:
        try:
            super()._parse_service_accept(m)  # type: ignore[misc]
        except paramiko.SSHException as error:
            self.transport.saved_exception = paramiko.AuthenticationException(str(error))
            self.abort()

    def _parse_userauth_info_request(self, m: paramiko.Message) -> None:
        for _ in ("title", "instructions", "language"):
            m.get_binary()
        demand_few(m.get_int())
        m.rewind()
        super()._parse_userauth_info_request(m)  # type: ignore[misc]


def demand_few(count: int) -> None:
    """Raises SSHException for a number of things that no honest host announces."""
    if count > _COUNT:
        raise paramiko.SSHException(f"the host announces {count} things at once")
