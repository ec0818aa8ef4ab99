"""A login that gives half a MiB of a large blob, and the rest when it is told to: it catches a copy in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from accounts import account

from lab.fleet import Node

LARGE = 4 << 20  # bytes; the reading of larger blobs stalls
_SHELL = '#!/bin/sh\nPATH="$HOME/bin:$PATH"; export PATH\nexec /bin/bash "$@"\n'
_CAT = f"""#!/bin/sh
[ "$(wc -c <"$1")" -gt {LARGE} ] || exec /bin/cat "$1"
head -c 524288 "$1"; : >"$HOME/stalled"
while [ ! -e "$HOME/go" ]; do sleep 0.05; done
tail -c +524289 "$1"
"""


@contextmanager
def stalling(node: Node) -> Iterator[str]:
    """Make such a login of root on a node for the block; yield its name."""
    with account(node, "{home}/shell", {"shell": _SHELL, "bin/cat": _CAT}) as user:
        yield user


def is_stalled(node: Node, user: str) -> bool:
    """Tell whether the reading of a large blob has stalled."""
    return node.exec(["test", "-e", f"/home/{user}/stalled"], check=False).returncode == 0


def go_on(node: Node, user: str) -> None:
    """Let the login give the rest."""
    node.exec(["touch", f"/home/{user}/go"])
