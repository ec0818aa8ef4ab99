"""hosts.toml of a host: which folder counts for a registry, which servers ctr asks, and what is said of them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from letters import unhashed  # noqa: F401
from retagging import A, image
from scripted_registry import OK, REF, Answering, Host, ScriptedRegistry, answering_fixture, pulled, pushed  # noqa: F401

from ctr_ferry.ctr import hosts_dir
from ctr_ferry.ctr.hosts_dir import Folder, Server, parse
from ctr_ferry.errors import CtrNotFound
from ctr_ferry.oci.registry import Login, Registry, RegistryState, RegistryStateError
from ctr_ferry.registry import mirrors
from ctr_ferry.registry import status as registries
from ctr_ferry.registry.mirrors import MirroredClient
from ctr_ferry.secrets import Secret
from ctr_ferry.shell import Answer
from ctr_ferry.ssh.target import Target

HUB = Registry("docker.io")
OPEN, REFUSED = RegistryState.OPEN, RegistryState.REFUSED
FILE = """
server = "https://registry-1.docker.io"
[host."http://mirror:5000"]
  capabilities = ["pull", "resolve"]
[host."harbor.example/v2/hub"]
  capabilities = ["pull", "resolve"]
  override_path = true
  ca = ["ca.pem", "/etc/ca.pem"]
[host."https://closed.example"]
  skip_verify = true
  [host."https://closed.example".header]
    Authorization = "Basic c2VjcmV0"
"""


def servers(text: str, registry: Registry = HUB, *, wants_tables: bool = False) -> tuple[Server, ...]:
    return parse(Answer(0, f"file\n{text}".encode(), ""), "/d/x", registry, wants_tables=wants_tables)


def test_servers_have_the_order_addresses_and_settings_of_the_file() -> None:
    found = servers(FILE)
    assert [each.registry.at("/a/manifests/1") for each in found] == [
        "http://mirror:5000/v2/a/manifests/1?ns=docker.io",
        "https://harbor.example/v2/hub/a/manifests/1?ns=docker.io",
        "https://closed.example/v2/a/manifests/1?ns=docker.io",
        "https://registry-1.docker.io/v2/a/manifests/1",
    ]
    assert ["push" in each.abilities for each in found] == [False, False, True, True]
    assert [each.closed for each in found] == [False, False, True, False]
    assert found[1].registry.cas_there == ("/d/x/ca.pem", "/etc/ca.pem")
    assert [each.registry.skip_verify for each in found] == [False, False, True, False]


def test_without_a_server_the_registry_itself_comes_last() -> None:
    assert servers('[host."http://mirror"]')[-1].registry == HUB
    own = Registry("r.example:5000", scheme="http")
    assert [each.registry for each in servers("", own)] == [own]


def test_without_a_file_the_certificates_of_the_folder_count() -> None:
    (found,) = parse(Answer(0, b"folder\na.crt\nb.key\n", ""), "/d/x", HUB, wants_tables=True)
    assert found.registry.cas_there == ("/d/x/a.crt",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("host = 5", "form"),
        ("host = [1]", "form"),
        ("[host]\nx = 1", "form"),
        ("server = ", "value"),
        ("x = " + "[" * 60_000, "form"),
        ('[host."http://a b/"]', "no address"),
        ('[host."http://u:p@h/"]', "no address"),
        ("[host.x]\nca = 5", "form"),
    ],
)
def test_a_file_that_makes_no_sense_is_not_heeded(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        servers(text)


def test_some_ctrs_pass_over_a_file_without_a_host_table() -> None:
    assert servers('server = "http://x"')[0].registry.url == "http://x"
    with pytest.raises(ValueError, match=r"no \[host\] table"):
        servers('server = "http://x"', wants_tables=True)


@pytest.mark.parametrize(
    ("registry", "folder"),
    [("r:5000", "/d/r_5000_"), ("r:6000", "/d/r:6000"), ("q", "/d/_default"), ("r", "/d/_default")],
)
def test_the_folder_of_a_registry_is_the_one_that_containerd_takes(registry: str, folder: str) -> None:
    assert Folder("/d", frozenset({"r:5000", "r_5000_", "r:6000", "_default"})).of(registry) == folder
    assert Folder("/d", frozenset()).of(registry) is None


def test_the_host_prints_its_folder_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/hosts.toml").write_text("x")

    def run(text: str) -> Answer:
        done = subprocess.run(["sh", "-c", f"set -f; ctr=k3s; {text}"], capture_output=True, check=False)
        return Answer(done.returncode, done.stdout, done.stderr.decode())

    assert hosts_dir.folder(run(hosts_dir.question(str(tmp_path)))) == Folder(str(tmp_path), frozenset({"r"}))
    assert hosts_dir.folder(run(hosts_dir.question(f"{tmp_path}/none"))) is None
    assert run(hosts_dir.read(f"{tmp_path}/r")).text == "file\nx"
    assert run(hosts_dir.read(str(tmp_path))).text == "folder\nr\n"


class TestTheStateOfARegistry:
    """As `registry` and `doctor` show it."""

    @pytest.mark.parametrize(
        ("states", "text", "status", "words"),
        [
            ((OPEN, OPEN), FILE, "ok", "; by /d/docker.io/hosts.toml: http://mirror:5000/v2"),
            ((OPEN, OPEN), "host = 5", "warn", "; ctr does not heed /d/docker.io/hosts.toml"),
            ((REFUSED, OPEN), FILE, "warn", "http://mirror:5000/v2 answers"),
            ((REFUSED, REFUSED), FILE, "fail", "by /d/docker.io/hosts.toml"),
        ],
    )
    def test_tells_what_hosts_toml_says_of_it(
        self,
        monkeypatch: pytest.MonkeyPatch,
        states: tuple[RegistryState, RegistryState],
        text: str,
        status: str,
        words: str,
    ) -> None:
        able = SimpleNamespace(hosts_dir=True, wants_host_tables=False)
        host = SimpleNamespace(
            target=Target("n", "n"), ask=lambda *_, **__: {"hosts-dir": Answer(0, f"file\n{text}".encode(), "")}
        )
        probed: Any = SimpleNamespace(
            host=host,
            facts=SimpleNamespace(ctr=SimpleNamespace(capabilities=able), client="1.6.20"),
            answers={"hosts-dir": Answer(0, b"/d\ndocker.io\n", "")},
        )
        monkeypatch.setattr(
            registries, "inspect", lambda _, asked: [registries.RegistryStatus.of(each, states[1]) for each in asked]
        )
        given = registries.RegistryStatus.of(HUB, states[0])
        (found,) = registries.with_mirrors(probed, [HUB], [given])
        assert found.status == status
        assert words in found.message, found.message

    def test_is_what_it_is_on_a_host_without_a_ctr(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_ctr(*_: object, **__: object) -> None:
            raise CtrNotFound("no ctr")

        monkeypatch.setattr(registries, "survey", no_ctr)
        host: Any = SimpleNamespace(target=Target("n", "n"))
        given = [registries.RegistryStatus.of(HUB, RegistryState.REFUSED)]
        assert registries.with_mirrors(registries.probed(host), [HUB], given) == given


class TestSeveralServers:
    LOGIN = Login("ann", Secret("s3cret"))

    def ask(self, monkeypatch: pytest.MonkeyPatch, *answers: Any, login: Login | None = None) -> tuple[Any, list[int]]:
        """Ask as many servers as there are answers but the last, which the registry itself gives to a login."""
        clients = [ScriptedRegistry(answer) for answer in answers]
        made, direct = iter(clients[:-1]), clients[-1]
        monkeypatch.setattr(mirrors, "Client", lambda *_: next(made))
        given = [Server(Registry(f"m{number}"), frozenset()) for number in range(len(answers) - 1)]
        client = MirroredClient(None, given, direct, lambda: login)  # type: ignore[arg-type]
        try:
            found: Any = client.find("a", "1")
        except RegistryStateError as error:
            found = error.state
        return found, [each.asked for each in clients]

    def test_are_asked_until_one_has_the_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.ask(monkeypatch, RegistryState.REFUSED, None, A, None, None) == (A, [1, 1, 1, 0, 0])

    def test_give_what_the_last_one_says_where_none_has_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.ask(monkeypatch, RegistryState.REFUSED, None, None) == (None, [1, 1, 0])
        assert self.ask(monkeypatch, None, RegistryState.FAILED, None) == (RegistryState.FAILED, [1, 1, 0])

    def test_get_no_login_which_goes_to_the_registry_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wants = RegistryState.UNAUTHORIZED
        assert self.ask(monkeypatch, wants, wants, A, login=self.LOGIN) == (A, [1, 1, 1])
        assert self.ask(monkeypatch, wants, wants, A) == (wants, [1, 1, 0])


MIRRORED = Answer(0, b"/d\nr.example:5000\n", "")
TOML = Answer(0, b'file\n[host."http://mirror"]\ncapabilities = ["pull", "resolve"]\n', "")


class Mirrored(Host):
    """A host whose folder describes the registry; the first answer is the folder's, the next the file's."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.answers["hosts-dir"] = lambda text: TOML if "hosts.toml" in text else MIRRORED


class TestTransfers:
    def test_hand_ctr_the_folder_and_tell_who_is_asked(
        self, answering: Answering, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = answering(None, A)
        monkeypatch.setattr(mirrors, "Client", lambda *_: registry)
        host = Mirrored([image(REF, A)], answers={"push": OK})
        result = pushed(host)
        assert "--hosts-dir /d" in host.texts["push"]
        assert result.notes[0] == "by /d/r.example:5000/hosts.toml: http://r.example:5000/v2"

    def test_with_a_login_go_to_the_registry_alone(self, answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
        registry = answering(None, A, login=Login("ann", Secret("s3cret")))
        monkeypatch.setattr(mirrors, "Client", lambda *_: registry)
        host = Mirrored([image(REF, A)], answers={"push": OK})
        result = pushed(host)
        assert "--user ann" in host.texts["push"] and "--hosts-dir" not in host.texts["push"]
        assert "a login goes to r.example:5000 alone" in result.notes[0] and result.notes[0] in "\n".join(
            result.lines()
        )

    def test_of_an_old_ctr_get_no_folder(self, answering: Answering) -> None:
        answering(None, A)
        host = Mirrored([image(REF, A)], answers={"push": OK}, version="1.2.6")
        assert pushed(host).notes == ()
        assert "--hosts-dir" not in host.texts["push"]
