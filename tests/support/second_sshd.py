"""Another sshd on a node, for tests that need settings of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ferry import eventually

from lab.fleet import Node


@contextmanager
def second_sshd(node: Node, port: int, **settings: object) -> Iterator[Callable[[], str]]:
    """Another sshd on a node, with some settings of its own; yields what it has said so far."""
    own = {"Port": port, **settings}
    lines, others = (
        "".join(f"{name} {own[name]}\n" for name in own),
        f"grep -vE '^({'|'.join(own)}) ' /etc/ssh/sshd_config",
    )
    file = f"/tmp/sshd-{port}"
    node.exec(["sh", "-c", f"{{ cat; {others}; }} >{file}"], stdin=lines.encode())

    def log() -> str:
        return node.exec(["cat", f"{file}.log"]).stdout.decode()

    argv = ["/usr/sbin/sshd", "-D", "-f", file, "-E", f"{file}.log"]
    with subprocess.Popen(node.argv(argv), stderr=subprocess.DEVNULL) as entered:
        mine = f"sshd: {' '.join(argv)}"
        try:
            assert eventually(lambda: any(detail.startswith(mine) for detail in _daemons(node).values()), 10)
            yield log
        finally:
            found = [pid for pid, detail in _daemons(node).items() if detail.startswith(mine)]
            subprocess.run(["kill", *map(str, found)], check=True)
            entered.wait()
            node.exec(["rm", "-f", file, f"{file}.log"])


def _daemons(node: Node) -> dict[int, str]:
    """Return every sshd of a node that listens: number on this machine -> its title."""
    space = Path(f"/proc/{node.pid}/ns/pid").readlink()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            detail = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if "[listener]" in detail and (folder / "ns/pid").readlink() == space:
                found[int(folder.name)] = detail
        except OSError:
            continue
    return found
