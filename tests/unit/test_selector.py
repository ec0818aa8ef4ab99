"""Patterns of -H mean the right hosts, and wrong patterns are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selecting import file_fixture, names, selector  # noqa: F401

from ctr_ferry.errors import BadInventory, FerryError, NoHosts, UnknownHost, UsageError
from ctr_ferry.inventory.ansible import inventory_file
from ctr_ferry.ssh.target import Limits, Target


@pytest.mark.parametrize(
    ("patterns", "hosts"),
    [
        ("web1", ["web1"]),
        ("web", ["web1", "web2", "web-old"]),
        ("db", ["web1", "db1"]),
        ("all", ["free", "web1", "web2", "web-old", "db1", "odd"]),
        ("web*", ["web1", "web2", "web-old"]),
        ("web?", ["web1", "web2"]),
        ("d*", ["web1", "db1"]),
        ("db1,web1", ["db1", "web1"]),
        ("ungrouped", ["free"]),
        ("web,db,web1", ["web1", "web2", "web-old", "db1"]),
        ("web,!web1", ["web2", "web-old"]),
        ("!web1,web", ["web2", "web-old"]),
        ("all,!db", ["free", "web2", "web-old", "odd"]),
        ("web,!web-*", ["web1", "web2"]),
        (" web1 , ,db1 ", ["web1", "db1"]),
        ("10.9.9.9,web1,!10.9.9.9", ["web1"]),
        ("root@web1,web2,!web1", ["web2"]),
        ("web1:22,root@web1,web1,web2,!root@web1", ["web1:22", "web1", "web2"]),
        ("10.9.9.9:22,web1,!10.9.9.9", ["web1"]),
        ("web1,web2,!db1", ["web1", "web2"]),
        ("web[12]", ["web1", "web2"]),
        ("web[!2]", ["web1"]),
    ],
)
def test_names_groups_globs_and_exclusions_choose_hosts(file: Path, patterns: str, hosts: list[str]) -> None:
    assert names(file, patterns) == hosts


RANGES = "all: {hosts: {'node[1:12]': , 'rack[01:03]n[a:c]': , node01: , node3.x: }, children: {'g[1:2]': }}"


@pytest.mark.parametrize(
    ("patterns", "hosts"),
    [
        ("node[1:3]", ["node1", "node2", "node3"]),
        ("node[9:11]", ["node9", "node10", "node11"]),
        ("node[1:7:3]", ["node1", "node4", "node7"]),
        ("rack[01:02]n[a:b]", ["rack01na", "rack01nb", "rack02na", "rack02nb"]),
        ("rack01n?,!rack01n[b:c]", ["rack01na"]),
        ("rack0[1:2]n[!a]", ["rack01nb", "rack01nc", "rack02nb", "rack02nc"]),
        ("node[3:3]*", ["node3", "node3.x"]),
        ("root@node[1:2]:22", ["root@node1:22", "root@node2:22"]),
        ("10.0.0.[8:11]", ["10.0.0.8", "10.0.0.9", "10.0.0.10", "10.0.0.11"]),
        ("node[13]", ["node1", "node3"]),
        ("node[1-2,9-10]", ["node1", "node2", "node9", "node10"]),
        ("node[01-01,3]", ["node01", "node3"]),
        ("rack[01-02]n[a:b]", ["rack01na", "rack01nb", "rack02na", "rack02nb"]),
        ("node[1-4],!node[2-3]", ["node1", "node4"]),
        ("10.0.0.[8-10]:22", ["10.0.0.8:22", "10.0.0.9:22", "10.0.0.10:22"]),
        ("[2001:db8::1]:22", ["[2001:db8::1]:22"]),
        ("root@[fe80::1]", ["root@[fe80::1]"]),
    ],
)
def test_a_range_means_what_it_means_in_the_inventory(file: Path, patterns: str, hosts: list[str]) -> None:
    file.write_text(RANGES)
    assert names(file, patterns) == hosts


@pytest.mark.parametrize(
    "word",
    [
        "node[1:]",
        "node[:3]",
        "node[3:1]",
        "node[1:3:0]",
        "node[1:c]",
        "node[1-3:5]",
        "node[12-1]",
        "node[1-3,x]",
        "node[-1:2]",
        "r@n[1:]",
        "node[1..3]",
        "node[a..c]",
        "r@n[1..3]",
        "node[1..",
        "node[",
    ],
)
@pytest.mark.parametrize("sign", ["", "!"])
def test_a_wrong_range_is_refused_and_not_read_as_a_character_class(file: Path, word: str, sign: str) -> None:
    file.write_text(RANGES)
    with pytest.raises(UsageError, match="a wrong range") as refused:
        names(file, f"node1,{sign}{word}")
    assert "node[01:20]" in refused.value.hint


@pytest.mark.parametrize(
    ("word", "found"), [("node[1-3]", 3), ("node[!13]", 1), ("node[a-f1]", 1), ("node[1-][12]", 2)]
)
def test_a_class_of_single_characters_stays_a_class(file: Path, word: str, found: int) -> None:
    file.write_text("all: {hosts: {node1: , node2: , node3: , node11: , node12: }}")
    assert len(names(file, word)) == found


def test_a_missing_host_of_a_range_is_named(file: Path) -> None:
    file.write_text(RANGES)
    with pytest.raises(UnknownHost, match="'node13' is no host"):
        names(file, "node[11:14]")
    with pytest.raises(UnknownHost, match="'node13' is no host"):
        names(file, "node[11-14]")


def test_a_range_is_of_so_many_hosts_at_most(file: Path) -> None:
    with pytest.raises(UsageError, match="more than 100000 hosts"):
        names(file, "10.0.0.[1-99999999999]")


def test_a_name_of_a_host_and_a_group_chooses_the_host_and_gives_a_note(file: Path) -> None:
    file.write_text("all: {hosts: {web: , a: }, children: {web: {hosts: {a: }}}}")
    one = selector(file)
    assert one.names(["web"]) == ["web"]
    assert one.notes == [f"web is a host and a group of {file}: the host was chosen"]


class Past:
    """Runs, with the hosts that each pattern means."""

    def __init__(self, **hosts: list[str]) -> None:
        self._hosts = hosts

    def __call__(self, pattern: str) -> Any:
        hosts = self._hosts[pattern.removeprefix("@")]
        return hosts, f"run x left {hosts}"


@pytest.mark.parametrize(
    ("patterns", "hosts"),
    [
        ("@failed", ["web1", "web2"]),
        ("@failed,!web1", ["web2"]),
        ("web,!@failed", ["web-old"]),
        ("web,!@unreachable", ["web1", "web2", "web-old"]),
        ("@unreachable,@failed", ["web1", "web2"]),
        ("db1,@unreachable", ["db1"]),
    ],
)
def test_a_pattern_of_an_earlier_run_chooses_its_hosts_and_notes_the_run(
    file: Path, patterns: str, hosts: list[str]
) -> None:
    one = selector(file, Past(failed=["web1", "web2"], unreachable=[]))
    assert one.names(patterns.split(",")) == hosts
    noted = {word.lstrip("!") for word in patterns.split(",") if "@" in word}
    assert {note.split(": run x left ")[0] for note in one.notes} == noted


@pytest.mark.parametrize("patterns", ["@unreachable", "@failed,!web1,!web2", "@failed,@unreachable,!web*"])
def test_an_earlier_run_that_leaves_no_host_is_refused_and_named(file: Path, patterns: str) -> None:
    one = selector(file, Past(failed=["web1", "web2"], unreachable=[]))
    with pytest.raises(NoHosts, match="leaves no host") as refused:
        one.names(patterns.split(","))
    assert refused.value.exit_code == 2 and "run x left" in refused.value.detail
    assert refused.value.hint.endswith(": fab runs")


@pytest.mark.parametrize(
    ("word", "address", "port", "user"),
    [
        ("web1", "10.0.0.1", 2222, "ops"),
        ("root@web1", "10.0.0.1", 2222, "root"),
        ("web1:22", "10.0.0.1", 22, "ops"),
        ("root@web1:22", "10.0.0.1", 22, "root"),
        ("10.1.1.1", "10.1.1.1", None, None),
        ("10.1.1.1:22", "10.1.1.1", 22, None),
        ("root@host", "host", None, "root"),
        ("host:22", "host", 22, None),
        ("host.example", "host.example", None, None),
        ("2001:db8::1", "2001:db8::1", None, None),
        ("bastion", "bastion", None, None),
    ],
)
def test_a_host_may_be_given_with_user_and_port(
    file: Path, word: str, address: str, port: int | None, user: str | None
) -> None:
    (found,) = selector(file).select([word])
    assert (found.name, found.address, found.port, found.user) == (word, address, port, user)
    assert found.limits == Limits(connect=3)


@pytest.mark.parametrize(
    ("patterns", "kind", "words", "hint"),
    [
        ("web3", UnknownHost, "'web3' is no host or group", "web1"),
        ("wbe", UnknownHost, "'wbe'", "web"),
        ("zzz", UnknownHost, "'zzz'", "with zzz:22"),
        ("nothing*", UnknownHost, "fits no host and no group", ""),
        ("empty", UsageError, "group 'empty' has no host", "hosts.yaml"),
        ("web,!web", UsageError, "leaves no host", "at least one"),
        ("!web1", UsageError, "leaves no host", "at least one"),
        ("all,!web3", UnknownHost, "'web3' is no host or group", "web1"),
        ("web,!root@web1", UnknownHost, "excludes no host", "web[1-2], web-old"),
        ("web,!10.0.0.1", UnknownHost, "excludes no host", "web[1-2], web-old"),
        ("web,10.0.0.[1:2],!10.0.0.[2:3]", UnknownHost, "-H !10.0.0.3 excludes no host", "leave out !10.0.0.3"),
        ("all,!nothing*", UnknownHost, "fits no host and no group", ""),
    ],
)
def test_a_pattern_that_fits_no_host_is_refused_with_the_nearest_names(
    file: Path, patterns: str, kind: type[FerryError], words: str, hint: str
) -> None:
    with pytest.raises(kind) as refused:
        names(file, patterns)
    assert type(refused.value) is kind
    assert words in refused.value.message and hint in refused.value.hint


@pytest.mark.parametrize(
    "patterns", ["10.1.1.1", "root@host", "host:22", "bastion", "host.example", "10.1.1.1,10.1.1.2,!10.1.1.2"]
)
def test_an_address_needs_no_inventory(tmp_path: Path, patterns: str) -> None:
    found = selector(tmp_path / "nosuch.yaml").select(patterns.split(","))
    assert [type(each) for each in found] == [Target]


@pytest.mark.parametrize("patterns", ["web1", "all", "web*", "10.1.1.1,web1"])
def test_a_name_needs_the_inventory(tmp_path: Path, patterns: str) -> None:
    with pytest.raises(BadInventory, match="there is no inventory"):
        selector(tmp_path / "nosuch.yaml").select(patterns.split(","))


def test_the_inventory_comes_from_the_environment_then_from_fabric_yaml_then_is_hosts_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CTR_FERRY_INVENTORY", raising=False)
    assert inventory_file(None, tmp_path) == tmp_path / "hosts.yaml"
    assert inventory_file("other.yaml", tmp_path) == tmp_path / "other.yaml"
    assert inventory_file("/etc/x.yaml", tmp_path) == Path("/etc/x.yaml")
    (tmp_path / "env.yaml").touch()
    monkeypatch.setenv("CTR_FERRY_INVENTORY", str(tmp_path / "env.yaml"))
    assert inventory_file("other.yaml", tmp_path) == tmp_path / "env.yaml"
    monkeypatch.setenv("CTR_FERRY_INVENTORY", str(tmp_path / "nosuch.yaml"))
    with pytest.raises(BadInventory, match="which does not exist"):
        inventory_file(None, tmp_path)
