"""The tests find a network on loopback that no other fleet has, however many workers and clones there are."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import free_network as module
import pytest
from free_network import BESIDE, free_network, wanted

from lab.fleet import LabError

HERE = range(210, 213)  # second numbers that no fleet of this project has


@pytest.fixture(autouse=True)
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of this test's nodes, which no other test has meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as own:
        number = own.getsockname()[1]
        monkeypatch.setattr(module, "PORT", number)
        yield number


@pytest.fixture
def taken(port: int) -> Iterator[socket.socket]:
    """A socket that listens where another fleet's node2 would."""
    with socket.create_server((f"{wanted(0, HERE[0])}.2", port)) as server:
        yield server


def test_the_first_network_is_taken_where_nobody_listens() -> None:
    with free_network(0, HERE) as network:
        assert network == "127.210.10"


@pytest.mark.usefixtures("taken")
def test_a_network_with_somebody_else_s_node_is_passed_over() -> None:
    with free_network(0, HERE) as network:
        assert network == "127.211.10"


def test_two_that_search_at_once_get_different_networks() -> None:
    with free_network(0, HERE) as first, free_network(0, HERE) as second:
        assert (first, second) == ("127.210.10", "127.211.10")
    with free_network(0, HERE) as again:
        assert again == first


@pytest.mark.usefixtures("taken")
def test_without_a_free_network_one_sentence_says_so() -> None:
    with pytest.raises(LabError, match="every network of loopback has a fleet"), free_network(0, HERE[:1]):
        pass


def test_no_two_workers_share_a_network_nor_one_beside_it() -> None:
    networks = [wanted(worker, 0).rpartition(".") for worker in range(20)]
    used = [(loopback, int(third) + more) for loopback, _, third in networks for more in BESIDE]
    assert len(set(used)) == len(used)
    assert all(third < 256 for _, third in used)
