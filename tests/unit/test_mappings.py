"""Map files: which lines are read, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr_ferry import errors
from ctr_ferry.images.mappings import Pair, read_map
from tasks.retag import parse

DIGEST = "sha256:" + "ab" * 32


def a_map(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "map"
    file.write_text(text)
    return file


def test_a_map_has_two_columns_comments_and_blank_lines(tmp_path: Path) -> None:
    file = a_map(tmp_path, f"# all of them\n\nold/a:1\tnew.example/a:1  # this one\n  {DIGEST}   new.example/b\n")
    assert [(p.src, str(p.dst)) for p in read_map(file)] == [
        ("old/a:1", "new.example/a:1"),
        (DIGEST, "new.example/b"),
    ]


def test_all_wrong_lines_of_a_map_are_reported_at_once(tmp_path: Path) -> None:
    text = "a b\nonly\na b c\nx UPPER\nc r/ok:1\nd r/ok:1\nc r/ok:1\n"
    file = a_map(tmp_path, text)
    with pytest.raises(errors.UsageError, match="4 wrong lines") as wrong:
        read_map(file)
    assert [line.split(": ")[0] for line in wrong.value.detail.splitlines()] == [f"{file}:{n}" for n in (2, 3, 4, 6)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("r/a:1 r/b:1\nr/b:1 r/c:1\n", "docker.io/r/b:1"),
        ("r.example/b:1 r.example/c:1\nr.example/a:1 r.example/b\n", "r.example/b:1"),
        ("r.example/a:1 r.example/b:1\nr.example/b:1 r.example/a:1\n", "r.example/a:1"),
    ],
)
def test_a_destination_that_is_a_source_of_another_line_is_refused(tmp_path: Path, text: str, name: str) -> None:
    with pytest.raises(errors.UsageError) as refused:
        read_map(a_map(tmp_path, text))
    assert f"{name} is a source and a destination" in refused.value.detail
    assert read_map(a_map(tmp_path, text), apart=True)  # another namespace, or another host


def test_a_destination_may_have_a_digest_and_then_has_no_tag(tmp_path: Path) -> None:
    text = f"r.example/a:1 r.example/a:1@{DIGEST}\nr.example/A:1 r.example/b@{DIGEST}\n"
    pairs = read_map(a_map(tmp_path, text))
    assert [str(pair.named) for pair in pairs] == [f"r.example/a@{DIGEST}", f"r.example/b@{DIGEST}"]


def test_a_repeated_line_counts_once(tmp_path: Path) -> None:
    assert len(read_map(a_map(tmp_path, "a r/x:1\na r/x:1\n"))) == 1


def test_destinations_that_differ_only_in_the_tags_of_their_sources_are_accepted(tmp_path: Path) -> None:
    pairs = read_map(a_map(tmp_path, "old/a:1 new.example/a\nold/a:2 new.example/a\n"))
    assert [pair.src for pair in pairs] == ["old/a:1", "old/a:2"]
    with pytest.raises(errors.UsageError, match="wrong line"):
        read_map(a_map(tmp_path, "old/a:1 new.example/a:1\nold/b:1 new.example/a\n"))


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_a_map_without_an_image_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(errors.UsageError, match="names no image"):
        read_map(a_map(tmp_path, text))


def test_a_map_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("nosuch", "bytes", "."):
        with pytest.raises(errors.UsageError, match="cannot be read"):
            read_map(tmp_path / name)


@pytest.mark.parametrize(
    ("src", "dst", "same"),
    [
        ("r/a:1", "docker.io/r/a:1", True),
        ("busybox", "docker.io/library/busybox:latest", True),
        ("busybox:1", "library/busybox", True),
        ("busybox:1", "busybox:2", False),
        (DIGEST, "busybox:2", False),
        (f"busybox@{DIGEST}", "busybox:2", False),
        (f"busybox@{DIGEST}", f"busybox@{DIGEST}", False),  # the source means that digest under any name
        ("busybox:2", f"busybox:2@{DIGEST}", False),
        ("r.example/Not-A-Name:1", "r.example/a:1", False),
    ],
)
def test_a_source_that_is_its_own_destination_is_refused(src: str, dst: str, same: bool) -> None:
    pair = Pair.parse(src, dst)
    assert pair.same is same
    if same:
        with pytest.raises(errors.UsageError, match="same name"):
            parse(src=src, dst=dst)
    else:
        parse(src=src, dst=dst)
