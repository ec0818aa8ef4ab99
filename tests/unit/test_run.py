"""`run` keeps the beginning and the end of long output, and says how much it left out."""

from __future__ import annotations

import pytest

from tasks.run import Clip


def let_through(data: bytes, step: int, most: int) -> tuple[bytes, int]:
    """What a clip lets through of data that comes in pieces, and the most bytes that it stored at any time."""
    clip, through, stored = Clip(most), b"", 0
    for start in range(0, len(data), step):
        through += clip.hear(data[start : start + step])
        stored = max(stored, len(clip._end))
    return through + clip.end(), stored


@pytest.mark.parametrize("step", [1, 7, 100, 5000])
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 250])
def test_output_that_fits_is_kept_whole(step: int, size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    assert let_through(data, step, 100)[0] == data


@pytest.mark.parametrize("step", [1, 7, 100, 299])
def test_both_ends_of_long_output_are_kept_and_the_gap_is_named(step: int) -> None:
    data = b"".join(b"%09d\n" % n for n in range(1000))
    text, stored = let_through(data, step, 100)
    head, gap, tail = text.partition("\n… ".encode())
    lost, _, end = tail.partition(" bytes are left out here …\n".encode())
    assert gap and head == data[:100]
    assert end == data[100 + int(lost) :] and len(end) >= 100
    assert stored <= 200 + step
