"""The table of a delivery: one row for what several hosts say alike, and what mends each image that failed."""

from __future__ import annotations

from typing import Any

from ctr_ferry.delivery.results import DeliveredImage, DeliverResult, Step, tabulate
from ctr_ferry.errors import Drift, SomeFailed
from ctr_ferry.report.outcome import Status

DIGEST = f"sha256:{'a' * 64}"


def image(name: str = "r.example/app:1", **more: Any) -> DeliveredImage:
    fields = {"digest": DIGEST, "status": Status.CHANGED, "route": "ssh", "why": "from src: asked for", "bytes": 7}
    return DeliveredImage(name, name, **{**fields, **more})


def result(*images: DeliveredImage, **more: Any) -> DeliverResult:
    return DeliverResult("k8s.io", "1.6.20", "1.6.20", images, **more)


def test_hosts_that_say_the_same_share_a_row_with_the_longest_time() -> None:
    told = {
        "a": result(image(seconds=1.0)),
        "b": result(image(seconds=2.5)),
        "c": result(image(route="named", bytes=0)),
    }
    assert [row[:5] for row in tabulate(told).rows] == [
        ("a, b", "changed", "copied over SSH", "7 B", "2.5 s"),
        ("c", "changed", "named there", "0 B", "0.0 s"),
    ]
    assert tabulate(told).notes == ("in all: 1 named there (0 B), 2 copied over SSH (14 B)",)


def test_a_step_is_told_once_and_many_of_a_kind_in_one_line() -> None:
    pushed = [Step("src", "pushed", f"r.example/app:{n}", DIGEST, bytes=10) for n in range(5)]
    failed = Step("src", "pushed", "r.example/x:1", DIGEST, status=Status.FAILED, error={"message": "it is full"})
    steps = (*pushed, failed)
    assert tabulate({host: result(image(), steps=steps) for host in "ab"}).notes[:2] == (
        "src: pushed 5 images (changed, 50 B)",
        f"src: pushed r.example/x:1 {DIGEST} (failed): it is full",
    )


def test_an_image_that_failed_has_its_error_in_the_table_and_below_it_what_mends_it() -> None:
    error = Drift("it is not the same", hint="fab -H a deliver --ref r.example/b:1").to_json()
    bad = image("r.example/b:1", status=Status.FAILED, route="", error=error)
    table = tabulate({"a": SomeFailed("1 of 2", result=result(image(), bad))})
    assert table.rows[1][-1] == "drift: it is not the same"
    assert "a: it is not the same\n  try: fab -H a deliver --ref r.example/b:1" in table.notes
    many = SomeFailed("all", result=result(*(image(f"r.example/{n}:1", error=error) for n in range(12))))
    assert tabulate({"a": many}).notes[-1] == "… and 2 more: --json has them all"
