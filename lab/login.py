"""How one logs in to the nodes: keys, known hosts and the inventory of the nodes that are up."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.layout import PORT

GROUPS = ("legacy", "plain", "kubernetes")


def make_key(path: Path, comment: str, tree: Path) -> str:
    """Make an ed25519 key at `path` unless it is there; return its public half as one line.

    Args:
        path: the private key's file; the public one gets `.pub` added.
        comment: what the public key ends with.
        tree: unpacked packages that hold ssh-keygen, for machines without it.
    """
    public = path.with_name(path.name + ".pub")
    if not public.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        libraries = ":".join(str(folder) for folder in (tree / "usr/lib").glob("*-linux-gnu"))
        program = shutil.which("ssh-keygen") or tree / "usr/bin/ssh-keygen"
        subprocess.run(
            [program, "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path],
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
            check=True,
        )
    return public.read_text()


def known_hosts(keys: Iterable[tuple[str, str]]) -> str:
    """Return a known_hosts file for pairs of an address and a public host key."""
    return "".join(f"[{address}]:{PORT} {' '.join(key.split()[:2])}\n" for address, key in keys)


def inventory(state: Path, nodes: Sequence[tuple[str, str, str, bool]]) -> str:
    """Return a hosts.yaml of the same shape as the tracked one, with absolute paths.

    Args:
        state: the folder that holds ssh/.
        nodes: name, address, group, and whether the sudo users are to be listed, for each node.
    """
    options = f"-o UserKnownHostsFile={shlex.quote(str(state / 'ssh/known_hosts'))}"
    lines = [
        "# Written by `python -m lab up`: the nodes that are up. `python -m lab down` removes it.",
        "all:",
        "  vars:",
        "    ansible_user: root",
        f"    ansible_port: {PORT}",
        f"    ansible_ssh_private_key_file: {json.dumps(str(state / 'ssh/id_ed25519'))}",
        f"    ansible_ssh_common_args: {json.dumps(options)}",
        "  children:",
    ]
    for group in GROUPS:
        members = [node for node in nodes if node[2] == group]
        lines += [f"    {group}:", "      hosts:"] if members else []
        lines += [f"        {name}: {{ ansible_host: {address} }}" for name, address, _, _ in members]
    users = [(f"{n}-{u}", address, u) for n, address, _, users in nodes if users for u in ("ops", "ops2")]
    lines += ["    sudoers:", "      hosts:"] if users else []
    lines += [
        f"        {name}: {{ ansible_host: {address}, ansible_user: {user}, ansible_become: true }}"
        for name, address, user in users
    ]
    return "\n".join(lines) + "\n"
