"""Which images come from which hosts: what the possible sources have, and what of it is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ctr_ferry import shell
from ctr_ferry.ctr.listing import Image
from ctr_ferry.errors import Drift, FerryError, HostError, ImageNotFound, SourceLost, Unreachable, UsageError
from ctr_ferry.images.content import Content
from ctr_ferry.images.session import Session
from ctr_ferry.oci.descriptor import INDEXES, Descriptor, Platform
from ctr_ferry.oci.reference import Reference, is_digest, is_glob, pinned
from ctr_ferry.report.answers import grouped
from ctr_ferry.report.hints import at_hosts
from ctr_ferry.text import shown_name
from ctr_ferry.transfer.copy_request import CopyOptions, CopyRequest, ImageCopy, blobs_to_have

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.transfer.fan_out import Source

ANY = "any"
_UNKNOWN = Platform("unknown", "unknown")  # of attestations, which no host needs (BuildKit)


@dataclass(frozen=True, slots=True)
class ImageSelector:
    """A name in any form, a digest, or a glob on whole names; and the name to give, if it is not the source's own."""

    ref: str
    dst: Reference | None = None


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What the command line asks for; ``sources`` are patterns of the inventory, or `ANY` for all of it.

    Where a ``digest`` is given, no image with another one is meant.
    """

    sources: tuple[str, ...]
    selectors: tuple[ImageSelector, ...]
    namespace: str | None = None
    options: CopyOptions = field(default_factory=CopyOptions)
    digest: str | None = None


@dataclass(slots=True)
class SourceInventory:
    """What one possible source has; ``found`` has the images that are asked for."""

    session: Session
    content: Content
    found: dict[ImageSelector, tuple[Image, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The host's name."""
        return self.session.host.name

    @property
    def has_parts(self) -> bool:
        """Whether the host's ctr can name no more than a platform's manifest of an index that was pulled in part."""
        return not self.session.facts.ctr.capabilities.partial_index

    def has(self, part: frozenset[str]) -> bool:
        """Tells whether the host has all of these blobs, and gave those correctly that were read."""
        return part <= self.content.visible and part.isdisjoint(self.content.bad)


@dataclass(frozen=True, slots=True)
class FoundImages:
    """The images that are asked for, and who has them.

    Attributes:
        image_copies: each image with the name that it gets.
        sources: the possible sources that answered.
        troubles: why the other possible sources did not answer, by name.
        missing: why there is no image, by what was asked for.
        notices: what the user should know.
    """

    image_copies: tuple[ImageCopy, ...]
    sources: tuple[SourceInventory, ...]
    troubles: Mapping[str, FerryError]
    missing: Mapping[ImageSelector, FerryError]
    notices: tuple[str, ...] = ()


def find_images(fleet: Fleet, request: SourceRequest) -> FoundImages:
    """Inspects the possible sources, and decides which images are meant; raises FerryError if no source answered."""
    patterns = ["all"] if ANY in request.sources else request.sources

    def look(host: Host) -> SourceInventory:
        found: SourceInventory | None = None
        try:
            found = _inspect(host, request)
            return found
        finally:
            if not (found and found.found):
                fleet.disconnect([host.name])

    answers = fleet.also(patterns, look)
    sources = [answer for answer in answers.values() if isinstance(answer, SourceInventory)]
    troubles = {name: error for name, error in answers.items() if isinstance(error, FerryError)}
    if not sources:
        raise _of_source(*next(iter(troubles.items())))
    images: dict[ImageSelector, tuple[Image, ...]] = {}
    missing: dict[ImageSelector, FerryError] = _not_found(request, sources, troubles)
    for selector in request.selectors:
        try:
            if selector not in missing:
                images[selector] = _resolve(selector, sources, request)
        except HostError as error:
            missing[selector] = error
    notices = tuple(filter(None, [_passed_by(sources, [selector.ref for selector in request.selectors])]))
    return FoundImages(tuple(_image_copies(images)), tuple(sources), troubles, missing, notices)


def _passed_by(sources: Iterable[SourceInventory], refs: Sequence[str]) -> str:
    """Says which names of the first source that has such are no references; empty for none."""
    return next(filter(None, (source.session.passed_by(refs) for source in sources)), "")


def images_from(fleet: Fleet, request: SourceRequest) -> tuple[CopyRequest, Source]:
    """Inspects the possible sources, and decides which images come from which; raises if one image is not there."""
    found = find_images(fleet, request)
    if found.missing:
        raise _of_all(list(found.missing.values()), len(request.selectors))
    used = chosen(found.sources, [image_copy.image for image_copy in found.image_copies], request)
    fleet.disconnect(source.name for source in found.sources if source not in used)
    seen = frozenset[str]().union(*(source.content.visible for source in used))
    content = replace(Content.merged(source.content for source in found.sources), visible=seen)
    options = request.options
    if ANY in request.sources and len(used) > 1 and not (options.platform or options.every):
        options = replace(options, own=True)  # together they have more platforms than any host needs
    return CopyRequest(found.image_copies, content, options, found.notices), source_of(used)


def _inspect(host: Host, request: SourceRequest) -> SourceInventory:
    """Inspects one source in three remote commands: the probe, the images' manifests, and those of indexes."""
    session = Session(host, request.namespace)
    meant = session.here.meant(selector.ref for selector in request.selectors)
    found = {selector: images for selector in request.selectors if (images := meant[selector.ref])}
    digests = [image.digest for images in found.values() for image in images]
    content, _ = session.read(digests, deep=True, files=True)
    return SourceInventory(session=session, content=content, found=found)


def _of_source(name: str, error: FerryError) -> FerryError:
    """Returns the error of a source for the outcome of a destination."""
    kind = SourceLost if isinstance(error, Unreachable) else type(error)
    return kind(f"the source {name}: {error.message}", detail=error.detail, hint=at_hosts(error.hint, [name]))


def _resolve(selector: ImageSelector, sources: Sequence[SourceInventory], request: SourceRequest) -> tuple[Image, ...]:
    """Returns the images that a selector means: those of the first source, or, for `ANY`, those that all agree on."""
    named = grouped(
        (image.name if is_glob(selector.ref) else selector.ref, (source, image))
        for source in sources
        for image in source.found.get(selector, ())
    )
    if request.digest:
        named = {name: _with_digest(name, having, request.digest) for name, having in named.items()}
    elif ANY in request.sources:
        named = {name: _agreed(name, having) for name, having in named.items()}
    return tuple(having[0][1] for having in named.values())


def _agreed(name: str, having: Sequence[tuple[SourceInventory, Image]]) -> list[tuple[SourceInventory, Image]]:
    """Drops sources whose ctr can name no more than one platform's manifest of an index that other sources name.

    Any other source with such a manifest differs: its manifest may be listed by a wrong index as well.
    """
    parts = {
        manifest.digest
        for source, image in having
        if image.media_type in INDEXES
        for manifest in source.content.tree(Descriptor(image.media_type, image.digest, 0)).manifests
    }
    tops = [(source, image) for source, image in having if not (source.has_parts and image.digest in parts)]
    if len({image.digest for _, image in tops}) > 1:
        raise Drift(
            f"{name} is not the same image on all hosts",
            detail="\n".join(f"{source.name} {image.digest}" for source, image in tops),
            hint=f"choose one, such as with --from {tops[0][0].name}",
        )
    return tops


def _with_digest(
    name: str, having: Sequence[tuple[SourceInventory, Image]], digest: str
) -> list[tuple[SourceInventory, Image]]:
    """Drops sources whose image has another digest."""
    right = [(source, image) for source, image in having if image.digest == digest]
    if not right:
        raise Drift(
            f"no source has {name} with the digest {digest}",
            detail="\n".join(f"{source.name} {image.digest}" for source, image in having),
            hint=f"find out which digest is the right one: {shell.join(['fab', '-H', 'all', 'find', '--ref', name])}",
        )
    return right


def _not_found(
    request: SourceRequest, sources: Sequence[SourceInventory], troubles: Mapping[str, FerryError]
) -> dict[ImageSelector, FerryError]:
    """One error for each image that no source has. The only source says where it has the image instead."""
    absent = [selector for selector in request.selectors if not any(source.found.get(selector) for source in sources)]
    named = [selector for selector in absent if not is_glob(selector.ref) and len(sources) == 1]
    where = ", ".join(source.name for source in sources[:5])
    detail = "\n".join(f"{name}: {error.message}" for name, error in troubles.items())
    hosts = "all" if ANY in request.sources else ",".join(source.name for source in sources)
    found: dict[ImageSelector, FerryError] = {
        s: ImageNotFound(
            f"no source has an image {s.ref} ({where})",
            detail="\n".join(filter(None, [_passed_by(sources, [s.ref]), detail])),
            hint=look_for(s.ref, hosts),
        )
        for s in absent
    }
    told = sources[0].session.not_found([selector.ref for selector in named]) if named else []
    for selector, error in zip(named, told, strict=True):
        if error.namespaces:
            error.hint = _bring(selector.ref, sources[0], error.namespaces[0])
        found[selector] = _of_source(sources[0].name, error)
    return found


def _bring(ref: str, source: SourceInventory, namespace: str) -> str:
    """A hint that brings an image of a source from another namespace into the one that was asked."""
    words = ["fab", "-H", source.name, "retag", "--src", ref, "--dst", ref]
    words += ["--namespace", namespace, "--to-namespace", source.session.here.namespace]
    return f"it is in namespace {shown_name(namespace)} there, so name it here first: {shell.join(words)}"


def look_for(ref: str, hosts: str) -> str:
    """A hint that looks for an image in all namespaces: by its digest, by a glob, or by the last part of its name."""
    last = re.split("[:@]", ref.rpartition("/")[2])[0]
    sought = ("--ref", ref) if is_digest(ref) else ("--match", ref if is_glob(ref) else f"*{last}*")
    return f"look for it under other names: {shell.join(['fab', '-H', hosts, 'find', *sought])}"


def _of_all(errors: Sequence[FerryError], asked: int) -> FerryError:
    """One error for the images that cannot be taken, of so many that were asked for."""
    if len(errors) == 1:
        return errors[0]
    message = f"{len(errors)} of {asked} images cannot be taken"
    return type(errors[0])(message, detail="\n".join(error.message for error in errors), hint=errors[0].hint)


def _image_copies(images: Mapping[ImageSelector, Iterable[Image]]) -> Iterator[ImageCopy]:
    """Yields each image with the name that it gets; refuses one name for two images."""
    taken: dict[str, str] = {}
    for selector, found in images.items():
        for image in found:
            image_copy = ImageCopy(image, _name(selector, image))
            before = taken.get(str(image_copy.dst))
            if before not in (None, image.digest):
                raise UsageError(
                    f"two images would get the name {image_copy.dst}",
                    hint="give each image its name with --map, a file of two columns",
                )
            if not before:
                yield image_copy
            taken[str(image_copy.dst)] = image.digest


def _name(selector: ImageSelector, image: Image) -> Reference:
    own = image.reference
    if selector.dst:
        return selector.dst.or_tagged((own and own.tag) or "latest")
    if name := pinned(selector.ref):
        return name
    if not own:
        raise UsageError(
            f"{shown_name(image.name)} is no name that can be given", hint="give a name with --as, or with --map"
        )
    return own.or_latest.for_cri


def parts(content: Content, images: Iterable[Image], options: CopyOptions) -> list[frozenset[str]]:
    """Returns what hosts may need of images, as digests: for each image, all of it, or each platform by itself.

    What is not whole in ``content`` is left out.
    """
    found = []
    for image in images:
        target, platforms = Descriptor(image.media_type, image.digest, 0), list[Platform]()
        with suppress(HostError):  # the index cannot be read
            platforms += _platforms(content, image, options)
        for platform in platforms:
            with suppress(HostError):  # its manifest cannot be read
                needed = blobs_to_have(content, target, platform, every=options.every)
                found.append(frozenset(blob.digest for blob in needed))
    return [part for part in found if part <= content.visible]


def _platforms(content: Content, image: Image, options: CopyOptions) -> Iterable[Platform]:
    """The platforms of an image that hosts may need; of an image that does not tell them, any."""
    if options.platform or options.every:
        return [options.platform or _UNKNOWN]
    manifests = content.tree(Descriptor(image.media_type, image.digest, 0)).manifests
    listed = dict.fromkeys(manifest.platform for manifest in manifests if manifest.platform)
    return [platform for platform in listed if platform.os != _UNKNOWN.os] or [_UNKNOWN]


def chosen(
    sources: Sequence[SourceInventory], images: Sequence[Image], request: SourceRequest
) -> list[SourceInventory]:
    """Returns the sources to read from.

    If any host may be the source, these are few hosts that have all images, each platform whole on one of them. They
    are all hosts where a platform is whole on no single host.
    """
    if ANY not in request.sources:
        return list(sources)
    content = Content.merged(source.content for source in sources)
    per_image = [parts(content, [image], request.options) for image in images]
    used, left = [], {part for of_image in per_image for part in of_image}
    candidates = sorted(sources, key=lambda source: not source.found)
    while left:
        best = max(candidates, key=lambda source: sum(map(source.has, left)))
        given = set(filter(best.has, left))
        if not given:
            break
        used.append(best)
        left -= given
    return used if all(per_image) and not left else list(sources)


def source_of(used: Sequence[SourceInventory]) -> Source:
    """Where blobs come from: each from the first of these hosts that has it and gives it."""
    from ctr_ferry.transfer.sources import HostSource, Sources

    return Sources([(HostSource(each.session), each.content.visible) for each in used])
