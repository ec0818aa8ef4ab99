"""Tasks that a user adds to fabfile.py: their connections are ours, so that host keys are checked for them, too."""

from __future__ import annotations

import threading
from typing import Any

import fabric
from fabric.tasks import ConnectionCall

from ctr_ferry.errors import UsageError
from ctr_ferry.inventory.selector import HostSelector
from ctr_ferry.ssh.connection import Connection


class CheckedCall(ConnectionCall):  # type: ignore[misc]
    """One call of a user's task on one host, with a connection that checks the host's key."""

    def make_context(self, config: Any) -> fabric.Connection:
        """Invoke's hook: the connection that the task gets."""
        return Connection(self.init_kwargs["target"], config, threading.Event())


def connection_arguments(selector: HostSelector, hosts: Any) -> list[dict[str, Any]]:
    """The hosts of ``-H``, or of ``@task(hosts=…)``, as Fabric wants them: arguments of a connection.

    Raises:
        UsageError: a host is given as a mapping, of which ctr-ferry does not know what it would obey.
    """
    patterns = list(hosts or [])
    if not all(isinstance(each, str) for each in patterns):
        raise UsageError(
            "@task(hosts=…) has a host that is no name",
            hint="give names there, and how each is reached in the inventory; then see them: fab hosts",
        )
    return [{"host": each.name, "target": each} for each in selector.select(patterns)] if patterns else []
