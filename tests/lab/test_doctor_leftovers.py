"""`fab doctor` finds what a killed run left, and `--clean` removes that and nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from doctoring import RUN, doctor, seen
from ferry import Fab, Stage, eventually, has_cri, leftovers

from lab.fleet import Node
from lab.images import build

PULL = "ctr-ferry.20260101T000000Z-pull-dead"


@pytest.fixture
def mess(stage: Stage, tmp_path: Path) -> Iterator[str]:
    """What a run that was killed in its middle may leave on every node, in a namespace of this test."""
    namespace, image = stage.namespace(), build(tmp_path, seed=11)

    def one(node: Node) -> None:
        on_its_way = f"{stage.name().rpartition(':')[0]}:{PULL}@{image.target.digest}"
        ours = ("ctr-ferry.invalid/ctr-ferry.x:0", on_its_way, stage.name())
        stage.seed(image, *ours, namespace=namespace, nodes=[node])
        labels = (f"containerd.io/gc.root={RUN}", f"containerd.io/gc.ref.content.{RUN}.0={image.target.digest}")
        node.real_ctr("content", "label", next(iter(image.configs.values())), *labels, namespace=namespace)
        ingest = shlex.join(node.real_ctr_argv("content", "ingest", f"{RUN}-0123", namespace=namespace))
        node.exec(["sh", "-c", f"umask 077; echo PEM >/tmp/{RUN}.a1B2c3"])
        node.exec(
            ["sh", "-c", f"(head -c 9000 /dev/zero; exec sleep 1) | {{ {ingest} <&3 & sleep 0.5; kill -9 $!; }} 3<&0"]
        )

    stage.on_each(one)
    yield namespace

    def end(node: Node) -> None:
        ingest = shlex.join(node.real_ctr_argv("content", "ingest", f"{RUN}-0123", namespace=namespace))
        node.exec(["sh", "-c", f"f=$(mktemp); {ingest} <$f; rm -f $f /tmp/{RUN}.a1B2c3"])

    stage.on_each(end)


class TestWhatAKilledRunLeft:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_is_found_and_stays_without_clean(self, fab: Fab, stage: Stage, mess: str) -> None:
        namespace = mess
        before = stage.on_each(lambda node: [line.split()[0] for line in leftovers(node, [namespace])])
        for words in ((), ("--clean", "--dry-run")):
            run = doctor(fab, ",".join(stage.nodes), *words)
            assert run.exit == 0
            for node in stage.nodes.values():
                text = seen(run, node.name)["leftovers"]["message"]
                assert f"{RUN}-0123" in text and "ctr-ferry.invalid" in text and "labels" in text, text
                assert f":{PULL}@sha256:" in text
                assert f"/tmp/{RUN}.a1B2c3" in text
        assert stage.on_each(lambda node: [line.split()[0] for line in leftovers(node, [namespace])]) == before

    def test_is_removed_by_clean_and_nothing_else_is(self, fab: Fab, stage: Stage, mess: str) -> None:
        namespace = mess
        run = doctor(fab, ",".join(stage.nodes), "--clean")
        assert (run.exit, set(run.statuses.values())) == (0, {"changed"})
        for node in stage.nodes.values():
            assert "removed" in seen(run, node.name)["leftovers"]["message"]
            assert not leftovers(node, [namespace])
            assert set(stage.records(node, namespace)) == {stage.name()}
            assert stage.check(node, stage.name(), namespace) == "complete"
        run = doctor(fab, ",".join(stage.nodes), "--clean")
        assert (run.exit, set(run.statuses.values())) == (0, {"ok"})

    def test_stays_while_another_run_works_on_the_host(self, fab: Fab, stage: Stage, mess: str) -> None:
        namespace = mess
        running = fab.start("-H", "node3", "run", "sleep 30")
        try:
            busy = "grep -l 'ferry-[0-9a-f]' /proc/[0-9]*/cmdline"
            node = stage.nodes["node3"]
            assert eventually(lambda: b"/proc/" in node.exec(["sh", "-c", busy], check=False).stdout)
            run = doctor(fab, "node3", "--clean")
            assert (run.exit, run.statuses) == (0, {"node3": "ok"})
            assert "at work" in seen(run, "node3")["leftovers"]["message"]
            assert leftovers(node, [namespace])
        finally:
            running.terminate()
            running.communicate()


def test_cris_record_of_a_killed_pull_goes_with_its_name(fab: Fab, few: Stage, tmp_path: Path) -> None:
    image = build(tmp_path, seed=12)
    name = f"r.example/{few.token}/app:{PULL}@{image.target.digest}"
    nodes = [node for node in few.nodes.values() if has_cri(node)]
    few.seed(image, name, nodes=nodes)
    for node in nodes:
        assert eventually(lambda n=node: len(few.records(n, digests=[image.target.digest])) == 2), node  # type: ignore[misc]
    run = doctor(fab, ",".join(node.name for node in nodes), "--clean")
    assert (run.exit, set(run.statuses.values())) == (0, {"changed"})
    for node in nodes:
        assert not few.records(node, digests=[image.target.digest]), node
