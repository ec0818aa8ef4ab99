"""`fab retag` with bad input and broken hosts: one clear message, the right exit status, nothing changed."""

from __future__ import annotations

import json
import secrets
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accounts import account
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ferry import Fab, Stage, write_inventory

from lab.fleet import Fleet, Node
from lab.images import BuiltImage, build

GOOD = ("--src", "old.example/a:1", "--dst", "new.example/a:1")


@pytest.fixture(scope="session")
def image(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """An image of this session alone."""
    assert fleet.nodes
    return build(tmp_path_factory.mktemp("images"), seed=secrets.randbits(32))


class TestBeforeAnyHostIsTouched:
    @pytest.mark.parametrize(
        ("words", "kind", "says"),
        [
            (("--src", "a:1", "--dst", "Not A Reference"), "bad-reference", "Not A Reference"),
            (("--src", "a:1", "--dst", "https://new.example/a:1"), "bad-reference", "https://"),
            (("--src", "a:1", "--dst", "new.example/UPPER:1"), "bad-reference", "UPPER"),
            (("--src", "a:1", "--dst", "b@sha256:12"), "bad-reference", "sha256:12"),
            (("--src", "", "--dst", ""), "bad-arguments", "--src"),
            (("--src", "a:1"), "bad-arguments", "--dst is missing"),
            (("--dst", "a:1"), "bad-arguments", "--src is missing"),
            ((), "bad-arguments", "--src"),
            ((*GOOD, "--method", "magic"), "bad-arguments", "magic"),
            ((*GOOD, "--method", "tag", "--to-namespace", "x"), "bad-arguments", "namespace"),
            ((*GOOD, "--platform", "amd64"), "bad-arguments", "--platform"),
            ((*GOOD, "--map", "x.map"), "bad-arguments", "--map"),
            (("--map", "/no/such.map"), "bad-arguments", "/no/such.map"),
            (("--to-registry", "new.example"), "bad-arguments", "--match"),
            (("--to-registry", "new.example/path", "--match", "*"), "bad-reference", "new.example/path"),
        ],
    )
    def test_wrong_arguments_are_refused(self, fab: Fab, words: tuple[str, ...], kind: str, says: str) -> None:
        run = fab.retag("node3", *words)
        assert (run.exit, run.error["kind"]) == (2, kind)
        assert says in run.error["message"] + run.error["hint"]
        assert run.error["message"] in run.err

    def test_no_host_is_refused(self, fab: Fab) -> None:
        run = fab("retag", *GOOD)
        assert run.exit == 2
        assert "retag needs hosts" in run.err

    def test_an_unknown_host_is_named_with_the_nearest_ones(self, fab: Fab) -> None:
        run = fab.retag("node3,noed3", *GOOD)
        assert (run.exit, run.error["kind"]) == (2, "unknown-host")
        assert "node3" in run.error["hint"]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (None, "does not exist"),
            ("all:\n  hosts: [\n", ":3: not YAML"),
            ("", "empty"),
            ("all:\n  hosts:\n    - node3\n", ":3: "),
            ("all:\n  hosts:\n    node3:\n      ansible_port: many\n", ":4: "),
            ("all:\n  hosts:\n    node3:\n      ansible_become: perhaps\n", ":4: "),
            ("all:\n  hosts:\n    node3:\n      ctr_adress: /run/x.sock\n", "ctr_address"),
            ("all:\n  hosts:\n    node3:\n      ctr_command: 'ctr; rm -rf /'\n", ":4: "),
            ("all:\n  host:\n    node3: {}\n", "hosts"),
            ("all:\n  hosts:\n    node3: { ansible_connection: local }\n", "local"),
        ],
    )
    def test_an_inventory_that_is_wrong_says_where(self, fab: Fab, tmp_path: Path, text: str | None, says: str) -> None:
        file = tmp_path / "hosts.yaml"
        if text is not None:
            file.write_text(text)
        run = fab.retag("node3", *GOOD, inventory=file)
        assert (run.exit, run.error["kind"]) == (2, "bad-inventory")
        assert str(file) in run.error["message"]
        assert says in run.error["message"] + run.error["hint"]

    def test_an_error_is_printed_on_stderr_without_colours(self, fab: Fab) -> None:
        run = fab("-H", "node3", "retag", "--src", "a", "--dst", "BAD")
        assert (run.exit, run.out) == (2, "")
        assert run.err.startswith("bad-reference: ")
        assert "\x1b" not in run.err


@pytest.mark.parametrize(
    "nasty",
    [
        "$(touch {file})",
        "`touch {file}`",
        "a;touch {file}",
        "a'$(touch {file})'",
        'a"$(touch {file})"',
        "a\ntouch {file}\n",
        "--help",
        "a|touch {file}",
    ],
)
def test_shell_characters_in_a_reference_start_nothing_anywhere(fab: Fab, node3: Node, nasty: str) -> None:
    file = Path(f"/tmp/ferry-{secrets.token_hex(6)}")
    text = nasty.format(file=file)
    for words in (
        (f"--src={text}", "--dst=b:1"),
        ("--src=a:1", f"--dst={text}"),
        (f"--match={text}", "--to-registry=x.example"),
    ):
        run = fab("-H", "node3", "retag", "--json", *words)
        assert run.exit in (0, 1, 2)
        assert not file.exists()
        assert node3.exec(["test", "-e", str(file)], check=False).returncode == 1


def test_a_namespace_with_shell_characters_starts_nothing(fab: Fab, node3: Node) -> None:
    file = Path(f"/tmp/ferry-{secrets.token_hex(6)}")
    for option in ("--namespace", "--to-namespace"):
        run = fab.retag("node3", *GOOD, option, f"x$(touch {file})'\"")
        assert run.exit in (1, 2)
        assert not file.exists()
        assert node3.exec(["test", "-e", str(file)], check=False).returncode == 1


def key_file(path: Path) -> str:
    """Write a fresh private key; return its public half as known_hosts has it."""
    key = Ed25519PrivateKey.generate()
    kind, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, plain))
    path.chmod(0o600)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public.decode()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class TestHostsThatCannotBeReached:
    def expect(self, fab: Fab, tmp_path: Path, fleet: Fleet, kind: str, *core: str, **variables: Any) -> None:
        """The host is unreachable for a reason; node2, beside it, is not."""
        address = fleet.nodes["node3"].address
        hosts = {"broken": {"ansible_host": address, **variables}, "node3": {"ansible_host": address}}
        file = write_inventory(tmp_path / "hosts.yaml", fleet, hosts)
        run = fab(*core, "-H", "broken", "retag", "--json", *GOOD, inventory=file)
        assert (run.exit, run.statuses) == (4, {"broken": kind})
        assert run.outcomes["broken"]["status"] == "unreachable"
        assert run.error["hint"]
        beside = fab(*core, "-H", "broken,node3", "retag", "--json", *GOOD, inventory=file)
        assert (beside.exit, beside.statuses) == (1, {"broken": kind, "node3": "image-not-found"})

    def test_a_refused_connection_is_reported(self, fab: Fab, tmp_path: Path, fleet: Fleet) -> None:
        self.expect(fab, tmp_path, fleet, "host-unreachable", ansible_port=2299)

    def test_a_host_that_never_answers_is_reported_in_time(
        self, fab: Fab, tmp_path: Path, fleet: Fleet, silent: int
    ) -> None:
        where = {"ansible_host": "127.0.0.1", "ansible_port": silent}
        self.expect(fab, tmp_path, fleet, "connect-timeout", "-t", "2", **where)

    def test_a_name_that_does_not_resolve_is_reported(self, fab: Fab, tmp_path: Path, fleet: Fleet) -> None:
        self.expect(fab, tmp_path, fleet, "host-unresolved", ansible_host="no-such-host.invalid")

    def test_a_wrong_key_is_reported(self, fab: Fab, tmp_path: Path, fleet: Fleet) -> None:
        key_file(tmp_path / "id")
        self.expect(fab, tmp_path, fleet, "login-refused", ansible_ssh_private_key_file=str(tmp_path / "id"))

    def test_an_absent_key_is_reported(self, fab: Fab, tmp_path: Path, fleet: Fleet) -> None:
        file = write_inventory(
            tmp_path / "hosts.yaml",
            fleet,
            {"broken": {"ansible_host": fleet.nodes["node3"].address, "ansible_ssh_private_key_file": "/no/such/key"}},
        )
        run = fab.retag("broken", *GOOD, inventory=file)
        assert (run.exit, run.error["kind"]) == (4, "login-refused")
        assert "/no/such/key" in json.dumps(run.error)

    def test_a_wrong_user_is_reported(self, fab: Fab, tmp_path: Path, fleet: Fleet) -> None:
        self.expect(fab, tmp_path, fleet, "login-refused", ansible_user="nosuchuser")

    def test_an_unknown_host_key_is_reported(self, fab: Fab, tmp_path: Path, fleet: Fleet) -> None:
        (tmp_path / "known").touch()
        options = f"-o UserKnownHostsFile={shlex.quote(str(tmp_path / 'known'))}"
        self.expect(fab, tmp_path, fleet, "host-key-unknown", ansible_ssh_common_args=options)
        assert (tmp_path / "known").read_text() == ""

    def test_a_changed_host_key_is_reported_and_never_accepted(self, fab: Fab, tmp_path: Path, fleet: Fleet) -> None:
        line = f"[{fleet.nodes['node3'].address}]:2222 {key_file(tmp_path / 'id')}\n"
        (tmp_path / "known").write_text(line)
        options = f"-o UserKnownHostsFile={shlex.quote(str(tmp_path / 'known'))}"
        for more in ("", " -o StrictHostKeyChecking=accept-new", " -o StrictHostKeyChecking=no"):
            self.expect(fab, tmp_path, fleet, "host-key-changed", ansible_ssh_common_args=options + more)
        assert (tmp_path / "known").read_text() == line


class TestHostsThatLackSomething:
    def run(self, fab: Fab, tmp_path: Path, fleet: Fleet, **variables: Any) -> Any:
        """Retag on every node, with some variables of the inventory changed."""
        hosts = {node.name: {"ansible_host": node.address, **variables} for node in fleet.nodes.values()}
        return fab.retag(hosts, *GOOD, inventory=write_inventory(tmp_path / "hosts.yaml", fleet, hosts))

    def test_a_ctr_that_is_not_there_is_reported(self, fab: Fab, tmp_path: Path, fleet: Fleet) -> None:
        run = self.run(fab, tmp_path, fleet, ctr_command="/no/such/ctr")
        assert (run.exit, run.statuses) == (1, dict.fromkeys(fleet.nodes, "ctr-not-found"))
        assert "/no/such/ctr" in run.error["message"]

    def test_an_absent_socket_is_reported(self, fab: Fab, tmp_path: Path, fleet: Fleet) -> None:
        run = self.run(fab, tmp_path, fleet, ctr_address="/run/no/such.sock")
        assert (run.exit, run.statuses) == (1, dict.fromkeys(fleet.nodes, "daemon-unreachable"))
        assert "/run/no/such.sock" in run.error["message"]

    def test_a_stale_socket_is_reported(self, fab: Fab, tmp_path: Path, fleet: Fleet) -> None:
        path = f"/run/stale-{secrets.token_hex(4)}.sock"
        for node in fleet.nodes.values():
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(f"/proc/{node.pid}/root{path}")
        try:
            run = self.run(fab, tmp_path, fleet, ctr_address=path)
        finally:
            for node in fleet.nodes.values():
                node.exec(["rm", path])
        assert (run.exit, run.statuses) == (1, dict.fromkeys(fleet.nodes, "daemon-unreachable"))


NOISE = {
    "prints on both outputs": "echo hello; echo 'ctr: error' >&2; printf '\\033[31m\\377\\000binary\\n'; "
    "echo 'ferry-1234 begin host'; cat /bin/true; cat /bin/true >&2; export PS1=x LC_ALL=tr_TR.UTF-8 IFS=,\n",
    "reads its standard input": "read -r -t 3 line; echo $line\n",
    "has aliases, functions and options": "alias ctr=false printf=false; printf() { false; }; set -f -C; "
    "shopt -s expand_aliases; export POSIXLY_CORRECT=1 CONTAINERD_NAMESPACE=other CONTAINERD_ADDRESS=/no CDPATH=/\n",
}


class TestLoginShells:
    @pytest.mark.parametrize("noise", NOISE)
    @pytest.mark.parametrize("name", ["node1", "node3", "node4"])
    def test_a_bashrc_is_survived(self, fab: Fab, stage: Stage, image: BuiltImage, name: str, noise: str) -> None:
        node = stage.nodes[name]
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(image, src, nodes=[node])
        with account(node, files={".bashrc": NOISE[noise]}) as user:
            run = fab.retag(f"{user}@{name}", "--src", src, "--dst", dst)
        assert run.statuses == {f"{user}@{name}": "changed"}, run.out
        assert stage.records(node)[dst].digest == image.target.digest

    @pytest.mark.parametrize("shell", ["dash", "tcsh", "fish", "zsh", "busybox sh"])
    def test_any_login_shell_will_do(self, fab: Fab, stage: Stage, image: BuiltImage, node3: Node, shell: str) -> None:
        program, _, applet = shell.partition(" ")
        found = node3.exec(["sh", "-c", f"command -v {program}"], check=False).stdout.decode().strip()
        if not found:
            pytest.skip(f"the node has no {program}")
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(image, src, nodes=[node3])
        wrapper = {"shell": f'#!/bin/sh\nexec {found} {applet} "$@"\n'} if applet else {}
        with account(node3, "{home}/shell" if applet else found, wrapper) as user:
            run = fab.retag(f"{user}@node3", "--src", src, "--dst", dst, "--method", "index")
        assert run.statuses == {f"{user}@node3": "changed"}, run.out

    def test_a_login_that_only_prints_is_reported(self, fab: Fab, node3: Node) -> None:
        with account(
            node3, "{home}/shell", {"shell": "#!/bin/sh\necho This account is not available.\nexit 1\n"}
        ) as user:
            run = fab.retag(f"{user}@node3", *GOOD)
        assert run.exit in (1, 4)
        assert run.statuses == {f"{user}@node3": "garbled-answer"}


class TestTheDocument:
    def test_is_one_for_a_whole_line_and_later_commands_are_skipped_where_one_failed(
        self, fab: Fab, stage: Stage, image: BuiltImage, node2: Node, node3: Node
    ) -> None:
        src, one, two = stage.name(), stage.name("one"), stage.name("two")
        stage.seed(image, src, nodes=[node3])
        assert not stage.records(node2)
        words = ("--json", "--src", src, "--dst")
        run = fab("-H", "node2,node3", "retag", *words, one, "retag", *words, two)
        first, second = run.document["commands"]
        assert {o["host"]: o["status"] for o in first["outcomes"]} == {"node2": "failed", "node3": "changed"}
        assert {o["host"]: o["status"] for o in second["outcomes"]} == {"node2": "skipped", "node3": "changed"}
        assert (run.exit, run.document["exit"]) == (1, 1)
        assert {one, two} <= stage.records(node3).keys()
        assert "\x1b" not in run.out + run.err

    def test_a_wrong_later_command_keeps_the_first_from_starting(
        self, fab: Fab, stage: Stage, image: BuiltImage, node3: Node
    ) -> None:
        src, one = stage.name(), stage.name("one")
        stage.seed(image, src, nodes=[node3])
        run = fab("-H", "node3", "retag", "--json", "--src", src, "--dst", one, "retag", "--src", "x", "--dst", "BAD")
        assert (run.exit, run.error["kind"]) == (2, "bad-reference")
        assert one not in stage.records(node3)

    def test_people_get_a_line_a_host_without_colours_in_a_pipe(
        self, fab: Fab, stage: Stage, image: BuiltImage
    ) -> None:
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(image, src)
        run = fab("-H", ",".join(stage.nodes), "retag", "--src", src, "--dst", dst)
        assert run.exit == 0
        assert "\x1b" not in run.out + run.err
        for name in stage.nodes:
            assert any(line.split()[:2] == [name, "changed"] and dst in line for line in run.out.splitlines())
