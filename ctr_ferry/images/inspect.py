"""What several commands ask a host first: which ctr is there, which images it has, and where a missing image is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ctr_ferry.ctr import probe
from ctr_ferry.ctr.failures import required
from ctr_ferry.ctr.listing import Listing, parse_digests
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.errors import GarbledAnswer, HostError, ImageNotFound
from ctr_ferry.images.content import Content
from ctr_ferry.images.missing import explain
from ctr_ferry.oci.descriptor import INDEXES, MANIFESTS
from ctr_ferry.shell import Answer, Script

if TYPE_CHECKING:
    from ctr_ferry.ssh.host import Host

_DOCUMENTS = INDEXES | MANIFESTS  # other entries of an index are blobs like layers to containerd


def namespace(host: Host, given: str | None) -> str:
    """The namespace that a command works in.

    Args:
        given: the namespace from the command's options; None means the inventory's.
    """
    return given or host.target.variables_of(Settings).namespace


def facts(host: Host, namespaces: Sequence[str]) -> Facts:
    """Probes a host in one remote command: its ctr, its containerd, and the images of some namespaces.

    Args:
        host: the host. If its login user may not use containerd, it runs later scripts as root, too.
        namespaces: the namespaces whose images are listed.

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
    """Like `facts`, with further steps after the probe, in the same remote command.

    Args:
        more: sh text of the further steps, by name.

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
    return found, answers


def content(
    host: Host, facts: Facts, namespace: str, tops: Iterable[str], *, deep: bool, more: Mapping[str, str] | None = None
) -> tuple[Content, dict[str, Answer]]:
    """Reads manifests and the visible digests of a namespace, in one remote command; ``deep`` may take a second one.

    Args:
        tops: digests of the images' targets.
        deep: whether to read the manifests of indexes as well.
        more: further steps for the first remote command.

    Returns:
        The content, and the answers by step.

    Raises:
        FerryError: the host did not list the visible digests.
    """
    read = Content()
    answers = fetch(
        host, facts, namespace, tops, read=read, more={"visible": facts.ctr.digests(namespace), **(more or {})}
    )
    read.see(parse_digests(required(answers["visible"], "content ls").text.splitlines()))
    if deep:
        deepen(host, facts, namespace, read)
    return read, answers


def deepen(host: Host, facts: Facts, namespace: str, read: Content) -> None:
    """Reads the visible manifests of all indexes in ``read``, in one remote command, or none if there is no index."""
    children = [child for top in list(read.blobs) for child in read.manifest(top).children]
    there = [child.digest for child in children if child.digest in read.visible and child.media_type in _DOCUMENTS]
    fetch(host, facts, namespace, there, read=read)


def fetch(
    host: Host,
    facts: Facts,
    namespace: str,
    digests: Iterable[str],
    *,
    read: Content,
    more: Mapping[str, str] | None = None,
) -> dict[str, Answer]:
    """Reads manifests by digest into ``read`` and checks them, in one remote command.

    Args:
        more: further steps for the same remote command.

    Returns:
        The answers by step.
    """
    wanted = [digest for digest in dict.fromkeys(digests) if digest not in read.blobs]
    steps = {f"get-{n}": facts.ctr.document(namespace, digest) for n, digest in enumerate(wanted)} | dict(more or {})
    if not steps:
        return {}
    answers = host.ask(Script(steps), limit=host.target.limits.probe)
    for number, digest in enumerate(wanted):
        read.take(digest, answers[f"get-{number}"], host.name)
    return answers


def others(host: Host, facts: Facts, namespace: str) -> list[Listing]:
    """Lists the images of all other namespaces in one remote command; a namespace that cannot be read is left out."""
    names = [name for name in facts.namespaces if name != namespace]
    if not names:
        return []
    script = Script({f"in-{n}": facts.ctr.images(name) for n, name in enumerate(names)})
    answers = host.ask(script, limit=host.target.limits.probe)
    found = []
    for number, name in enumerate(names):
        with contextlib.suppress(GarbledAnswer):
            found.append(Listing.parse(name, answers[f"in-{number}"].text))
    return found


def not_found(host: Host, facts: Facts, here: Listing, wanted: Iterable[str]) -> list[ImageNotFound]:
    """Returns one error for each missing image; it says where the image is instead."""
    elsewhere = others(host, facts, here.namespace)
    return [
        ImageNotFound(
            f"no image {name} in namespace {here.namespace}", hint=explain(name, here, elsewhere, facts.sockets)
        )
        for name in wanted
    ]
