"""`fab push` reaches a registry on the way that each node has, and says why a node cannot use a registry."""

from __future__ import annotations

from typing import Any

import pytest
from ferry import Stage, leftovers
from pushing import (
    images_fixture,  # noqa: F401
    plain_fixture,  # noqa: F401
)
from registry_scene import RegistryScene

from lab.fleet import Node
from lab.images import BuiltImage
from lab.registries import DEMO_NODES, Registry

USERS = ("ops", "ops2")
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
