"""The device name of a terminal is the one that our shell on it printed, whatever others write to it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ctr_ferry.errors import MethodUnsupported
from ctr_ferry.ssh import terminal

FORGED = "/dev/pts/9"


class Channel:
    """A shell on a terminal, to which another user of the host writes, too."""

    def __init__(self, device: str) -> None:
        self._device, self._output, self.line = device, [b"Welcome\r\n"], ""

    def get_pty(self, term: str) -> None:
        assert term == "dumb"

    def settimeout(self, _: float) -> None:
        pass

    def exec_command(self, line: str) -> None:
        self.line = line
        start_marker = re.findall("echo ([0-9a-f]+)", line)[0]
        self._output += [f"{start_marker}\r\n{FORGED}\r\n{start_marker} {FORGED}\r\n".encode()]

    def sendall(self, data: bytes) -> None:
        word = data.decode().strip()
        assert word not in self.line
        self._output += [f"{FORGED}\r\n{word}".encode(), f" {self._device}\r\n".encode()]

    def recv(self, _: int) -> bytes:
        return self._output.pop(0) if self._output else b""


def test_a_terminal_has_the_device_name_that_its_shell_prints() -> None:
    assert terminal.open_terminal(cast(Any, Channel("/dev/pts/3")), 60, 5.0).device == "/dev/pts/3"


@pytest.mark.parametrize("device", ["", "not a tty", "/dev/../tmp/x"])
def test_a_device_name_that_is_no_terminals_is_refused(device: str) -> None:
    with pytest.raises(MethodUnsupported, match="tty"):
        terminal.open_terminal(cast(Any, Channel(device)), 60, 5.0)


def test_a_host_that_prints_a_byte_now_and_then_gets_no_more_time_to_open_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = 0.0

    class Slow(Channel):
        def recv(self, _: int) -> bytes:
            nonlocal seconds
            seconds += 1.0
            return b"x"

    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: seconds))
    with pytest.raises(TimeoutError):
        terminal.open_terminal(cast(Any, Slow("/dev/pts/3")), 60, 5.0)
    assert seconds == 5.0
