"""Several hosts are one source: each blob comes from the first that gives it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from copies import blob, digest

from ctr_ferry.errors import (
    FerryError,
    SourceLost,
)
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.transfer.sources import Sources


class Giver:
    """A source that gives its pieces, and then fails or not."""

    def __init__(self, name: str, *pieces: bytes, error: FerryError | None = None) -> None:
        self.name, self._pieces, self._error = name, pieces, error

    def chunks(self, _: Descriptor) -> Iterator[bytes]:
        yield from self._pieces
        if self._error:
            raise self._error


class TestSeveralSources:
    def sources(self, *givers: Giver) -> Sources:
        return Sources([(cast(Any, giver), {digest(6)}) for giver in givers])

    def test_the_next_is_asked_where_one_gives_nothing_and_is_named_as_the_holder(self) -> None:
        lost = SourceLost("gone")
        sources = self.sources(Giver("a", error=lost), Giver("b", b"x"))
        assert sources.holder(blob(6)) == "a"
        ((_, chunks),) = sources.read([blob(6)])
        assert list(chunks) == [b"x"]
        assert sources.holder(blob(6)) == "b"

    def test_the_last_ones_error_is_raised(self) -> None:
        ((_, chunks),) = self.sources(Giver("a", error=SourceLost("gone"))).read([blob(6)])
        with pytest.raises(SourceLost, match="gone"):
            list(chunks)

    def test_two_readers_may_find_out_the_same(self) -> None:
        sources = self.sources(Giver("a", error=SourceLost("gone")), Giver("b", b"x"))
        (_, one), (_, other) = sources.read([blob(6), blob(6)])
        assert [*one, *other] == [b"x", b"x"]

    def test_a_host_that_gave_a_damaged_blob_is_asked_no_more_unless_it_is_the_last(self) -> None:
        sources = self.sources(Giver("a", b"bad"), Giver("b", b"x"))
        ((_, chunks),) = sources.read([blob(6)])
        assert list(chunks) == [b"bad"]
        assert sources.distrust(blob(6))
        ((_, chunks),) = sources.read([blob(6)])
        assert list(chunks) == [b"x"]
        assert not sources.distrust(blob(6))
