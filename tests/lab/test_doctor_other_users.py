"""Another user of a host neither has `fab doctor` run or remove anything, nor keeps it from cleaning."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from doctoring import RUN, doctor, seen
from ferry import Fab, Stage, leftovers

from lab.fleet import Fleet, Node
from lab.images import build

# Another user reads the marks of what runs, and plants an answer as the name of a file, and as lines of a log.
FORGER = r"""
while :; do
  for mark in $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -o 'ferry-[0-9a-f]*' | sort -u); do
    [ -e "/tmp/$mark" ] && continue
    : >"/tmp/$mark"
    n='
'
    : >"/tmp/ctr-ferry.x$n$n$mark end 0$n$n$mark begin ctr${n}sh -c id>pwned${n}ctr 1.6.20$n$n$mark end 0$n"
    : >"/tmp/ctr-ferry.y$n$n$mark end 0$n$n$mark begin held${n}namespace k8s.io${n}name @RECORD@$n$n$mark end 0$n"
    printf '\n%s end 0\n' "$mark" >>/tmp/@LOG@
  done
done
"""


@contextlib.contextmanager
def at_work(node: Node, shell: str, text: str) -> Iterator[None]:
    """The user ops2 of a node runs something."""
    argv = node.argv([shell, "-c", text], user="ops2")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def forger(stage: Stage, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A user of node3 who forges answers while we work; yields CRI's record of an image, and the log."""
    node, log = stage.nodes["node3"], f"{stage.token}.log"
    image, name = build(tmp_path, seed=12), stage.name()
    stage.seed(image, name, nodes=[node])
    (record,) = [each for each in stage.records(node, digests=[image.target.digest]) if each.startswith("sha256:")]
    text = FORGER.replace("@RECORD@", record).replace("@LOG@", log)
    try:
        with at_work(node, "sh", text):
            yield record, log
    finally:
        clean = "rm -f /tmp/ferry-* /tmp/ctr-ferry.[xy]* /tmp/$1 /root/pwned"
        node.exec(["sh", "-c", clean, "clean", log], check=False)


class TestAnotherUserOfTheHost:
    """Reads every command line there, and writes what we print."""

    @pytest.fixture
    def stage(self, fleet: Fleet) -> Iterator[Stage]:
        stage = Stage(fleet, "node3")
        yield stage
        stage.close()

    def test_can_have_nothing_run_or_removed_by_a_forged_answer(
        self, fab: Fab, stage: Stage, forger: tuple[str, str]
    ) -> None:
        record, node = forger[0], stage.nodes["node3"]
        for words in ((), ("--clean",), ("--clean",)):
            run = doctor(fab, "node3", *words)
            assert (run.exit, run.statuses) == (0, {"node3": "ok"})
            assert seen(run, "node3")["leftovers"]["message"] == "none"
        assert node.exec(["sh", "-c", "ls /tmp/ctr-ferry.x* | grep -c ."]).stdout.strip() != b"0"
        assert node.exec(["test", "-e", "/root/pwned"], check=False).returncode == 1
        assert record in stage.records(node, digests=[stage.records(node)[stage.name()].digest])

    def test_cannot_forge_how_a_command_ended(self, fab: Fab, forger: tuple[str, str]) -> None:
        run = fab("-H", "node3", "run", "--json", f"sleep 2; cat /tmp/{forger[1]}; exit 3")
        assert (run.exit, run.statuses) == (1, {"node3": "command-failed"})
        assert run.outcomes["node3"]["result"]["exit"] == 3
        assert " end 0\n" in run.outcomes["node3"]["result"]["stdout"]

    def test_cannot_keep_doctor_from_cleaning(self, fab: Fab, stage: Stage) -> None:
        """Not even by a program of root's that waits for a password."""
        node, line = stage.nodes["node3"], 'until [ "$l" = ferry-0123456789abcdef ]; do sleep 30; done; exit'
        for shell in ("sh", "su"):
            node.exec(["sh", "-c", f"umask 077; echo PEM >/tmp/{RUN}.a1B2c3"])
            with at_work(node, shell, line):
                run = doctor(fab, "node3", "--clean")
            assert (run.exit, run.statuses) == (0, {"node3": "changed"})
            assert not leftovers(node)


def test_a_label_that_forges_a_row_removes_no_gc_root_of_others(fab: Fab, few: Stage, tmp_path: Path) -> None:
    namespace, image = few.namespace(), build(tmp_path, seed=13)
    few.seed(image, few.name(), namespace=namespace)
    victim, other = image.target.digest, next(iter(image.configs.values()))

    def one(node: Node) -> None:
        node.real_ctr("content", "label", victim, "containerd.io/gc.root=theirs", namespace=namespace)
        row = f"x=\n{victim} 1 B 2 days containerd.io/gc.root={RUN}"
        node.real_ctr("content", "label", other, row, namespace=namespace)

    few.on_each(one)
    assert fab("-H", ",".join(few.nodes), "doctor", "--clean").exit in (0, 1)

    def theirs(node: Node) -> str:
        gc_rooted = 'labels."containerd.io/gc.root"==theirs'
        return node.real_ctr("content", "ls", "-q", gc_rooted, namespace=namespace).stdout.decode().strip()

    assert set(few.on_each(theirs).values()) == {victim}
