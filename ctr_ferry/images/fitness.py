"""Whether a host can use an image: what is found out at the inspection, before a byte moves. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ctr_ferry.ctr.commands import KUBELETS
from ctr_ferry.ctr.listing import Image
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.ctr.version import DaemonCapabilities
from ctr_ferry.errors import MethodUnsupported, PlatformMissing
from ctr_ferry.oci.descriptor import INDEXES, Descriptor, Platform
from ctr_ferry.text import shown_name

_UNKNOWN = "unknown"  # the operating system of attestations


def runs_here(platforms: Collection[Platform], facts: Facts) -> bool:
    """Whether containerd of this host runs any of these platforms; True where none is known."""
    substitutes = facts.ctr.capabilities.substitutes
    return not platforms or any(facts.platform.runs(each, substitutes=substitutes) for each in platforms)


def not_for(name: str, platforms: Collection[Platform], facts: Facts) -> str:
    """Says for which other platforms an image is than the host's; empty where the host runs it, or nobody knows."""
    if runs_here(platforms, facts):
        return ""
    told = dict.fromkeys(str(each) for each in platforms if each.os != _UNKNOWN)
    what = f"is for {', '.join(told)}" if told else "has attestations alone, and no image"
    return f"{shown_name(name)} {what}; this host is {facts.platform}"


def other_platform(image: Image, facts: Facts) -> str:
    """As `not_for`, for an image that a host or an archive lists."""
    return not_for(image.name, image.listed, facts)


def nothing_for(message: str, platforms: Iterable[Platform], *, elsewhere: bool = False) -> PlatformMissing:
    """Returns the error for an image of which a host can use nothing.

    Args:
        platforms: those that the image has; the hint names the first.
        elsewhere: whether only another namespace may have it.
    """
    one = next((f"--platform {each}" for each in platforms if each.os != _UNKNOWN), "")
    add = f"; to have it there all the same, add {'-n NAMESPACE ' if elsewhere else ''}{one}" if one else ""
    return PlatformMissing(message, hint=f"bring an image for this platform{add}")


def refuse_other_platforms(image: Image, facts: Facts, namespace: str) -> None:
    """Raises PlatformMissing for an index of which this host can use nothing.

    In k8s.io, CRI takes no notice of such a name. In other namespaces, ctr up to 1.2 fails to import it. (A single
    manifest of any platform is taken by all of them.)
    """
    able = namespace != KUBELETS and facts.ctr.capabilities.import_all_platforms
    if image.media_type in INDEXES and not able and (why := other_platform(image, facts)):
        raise nothing_for(f"{why}; nothing was moved", image.listed)


def unpacks_no_zstd(facts: Facts) -> bool:
    """Whether this host's containerd cannot unpack layers with zstd: up to 1.4."""
    return not DaemonCapabilities.of(facts.server).zstd


def refuse_zstd(name: str, blobs: Iterable[Descriptor], facts: Facts, known: Collection[str] = ()) -> None:
    """Raises MethodUnsupported for layers that this host's containerd cannot unpack.

    Args:
        known: digests of blobs with zstd whose media type may tell nothing of it.
    """
    packed = [blob for blob in blobs if blob.is_zstd or blob.digest in known]
    if packed and unpacks_no_zstd(facts):
        raise MethodUnsupported(
            f"containerd {facts.server} cannot unpack {shown_name(name)}: it has layers with zstd; nothing was moved",
            detail=f"{packed[0].digest} is one of them; containerd unpacks zstd from 1.5 on",
            hint="have the image built with gzip for this host (skopeo copy --dest-compress-format gzip)",
        )
