"""A blob that one host gives damaged is read from another one, once for all hosts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from fan_outs import BLOBS, DATA, Box, FakeSource, send

from ctr_ferry.errors import CommandFailed
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.transfer import fan_out


@dataclass
class Twins(FakeSource):
    """Two hosts: the first one has a damaged blob, and may be distrusted once."""

    damaged: dict[Descriptor, bytes] = field(default_factory=dict)

    def _chunks(self, each: Descriptor) -> Iterator[bytes]:
        yield from [self.damaged[each]] if each in self.damaged else super()._chunks(each)

    def distrust(self, blob: Descriptor) -> bool:
        return self.damaged.pop(blob, None) is not None


@pytest.mark.parametrize("large", [0, fan_out._LARGE])
@pytest.mark.parametrize("names", ["abc", "a"])
def test_a_blob_that_one_host_gives_damaged_is_read_once_more_for_all_hosts_together(
    monkeypatch: pytest.MonkeyPatch, names: str, large: int
) -> None:
    monkeypatch.setattr(fan_out, "_LARGE", large)
    wrong = BLOBS[4]
    twins, boxes = Twins(DATA, damaged={wrong: b"x" + DATA[wrong][1:]}), [Box(name) for name in names]
    assert send(twins, [(box, BLOBS) for box in boxes]) == {name: {} for name in names}
    assert twins.read_how_often == {each: 2 if each == wrong else 1 for each in BLOBS}
    assert all(box.came == DATA and box.cut == [wrong] for box in boxes)


def test_a_host_that_did_not_take_a_damaged_blob_does_not_get_it_again() -> None:
    def full(_box: Box, each: Descriptor) -> bool:
        if each == BLOBS[6]:
            raise CommandFailed("no")
        return True

    twins = Twins(DATA, damaged={BLOBS[6]: b"x" * (len(DATA[BLOBS[6]]))})
    picky, well = Box("picky", on_write=full), Box("well")
    detail = send(twins, [(picky, BLOBS), (well, BLOBS)])
    assert detail["well"] == {} and isinstance(detail["picky"], dict)
    assert list(detail["picky"]) == [BLOBS[6].digest]
