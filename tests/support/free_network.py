"""A network on loopback for a fleet of the tests. No other fleet of this machine has it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from lab.fleet import LabError
from lab.layout import MODELS, PORT

FIRST = 10  # the third number of the first worker's network
APART = 40  # networks between two workers
BESIDE = (0, 1, 10, 11)  # a fleet's own network, the network of a second fleet, and the networks of two crowds
_ABREAST = (256 - FIRST) // APART  # how many workers fit between 127.K.0 and 127.K.255
_CLAIM = 254  # the last number of an address that no node has; the process that binds it has the network


def wanted(worker: int, second: int) -> str:
    """Return the first three numbers of a worker's network, where 127.SECOND is the first possible beginning."""
    return f"127.{second + worker // _ABREAST}.{FIRST + APART * (worker % _ABREAST)}"


def beside(network: str) -> str:
    """Return the network of a second fleet beside one."""
    loopback, _, third = network.rpartition(".")
    return f"{loopback}.{int(third) + 1}"


@contextmanager
def free_network(worker: int, seconds: Iterator[int] | range = range(200)) -> Iterator[str]:
    """Reserve the first free network of a worker in 127.0, 127.1 and so on, for the block.

    Args:
        worker: the worker's number, from 0 on.
        seconds: the second numbers to try.

    Raises:
        LabError: no network is free.
    """
    for second in seconds:
        network = wanted(worker, second)
        with socket.socket() as claim:
            if _takes(claim, f"{network}.{_CLAIM}") and all(map(_is_free, _addresses(network))):
                yield network
                return
    raise LabError(f"every network of loopback has a fleet: stop one with make lab-down (port {PORT} is taken)")


def _addresses(network: str) -> list[str]:
    loopback, _, third = network.rpartition(".")
    return [f"{loopback}.{int(third) + more}.{number}" for more in BESIDE for number in MODELS]


def _is_free(address: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that has just ended does not count
        return _takes(probe, address)


def _takes(probe: socket.socket, address: str) -> bool:
    """Bind a socket; tell whether the address was free."""
    try:
        probe.bind((address, PORT))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise LabError(f"cannot bind {address}:{PORT}: {error.strerror}") from error
        return False
    return True
