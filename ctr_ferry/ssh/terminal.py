"""A terminal on a host, for a program there that takes a password from nothing else.

The program itself runs under the guard, as everything does, its output apart from its errors; of the terminal it has
its stdin alone. What we type there passes no command line, environment or file. The terminal ends with its channel.

Others may write to a terminal (write(1)): its name counts only behind a word that we typed, which nobody else knows.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator

import paramiko

from ctr_ferry.errors import MethodUnsupported

_MOST = 1 << 16  # bytes that a login may print before the device's name
_DEVICE = r"(/dev/[A-Za-z0-9]+(?:/[A-Za-z0-9]+)?)"


class Terminal:
    """A terminal that a host holds open.

    Attributes:
        device: its name there.
    """

    def __init__(self, channel: paramiko.Channel, device: str) -> None:
        self._channel = channel
        self.device = device

    def type(self, line: str) -> None:
        """Types a line, which nobody echoes."""
        self._channel.sendall(line.encode() + b"\n")


@contextlib.contextmanager
def open_terminal(channel: paramiko.Channel, limit: int, patience: float) -> Iterator[Terminal]:
    """Has the host hold a terminal open, for the block.

    Args:
        channel: a fresh session.
        limit: seconds after which the host lets go of it, should we not be there to do so.
        patience: seconds for it to appear.

    Raises:
        MethodUnsupported: sshd gives none.
    """
    start_marker, word = secrets.token_hex(8), secrets.token_hex(16)
    with contextlib.closing(channel):
        try:
            channel.get_pty(term="dumb")
        except paramiko.SSHException as error:
            raise MethodUnsupported(
                "sshd there gives no terminal, and ctr takes a password from nothing else",
                hint="set PermitTTY yes for that user, or use a registry without a login",
            ) from error
        # `sleep` becomes the session's leader: it ends when the channel does, since sshd then hangs up.
        asked = f'stty -echo; echo {start_marker}; IFS= read -r word; echo "$word $(tty)"; exec sleep {limit}'
        channel.exec_command(f"exec /bin/sh -c '{asked}'")
        channel.settimeout(patience)
        _heard(channel, rf"^{start_marker}\r*\n")  # from here on nothing is echoed
        channel.sendall(f"{word}\n".encode())
        yield Terminal(channel, _heard(channel, rf"^{word} {_DEVICE}\r*\n")[1].decode())


def _heard(channel: paramiko.Channel, line: str) -> re.Match[bytes]:
    detail = b""
    while not (found := re.search(line.encode(), detail, re.MULTILINE)):
        data = channel.recv(_MOST)
        detail += data
        if not data or len(detail) > _MOST:
            raise MethodUnsupported("the host has no `tty`, so that no password can be typed there")
    return found
