"""The last lines of what a host printed can be shown to a person."""

from __future__ import annotations

from ctr_ferry.text import tail


def test_control_characters_are_not_shown() -> None:
    lines = tail("one\n\x1b[31mtwo\x07\n\n" + "x" * 1000 + "\nlast\r\n").splitlines()
    assert [line[:3] for line in lines] == ["one", "two", "xxx", "las"]
    assert all(line.isprintable() and len(line) <= 400 for line in lines)


def test_only_the_last_lines_of_a_long_text_are_shown() -> None:
    assert tail("\n".join(map(str, range(100))), lines=2) == "98\n99"
