"""Control groups: each node has one of its own, so the lab knows which processes belong to the node."""

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
    """A mounted cgroup hierarchy: its folder, its kind (`cgroup` or `cgroup2`), and its mount options."""

    folder: Path
    kind: str
    options: str


def hierarchies() -> list[Hierarchy]:
    """Return the hierarchies mounted on this machine (one with cgroup v2, several with v1 or hybrid).

    Raises:
        OSError: no hierarchy is mounted, so the lab could not find its processes again.
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
    """Create the group `name` (a path such as lab/node1) in every hierarchy; return its folders."""
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
    """Enable a v2 group's controllers for its children, as runc does for every parent of a container's group."""
    for controller in (folder / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):  # a group with processes in it, as in a container, refuses this
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpuset(folder: Path) -> None:
    """Give a new v1 cpuset its parent's processors and memory. A cpuset without them takes no process."""
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
                # cgroup v2 lists a process outside this PID namespace as 0; kill(0) would signal the lab itself.
                found |= listed - {0}
            except OSError:  # the group was removed in the meantime, or is a threaded one
                continue
    return found


def destroy(name: str, patience: float = 10.0) -> None:
    """End every process in the group `name`, and remove the group and all groups below it.

    Raises:
        TimeoutError: the group could not be removed within `patience` seconds.
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
    """Remove a group's folder and all folders below it, the deepest first; return those that could not be removed."""
    left = []
    for folder, _, _ in os.walk(root, topdown=False):
        try:
            Path(folder).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            left.append(Path(folder))
    return left
