"""Process 1 of a node: builds the node's root, then starts and keeps its services.

The lab runs this file by its path, in fresh mount, UTS, PID and cgroup namespaces, with `python -I -S` and
the path of a JSON file as its only argument. It needs nothing but the standard library. `build` documents the
file's keys. It prints "ready" on its standard output when every service answers, or one line of reasons.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

PATIENCE = 15.0
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def mount(*argv: str | Path) -> None:
    """Mount something; raise RuntimeError with mount's own words."""
    done = subprocess.run(["mount", *map(str, argv)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mount {' '.join(map(str, argv))}: {done.stderr.strip()}")


def build(node: dict[str, Any]) -> None:
    """Build the node's root below `node["folder"]` and move into it.

    Keys used: folder (what the node keeps on disk), usr and etc (lower folders, the uppermost first; the
    machine's own come last by themselves), keep (machine folders visible at the same path), stacks (target ->
    folders shown there as one), cgroups (folder, kind, options), absent (paths to hide), links, files
    (path -> mode, text), users (name, uid).
    """
    folder = Path(node["folder"])
    root = folder / "root"
    mount("-t", "tmpfs", "-o", "mode=755", "lab", root)
    os.chdir(root)  # relative paths below: a clone's path may hold what overlay options cannot
    for name in ("bin", "sbin", "lib", "lib64"):
        Path(name).symlink_to(f"usr/{name}")
    overlay("usr", [*node["usr"], "/usr"], writable=True)
    overlay("etc", [*node["etc"], "/etc"], writable=True)
    for name, mode in (("home", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755), ("opt", 0o755)):
        kept = folder / "disk" / name
        kept.mkdir(parents=True, exist_ok=True)
        kept.chmod(mode)
        Path(name).mkdir()
        mount("--bind", kept, name)
    if on_overlay(folder):  # containerd's overlayfs snapshotter cannot work on top of one
        mount("-t", "tmpfs", "-o", "mode=755", "lab", "var")
    devices_and_kernel(node["cgroups"])
    for path in node["keep"]:
        Path(f".{path}").mkdir(parents=True, exist_ok=True)
        mount("--bind", path, f".{path}")
    for target, folders in node["stacks"].items():
        overlay(f".{target}", folders)
    move_in()
    furnish(node)


def overlay(target: str, folders: list[str], *, writable: bool = False) -> None:
    """Show `folders`, the uppermost first, as one folder at `target`; what is written stays in memory."""
    Path(target).mkdir(parents=True, exist_ok=True)
    lowers = []
    for place, folder in enumerate(folders):
        lower = Path(f".lower/{target.strip('/.').replace('/', '-')}{place}")
        lower.mkdir(parents=True)
        mount("--bind", folder, lower)
        lowers.append(lower)
    options = "lowerdir=" + ":".join(map(str, lowers))
    if writable:
        upper, work = Path(f".upper/{target}"), Path(f".work/{target}")
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        options += f",upperdir={upper},workdir={work}"
    elif len(lowers) == 1:
        mount("--bind", lowers[0], target)
        return
    mount("-t", "overlay", "-o", options, "lab", target)


def on_overlay(folder: Path) -> bool:
    """Tell whether `folder` lies on an overlay file system, as in a container."""
    shown = subprocess.run(
        ["stat", "--file-system", "--format=%T", str(folder)], capture_output=True, text=True, check=True
    )
    return shown.stdout.strip() == "overlayfs"


def devices_and_kernel(cgroups: list[tuple[str, str, str]]) -> None:
    """Mount /run, /dev, /proc and /sys, with the node's own terminals and its own view of the cgroups."""
    for name in ("run", "dev", "proc", "sys"):
        Path(name).mkdir()
    mount("-t", "tmpfs", "-o", "mode=755,nosuid", "lab", "run")
    mount("--bind", "/dev", "dev")
    mount("-t", "devpts", "-o", "newinstance,gid=5,mode=620,ptmxmode=666", "lab", "dev/pts")
    mount("-t", "tmpfs", "-o", "mode=1777", "lab", "dev/shm")
    mount("-t", "proc", "proc", "proc")
    mount("--bind", "/sys", "sys")
    base = Path("/sys/fs/cgroup")
    if all(Path(folder) != base for folder, _, _ in cgroups):
        mount("-t", "tmpfs", "-o", "mode=755", "lab", f".{base}")
    for folder, kind, options in cgroups:
        Path(f".{folder}").mkdir(exist_ok=True)
        mount("-t", kind, *(("-o", options) if options else ()), "cgroup", f".{folder}")
    for link in base.iterdir():
        if link.is_symlink():
            Path(f".{link}").symlink_to(link.readlink())


def move_in() -> None:
    """Make the current folder the root, and let the machine's root and the helpers' mounts go."""
    lowers = Path(".lower")
    for lower in lowers.iterdir():
        subprocess.run(["umount", "--lazy", str(lower)], check=True)
    shutil.rmtree(lowers)
    Path(".machine").mkdir()
    subprocess.run(["pivot_root", ".", ".machine"], check=True)
    os.chdir("/")
    subprocess.run(["umount", "--lazy", "/.machine"], check=True)
    Path("/.machine").rmdir()


def furnish(node: dict[str, Any]) -> None:
    """Give the node its name, files, users and the folders that daemons expect."""
    socket.sethostname(node["name"])
    for path in map(Path, node["absent"]):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in ("/run/sshd", "/run/lock", "/var/log", "/var/tmp", "/var/lib", "/var/cache", "/var/lib/sudo"):
        Path(name).mkdir(parents=True, exist_ok=True)
    Path("/var/tmp").chmod(0o1777)
    if not Path("/var/run").is_symlink():
        Path("/var/run").symlink_to("/run")
    for path, (mode, text) in node["files"].items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
        Path(path).chmod(mode)
    for path, target in node["links"].items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).unlink(missing_ok=True)
        Path(path).symlink_to(target)
    for user, uid in node["users"].items():
        home = Path("/home") / user
        home.mkdir(exist_ok=True)
        os.chown(home, uid, uid)


class Service:
    """A daemon of the node.

    `argv`: how it is started. `answers`: its address, `unix:PATH` or `tcp:HOST:PORT`. `programs`: the folder
    that comes first on its PATH.
    """

    running: ClassVar[dict[int, Service]] = {}

    def __init__(self, name: str, argv: list[str], answers: str, programs: str) -> None:
        self.name, self.argv, self.answers = name, argv, answers
        self.environment = {**ENVIRONMENT, "PATH": f"{programs}:{ENVIRONMENT['PATH']}"}
        self.pid = 0

    def start(self) -> str:
        """Start the service and wait until it answers; return "ok" or what went wrong."""
        if not self.pid:
            log = os.open(f"/var/log/{self.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
            self.pid = os.posix_spawn(
                self.argv[0],
                self.argv,
                self.environment,
                file_actions=actions,
                setsid=True,
                setsigdef=[signal.SIGPIPE],  # Python ignores it, and a daemon's children would, too
            )
            self.running[self.pid] = self
            os.close(log)
        deadline = time.monotonic() + PATIENCE
        while self.pid and time.monotonic() < deadline:
            answering = self.answering()
            reap()
            if answering and self.pid:
                return "ok"
            time.sleep(0.02)
        return f"{self.name} does not answer; see /var/log/{self.name}.log of this node"

    def stop(self) -> str:
        """Stop the service and wait until it has ended; return "ok" or what went wrong."""
        for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + patience
            if self.pid:
                os.kill(self.pid, number)
            while self.pid and time.monotonic() < deadline:
                time.sleep(0.01)
                reap()
        return "ok" if not self.pid else f"{self.name} does not end"

    def answering(self) -> bool:
        """Tell whether something accepts connections where the service should."""
        kind, _, where = self.answers.partition(":")
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        host, _, port = where.rpartition(":")
        with socket.socket(family) as probe:
            probe.settimeout(1)
            return probe.connect_ex(where if kind == "unix" else (host, int(port))) == 0


def reap(*_: object) -> None:
    """Collect every process that has ended, as process 1 must, and note which services did."""
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            if service := Service.running.pop(pid, None):
                service.pid = 0


def serve(control: socket.socket, services: dict[str, Service]) -> None:
    """Obey, for ever, what is asked on the control socket: "start NAME", "stop NAME" or "status"."""
    signal.signal(signal.SIGCHLD, reap)
    while True:
        reap()
        peer, _ = control.accept()
        with peer, contextlib.suppress(OSError):
            peer.settimeout(5)
            peer.sendall(obey(peer.recv(200).decode().split(), services).encode())


def obey(words: list[str], services: dict[str, Service]) -> str:
    """Carry out one request and return the answer."""
    match words:
        case ["status"]:
            return json.dumps({name: bool(service.pid) for name, service in services.items()})
        case ["start", name] if name in services:
            return services[name].start()
        case ["stop", name] if name in services:
            return services[name].stop()
    return f"cannot do {words}"


def main() -> None:
    """Build the node that the JSON file names, start its services, say so, and serve."""
    node = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(node["folder"])
    # /proc is still the machine's: there, `self` is the number by which the machine knows this process.
    number = os.readlink("/proc/self")  # noqa: PTH115
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    (folder / "pid").write_text(f"{number} {started}")
    control = socket.socket(socket.AF_UNIX)
    os.chdir(folder)  # a socket's path must be short
    Path("control").unlink(missing_ok=True)
    control.bind("control")
    control.listen()
    try:
        build(node)
        services = {name: Service(name, *how) for name, how in node["services"].items()}
        answers = [service.start() for service in services.values()]
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        answers = [str(error)]
    bad = [answer for answer in answers if answer != "ok"]
    with contextlib.suppress(BrokenPipeError):  # who started us was killed: stay for who comes next
        print("; ".join(bad) or "ready", flush=True)
    if bad:
        sys.exit(1)
    os.dup2(os.open("/dev/null", os.O_RDWR), 1)
    os.dup2(1, 2)
    serve(control, services)


if __name__ == "__main__":
    main()
