"""A run may have as many files open as the system lets it, and says so where that is not enough."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fabric
import pytest

from ctr_ferry.errors import ConnectionLost, Unreachable
from ctr_ferry.ssh import open_files
from ctr_ferry.ssh.connection import Connection
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.target import Limits, Target, Trust

CONFIG = fabric.Config(overrides={"load_ssh_configs": False})


@contextmanager
def limited(files: int) -> Iterator[None]:
    """Set the soft limit during a block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised_and_never_lowered() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with limited(256):
        open_files.raise_limit()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised[0] > 256 and raised[1] == hard
        open_files.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised


@pytest.mark.parametrize("gateway", [None, "cat"], ids=["straight", "ProxyCommand"])
def test_a_connection_that_finds_too_many_files_open_says_so(tmp_path: Path, gateway: str | None) -> None:
    trust, limits = Trust((tmp_path / "known",)), Limits(connect=1, retries=0)
    target = Target("a", "127.0.0.1", 9, "ops", gateway=gateway, trust=trust, limits=limits)
    connection = Connection(target, CONFIG, threading.Event())
    with os.fdopen(os.open(os.devnull, os.O_RDONLY)) as lowest, limited(lowest.fileno() + 1):
        with pytest.raises(Unreachable, match="too many files are open here for a connection to ops@127") as raised:
            connection._connect_once()
        assert f"may have {lowest.fileno() + 1} files open" in raised.value.hint
        assert "ulimit -n 4096" in raised.value.hint
    connection.close()


def test_a_connection_that_cannot_go_on_for_that_reason_says_so_and_is_not_called_broken() -> None:
    host = Host(Target("a", "127.0.0.1"), CONFIG)
    expected = pytest.raises(ConnectionLost, match="too many files are open here to go on with a")
    with expected as raised, host.lost_connection():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    assert "ulimit -n" in raised.value.hint
