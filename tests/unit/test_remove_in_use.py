"""`remove` keeps an image that a container uses, by whatever name or snapshot."""

from __future__ import annotations

import pytest
from removing import CONFIG, LAYERS, ONE, TWO, FakeHost, record, run, statuses
from retagging import CHILD, A, B, image

from ctr_ferry import errors
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer

LABELS = (
    f"{A}\t551 B\t2 minutes\tcontainerd.io/gc.ref.content.config={CONFIG},containerd.io/gc.ref.content.l.0={CHILD}\n"
    f"{CONFIG}\t1 B\t2 minutes\tcontainerd.io/gc.ref.snapshot.overlayfs={LAYERS}\n"
)


class TestContainers:
    @pytest.mark.parametrize("name", [ONE, CONFIG, TWO])
    def test_keep_the_last_name_of_their_image_by_whatever_name_they_have_it(self, name: str) -> None:
        host = FakeHost([image(ONE), image(TWO), record()], containers=f"c1 {name} io.containerd.runc.v2\n")
        with pytest.raises(errors.SomeFailed) as caught:
            run(host, ref=[ONE, TWO])
        assert statuses(caught.value.result) == {ONE: Status.FAILED, TWO: Status.FAILED}
        assert len(host.images) == 3

    def test_keep_it_by_their_snapshot_where_their_name_is_gone(self) -> None:
        host = FakeHost([image(TWO)], containers="c1 gone/app:1 r\n", snapshots=f"c1 {LAYERS} Active\n", content=LABELS)
        with pytest.raises(errors.InUse) as caught:
            run(host, ref=[TWO])
        assert "container c1" in caught.value.detail

    def test_keep_it_by_their_snapshot_where_their_name_points_elsewhere(self) -> None:
        host = FakeHost(
            [image(ONE, B), image(TWO)], containers=f"c1 {ONE} r\n", snapshots=f"c1 {LAYERS} A\n", content=LABELS
        )
        with pytest.raises(errors.InUse):
            run(host, ref=[TWO])

    def test_let_others_go(self) -> None:
        host = FakeHost([image(ONE), image(TWO, B)], containers=f"c1 {TWO} r\nc2 - r\n", content=LABELS)
        assert run(host, ref=[ONE]).status is Status.CHANGED
        host = FakeHost([image(ONE), image(TWO, B)], containers=f"c1 {TWO} r\n", content=LABELS)
        with pytest.raises(errors.SomeFailed) as caught:
            run(host, match="*")
        assert statuses(caught.value.result) == {ONE: Status.CHANGED, TWO: Status.FAILED}

    def test_can_be_overruled_but_keep_cris_record(self) -> None:
        host = FakeHost([image(ONE), record()], containers=f"c1 {ONE} r\n")
        result = run(host, ref=[ONE], force=True)
        assert "c1" in result.images[0].notes[0]
        assert [i.name for i in host.images] == [CONFIG]

    def test_nothing_goes_where_they_cannot_be_listed(self) -> None:
        host = FakeHost([image(ONE)], answers={"containers": Answer(1, b"", "ctr: boom")})
        with pytest.raises(errors.CommandFailed):
            run(host, ref=[ONE])
