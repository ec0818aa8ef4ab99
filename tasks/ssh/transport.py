"""paramiko's transport, mended where large transfers over several channels need it."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import paramiko


class Transport(paramiko.Transport):
    """Prefers the ciphers that are fastest, and lives through new keys while channels come to their end.

    paramiko's own thread answers the end of a channel, and keepalives, with messages that wait until keys are
    negotiated, which that same thread would have to do: 30 s later it gives up the connection (seen with 5.1; new
    keys come every 512 MiB, or as sshd's RekeyLimit says). Here such messages are sent when the keys are there.
    """

    # Measured (ARCHITECTURE, Transport): AES-GCM needs no separate MAC; paramiko lists it last.
    _preferred_ciphers = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        *(name for name in vars(paramiko.Transport)["_preferred_ciphers"] if "-gcm" not in name),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._postponed: deque[paramiko.Message] = deque()
        super().__init__(*args, **kwargs)

    def _send_user_message(self, data: paramiko.Message) -> None:
        if threading.current_thread() is self and not self.clear_to_send.is_set():
            self._postponed.append(data)
        else:
            super()._send_user_message(data)  # type: ignore[misc]

    def _parse_newkeys(self, m: paramiko.Message) -> None:
        super()._parse_newkeys(m)  # type: ignore[misc]
        while self._postponed:
            self._send_message(self._postponed.popleft())  # type: ignore[attr-defined]
