"""A host's variables give its target: Ansible's connection variables, ssh options, and our own."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from ctr_ferry.ctr.probe import Settings
from ctr_ferry.errors import BadInventory
from ctr_ferry.inventory.ansible import Inventory, Variables
from ctr_ferry.inventory.contents import Var
from ctr_ferry.inventory.host_vars import target
from ctr_ferry.oci.registry import Registries
from ctr_ferry.secrets import Secret
from ctr_ferry.ssh.target import Limits, Target, Trust


def read(tmp_path: Path, variables: str, trust: Trust | None = None) -> tuple[Target, list[str]]:
    """The target and notes of a host with these variables, one on each line."""
    file = tmp_path / "hosts.yaml"
    file.write_text("all:\n  hosts:\n    n:\n" + textwrap.indent(textwrap.dedent(variables), " " * 6))
    return target("n", Inventory(file).variables("n"), tmp_path, trust or Trust(), Limits(connect=3))


def args(tmp_path: Path, text: str) -> tuple[Target, list[str]]:
    return read(tmp_path, f"ansible_ssh_common_args: >-\n  {text}\n")


def test_a_host_without_variables_is_its_own_address(tmp_path: Path) -> None:
    made, notes = read(tmp_path, "x: 1")
    assert (made.name, made.address, made.port, made.user, made.gateway) == ("n", "n", None, None, None)
    assert made.variables_of(Settings).namespace == "k8s.io" and made.variables_of(Settings).command is None
    assert made.limits == Limits(connect=3)
    assert notes == []


def test_ansibles_connection_variables_are_used(tmp_path: Path) -> None:
    made, _ = read(
        tmp_path,
        """\
        ansible_host: 10.0.0.1
        ansible_port: 2222
        ansible_user: ops
        ansible_password: 12345
        ansible_ssh_private_key_file: keys/id
        ansible_become: yes
        ansible_become_password: hunter2
        """,
    )
    assert (made.address, made.port, made.user, made.become) == ("10.0.0.1", 2222, "ops", True)
    assert made.key_file == tmp_path / "keys" / "id"
    assert made.password and made.password.reveal() == "12345"
    assert made.become_password and made.become_password.reveal() == "hunter2"


def test_ansibles_older_spellings_mean_the_same_and_lose_to_the_new_ones(tmp_path: Path) -> None:
    made, _ = read(
        tmp_path,
        """\
        ansible_ssh_host: 10.0.0.1
        ansible_ssh_port: '22'
        ansible_ssh_user: old
        ansible_user: new
        ansible_become_password: new
        ansible_become_pass: old
        """,
    )
    assert (made.address, made.user, made.port) == ("10.0.0.1", "new", 22)
    assert isinstance(made.become_password, Secret) and made.become_password.reveal() == "new"


@pytest.mark.parametrize("name", ["ssh", "ansible.builtin.ssh", "ansible.builtin.paramiko_ssh", "smart"])
def test_every_name_of_ssh_is_ssh(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, f"ansible_connection: {name}")[0].address == "n"


@pytest.mark.parametrize("address", ["10.0.0.1", "node.example", "2001:db8::1", "fe80::1%eth0", "node_1"])
def test_an_address_or_name_is_an_address(tmp_path: Path, address: str) -> None:
    assert read(tmp_path, f"ansible_host: {address}")[0].address == address


@pytest.mark.parametrize("name", ["root@10.0.0.3", "10.0.0.3:ssh", "a b", "-oProxyCommand=x"])
def test_a_hosts_name_that_is_no_address_needs_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInventory, match="is no address") as bad:
        target(name, Variables(), tmp_path, Trust(), Limits())
    assert "ansible_host" in bad.value.hint
    assert target(name, Variables({"ansible_host": Var("x", "f:1")}), tmp_path, Trust(), Limits())[0].address == "x"


@pytest.mark.parametrize(("file", "text"), [("i.yaml", "all:\n  hosts:\n    n9:22x:\n"), ("i.ini", "\n[a]\nn9:22x\n")])
def test_a_port_that_is_no_number_is_named_with_file_and_line(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(BadInventory, match=rf"{file}:3: .*'n9:22x'"):
        target("n9:22x", Inventory(tmp_path / file).variables("n9:22x"), tmp_path, Trust(), Limits())


def test_our_own_variables_are_used(tmp_path: Path) -> None:
    made, _ = read(
        tmp_path,
        "ctr_command: k3s ctr\nctr_address: /run/x.sock\nctr_namespace: default\nctr_root: /data\nctr_snapshotter: zfs",
    )
    ctr = made.variables_of(Settings)
    assert (ctr.command, ctr.address, ctr.namespace, ctr.root, ctr.snapshotter) == (
        "k3s ctr", "/run/x.sock", "default", "/data", "zfs",
    )  # fmt: skip


def hops(made: Target) -> list[tuple[str, int | None, str | None]]:
    """The jump hosts, the nearest first."""
    found = []
    gateway = made.gateway
    while isinstance(gateway, Target):
        found.insert(0, (gateway.address, gateway.port, gateway.user))
        gateway = gateway.gateway
    return found


@pytest.mark.parametrize(
    ("text", "jumps"),
    [
        ("-J jump", [("jump", None, None)]),
        ("-J ops@jump:2222", [("jump", 2222, "ops")]),
        ("-Jjump", [("jump", None, None)]),
        ("-J a,b@c:3", [("a", None, None), ("c", 3, "b")]),
        ("-o ProxyJump=jump", [("jump", None, None)]),
        ("-oProxyJump=jump", [("jump", None, None)]),
        ("-o 'ProxyJump jump'", [("jump", None, None)]),
        ("-o proxyjump=jump", [("jump", None, None)]),
        ("-o ProxyJump=none", []),
    ],
)
def test_jump_hosts_are_gateways(tmp_path: Path, text: str, jumps: list[tuple[str, int | None, str | None]]) -> None:
    made, notes = args(tmp_path, text)
    assert hops(made) == jumps
    assert notes == []


@pytest.mark.parametrize(
    "text",
    [
        "-o ProxyCommand='ssh -W %h:%p -q -o User=ops jump'",
        "-o 'ProxyCommand ssh -W %h:%p -q -o User=ops jump'",
        "-o 'ProxyCommand = ssh -W %h:%p -q -o User=ops jump'",
    ],
)
def test_a_proxy_command_is_the_gateway_unchanged(tmp_path: Path, text: str) -> None:
    made, notes = args(tmp_path, text)
    assert made.gateway == "ssh -W %h:%p -q -o User=ops jump"
    assert notes == []


def test_gateways_have_the_hosts_trust_and_limits(tmp_path: Path) -> None:
    made, _ = args(tmp_path, "-J jump -o UserKnownHostsFile=known")
    assert isinstance(made.gateway, Target)
    assert made.gateway.trust == made.trust == Trust((tmp_path / "known",))
    assert made.gateway.limits == made.limits


def test_known_hosts_files_come_from_the_inventory(tmp_path: Path) -> None:
    made, _ = args(tmp_path, "-o UserKnownHostsFile='a /b ~/c'")
    assert made.trust.known_hosts == (tmp_path / "a", Path("/b"), Path("~/c").expanduser())


@pytest.mark.parametrize(
    ("value", "accept_new", "noted"),
    [
        ("yes", False, False),
        ("ask", False, False),
        ("accept-new", True, False),
        ("no", False, True),
        ("off", False, True),
    ],
)
def test_host_keys_are_always_checked(tmp_path: Path, value: str, accept_new: bool, noted: bool) -> None:
    made, notes = args(tmp_path, f"-o StrictHostKeyChecking={value}")
    assert made.trust.accept_new is accept_new
    assert [("not obeyed" in note and "StrictHostKeyChecking" in note) for note in notes] == [True] * noted


@pytest.mark.parametrize(
    ("text", "named"),
    [("-o ControlMaster=auto", "ControlMaster=auto"), ("-C", "-C"), ("-o 'Compression yes'", "Compression yes")],
)
def test_an_ssh_option_that_is_not_honoured_is_noted(tmp_path: Path, text: str, named: str) -> None:
    _, notes = args(tmp_path, text)
    assert len(notes) == 1
    assert named in notes[0] and "not honoured" in notes[0]


@pytest.mark.parametrize("name", ["ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"])
def test_ssh_options_are_read_from_each_variable_of_ansibles(tmp_path: Path, name: str) -> None:
    made, notes = read(tmp_path, f"{name}: -J jump -C")
    assert [jump[0] for jump in hops(made)] == ["jump"]
    assert notes == ["ssh option '-C' is not honoured"]


def test_the_first_value_of_an_ssh_option_counts(tmp_path: Path) -> None:
    made, _ = read(
        tmp_path,
        """\
        ansible_ssh_extra_args: -o ProxyJump=third -o UserKnownHostsFile=/third -o StrictHostKeyChecking=yes
        ansible_ssh_common_args: -o ProxyJump=second -o UserKnownHostsFile=/second -o UserKnownHostsFile=/later
        ansible_ssh_args: -J first -o StrictHostKeyChecking=accept-new
        """,
    )
    assert [jump[0] for jump in hops(made)] == ["first"]
    assert (made.trust.known_hosts, made.trust.accept_new) == ((Path("/second"),), True)


@pytest.mark.parametrize("text", ["-J", "-o", "-o 'unclosed"])
def test_ssh_options_that_cannot_be_parsed_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInventory, match="ansible_ssh_common_args of host 'n'"):
        args(tmp_path, text)


@pytest.mark.parametrize(
    ("variables", "words", "hint"),
    [
        ("ctr_comand: ctr", "unknown variable 'ctr_comand'", "ctr_command"),
        ("ctr_zzzzzz: 1", "unknown variable 'ctr_zzzzzz'", "ctr_namespace"),
        ("ansible_port: many", "ansible_port", "many"),
        ("ansible_become: perhaps", "ansible_become", "perhaps"),
        ("ansible_user: [a]", "ansible_user", ""),
        ("ctr_address: run/x.sock", "ctr_address", "run/x.sock"),
        ("ctr_address: /run/$(id).sock", "ctr_address", "id"),
        ("ctr_command: ctr; reboot", "ctr_command", "reboot"),
        ("ctr_namespace: a b", "ctr_namespace", "a b"),
        ("ctr_snapshotter: '--x'", "ctr_snapshotter", "--x"),
        ("ctr_registries: [a]", "ctr_registries", ""),
        ("ctr_registries: {r.x: {scheme: ftp}}", "ctr_registries.r.x.scheme", "ftp"),
        ("ctr_registries: {r.x: {usernane: x}}", "unknown key of ctr_registries.r.x 'usernane'", "'username'"),
        ("ctr_registries: {'https://r.example': {}}", "it has a scheme", ""),
        ("ctr_registries: {docker.io: {}, index.docker.io: {}}", "one registry", ""),
        ("ctr_registries: {r.example/team: {}}", "it has a path", ""),
        ("ctr_registries: {'r.example:99999': {}}", "no port", ""),
        ("ctr_proxy: 'http://p.example:99999'", "no port", ""),
        ("ctr_registries: {r.x: {schema: http}}", "unknown key of ctr_registries.r.x 'schema'", "'scheme'"),
        ("ansible_host: root@10.0.0.3", "ansible_host of host 'n' is wrong: it must be a name or an", "ansible_user"),
        ("ansible_host: 10.0.0.3:2222", "ansible_host of host 'n' is wrong", "ansible_port"),
        ("ansible_host: 10.0.0.3:ssh", "ansible_host of host 'n' is wrong", "ansible_port"),
        ("ansible_host: '[2001:db8::1]'", "ansible_host of host 'n' is wrong", "ansible_port"),
        ("ansible_ssh_host: a b", "ansible_host of host 'n' is wrong", ""),
        ("ansible_port: 70000", "ansible_port of host 'n' is wrong: it is no port from 1 to 65535", "70000"),
        ("ansible_port: '0'", "ansible_port of host 'n' is wrong: it is no port", ""),
        (
            "ansible_ssh_common_args: -J ops@jump:99999",
            "ansible_ssh_common_args of host 'n' is wrong: 'ops@jump:",
            ":22",
        ),
        ("ansible_ssh_common_args: -o 'open", "ansible_ssh_common_args of host 'n' cannot be parsed", "quotes"),
        ("ansible_become_user: db\nansible_become: yes", "ansible_become_user 'db'", "ansible_become_user: root"),
        ("ansible_connection: local", "ansible_connection 'local'", "ssh"),
        ("ansible_connection: docker", "ansible_connection 'docker'", "ssh"),
    ],
)
def test_a_wrong_variable_is_refused_with_its_line(tmp_path: Path, variables: str, words: str, hint: str) -> None:
    with pytest.raises(BadInventory) as bad:
        read(tmp_path, f"x: 1\n{variables}")
    assert bad.value.message.startswith(f"{tmp_path}/hosts.yaml:5: ")
    assert words in bad.value.message
    assert hint in bad.value.hint


@pytest.mark.parametrize(
    "variables",
    [
        "ctr_registries: {r.x: {username: u, password: hunter2}}",
        "ctr_registries: [{password: hunter2}]",
        "ansible_password: [hunter2]",
        "ansible_become_pass: {a: hunter2}",
        "ctr_proxy: 'http://ann:hunter2@proxy:3128'",
    ],
)
def test_a_password_in_a_wrong_place_is_not_shown(tmp_path: Path, variables: str) -> None:
    with pytest.raises(BadInventory) as bad:
        read(tmp_path, variables)
    assert "hunter2" not in bad.value.message + bad.value.hint + bad.value.detail


@pytest.mark.parametrize(
    "name", ["ansible_host", "ansible_user", "ansible_port", "ansible_ssh_common_args", "ctr_root"]
)
@pytest.mark.parametrize(
    ("value", "needs"),
    [
        ("'{{ x }}'", "the variable 'x'"),
        ("!vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  31", "a value of a vault"),
        ("\"/{{ lookup('env', 'X') }}\"", "\"{{ lookup('env', 'X') }}\", which only Ansible can work out"),
        ("'{% if x %}a{% endif %}'", "'{% if x %}a{% endif %}', which only Ansible"),
        ("'{{ secret }}'\nsecret: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  31", "a value of a vault"),
        ("'{{ a }}'\na: '{{ b }}'\nb: 'x{{ a }}'", "the variable 'a', which no file gives in plain words"),
        ("'{{ a }}'\na: '{{ b | upper }}'", "'{{ b | upper }}', which only Ansible can work out"),
    ],
)
def test_a_needed_value_that_only_ansible_can_read_is_refused_and_named(
    tmp_path: Path, name: str, value: str, needs: str
) -> None:
    with pytest.raises(BadInventory) as bad:
        read(tmp_path, f"{name}: {value}\n")
    assert bad.value.message.startswith(f"{tmp_path}/hosts.yaml:4: {name} of host 'n' needs {needs}")
    assert name in bad.value.hint


def test_templates_that_are_plain_references_are_worked_out(tmp_path: Path) -> None:
    made, notes = read(
        tmp_path,
        """\
        net: 10.0.0
        bastion: ops@{{ net }}.9
        port: 2222
        registry: { ca_file: "{{ inventory_dir }}/ca.pem", username: "{{ who }}" }
        who: pusher
        ansible_host: "{{net}}.{{ port }}"
        ansible_port: "{{ port }}"
        ansible_user: "{{- inventory_hostname_short -}}"
        ansible_ssh_common_args: -J {{ bastion }}
        ansible_become_password: !unsafe "{{ as it is"
        ctr_registries: { r.example: "{{ registry }}" }
        """,
    )
    assert (made.address, made.port, made.user) == ("10.0.0.2222", 2222, "n")
    assert hops(made) == [("10.0.0.9", None, "ops")]
    assert made.become_password and made.become_password.reveal() == "{{ as it is"
    (registry,) = made.variables_of(Registries).known
    assert (registry.ca_file, registry.username) == (f"{tmp_path}/ca.pem", "pusher")
    assert notes == []


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ([f"a{n}: '{{{{ a{n + 1} }}}}'" for n in range(2000)], "too many other variables"),
        ([f"a{n}: '{{{{ a{n + 1} }}}}{{{{ a{n + 1} }}}}'" for n in range(50)] + ["a50: xx"], "longer than"),
        ([f"a{n}: '{{{{ a{n + 1} }}}}{{{{ a{n + 1} }}}}'" for n in range(50)] + ["a50: ''"], ""),
    ],
)
def test_variables_that_refer_to_many_others_take_bounded_work(tmp_path: Path, chain: list[str], words: str) -> None:
    variables = "\n".join(["ansible_user: '{{ a0 }}'", *chain])
    if not words:
        assert read(tmp_path, variables)[0].user == ""
        return
    with pytest.raises(BadInventory, match=words):
        read(tmp_path, variables)


@pytest.mark.parametrize("value", ["'{{ vault_sudo }}'", "!vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  31"])
@pytest.mark.parametrize("name", ["ansible_become_password", "ansible_become_pass", "ansible_password"])
def test_a_password_that_only_ansible_can_read_may_come_from_elsewhere(tmp_path: Path, name: str, value: str) -> None:
    made, notes = read(tmp_path, f"ansible_become: true\n{name}: {value}\n")
    assert made.become and made.password is None and made.become_password is None
    assert len(notes) == 1 and "only Ansible can read" in notes[0] and "--prompt-for" in notes[0]


@pytest.mark.parametrize(
    ("variable", "named"),
    [("ansible_become_user: postgres", "'postgres'"), ("ansible_become_method: su", "'su'")],
)
def test_becoming_another_user_than_root_is_refused(tmp_path: Path, variable: str, named: str) -> None:
    with pytest.raises(BadInventory, match=named):
        read(tmp_path, f"ansible_become: true\n{variable}\n")
    made, notes = read(tmp_path, f"{variable}\n")  # without become, Ansible ignores it, too
    assert not made.become and notes == []


def test_becoming_root_through_sudo_may_be_spelt_out(tmp_path: Path) -> None:
    made, _ = read(
        tmp_path, "ansible_become: true\nansible_become_user: root\nansible_become_method: ansible.builtin.sudo\n"
    )
    assert made.become


def test_other_variables_may_have_any_value(tmp_path: Path) -> None:
    made, notes = read(tmp_path, "secret: !vault |\n  31\nother: '{{ x }}'\nlist: [1, {a: b}]")
    assert made.address == "n" and notes == []


def shown(made: Any) -> str:
    return f"{made!r} {made}"


def test_a_target_never_shows_its_passwords(tmp_path: Path) -> None:
    made, _ = read(tmp_path, "ansible_password: hunter2\nansible_become_password: hunter3")
    assert "hunter" not in shown(made) and "***" in shown(made)


def test_the_folder_of_hosts_toml_files_is_an_absolute_path(tmp_path: Path) -> None:
    target, _ = read(tmp_path, "ctr_hosts_dir: /etc/containerd/certs.d")
    assert target.variables_of(Registries).hosts_dir == "/etc/containerd/certs.d"
    with pytest.raises(BadInventory, match="ctr_hosts_dir"):
        read(tmp_path, "ctr_hosts_dir: certs.d")


def test_docker_hub_is_found_by_both_its_names(tmp_path: Path) -> None:
    target, _ = read(tmp_path, "ctr_registries: {index.docker.io: {username: ann}}")
    assert target.variables_of(Registries).named("docker.io").username == "ann"
