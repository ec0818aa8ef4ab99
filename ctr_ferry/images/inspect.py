"""What several commands ask a host first: which ctr is there, which images it has, and where a missing image is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ctr_ferry.ctr import probe
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.errors import HostError
from ctr_ferry.shell import Answer, Script

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host


def namespace(host: Host, given: str | None) -> str:
    """The namespace that a command works in: the one from its options, else the inventory's."""
    return given or host.target.variables_of(Settings).namespace


def facts(host: Host, namespaces: Sequence[str]) -> Facts:
    """Probes a host in one remote command: its ctr, its containerd, and the images of these namespaces.

    If the login user may not use containerd, the host runs later scripts as root, too.

    Raises:
        Unreachable, CtrNotFound, DaemonUnreachable, PermissionDenied, GarbledAnswer, RemoteTimeout.
    """
    found, _ = survey(host, namespaces, {})
    if isinstance(found, HostError):
        raise found
    return found


def survey(
    host: Host, namespaces: Sequence[str], more: Mapping[str, str]
) -> tuple[Facts | HostError, dict[str, Answer]]:
    """Like `facts`, with further steps, sh text by name, in the same remote command.

    Returns:
        The facts, or the error that tells why there are none; and the answers of all steps.

    Raises:
        Unreachable, PermissionDenied, GarbledAnswer, RemoteTimeout: the host gave no answer at all.
    """
    settings = host.target.variables_of(Settings)
    script = probe.script(settings, namespaces)
    script = replace(script, steps={**script.steps, **more})
    answers = host.ask(script, limit=host.target.limits.probe, rights_check=probe.rights_check(settings))
    try:
        found = probe.read(settings, namespaces, answers)
    except HostError as error:
        return error, answers
    if found.sudo:
        host.become_root()
    if found.chosen:
        host.notes[found.chosen] = None
    return found, answers


def ask_as_the_probe(host: Host, steps: Mapping[str, str]) -> dict[str, Answer]:
    """Asks a host that was probed already for further steps of the probe, in one remote command."""
    return host.ask(probe.further(host.target.variables_of(Settings), steps), limit=host.target.limits.probe)


def ask(host: Host, steps: Mapping[str, str]) -> dict[str, Answer]:
    """Asks a host in one remote command, within the time of a probe; without steps it asks nothing."""
    return host.ask(Script(steps), limit=host.target.limits.probe) if steps else {}
