"""`make demo`: the whole story of README.md, on the rehearsal fleet and with the real `fab`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from lab import rehearsal
from lab.fleet import Fleet, LabError
from lab.rehearsal import LOST, NEW, OLD
from lab.standing import DEMO

FAB = Path(sys.executable).with_name("fab")


def main() -> int:
    """Run the demo; return 0 if every command of the story ended as it must, else 1."""
    fleet = Fleet.chosen()
    try:
        rehearsal.up(fleet)
        holder = rehearsal.begin_again(fleet)
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    everyone = ["-H", "all"]
    deliver = [*everyone, "deliver", "--src", OLD, "--dst", NEW]
    say(f"{holder.name} alone has an image. Its name is that of a registry that is gone.")
    found = fab(fleet, *everyone, "find", "--match", "*cambricon*")
    say("Kubernetes looks for the image under the name of today's registry. Not every host reaches that registry:")
    fab(fleet, *everyone, "registry", "--name", DEMO)
    say("One command brings the image to all hosts under today's name. This is what it would do:")
    planned = fab(fleet, *deliver, "--dry-run")
    say("Now it does it: through the registry where it answers, over SSH where it does not.")
    delivered = fab(fleet, *deliver)
    say("Every host has the image now: the same digest, complete and unpacked.")
    checked = fab(fleet, *everyone, "check", "--ref", NEW)
    say("A second run has nothing to do.")
    again = fab(fleet, *deliver)
    say("Next, run these commands as printed: hosts.yaml lists this fleet. The first one fails, and says what to do:")
    for line in (
        f"fab -H node1 retag --src {LOST} --dst registry.example/{LOST}",
        f"fab -H node1 retag --src {LOST} --dst registry.example/{LOST} -n default --to-namespace k8s.io",
        "fab -H node1 retag --to-registry registry.example --match '172.1.1.34:5000/*' --dry-run --json",
    ):
        print(f"  .venv/bin/{line}")
    say("Look around on a node: .venv/bin/python -m lab shell node1. Stop the fleet: make lab-down.")
    return int(any((found, planned, delivered, checked, again)))


def say(text: str) -> None:
    """Print a line of the story."""
    print(f"\n# {text}", flush=True)


def fab(fleet: Fleet, *words: str) -> int:
    """Run the real `fab` with the rehearsal fleet as its inventory; return its exit status."""
    print(f"$ fab {shlex.join(words)}", flush=True)
    env = {**os.environ, "CTR_FERRY_INVENTORY": str(rehearsal.inventory(fleet))}
    return subprocess.run([FAB, *words], env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
