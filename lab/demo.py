"""`make demo`: the story of README.md, on the rehearsal fleet and with the real `fab`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from lab import rehearsal
from lab.fleet import Fleet, LabError, Node
from lab.rehearsal import LOST, NEW, OLD

FAB = Path(sys.executable).with_name("fab")


def main() -> int:
    """Run the demo; return the exit status of the retag."""
    fleet = Fleet.chosen()
    try:
        rehearsal.up(fleet)
        nodes = rehearsal.begin_again(fleet)
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
