"""Control groups: each node lives in one of its own, so that the lab knows its processes without guessing."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Joins the cgroups that come before "--", then becomes the command behind it.
JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"'


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup hierarchy: where, which kind (`cgroup` or `cgroup2`), and its mount options."""

    folder: Path
    kind: str
    options: str


def hierarchies() -> list[Hierarchy]:
    """Return the hierarchies mounted on this machine (one with cgroup v2, several with v1 or hybrid).

    Raises:
        OSError: there is none, so that no process of the lab could be found again.
    """
    controllers = {
        line.split()[0] for line in Path("/proc/cgroups").read_text().splitlines() if not line.startswith("#")
    }
    found: dict[str, Hierarchy] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ", 1)
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            kept = [o for o in options.split(",") if o in controllers or o.startswith("name=")]
            hierarchy = Hierarchy(Path(left.split()[4]), kind, ",".join(kept))
            found.setdefault(f"{kind} {hierarchy.options}", hierarchy)
    if not found:  # as in `ip netns exec`, which mounts /sys anew
        raise OSError("no control groups are mounted here; a network namespace: nsenter --net=/run/netns/NAME …")
    return list(found.values())


def create(name: str) -> list[Path]:
    """Make the group `name` (a path such as lab/node1) in every hierarchy; return its folders."""
    folders = []
    mounted = hierarchies()
    for hierarchy in mounted:
        folder = hierarchy.folder
        for part in Path(name).parts:
            if hierarchy.kind == "cgroup2" and len(mounted) == 1:
                _delegate(folder)
            folder /= part
            folder.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.options.split(","):
                _inherit_cpuset(folder)
        folders.append(folder)
    return folders


def _delegate(folder: Path) -> None:
    """Hand a v2 group's controllers to its children, as runc does on the way to any container's group."""
    for controller in (folder / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):  # not while processes are in the group itself, as in a container
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpuset(folder: Path) -> None:
    """Give a new v1 cpuset its parent's processors and memory: without, nothing can be put into it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (folder / name).read_text().strip():
            (folder / name).write_text((folder.parent / name).read_text())


def joining(groups: Sequence[Path], command: Sequence[str]) -> list[str]:
    """Return the argv that joins `groups` and then becomes `command`."""
    return ["sh", "-c", JOIN, "join", *map(str, groups), "--", *command]


def members(name: str) -> set[int]:
    """Return the ids of all processes in the group `name` and below it."""
    found: set[int] = set()
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy.folder / name):
            try:
                listed = set(map(int, (Path(folder) / "cgroup.procs").read_text().split()))
                found |= listed - {0}  # cgroup v2's word for one outside our PID namespace, kill's for ourselves
            except OSError:  # the group went while we looked, or is a threaded one
                continue
    return found


def destroy(name: str, patience: float = 10.0) -> None:
    """End every process in the group `name` and remove the group and all below it.

    Raises:
        TimeoutError: something in it could not be ended within `patience` seconds.
        OSError: no control groups are mounted here.
    """
    deadline = time.monotonic() + patience
    while True:
        for pid in members(name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        left = [folder for h in hierarchies() for folder in _remove(h.folder / name)]
        if not left:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"cannot remove {left[0]}: processes {sorted(members(name))} do not end")
        time.sleep(0.02)


def _remove(root: Path) -> list[Path]:
    """Remove a group's folder with all below, deepest first; return what could not be removed yet."""
    left = []
    for folder, _, _ in os.walk(root, topdown=False):
        try:
            Path(folder).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            left.append(Path(folder))
    return left
