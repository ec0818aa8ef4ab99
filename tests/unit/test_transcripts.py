"""A page's commands are found as it shows them, and only what differs from run to run is taken from what they print."""

from __future__ import annotations

import pytest
from transcripts import commands, normalised

PAGE = r"""
Prose with $ fab in it, and `$ fab -l`.

    make demo
    $ fab -H node1 retag --src a:1 \
          --dst b:1
    HOST   STATUS
    node1  changed

      indented
    $ ls
    fab.log
    $ fab hosts    # a comment

Prose.

    $ fab -H 'all,!node2' doctor
"""


class TestCommands:
    def test_are_found_in_blocks_of_code_in_the_order_of_the_page(self) -> None:
        found = commands(PAGE, "fab")
        assert [each.words for each in found] == [
            ["fab", "-H", "node1", "retag", "--src", "a:1", "--dst", "b:1"],
            ["fab", "hosts"],
            ["fab", "-H", "all,!node2", "doctor"],
        ]
        assert [each.line for each in found] == [5, 13, 17]

    def test_have_the_output_up_to_the_next_prompt_or_the_end_of_the_block(self) -> None:
        first, second, third = commands(PAGE, "fab")
        assert first.output == ["HOST   STATUS", "node1  changed", "  indented"]
        assert second.output == third.output == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("node1  changed   0.5 s  a", "node1 changed TIME a"),
        ("node1  changed  12.0 s  a", "node1 changed TIME a"),
        (f"  sha256:{'0c' * 32}", "DIGEST"),
        ("sha256:0c32b2d6e8f3… complete", "DIGEST complete"),
        ("4 blobs (5.2 MB) over the wire, 0 blobs (0 bytes)", "4 blobs (SIZE) over the wire, 0 blobs (SIZE)"),
        ("16.7 MB/s over 0.3 s", "SIZE/s over TIME"),
        ("of run 20261124T031500Z-retag-1f2e:", "of run RUN:"),
        ("node2  registry  7023456  0.5  a:5000/b:1.2", "node2 registry SIZE TIME a:5000/b:1.2"),
        ("ctr v1.2.6, 2 hosts, port 5000", "ctr v1.2.6, 2 hosts, port 5000"),
        ("app:1 -> app:1s", "app:1 -> app:1s"),
        ("sha256:0c32", "sha256:0c32"),
        ("a\n\n  b  ", "a\nb"),
    ],
)
def test_times_digests_sizes_run_ids_and_layout_do_not_count(given: str, expected: str) -> None:
    assert normalised(given) == expected.split("\n")
