"""``copy``: images from one host to others over SSH, only the blobs that are missing, nothing installed anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.errors import (
    BadReference,
    Drift,
    FerryError,
    HostError,
    ImageNotFound,
    SourceLost,
    Unreachable,
    UsageError,
)
from ctr_ferry.images import inspect
from ctr_ferry.images.content import Content
from ctr_ferry.images.mappings import read_map
from ctr_ferry.oci.descriptor import INDEXES, Descriptor, Platform
from ctr_ferry.oci.reference import Reference, is_digest
from ctr_ferry.report.outcome import Result
from ctr_ferry.run import options
from ctr_ferry.run.command import fleet_wide
from ctr_ferry.transfer.copy_request import Order, Parcel

if TYPE_CHECKING:
    from ctr_ferry.run.scheduler import Fleet
    from ctr_ferry.ssh.host import Host
    from ctr_ferry.transfer.fan_out import Source

ANY = "any"


@dataclass(frozen=True, slots=True)
class Wish:
    """What one ``--ref``, or one line of a map, asks for.

    Attributes:
        ref: a name in any form, a digest, or a glob on whole names.
        dst: the name to give; None is the source's own.
    """

    ref: str
    dst: Reference | None = None

    @property
    def is_glob(self) -> bool:
        """Whether it may mean several images."""
        return bool(set(self.ref) & set("*?["))


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for, checked before any host is touched.

    Attributes:
        sources: patterns of the inventory; `ANY` means all of it.
    """

    sources: tuple[str, ...]
    wishes: tuple[Wish, ...]
    namespace: str | None = None
    to_namespace: str | None = None
    platform: Platform | None = None
    every: bool = False
    unpack: bool = True
    force: bool = False
    pin: bool = False

    @property
    def anywhere(self) -> bool:
        """Whether the source is to be found."""
        return ANY in self.sources


def parse(
    *,
    from_: list[str] | None = None,
    ref: list[str] | None = None,
    as_: str | None = None,
    map: str | None = None,
    namespace: str | None = None,
    to_namespace: str | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    no_unpack: bool = False,
    force: bool = False,
    pin: bool = False,
) -> Request:
    """Options to a request.

    Raises:
        UsageError: or BadReference, with the option that is wrong.
    """
    if not from_:
        raise UsageError("copy needs --from HOST", hint="the host that has the image, or --from any")
    source = options.namespace(namespace)
    return Request(
        tuple(from_),
        _wishes(tuple(ref or ()), as_, map),
        namespace=source,
        to_namespace=options.namespace(to_namespace, "--to-namespace") or source,
        platform=options.platform(platform, every=all_platforms),
        every=all_platforms,
        unpack=not no_unpack,
        force=force,
        pin=pin,
    )


def _wishes(refs: tuple[str, ...], as_: str | None, map_file: str | None) -> tuple[Wish, ...]:
    if bool(refs) == bool(map_file):
        raise UsageError("copy needs one of: --ref REF, or --map FILE", hint="--ref may be repeated, and takes globs")
    if map_file:
        if as_:
            raise UsageError("--map and --as exclude each other", hint="the map's second column is the name")
        return tuple(Wish(pair.src, pair.dst) for pair in read_map(Path(map_file), apart=True))
    wishes = [Wish(ref, options.new_name(as_)) for ref in dict.fromkeys(refs)]
    for wish in wishes:
        if not (wish.is_glob or is_digest(wish.ref)):
            Reference.parse(wish.ref)
    if as_ and (len(wishes) > 1 or wishes[0].is_glob):
        raise UsageError("--as is for one image", hint="name several apart with --map FILE")
    return tuple(wishes)


@dataclass(slots=True)
class Stock:
    """What one possible source has.

    Attributes:
        found: the images that are asked for, by wish.
    """

    host: Host
    facts: Facts
    listing: Listing
    content: Content
    found: dict[Wish, tuple[Image, ...]] = field(default_factory=dict)

    def has_whole(self, image: Image, request: Request) -> bool:
        """Whether all that is asked for of an image is here."""
        target = Descriptor(image.media_type, image.digest, 0)
        platform = request.platform or self.facts.platform
        try:
            needed = self.content.below(target).values() if request.every else self.content.needed(target, platform)
        except HostError:  # a manifest cannot be read
            return False
        return image.digest in self.content.blobs and all(b.digest in self.content.visible for b in needed)


@fleet_wide(
    parse,
    iterable=["from_", "ref"],
    help={
        "from_": "The host that has the image; repeated, each blob comes from the first that has it; any finds one.",
        "ref": "The image as the source has it: a name, its short form, a digest, or a glob; may be repeated.",
        "as_": "The name to give, where it is one image (default: its own).",
        "map": "File with two columns, source and destination name, '#' comments.",
        "namespace": "containerd namespace (default: the inventory's ctr_namespace, else k8s.io).",
        "to_namespace": "The namespace at the destination, where it is another.",
        "platform": "Copy this platform's manifest of a multi-platform image alone.",
        "all_platforms": "Insist that all platforms are there.",
        "no_unpack": "Do not unpack it.",
        "force": "Let an existing name point at the source's digest.",
        "pin": "Have kubelet keep it (CRI of containerd 1.7 on).",
    },
)
def copy(fleet: Fleet, request: Request) -> dict[str, Result | FerryError]:
    """Copy images from host to hosts over SSH: each blob is read once, and goes only where it is missing."""
    try:
        order, source = _order(fleet, request)
    except UsageError:
        raise
    except FerryError as error:
        for host in fleet:
            host.mark_failed()
        return dict.fromkeys(fleet.hosts, error)
    from ctr_ferry.transfer.copy import deliver

    return deliver(fleet, order, source)


def _order(fleet: Fleet, request: Request) -> tuple[Order, Source]:
    """Looks at the possible sources, and settles what comes from where."""
    patterns = ["all"] if request.anywhere else request.sources
    looked = fleet.also(patterns, lambda host: _look(host, request))
    stocks = [stock for stock in looked.values() if isinstance(stock, Stock)]
    troubles = {name: error for name, error in looked.items() if isinstance(error, FerryError)}
    if not stocks:
        raise _of_source(*next(iter(troubles.items())))
    images = {wish: _resolve(wish, stocks, request, troubles) for wish in request.wishes}
    parcels = tuple(_parcels(images))
    used = _used(stocks, [parcel.image for parcel in parcels], request)
    content = Content.merged(stock.content for stock in used)
    order = Order(
        parcels,
        content,
        namespace=request.to_namespace,
        platform=request.platform,
        every=request.every,
        unpack=request.unpack,
        force=request.force,
        pin=request.pin,
    )
    return order, _source(used, parcels, content)


def _look(host: Host, request: Request) -> Stock:
    """One probe, the images' manifests, and those of indexes: three remote commands."""
    namespace = request.namespace or host.target.ctr.namespace
    facts = host.facts((namespace,))
    listing = facts.listings[namespace]
    found = {wish: images for wish in request.wishes if (images := _fitting(wish, listing))}
    tops = [image.digest for images in found.values() for image in images]
    content, _ = inspect.content(host, facts, namespace, tops, deep=True)
    return Stock(host, facts, listing, content, found)


def _fitting(wish: Wish, listing: Listing) -> tuple[Image, ...]:
    if wish.is_glob:
        return listing.tagged(wish.ref)
    image = listing.find(wish.ref)
    return (image,) if image else ()


def _of_source(name: str, error: FerryError) -> FerryError:
    """A source's trouble, said where a destination's outcome stands."""
    kind = SourceLost if isinstance(error, Unreachable) else type(error)
    return kind(f"the source {name}: {error.message}", said=error.said, hint=error.hint)


def _resolve(
    wish: Wish, stocks: Sequence[Stock], request: Request, troubles: Mapping[str, FerryError]
) -> tuple[Image, ...]:
    """The images that a wish means: those of the first source that has them.

    Raises:
        ImageNotFound: nobody has it.
        Drift: where any host will do, and they do not agree.
    """
    named: dict[str, list[tuple[Stock, Image]]] = {}
    for stock in stocks:
        for image in stock.found.get(wish, ()):
            named.setdefault(image.name if wish.is_glob else wish.ref, []).append((stock, image))
    if not named:
        raise _not_found(wish, stocks, troubles)
    if not request.anywhere:
        return tuple(having[0][1] for having in named.values())
    tops = {name: _tops(having) for name, having in named.items()}
    for name, having in tops.items():
        if len({image.digest for _, image in having}) > 1:
            raise Drift(
                f"{name} is not the same image on all hosts",
                said="\n".join(f"{stock.host.name} {image.digest}" for stock, image in having),
                hint="say which one with --from HOST",
            )
    return tuple(having[0][1] for having in tops.values())


def _tops(having: Sequence[tuple[Stock, Image]]) -> list[tuple[Stock, Image]]:
    """Without those who name one platform's manifest of an index that others name, as ctr 1.2 has to."""
    parts = {
        child.digest
        for stock, image in having
        if image.media_type in INDEXES and image.digest in stock.content.blobs
        for child in stock.content.manifest(image.digest).children
    }
    return [each for each in having if each[1].digest not in parts]


def _not_found(wish: Wish, stocks: Sequence[Stock], troubles: Mapping[str, FerryError]) -> FerryError:
    said = "\n".join(f"{name}: {error.message}" for name, error in troubles.items())
    if len(stocks) > 1 or wish.is_glob:
        where = ", ".join(stock.host.name for stock in stocks[:5])
        return ImageNotFound(f"no source has an image {wish.ref} ({where})", said=said, hint="fab -H all find --match")
    (stock,) = stocks
    (error,) = inspect.not_found(stock.host, stock.facts, stock.listing, [wish.ref])
    return _of_source(stock.host.name, error)


def _parcels(images: Mapping[Wish, Iterable[Image]]) -> Iterator[Parcel]:
    """Each image under the name that it gets.

    Raises:
        UsageError: where two would get one name, or one has no name that could be given.
    """
    taken: dict[str, str] = {}
    for wish, found in images.items():
        for image in found:
            parcel = Parcel(image, _name(wish, image))
            before = taken.setdefault(str(parcel.dst), image.digest)
            if before != image.digest:
                raise UsageError(f"two images would get the name {parcel.dst}", hint="name them apart with --map FILE")
            yield parcel


def _name(wish: Wish, image: Image) -> Reference:
    try:
        own = None if is_digest(image.name) else Reference.parse(image.name)
    except BadReference:
        own = None
    if wish.dst:
        return wish.dst if wish.dst.tag else wish.dst.with_tag((own and own.tag) or "latest")
    if not (own and own.tag) or own.digest:
        raise UsageError(f"{image.name} has no tag to be named by", hint="give a name with --as, or with --map")
    return own


def _used(stocks: Sequence[Stock], images: Sequence[Image], request: Request) -> list[Stock]:
    """Where any host will do: the one that has all, or else all of them; as named otherwise."""
    if not request.anywhere:
        return list(stocks)
    whole = [stock for stock in stocks if all(stock.has_whole(image, request) for image in images)]
    return whole[:1] or list(stocks)


def _source(used: Sequence[Stock], parcels: Iterable[Parcel], content: Content) -> Source:
    from ctr_ferry.transfer.sources import HostSource, Sources

    sources = {stock.host.name: HostSource(stock.host, stock.facts, stock.listing.namespace) for stock in used}
    if len(sources) == 1:
        return next(iter(sources.values()))
    tops = {parcel.image.digest: parcel.image.media_type for parcel in parcels}
    wanted: set[str] = set()
    for top, kind in tops.items():
        with suppress(HostError):  # what cannot be read is told of its image, by each host
            wanted |= content.below(Descriptor(kind, top, 0)).keys()
    holders = {d: [sources[s.host.name] for s in used if d in s.content.visible] for d in wanted}
    return Sources(list(sources.values()), holders)
