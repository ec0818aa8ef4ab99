"""The memory that answers of hosts may take: of one host, and of all hosts of the process together.

Each host has a share of its own, whatever other hosts print. Beyond its share it may take what is free.
"""

from __future__ import annotations

import threading

from ctr_ferry.errors import AnswerTooLarge

MOST_OF_ONE = 16 << 20  # bytes of one answer: 50,000 images list in about 12 MiB, and parsed they take six times that
_MOST_OF_ALL = 128 << 20  # bytes of the answers of all hosts together
_ALWAYS_ALLOWED = 2 << 20  # bytes that the share of a host has at least


class AnswerMemory:
    """Counts the bytes of answers. A host's longest answer counts until the work on that host is done."""

    def __init__(self, most: int = _MOST_OF_ALL) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._reserved: dict[str, int] = {}
        self._share = _ALWAYS_ALLOWED

    def divide(self, hosts: int) -> None:
        """Gives each of so many hosts its share."""
        self._share = max(_ALWAYS_ALLOWED, self._most // max(hosts, 1))

    def reserve(self, host: str, size: int) -> None:
        """Counts an answer of a host that has grown to ``size`` bytes.

        Raises:
            AnswerTooLarge: the answer is too long by itself, or longer than the host's share and nothing else is free.
        """
        if size > MOST_OF_ONE:
            raise AnswerTooLarge(
                f"{host} printed more than {MOST_OF_ONE >> 20} MiB in answer to one question; the rest was not read",
                hint="a namespace there may have very many names: fab -H HOST doctor",
            )
        with self._lock:
            before = self._reserved.get(host, 0)
            if size <= before:
                return
            if size > self._share and sum(self._reserved.values()) + size - before > self._most:
                raise AnswerTooLarge(
                    f"{host} printed more than {size >> 20} MiB, and the answers of all hosts together may have "
                    f"{self._most >> 20} MiB",
                    hint="this host printed more than its share: run it on fewer hosts at once, such as --serial 1",
                )
            self._reserved[host] = size

    def free(self, host: str) -> None:
        """Stops counting the answers of a host."""
        with self._lock:
            self._reserved.pop(host, None)


MEMORY = AnswerMemory()  # of this process
