"""A set of images is read as tools print it; a wrong one is refused with file and line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from records import DATA

from ctr_ferry import errors
from ctr_ferry.oci import image_set
from ctr_ferry.run import options

SETS = sorted(file for file in (DATA / "sets").iterdir() if file.suffix != ".names")
WRONG = [json.loads(line) for line in (DATA / "wrong-sets.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("file", SETS, ids=lambda file: file.name)
def test_a_set_names_images_as_its_tool_prints_them(file: Path) -> None:
    expected = file.with_name(f"{file.name}.names").read_text().splitlines()
    assert [image_set.full_name(each) for each in options.references(None, [str(file)])] == expected


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case["text"][:40] or "empty")
def test_a_wrong_set_is_refused_with_file_and_line(case: dict[str, str]) -> None:
    with pytest.raises(errors.UsageError) as refused:
        image_set.parse(case["text"], "images.txt")
    assert case["said"] in f"{refused.value.message}\n{refused.value.detail}"
    assert refused.value.hint and refused.value.exit_code == 2


def test_all_wrong_lines_are_told_at_once_and_many_are_counted() -> None:
    with pytest.raises(errors.UsageError, match="2 wrong lines") as two:
        image_set.parse("a/A\nb/b\nc/C\n", "f")
    assert [line.split(": ")[0] for line in two.value.detail.splitlines()] == ["f:1", "f:3"]
    with pytest.raises(errors.UsageError, match="3000 wrong lines") as many:
        image_set.parse("a/A\n" * 3000, "f")
    assert len(many.value.detail.splitlines()) == 11 and many.value.detail.endswith("… and 2990 more")


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "[" * 100_000, "{a: " * 100_000])
def test_yaml_that_is_nested_too_deeply_is_refused(text: str) -> None:
    with pytest.raises(errors.UsageError) as refused:
        image_set.parse(text, "f")
    assert refused.value.detail == "f:1: it is nested too deeply"


def test_aliases_do_not_multiply_the_work() -> None:
    lines = ["a0: &a0 {image: r.example/a:1}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert image_set.parse("\n".join(lines), "f") == ("r.example/a:1",)


def test_references_and_sets_are_put_together_each_image_once(tmp_path: Path) -> None:
    file = tmp_path / "set"
    file.write_text("busybox\nr.example/app:1\n")
    digest = f"sha256:{'ab' * 32}"
    given = ["docker.io/library/busybox:latest", digest, "*/app:*", digest]
    assert options.references(given, [str(file), str(file)]) == (*given[:3], "r.example/app:1")
    assert options.references(None, None) == ()
    with pytest.raises(errors.BadReference):
        options.references(["UPPER"], None)


def test_stdin_is_read_once_for_all_commands_of_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"r.example/app:1\n")))
    options._stdin.cache_clear()
    try:
        assert [options.references(None, ["-"]) for _ in range(2)] == [("r.example/app:1",)] * 2
    finally:
        options._stdin.cache_clear()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda _: None, "No such file"),
        (Path.mkdir, "Is a directory"),
        (lambda file: file.write_bytes(b"\xff\xfe\x00"), "codec can't decode"),
    ],
    ids=["absent", "folder", "bytes"],
)
def test_a_set_that_cannot_be_read_is_refused(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    make(tmp_path / "set")
    with pytest.raises(errors.UsageError, match=f"--set .* cannot be read: .*{why}"):
        options.references(None, [str(tmp_path / "set")])
