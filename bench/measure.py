"""Time whole processes in turns, and report the times with the machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lab.fleet import Fleet, Node


@dataclass
class Contender:
    """One way to do the work.

    Attributes:
        name: its name in the table and in the ratios.
        argv: the command line of the process that is timed.
        before: gives every round the same start; not timed.
        after: checks that the work was really done; not timed.
        env: variables that are added to the environment.
        seconds: the time of each round so far.
        peak_kib: the most memory of the process so far, in KiB.
    """

    name: str
    argv: Sequence[str]
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None
    env: Mapping[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    peak_kib: int = 0

    @property
    def median(self) -> float:
        """The median of the rounds so far, in seconds."""
        return statistics.median(self.seconds)

    def run(self) -> None:
        """Run one round."""
        self.before()
        os.sync()  # the disk must not be busy with writes of the contender before
        start = time.monotonic()
        child = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, **self.env}
        )
        _, status, usage = os.wait4(child.pid, 0)
        self.seconds.append(time.monotonic() - start)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit(f"bench: {self.name} ended with exit status {child.returncode}: {' '.join(self.argv)}")
        self.peak_kib = max(self.peak_kib, usage.ru_maxrss)
        self.after()


def alternate(contenders: Sequence[Contender], rounds: int) -> None:
    """Run all contenders in turns, so that other work of the machine slows all of them alike."""
    for number in range(rounds):
        for contender in contenders:
            contender.run()
            print(f"round {number + 1}/{rounds}  {contender.name}: {contender.seconds[-1]:.2f} s", file=sys.stderr)


def report(name: str, contenders: Sequence[Contender], ratios: Mapping[str, float], notes: Sequence[str]) -> None:
    """Print a table for people, then one line of JSON for scripts."""
    print(f"bench-{name} on {machine()}")
    table = Table(box=None, pad_edge=False)
    for column in ("", "median s", "min s", "max s", "peak MiB"):
        table.add_column(column, justify="right" if column else "left")
    for each in contenders:
        numbers = (each.median, min(each.seconds), max(each.seconds))
        table.add_row(each.name, *(f"{number:.2f}" for number in numbers), f"{each.peak_kib / 1024:.0f}")
    console = Console(width=120)
    console.print(table)
    for note in notes:
        console.print(f"  {note}")
    rounded = {ratio: round(value, 2) for ratio, value in ratios.items()}
    rounds = min(len(each.seconds) for each in contenders)
    print(json.dumps({"bench": name, "ratios": rounded, "rounds": rounds, "machine": machine()}))


def ssh(fleet: Fleet, node: Node, command: str) -> list[str]:
    """Return the command line of the plain ssh client that runs `command` on a node as root."""
    options = ["-F", "none", "-i", f"{fleet.state}/ssh/id_ed25519", "-p", str(node.port)]
    options += ["-o", f"UserKnownHostsFile={fleet.state}/ssh/known_hosts"]
    return ["ssh", *options, f"root@{node.address}", command]


def machine() -> str:
    """Return this machine in a few words: processors, memory, system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = next((s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")), ": CPU")
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return f"{os.cpu_count()} x {model.partition(': ')[2]}, {memory:.0f} GiB, {system}"
