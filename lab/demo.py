"""`make demo`: the story of README.md, on the rehearsal fleet and with the real `fab`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from lab.fleet import Fleet, LabError, Node
from lab.images import build, seed_image

OLD = "172.1.1.34:5000/library/cambricon-k8s-device-plugin:v1.1.3"
NEW = "docker-registry.i.demo/library/cambricon-k8s-device-plugin:v1.1.3"
LOST = "lost:1"  # this image is in the wrong namespace, which is the most common mistake
FAB = Path(sys.executable).with_name("fab")


def main() -> int:
    """Run the demo; return the exit status of the retag."""
    fleet = Fleet()
    try:
        fleet.up()
        nodes = [fleet.nodes[name] for name in ("node1", "node3") if name in fleet.nodes]
        _prepare(fleet, nodes)
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    names = ",".join(node.name for node in nodes)
    say(f"{names} have an image whose registry is gone. The version of ctr on each node:")
    for node in nodes:
        show(node, "--version")
    say("Before:")
    for node in nodes:
        show(node, "-n", "k8s.io", "images", "ls", "-q")
    say("One command gives the image the name of today's registry on all of them. Each ctr does it in its own way:")
    status = fab(fleet, "-H", names, "retag", "--src", OLD, "--dst", NEW)
    say("After:")
    for node in nodes:
        show(node, "-n", "k8s.io", "images", "ls", "-q")
    say("Next, run these commands as printed: hosts.yaml lists this fleet. The first one fails, and says what to do:")
    for line in (
        f"fab -H node1 retag --src {LOST} --dst registry.example/{LOST}",
        f"fab -H node1 retag --src {LOST} --dst registry.example/{LOST} -n default --to-namespace k8s.io",
        f"fab -H {names} retag --to-registry registry.example --match '172.1.1.34:5000/*' --dry-run --json",
    ):
        print(f"  .venv/bin/{line}")
    say("Look around on a node: .venv/bin/python -m lab shell node1. Stop the fleet: make lab-down.")
    return status


def _prepare(fleet: Fleet, nodes: list[Node]) -> None:
    """Give each node the story's images under their old names only, also if the demo has run before."""
    image = build(fleet.state / "images", layers=(3_000_000, 2_000_000))
    lost = build(fleet.state / "images", layers=(1_000_000,), seed=1)
    for node in nodes:
        node.real_ctr("images", "rm", NEW)
        seed_image(node, image, [OLD])
        seed_image(node, lost, [f"docker.io/library/{LOST}"], namespace="default")


def say(text: str) -> None:
    """Print a line of the story."""
    print(f"\n# {text}", flush=True)


def show(node: Node, *words: str) -> None:
    """Run ctr on a node as a user there would; print the command line and its output."""
    argv = [*node.model.ctr, *words]
    print(f"{node.name}# {shlex.join(argv)}", flush=True)
    for line in node.exec(argv).stdout.decode().splitlines():
        print(f"  {line}", flush=True)


def fab(fleet: Fleet, *words: str) -> int:
    """Run the real `fab` with the lab's own inventory; return its exit status."""
    print(f"$ fab {shlex.join(words)}", flush=True)
    env = {**os.environ, "CTR_FERRY_INVENTORY": str(fleet.inventory)}
    return subprocess.run([FAB, *words], env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
