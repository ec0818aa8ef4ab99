"""A chosen host has the variables of its inventory and of the files beside it, and what is wrong there is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from selecting import HOSTS, file_fixture, names, selector  # noqa: F401

from ctr_ferry.ctr.probe import Settings
from ctr_ferry.errors import BadInventory, UsageError
from ctr_ferry.oci.registry import Registries
from ctr_ferry.report.past_runs import Runs
from ctr_ferry.run.command import ControlMachine
from tasks.hosts import hosts

VAULT = "$ANSIBLE_VAULT;1.1;AES256\n3132\n"


def test_wrong_variables_of_one_host_do_not_affect_the_others(file: Path) -> None:
    file.write_text(HOSTS.replace("web2: ", "web2: {ansible_port: many}"))
    assert names(file, "web1") == ["web1"]
    with pytest.raises(BadInventory, match="ansible_port"):
        names(file, "web")


LOCAL = """
all:
  hosts: {localhost: {ansible_connection: local}, node1: {ansible_connection: ansible.builtin.ssh}}
  children: {here: {hosts: {localhost: }}, windows: {vars: {ansible_connection: winrm}, hosts: {w1: , w2: }}}
"""


def test_hosts_that_are_not_reached_over_ssh_are_left_out_unless_they_are_named(file: Path) -> None:
    file.write_text(LOCAL)
    one = selector(file)
    assert [target.name for target in one.select(["all"])] == ["node1"]
    assert one.notes == [
        "localhost: ansible_connection is local, and ctr-ferry connects over ssh alone: left out",
        "w1, w2: ansible_connection is winrm, and ctr-ferry connects over ssh alone: left out",
    ]
    for patterns in ("localhost", "node1,localhost", "w[1:2]"):
        with pytest.raises(BadInventory, match="has ansible_connection"):
            names(file, patterns)
    with pytest.raises(UsageError, match="-H here,w\\* leaves no host") as refused:
        names(file, "here,w*")
    assert "localhost: ansible_connection is local" in refused.value.detail
    view = hosts.body(ControlMachine(selector(file), (), Runs(file.parent)), None)
    assert [each.get("left_out", False) for each in view.data["hosts"]] == [True, False, True, True]
    assert view.failure is None


def test_a_host_outside_the_inventory_has_our_own_variables_of_all(file: Path) -> None:
    (file.parent / "group_vars").mkdir()
    (file.parent / "group_vars/all.yml").write_text("ctr_proxy: http://proxy:3128\nca: our.pem\n")
    file.write_text(
        "all: {vars: {ansible_user: ops, ansible_port: 2222, ctr_namespace: moby, "
        "ctr_registries: {r.example: {ca_file: '{{ ca }}'}}}, hosts: {n: {ctr_root: /x}}}"
    )
    for made in selector(file).select(["10.0.0.7", "root@node7.example:22", "bastion", "2001:db8::1"]):
        registries, settings = made.variables_of(Registries), made.variables_of(Settings)
        assert [(each.name, each.ca_file) for each in registries.known] == [("r.example", str(file.parent / "our.pem"))]
        assert (registries.proxy, settings.namespace, settings.root) == ("http://proxy:3128", "moby", None)
        assert (made.user, made.port) == (("root", 22) if "root@" in made.name else (None, None))


@pytest.mark.parametrize("text", ["all: [", "all: {vars: {ctr_namespace: a b}, hosts: {n: }}"])
def test_a_wrong_inventory_does_not_keep_a_host_outside_of_it_from_being_reached(file: Path, text: str) -> None:
    file.write_text(text)
    one = selector(file)
    assert [(made.address, made.variables_of(Settings).namespace) for made in one.select(["10.0.0.7"])] == [
        ("10.0.0.7", "k8s.io")
    ]
    assert len(one.notes) == 1 and one.notes[0].endswith("(not needed for 10.0.0.7)")
    view = hosts.body(ControlMachine(selector(file), ("10.0.0.7",), Runs(file.parent)), None)
    assert view.data["hosts"][0]["address"] == "10.0.0.7"


def test_an_encrypted_file_of_all_is_noted_for_a_host_outside_the_inventory(file: Path) -> None:
    (file.parent / "group_vars").mkdir()
    (file.parent / "group_vars/all.yml").write_text(VAULT)
    one = selector(file)
    one.select(["10.0.0.7"])
    assert one.notes == ["10.0.0.7: group_vars/all.yml is encrypted: ctr-ferry cannot read the variables in it"]


CONFIG = """
[defaults]
remote_user = core
remote_port = 2022
private_key_file = "keys/id"  ; of the fleet
forks = 20
[privilege_escalation]
become = True
[ssh_connection]
ssh_args = -o ControlMaster=auto {jump}
"""


def test_ansible_cfg_beside_the_inventory_says_what_the_inventory_does_not(file: Path) -> None:
    file.write_text("all: {hosts: {a: , b: {ansible_ssh_user: ops, ansible_port: 22, ansible_become: false}}}")
    config = file.parent / "ansible.cfg"
    config.write_text(CONFIG.format(jump=""))
    one = selector(file)
    a, b = one.select(["all"])
    assert (a.user, a.port, a.key_file, a.become) == ("core", 2022, file.parent / "keys/id", True)
    assert (b.user, b.port, b.key_file, b.become) == ("ops", 22, file.parent / "keys/id", False)
    assert one.notes == []
    config.write_text(CONFIG.format(jump="-J bastion"))
    one = selector(file)
    one.select(["all", "10.0.0.7"])
    assert one.notes == [f"ssh_args of {config} is not honoured: give its jump host in ansible_ssh_args"]


def test_what_ansible_cfg_says_is_checked_as_the_inventory_is(file: Path) -> None:
    config = file.parent / "ansible.cfg"
    config.write_text("[defaults]\nremote_port = many\n")
    with pytest.raises(BadInventory, match=r"ansible\.cfg \[defaults\]: ansible_port of host 'n' is wrong"):
        file.write_text("all: {hosts: {n: }}")
        names(file, "n")
    config.write_text("[defaults]\nno setting\n")
    with pytest.raises(BadInventory, match=r"ansible\.cfg:2: no INI file"):
        names(file, "n")


def test_a_user_of_ansible_cfg_does_not_stand_for_one_of_an_encrypted_file(file: Path) -> None:
    (file.parent / "host_vars").mkdir()
    (file.parent / "host_vars/web2").write_text(VAULT)
    (file.parent / "ansible.cfg").write_text("[defaults]\nremote_user = core\n")
    file.write_text("all: {hosts: {web2: {ansible_ssh_args: ''}}}")
    with pytest.raises(BadInventory, match="may name another user"):
        names(file, "web2")


def test_wrong_variables_of_an_excluded_host_do_not_affect_the_others(file: Path) -> None:
    file.write_text(HOSTS.replace("web2: ", "web2: {ansible_host: '{{ address }}'}"))
    assert names(file, "web,!web2") == ["web1", "web-old"]
    with pytest.raises(BadInventory, match="'web2' needs the variable 'address'"):
        names(file, "web")


def test_hosts_shows_the_inventory_although_one_host_is_wrong(file: Path) -> None:
    file.write_text(HOSTS.replace("web2: ", "web2: {ansible_host: '{{ address }}'}"))
    view = hosts.body(ControlMachine(selector(file), ("web",), Runs(file.parent)), hosts.parse())
    assert [each["host"] for each in view.data["hosts"]] == ["web1", "web2", "web-old"]
    assert ["error" in each for each in view.data["hosts"]] == [False, True, False]
    assert view.data["hosts"][1]["error"]["kind"] == "bad-inventory"
    assert view.failure and "web2: " in view.failure.message and "'address'" in view.failure.message


def test_hosts_says_each_fault_once(file: Path) -> None:
    wrong = "{ansible_user: [a], ctr_registries: {r.example: {}}}"
    file.write_text(f"all: {{children: {{a: {{hosts: {{'n[1:9]': }}, vars: {wrong}}}, b: {{hosts: {{o: , n1: }}}}}}}}")
    view = hosts.body(ControlMachine(selector(file), (), Runs(file.parent)), None)
    assert view.failure and view.failure.exit_code == 2
    assert (
        view.failure.message
        == f"n[1-9]: {file}:1: ansible_user of the host is wrong: Expected `str | null`, got `array`"
    )
    file.write_text(file.read_text().replace("o: ,", "o: {ansible_port: 0},").replace("{n1: }", "{}"))
    view = hosts.body(ControlMachine(selector(file), (), Runs(file.parent)), None)
    assert view.failure and view.failure.message == f"{file} has 2 faults"
    assert view.failure.detail.count(str(file)) == 2


def test_hosts_shows_the_registries(file: Path) -> None:
    file.write_text(
        "all: {vars: {ctr_registries: {r.example: {}, 'q.example:5000': {}}}, hosts: {n: , o: {ctr_registries: {}}}}"
    )
    view = hosts.body(ControlMachine(selector(file), (), Runs(file.parent)), None)
    assert [each["registries"] for each in view.data["hosts"]] == [["r.example", "q.example:5000"], []]
    assert view.table and [row[-1] for row in view.table.rows] == ["r.example, q.example:5000", ""]


def test_equal_notes_of_many_hosts_are_one_note(file: Path) -> None:
    args = "{ansible_ssh_common_args: -o ControlMaster=auto -C}"
    file.write_text(f"all: {{hosts: {{'n[001:300]': {args}, odd: {{ansible_ssh_common_args: -C}}}}}}")
    one = selector(file)
    one.select(["all"])
    assert one.notes == [
        "n[001-300]: ssh option 'ControlMaster=auto' is not honoured",
        "n[001-300], odd: ssh option '-C' is not honoured",
    ]


def test_a_host_is_noted_once(file: Path) -> None:
    one = selector(file)
    one.select(["odd", "all"])
    assert len(one.notes) == 1 and one.notes[0].startswith("odd: ")


class TestEncryptedFile:
    @pytest.fixture
    def vaulted(self, file: Path) -> Path:
        vault = file.parent / "host_vars/web2/vault.yml"
        vault.parent.mkdir(parents=True)
        vault.write_text(VAULT)
        return file

    @pytest.mark.parametrize(
        ("plain", "missing"),
        [
            ("", "ansible_user and ansible_ssh_common_args"),
            ("ansible_user: ops", "ansible_ssh_common_args"),
            ("ansible_ssh_user: ops", "ansible_ssh_common_args"),
            ("ansible_ssh_common_args: -J gate", "ansible_user"),
            ("ansible_host: 10.0.0.2, ansible_port: 22", "ansible_user and ansible_ssh_common_args"),
        ],
    )
    def test_its_host_is_refused_without_a_plain_user_and_jump_host(
        self, vaulted: Path, plain: str, missing: str
    ) -> None:
        vaulted.write_text(f"all: {{hosts: {{web1: , web2: {{{plain}}}}}}}")
        with pytest.raises(BadInventory, match=r"host_vars/web2/vault\.yml is encrypted") as bad:
            selector(vaulted).select(["all"])
        assert f"give {missing} " in bad.value.hint and "'web2'" in bad.value.message
        assert names(vaulted, "web1") == ["web1"]  # the other host is not affected

    @pytest.mark.parametrize("way", ["ansible_ssh_common_args: -J gate", "ansible_ssh_args: ''"])
    def test_it_gives_a_note_if_user_and_jump_host_are_plain(self, vaulted: Path, way: str) -> None:
        vaulted.write_text(f"all: {{hosts: {{web2: {{ansible_user: ops, {way}}}}}}}")
        found = selector(vaulted)
        assert found.select(["web2"])[0].user == "ops"
        assert len(found.notes) == 1
        assert found.notes[0].startswith("web2: host_vars/web2/vault.yml is encrypted: ctr-ferry cannot read")

    def test_its_host_is_listed_with_the_error(self, vaulted: Path) -> None:
        vaulted.write_text("all: {hosts: {web1: , web2: }}")
        view = hosts.body(ControlMachine(selector(vaulted), (), Runs(vaulted.parent)), None)
        assert [list(host)[-1] for host in view.data["hosts"]] == ["registries", "error"]
