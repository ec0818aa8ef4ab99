"""The probe's real script finds ctr, containerd, rights and images; run with a ctr that repeats real answers."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from records import VERSIONS, record

from ctr_ferry import errors
from ctr_ferry.ctr import probe
from ctr_ferry.ctr.probe import Facts, Settings
from ctr_ferry.ctr.programs import Flavour
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.shell import Answer

MARK = "ferry-0123456789abcdef"
PLUGINS = """Type:          io.containerd.content.v1
ID:            content
Exports:
               root      /data/containerd/io.containerd.content.v1.content

Type:          io.containerd.snapshotter.v1
ID:            overlayfs
Exports:
               root      /data/containerd/io.containerd.snapshotter.v1.overlayfs

Type:          io.containerd.grpc.v1
ID:            cri
Requires:
               io.containerd.service.v1
{error}
"""


class Machine:
    """A folder that plays a host: a PATH with a ctr that repeats recorded answers, and a socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.socket = folder / "containerd.sock"
        self._listener = socket.socket(socket.AF_UNIX)

    def open_socket(self) -> None:
        self._listener.bind(str(self.socket))

    def close(self) -> None:
        self._listener.close()

    def answer(self, pattern: str, stdout: str, stderr: str = "", exit: int = 0) -> None:
        """What ctr answers where its words fit the sh pattern; the first one that fits counts."""
        number = len(list(self.bin.glob("*.out")))
        (self.bin / f"{number}.out").write_text(stdout)
        (self.bin / f"{number}.err").write_text(stderr)
        with (self.bin / "cases").open("a") as cases:
            cases.write(f"{pattern}) n={number} e={exit};;\n")

    def install(self, name: str = "ctr") -> None:
        here = shlex.quote(str(self.bin))
        file = self.bin / name
        file.write_text(
            f'#!/bin/sh\nn= e=\ncase "$*" in\n{(self.bin / "cases").read_text()}esac\n'
            f'[ -n "$n" ] || {{ echo "ctr: asked what? $*" >&2; exit 3; }}\n'
            f"cat {here}/$n.out; cat {here}/$n.err >&2; exit $e\n"
        )
        file.chmod(0o755)

    def install_version(self, version: str, name: str = "ctr") -> None:
        """A ctr that answers like that one."""
        self.answer("'--version'", record(version, "--version").stdout)
        self.answer("*'namespaces ls -q'", "default\nk8s.io\n")
        self.answer("*' version'", record(version, "version, daemon up").stdout)
        self.answer("*'plugins ls -d'", PLUGINS.format(error=""))
        self.answer("*'--namespace k8s.io images ls'", record(version, "images ls, one image with labels").stdout)
        self.answer("*'--namespace default images ls'", record(version, "images ls, one image").stdout)
        for word in ("", "tag ", "import "):
            helped = record(version, f"help of images {word}".strip())
            self.answer(f"'images {word}--help'", helped.stdout, helped.stderr, helped.exit)
        self.install(name)

    @property
    def settings(self) -> Settings:
        return Settings(address=str(self.socket))

    def ask(self, settings: Settings, *namespaces: str) -> dict[str, Answer]:
        script = probe.script(settings, namespaces)
        path = f"{self.bin}:{os.environ['PATH']}"
        done = subprocess.run(["/bin/sh", "-c", script.render(MARK)], env={"PATH": path}, stdin=subprocess.DEVNULL,
                              capture_output=True, check=False)  # fmt: skip
        return script.read(MARK, done.stdout, done.stderr)

    def facts(self, **more: str) -> Facts:
        settings = replace(self.settings, **more)
        namespaces = ("k8s.io", "default")
        return probe.read(settings, namespaces, self.ask(settings, *namespaces))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    machine.open_socket()
    yield machine
    machine.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_one_script_finds_out_all_about_a_host_of_any_version(machine: Machine, version: str) -> None:
    machine.install_version(version)
    facts = machine.facts()
    printed = record(version, "--version").stdout.split()[-1]
    assert (facts.client, facts.server) == (printed, printed)
    assert facts.ctr.argv == ("ctr",)
    assert facts.ctr.address == str(machine.socket)
    assert facts.sockets == (str(machine.socket),)
    assert facts.namespaces == ("default", "k8s.io")
    assert [i.name for i in facts.listings["k8s.io"].images] == ["localhost:5101/facts/a:1"]
    assert facts.listings["k8s.io"].images[0].cri_managed
    assert not facts.listings["default"].images[0].cri_managed
    assert facts.cri is (version[:3] not in ("1.0", "1.1"))  # 1.1's CRI labels nothing
    assert facts.content_root == "/data/containerd/io.containerd.content.v1.content"
    assert facts.platform == Platform.of_machine(os.uname().machine)
    assert not facts.sudo


def test_a_ctr_without_a_version_is_known_by_its_help(machine: Machine) -> None:
    machine.answer("'--version'", "ctr github.com/containerd/containerd \n")
    machine.install_version("1.2.6")
    facts = machine.facts()
    assert not facts.ctr.capabilities.tag and not facts.ctr.capabilities.partial_index
    assert facts.client == "ctr github.com/containerd/containerd"


@pytest.mark.parametrize(("helped", "has_tag"), [("1.2.6", False), ("1.3.0", True)])
def test_a_prerelease_between_two_versions_is_known_by_its_help(machine: Machine, helped: str, has_tag: bool) -> None:
    machine.answer("'--version'", "ctr github.com/containerd/containerd 1.3.0-beta.0-27-gdeadbee\n")
    machine.install_version(helped)
    facts = machine.facts()
    assert facts.ctr.capabilities.tag is has_tag
    assert facts.client == "1.3.0-beta.0-27-gdeadbee"


def test_help_is_not_asked_for_where_the_version_tells(machine: Machine) -> None:
    machine.install_version("1.6.20")
    assert machine.ask(machine.settings)["help"].text == ""


def test_a_command_of_several_words_is_started_as_such(machine: Machine) -> None:
    machine.answer("'ctr --version'", record("1.7.24", "--version").stdout)
    machine.answer("'ctr --address'*'namespaces ls -q'", "k8s.io\n")
    machine.answer("*'images ls'", "REF TYPE DIGEST SIZE PLATFORMS LABELS\n")
    machine.answer("'ctr --address'*", "")
    machine.install("k3s")
    facts = machine.facts(command="k3s ctr")
    assert facts.ctr.argv == ("k3s", "ctr")
    assert facts.namespaces == ("k8s.io",)


@pytest.fixture
def k3s(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The socket of a k3s that has its ctr on the machine, beside the machine's own containerd; it is not open yet."""
    own, plain = machine.folder / "k3s.sock", str(machine.socket)
    monkeypatch.setattr(probe, "KUBERNETES", (Flavour("k3s", "k3s", ("k3s ctr",), str(own)),))
    monkeypatch.setattr(probe, "KUBELETS_OWN", {str(own)})
    monkeypatch.setattr(probe, "SOCKETS", (str(own), plain))
    machine.install_version("1.7.24", "ctr")
    machine.answer("'ctr --version'", record("1.7.24", "--version").stdout)
    machine.install("k3s")
    return own


class TestOfSeveralContainerds:
    def test_kubelets_is_taken_with_its_own_ctr(self, machine: Machine, k3s: Path) -> None:
        assert probed(machine, Settings()) == (("ctr",), machine.socket, "")
        with closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(str(k3s))
            taken, address, chosen = probed(machine, Settings())
            assert (taken, address) == (("k3s", "ctr"), k3s)
            assert chosen.startswith(f"of 2 containerds, kubelet's is used: {k3s}, not {machine.socket}")
            assert probed(machine, Settings(command="ctr")) == (("ctr",), k3s, chosen)
            assert probed(machine, Settings(address=str(machine.socket))) == (("ctr",), machine.socket, "")
            check = ["/bin/sh", "-c", probe.rights_check(Settings())]
            assert subprocess.run(check, check=False).returncode == 0

    def test_two_paths_to_one_socket_are_one_containerd(self, machine: Machine, k3s: Path) -> None:
        k3s.symlink_to(machine.socket)
        assert probed(machine, Settings()) == (("k3s", "ctr"), k3s, "")


def probed(machine: Machine, settings: Settings) -> tuple[tuple[str, ...], Path, str]:
    facts = probe.read(settings, (), machine.ask(settings))
    return facts.ctr.argv, Path(facts.ctr.address), facts.chosen


def test_a_client_newer_than_its_daemon_still_tells_the_servers_version(machine: Machine) -> None:
    detail = record("1.6.20", "version, daemon up").stdout
    machine.answer("*' version'", detail, "ctr: rpc error: unknown method Server", 1)
    machine.install_version("1.6.20")
    assert machine.facts().server == "1.6.20~ds1"


def test_cri_that_failed_to_start_is_not_on(machine: Machine) -> None:
    machine.answer("*'plugins ls -d'", PLUGINS.format(error="Error:\n               Code: Unknown"))
    machine.install_version("1.6.20")
    assert not machine.facts().cri


def test_cri_of_containerd_2_is_seen(machine: Machine) -> None:
    plugins = PLUGINS.replace("grpc.v1\nID:            cri", "cri.v1\nID:            images").format(error="")
    assert "io.containerd.cri.v1" in plugins
    machine.answer("*'plugins ls -d'", plugins)
    machine.install_version("2.1.9")
    assert machine.facts().cri


def test_where_plugins_tell_nothing_the_usual_root_is_taken(machine: Machine) -> None:
    machine.answer("*'plugins ls -d'", "")
    machine.install_version("1.6.20")
    facts = machine.facts()
    assert facts.content_root == "/var/lib/containerd/io.containerd.content.v1.content"
    assert not facts.cri


def test_what_the_inventory_says_of_root_and_snapshotter_counts(machine: Machine) -> None:
    machine.install_version("1.6.20")
    facts = machine.facts(root="/mnt/containerd", snapshotter="zfs")
    assert facts.content_root == "/mnt/containerd/io.containerd.content.v1.content"
    assert facts.ctr.snapshotter == "zfs"


def test_the_error_for_a_missing_ctr_says_where_it_was_searched(machine: Machine) -> None:
    with pytest.raises(errors.CtrNotFound, match="nosuch-ctr") as missing:
        machine.facts(command="nosuch-ctr")
    assert "ctr_command" in missing.value.hint


@pytest.mark.parametrize("command", [None, "k3s ctr"])
def test_a_ctr_that_was_not_asked_for_is_never_run(machine: Machine, command: str | None) -> None:
    answers = {**machine.ask(machine.settings), "ctr": Answer(0, b"sh /tmp/x\nctr 1.6.20\n", "")}
    with pytest.raises(errors.GarbledAnswer, match="not asked for"):
        probe.read(replace(machine.settings, command=command), (), answers)


@pytest.mark.parametrize("command", ["true", "echo"])
def test_a_command_that_is_no_ctr_is_refused(machine: Machine, command: str) -> None:
    with pytest.raises(errors.CtrNotFound, match=f"'{command}' is no ctr") as refused:
        settings = replace(machine.settings, command=command)
        probe.read(settings, (), machine.ask(settings))
    assert "ctr_command" in refused.value.hint


def test_a_socket_that_is_not_there_is_a_daemon_that_is_down(machine: Machine) -> None:
    machine.install_version("1.6.20")
    machine.socket.unlink()
    with pytest.raises(errors.DaemonUnreachable, match=r"containerd\.sock"):
        machine.facts()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("", "ansible_become"),
        ("sudo: a password is required", "--prompt-for-sudo-password"),
        ("/bin/sh: 1: sudo: not found", "ansible_user: root"),
        ("sudo: sorry, you must have a tty to run sudo", "!requiretty"),
        ("Sorry, user ops may not run sudo on node3.", "/etc/sudoers"),
        ('sudo: The "no new privileges" flag is set, which prevents sudo from running as root.', "log in as root"),
    ],
)
def test_a_closed_socket_is_permission_denied_with_sudos_own_words(machine: Machine, said: str, advice: str) -> None:
    machine.install_version("1.6.20")
    answers = machine.ask(machine.settings)
    answers["host"] = Answer(0, f"ops\nx86_64\nsudo=\n{said}\n".encode(), "")
    answers["sockets"] = Answer(0, f"closed {machine.socket}\nuse {machine.socket}\n".encode(), "")
    with pytest.raises(errors.PermissionDenied, match="may not use") as denied:
        probe.read(machine.settings, (), answers)
    assert advice in denied.value.hint and denied.value.detail == said


@pytest.mark.parametrize("version", VERSIONS)
def test_a_daemon_that_is_down_is_asked_only_once(machine: Machine, version: str) -> None:
    down = record(version, "images ls -q, socket does not exist")
    machine.answer("*'namespaces ls -q'", "", down.stderr, down.exit)
    machine.install_version(version)
    answers = machine.ask(machine.settings, "k8s.io", "default")
    assert not any(answers[step].ok for step in ("namespaces", "version", "plugins", "images-0", "images-1"))
    assert not any(answers[step].stderr for step in ("version", "plugins", "images-0", "images-1"))
    with pytest.raises(errors.DaemonUnreachable):
        probe.read(machine.settings, ("k8s.io", "default"), answers)


def test_a_listing_that_fails_is_an_error_not_an_empty_host(machine: Machine) -> None:
    machine.answer("*'--namespace default images ls'", "", "ctr: something odd", 1)
    machine.install_version("1.6.20")
    with pytest.raises(errors.CommandFailed):
        machine.facts()


def test_sudo_is_seen(machine: Machine) -> None:
    machine.install_version("1.6.20")
    answers = machine.ask(machine.settings)
    answers["host"] = Answer(0, b"root\nx86_64\nsudo=ops\n", "")
    facts = probe.read(machine.settings, (), answers)
    assert facts.sudo


def test_the_rights_check_has_no_quotes_and_tells_an_open_socket_from_none(machine: Machine) -> None:
    check = probe.rights_check(machine.settings)
    missing = probe.rights_check(Settings(address="/nosuch/containerd.sock"))
    assert not set("'\"\\\n") & set(check + missing + probe.rights_check(Settings()))
    assert subprocess.run(["/bin/sh", "-c", check], check=False).returncode == 0
    assert subprocess.run(["/bin/sh", "-c", missing], check=False).returncode == 1
