"""The last lines of what a host printed can be shown to a person."""

from __future__ import annotations

import pytest

from ctr_ferry.text import tail


def test_control_characters_are_not_shown() -> None:
    lines = tail("one\n\x1b[31mtwo\x07\n\n" + "x" * 1000 + "\nlast\r\n").splitlines()
    assert [line[:3] for line in lines] == ["one", "two", "xxx", "las"]
    assert all(line.isprintable() and len(line) <= 400 for line in lines)


def test_only_the_last_lines_of_a_long_text_are_shown() -> None:
    assert tail("\n".join(map(str, range(100))), lines=2) == "98\n99"


@pytest.mark.parametrize("line", ['time="2026-11-30T20:47:29Z" level=warning msg=', "\x1b[33mWARN\x1b[0m[0000] "])
def test_a_warning_of_the_log_is_left_out_where_something_else_is_said(line: str) -> None:
    warning = f"{line}DEPRECATION: The support for cgroup v1 is deprecated"
    assert tail(f"{warning}\nctr: not found") == "ctr: not found"
    assert "cgroup v1" in tail(warning)
