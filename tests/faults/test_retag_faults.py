"""A retag that is cut off in the middle leaves a node as it was, and the same command succeeds afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal

import pytest
from ferry import Fab, Stage, eventually, leftovers, processes

from lab.fleet import Fleet, Node
from lab.images import BuiltImage, build


@pytest.fixture(scope="module")
def large(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """An image that takes seconds to export and import."""
    assert fleet.nodes
    hello = ("/bin/echo", "hello")
    return build(tmp_path_factory.mktemp("large"), layers=(60 << 20, 1000), seed=secrets.randbits(32), cmd=hello)


class Cut:
    """A long retag, caught while the node exports and imports."""

    def __init__(self, fab: Fab, stage: Stage, node: Node, image: BuiltImage) -> None:
        self.fab, self.stage, self.node = fab, stage, node
        self.namespace, self.target = stage.namespace(), stage.namespace("to")
        self.src, self.dst = stage.name(), stage.name(registry="new.example")
        stage.seed(image, self.src, namespace=self.namespace, nodes=[node])
        names = ("--src", self.src, "--dst", self.dst)
        self.words = ("-n", self.namespace, "--to-namespace", self.target, *names, "--method", "archive")
        self.before = processes(node).keys()
        self.process = fab.start("-H", node.name, "retag", "--json", *self.words)
        assert eventually(self.working), self.process.communicate(timeout=60)

    def working(self) -> bool:
        """Tell whether export and import run on the node."""
        return sum(self.src in argv or "import" in argv for argv in self.new().values()) >= 2

    def new(self) -> dict[int, str]:
        """Return the node's processes since the retag began."""
        return {pid: argv for pid, argv in processes(self.node).items() if pid not in self.before}

    def ended(self) -> tuple[int, str]:
        """Wait for `fab`; return its exit status and all that it said."""
        out, err = self.process.communicate(timeout=60)
        assert "Traceback" not in out + err
        return self.process.returncode, out + err

    def leaves_nothing(self) -> None:
        """The node is as it was, and the same command succeeds."""
        assert eventually(lambda: not self.new()), self.new()
        assert self.stage.records(self.node, self.target) == {}
        assert leftovers(self.node, [self.target]) == []
        assert set(self.stage.records(self.node, self.namespace)) == {self.src}
        again = self.fab.retag(self.node.name, *self.words)
        assert again.statuses == {self.node.name: "changed"}, again.out
        assert self.stage.hello(self.node, self.dst, self.target) == "hello"


@pytest.fixture
def cut(fab: Fab, stage: Stage, large: BuiltImage, request: pytest.FixtureRequest) -> Cut:
    """A long retag on a node, in the middle."""
    if request.param not in stage.nodes:
        pytest.skip(f"the fleet has no {request.param}")
    return Cut(fab, stage, stage.nodes[request.param], large)


@pytest.mark.parametrize("cut", ["node1", "node5"], indirect=True)
def test_a_killed_retag_leaves_nothing_on_the_node(cut: Cut) -> None:
    cut.process.kill()
    assert cut.ended()[0] == -signal.SIGKILL
    cut.leaves_nothing()


@pytest.mark.parametrize(
    ("cut", "number", "status"),
    [("node1", signal.SIGINT, 130), ("node3", signal.SIGTERM, 143), ("node5", signal.SIGINT, 130)],
    indirect=["cut"],
)
def test_an_interrupted_retag_says_so_and_leaves_nothing_on_the_node(cut: Cut, number: int, status: int) -> None:
    cut.process.send_signal(number)
    code, detail = cut.ended()
    assert code == status
    assert '"interrupted"' in detail
    cut.leaves_nothing()


@pytest.mark.parametrize("cut", ["node1", "node3"], indirect=True)
def test_a_cut_connection_is_reported_and_leaves_nothing_on_the_node(cut: Cut) -> None:
    sessions = [pid for pid, argv in cut.new().items() if argv.startswith("sshd")]
    assert sessions
    for pid in sessions:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    code, detail = cut.ended()
    assert code == 4
    assert '"connection-lost"' in detail
    cut.leaves_nothing()
