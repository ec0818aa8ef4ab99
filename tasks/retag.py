"""``retag``: gives images of a host a second name without moving their bytes.

The command inspects the host and plans each image. One remote command applies all plans and lists the names again;
that listing decides the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ctr_ferry.ctr.methods import Method
from ctr_ferry.errors import UsageError
from ctr_ferry.images.mappings import Pair, read_map
from ctr_ferry.images.retag import RetagJob, RetagRequest, RetagResult
from ctr_ferry.oci.reference import parse_domain
from ctr_ferry.report.answers import nothing_fits, results
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide

if TYPE_CHECKING:
    from ctr_ferry.report.outcome import Answer
    from ctr_ferry.run.scheduler import Fleet


def parse(
    *,
    src: str | None = None,
    dst: str | None = None,
    map: str | None = None,
    to_registry: str | None = None,
    match: str | None = None,
    namespace: str | None = None,
    to_namespace: str | None = None,
    method: str | None = None,
    platform: str | None = None,
    force: bool = False,
) -> RetagRequest:
    """Turns the options into a request; raises UsageError or BadReference, which names the wrong option."""
    ways = [bool(src or dst), bool(map), bool(to_registry or match)]
    if sum(ways) != 1:
        raise UsageError(
            "retag needs one of: --src with --dst, --map FILE, or --to-registry HOST with --match GLOB",
            hint="fab -H HOST retag --src old.example/app:1 --dst new.example/app:1",
        )
    if to_registry or match:
        if not (to_registry and match):
            raise UsageError(
                "--to-registry and --match go together",
                hint="give both: fab -H HOST retag --to-registry r.example --match 'dead.example:5000/*'",
            )
        to_registry = parse_domain(to_registry)
    pairs = _pairs(src, dst, map, crosses=bool(to_namespace))
    if not to_namespace and (same := next((pair for pair in pairs if pair.same), None)):
        raise UsageError(
            f"source and destination are the same name, {same.src}",
            hint="give another destination, or leave this image out of the map",
        )
    return RetagRequest(
        pairs=pairs,
        to_registry=to_registry,
        match=match,
        namespace=options.namespace(namespace),
        to_namespace=options.namespace(to_namespace, "--to-namespace"),
        method=_method(method, crosses=bool(to_namespace)),
        platform=options.platform(platform),
        force=force,
    )


def _pairs(src: str | None, dst: str | None, map_file: str | None, *, crosses: bool) -> tuple[Pair, ...]:
    if map_file:
        return read_map(Path(map_file), apart=crosses)
    if not (src or dst):
        return ()
    if not (src and dst):
        lacks, name = ("--dst", "new.example/app:1") if src else ("--src", "old.example/app:1")
        raise UsageError(f"{lacks} is missing", hint=f"give it, such as with {lacks} {name}")
    return (Pair.parse(src, dst),)


def _method(text: str | None, *, crosses: bool) -> Method:
    method = Method(options.choice(text, "--method", [Method.AUTO, Method.TAG, Method.INDEX, Method.ARCHIVE]))
    if crosses and method in (Method.TAG, Method.INDEX):
        raise UsageError(
            f"--method {method} gives names within one namespace only", hint="with --to-namespace, leave --method out"
        )
    return method


@fleet_wide(
    parse,
    help={
        "src": "The image as the host has it: a name, its short form, or a digest; it need be no reference.",
        "dst": "The new name; without a tag it takes the source's.",
        "map": "File with two columns, source and destination, and '#' comments; all names are given in one go.",
        "to_registry": "With --match: give every matching image the same name on this registry host.",
        "match": "With --to-registry: glob on whole names, such as 'dead.example:5000/*'.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "to_namespace": "Give the name in this namespace instead; content is linked, not moved.",
        "method": "auto (default), tag, index, or archive (the classic export and import).",
        "platform": "Name this platform's manifest of a multi-platform image, such as linux/arm64.",
        "force": "Let an existing name point at the source's digest.",
    },
)
def retag(fleet: Fleet, request: RetagRequest) -> dict[str, Answer]:
    """Give images a second name on the host itself, in constant time, without moving their bytes."""
    answers = fleet.each(lambda host: RetagJob(host, request).run())
    found = [result for _, result in results(answers, RetagResult)]
    if request.match and found and not any(result.images or result.already for result in found):
        raise nothing_fits(request.match, answers)
    return answers
