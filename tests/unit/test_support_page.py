"""docs/support.md has the tables of ctr_ferry/ctr/version.py, field by field."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from records import DATA

from ctr_ferry.ctr.version import Abilities, Capabilities, DaemonCapabilities, Version

PAGE = (Path(__file__).parents[2] / "docs/support.md").read_text()
RELEASES = ["1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7", "2.x"]
ROW = rf"^\| ([^|]+) \|((?: (?:yes|-) \|){{{len(RELEASES)}}}) `(\w+)` \|$"


def rows(of: str) -> dict[str, list[bool]]:
    """By field, whether each release has it, of all tables whose first column is `… of <of>`."""
    found: dict[str, list[bool]] = {}
    for section in PAGE.split("\n## "):
        head = re.search(rf"^\| \w+ of {of} \| {re.escape(' | '.join(RELEASES))} \| field \|$", section, re.MULTILINE)
        for _, cells, name in re.findall(ROW, section, re.MULTILINE) if head else []:
            assert name not in found, f"{name} has two rows"
            found[name] = [cell == "yes" for cell in cells.replace("|", " ").split()]
    return found


@pytest.mark.parametrize(("of", "table"), [("ctr", Capabilities), ("containerd", DaemonCapabilities)])
def test_the_page_says_of_every_field_what_the_table_says(
    of: str, table: type[Capabilities] | type[DaemonCapabilities]
) -> None:
    versions = [version for release in RELEASES if (version := Version.parse(release.replace("x", "0")))]
    able: list[Abilities] = [table.of_version(version) for version in versions]
    assert rows(of) == {each.name: [getattr(one, each.name) for one in able] for each in fields(table)}


def test_every_row_of_the_page_is_compared() -> None:
    compared = len(rows("ctr")) + len(rows("containerd"))
    assert len(re.findall(r"^\|.* (?:yes|-) \|.*`\w+` \|$", PAGE, re.MULTILINE)) == compared


def test_2_x_is_one_column_since_no_field_changes_after_2_0() -> None:
    spans = [
        span
        for table in (Capabilities, DaemonCapabilities)
        for each in fields(table)
        for span in each.metadata["spans"]
    ]
    assert all(first <= (2, 0) and (last < (2, 0) or last >= (99, 0)) for first, last in spans)


def test_the_page_names_the_versions_that_were_measured() -> None:
    measured = re.search(r"real binaries of ([\d., and\n]+?)\.\s", PAGE)
    assert measured
    assert re.findall(r"\d+\.\d+\.\d+", measured[1]) == list(json.loads((DATA / "capabilities.json").read_text()))
