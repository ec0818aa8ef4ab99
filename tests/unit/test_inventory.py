"""hosts.yaml is read as Ansible reads it, and errors name the file and the line."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctr_ferry.errors import BadInventory
from ctr_ferry.inventory.ansible import Inventory
from ctr_ferry.inventory.contents import Opaque, Plain, expand
from lab import login
from lab.layout import MODELS
from lab.standing import settings


class Folder:
    """A folder with an inventory, its group_vars and its host_vars."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))

    def read(self, text: str | None = None) -> Inventory:
        if text is not None:
            self.write("hosts.yaml", text)
        return Inventory(self.path / "hosts.yaml")

    def values(self, host: str, text: str | None = None) -> dict[str, Any]:
        return {name: var.value for name, var in self.read(text).variables(host).vars.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


KUBESPRAY = """
all:
  hosts:
    node1: {ansible_host: 10.0.0.1, ip: 10.0.0.1, access_ip: 10.0.0.1}
    node2: {ansible_host: 10.0.0.2}
    node3:
  children:
    kube_control_plane:
      hosts:
        node1:
    kube_node:
      hosts:
        node2:
        node3:
    etcd:
      hosts: {node1: }
    k8s_cluster:
      children:
        kube_control_plane:
        kube_node:
    calico_rr:
      hosts: {}
"""


def test_a_kubespray_inventory_works_as_it_is(folder: Folder) -> None:
    inventory = folder.read(KUBESPRAY)
    assert list(inventory.hosts) == ["node1", "node2", "node3"]
    assert inventory.members("k8s_cluster") == ["node1", "node2", "node3"]
    assert inventory.members("kube_node") == ["node2", "node3"]
    assert inventory.members("calico_rr") == []
    assert inventory.members("all") == ["node1", "node2", "node3"]
    assert inventory.variables("node1").vars["ansible_host"].value == "10.0.0.1"


def test_top_level_groups_are_children_of_all(folder: Folder) -> None:
    inventory = folder.read("web: {hosts: {a: }}\ndb: {hosts: {b: }, vars: {x: 1}}\nall: {vars: {y: 2}}\n")
    assert inventory.members("all") == ["a", "b"]
    assert folder.values("b") == {"x": 1, "y": 2}


def test_groups_nest_and_their_hosts_stay_in_the_files_order(folder: Folder) -> None:
    text = "all: {hosts: {c: , a: , b: }, children: {top: {children: {mid: {children: {low: {hosts: {b: , c: }}}}}}}}"
    assert folder.read(text).members("top") == ["c", "b"]


PRECEDENCE = """
all:
  vars: {v: all}
  children:
    zebra: {hosts: {n: }, vars: {v: zebra}}
    top:
      vars: {v: top}
      children:
        deep: {hosts: {n: }, vars: {v: deep}}
"""


@pytest.mark.parametrize(
    ("change", "wins"),
    [
        ({}, "deep"),
        ({"vars: {v: deep}": "vars: {}"}, "zebra"),
        ({"vars: {v: deep}": "vars: {}", "vars: {v: zebra}": "vars: {}"}, "top"),
        ({"vars: {v: deep}": "", "{v: zebra}": "{}", "{v: top}": "{}"}, "all"),
        ({"{n: }, vars: {v: deep}": "{n: {v: host}}, vars: {v: deep}"}, "host"),
        ({"vars: {v: deep}": "vars: {}", "{v: top}": "{v: top, ansible_group_priority: 10}"}, "top"),
        ({"{v: zebra}": "{v: zebra, ansible_group_priority: 10}"}, "deep"),
    ],
)
def test_the_deeper_group_wins_then_priority_then_the_name(folder: Folder, change: dict[str, str], wins: str) -> None:
    text = PRECEDENCE
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new).replace(", }", "}")
    assert folder.values("n", text)["v"] == wins


def test_between_groups_of_one_depth_the_last_name_wins(folder: Folder) -> None:
    text = "a: {hosts: {n: }, vars: {v: a}}\nc: {hosts: {n: }, vars: {v: c}}\nb: {hosts: {n: }, vars: {v: b}}\n"
    assert folder.values("n", text)["v"] == "c"
    assert folder.values("n", text.replace("{v: a}", "{v: a, ansible_group_priority: 2}"))["v"] == "a"


FILES = ["group_vars/all.yml", "group_vars/g.yaml", "host_vars/n"]


@pytest.mark.parametrize(
    ("files", "wins"),
    [
        ([], "file group"),
        (["group_vars/all.yml"], "group_vars/all.yml"),
        (["group_vars/all.yml", "group_vars/g.yaml"], "group_vars/g.yaml"),
        (["group_vars/all.yml", "group_vars/g.yaml", "host_vars/n"], "host_vars/n"),
        (["group_vars/all/a.yml", "group_vars/all/sub/b.yml"], "group_vars/all/sub/b.yml"),
        (["group_vars/g.json"], "group_vars/g.json"),
        (["group_vars/g.yml.bak", "group_vars/other.yml"], "file group"),
    ],
)
def test_files_beside_the_inventory_win_over_the_groups_in_it(folder: Folder, files: list[str], wins: str) -> None:
    for name in files:
        folder.write(name, f'{{"v": "{name}"}}')
    assert (
        folder.values("n", "all: {vars: {v: file all}, children: {g: {hosts: {n: }, vars: {v: file group}}}}")["v"]
        == wins
    )


def test_a_hosts_own_variables_win_over_group_vars_and_lose_to_host_vars(folder: Folder) -> None:
    folder.write("group_vars/all.yml", "v: group_vars")
    text = "all: {hosts: {n: {v: own}}}"
    assert folder.values("n", text)["v"] == "own"
    folder.write("host_vars/n.yml", "v: host_vars")
    assert folder.values("n", text)["v"] == "host_vars"


def test_files_with_comments_alone_have_no_variables(folder: Folder) -> None:
    for number, text in enumerate(["", "# nothing yet\n", "---\n# nothing yet\n"]):
        folder.write(f"group_vars/all/{number}.yml", text)
    assert folder.values("n", "all: {hosts: {n: {v: 1}}}") == {"v": 1}


def test_merge_keys_give_their_variables(folder: Folder) -> None:
    text = "all: {vars: &v {a: 1, b: 2}, hosts: {n: {<<: *v, b: 3}}, children: {g: {vars: {b: 4}, hosts: {n: }}}}"
    assert folder.values("n", text) == {"a": 1, "b": 3}


def test_a_host_in_several_places_has_the_variables_of_all(folder: Folder) -> None:
    text = "all: {hosts: {n: {a: 1, b: 1}}, children: {g: {hosts: {n: {b: 2, c: 2}}}}}"
    assert folder.values("n", text) == {"a": 1, "b": 2, "c": 2}


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("node1", ["node1"]),
        ("node[1:3]", ["node1", "node2", "node3"]),
        ("node[08:11].x", ["node08.x", "node09.x", "node10.x", "node11.x"]),
        ("node[1:7:3]", ["node1", "node4", "node7"]),
        ("db-[a:c]", ["db-a", "db-b", "db-c"]),
        ("r[1:2]n[a:b]", ["r1na", "r1nb", "r2na", "r2nb"]),
        ("[2001:db8::1]", ["[2001:db8::1]"]),
    ],
)
def test_ranges_are_written_out(pattern: str, hosts: list[str]) -> None:
    assert list(expand(pattern)) == hosts


@pytest.mark.parametrize(
    "pattern", ["node[1:c]", "node[ab:cd]", "node[1:3:0]", "node[é:ü]", "node[3:1]", "node[c:a]", "node[²:3]"]
)
def test_a_wrong_range_is_refused(pattern: str) -> None:
    with pytest.raises(BadInventory, match="range"):
        list(expand(pattern))


def test_a_range_names_hosts_with_the_same_variables(folder: Folder) -> None:
    text = "all: {hosts: {'node[01:20]': {ansible_user: ops}}}"
    assert len(folder.read(text).hosts) == 20
    assert folder.values("node07") == {"ansible_user": "ops"}


def test_a_vault_is_opaque_and_what_is_marked_as_unsafe_is_plain(folder: Folder) -> None:
    text = """\
    all:
      hosts:
        n:
          a: !vault |
            $ANSIBLE_VAULT;1.1;AES256
            3132
          b: !unsafe "{{ plain }}"
          c: [1, {f: 2}]
    """
    values = folder.values("n", text)
    assert [type(values[name]) for name in "ab"] == [Opaque, Plain]
    assert values["b"] == "{{ plain }}" and values["c"] == [1, {"f": 2}]


ENCRYPTED = "$ANSIBLE_VAULT;1.1;AES256\n3132\n"


@pytest.mark.parametrize(
    ("file", "hosts"),
    [
        ("host_vars/n/vault.yml", ["n"]),
        ("host_vars/n", ["n"]),
        ("group_vars/g/sub/secret.yaml", ["n", "o"]),
        ("group_vars/g.json", ["n", "o"]),
        ("group_vars/all/vault", ["n", "o", "p"]),
        ("host_vars/n/kept.yml~", []),
        ("host_vars/other.yml", []),
    ],
)
def test_each_host_knows_the_encrypted_files_with_its_variables(folder: Folder, file: str, hosts: list[str]) -> None:
    folder.write(file, ENCRYPTED)
    inventory = folder.read("all: {hosts: {p: }, children: {g: {hosts: {n: , o: }}}}")
    found = {host: inventory.variables(host).encrypted for host in "nop"}
    assert found == {host: [file] if host in hosts else [] for host in "nop"}


def test_an_encrypted_inventory_is_refused(folder: Folder) -> None:
    with pytest.raises(BadInventory, match="is encrypted"):
        folder.read(ENCRYPTED)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("all:\n  hosts:\n    a: {b: c\n", 4, "not YAML"),
        ("all:\n\thosts:\n", 2, "not YAML"),
        ("- all\n", 1, "must be a mapping, not a list"),
        ("just words\n", 1, "must be a mapping, not a single value"),
        ("all:\n  hosts:\n    - node1\n    - node2\n", 3, "hosts of 'all' must be a mapping, not a list"),
        ("all:\n  hosts:\n    node1: 10.0.0.1\n", 3, "host 'node1' must be a mapping"),
        ("all:\n  children:\n    - g\n", 3, "children of 'all'"),
        ("all:\n  vars: x\n", 2, "vars of 'all'"),
        ("all:\n  host:\n    node1:\n", 3, "unknown key 'host'"),
        ("all:\n  hosts:\n    n:\n      v: !nosuch 1\n", 4, "!nosuch"),
        ("g:\n  hosts: {n: }\n  vars:\n    ansible_group_priority: high\n", 4, "ansible_group_priority"),
        ("all:\n  hosts:\n    node[3:1]:\n", 3, "'node[3:1]' has a wrong range"),
        ("[web]\nnode[3:1]\n", 2, "'node[3:1]' has a wrong range"),
        ("[web]\nn 'open\n", 2, "No closing quotation"),
        ("[web]\nn x\n", 2, "'x' is no variable"),
        ("[web]\nn:\n", 2, "'n:' is no name of a host"),
        ("[web]\n[web:vars]\nx\n", 3, "'x' is no variable"),
        ("[web]\n[db:vars]\nx=1\n", 2, "there is no group 'db'"),
        ("[web:children]\ndb\n", 2, "there is no group 'db'"),
        ("[web:children]\nd b\n", 2, "'d b' is no name of a group"),
        ("[web]\n[web:host]\n", 2, "[web:host] is no section"),
        ("[web]\n[a b]\n", 2, "[a b] is no section"),
    ],
)
def test_an_error_names_its_file_and_line(folder: Folder, text: str, line: int, words: str) -> None:
    with pytest.raises(BadInventory) as bad:
        folder.read(text)
    where, _, what = bad.value.message.partition(": ")
    assert where == f"{folder.path}/hosts.yaml:{line}", bad.value.message
    assert words in what


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hosts", "[web]\nn\n"),
        ("hosts.ini", "n\n"),
        ("hosts.yaml", "; as Ansible reads it\n[web]\nn\n"),
        ("hosts", "# YAML\n---\nall: {hosts: {n: }}\n"),
        ("hosts", "all:\n  hosts: {n: }\n"),
        ("hosts", '{"all": {"hosts": {"n": {}}}}'),
        ("hosts.json", '{"all": {"hosts": {"n": {}}}}'),
    ],
)
def test_the_format_of_an_inventory_is_seen(folder: Folder, name: str, text: str) -> None:
    folder.write(name, text)
    assert list(Inventory(folder.path / name).hosts) == ["n"]


@pytest.mark.parametrize(
    ("name", "text", "mode", "words"),
    [
        ("hosts.toml", "[web]\n", 0o600, "TOML"),
        ("hosts", "#!/bin/sh\n", 0o700, "a program"),
        ("aws_ec2.yml", "plugin: amazon.aws.aws_ec2\nregions: [x]\n", 0o600, "plugin amazon.aws.aws_ec2"),
    ],
)
def test_an_inventory_that_only_ansible_can_read_says_which_file_to_make_of_it(
    folder: Folder, name: str, text: str, mode: int, words: str
) -> None:
    folder.write(name, text)
    (folder.path / name).chmod(mode)
    with pytest.raises(BadInventory, match=words) as bad:
        Inventory(folder.path / name)
    assert f"ansible-inventory -i {folder.path / name} --list --yaml --output hosts.yaml" in bad.value.hint


def test_a_folder_is_no_inventory(tmp_path: Path) -> None:
    with pytest.raises(BadInventory, match="is a folder") as bad:
        Inventory(tmp_path)
    assert f"CTR_FERRY_INVENTORY={tmp_path}/hosts.yaml" in bad.value.hint


def test_the_hint_for_a_misspelt_key_has_the_right_one(folder: Folder) -> None:
    with pytest.raises(BadInventory) as bad:
        folder.read("all: {childern: {g: }}")
    assert "'children'" in bad.value.hint


def test_an_error_in_group_vars_names_that_file(folder: Folder) -> None:
    folder.write("group_vars/all.yml", "a: 1\nb: [\n")
    with pytest.raises(BadInventory, match=r"group_vars/all\.yml:3: not YAML"):
        folder.read("all: {hosts: {n: }}")


def test_an_error_in_host_vars_concerns_that_host_alone(folder: Folder) -> None:
    folder.write("host_vars/n.yml", "a: 1\nb: [\n")
    inventory = folder.read("all: {hosts: {n: , o: {v: 1}}}")
    assert inventory.variables("o").vars["v"].value == 1
    with pytest.raises(BadInventory, match=r"host_vars/n\.yml:3: not YAML"):
        inventory.variables("n")


@pytest.mark.parametrize("depth", [400, 100_000])
@pytest.mark.parametrize(("head", "tail"), [("[", "]"), ("{a: ", "}")])
def test_an_inventory_that_is_nested_too_deeply_is_refused(folder: Folder, depth: int, head: str, tail: str) -> None:
    with pytest.raises(BadInventory, match="nested too deeply"):
        folder.read(f"all: {{hosts: {{n: {{v: {head * depth}1{tail * depth}}}}}}}")


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_an_empty_inventory_is_refused(folder: Folder, text: str) -> None:
    with pytest.raises(BadInventory, match="is empty"):
        folder.read(text)


def test_the_hint_for_a_missing_inventory_says_how_to_name_another(folder: Folder) -> None:
    with pytest.raises(BadInventory, match="there is no inventory") as bad:
        folder.read()
    assert "CTR_FERRY_INVENTORY" in bad.value.hint


def test_an_inventory_that_is_no_text_is_refused(folder: Folder) -> None:
    (folder.path / "hosts.yaml").write_bytes(b"all:\xff\xfe")
    with pytest.raises(BadInventory, match="cannot be read"):
        folder.read()


@pytest.mark.parametrize(
    "text",
    [
        "a: {children: {b: }}\nb: {children: {a: }}\n",
        "all: {children: {a: {children: {b: {children: {a: }}}}}}\n",
        "a: {children: {a: }}\n",
        "all: {children: {a: {children: {all: }}}}\n",
    ],
)
def test_groups_that_contain_each_other_are_refused(folder: Folder, text: str) -> None:
    with pytest.raises(BadInventory, match="contain each other"):
        folder.read(text)


def test_the_tracked_inventory_is_read() -> None:
    inventory = Inventory(Path(__file__).parents[2] / "hosts.yaml")
    assert inventory.members("legacy") == ["node1"]
    assert len(inventory.hosts) == 5


def test_the_tracked_inventory_is_what_the_lab_writes_in_this_clone() -> None:
    state = Path("lab/.state")
    nodes = [(f"node{number}", f"127.0.10.{number}", model.group, False) for number, model in MODELS.items()]
    written = login.inventory(state, nodes, settings(state / "standing"))
    assert yaml.safe_load((Path(__file__).parents[2] / "hosts.yaml").read_text()) == yaml.safe_load(written)
