"""People read sizes in the units that ctr prints."""

from __future__ import annotations

import pytest

from ctr_ferry.text import size


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3492563, "3.3 MiB"),
        (1024**2 - 1, "1.0 MiB"),  # not 1024.0 KiB
        (1024**3 - 1, "1.0 GiB"),
        (10 * 1024**3, "10.0 GiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_bytes_are_told_in_the_largest_unit_that_fits(number: int, text: str) -> None:
    assert size(number) == text
