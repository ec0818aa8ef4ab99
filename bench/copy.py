"""`make bench-copy`: export piped into import over ssh, against `fab copy`, between two nodes of the fleet."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.measure import Contender, alternate, report, ssh
from lab.fleet import Fleet, Node
from lab.images import NATIVE, build, seed_image

NAME, BASE, SMALL = (f"r.example/bench/{repository}:1" for repository in ("image", "base", "small"))
ARCHIVE = "/tmp/bench-copy.tar"
NAMESPACE = "k8s.io"
MANY = 8
FAB = str(Path(sys.executable).with_name("fab"))
MIB = 1 << 20


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024, help="size of the image (default 1024)")
    parser.add_argument("--many-mib", type=int, default=128, help="size of the image for eight hosts (default 128)")
    parser.add_argument("--source", default="node4", help="the node that has the image (default node4, containerd 1.7)")
    parser.add_argument("--target", default="node3", help="the node that gets it (default node3, containerd 1.6)")
    parser.add_argument("--lab", help="state folder of another rehearsal fleet")
    parser.add_argument("--network", default="127.0.10", help="the network of that fleet (default 127.0.10)")
    options = parser.parse_args()
    if not shutil.which("ssh"):
        sys.exit("bench-copy needs the ssh client: apt-get install openssh-client")
    fleet = Fleet(Path(options.lab), network=options.network) if options.lab else Fleet()
    fleet.up(extra=MANY - 4)  # five nodes, and four more like node3
    bench = Bench(fleet, options.source, options.target, options.mib, options.many_mib)
    try:
        bench.seed()
        pair, many = bench.pair(), bench.many()
        alternate(pair, options.rounds)
        alternate(many, max(1, options.rounds - 1))
        bytes_per_missing = bench.bytes_for_missing()
    finally:
        bench.clean()
    medians = {each.name: each.median for each in (*pair, *many)}
    report(
        "copy",
        [*pair, *many],
        {
            "pipe/ours": medians["pipe"] / medians["ours, cold"],
            "ours/local-import": medians["ours, cold"] / medians["local import"],
            "warm/cold": medians["ours, 3 of 4 layers there"] / medians["ours, cold"],
            "bytes/missing": bytes_per_missing,
            "serial/fan-out": medians["serial, 8 hosts"] / medians["fan-out, 8 hosts"],
            "fan-out/serial": medians["fan-out, 8 hosts"] / medians["serial, 8 hosts"],
            "peak MiB/150": max(each.peak_kib for each in (*pair[2:], *many)) / 1024 / 150,
        },
        [
            f"{options.mib} MiB in 4 layers from {bench.source.name} (containerd {bench.source.version}) to "
            f"{bench.target.name} ({bench.target.version}), over SSH on loopback.",
            f"8 hosts: {options.many_mib} MiB in 4 layers to eight of nine nodes; node1's ctr is a stand-in for 1.2.",
            "pipe: ssh a ctr export - | ssh b ctr import -. local import: import of an archive on the node's own disk.",
            f"bytes/missing: {bench.target.name} lacks one layer; all bytes sent to it, divided by the layer's size.",
        ],
    )


class Bench:
    """The images and command lines of one measurement."""

    def __init__(self, fleet: Fleet, source: str, target: str, mib: int, many_mib: int) -> None:
        self.fleet = fleet
        self.source, self.target = fleet.nodes[source], fleet.nodes[target]
        self.all = [node for node in fleet.nodes.values() if node.name != source][:MANY]
        self.folder = Path(tempfile.mkdtemp(prefix="bench-", dir=fleet.state))
        self.base = build(self.folder, layers=[mib * MIB // 4] * 3, seed=93)
        self.image = build(self.folder, layers=[mib * MIB // 4] * 4, seed=93)
        self.small = build(self.folder, layers=[many_mib * MIB // 4] * 4, seed=94)

    def seed(self) -> None:
        """Give the source both images, and put an archive on the target's own disk."""
        seed_image(self.source, self.image, [NAME])
        seed_image(self.source, self.small, [SMALL])
        with (self.folder / "image.tar").open("wb") as file:
            self.image.write_archive(file, [NAME])
        root = f"/proc/{self.target.pid}/root"
        shutil.move(self.folder / "image.tar", f"{root}{ARCHIVE}")

    def clean(self) -> None:
        """Remove the images and the files."""
        for node in (self.source, *self.all):
            self._empty(node)
        self.target.exec(["rm", "-f", ARCHIVE], check=False)
        shutil.rmtree(self.folder)

    def pair(self) -> list[Contender]:
        """Return the contenders that copy from one node to another."""
        source, target = shlex.join(self.source.model.ctr), shlex.join(self.target.model.ctr)
        pipe = f"""{self._ssh(self.source, f"{source} -n {NAMESPACE} images export - {NAME}")} |
            {self._ssh(self.target, f"{target} -n {NAMESPACE} images import -")}"""
        local = self._ssh(self.target, f"{target} -n {NAMESPACE} images import {ARCHIVE}")
        one = [self.target]
        return [
            self._contender("pipe", ["sh", "-c", pipe], one, NAME),
            self._contender("local import", ["sh", "-c", local], one, NAME),
            self._contender("ours, cold", self._fab([self.target.name], NAME), one, NAME),
            self._contender(
                "ours, 3 of 4 layers there", self._fab([self.target.name], NAME), one, NAME, with_base=True
            ),
        ]

    def many(self) -> list[Contender]:
        """Return the contenders that copy from one node to eight."""
        names = [node.name for node in self.all]
        serial = " && ".join(shlex.join(self._fab([name], SMALL)) for name in names)
        return [
            self._contender(f"serial, {MANY} hosts", ["sh", "-c", serial], self.all, SMALL),
            self._contender(f"fan-out, {MANY} hosts", self._fab(names, SMALL), self.all, SMALL),
        ]

    def bytes_for_missing(self) -> float:
        """Return all bytes sent to a target that lacks one of four layers, divided by the layer's size."""
        self._empty(self.target)
        seed_image(self.target, self.base, [BASE])
        counts = self.folder / "counts"
        relay = f"{sys.executable} -m bench.relay {self.target.address} {self.target.port} {counts}"
        inventory = self.folder / "counted.yaml"
        text = self.fleet.inventory.read_text()
        options = f"-o UserKnownHostsFile={self.fleet.state}/ssh/known_hosts -o ProxyCommand='{relay}'"
        host = (
            "  hosts:\n"
            f"    counted: {{ ansible_host: {self.target.address}, ansible_ssh_common_args: {json.dumps(options)} }}\n"
        )
        inventory.write_text(text.replace("  children:\n", f"{host}  children:\n", 1))
        words = self._fab(["counted"], NAME)
        subprocess.run(words, env={**os.environ, "CTR_FERRY_INVENTORY": str(inventory)}, check=True)
        self._demand([self.target], NAME)
        while not (counts.exists() and counts.read_text().endswith("\n")):  # fab ends before the relay
            time.sleep(0.05)
        missing = max(
            self.image.size(layer) for layer in set(self.image.layers[NATIVE]) - set(self.base.layers[NATIVE])
        )
        return sum(map(int, counts.read_text().split())) / missing

    def _contender(
        self, name: str, argv: Sequence[str], nodes: Sequence[Node], image: str, *, with_base: bool = False
    ) -> Contender:
        """Return a contender. Before it, its targets have nothing of the image, or (`with_base`) three of its layers.

        After it, they must have the whole image.
        """

        def before() -> None:
            for node in nodes:
                self._empty(node)
                if with_base:
                    seed_image(node, self.base, [BASE])

        env = {"CTR_FERRY_INVENTORY": str(self.fleet.inventory), "FABRIC_FLEET_RUNS": str(self.folder / "runs")}
        return Contender(name, argv, before, lambda: self._demand(nodes, image), env)

    def _fab(self, hosts: Sequence[str], image: str) -> list[str]:
        return [FAB, "-H", ",".join(hosts), "copy", "--from", self.source.name, "--ref", image]

    def _ssh(self, node: Node, command: str) -> str:
        return shlex.join(ssh(self.fleet, node, command))

    def _empty(self, node: Node) -> None:
        """Remove the images' names and CRI's records of them, and wait for the garbage collection."""
        rows = node.real_ctr("images", "ls", namespace=NAMESPACE).stdout.decode().splitlines()[1:]
        ours = {image.target.digest for image in (self.image, self.base, self.small)}
        if names := [row.split()[0] for row in rows if row.split()[2] in ours]:
            node.real_ctr("images", "rm", "--sync", *names, namespace=NAMESPACE)

    def _demand(self, nodes: Sequence[Node], image: str) -> None:
        wanted = (self.image if image == NAME else self.small).target.digest
        for node in nodes:
            detail = node.real_ctr("images", "check", f"name=={image}", namespace=NAMESPACE).stdout.decode()
            assert wanted in detail and "complete (" in detail and "incomplete" not in detail, detail


if __name__ == "__main__":
    main()
