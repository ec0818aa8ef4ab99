"""The name of a terminal comes from nobody but the shell that holds it."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from ctr_ferry.errors import MethodUnsupported
from ctr_ferry.ssh import terminal

FORGED = "/dev/pts/9"


class Channel:
    """A shell on a terminal that another user of the host writes to as well."""

    def __init__(self, device: str) -> None:
        self._device, self._said, self.line = device, [b"Welcome\r\n"], ""

    def get_pty(self, term: str) -> None:
        assert term == "dumb"

    def settimeout(self, _: float) -> None:
        pass

    def close(self) -> None:
        pass

    def exec_command(self, line: str) -> None:
        self.line = line
        start_marker = re.findall("echo ([0-9a-f]+)", line)[0]
        self._said += [f"{start_marker}\r\n{FORGED}\r\n{start_marker} {FORGED}\r\n".encode()]

    def sendall(self, data: bytes) -> None:
        word = data.decode().strip()
        assert word not in self.line
        self._said += [f"{FORGED}\r\n{word}".encode(), f" {self._device}\r\n".encode()]

    def recv(self, _: int) -> bytes:
        return self._said.pop(0) if self._said else b""


def test_a_terminal_is_named_by_the_shell_that_holds_it() -> None:
    with terminal.open_terminal(cast(Any, Channel("/dev/pts/3")), 60, 5.0) as held:
        assert held.device == "/dev/pts/3"


@pytest.mark.parametrize("device", ["", "not a tty", "/dev/../tmp/x"])
def test_no_other_file_is_a_terminal(device: str) -> None:
    with pytest.raises(MethodUnsupported, match="tty"), terminal.open_terminal(cast(Any, Channel(device)), 60, 5.0):
        pass
