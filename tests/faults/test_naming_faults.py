"""A name that is given while something fails is never lost, never half there, and never given by two runs at once."""

from __future__ import annotations

import itertools
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fabric import Config
from ferry import Stage, eventually, has_cri, leftovers, processes, release

from ctr_ferry.errors import FerryError, ReferenceExists
from ctr_ferry.images.retag import RetagJob, RetagResult
from ctr_ferry.inventory.selector import HostSelector
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.target import Limits, Trust
from lab.fleet import Fleet, Node
from lab.images import BuiltImage, build
from tasks.retag import parse

CUTS, ROUNDS = 7, 4
RUNS = itertools.count(1)


@pytest.fixture
def images(tmp_path: Path) -> tuple[BuiltImage, BuiltImage]:
    """Two images that take containerd a moment to unpack. No other test has them: CRI's records of images stay."""
    seed = secrets.randbits(32)
    return tuple(build(tmp_path, layers=(6 << 20,), cmd=("/bin/echo", "hello"), seed=seed + n) for n in (0, 1))  # type: ignore[return-value]


class Run:
    """One retag of one node, whose naming may be waited for or cut off."""

    def __init__(self, fleet: Fleet, node: Node, *words: str, **options: Any) -> None:
        (target,) = HostSelector(fleet.inventory, Trust(), Limits(), lambda _: False).select([node.name])
        src, dst = words
        self.request = parse(src=src, dst=dst, **options)
        self.host = Host(target, Config(), run_id=f"20260101T000000Z-{next(RUNS):04x}")
        self.before: Callable[[], object] = lambda: None
        asked = self.host.ask

        def ask(script: Script, **more: Any) -> dict[str, Answer]:
            if "name-0" in script.steps:
                self.before()
            return asked(script, **more)

        object.__setattr__(self.host, "ask", ask)

    def __call__(self) -> RetagResult | FerryError:
        try:
            return RetagJob(self.host, self.request).run()
        except FerryError as error:
            return error
        finally:
            self.host.close_quietly()

    def cut(self, seconds: float) -> RetagResult | FerryError:
        """Cuts the connection so many seconds after the naming began; the guard then ends it on the host."""
        timer = threading.Timer(seconds, self.host.abandon)
        self.before = timer.start
        try:
            return self()
        finally:
            timer.cancel()


def quiet(node: Node) -> bool:
    """Tell whether nothing of ours runs there any more."""
    return not any("ferry-" in argv for argv in processes(node).values())


def ours(node: Node, *namespaces: str) -> list[str]:
    """Return names of ours on a node, and whatever else of ours is there."""
    names = [node.real_ctr("images", "ls", "-q", namespace=each).stdout.decode().split() for each in namespaces]
    return [name for each in names for name in each if "ctr-ferry" in name] + leftovers(node, namespaces)


def delays() -> Iterator[float]:
    """All of the time that a naming takes, in turn."""
    chance = random.Random(4)
    return (chance.uniform(0.0, 0.25) for _ in range(CUTS))


def test_a_name_that_is_moved_is_never_lost(fleet: Fleet, few: Stage, images: tuple[BuiltImage, BuiltImage]) -> None:
    sources, dst = [few.name("one"), few.name("two")], few.name(registry="new.example")
    digests = {image.target.digest for image in images}
    for image, source in zip(images, sources, strict=True):
        few.seed(image, source)
    few.seed(images[0], dst)

    def cut_many(node: Node) -> None:
        for number, seconds in enumerate(delays()):
            run = Run(
                fleet,
                node,
                sources[(number + 1) % 2],
                dst,
                force=True,
                method="tag" if number % 3 == 2 and release(node) >= (1, 3) else None,
            )
            run.cut(seconds)
            while True:
                ended = quiet(node)
                assert few.records(node)[dst].digest in digests, (node, number)
                if ended:
                    break
        assert eventually(lambda: ours(node, "k8s.io") == []), ours(node, "k8s.io")

    few.on_each(cut_many)


@pytest.mark.parametrize("crosses", [False, True], ids=["here", "from another namespace"])
def test_a_new_name_that_is_there_after_a_cut_is_whole_and_known_to_cri(
    fleet: Fleet, few: Stage, images: tuple[BuiltImage, BuiltImage], crosses: bool
) -> None:
    src, elsewhere = few.name(), few.namespace()
    few.seed(images[0], src, namespace=elsewhere if crosses else "k8s.io")
    options = {"namespace": elsewhere, "to_namespace": "k8s.io"} if crosses else {"method": "index"}
    digest = images[0].target.digest

    def named(node: Node) -> list[str]:
        return [name for name, record in few.records(node, digests=[digest]).items() if record.digest == digest]

    def cut_many(node: Node) -> None:
        for number, seconds in enumerate(delays()):
            dst = few.name(f"n{number}", registry="new.example")
            run = Run(fleet, node, src, dst, **options)
            result = run.cut(seconds * (3 if crosses else 1))
            assert eventually(lambda: quiet(node))
            record = few.records(node).get(dst)
            if isinstance(result, FerryError) and not record:
                assert not crosses or eventually(lambda: named(node) == []), (node, number, named(node))
                continue
            assert record
            assert (record.digest, record.managed) == (digest, has_cri(node)), (node, number)
            assert few.check(node, dst) == "complete"
            node.real_ctr("images", "rm", *(named(node) if crosses else [dst]))
        assert eventually(lambda: ours(node, "k8s.io") == []), ours(node, "k8s.io")

    few.on_each(cut_many)


@pytest.mark.parametrize("method", [None, "index"])
def test_of_two_runs_that_give_one_name_to_different_images_one_gets_reference_exists(
    fleet: Fleet, few: Stage, images: tuple[BuiltImage, BuiltImage], method: str | None
) -> None:
    sources = {few.name("one"): images[0].target.digest, few.name("two"): images[1].target.digest}
    for image, source in zip(images, sources, strict=True):
        few.seed(image, source)

    def race(node: Node) -> None:
        for number in range(ROUNDS):
            dst, both = few.name(f"n{number}", registry="new.example"), threading.Barrier(2, timeout=30)
            runs = [Run(fleet, node, source, dst, method=method) for source in sources]
            for run in runs:
                run.before = both.wait
            with ThreadPoolExecutor(2) as pool:
                results = dict(zip(sources, pool.map(lambda run: run(), runs), strict=True))
            won = [source for source, result in results.items() if isinstance(result, RetagResult)]
            lost = [result for result in results.values() if not isinstance(result, RetagResult)]
            assert len(won) == len(lost) == 1, (node, number, results)
            assert isinstance(lost[0], ReferenceExists), lost[0]
            assert [image.status for image in results[won[0]].images] == [Status.CHANGED]  # type: ignore[union-attr]
            assert few.records(node)[dst].digest == sources[won[0]], (node, number)
        assert ours(node, "k8s.io") == []

    few.on_each(race)
