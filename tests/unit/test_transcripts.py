"""A page's commands are found as it shows them, and only what differs from run to run is taken from what they print."""

from __future__ import annotations

import pytest
from transcripts import Shown, blocks, commands, joined, prose, rewritten, stray, words

PAGE = r"""
Prose with $ fab in it, and `$ fab -l`.

    $ fab indented

```sh
$ not run
```

```console
$ fab -H node1 retag --src a:1 \
      --dst b:1
HOST   STATUS
node1  changed

  indented
$ ls # a comment with an ' in it
fab.log
$ printf '%s
' a >file
$ cat <<EOF
$ is no prompt here
EOF
```

1. An item:

   ```console
   $ fab hosts    # a comment
   node1
     ops
   ```
"""


class TestCommands:
    def test_are_found_in_console_blocks_in_the_order_of_the_page(self) -> None:
        assert [(each.line, each.command) for each in commands(PAGE)] == [
            (11, "fab -H node1 retag --src a:1 \\\n      --dst b:1"),
            (17, "ls # a comment with an ' in it"),
            (19, "printf '%s\n' a >file"),
            (21, "cat <<EOF\n$ is no prompt here\nEOF"),
            (29, "fab hosts    # a comment"),
        ]

    def test_have_the_output_up_to_the_next_prompt_or_the_end_of_the_block(self) -> None:
        assert [(each.begins, each.output) for each in commands(PAGE)] == [
            (13, ["HOST   STATUS", "node1  changed", "", "  indented"]),
            (18, ["fab.log"]),
            (21, []),
            (24, []),
            (30, ["node1", "  ops"]),
        ]

    @pytest.mark.parametrize("end", ["\\", "|", "&&", "'", '"', "<<X"])
    def test_go_on_where_a_shell_reads_on(self, end: str) -> None:
        closing = end if end in ("'", '"') else ""
        lines = [f"a {end}", f"b{closing}", *(["X"] if "X" in end else [])]
        assert list(joined([*lines, "c"])) == [(0, lines), (len(lines), ["c"])]


def test_a_block_that_begins_with_output_is_told() -> None:
    page = "```console\nnode1\n$ a\n```\n\n```text\nnode1\n```\n```console\n$ a\n"
    assert [stray(each) for each in blocks(page)] == [True, False, False]


def test_prose_has_no_blocks() -> None:
    assert prose("a\n```sh\nb\n```\nc\n") == ["a", "", "", "", "c"]
    assert prose("a\n```sh\nb\n") == ["a", "", ""]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("node1  changed   0.5 s  a", "node1 changed TIME a"),
        ("node1  changed  12.0 s  a", "node1 changed TIME a"),
        (f"  sha256:{'0c' * 32}", "DIGEST"),
        ("sha256:0c32b2d6e8f3… complete", "DIGEST complete"),
        ("0c32b2d6e8f3 complete", "DIGEST complete"),
        ("4 blobs (5.2 MB) over the wire, 0 blobs (0 bytes)", "4 blobs (SIZE) over the wire, 0 blobs (SIZE)"),
        ("16.7 MiB/s over 0.3 s", "SIZE/s over TIME"),
        ("of run 20261124T031500Z-retag-1f2e:", "of run RUN:"),
        ("on 2026-11-24 03:15:00 UTC, 2026-11-24T03:15:00Z", "on DATE UTC, DATE"),
        ("node2  registry  7023456  0.5  a:5000/b:1.2", "node2 registry SIZE TIME a:5000/b:1.2"),
        ("7023456\n12\n", "SIZE 12"),
        ('"seconds": 0.5, "size": 12, "exit": 12', '"seconds": NUMBER, "size": NUMBER, "exit": 12'),
        ("ctr v1.2.6, 2 hosts, a:5000", "ctr v1.2.6, 2 hosts, a:5000"),
        ("app:1 -> app:1s", "app:1 -> app:1s"),
        ("sha256:0c32", "sha256:0c32"),
        ("\x1b[32mchanged\x1b[0m  ────  3.0\r\n MiB", "changed RULE SIZE"),
        ("a\n\n  b  ", "a b"),
    ],
)
def test_times_digests_sizes_run_ids_and_layout_do_not_count(given: str, expected: str) -> None:
    assert " ".join(words(given)) == expected


TABLE = "HOST   STATUS   TIME\nnode1  changed  0.5 s  docker.io/a:1 -> b:1\nnode2  failed   0.5 s  no such image\n"
WRAPPED = TABLE.replace("0.5 s  docker.io/a:1 -> b:1", "12.5 s  docker.io/a:1 ->\n       b:1")


class TestFits:
    @pytest.mark.parametrize(
        ("printed", "fits"),
        [
            (TABLE, True),
            (WRAPPED, True),
            (TABLE.replace("failed", "changed"), False),
            (TABLE.replace("failed", "X").replace("changed", "failed").replace("X", "changed"), False),
            (TABLE.replace("a:1", "a:2"), False),
            ("".join(TABLE.splitlines(True)[:-1]), False),
            (TABLE + "node3  changed  0.5 s\n", False),
            ("", False),
        ],
    )
    def test_compares_words(self, printed: str, fits: bool) -> None:
        assert Shown(1, "a", 2, TABLE.splitlines()).fits(printed) == fits

    def test_cells_may_break_elsewhere(self) -> None:
        page = Shown(1, "a", 2, ["node1  changed  a b c  d e", "node2  failed   f"])
        assert page.fits("node1  changed  a b  d\n                c    e\nnode2  failed  f\n")
        assert not page.fits("node1  failed  a b  d\n               c    e\nnode2  changed  f\n")

    @pytest.mark.parametrize(
        ("printed", "fits"),
        [("a\nb\n", True), ("a\nx\ny\nb\n", True), ("a\n", False), ("a\nx\n", False), ("x\nb\n", False)],
    )
    def test_an_ellipsis_stands_for_any_lines(self, printed: str, fits: bool) -> None:
        assert Shown(1, "a", 2, ["a", "…", "b"]).fits(printed) == fits

    @pytest.mark.parametrize(
        ("printed", "fits"),
        [
            ("a\nc d\ne\nb\n", True),
            ("a\nx\nc\nc\nd\ny\ne\nb\n", True),
            ("a\nx\ne\nc d\nb\n", False),
            ("a\nc d\nb\n", False),
            ("c d\ne\nb\n", False),
        ],
    )
    def test_between_ellipses_lines_stand_in_their_order(self, printed: str, fits: bool) -> None:
        assert Shown(1, "a", 2, ["a", "…", "c d", "…", "e", "…", "b"]).fits(printed) == fits


class TestRewritten:
    PAGE = "# A\n\n- b\n\n  ```console\n  $ c\n  $ d\n  old  1.0 s\n  ```\n\nz\n"

    def test_has_what_the_commands_printed(self) -> None:
        expected = self.PAGE.replace("  $ c\n", "  $ c\n  one\n\n  two\n").replace("old  1.0", "new  2.0")
        assert rewritten(self.PAGE, ["one  \r\n\r\ntwo\r\n", "new  2.0 s\n"]) == expected

    def test_leaves_alone_what_differs_in_times_alone(self) -> None:
        assert rewritten(self.PAGE, ["", "old  2.0 s\n"]) == self.PAGE

    def test_keeps_the_ellipsis_of_the_writer(self) -> None:
        page = "```console\n$ a\n1\n…\n2\n$ b\n…\n```\n"
        assert rewritten(page, ["x\ny\nz\n", "q\n"]) == "```console\n$ a\nx\n…\nz\n$ b\n…\n```\n"
        page = "```console\n$ a\n1\n…\n2\n…\n3\n```\n"
        assert rewritten(page, ["1\n2\nx\n3\n"]) == page
        assert rewritten(page, ["1\nx\n4\n"]) == "```console\n$ a\n1\n…\n4\n```\n"
