"""Process 1 of a node: it builds the node's root, then starts the services and keeps them.

The lab runs this file by its path, in fresh mount, UTS, PID and cgroup namespaces, with `python -I -S`. The only
argument is the path of a JSON file, whose keys `build` documents. This file needs only the standard library. It prints
"ready" on stdout when every service answers, or one line with the reasons why not.
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
    """Run mount; raise RuntimeError with mount's error."""
    done = subprocess.run(["mount", *map(str, argv)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mount {' '.join(map(str, argv))}: {done.stderr.strip()}")


def build(node: dict[str, Any]) -> None:
    """Build the node's root below `node["folder"]` and move into it.

    Args:
        node: the description. Keys that are used:
            folder: the node's folder on disk.
            usr, etc: lower folders, the uppermost first; the machine's own folder comes last.
            keep: folders of the machine, visible at the same paths.
            stacks: target -> folders that the target shows as one.
            cgroups: folder, kind and options of each hierarchy.
            absent: paths to remove.
            links: path -> target.
            files: path -> mode and text.
            users: name -> user id.
    """
    folder = Path(node["folder"])
    root = folder / "root"
    mount("-t", "tmpfs", "-o", "mode=755", "lab", root)
    os.chdir(root)  # the paths below are relative: a clone's path may have characters that overlay options cannot
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
    if on_overlay(folder):  # containerd's overlayfs snapshotter does not work on top of an overlay
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
    """Show `folders`, the uppermost first, as one folder at `target`. Written data stays in memory."""
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
    """Make the current folder the root, and unmount the machine's root and the lower folders."""
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

    Args:
        name: the daemon's name.
        argv: the command line that starts the daemon.
        answers: the daemon's address, `unix:PATH` or `tcp:HOST:PORT`.
        programs: the first folder on the daemon's PATH.
    """

    running: ClassVar[dict[int, Service]] = {}

    def __init__(self, name: str, argv: list[str], answers: str, programs: str) -> None:
        self.name, self.argv, self.answers = name, argv, answers
        self.environment = {**ENVIRONMENT, "PATH": f"{programs}:{ENVIRONMENT['PATH']}"}
        self.pid = 0

    def start(self) -> str:
        """Start the service, unless it runs, and wait until it answers; return "ok" or one line with the fault."""
        if not self.pid:
            log = os.open(f"/var/log/{self.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
            self.pid = os.posix_spawn(
                self.argv[0],
                self.argv,
                self.environment,
                file_actions=actions,
                setsid=True,
                setsigdef=[signal.SIGPIPE],  # Python ignores SIGPIPE; a daemon and its children must not
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
        """Stop the service and wait until it has ended; return "ok" or one line with the fault."""
        for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + patience
            if self.pid:
                os.kill(self.pid, number)
            while self.pid and time.monotonic() < deadline:
                time.sleep(0.01)
                reap()
        return "ok" if not self.pid else f"{self.name} does not end"

    def answering(self) -> bool:
        """Tell whether the service's address accepts connections."""
        kind, _, where = self.answers.partition(":")
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        host, _, port = where.rpartition(":")
        with socket.socket(family) as probe:
            probe.settimeout(1)
            return probe.connect_ex(where if kind == "unix" else (host, int(port))) == 0


def reap(*_: object) -> None:
    """Collect every process that has ended, as process 1 must, and note which services have ended."""
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            if service := Service.running.pop(pid, None):
                service.pid = 0


def serve(control: socket.socket, services: dict[str, Service]) -> None:
    """Carry out the requests of the control socket, for ever: "start NAME", "stop NAME" or "status"."""
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
    """Build the node that the JSON file describes, start its services, print "ready", and serve."""
    node = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(node["folder"])
    # /proc is still the machine's, so `self` is this process's number on the machine.
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
    with contextlib.suppress(BrokenPipeError):  # the `up` that started this node was killed; the next `up` can use it
        print("; ".join(bad) or "ready", flush=True)
    if bad:
        sys.exit(1)
    os.dup2(os.open("/dev/null", os.O_RDWR), 1)
    os.dup2(1, 2)
    serve(control, services)


if __name__ == "__main__":
    main()
