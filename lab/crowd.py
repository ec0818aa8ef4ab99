"""A crowd: hundreds of addresses on loopback that all lead into node3. Some are dead, and some never answer.

sshd refuses more than 16 listening addresses. So a small listener in a process of its own accepts connections for all
addresses, and starts `sshd -i` inside node3 for each connection. MaxStartups does not apply to `sshd -i`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lab import cgroups, login
from lab.fleet import Fleet, LabError
from lab.layout import PORT

SSHD = ("/usr/sbin/sshd", "-i", "-e")
CLONE = Path(__file__).resolve().parents[1]


class Crowd:
    """Many hosts. They are up during the `with` block.

    Args:
        fleet: the fleet whose node3 the hosts lead into. The fleet must be up.
        hosts: the number of hosts; h001 has the address NETWORK.1.
        dead: the numbers of the hosts where nothing listens.
        hanging: the numbers of the hosts that accept connections and never send a byte.
        network: the first three numbers of the addresses; by default ten networks after the fleet's own.
        sshd: the command that node3 runs for each connection, with the connection as its stdin and stdout.

    Attributes:
        folder: where the crowd writes everything; removed at the end.
    """

    def __init__(
        self,
        fleet: Fleet,
        hosts: int = 200,
        *,
        dead: Iterable[int] = (),
        hanging: Iterable[int] = (),
        network: str | None = None,
        sshd: Sequence[str] = SSHD,
    ) -> None:
        loopback, _, third = fleet.network.rpartition(".")
        network = network or f"{loopback}.{int(third) + 10}"
        if not ipaddress.ip_address(f"{network}.{hosts}").is_loopback:
            raise LabError(f"a crowd lives on loopback alone, not on {network}.0")
        if "node3" not in fleet.nodes:
            raise LabError("a crowd leads into node3, which is down")
        self.fleet, self._sshd = fleet, sshd
        self.folder = fleet.state / f"crowd-{network}"
        self.addresses = {f"h{number:03}": f"{network}.{number}" for number in range(1, hosts + 1)}
        self.dead = [f"h{number:03}" for number in dead]
        self.hanging = [f"h{number:03}" for number in hanging]
        self._group = f"{fleet.group}/crowd-{network}"
        self._listener: subprocess.Popen[str] | None = None

    @property
    def good(self) -> list[str]:
        """The hosts that are neither dead nor hanging."""
        return [name for name in self.addresses if name not in self.dead and name not in self.hanging]

    @property
    def inventory(self) -> Path:
        """The crowd as a hosts.yaml."""
        return self.folder / "hosts.yaml"

    @property
    def known_hosts(self) -> Path:
        """The file with the host keys. All hosts have node3's key."""
        return self.folder / "known_hosts"

    @property
    def key(self) -> Path:
        """The private key of root's login."""
        return self.fleet.state / "ssh/id_ed25519"

    def connections(self) -> Counter[str]:
        """Return how many connections each host has accepted so far."""
        names = {address: name for name, address in self.addresses.items()}
        return Counter(names[line] for line in (self.folder / "accepted").read_text().split())

    def __enter__(self) -> Crowd:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        key = (self.fleet.state / "ssh/host_keys/node3.pub").read_text()
        self.known_hosts.write_text(login.known_hosts((address, key) for address in self.addresses.values()))
        self.inventory.write_text(self._inventory())
        self._listener = self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener:
            with self._listener:
                self._listener.communicate("")
        cgroups.destroy(self._group)
        shutil.rmtree(self.folder)

    def _listen(self) -> subprocess.Popen[str]:
        """Start the listener and wait until it listens; raise LabError."""
        serving = [a for name, a in self.addresses.items() if name in self.good]
        spec = {
            "serving": serving,
            "hanging": [self.addresses[name] for name in self.hanging],
            "argv": self.fleet.nodes["node3"].argv(self._sshd),
            "groups": [str(folder) for folder in cgroups.create(self._group)],
            "accepted": str(self.folder / "accepted"),
        }
        (self.folder / "listener.json").write_text(json.dumps(spec))
        started = subprocess.Popen(
            [sys.executable, "-m", "lab.crowd", str(self.folder / "listener.json")],
            cwd=CLONE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert started.stdout
        if (answer := started.stdout.readline().strip()) != "ready":
            with started:
                started.communicate("")
            raise LabError(f"the crowd's listener did not start: {answer or 'no output'}")
        return started

    def _inventory(self) -> str:
        options = f"-o UserKnownHostsFile={shlex.quote(str(self.known_hosts))}"
        lines = [
            "all:",
            "  vars:",
            "    ansible_user: root",
            f"    ansible_port: {PORT}",
            f"    ansible_ssh_private_key_file: {json.dumps(str(self.key))}",
            f"    ansible_ssh_common_args: {json.dumps(options)}",
            "  hosts:",
            *(f"    {name}: {{ ansible_host: {address} }}" for name, address in self.addresses.items()),
        ]
        return "\n".join(lines) + "\n"


def _serve(spec: dict[str, Any]) -> None:
    """Run the listener until stdin ends."""
    for group in spec["groups"]:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a session ended
    held = []
    with selectors.DefaultSelector() as waiting, Path(spec["accepted"]).open("a", buffering=1) as accepted:
        waiting.register(sys.stdin, selectors.EVENT_READ)
        for address in (*spec["serving"], *spec["hanging"]):
            listening = socket.create_server((address, PORT), backlog=128)
            waiting.register(listening, selectors.EVENT_READ, address)
        print("ready", flush=True)
        while True:
            for key, _ in waiting.select():
                if not isinstance(key.fileobj, socket.socket):
                    return
                connection, _ = key.fileobj.accept()
                accepted.write(f"{key.data}\n")
                if key.data in spec["hanging"]:
                    held.append(connection)
                    continue
                with connection:
                    _start(spec["argv"], connection)


def _start(argv: list[str], connection: socket.socket) -> None:
    """Start a program with the connection as its stdin and stdout."""
    streams = [(os.POSIX_SPAWN_DUP2, connection.fileno(), fd) for fd in (0, 1)]
    streams.append((os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0))  # type: ignore[arg-type]
    os.posix_spawnp(argv[0], argv, os.environ, file_actions=streams, setsigdef=[signal.SIGCHLD, signal.SIGPIPE])


if __name__ == "__main__":
    try:
        _serve(json.loads(Path(sys.argv[1]).read_text()))
    except OSError as problem:
        with contextlib.suppress(BrokenPipeError):
            print(problem, flush=True)
