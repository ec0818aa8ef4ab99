"""The lab's registries are what they claim to be: real clients on the nodes, and the lab itself, ask each of them."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ferry import Stage, eventually

from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build, seed_image
from lab.registries import DEMO, Registries, Registry

CA = "/tmp/registries-ca.pem"


class Client:
    """node3's real ctr (1.6), with an image in a namespace of its own, and a repository of each test's own."""

    def __init__(self, node: Node, image: BuiltImage, source: str, namespace: str) -> None:
        self.node, self.image, self.source, self.namespace = node, image, source, namespace
        self.repository = f"t{uuid.uuid4().hex[:10]}"

    def name(self, tag: str = "1") -> str:
        """Return repository:tag as the registry calls it."""
        return f"{self.repository}/app:{tag}"

    def push(self, registry: Registry, tag: str = "1", **how: Any) -> subprocess.CompletedProcess[bytes]:
        """Push the image."""
        return self._ctr("push", registry, f"{registry.name}/{self.name(tag)}", self.source, **how)

    def pull(self, registry: Registry, tag: str = "1", **how: Any) -> subprocess.CompletedProcess[bytes]:
        """Pull what the registry has under that name."""
        return self._ctr("pull", registry, f"{registry.name}/{self.name(tag)}", **how)

    def _ctr(
        self, verb: str, registry: Registry, *names: str, user: str | None = None, ca: bool = True, proxy: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        if user is None and registry.username:
            user = f"{registry.username}:{registry.password}"
        flags = ["--plain-http"] if registry.scheme == "http" else ["--tlscacert", CA] * ca
        flags += ["--user", user] if user else []
        argv = [*self.node.model.ctr, "-n", self.namespace, "images", verb, *flags, *names]
        return self.node.exec(["env", f"HTTPS_PROXY={proxy}", "timeout", "20", *argv], check=False)


@pytest.fixture(scope="module")
def seeded(
    fleet: Fleet, registries: Registries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Node, BuiltImage, str, str]]:
    """A node that knows the lab's CA, and a small image that it has, under a name in a namespace."""
    if "node3" not in fleet.nodes:
        pytest.skip("the fleet has no node3")
    node, stage = fleet.nodes["node3"], Stage(fleet)
    image = build(tmp_path_factory.mktemp("image"), layers=(1000, 300_000), seed=40)
    name, namespace = stage.name(), stage.namespace()
    assert registries.tls.ca_file
    node.exec(["sh", "-c", f"cat >{CA}"], stdin=registries.tls.ca_file.read_bytes())
    stage.seed(image, name, namespace=namespace, nodes=[node])
    yield node, image, name, namespace
    stage.close()
    node.exec(["rm", CA])


@pytest.fixture
def client(seeded: tuple[Node, BuiltImage, str, str]) -> Client:
    """A client of the registries."""
    return Client(*seeded)


def detail(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last words of a ctr that failed, as it must."""
    assert done.returncode == 1, done
    return done.stderr.decode().strip().splitlines()[-1]


@pytest.mark.parametrize("kind", ["http", "tls", "demo", "basic", "token", "slow", "flaky"])
def test_a_registry_takes_an_image_and_gives_it_back(client: Client, registries: Registries, kind: str) -> None:
    registry: Registry = getattr(registries, kind)
    pushed = client.push(registry)
    assert pushed.returncode == 0, pushed
    repository = client.name().rpartition(":")[0]
    assert registry.server.digest(client.name()) == client.image.target.digest
    assert registry.server.tags(repository) == ["1"]
    assert registry.server.blobs(repository) == client.image.blobs.keys() - {client.image.target.digest}
    assert any(f"PUT /v2/{repository}/manifests/" in line for line in registry.server.requests())
    pulled = client.pull(registry)
    assert pulled.returncode == 0, pulled


def test_what_is_put_into_the_storage_can_be_pulled(client: Client, registries: Registries, tmp_path: Path) -> None:
    other = build(tmp_path, layers=(2000,), seed=41, platforms=(NATIVE, "linux/s390x"))
    registries.token.server.put(other, client.name("put"), client.name("again"))
    assert client.pull(registries.reader, "put").returncode == 0
    name = f"{registries.token.name}/{client.name('put')}"
    row = client.node.ctr("images", "ls", f"name=={name}", namespace=client.namespace).stdout.decode()
    assert other.target.digest in row
    assert registries.token.server.tags(f"{client.repository}/app") == ["again", "put"]


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_a_registry_with_passwords_wants_the_right_one(client: Client, registries: Registries, kind: str) -> None:
    registry: Registry = getattr(registries, kind)
    for user in ("", "pusher:wrong", "nobody:wrong"):
        words = "insufficient_scope" if kind == "token" and not user else "401 Unauthorized"
        assert words in detail(client.push(registry, user=user))
    assert not registry.server.tags(f"{client.repository}/app")


def test_a_user_who_may_only_pull_is_denied_a_push(client: Client, registries: Registries) -> None:
    other = Client(client.node, client.image, client.source, client.namespace)
    assert client.push(registries.token).returncode == 0
    assert "insufficient_scope" in detail(other.push(registries.reader))
    assert client.pull(registries.reader).returncode == 0
    assert "insufficient_scope" in detail(client.pull(registries.token, user=""))
    assert registries.token.server.tags(f"{other.repository}/app") == []


@pytest.mark.parametrize(
    ("kind", "how", "words"),
    [
        ("tls", {"ca": False}, "x509: certificate signed by unknown authority"),
        ("expired", {}, "x509: certificate has expired"),
        ("wrong", {}, "x509: certificate is valid for other.example, not wrong.registry.demo"),
        ("absent", {}, "connect: connection refused"),
        ("nowhere", {}, "no such host"),
        ("hidden", {}, "no such host"),
    ],
)
def test_ctr_names_the_fault_of_each_broken_registry(
    client: Client, registries: Registries, kind: str, how: dict[str, Any], words: str
) -> None:
    registry: Registry = getattr(registries, kind)
    assert words in detail(client.push(registry, **how))


def test_the_silent_one_accepts_and_never_answers(client: Client, registries: Registries) -> None:
    before = registries.seen("silent")
    name = f"{registries.silent.name}/{client.name()}"
    argv = ["ctr", "--timeout", "1s", "-n", client.namespace, "images", "push", name, client.source]
    assert "context deadline exceeded" in detail(client.node.exec(argv, check=False))
    after = registries.seen("silent")
    assert after["connections"] > before["connections"]
    assert after["sent"] > before["sent"]


def test_some_nodes_reach_docker_registry_i_demo_and_others_do_not(stage: Stage, registries: Registries) -> None:
    def look(node: Node) -> list[str]:
        return node.exec(["getent", "ahostsv4", DEMO], check=False).stdout.decode().split()[:1]

    seen = stage.on_each(look)
    there, refused = [registries.demo.address], [registries.absent.address]
    expected = {"node1": there, "node2": there, "node3": there, "node4": refused, "node5": []}
    assert seen == {name: expected[name] for name in stage.nodes}


def test_the_proxy_leads_where_no_node_gets_by_itself(client: Client, registries: Registries) -> None:
    before = len(registries.seen("proxy")["asked"])
    assert client.push(registries.hidden, proxy=registries.proxy).returncode == 0
    assert set(registries.seen("proxy")["asked"][before:]) == {registries.hidden.name}
    assert registries.tls.server.tags(f"{client.repository}/app") == ["1"]
    assert "Bad Gateway" in detail(client.push(registries.absent, proxy=registries.proxy))


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ("503 Service Unavailable", "UNAVAILABLE", "try again"),
        ("429 Too Many Requests", "TOOMANYREQUESTS", "slowly"),
        ("507 Insufficient Storage", "UNKNOWN", "no space left on device"),
        ("403 Forbidden", "DENIED", "quota exceeded"),
    ],
)
def test_faults_come_as_often_as_asked_for(
    client: Client, registries: Registries, status: str, code: str, message: str
) -> None:
    with registries.failing(status, 2, code=code, message=message, methods=("GET",)) as answered:
        for count in (1, 2):
            body, got = http_get(registries.flaky, "/v2/")
            assert (got, body["errors"][0]) == (int(status[:3]), {"code": code, "message": message})
            assert answered() == count
        assert http_get(registries.flaky, "/v2/") == ({}, 200)
    with registries.failing(status, 1000, methods=("PUT", "POST")) as answered:
        assert status[:3] in detail(client.push(registries.flaky))
        assert answered() > 0
    assert client.push(registries.flaky).returncode == 0


def http_get(registry: Registry, path: str) -> tuple[dict[str, Any], int]:
    """Ask a registry with plain HTTP; return the answer's document and its status."""
    connection = http.client.HTTPConnection(registry.address, 5000, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Host": registry.name})
        answer = connection.getresponse()
        return json.loads(answer.read()), answer.status


def test_a_killed_registry_is_gone_in_the_middle_and_back_with_what_it_had(
    client: Client, registries: Registries, tmp_path: Path
) -> None:
    server = registries.basic.server
    assert client.push(registries.basic).returncode == 0
    # Of an image that it has had in whatever repository, ctr would send nothing.
    fresh = Client(client.node, build(tmp_path, seed=42), f"new.example/{client.name()}", client.namespace)
    seed_image(fresh.node, fresh.image, [fresh.source], fresh.namespace)
    try:
        with registries.throttled(200_000), ThreadPoolExecutor() as pool:
            before = registries.seen("slow")["sent"]
            pushing = pool.submit(fresh.push, registries.slow)
            assert eventually(lambda: registries.seen("slow")["sent"] > before + 100_000)
            server.kill()
            assert pushing.result().returncode == 1
            assert registries.seen("slow")["sent"] < before + 1_000_000  # of more than 2 MB
        assert "connection refused" in detail(fresh.push(registries.basic))
    finally:
        server.start()
    assert server.tags(fresh.name().rpartition(":")[0]) == []
    assert client.pull(registries.basic).returncode == 0
