"""The login to the nodes: keys, known hosts, and the inventory of the nodes that are up."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lab.layout import PORT

GROUPS = ("legacy", "plain", "kubernetes")


def make_key(path: Path, comment: str, tree: Path) -> None:
    """Make an ed25519 key, unless it exists.

    Args:
        path: the file of the private key. The name of the public key's file has `.pub` added.
        comment: the comment at the end of the public key.
        tree: unpacked packages with ssh-keygen, for machines without it.
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


def known_hosts(keys: Iterable[tuple[str, str]]) -> str:
    """Return a known_hosts file for pairs of an address and a public host key."""
    return "".join(f"[{address}]:{PORT} {' '.join(key.split()[:2])}\n" for address, key in keys)


def inventory(
    state: Path,
    nodes: Sequence[tuple[str, str, str, bool]],
    registries: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """Return an inventory like the tracked hosts.yaml, with absolute paths.

    Args:
        state: the folder with ssh/.
        nodes: for each node its name, its address, its group, and whether its sudo users are listed as hosts, too.
        registries: `ctr_registries` of all hosts; none by default.
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
    ]
    if registries:
        lines += ["    ctr_registries:", *(f"      {name}: {json.dumps(given)}" for name, given in registries.items())]
    lines += ["  children:"]
    for group in GROUPS:
        members = [node for node in nodes if node[2] == group]
        if members:
            lines += [f"    {group}:", "      hosts:"]
        lines += [f"        {name}: {{ ansible_host: {address} }}" for name, address, _, _ in members]
    users = [(f"{n}-{u}", address, u) for n, address, _, users in nodes if users for u in ("ops", "ops2")]
    if users:
        lines += ["    sudoers:", "      hosts:"]
    lines += [
        f"        {name}: {{ ansible_host: {address}, ansible_user: {user}, ansible_become: true }}"
        for name, address, user in users
    ]
    return "\n".join(lines) + "\n"
