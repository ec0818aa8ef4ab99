"""A copy that is disturbed in the middle reports the right error, leaves nothing, and the next run goes on."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ferry import Fab, Stage, eventually, flipped, leftovers, names_of, processes
from middle import Middle, roots, seen, signal_all
from stalling import LARGE, stalling

from ctr_ferry.text import size
from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build


@pytest.fixture
def image(fleet: Fleet, tmp_path: Path) -> BuiltImage:
    """A small layer and a large one, which nobody has had before."""
    assert fleet.nodes
    return build(tmp_path, layers=(1000, LARGE), cmd=("/bin/echo", "hello"), seed=secrets.randbits(32))


def lasting(node: Node) -> set[int]:
    """Return a node's processes but those that a guard starts anew every some seconds."""
    return {pid for pid, argv in processes(node).items() if not argv.startswith("sleep ")}


Begin = Callable[..., Middle]


@pytest.fixture
def begin(fab: Fab, stage: Stage, image: BuiltImage) -> Iterator[Begin]:
    """Start a copy from a node to others, by their names, and catch it in the middle."""
    with contextlib.ExitStack() as stack:

        def start(source: str, *targets: str, others: tuple[str, ...] = ()) -> Middle:
            if not {source, *targets, *others} <= set(stage.nodes):
                pytest.skip(f"the fleet lacks one of {source}, {', '.join((*targets, *others))}")
            node, *further = (stage.nodes[name] for name in (source, *others))
            user = stack.enter_context(stalling(node))
            to = [stage.nodes[name] for name in targets]
            middle = Middle(fab, stage, image, node, to, user=user, others=further)
            stack.callback(middle.process.communicate)
            stack.callback(middle.process.kill)
            return middle

        yield start


@pytest.mark.parametrize(
    ("number", "status", "targets"),
    [
        (signal.SIGKILL, -signal.SIGKILL, ("node1", "node2", "node4", "node5")),
        (signal.SIGINT, 130, ("node1", "node4")),
        (signal.SIGTERM, 143, ("node2", "node5")),
    ],
)
def test_an_interrupted_copy_leaves_nothing_and_the_next_one_goes_on_with_every_ctr(
    begin: Begin, number: int, status: int, targets: tuple[str, ...]
) -> None:
    middle = begin("node3", *targets)
    middle.process.send_signal(number)
    run = middle.ended()
    assert run.exit == status
    if number != signal.SIGKILL:
        assert set(run.statuses.values()) == {"interrupted"}
    middle.leaves_nothing()
    middle.succeeds_again(*middle.targets)


@pytest.mark.parametrize(("number", "cut"), [(signal.SIGINT, "second"), (signal.SIGKILL, "first")])
def test_two_runs_with_one_image_for_one_host_do_not_disturb_each_other(
    begin: Begin, tmp_path: Path, number: int, cut: str
) -> None:
    middle = begin("node3", "node1", "node2", "node4", "node5")
    bystander = build(tmp_path / "bystander", layers=(1000,), seed=secrets.randbits(32))
    middle.stage.seed(bystander, middle.stage.name("bystander"), nodes=middle.targets)
    second = middle.again()
    first = middle.process
    ended, middle.process = (first, second) if cut == "first" else (second, first)
    ended.send_signal(number)
    ended.communicate(timeout=90)
    for target in middle.targets:
        assert eventually(lambda n=target: len(roots(n)) == 1), roots(target)  # type: ignore[misc]
        target.real_ctr("images", "rm", "--sync", middle.stage.name("bystander"))
        assert middle.image.layers[NATIVE][0] in seen(target), "what the other run has brought is still held"
    middle.go_on()
    run = middle.ended()
    assert run.statuses == dict.fromkeys(names_of(middle.targets), "changed"), run.out
    assert all(middle.stage.hello(target, middle.name) == "hello" for target in middle.targets)
    middle.leaves_nothing(named=tuple(names_of(middle.targets)))


def test_a_stalled_upload_of_another_run_does_not_delay_a_copy(begin: Begin, stage: Stage, tmp_path: Path) -> None:
    middle = begin("node4", "node1", "node2", "node3")
    other = build(tmp_path / "other", layers=(1000, 2000), cmd=("/bin/echo", "other"), seed=secrets.randbits(32))
    stage.seed(other, stage.name("other"), nodes=[stage.nodes["node5"]])
    there = {target.name: lasting(target) for target in middle.targets}
    run = middle.fab(
        "-H", ",".join(names_of(middle.targets)), "copy", "--json", "--from", "node5", "--ref", stage.name("other")
    )
    assert run.statuses == dict.fromkeys(names_of(middle.targets), "changed"), run.out
    for target in middle.targets:
        assert not run.image(target.name)["notes"]
        assert eventually(lambda n=target: lasting(n) <= there[n.name]), processes(target)  # type: ignore[misc]
        assert stage.hello(target, stage.name("other")) == "other"
    middle.go_on()
    first = middle.ended()
    assert first.statuses == dict.fromkeys(names_of(middle.targets), "changed"), first.out
    assert all(stage.hello(target, middle.name) == "hello" for target in middle.targets)
    assert [leftovers(target) for target in middle.targets] == [[]] * 3


def test_a_source_that_dies_is_reported_and_the_next_run_goes_on(begin: Begin) -> None:
    middle = begin("node2", "node3", "node5")
    middle.kill_sessions(middle.source)
    run = middle.ended()
    assert (run.exit, set(run.statuses.values())) == (1, {"source-lost"})
    assert "node2" in run.error["message"]
    middle.leaves_nothing()
    middle.succeeds_again(*middle.targets)


def test_where_one_of_two_sources_dies_the_other_gives_the_rest(begin: Begin) -> None:
    middle = begin("node2", "node1", "node5", others=("node3",))
    middle.kill_sessions(middle.source)
    run = middle.ended()
    assert run.statuses == {"node1": "changed", "node5": "changed"}, run.out
    assert middle.sent_once(run)
    middle.leaves_nothing(named=("node1", "node5"))


def test_a_source_whose_read_is_killed_gives_the_rest_to_all_hosts_together(begin: Begin) -> None:
    middle = begin("node2", "node3", "node4")
    middle.kill_read()
    middle.go_on()
    run = middle.ended()
    assert run.statuses == {"node3": "changed", "node4": "changed"}, run.out
    assert middle.sent_once(run)
    middle.leaves_nothing(named=("node3", "node4"))


def test_a_destination_that_dies_is_reported_and_the_others_get_all(begin: Begin) -> None:
    middle = begin("node3", "node1", "node2", "node4")
    dying = middle.targets[1]
    middle.kill_sessions(dying)
    assert eventually(lambda: not middle.new(dying)), middle.new(dying)
    middle.go_on()
    run = middle.ended()
    assert run.statuses == {"node1": "changed", "node2": "connection-lost", "node4": "changed"}
    assert run.exit == 4
    middle.leaves_nothing(named=("node1", "node4"))
    assert all(middle.stage.hello(middle.targets[n], middle.name) == "hello" for n in (0, 2))
    middle.succeeds_again(dying)


def test_a_containerd_that_is_restarted_in_the_middle_gets_the_rest_all_the_same(begin: Begin) -> None:
    middle = begin("node3", "node1", "node2", "node4", "node5")
    middle.stage.on_each(Node.restart_containerd, middle.targets)
    middle.go_on()
    run = middle.ended()
    assert run.statuses == dict.fromkeys(names_of(middle.targets), "changed"), run.out
    middle.leaves_nothing(named=tuple(names_of(middle.targets)))
    assert all(middle.stage.hello(target, middle.name) == "hello" for target in middle.targets)


def test_a_containerd_that_stays_down_is_reported_and_doctor_cleans_its_leftovers(begin: Begin) -> None:
    middle = begin("node3", "node2", "node4")
    down = middle.targets[1]
    down.stop_containerd()
    try:
        middle.go_on()
        run = middle.ended()
        assert run.statuses == {"node2": "changed", "node4": "daemon-unreachable"}, run.out
        assert run.exit == 1
        assert eventually(lambda: not middle.new(down)), middle.new(down)
    finally:
        down.start_containerd()
    assert middle.stage.records(down) == {}
    assert len(roots(down)) == 1, "for all that another run knows, it is still at work"
    assert middle.fab("-H", "node4", "doctor", "--clean").exit == 0
    assert leftovers(down) == []
    middle.succeeds_again(down)


def test_an_image_that_is_removed_at_the_source_in_the_middle_is_reported(begin: Begin) -> None:
    middle = begin("node2", "node1", "node4")
    middle.source.real_ctr("images", "rm", "--sync", middle.name)
    middle.go_on()
    run = middle.ended()
    assert (run.exit, set(run.statuses.values())) == (1, {"content-missing"}), run.out
    middle.leaves_nothing()
    middle.stage.seed(middle.image, middle.name, nodes=[middle.source])
    middle.succeeds_again(*middle.targets)


def test_a_blob_that_vanishes_at_the_destination_is_sent_once_more(begin: Begin) -> None:
    middle = begin("node3", "node1", "node2", "node4")
    for target in middle.targets:
        target.real_ctr("content", "rm", middle.image.layers[NATIVE][0])
    middle.go_on()
    run = middle.ended()
    assert run.statuses == dict.fromkeys(names_of(middle.targets), "changed"), run.out
    middle.leaves_nothing(named=tuple(names_of(middle.targets)))
    assert all(middle.stage.hello(target, middle.name) == "hello" for target in middle.targets)


@pytest.mark.parametrize("source", ["node1", "node4"])  # between them, every version is a destination
def test_a_flipped_byte_at_the_source_never_becomes_an_image(
    fab: Fab, stage: Stage, image: BuiltImage, source: str
) -> None:
    if source not in stage.nodes:
        pytest.skip(f"the fleet has no {source}")
    node = stage.nodes[source]
    targets = [other for other in stage.nodes.values() if other.name != node.name]
    stage.seed(image, stage.name(), nodes=[node])
    wrong = image.layers[NATIVE][1]
    words = ("-H", ",".join(names_of(targets)), "copy", "--json", "--from", node.name, "--ref", stage.name())
    with flipped(node, wrong):
        run = fab(*words)
    assert run.statuses == dict.fromkeys(names_of(targets), "content-corrupt"), run.out
    assert run.exit == 1
    assert wrong in run.error["message"] and node.name in run.error["message"]
    for target in targets:
        assert stage.records(target) == {}
        assert wrong not in seen(target)
        assert leftovers(target) == []
    again = fab(*words)
    assert again.statuses == dict.fromkeys(names_of(targets), "changed"), again.out
    assert stage.on_each(lambda n: stage.hello(n, stage.name()), targets) == dict.fromkeys(names_of(targets), "hello")


def test_a_full_disk_is_reported_and_with_space_the_next_run_goes_on(
    fab: Fab, stage: Stage, image: BuiltImage, node3: Node, node2: Node
) -> None:
    stage.seed(image, stage.name(), nodes=[node3])
    words = ("-H", "node2,node4", "copy", "--json", "--from", "node3", "--ref", stage.name())
    with small_store(node2, "size=64m,nr_inodes=12") as enlarge:  # what df does not tell of
        run = fab(*words)
        assert run.statuses == {"node2": "disk-full", "node4": "changed"}, run.out
        assert run.exit == 1
        assert "no space left" in run.error["said"]
        assert stage.records(node2) == {}
        assert leftovers(node2) == []
        arrived = [digest for digest in image.layers[NATIVE] if digest in seen(node2)]  # they came at once
        enlarge()
        again = fab(*words)
        assert again.statuses == {"node2": "changed", "node4": "unchanged"}, again.out
        assert again.image("node2")["bytes_there"] >= sum(map(image.size, arrived))
        assert stage.hello(node2, stage.name()) == "hello"
        node2.real_ctr("images", "rm", "--sync", stage.name())


def test_what_does_not_fit_is_refused_before_anything_is_sent(
    fab: Fab, stage: Stage, image: BuiltImage, node3: Node, node2: Node
) -> None:
    stage.seed(image, stage.name(), nodes=[node3])
    words = ("-H", "node2", "copy", "--json", "--from", "node3", "--ref", stage.name())
    with small_store(node2, f"size={LARGE}"):
        for more in ("--dry-run",), ():
            run = fab(*words, *more)
            assert (run.exit, run.statuses) == (1, {"node2": "disk-full"}), run.out
            sent = sum(map(image.size, image.blobs))
            assert f"{size(sent)} are needed" in run.error["message"]
            assert "are free on /" in run.error["message"]
        assert not seen(node2) & set(image.blobs)
        assert stage.records(node2) == {}
    dry = fab(*words, "--dry-run").outcomes["node2"]["result"]
    assert f"{size(sent)}, and about" in dry["notes"][0] and "are free on /" in dry["notes"][0]


@contextlib.contextmanager
def small_store(node: Node, options: str) -> Iterator[Callable[[], Any]]:
    """The node's content store is on a disk that a large layer does not fit on; yields what enlarges it."""
    folder = f"{node.root}/io.containerd.content.v1.content"
    node.exec(["mount", "-t", "tmpfs", "-o", options, "small", folder])
    try:
        node.exec(["mkdir", "-p", f"{folder}/ingest", f"{folder}/blobs/sha256"])
        yield lambda: node.exec(["mount", "-o", "remount,size=64m,nr_inodes=0", folder])
    finally:
        node.exec(["umount", "--lazy", folder])


def test_doctor_finds_and_removes_what_a_killed_run_left(begin: Begin, fab: Fab) -> None:
    middle = begin("node3", "node2")
    (target,) = middle.targets
    guards = [pid for pid, argv in middle.new(target).items() if "ferry-" in argv]
    signal_all(guards, signal.SIGSTOP)  # or they would clean up once the connection is gone
    middle.kill_sessions(target)
    signal_all(guards, signal.SIGKILL)
    middle.ended()
    assert any(middle.image.target.digest in line for line in leftovers(target))
    found = json.loads(fab("-H", "node2", "doctor", "--json").out)["commands"][0]["outcomes"][0]["result"]["findings"]
    (left,) = [each for each in found if each["check"] == "leftovers"]
    assert left["status"] == "warn", (left, processes(target))
    assert roots(target)[0] in left["message"]
    assert fab("-H", "node2", "doctor", "--clean").exit == 0
    assert leftovers(target) == []
    middle.succeeds_again(target)
