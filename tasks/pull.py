"""``pull``: each host pulls an image from a registry by itself, and what the host received is verified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctr_ferry.errors import UsageError
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.run import options
from ctr_ferry.run.command import per_host

if TYPE_CHECKING:
    from ctr_ferry.registry.pull import PullRequest
    from ctr_ferry.registry.results import PullResult
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.ssh.target import Target


def parse(
    *,
    ref: str | None = None,
    digest: str | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    namespace: str | None = None,
    force: bool = False,
) -> PullRequest:
    """Turns the options into a request; raises UsageError or BadReference where an option is wrong."""
    from ctr_ferry.registry.pull import PullRequest

    if not ref:
        raise UsageError("pull needs --ref REF", hint="fab -H all pull --ref registry.example/app:1")
    reference = Reference.parse(ref)
    if digest and not is_digest(digest):
        raise UsageError(f"--digest {digest!r} is no digest", hint="a digest is sha256: and 64 hex digits")
    if reference.digest and (reference.tag or digest):
        raise UsageError(
            f"--ref {ref} has a digest and {'a tag' if reference.tag else '--digest another'}",
            hint="give a tag with --ref, and the digest that the tag must point at with --digest",
        )
    reference = reference if reference.tag or reference.digest else reference.with_tag("latest")
    return PullRequest(
        reference=reference,
        digest=digest,
        platform=options.platform(platform, every=all_platforms),
        all_platforms=all_platforms,
        namespace=options.namespace(namespace),
        force=force,
    )


def before(request: PullRequest, targets: Sequence[Target]) -> None:
    """Checks the logins before any host is touched; raises UsageError where one is missing, or cannot be used."""
    from ctr_ferry.oci.registry import Registries
    from ctr_ferry.registry import credentials

    credentials.check({target.variables_of(Registries).named(request.reference.domain) for target in targets})


@per_host(
    parse,
    before=before,
    help={
        "ref": "The image's name in the registry, with a tag (default: latest) or a digest.",
        "digest": "The digest that the tag must point at; a tag that has moved is refused.",
        "platform": "Pull this platform of a multi-platform image rather than the host's own.",
        "all_platforms": "Pull all platforms of a multi-platform image.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "force": "Move a name that the host has already to the digest that is pulled.",
    },
)
def pull(host: Host, request: PullRequest) -> PullResult:
    """Pull an image from a registry on every host, and verify what arrived; --serial N spares the registry."""
    from ctr_ferry.registry.pull import PullJob

    return PullJob(host, request).run()
