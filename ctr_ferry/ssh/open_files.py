"""How many files this process may have open: each connection is one, and a ProxyCommand is three."""

from __future__ import annotations

import contextlib
import errno
import resource

_ENOUGH = 1 << 16  # a higher limit makes some programs slow that a ProxyCommand or a credential helper may start


def raise_limit() -> None:
    """Raises the soft limit to the hard one, as far as that is of use: it is often 1024, for the sake of select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has a further limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def is_limit(error: BaseException) -> bool:
    """Whether an error tells that this process, or this machine, has too many files open."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def advice() -> str:
    """Says what to do about the limit, in one sentence."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"this process may have {soft} files open, and each connection needs one or more: raise the limit in this "
        f"shell with ulimit -n {max(4096, 4 * soft)} (above the hard limit only root can), or name fewer hosts"
    )
