"""What mends an image is a command line that runs as printed, and does not fail in the same way again."""

from __future__ import annotations

import pytest

from ctr_ferry.delivery.entry import mended
from ctr_ferry.delivery.request import DeliverRequest
from ctr_ferry.delivery.results import DeliveredImage, DeliverResult, tabulate
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.report.outcome import Status
from ctr_ferry.transfer.source_inventory import ImageSelector, look_for

APP = "r.example/team/app:1"
REQUEST = DeliverRequest((ImageSelector(APP),), platform=Platform("linux", "arm64"), words=("--ref", APP))


@pytest.mark.parametrize(
    ("hint", "line"),
    [
        ("", f"fab -H node1 deliver --ref {APP} --platform linux/arm64"),
        ("start sshd", f"start sshd; then: fab -H node1 deliver --ref {APP} --platform linux/arm64"),
        (
            "name further hosts with --from",
            f"name further hosts with --from; then: fab -H node1 deliver --ref {APP} --platform linux/arm64",
        ),
        ("leave --platform out", f"leave --platform out: fab -H node1 deliver --ref {APP}"),
        (
            "choose one, such as with --from node3",
            "choose one, such as with --from node3: "
            f"fab -H node1 deliver --ref {APP} --platform linux/arm64 --from node3",
        ),
    ],
)
def test_the_command_line_follows_the_hint(hint: str, line: str) -> None:
    assert mended(hint, REQUEST, "node1") == line


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        (APP, "--match '*app*'"),
        ("lost@sha256:1", "--match '*lost*'"),
        ("*/app:*", "--match '*/app:*'"),
        (f"sha256:{'a' * 64}", f"--ref sha256:{'a' * 64}"),
    ],
)
def test_an_image_that_is_not_found_is_looked_for_in_all_namespaces(ref: str, words: str) -> None:
    assert look_for(ref, "all") == f"look for it under other names: fab -H all find {words}"


def test_the_table_sums_no_way_where_no_image_comes() -> None:
    images = tuple(DeliveredImage(name, name, status=Status.FAILED) for name in (APP, "r.example/team/db:1"))
    table = tabulate({"node1": DeliverResult("k8s.io", "1.6", "1.6", images)})
    assert not table.notes
