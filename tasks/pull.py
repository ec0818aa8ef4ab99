"""``pull``: each host pulls images from registries by itself, and what the host received is verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ctr_ferry.errors import UsageError
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.run import options
from ctr_ferry.run.command import per_host

if TYPE_CHECKING:
    from ctr_ferry.registry.pull import PullRequest
    from ctr_ferry.registry.results import TransferSetResult
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.ssh.target import Target


def parse(
    *,
    ref: Sequence[str] | None = None,
    set_: Sequence[str] | None = None,
    digest: str | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    namespace: str | None = None,
    force: bool = False,
) -> PullRequest | tuple[PullRequest, ...]:
    """Turns the options into a request, or several; raises UsageError or BadReference where an option is wrong."""
    from ctr_ferry.registry.pull import PullRequest

    refs = options.references(ref, set_)
    if not refs:
        raise UsageError("pull needs --ref REF or --set FILE", hint="fab -H HOST pull --ref registry.example/app:1")
    several = bool(set_) or len(refs) > 1
    if digest and several:
        raise UsageError(
            "--digest is for one image",
            hint="give each image its digest in its name instead (app@sha256:…), and leave --digest out",
        )
    if digest and not is_digest(digest):
        raise UsageError(
            f"--digest {digest!r} is no digest",
            hint="give sha256: and 64 hex digits; hosts tell theirs: fab -H all find --match '*'",
        )
    references = tuple(dict.fromkeys(map(_named, refs)))
    if digest and references[0].digest:
        raise UsageError(f"--ref {refs[0]} has a digest and --digest another", hint="leave --digest out")
    request = PullRequest(
        reference=references[0],
        digest=digest,
        platform=options.platform(platform, every=all_platforms),
        all_platforms=all_platforms,
        namespace=options.namespace(namespace),
        force=force,
    )
    return tuple(replace(request, reference=each) for each in references) if several else request


def _named(ref: str) -> Reference:
    return replace(Reference.parse(ref), text="").or_latest.for_cri


def before(request: PullRequest | tuple[PullRequest, ...], targets: Sequence[Target]) -> None:
    """Checks the logins before any host is touched; raises UsageError where one is missing, or cannot be used."""
    from ctr_ferry.oci.registry import Registries
    from ctr_ferry.registry import credentials

    domains = {each.reference.domain for each in (request if isinstance(request, tuple) else (request,))}
    credentials.check({target.variables_of(Registries).named(domain) for target in targets for domain in domains})


@per_host(
    parse,
    before=before,
    iterable=["ref", "set_"],
    help={
        "ref": "The image's name in the registry, with a tag (default: latest) or a digest; may be repeated.",
        "set_": options.SET_HELP,
        "digest": "The digest that the tag must point at; a tag that has moved is refused.",
        "platform": "Pull this platform of a multi-platform image rather than the host's own.",
        "all_platforms": "Pull all platforms of a multi-platform image.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "force": "Move a name that the host has already to the digest that is pulled.",
    },
)
def pull(host: Host, request: PullRequest | tuple[PullRequest, ...]) -> TransferSetResult:
    """Pull images from registries on every host, and verify what arrived; --serial N spares the registry."""
    from ctr_ferry.registry.pull import PullJob, PullSet
    from ctr_ferry.registry.several import as_set

    return as_set(PullSet(host, request).run() if isinstance(request, tuple) else PullJob(host, request).run())
