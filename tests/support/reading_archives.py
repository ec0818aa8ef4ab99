"""Two images, and archives of them in each compression, for tests of what reads archives."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable

import pytest
from archives import Image, opened, read_whole, tarred

from ctr_ferry.errors import BadArchive
from ctr_ferry.oci import archive

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

IMAGE = Image()
ARM = Image(layers=(tarred({"etc/arm": b"arm"}),), platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
FULL = "r.example/app:1"
PACKERS: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "gzip": gzip.compress, "zstd": zstd.compress}


def named(**annotations: str) -> bytes:
    """Return an OCI layout of `IMAGE` as a tar."""
    return tarred(IMAGE.layout(**annotations))


def read(data: bytes) -> archive.Archive:
    """Read an archive, and check all its images."""
    return read_whole(opened(data))


def refused(data: bytes) -> BadArchive:
    """Return the error with which an archive is refused."""
    with pytest.raises(BadArchive) as caught:
        read(data)
    return caught.value


@pytest.fixture(name="packed", params=PACKERS)
def packed_fixture(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    """Each compression in turn."""
    return PACKERS[request.param]
