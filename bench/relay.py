"""A ProxyCommand that counts: `python -m bench.relay HOST PORT FILE` appends to FILE how many bytes it sent."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path

_CHUNK = 1 << 16


def main() -> None:
    """Relay until stdin ends. stdin ends at the latest with the process that started this one."""
    host, port, file = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # paramiko sends it, even twice, before the count is written
    with socket.create_connection((host, int(port))) as remote:
        threading.Thread(target=_back, args=(remote,), daemon=True).start()
        sent = 0
        try:
            while data := os.read(0, _CHUNK):
                remote.sendall(data)
                sent += len(data)
        except OSError:
            pass
        finally:
            with Path(file).open("a") as counts:
                counts.write(f"{sent}\n")


def _back(remote: socket.socket) -> None:
    try:
        while data := remote.recv(_CHUNK):
            os.write(1, data)
    finally:
        os.close(1)


if __name__ == "__main__":
    main()
