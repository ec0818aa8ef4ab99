"""One blob on its way into a host's content store."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ctr_ferry.ctr import ingest
from ctr_ferry.ctr.failures import failure
from ctr_ferry.ctr.place import Place
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.shell import Script
from ctr_ferry.ssh.host import Host, Moved

_STEP = 1 << 20  # bytes between two reports of progress


class Progress:
    """How many bytes of ``total`` were sent to one host by all of its uploads; calls ``moved`` for each MiB."""

    def __init__(self, moved: Moved) -> None:
        self.sent = self.total = 0
        self._moved, self._lock = moved, threading.Lock()

    def add(self, size: int) -> None:
        """Counts bytes that were sent."""
        with self._lock:
            before, self.sent = self.sent, self.sent + size
        if before // _STEP != self.sent // _STEP or self.sent >= self.total:
            self._moved(self.sent, self.total)


class Upload:
    """One blob that is being sent; what `FanOut` calls a sink.

    Args:
        attempt: a number that no other upload of this owner has.
        sent: is called with the bytes that each write sent.
    """

    def __init__(self, host: Host, place: Place, blob: Descriptor, attempt: int, sent: Callable[[int], None]) -> None:
        self._host, self._blob, self._sent = host, blob, sent
        self._intake = ingest.intake(place, blob, attempt)
        limit = ingest.time_for(blob.size, host.target.limits.command)
        self._upload = host.upload(Script({"ingest": self._intake.step}), limit=limit)
        self._send(self._intake.head)

    def _send(self, data: bytes) -> bool:
        with self._host.lost_connection():
            return self._upload.write(data)

    def write(self, data: bytes) -> bool:
        """Sends data; returns False where the host takes no more."""
        taken = self._send(data)
        self._sent(len(data))
        return taken

    def end(self) -> None:
        """Waits until containerd has checked the blob and taken it in; raises why it did not."""
        self._send(self._intake.tail)
        with self._host.lost_connection():
            answer = self._upload.end()["ingest"]
        if not answer.ok:
            raise failure(answer, f"blob {self._blob.digest}")

    def cut(self) -> None:
        """Ends the command on the host."""
        self._upload.cut()
