"""A host becomes root only where it must, and has the variables of its target."""

from __future__ import annotations

from typing import Any, cast

import fabric
import pytest

from ctr_ferry.oci.registry import Registries, Registry
from ctr_ferry.secrets import Secret
from ctr_ferry.ssh import guard
from ctr_ferry.ssh.exchange import Sudo
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.target import Target

CHECK = "[ -w /x.sock ]"


class FakeExchange:
    """Takes down the command line."""

    line = password = ""

    def start(self, line: str) -> None:
        self.line = line

    def answer_sudo(self, _prompt: str, _ready: str, password: str) -> Sudo:
        self.password = password
        return Sudo.ACCEPTED


def host(user: str, **more: Any) -> Host:
    return Host(Target("n", "n", user=user, **more), fabric.Config(overrides={"load_ssh_configs": False}))


def started(host: Host, rights_check: str | None = None) -> FakeExchange:
    exchange = FakeExchange()
    host._start(cast(Any, exchange), "boot", "marker", rights_check)
    return exchange


AS_LOGIN_USER, THROUGH_SUDO = guard.as_login_user("boot"), guard.through_sudo("boot")


def test_a_script_runs_as_the_login_user_unless_its_rights_are_to_be_checked() -> None:
    assert started(host("ops")).line == AS_LOGIN_USER
    assert started(host("ops"), CHECK).line == guard.as_root_if_needed("boot", CHECK)


@pytest.mark.parametrize("more", [{}, {"become": True}, {"become_password": Secret("s3cret")}])
def test_root_never_needs_sudo(more: dict[str, Any]) -> None:
    root = host("root", **more)
    assert started(root, CHECK).line == AS_LOGIN_USER
    root.become_root()
    assert started(root).line == AS_LOGIN_USER


def test_a_host_that_became_root_uses_sudo_without_a_check() -> None:
    ops = host("ops")
    ops.become_root()
    assert started(ops, CHECK).line == started(ops).line == THROUGH_SUDO
    assert started(host("ops", become=True)).line == THROUGH_SUDO


def test_sudos_password_is_given_to_sudo_alone() -> None:
    ops = host("ops", become_password=Secret("s3cret"))
    exchange = started(ops)
    assert ops.has_sudo_password and exchange.password == "s3cret"
    assert "s3cret" not in exchange.line


def test_variables_are_found_by_their_type_and_have_defaults() -> None:
    known = Registry("r.example", scheme="http")
    registries = Target("n", "n", variables={Registries: Registries((known,))}).variables_of(Registries)
    assert registries.named("r.example") is known
    assert registries.named("other.example") == Registry("other.example")
    assert Target("n", "n").variables_of(Registries) == Registries()
