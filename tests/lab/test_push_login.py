"""`fab push` sends a login only to a registry that asks for it and is trusted, and shows the password nowhere."""

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
from ferry import Fab, eventually, leftovers, processes
from pushing import (
    images_fixture,  # noqa: F401
    plain_fixture,  # noqa: F401
)
from registry_scene import RegistryScene, in_repository, key_without_forwarding

from ctr_ferry.ctr import push_pull
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.oci import registry as oci
from lab.certificates import Authority
from lab.fleet import Node
from lab.images import BuiltImage, build
from lab.registries import Registry

TLS = "registry-tls"


def logins(registry: Registry) -> list[str]:
    """Return the requests that a registry which wants a login has let in."""
    return [line for line in registry.server.requests() if '" 401 ' not in line]


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

    def test_may_be_as_long_as_ctr_takes_one_where_the_host_asks_with_curl_too(
        self, scene: RegistryScene, plain: BuiltImage, node3: Node, tmp_path: Path
    ) -> None:
        registry = scene.registries.reader
        name = scene.name(registry)
        registry.server.put(plain, in_repository(registry, name))
        with key_without_forwarding(node3, tmp_path / "key") as key:
            host = {"n": {"ansible_host": node3.address, "ansible_ssh_private_key_file": str(key)}}
            inventory = scene.inventory(hosts=host, ctr_registries={registry.name: registry.settings()})
            run = scene.run(["n"], "pull", "--json", "--ref", name, inventory=inventory)
        assert run.statuses == {"n": "changed"}, run.out
        assert run.image("n")["verified"] == "digest"


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
