"""A ProxyCommand that counts: ``python -m bench.relay HOST PORT FILE`` adds the bytes that went out to FILE."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path

_CHUNK = 1 << 16


def main() -> None:
    """Relays until our stdin ends, as it does with the process that started us at the latest."""
    host, port, file = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # paramiko sends it, even twice, and the count would be lost
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
