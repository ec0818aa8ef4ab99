"""An inventory with a slip, or one that somebody else made, takes neither much time nor much memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from selecting import selector

from ctr_ferry.errors import BadInventory
from ctr_ferry.inventory.ansible import Inventory
from ctr_ferry.inventory.contents import expand


def aliases(first: str, of_ten: Callable[[int, str], str]) -> str:
    """YAML of sixty lines; each line but the first is made of an alias of the line before, taken ten times."""
    lines = [f"a0: &a0 {first}", *(f"a{n}: &a{n} {of_ten(n, f'*a{n - 1}')}" for n in range(1, 60))]
    return "".join(f"    {line}\n" for line in lines)


@pytest.fixture(name="file")
def file_fixture(tmp_path: Path) -> Path:
    return tmp_path / "hosts.yaml"


@pytest.mark.parametrize("pattern", ["n[1:999999999]", "n[1:999][1:999][1:999]", "n" + "[0:9]" * 40])
def test_a_range_of_too_many_hosts_is_refused(pattern: str) -> None:
    with pytest.raises(BadInventory, match="is more than 100000 hosts"):
        expand(pattern)


def test_a_large_range_is_written_out() -> None:
    assert len(expand("n[1:100000]")) == 100_000


@pytest.mark.parametrize("pattern", ["n[{0}:2]", "n[1:{0}]", "n[1:2:{0}]"])
def test_a_range_with_a_number_of_thousands_of_digits_is_wrong(pattern: str) -> None:
    with pytest.raises(BadInventory, match="wrong range"):
        expand(pattern.format("9" * 5000))


@pytest.mark.parametrize("name", ["h:" + "9" * 5000, "h" * 5000])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "hosts.ini").write_text(f"{name}\n")
    with pytest.raises(BadInventory, match="File name too long"):
        selector(tmp_path / "hosts.ini").select(["all"])


def test_groups_that_are_aliases_are_read_once(file: Path) -> None:
    ten = aliases("{hosts: {n: }}", lambda n, a: f"{{children: {{{', '.join(f'g{n}x{i}: {a}' for i in range(10))}}}}}")
    file.write_text(f"all:\n  children:\n{ten}")
    assert list(Inventory(file).hosts) == ["n"]


def test_a_group_within_itself_is_refused(file: Path) -> None:
    file.write_text("all:\n  children: {g: &g {children: {h: *g}}}\n")
    with pytest.raises(BadInventory, match="groups contain each other: all > g > h > h"):
        Inventory(file)


def test_merges_of_merges_do_not_multiply(file: Path) -> None:
    ten = aliases("{k0: 0}", lambda n, a: f"{{<<: [{', '.join([a] * 10)}], k{n}: {n}}}")
    file.write_text(f"all:\n  hosts: {{n: }}\n  vars:\n{ten}")
    assert Inventory(file).variables("n").vars["a59"].value == {f"k{n}": n for n in range(60)}


def test_of_equal_names_the_last_one_counts(file: Path) -> None:
    file.write_text("all:\n  hosts: {n: {a: 1}, n: {b: 2}}\n")
    assert {name: var.value for name, var in Inventory(file).variables("n").vars.items()} == {"b": 2}


@pytest.mark.parametrize("value", ["*a59", "'{{ a59 }}'", "'x{{ a59 }}'"])
@pytest.mark.parametrize("name", ["ansible_host", "ansible_become", "ctr_registries"])
def test_values_of_aliases_are_not_written_out(file: Path, name: str, value: str) -> None:
    ten = aliases("[1]", lambda _, a: f"[{', '.join([a] * 10)}]")
    file.write_text(f"all:\n  vars:\n{ten}  hosts:\n    n: {{{name}: {value}}}\n")
    with pytest.raises(BadInventory, match="more than 100000 values"):
        selector(file).select(["all"])


def test_groups_that_are_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "hosts.ini"
    file.write_text("".join(f"[g{n}]\n[g{n}:children]\ng{n + 1}\n" for n in range(3000)) + "[g3000]\nn\n")
    with pytest.raises(BadInventory, match="nested too deeply"):
        Inventory(file)
