"""`make bench-retag`: the classic export and import against `fab retag`, on node1 of the rehearsal fleet."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.measure import Contender, alternate, report, ssh
from lab.fleet import Fleet, Node
from lab.images import build, seed_image

OLD, NEW = "172.1.1.34:5000/bench/image:1", "docker-registry.i.demo/bench/image:1"
SMALL_OLD, SMALL_NEW = "172.1.1.34:5000/bench/small:1", "docker-registry.i.demo/bench/small:1"
NAMESPACE, OTHER, FRESH = "k8s.io", "bench-default", "bench-fresh"
FAB = str(Path(sys.executable).with_name("fab"))
MIB = 1 << 20


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024, help="size of the large image (default 1024)")
    options = parser.parse_args()
    if not shutil.which("ssh"):
        sys.exit("bench-retag needs the ssh client: apt-get install openssh-client")
    fleet = Fleet()
    fleet.up()
    node = fleet.nodes["node1"]
    bench = Bench(fleet, node, options.mib)
    try:
        bench.seed()
        contenders, listings = bench.contenders(), bench.listings()
        alternate(contenders, options.rounds)
        alternate(listings, 5 * options.rounds)  # a listing is short, so a few rounds would say little
    finally:
        bench.clean()
    medians = {each.name: each.median for each in (*contenders, *listings)}
    beneath = "ctr " + node.real_ctr("--version").stdout.decode().split()[-1]
    report(
        "retag",
        [*contenders, *listings],
        {
            "classic/archive": medians["classic"] / medians["ours, archive"],
            "classic/index": medians["classic"] / medians["ours, index"],
            "index large/small": medians["ours, index"] / medians["ours, index, 10 MiB"],
            "stream/link": medians["stream"] / medians["ours, link"],
            "fab-l/stock": medians["fab -l"] / medians["fab -l, empty fabfile"],
        },
        [
            f"The image has {options.mib} MiB in 4 layers. Whole processes, from start to exit, over SSH on loopback.",
            f"classic: export to a file and import of it, by the real {beneath}. ours, archive: by the same ctr.",
            *_what_is_real(node, beneath),
        ],
    )


def _what_is_real(node: Node, beneath: str) -> list[str]:
    if node.real_is_legacy:
        return [f"All others: node1's real {beneath}."]
    return [f"All others: node1's stand-in for ctr 1.2.6 in front of {beneath}: not ctr 1.2's numbers."]


class Bench:
    """The images and command lines of one measurement."""

    def __init__(self, fleet: Fleet, node: Node, mib: int) -> None:
        self.fleet, self.node = fleet, node
        self.folder = Path(tempfile.mkdtemp(prefix="bench-", dir=fleet.state))
        self.large = build(self.folder, layers=[mib * MIB // 4] * 4, seed=91)
        self.small = build(self.folder, layers=[10 * MIB], seed=92)
        self.real = node.real_ctr_argv()[0]

    def seed(self) -> None:
        """Give node1 the images under their old names."""
        for namespace in (NAMESPACE, OTHER):
            seed_image(self.node, self.large, [OLD], namespace=namespace)
        seed_image(self.node, self.small, [SMALL_OLD], namespace=NAMESPACE)

    def clean(self) -> None:
        """Remove the images and the files."""
        for namespace in (NAMESPACE, OTHER, FRESH):
            names = self.node.real_ctr("images", "ls", "-q", namespace=namespace).stdout.decode().split()
            targets = self._digests(namespace)
            ours = [name for name in names if targets.get(name) in (self.large.target.digest, self.small.target.digest)]
            if ours:
                self.node.real_ctr("images", "rm", "--sync", *ours, namespace=namespace)
        shutil.rmtree(self.folder)

    def contenders(self) -> list[Contender]:
        """Return all contenders that name an image, in the order of a round."""
        ctr, file = shlex.join(self.node.model.ctr), "/var/tmp/bench-retag.tar"
        classic = f"{self.real} -n {NAMESPACE} images export {file} {OLD} && " + (
            f"{self.real} -n {NAMESPACE} images import --base-name {OLD.rpartition(':')[0]} {file} && rm {file}"
        )
        stream = f"{ctr} -n {OTHER} images export --oci-ref-name {OLD} - {OLD} | {ctr} -n {FRESH} images import -"
        lab, real = self._inventory(), self._inventory(ctr_command=self.real)
        large, small = ("--src", OLD, "--dst", NEW), ("--src", SMALL_OLD, "--dst", SMALL_NEW)
        link = ("--src", OLD, "--dst", OLD, "-n", OTHER, "--to-namespace", FRESH)
        return [
            Contender("classic", ssh(self.fleet, self.node, classic)),
            self._named("ours, archive", [*large, "--method", "archive"], real, NEW),
            self._named("ours, index", [*large, "--method", "index"], lab, NEW),
            self._named("ours, index, 10 MiB", [*small, "--method", "index"], lab, SMALL_NEW),
            Contender("stream", ssh(self.fleet, self.node, stream), self._empty, self._moved),
            Contender("ours, link", _retag(link), self._empty, self._moved, lab),
        ]

    def listings(self) -> list[Contender]:
        """Return the contenders that list commands: with ctr-ferry, and with an empty fabfile."""
        empty = self.folder / "empty"
        empty.mkdir()
        (empty / "fabfile.py").write_text("from fabric import task\n\n\n@task\ndef nothing(c):\n    pass\n")
        return [Contender("fab -l", [FAB, "-l"]), Contender("fab -l, empty fabfile", [FAB, "-r", str(empty), "-l"])]

    def _named(self, name: str, words: list[str], env: dict[str, str], new: str) -> Contender:
        """Return a retag within the namespace. The name is absent before it, and must be there after it."""

        def before() -> None:
            self.node.real_ctr("images", "rm", new, namespace=NAMESPACE)

        def after() -> None:
            assert new in self._digests(NAMESPACE), f"{name} did not give the name"

        return Contender(name, _retag(words), before, after, env)

    def _empty(self) -> None:
        """Remove the image and all of its blobs from the namespace FRESH."""
        self.node.real_ctr("images", "rm", "--sync", OLD, namespace=FRESH)

    def _moved(self) -> None:
        assert self._digests(FRESH).get(OLD) == self.large.target.digest, "the image is not in the other namespace"

    def _digests(self, namespace: str) -> dict[str, str]:
        rows = self.node.real_ctr("images", "ls", namespace=namespace).stdout.decode().splitlines()[1:]
        return {row.split()[0]: row.split()[2] for row in rows}

    def _inventory(self, **variables: str) -> dict[str, str]:
        """Write the lab's inventory with more variables for every host; return the environment that names it."""
        file = self.folder / f"{'-'.join(variables) or 'lab'}.yaml"
        extra = "".join(f"    {name}: {value}\n" for name, value in variables.items())
        file.write_text(self.fleet.inventory.read_text().replace("  vars:\n", f"  vars:\n{extra}", 1))
        return {"CTR_FERRY_INVENTORY": str(file)}


def _retag(words: Sequence[str]) -> list[str]:
    return [FAB, "-H", "node1", "retag", *words]


if __name__ == "__main__":
    main()
