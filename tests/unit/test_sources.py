"""One host or several are one source: each blob comes from the first that gives it, also in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from copies import CTR, blob, digest

from ctr_ferry.errors import (
    CommandFailed,
    ConnectionLost,
    ContentMissing,
    FerryError,
    Interrupted,
    RemoteTimeout,
    SourceLost,
)
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.transfer.sources import HostSource, Sources


class Giver:
    """A host that gives its pieces, and then fails or not; each of ``errors`` is for one attempt."""

    lost: FerryError | None = None

    def __init__(self, name: str, *pieces: bytes, errors: Sequence[FerryError | None] = ()) -> None:
        self.name, self._pieces, self._errors = name, pieces, [*errors]
        self.asked = 0

    def chunks(self, _: Descriptor) -> Iterator[bytes]:
        self.asked += 1
        error = self._errors.pop(0) if self._errors else None
        yield from self._pieces[: 1 if error else None]
        if error:
            raise error


def read(sources: Sources, number: int = 6) -> bytes:
    ((_, chunks),) = sources.read([blob(number)])
    return b"".join(chunks)


def sources(*givers: Giver, has: Sequence[int] = (6,)) -> Sources:
    return Sources([(cast(Any, giver), set(map(digest, has))) for giver in givers])


BROKE_OFF = [SourceLost("gone"), CommandFailed("killed"), RemoteTimeout("hung"), ContentMissing("removed")]


@pytest.mark.parametrize("error", BROKE_OFF, ids=lambda error: error.kind)
def test_where_one_gives_nothing_the_next_is_asked_and_is_named_as_the_holder(error: FerryError) -> None:
    both = sources(Giver("a", errors=[error]), Giver("b", b"x"))
    assert both.holder(blob(6)) == "a"
    assert read(both) == b"x"
    assert both.holder(blob(6)) == "b"


@pytest.mark.parametrize("error", BROKE_OFF, ids=lambda error: error.kind)
def test_where_one_breaks_off_the_next_gives_the_rest(error: FerryError) -> None:
    both = sources(Giver("a", b"ab", b"", errors=[error]), Giver("b", b"a", b"bcd", b"e"))
    ((_, chunks),) = both.read([blob(6)])
    assert list(chunks) == [b"ab", b"", b"cd", b"e"], "an empty piece shows whether the takers are still there"
    assert both.holder(blob(6)) == "a, b"


def test_the_only_host_is_asked_once_more_and_goes_on_where_it_broke_off() -> None:
    only = Giver("a", b"ab", b"cd", errors=[CommandFailed("killed")])
    assert read(sources(only)) == b"abcd"
    assert only.asked == 2


def test_a_host_that_breaks_off_twice_is_the_end_for_all_who_wait_for_the_blob() -> None:
    with pytest.raises(SourceLost, match="a did not give blob") as raised:
        read(sources(Giver("a", b"ab", errors=[CommandFailed("killed"), RemoteTimeout("hung", detail="for long")])))
    assert raised.value.detail == "a: hung: for long"
    assert isinstance(raised.value.__cause__, RemoteTimeout)


@pytest.mark.parametrize("error", [SourceLost("gone"), ContentMissing("removed")], ids=lambda error: error.kind)
def test_what_another_attempt_would_meet_again_is_raised_as_it_is(error: FerryError) -> None:
    only = Giver("a", errors=[error])
    with pytest.raises(type(error)) as raised:
        read(sources(only))
    assert raised.value is error and only.asked == 1


def test_where_none_of_several_gives_it_each_is_told() -> None:
    with pytest.raises(ContentMissing, match="a, b did not give") as raised:
        read(sources(Giver("a", errors=[SourceLost("gone")]), Giver("b", errors=[ContentMissing("removed")])))
    assert raised.value.detail.splitlines() == ["a: gone", "b: removed"]
    with pytest.raises(ContentMissing, match="no source has"):
        read(sources(Giver("a")), 5)


def test_a_host_that_broke_off_is_asked_last() -> None:
    first, second = Giver("a", errors=[RemoteTimeout("hung")]), Giver("b", b"x")
    both = sources(first, second, has=(5, 6))
    assert read(both) == read(both, 5) == b"x"
    assert (first.asked, second.asked) == (1, 2)


def test_an_interrupt_ends_it_at_once() -> None:
    second = Giver("b", b"x")
    with pytest.raises(Interrupted):
        read(sources(Giver("a", errors=[Interrupted("by the user")]), second))
    assert second.asked == 0


def test_two_readers_may_find_out_the_same() -> None:
    both = sources(Giver("a", errors=[SourceLost("gone"), SourceLost("gone")]), Giver("b", b"x"))
    (_, one), (_, other) = both.read([blob(6), blob(6)])
    assert [*one, *other] == [b"x", b"x"]


def test_a_host_that_gave_a_damaged_blob_is_asked_no_more_unless_it_is_the_last() -> None:
    both = sources(Giver("a", b"bad"), Giver("b", b"x"))
    assert read(both) == b"bad"
    assert both.distrust(blob(6))
    assert read(both) == b"x"
    assert not both.distrust(blob(6))


def test_a_blob_that_another_reader_asks_for_in_vain_meanwhile_is_read_once_more() -> None:
    only = sources(Giver("a", b"", b"bad", errors=[None, SourceLost("gone")]))
    assert read(only) == b"bad"
    with pytest.raises(SourceLost):
        read(only)
    assert only.distrust(blob(6)) and read(only) == b"bad"
    assert not only.distrust(blob(6))


class Machine:
    """The part of a host that a source uses; its first download finds the connection lost."""

    name = "a"
    target = SimpleNamespace(limits=SimpleNamespace(command=60))
    began = 0

    def download(self, _: str, limit: int) -> SimpleNamespace:
        assert limit >= 60
        self.began += 1
        if self.began == 1:
            raise ConnectionLost("a went silent")
        return SimpleNamespace(chunks=lambda _: iter([b"x"]), answer=None)

    def lost_connection(self) -> nullcontext[None]:
        return nullcontext()


def test_a_host_that_was_lost_is_given_up_for_this_round_and_asked_again_in_the_next() -> None:
    host = Machine()
    facts = SimpleNamespace(ctr=CTR, content_root="/root")
    session = SimpleNamespace(host=host, facts=facts, here=SimpleNamespace(namespace="k8s.io"))
    only = Sources([(HostSource(cast(Any, session)), {digest(5), digest(6)})])
    for _, chunks in only.read([blob(5), blob(6)]):
        with pytest.raises(SourceLost, match="the connection to the source a was lost"):
            list(chunks)
    assert host.began == 1, "the second blob does not wait for the same time-out"
    assert [list(chunks) for _, chunks in only.read([blob(5), blob(6)])] == [[b"x"], [b"x"]]
