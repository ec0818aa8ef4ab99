"""How much of what hosts say is taken in: by one question, and by all hosts of the process together."""

from __future__ import annotations

import threading

from ctr_ferry.errors import AnswerTooLarge

MOST_OF_ONE = 16 << 20  # bytes of one answer; a listing of 50,000 images has about 12 MiB, and takes six times its size
_MOST_OF_ALL = 128 << 20  # bytes of all hosts' answers together
_ALWAYS_TAKEN = 2 << 20  # bytes that are taken of a host's answer, whatever the others said


class AnswerMemory:
    """What the answers of all hosts hold: of each host its longest one, until its next command begins."""

    def __init__(self, most: int = _MOST_OF_ALL) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._all = 0

    def reserve(self, host: str, size: int) -> None:
        """An answer of this host has grown to so many bytes.

        Raises:
            AnswerTooLarge: it is too long by itself, or there is no room left beside the other hosts' answers.
        """
        if size > MOST_OF_ONE:
            raise AnswerTooLarge(
                f"{host} printed more than {MOST_OF_ONE >> 20} MiB in answer to one question; the rest was not read",
                hint="look at it by hand with ssh: a namespace there may have very many names",
            )
        with self._lock:
            more = size - self._held.get(host, 0)
            if more <= 0:
                return
            if size > _ALWAYS_TAKEN and self._all + more > self._most:
                raise AnswerTooLarge(
                    f"{host} printed more than {size >> 20} MiB, and the answers of all hosts together may have "
                    f"{self._most >> 20}",
                    hint="run it on fewer hosts at once, with -H; the others are not to blame",
                )
            self._held[host] = size
            self._all += more

    def free(self, host: str) -> None:
        """What this host said is of no more use."""
        with self._lock:
            self._all -= self._held.pop(host, 0)


MEMORY = AnswerMemory()
