"""Hosts are told in ranges, and what is told means the same hosts again."""

from __future__ import annotations

import pytest

from ctr_ferry import ranges
from ctr_ferry.text import names

CASES = {
    "no host": ("", ""),
    "one": ("node1", "node1"),
    "two stay as they are": ("node1 node2", "node1,node2"),
    "a row": ("node1 node2 node3", "node[1-3]"),
    "with gaps": ("node1 node2 node3 node7", "node[1-3,7]"),
    "in any order": ("node3 node1 node2", "node[1-3]"),
    "with zeros in front": (" ".join(f"gpu{n:02}" for n in range(1, 41)), "gpu[01-40]"),
    "across a power of ten": ("n8 n9 n10 n11", "n[8-11]"),
    "with and without zeros": ("n01 n02 n1 n2 n100", "n[01-02,1-2,100]"),
    "from zero": ("n0 n1 n2 n10", "n[0-2,10]"),
    "of several kinds": ("node1 node2 gpu1 gpu2 bastion", "node[1-2],gpu[1-2],bastion"),
    "without a number": ("a b c", "a,b,c"),
    "in the number that differs": ("r1n7 r2n7 r3n7", "r[1-3]n7"),
    "in the last number, of a grid": ("r1n1 r1n2 r2n1 r2n2", "r1n[1-2],r2n[1-2]"),
    "of addresses": ("10.0.0.1 10.0.0.2 10.0.0.3", "10.0.0.[1-3]"),
    "of addresses with ports": ("a@10.0.0.1:22 a@10.0.0.2:22 a@10.0.0.3:22", "a@10.0.0.[1-3]:22"),
    "of domains": ("n1.x.example n2.x.example n3.x.example", "n[1-3].x.example"),
    "but not of IPv6 addresses": ("fe80::1 fe80::2 fe80::3", "fe80::1,fe80::2,fe80::3"),
    "nor of odd names": ("n[1] n[2] n[3]", "n[1],n[2],n[3]"),
}


@pytest.mark.parametrize(("hosts", "text"), CASES.values(), ids=list(CASES))
def test_hosts_stand_in_ranges_that_mean_the_same_hosts(hosts: str, text: str) -> None:
    found = ranges.folded(hosts.split())
    assert ",".join(found) == text
    again = [host for pattern in ranges.split(text) for host in ranges.written_out(pattern)]
    assert sorted(again) == sorted(hosts.split())


def test_very_many_hosts_are_one_range() -> None:
    assert ranges.folded(f"node{n}" for n in range(100_000)) == ["node[0-99999]"]


def test_hosts_in_few_ranges_are_named_and_others_counted() -> None:
    assert names(f"gpu{n:02}" for n in range(1, 41)) == "gpu[01-40]"
    assert names("abcd") == "4 hosts"
    assert names("abcd", every=True) == "a, b, c, d"


@pytest.mark.parametrize(
    ("words", "patterns"),
    [
        ("a,b", ["a", "b"]),
        ("node[1-3,7],!gpu[1,2],x", ["node[1-3,7]", "!gpu[1,2]", "x"]),
        ("a, ,b,", ["a", "b"]),
        ("n[1,2", ["n[1", "2"]),
    ],
)
def test_a_comma_between_brackets_ends_no_pattern(words: str, patterns: list[str]) -> None:
    assert [word.strip() for word in ranges.split(words)] == patterns
