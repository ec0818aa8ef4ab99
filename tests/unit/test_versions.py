"""ctr's versions are read as they occur, and each can do what was recorded of it."""

from __future__ import annotations

import dataclasses
import json

import pytest
from records import DATA, VERSIONS, record

from ctr_ferry.ctr.version import Capabilities, Version

EXPECTED = json.loads((DATA / "capabilities.json").read_text())


@pytest.mark.parametrize(
    ("printed", "number", "prerelease"),
    [
        ("v1.2.6", (1, 2, 6), False),
        ("1.6.20~ds1", (1, 6, 20), False),
        ("v1.7.2-k3s1", (1, 7, 2), False),
        ("1.3.0-beta.0-27-gdeadbee", (1, 3, 0), True),
        ("v2.0.0-rc.1", (2, 0, 0), True),
        ("v1.7.0-alpha", (1, 7, 0), True),
        ("2.1.9+unknown", (2, 1, 9), False),
        ("v1.6.33.m", (1, 6, 33), False),
        ("1.10", (1, 10, 0), False),
        ("ctr containerd.io 1.2.5", (1, 2, 5), False),
        ("ctr github.com/k3s-io/containerd v1.7.11-k3s2\n", (1, 7, 11), False),
        ("ctr github.com/containerd/containerd/v2 2.1.9+unknown\n", (2, 1, 9), False),
    ],
)
def test_a_version_is_read_as_it_occurs_in_the_wild(printed: str, number: tuple[int, ...], prerelease: bool) -> None:
    version = Version.parse(printed)
    assert version is not None
    assert (version.major, version.minor, version.patch) == number
    assert version.prerelease is prerelease
    assert version.text == printed.rsplit(maxsplit=1)[-1]


@pytest.mark.parametrize(
    "printed", ["", "\n", "ctr", "ctr github.com/containerd/containerd ", "v", "1", "ctr 5f3d2c1", "unknown", "a1.2.3"]
)
def test_a_version_that_is_none_is_none(printed: str) -> None:
    assert Version.parse(printed) is None


def test_versions_compare_as_numbers_not_as_text() -> None:
    ten, two = Version.parse("v1.10.0"), Version.parse("v2.0.0")
    assert ten and two and (1, 9) < ten.release == (1, 10) < (1, 11) < two.release


def test_every_recorded_version_has_its_abilities_written_down() -> None:
    assert sorted(EXPECTED) == sorted(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_version_prints_tells_what_it_can_do(version: str) -> None:
    parsed = Version.parse(record(version, "--version").stdout)
    assert parsed is not None
    assert dataclasses.asdict(Capabilities.of_version(parsed)) == EXPECTED[version]


def help_of(version: str) -> str:
    records = [record(version, f"help of images{word}") for word in ("", " tag", " import")]
    return "".join(r.stdout + r.stderr for r in records)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_help_of_a_ctr_without_a_version_tells_the_same(version: str) -> None:
    # That content can be linked, help does not tell; where it cannot, the step fails and the stream is taken.
    # Nor does it tell 1.1 from 1.0, 1.4 from 1.3 or 1.6 from 1.5, as push and pull go: what both can do is relied on.
    as_the_older = {
        "1.1.8": {"piped": False, "push_index": False, "pull_platform": False},
        "1.4.13": {"push_platform": False, "hosts_dir": False},
        "1.6.20": {"leaves_foreign": False},
    }
    silent = dict.fromkeys(
        (
            "tells_layers",
            "plain_localhost",
            "trusts_localhost",
            "transfer_client",
            "wants_host_tables",
            "pulls_configs",
        ),
        False,
    )
    expected = EXPECTED[version] | {"link": True} | silent | as_the_older.get(version, {})
    assert dataclasses.asdict(Capabilities.of_help(help_of(version))) == expected


def test_no_help_at_all_promises_only_what_every_ctr_has() -> None:
    nothing = Capabilities.of_help("")
    assert not (nothing.tag or nothing.local or nothing.oci_name or nothing.no_unpack or nothing.partial_index)
