"""The rehearsal fleet for tests: the one that is up, or one that lives as long as the session."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ferry import Fab, Stage
from forkserver import ForkServer
from free_network import APART, free_network
from registry_scene import RegistryScene

from lab import debian
from lab.fleet import STATE, Fleet, LabError, Node
from lab.registries import Registries
from lab.standing import StandingRegistries

SENTENCE = "why the fleet does not come up"


def _stop(sentence: str, config: pytest.Config) -> None:
    """End the whole session with one sentence, rather than with an error for each test."""
    if hasattr(config, "workeroutput"):
        config.workeroutput[SENTENCE] = sentence  # a worker's own last words are not shown
    pytest.exit(sentence, returncode=2)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Ends the session with the sentence of a worker that has ended."""
    if sentence := getattr(node, "workeroutput", {}).get(SENTENCE):
        pytest.exit(sentence, returncode=2)


def pytest_collection_finish() -> None:
    """Thousands of tests are no garbage, and need not be looked through for it again and again."""
    gc.freeze()


@contextmanager
def _network(state: Path, worker: int) -> Iterator[str]:
    """The network of a worker's fleet: where it is up already, what CTR_FERRY_LAB says, or a free one."""
    _, _, given = os.environ.get("CTR_FERRY_LAB", "").rpartition(":")
    if nodes := list(Fleet(state).nodes.values()):
        yield nodes[0].address.rpartition(".")[0]
    elif given:
        loopback, _, third = given.rpartition(".")
        yield f"{loopback}.{int(third) + APART * worker}"
    else:
        with free_network(worker) as network:
            yield network


@pytest.fixture(scope="session")
def fleet(pytestconfig: pytest.Config) -> Iterator[Fleet]:
    """The rehearsal fleet, up; taken down at the end only if it was down before.

    Each worker has one of its own: in lab/.state, or the folder of CTR_FERRY_LAB=DIR:NETWORK, or one beside it. The
    registries that `make lab-up` brings along are set aside meanwhile.
    """
    if os.geteuid():
        pytest.skip("the rehearsal fleet needs root")
    try:
        debian.codename()
    except debian.Unavailable as why:
        pytest.skip(str(why))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    folder = os.environ.get("CTR_FERRY_LAB", f"{STATE}:").rpartition(":")[0]
    state = Path(folder + (f"-{worker}" if worker else ""))
    with ExitStack() as stack:
        try:
            fleet = Fleet(state, network=stack.enter_context(_network(state, worker)))
            if not fleet.nodes:
                stack.callback(fleet.down)
            fleet.up()
            if (standing := StandingRegistries(fleet)).down():
                stack.callback(standing.up)
        except LabError as why:
            with suppress(LabError):
                stack.close()
            _stop(f"the rehearsal fleet does not come up: {why}", pytestconfig)
        yield fleet


def _node(fleet: Fleet, name: str) -> Node:
    """Return a node, or skip the test where its suite cannot be had."""
    if name not in fleet.nodes:
        pytest.skip(f"the fleet has no {name}: {'; '.join(fleet.missing)}")
    return fleet.nodes[name]


@pytest.fixture(params=["node1", "node2", "node3", "node4", "node5"])
def node(fleet: Fleet, request: pytest.FixtureRequest) -> Node:
    """Each node in turn."""
    return _node(fleet, request.param)


@pytest.fixture
def node1(fleet: Fleet) -> Node:
    """ctr 1.2.6, or what CTR_FERRY_LEGACY names."""
    return _node(fleet, "node1")


@pytest.fixture
def node2(fleet: Fleet) -> Node:
    """containerd 1.4, no CRI."""
    return _node(fleet, "node2")


@pytest.fixture
def node3(fleet: Fleet) -> Node:
    """containerd 1.6, with the users ops and ops2."""
    return _node(fleet, "node3")


@pytest.fixture
def node4(fleet: Fleet) -> Node:
    """containerd 1.7, laid out like k3s."""
    return _node(fleet, "node4")


@pytest.fixture
def node5(fleet: Fleet) -> Node:
    """containerd 2.x, laid out like RKE2."""
    return _node(fleet, "node5")


@pytest.fixture(scope="session")
def registries(fleet: Fleet) -> Iterator[Registries]:
    """The lab's registries, up; the nodes know their names."""
    with Registries(fleet) as registries:
        yield registries


@pytest.fixture(scope="session")
def fab(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fab]:
    """The real `fab`, with the fleet's inventory."""
    with closing(ForkServer()) as server:
        yield Fab(fleet.inventory, tmp_path_factory.mktemp("home"), server)


@pytest.fixture
def stage(fleet: Fleet) -> Iterator[Stage]:
    """This test's own names on the fleet."""
    stage = Stage(fleet)
    yield stage
    stage.close()


@pytest.fixture
def few(fleet: Fleet) -> Iterator[Stage]:
    """A stage for what is no matter of versions: ctr without `tag`, with it, and with `--local`."""
    stage = Stage(fleet, "node1", "node3", "node5")
    yield stage
    stage.close()


@pytest.fixture
def scene(fab: Fab, stage: Stage, fleet: Fleet, registries: Registries, tmp_path: Path) -> RegistryScene:
    """This test among the nodes and the registries."""
    return RegistryScene(fab, stage, fleet, registries, tmp_path)
