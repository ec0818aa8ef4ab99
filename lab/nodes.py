"""A node of the rehearsal fleet that is up: its properties, and how to run commands inside it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.layout import PORT, USERS, Model

START_PATIENCE = 60.0
MARK = "# registries"  # ends each of the lab's lines in a node's /etc/hosts


class LabError(Exception):
    """The lab cannot do what was asked. The text is one sentence for people."""


class NodeGone(LabError):
    """A node's process 1 has ended, or was never started."""


class Node:
    """A node that is up.

    Attributes:
        name, number: such as node3 and 3.
        address, port: where the node's sshd listens.
        model: the kind of node.
        cri: whether containerd's CRI plugin is on.
        socket, root: containerd's socket and root folder, inside the node.
        given: the folder with the containerd that the node runs in place of its package's; "" for none.
        real_is_legacy: whether the node runs a real containerd older than 1.3.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._spec: dict[str, Any] = json.loads((folder / "node.json").read_text())
        self.model = Model(**{**self._spec["model"], **_tuples(self._spec["model"])})
        self.name: str = self._spec["name"]
        self.number: int = self._spec["place"]["number"]
        self.address: str = self._spec["place"]["address"]
        self.given: str = self._spec["place"]["given"]
        self.real_is_legacy = self.model.legacy and bool(self.given)
        self.port = PORT
        self.cri, self.socket, self.root = self.model.cri, self.model.socket, self.model.root

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.address}:{self.port}>"

    @cached_property
    def version(self) -> str:
        """The version that the node's ctr reports."""
        return self.ctr("--version").stdout.decode().split()[-1]

    @cached_property
    def real_version(self) -> str:
        """The version that the ctr behind node1's stand-in reports; on other nodes the same as `version`."""
        return self.real_ctr("--version").stdout.decode().split()[-1]

    @property
    def pid(self) -> int | None:
        """The number of the node's process 1 on the machine; None if the node is down."""
        with contextlib.suppress(OSError, ValueError):
            pid, started = (self.folder / "pid").read_text().split()
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if stat[19] == started and stat[0] != "Z":
                return int(pid)
        return None

    def argv(self, command: Sequence[str], *, user: str | None = None) -> list[str]:
        """Return the command line on the machine that runs `command` inside the node, as `user` or as root.

        Raises:
            LabError: the node is down.
        """
        if not (pid := self.pid):
            raise LabError(f"{self.name} is down")
        name = user or "root"
        home = "/root" if name == "root" else f"/home/{name}"
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        if name == "ops":
            path = "/usr/local/bin:/usr/bin:/bin:/usr/games"
        settings = [f"PATH={path}", f"HOME={home}", f"USER={name}", f"LOGNAME={name}", "SHELL=/bin/bash"]
        settings += [f"TERM={os.environ.get('TERM', 'dumb')}", "LANG=C.UTF-8"]
        become = ["setpriv", f"--reuid={USERS[name]}", f"--regid={USERS[name]}", "--init-groups"] if user else []
        enter = ["nsenter", f"--target={pid}", "--mount", "--uts", "--pid", "--cgroup", "--"]
        return [*enter, "env", "--ignore-environment", f"--chdir={home}", *settings, *become, *command]

    def exec(
        self, argv: Sequence[str], *, stdin: bytes = b"", check: bool = True, user: str | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command inside the node, not over SSH.

        Args:
            argv: the command. The node's PATH applies.
            stdin: the bytes on the command's stdin.
            check: whether a command that fails raises LabError.
            user: `ops` or `ops2`, on a node that has them; root by default.

        Raises:
            LabError: the node is down, or (with `check`) the command failed; the text has the command's error.
        """
        done = subprocess.run(self.argv(argv, user=user), input=stdin, capture_output=True, check=False)
        if check and done.returncode:
            detail = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
            raise LabError(f"{self.name}: {' '.join(argv)}: exit {done.returncode}: {detail}")
        return done

    def ctr(
        self, *args: str, namespace: str = "k8s.io", stdin: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the ctr of this node's users. The arguments are those of `exec`."""
        return self.exec([*self.model.ctr, "-n", namespace, *args], stdin=stdin, check=check)

    def real_ctr(
        self, *args: str, namespace: str = "k8s.io", stdin: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the ctr that belongs to the node's containerd. Only on node1 with its stand-in, `ctr` is another one."""
        return self.exec(self.real_ctr_argv(*args, namespace=namespace), stdin=stdin, check=check)

    def real_ctr_argv(self, *args: str, namespace: str = "k8s.io") -> list[str]:
        """Return the command line, inside the node, of the ctr that belongs to its containerd."""
        return [*self.real_ctr_words, "-n", namespace, *args]

    @property
    def real_ctr_words(self) -> list[str]:
        """The beginning of the command line of the ctr that belongs to the node's containerd."""
        return list(self._spec["real_ctr"])

    def resolve(self, names: Mapping[str, str]) -> None:
        """Let the node resolve these names, each to its address, and none of those that it was told before."""
        lines = "".join(f"{address} {name} {MARK}\n" for name, address in names.items())
        self.exec(["sh", "-c", f"sed -i '/{MARK}$/d' /etc/hosts && cat >>/etc/hosts"], stdin=lines.encode())

    def start_containerd(self) -> None:
        """Start containerd and wait until it answers; raise LabError."""
        self._control("start containerd")

    def stop_containerd(self) -> None:
        """Stop containerd and wait until it has ended; raise LabError."""
        self._control("stop containerd")

    def restart_containerd(self) -> None:
        """Stop and start containerd; raise LabError."""
        self.stop_containerd()
        self.start_containerd()

    def start_sshd(self) -> None:
        """Start sshd and wait until it answers; raise LabError."""
        self._control("start sshd")

    def stop_sshd(self) -> None:
        """Stop sshd, but not its sessions, and wait until it has ended; raise LabError."""
        self._control("stop sshd")

    def services(self) -> dict[str, bool]:
        """Return which services run; raise LabError."""
        answer: dict[str, bool] = json.loads(self._control("status"))
        return answer

    def _control(self, request: str) -> str:
        """Send a request to the node's process 1; return the answer; raise LabError."""
        folder = os.open(self.folder, os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as asked:
                asked.settimeout(START_PATIENCE)
                asked.connect(f"/proc/self/fd/{folder}/control")  # the path itself may be too long
                asked.sendall(request.encode())
                answer = asked.recv(4096).decode()
        except OSError as error:
            raise NodeGone(f"{self.name} does not answer: {error}") from error
        finally:
            os.close(folder)
        if request != "status" and answer != "ok":
            raise LabError(f"{self.name}: {answer}")
        return answer


def _tuples(model: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the tuples of a model. JSON has them as lists."""
    return {key: tuple(value) for key, value in model.items() if isinstance(value, list)}
