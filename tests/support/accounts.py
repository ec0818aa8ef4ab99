"""Further logins of root on a node, with a shell and a home of their own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from lab.fleet import Node


@contextmanager
def account(node: Node, shell: str = "/bin/bash", files: Mapping[str, str] | None = None) -> Iterator[str]:
    """Make another login of root on a node, with a shell and a home of its own, for the block; yield its name.

    Args:
        shell: the login shell; `{home}` stands for the home.
        files: executable files: path below the home -> text.
    """
    name = f"r{uuid.uuid4().hex[:8]}"
    home = f"/home/{name}"
    for path, text in (files or {}).items():
        put = 'mkdir -p "${1%/*}" && cat >"$1" && chmod 755 "$1"'
        node.exec(["sh", "-c", put, "put", f"{home}/{path}"], stdin=text.encode())
    line = f"{name}:x:0:0::{home}:{shell.format(home=home)}\n"
    node.exec(["sh", "-c", f"mkdir -p {home}; cat >>/etc/passwd"], stdin=line.encode())
    try:
        yield name
    finally:
        node.exec(["sh", "-c", f"sed -i '/^{name}:/d' /etc/passwd; rm -rf {home}"])


@contextmanager
def counting(nodes: Iterable[Node]) -> Iterator[dict[str, Callable[[], int]]]:
    """Make a login of root on each node that counts its remote commands; yield host, as for -H -> their number."""
    shell = '#!/bin/sh\necho "$1" >>"$HOME/commands"\nexec /bin/bash "$@"\n'

    def count(node: Node, user: str) -> int:
        return len(node.exec(["cat", f"/home/{user}/commands"]).stdout.split())

    with ExitStack() as stack:
        found: dict[str, Callable[[], int]] = {}
        for node in nodes:
            user = stack.enter_context(account(node, "{home}/shell", {"shell": shell, "commands": ""}))
            found[f"{user}@{node.name}"] = partial(count, node, user)
        yield found
