"""A terminal on a host, for a program that reads a password from a terminal only.

The program runs in a script under the guard, like everything else. Only its stdin is the terminal. What is typed there
is on no command line and in no environment or file. The terminal ends with its channel.

Other users of the host may write to a terminal (write(1)). So its device name counts only if it follows a random word
that was typed into the terminal.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass

import paramiko

from ctr_ferry.errors import MethodUnsupported

_MOST = 1 << 16  # bytes that a login may print before the device name
_DEVICE = r"(/dev/[A-Za-z0-9]+(?:/[A-Za-z0-9]+)?)"


@dataclass(frozen=True, slots=True)
class Terminal:
    """An open terminal.

    Attributes:
        channel: the session on which it is open.
        device: its device name on the host, such as ``/dev/pts/3``.
    """

    channel: paramiko.Channel
    device: str

    def type(self, line: str) -> None:
        """Types a line. The terminal does not echo it."""
        self.channel.sendall(line.encode() + b"\n")


def open_terminal(channel: paramiko.Channel, limit: int, patience: float) -> Terminal:
    """Opens a terminal on the host.

    Args:
        channel: a new session.
        limit: seconds after which the host itself closes the terminal.
        patience: seconds in which the terminal must have opened.

    Raises:
        MethodUnsupported: sshd or the host has no terminal for us.
        TimeoutError: the terminal has not opened in time.
    """
    start_marker, word = secrets.token_hex(8), secrets.token_hex(16)
    try:
        channel.get_pty(term="dumb")
    except paramiko.SSHException as error:
        raise MethodUnsupported(
            "sshd there gives no terminal, and ctr reads a password from nothing else",
            hint="set PermitTTY yes for that user, or use a registry without a login",
        ) from error
    # `sleep` becomes the session's leader, so it ends with the channel: sshd then hangs up.
    asked = f'stty -echo; echo {start_marker}; IFS= read -r word; echo "$word $(tty)"; exec sleep {limit}'
    channel.exec_command(f"exec /bin/sh -c '{asked}'")
    deadline = time.monotonic() + patience
    _read_until(channel, deadline, rf"^{start_marker}\r*\n")  # after this line nothing is echoed
    channel.sendall(f"{word}\n".encode())
    return Terminal(channel, _read_until(channel, deadline, rf"^{word} {_DEVICE}\r*\n")[1].decode())


def _read_until(channel: paramiko.Channel, deadline: float, line: str) -> re.Match[bytes]:
    output = b""
    while not (found := re.search(line.encode(), output, re.MULTILINE)):
        if (left := deadline - time.monotonic()) <= 0:
            raise TimeoutError
        channel.settimeout(left)
        data = channel.recv(_MOST)
        output += data
        if not data or len(output) > _MOST:
            raise MethodUnsupported(
                "the host has no `tty`, so that no password can be typed there",
                hint="install tty there (coreutils or busybox), or use a registry without a login",
            )
    return found
