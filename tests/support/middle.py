"""A copy that was caught in the middle, and what its nodes have then."""

from __future__ import annotations

import contextlib
import os
import signal

from ferry import Fab, Run, Stage, Started, eventually, leftovers, names_of, processes, release
from stalling import go_on, is_stalled

from lab.fleet import Node
from lab.images import NATIVE, BuiltImage


class Middle:
    """A copy in the middle: every destination has the small layer, and half a MiB of the large one is read."""

    def __init__(
        self,
        fab: Fab,
        stage: Stage,
        image: BuiltImage,
        source: Node,
        targets: list[Node],
        *,
        user: str,
        others: list[Node],
    ) -> None:
        self.fab, self.stage, self.image = fab, stage, image
        self.source, self.targets, self.user, self.others = source, targets, user, others
        self.name = stage.name()
        stage.seed(image, self.name, nodes=[source, *others])
        self.nodes = [source, *others, *targets]
        self.before = {node.name: processes(node).keys() for node in self.nodes}
        self.process = fab.start(
            "-H", ",".join(names_of(targets)), "copy", "--json", *self._words(f"{user}@{source.name}")
        )
        assert eventually(self.begun), self.process.communicate(timeout=60)

    def _words(self, source: str) -> tuple[str, ...]:
        more = [word for node in self.others for word in ("--from", node.name)]
        return ("--from", source, *more, "--ref", self.name)

    def begun(self) -> bool:
        """Tell whether it is in the middle."""
        stalled = is_stalled(self.source, self.user)
        return stalled and all(self.image.layers[NATIVE][0] in seen(node) for node in self.targets)

    def new(self, node: Node) -> dict[int, str]:
        """Return a node's processes since the copy began."""
        return {pid: argv for pid, argv in processes(node).items() if pid not in self.before[node.name]}

    def kill_sessions(self, node: Node) -> None:
        """End every SSH session of the copy on a node."""
        sessions = [pid for pid, argv in self.new(node).items() if argv.startswith("sshd")]
        assert sessions
        signal_all(sessions, signal.SIGKILL)

    def kill_read(self) -> None:
        """End the command that reads the large blob."""
        read = [pid for pid, argv in self.new(self.source).items() if "bin/cat" in argv]
        assert read
        signal_all(read, signal.SIGKILL)

    def again(self) -> Started:
        """Start the same copy once more, and wait until it is in the middle, too."""
        self.source.exec(["rm", f"/home/{self.user}/stalled"])
        words = self._words(f"{self.user}@{self.source.name}")
        second = self.fab.start("-H", ",".join(names_of(self.targets)), "copy", "--json", *words)
        assert eventually(self.begun), second.communicate(timeout=60)
        assert all(len(roots(target)) == 2 for target in self.targets)
        return second

    def go_on(self) -> None:
        """Let the source give the rest."""
        go_on(self.source, self.user)

    def ended(self) -> Run:
        """Wait for `fab`."""
        out, err = self.process.communicate(timeout=90)
        assert "Traceback" not in out + err
        return Run(self.process.returncode, out, err)

    def sent_once(self, run: Run) -> bool:
        """Tell whether each destination was sent each blob once."""
        total = sum(self.image.size(digest) for digest in set(self.image.blobs) - {self.image.target.digest})
        return all(outcome["result"]["bytes"] == total for outcome in run.outcomes.values())

    def leaves_nothing(self, *, named: tuple[str, ...] = ()) -> None:
        """No process, label, file or unfinished ingest of ours is on any node, and no half image."""
        for node in self.nodes:
            assert eventually(lambda n=node: not self.new(n)), self.new(node)  # type: ignore[misc]
            assert eventually(lambda n=node: leftovers(n) == []), leftovers(node)  # type: ignore[misc]
        for target in self.targets:
            assert set(self.stage.records(target)) == ({self.name} if target.name in named else set()), target

    def succeeds_again(self, *targets: Node, saved: bool = True) -> None:
        """The same command succeeds, and goes on from what arrived.

        From ctr 1.7 on a broken import brings a collection of its own, which a slow host may begin late.
        """
        layers = self.image.layers[NATIVE]
        arrived = {target.name: [digest for digest in layers if digest in seen(target)] for target in targets}
        again = self.fab("-H", ",".join(names_of(targets)), "copy", "--json", *self._words(self.source.name))
        assert again.statuses == dict.fromkeys(names_of(targets), "changed"), again.out
        for target in targets:
            assert again.image(target.name)["bytes_there"] >= sum(map(self.image.size, arrived[target.name])), again.out
            assert layers[0] in arrived[target.name] or not saved or release(target) >= (1, 7), target
            assert self.stage.hello(target, self.name) == "hello"
            assert leftovers(target) == []


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal to processes that may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def roots(node: Node) -> list[str]:
    """Return the blobs that runs of ours have labelled as roots."""
    lines = node.real_ctr("content", "ls").stdout.decode().splitlines()
    return [line.split()[0] for line in lines if "containerd.io/gc.root=ctr-ferry" in line]


def seen(node: Node) -> set[str]:
    """Return the digests that k8s.io of a node sees."""
    return set(node.real_ctr("content", "ls", "-q").stdout.decode().split())
