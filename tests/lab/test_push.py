"""`fab push` pushes from every node to every registry that the node can use, and is refused elsewhere."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ferry import Fab, Stage, eventually, key_without_forwarding, leftovers, processes, release
from registry_scene import RegistryScene, in_repository

from ctr_ferry.ctr import push_pull
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.oci import registry as oci
from lab.certificates import Authority
from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build
from lab.registries import DEMO_NODES, Registry

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"
USERS = ("ops", "ops2")


@pytest.fixture(scope="module")
def images(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltImage]:
    """Small images, of this module alone."""
    assert fleet.nodes
    folder, seed = tmp_path_factory.mktemp("images"), secrets.randbits(32)
    return {
        "plain": build(folder, layers=(1000, 2000), seed=seed),
        "index": build(folder, layers=(1000,), seed=seed + 1, platforms=(NATIVE, OTHER)),
        "part": build(folder, layers=(1000,), seed=seed + 2, platforms=(NATIVE, OTHER)),
    }


@pytest.fixture(scope="module")
def plain(images: dict[str, BuiltImage]) -> BuiltImage:
    """An image of one platform."""
    return images["plain"]


def uploads(scene: RegistryScene, registry: Registry, repository: str = "app") -> list[str]:
    """Return the requests by which a repository of this test was sent something."""
    sent = [f'"{verb} /v2/{scene.stage.token}/{repository}/' for verb in ("PUT", "POST", "PATCH")]
    return [line for line in registry.server.requests() if any(start in line for start in sent)]


def logins(registry: Registry) -> list[str]:
    """Return the requests that a registry which wants a login has let in."""
    return [line for line in registry.server.requests() if '" 401 ' not in line]


class TestEveryNode:
    def test_pushes_to_every_registry_that_it_can_use_and_only_once(
        self, scene: RegistryScene, plain: BuiltImage, node: Node
    ) -> None:
        all_, stage = scene.registries, scene.stage
        usable = [all_.http, all_.tls, all_.basic, all_.token, *([all_.demo] if node.name in DEMO_NODES else [])]
        names = {registry: scene.name(registry, tag=f"{node.name}-{number}") for number, registry in enumerate(usable)}
        stage.seed(plain, *names.values(), nodes=[node])
        before, running = stage.records(node), processes(node).keys()

        def run() -> list[dict[str, Any]]:
            words = [word for name in names.values() for word in ("push", "--json", "--ref", name)]
            done = scene.run([node.name], *words)
            assert done.exit == 0, done.out
            return [command["outcomes"][0] for command in done.document["commands"]]

        for (registry, name), outcome in zip(names.items(), run(), strict=True):
            told = outcome["result"]
            assert (outcome["status"], told["reference"], told["verified"]) == ("changed", name, "digest")
            assert told["digest"] == scene.there(registry, name) == plain.target.digest
        sent = {registry: uploads(scene, registry) for registry in usable}
        assert all(sent.values())
        assert [outcome["status"] for outcome in run()] == ["unchanged"] * len(usable)
        assert {registry: uploads(scene, registry) for registry in usable} == sent
        assert stage.records(node) == before
        assert leftovers(node) == []
        assert eventually(lambda: processes(node).keys() <= running), processes(node)

    def test_pushes_an_index_whole_where_it_has_all_of_it_and_else_its_own_platform(
        self, scene: RegistryScene, images: dict[str, BuiltImage], node: Node
    ) -> None:
        registry, whole, part = scene.registries.basic, images["index"], images["part"]
        names = [scene.name(registry, name, node.name) for name in ("whole", "part", "asked")]
        scene.stage.seed(whole, names[0], names[2], nodes=[node])
        scene.stage.seed(part, names[1], nodes=[node], blobs=part.of(NATIVE) | {part.manifests[OTHER]})
        words = [word for name in names for word in ("push", "--json", "--ref", name)]
        run = scene.run([node.name], *words, "--platform", OTHER)
        *told, asked = [command["outcomes"][0].get("result") for command in run.document["commands"]]
        wanted: list[str | None] = [whole.target.digest, part.manifests[NATIVE], whole.manifests[OTHER]]
        if release(node) < (1, 1):  # which cannot push an index at all, nor any platform but its own
            wanted = [whole.manifests[NATIVE], part.manifests[NATIVE], None]
            assert run.statuses == {node.name: "method-unsupported"}, run.out
        else:
            assert run.exit == 0, run.out
            assert asked["digest"] == wanted[2]
        assert [result["digest"] for result in told] == wanted[:2]
        assert [scene.there(registry, name) for name in names] == wanted
        notice = " ".join(told[1]["notices"])
        assert NATIVE in notice and part.target.digest in notice
        assert told[1]["source_digest"] == part.target.digest

    def test_fails_clearly_where_all_platforms_are_asked_for_and_absent(
        self, scene: RegistryScene, images: dict[str, BuiltImage]
    ) -> None:
        registry, part = scene.registries.http, images["part"]
        name = scene.name(registry)
        scene.stage.seed(part, name, blobs=part.of(NATIVE) | {part.manifests[OTHER]})
        run = scene.push(scene.nodes, "--ref", name, "--all-platforms")
        assert (run.exit, set(run.statuses.values())) == (1, {"platform-missing"})
        assert OTHER in run.error["message"]
        assert scene.there(registry, name) is None


class TestAnotherName:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_is_pushed_and_leaves_no_tag_on_any_node(self, scene: RegistryScene, plain: BuiltImage) -> None:
        registry, source = scene.registries.token, scene.stage.name()
        goal = scene.name(registry, "published")
        scene.stage.seed(plain, source)
        before = scene.stage.on_each(scene.stage.records)
        run = scene.push(scene.nodes, "--ref", source, "--as", goal)
        assert run.exit == 0, run.out
        assert "changed" in run.statuses.values() and set(run.statuses.values()) <= {"changed", "unchanged"}
        assert scene.there(registry, goal) == plain.target.digest
        assert scene.stage.on_each(scene.stage.records) == before

    def test_is_only_reported_in_a_dry_run(self, scene: RegistryScene, plain: BuiltImage) -> None:
        registry, source = scene.registries.basic, scene.stage.name()
        goal = scene.name(registry, "dry")
        scene.stage.seed(plain, source)
        run = scene.push(scene.nodes, "--ref", source, "--as", goal, "--dry-run")
        assert (run.exit, set(run.statuses.values())) == (0, {"would-change"})
        assert scene.there(registry, goal) is None
        assert uploads(scene, registry, "dry") == []


class TestANameThatIsTaken:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_moves_only_by_force_and_the_old_digest_is_reported(
        self, scene: RegistryScene, images: dict[str, BuiltImage]
    ) -> None:
        registry, (old, new) = scene.registries.tls, (images["part"], images["plain"])
        name = scene.name(registry)
        scene.stage.seed(new, name)
        registry.server.put(old, in_repository(registry, name))
        for flags in ((), ("--dry-run",)):
            run = scene.push(scene.nodes, "--ref", name, *flags)
            assert (run.exit, run.statuses) == (1, dict.fromkeys(scene.nodes, "reference-exists")), run.out
            assert old.target.digest in run.error["said"] and new.target.digest in run.error["said"]
            assert scene.there(registry, name) == old.target.digest
        assert uploads(scene, registry) == []
        run = scene.push(scene.nodes, "--ref", name, "--force")
        assert (run.exit, set(run.statuses.values()) <= {"changed", "unchanged"}) == (0, True), run.out
        replaced = [outcome["result"]["previous_digest"] for outcome in run.outcomes.values()]
        assert old.target.digest in replaced and set(replaced) <= {"", old.target.digest}
        assert scene.there(registry, name) == new.target.digest

    def test_gets_no_digest_where_hosts_would_push_different_ones(
        self, scene: RegistryScene, images: dict[str, BuiltImage]
    ) -> None:
        registry, name, nodes = scene.registries.basic, scene.name(scene.registries.basic), scene.nodes
        first, *others = nodes.values()
        scene.stage.seed(images["plain"], name, nodes=[first])
        scene.stage.seed(images["index"], name, nodes=others)
        for flags in ((), ("--dry-run",), ("--force", "--serial", "1")):
            run = scene.push(nodes, "--ref", name, *flags)
            assert (run.exit, run.statuses) == (1, dict.fromkeys(nodes, "drift")), run.out
            assert f"{images['plain'].target.digest} on {first.name}" in run.error["said"]
        assert scene.there(registry, name) is None
        assert uploads(scene, registry) == []


UNREACHABLE, UNRESOLVED, TLS, SCHEME = "registry-unreachable", "registry-unresolved", "registry-tls", "registry-scheme"


class TestARegistryThatANodeCannotUse:
    # What is found out before a byte moves is the same for push and pull: the other kinds are in the pull's tests.
    @pytest.mark.parametrize(
        ("kind", "described", "expected"),
        [
            ("absent", {}, UNREACHABLE),
            ("tls", {"ca_file": None}, TLS),
            ("tls", {"scheme": "http", "ca_file": None}, SCHEME),
            ("basic", {"username": None, "password_env": None}, "registry-unauthorized"),
            ("reader", {}, "registry-denied"),
            ("silent", {}, "registry-timeout"),
        ],
    )
    def test_is_refused_with_the_reason(
        self, scene: RegistryScene, plain: BuiltImage, *, kind: str, described: dict[str, Any], expected: str
    ) -> None:
        registry: Registry = getattr(scene.registries, kind)
        source, goal = scene.stage.name(), scene.name(registry)
        scene.stage.seed(plain, source)
        inventory = scene.described(registry, **described)
        run = scene.push(scene.nodes, "--ref", source, "--as", goal, inventory=inventory)
        assert run.exit == 1
        assert run.statuses == dict.fromkeys(scene.nodes, expected)
        assert registry.name in run.error["message"] and run.error["hint"]
        assert scene.stage.on_each(leftovers) == {name: [] for name in scene.nodes}

    def test_is_reported_for_each_node_as_that_node_sees_it(self, scene: RegistryScene, plain: BuiltImage) -> None:
        name = scene.name(scene.registries.demo)
        scene.stage.seed(plain, name)
        run = scene.push(scene.nodes, "--ref", name)
        told = {host: status.replace("unchanged", "changed") for host, status in run.statuses.items()}
        expected = {**dict.fromkeys(DEMO_NODES, "changed"), "node4": UNREACHABLE, "node5": UNRESOLVED}
        assert told == {host: expected[host] for host in scene.nodes}

    @pytest.mark.parametrize("kind", ["basic", "token"])
    def test_a_wrong_password_is_refused_and_never_shown(
        self, scene: RegistryScene, plain: BuiltImage, kind: str
    ) -> None:
        registry: Registry = getattr(scene.registries, kind)
        source, goal = scene.stage.name(), scene.name(registry)
        scene.stage.seed(plain, source)
        run = scene.push(scene.nodes, "--ref", source, "--as", goal, **{registry.password_env: "wr0ng-w0rd"})
        assert run.statuses == dict.fromkeys(scene.nodes, "registry-unauthorized")
        assert "wr0ng-w0rd" not in run.out + run.err
        assert scene.there(registry, goal) is None


class TestTheRoute:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    @pytest.mark.parametrize("kind", ["hidden", "obscure"])  # TLS and plain HTTP
    def test_leads_through_a_proxy_where_the_inventory_says_so(
        self, scene: RegistryScene, plain: BuiltImage, kind: str
    ) -> None:
        registry: Registry = getattr(scene.registries, kind)
        name, described = scene.name(registry), {registry.name: registry.settings()}
        scene.stage.seed(plain, name)
        run = scene.push(scene.nodes, "--ref", name, inventory=scene.inventory(ctr_registries=described))
        assert run.statuses == dict.fromkeys(scene.nodes, UNRESOLVED)
        before = scene.registries.seen("proxy")["connections"]
        way = scene.inventory(ctr_registries=described, ctr_proxy=scene.registries.proxy)
        run = scene.push(scene.nodes, "--ref", name, inventory=way)
        assert run.exit == 0, run.out
        assert scene.there(registry, name) == plain.target.digest
        assert scene.registries.seen("proxy")["connections"] >= before + len(scene.nodes)

    def test_leads_through_sudo_with_and_without_a_password(
        self, scene: RegistryScene, plain: BuiltImage, node3: Node
    ) -> None:
        registry, source = scene.registries.basic, scene.stage.name()
        scene.stage.seed(plain, source, nodes=[node3])
        users = {user: {"ansible_host": node3.address, "ansible_user": user, "ansible_become": True} for user in USERS}
        inventory = scene.inventory(hosts=users)
        for user in USERS:
            goal = scene.name(registry, user)
            words = ("--ref", source, "--as", goal)
            run = scene.push([user], *words, inventory=inventory, FABRIC_SUDO_PASSWORD="ops2-secret")
            assert run.statuses == {user: "changed"}, run.out
            assert scene.there(registry, goal) == plain.target.digest
        assert leftovers(node3) == []


class TestALoginFromDocker:
    @pytest.mark.parametrize("kind", ["auth", "helper"])
    def test_is_used_where_the_inventory_has_none(
        self, scene: RegistryScene, plain: BuiltImage, node3: Node, tmp_path: Path, *, kind: str
    ) -> None:
        registry, source = scene.registries.basic, scene.stage.name()
        goal = scene.name(registry, kind)
        scene.stage.seed(plain, source, nodes=[node3])
        auth = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
        answer = json.dumps({"Username": registry.username, "Secret": registry.password})
        helper = tmp_path / "docker-credential-lab"
        helper.write_text(f"#!/bin/sh\ncat <<'EOF'\n{answer}\nEOF\n")
        helper.chmod(0o700)
        config = {"auth": {"auths": {registry.name: {"auth": auth}}}, "helper": {"credsStore": "lab"}}
        (tmp_path / "config.json").write_text(json.dumps(config[kind]))
        inventory = scene.described(registry, username=None, password_env=None)
        env = {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        run = scene.push(["node3"], "--ref", source, "--as", goal, inventory=inventory, **env)
        assert run.statuses == {"node3": "changed"}, run.out
        assert scene.there(registry, goal) == plain.target.digest
        assert logins(registry)

    def test_is_sent_only_to_a_registry_that_asks_for_it(
        self, scene: RegistryScene, plain: BuiltImage, node3: Node, tmp_path: Path
    ) -> None:
        registry, source = scene.registries.tls, scene.stage.name()
        goal = scene.name(registry)
        scene.stage.seed(plain, source, nodes=[node3])
        (tmp_path / "config.json").write_text(json.dumps({"credsStore": "lab"}))
        helper = tmp_path / "docker-credential-lab"
        helper.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nexit 1\n")
        helper.chmod(0o700)
        env = {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        words = ("push", "--json", "--ref", source, "--as", goal, "pull", "--json", "--ref", goal)
        run = scene.run(["node3"], *words, "registry", "--json", "--name", registry.name, **env)
        assert run.exit == 0, run.out
        assert scene.there(registry, goal) == plain.target.digest
        assert not (tmp_path / "asked").exists()


class TestALoginThatOnlyAPushNeeds:
    def test_is_sent_once_ctr_was_refused_without_a_login(
        self, scene: RegistryScene, tmp_path: Path, node: Node
    ) -> None:
        registry, name = scene.registries.flaky, scene.name(scene.registries.flaky, tag=node.name)
        image = build(tmp_path, layers=(1000,), seed=secrets.randbits(32))
        scene.stage.seed(image, name, nodes=[node])
        inventory = scene.described(registry, username="pusher", password_env="LAB_PASSWORD_PUSHER")
        wants = {"WWW-Authenticate": 'Basic realm="writers"'}
        with scene.registries.failing("401 Unauthorized", methods=("POST",), headers=wants) as answered:
            run = scene.push([node.name], "--ref", name, inventory=inventory)
            assert answered() == 1
        assert run.statuses == {node.name: "changed"}, run.out
        assert scene.there(registry, name) == image.target.digest
        lines = [line for file in _record(scene.fab) for line in file.read_text().splitlines()]
        assert ["--user pusher" in line for line in lines if " images push " in line] == [False, True]


class TestACertificateThatOnlyTheNodeTrusts:
    @pytest.mark.parametrize("forwards", [True, False])
    @pytest.mark.parametrize("ca_file", [True, False])
    def test_gets_no_password(
        self, scene: RegistryScene, plain: BuiltImage, node3: Node, tmp_path: Path, *, forwards: bool, ca_file: bool
    ) -> None:
        registries, source = scene.registries, scene.stage.name()
        scene.stage.seed(plain, source, nodes=[node3])
        known = [len(logins(registry)) for registry in (registries.basic, registries.token)]
        other = str(Authority(tmp_path / "other.pem").file) if ca_file else None
        host: dict[str, Any] = {"ansible_host": node3.address}
        with contextlib.ExitStack() as stack:
            stack.enter_context(_believing(node3, registries.folder / "ca.pem"))
            if not forwards:
                key = stack.enter_context(key_without_forwarding(node3, tmp_path / "key"))
                host["ansible_ssh_private_key_file"] = str(key)
            for registry, status in ((registries.tls, "changed"), (registries.basic, TLS), (registries.token, TLS)):
                goal, described = scene.name(registry), {registry.name: registry.settings(ca_file=other)}
                inventory = scene.inventory(hosts={"n": host}, ctr_registries=described)
                run = scene.push(["n"], "--ref", source, "--as", goal, inventory=inventory)
                assert run.statuses == {"n": status}, run.out
                assert scene.there(registry, goal) == (plain.target.digest if status == "changed" else None)
            assert "the host's own CAs do not count" in run.error["said"]
        assert [len(logins(registry)) for registry in (registries.basic, registries.token)] == known
        assert leftovers(node3) == []

    def test_is_refused_by_ctr_too_where_a_password_is_sent(
        self, scene: RegistryScene, plain: BuiltImage, node: Node, tmp_path: Path
    ) -> None:
        registries, described = scene.registries, oci.Registry(scene.registries.tls.name)
        name, version = scene.name(registries.tls), Version.parse(node.version)
        assert version
        registries.tls.server.put(plain, in_repository(registries.tls, name))
        ctr = Ctr(tuple(node.model.ctr), node.socket, Capabilities.of_version(version))
        other = Authority(tmp_path / "other.pem").file.read_bytes()
        detail = {}
        with _believing(node, registries.folder / "ca.pem"):
            for alone in (False, True):
                route = push_pull.Route(described, authorities=other, exclusive=alone, owner="ctr-ferry.test")
                line = push_pull.pull(ctr, scene.stage.namespace(), route, name)
                detail[alone] = node.exec(["sh", "-c", f"{line}\nwait; {route.cleanup}"], check=False).stderr.decode()
        assert ["x509" in detail[alone] for alone in (False, True)] == [False, True], detail


@contextlib.contextmanager
def _believing(node: Node, certificate: Path) -> Iterator[None]:
    """Let a node believe one more authority for the block, in its bundle and, where we have openssl, in its folder."""
    bundle, names = "/etc/ssl/certs/ca-certificates.crt", ["/tmp/bundle.crt"]
    node.exec(["sh", "-c", f"cat {bundle} - >{names[0]}"], stdin=certificate.read_bytes())
    if shutil.which("openssl"):
        hashed = subprocess.check_output(["openssl", "x509", "-noout", "-hash", "-in", str(certificate)], text=True)
        names.append(f"/etc/ssl/certs/{hashed.strip()}.0")
        node.exec(["sh", "-c", f"cat >{names[1]}"], stdin=certificate.read_bytes())
    node.exec(["mount", "--bind", names[0], bundle])
    try:
        yield
    finally:
        node.exec(["umount", bundle])
        node.exec(["rm", *names])


class TestThePassword:
    def test_is_in_no_command_line_environment_file_record_or_output(
        self, scene: RegistryScene, tmp_path: Path
    ) -> None:
        registries, fab = scene.registries, scene.fab
        registry, nodes = registries.slow, [node for node in scene.nodes.values() if node.number in (1, 3, 5)]
        source, goal = scene.stage.name(), scene.name(registry)
        scene.stage.seed(build(tmp_path, layers=(1000,), seed=secrets.randbits(32)), source, nodes=nodes)
        words = ("-H", ",".join(node.name for node in nodes), "push", "--ref", source, "--as", goal)
        needles = _needles(scene, registry)
        sent = registries.seen("slow")["sent"]
        with registries.throttled(100_000):  # so slowly, until we have searched
            running = fab.start(*words, inventory=scene.inventory(), **registries.environment)
            assert eventually(lambda: registries.seen("slow")["sent"] > sent + 200_000), running.communicate()
            found = [where for node in nodes for where in _searched(node, needles)]
            pushing = [node.name for node in nodes if any(" images push " in argv for argv in processes(node).values())]
        out, err = running.communicate(timeout=60)
        assert running.returncode == 0, err
        assert pushing, "nothing pushed while we searched: this test shows nothing"
        assert found == []
        shown = [out, err, *(file.read_text() for file in _record(fab))]
        assert not [text for text in shown for needle in needles if needle in text]
        assert sum(goal in text for text in shown) > 2, "there is no record: this test shows nothing"
        assert not [text for text in shown if "\x1b" in text], "ctr's colours and cursor are in it"

    def test_is_not_shown_where_the_host_asks_the_registry_with_curl(
        self, scene: RegistryScene, plain: BuiltImage, node3: Node, tmp_path: Path
    ) -> None:
        if node3.exec(["sh", "-c", "command -v curl"], check=False).returncode:
            pytest.skip("this machine, and so the node, has no curl")
        registry, source = scene.registries.basic, scene.stage.name()
        goal, environment = scene.name(registry), scene.registries.environment
        scene.stage.seed(plain, source, nodes=[node3])
        with key_without_forwarding(node3, tmp_path / "key") as key:
            host = {"n": {"ansible_host": node3.address, "ansible_ssh_private_key_file": str(key)}}
            words = ("-H", "n", "push", "--ref", source, "--as", goal)
            for _ in range(3):  # looking through all may take longer than a question may
                with registry.server.frozen():
                    running = scene.fab.start(*words, inventory=scene.inventory(hosts=host), **environment)
                    asking = lambda: any(argv.startswith("curl ") for argv in processes(node3).values())  # noqa: E731
                    assert eventually(asking), running.communicate()
                    found = _searched(node3, _needles(scene, registry))
                    still = asking()
                _, err = running.communicate(timeout=60)
                if still:
                    break
        assert (running.returncode, found, still) == (0, [], True), err
        assert scene.there(registry, goal) == plain.target.digest


def _needles(scene: RegistryScene, registry: Registry) -> tuple[str, str]:
    """Return what nobody may find of a login: what is in every password, and what HTTP makes of this one."""
    basic = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
    return scene.registries.secret, basic


def _searched(node: Node, needles: Iterable[str]) -> list[str]:
    """Return where on a node one of some words is: in what processes show of themselves, and in files."""
    found = []
    for pid in processes(node):
        for name in ("cmdline", "environ"):
            try:
                text = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:  # it has ended
                continue
            found += [f"{name} of {pid}" for needle in needles if needle.encode() in text]
    patterns = [word for needle in needles for word in ("-e", needle)]
    places = ("/tmp", "/var/tmp", "/run", "/root", "/home", "/dev/shm", "/etc")
    done = node.exec(["grep", "-rlFIs", "-D", "skip", *patterns, *places], check=False)
    return found + done.stdout.decode().split()


def _record(fab: Fab) -> list[Path]:
    """Return the files of the newest record."""
    newest = max((fab.home / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    return [path for path in newest.rglob("*") if path.is_file()]
