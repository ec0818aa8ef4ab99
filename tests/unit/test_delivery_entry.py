"""What became of an image on a host is what the host said last."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ctr_ferry.delivery.entry import Entry
from ctr_ferry.delivery.results import DeliveredImage
from ctr_ferry.report.outcome import Status


@pytest.mark.parametrize(("status", "moved"), [(Status.CHANGED, 7), (Status.UNCHANGED, 0)])
def test_an_image_that_somebody_else_brought_meanwhile_moved_nothing(status: Status, moved: int) -> None:
    entry = Entry(DeliveredImage("a", "b", bytes=7))
    pull = SimpleNamespace(digest="d", status=status, method="pull", previous_digest="", seconds=1.0)
    entry.pulled(cast(Any, pull))
    assert (entry.result.status, entry.result.bytes, entry.done) == (status, moved, True)
