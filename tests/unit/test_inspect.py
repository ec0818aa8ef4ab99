"""Inspecting a host probes it by the inventory's variables, and makes it run as root where the probe needed sudo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ctr_ferry.ctr import probe
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.errors import CtrNotFound
from ctr_ferry.images import inspect
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.host import Host
from ctr_ferry.ssh.target import Target

SETTINGS = Settings(address="/run/own.sock", namespace="apps")


@dataclass
class FakeHost:
    """A host that answers every step with nothing."""

    target: Target = field(default_factory=lambda: Target("n", "n", variables={Settings: SETTINGS}))
    asked: dict[str, Any] = field(default_factory=dict)
    is_root: bool = False

    def ask(self, script: Script, **options: object) -> dict[str, Answer]:
        self.asked = {"script": script, **options}
        return {name: Answer(0, b"", "") for name in script.steps}

    def become_root(self) -> None:
        self.is_root = True


Found = Callable[[object], FakeHost]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Found:
    """Makes a host on which the probe finds this, or raises it."""

    def make(result: object) -> FakeHost:
        def read(*_: object) -> object:
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(probe, "read", read)
        return FakeHost()

    return make


@pytest.mark.parametrize("sudo", [True, False])
def test_a_host_whose_probe_needed_sudo_runs_as_root_from_then_on(found: Found, sudo: bool) -> None:
    host = found(SimpleNamespace(sudo=sudo, chosen=""))
    inspect.facts(cast(Host, host), ["k8s.io"])
    assert host.is_root is sudo


def test_the_probe_goes_by_the_inventorys_variables(found: Found) -> None:
    host = found(SimpleNamespace(sudo=False, chosen=""))
    inspect.survey(cast(Host, host), ["k8s.io"], {"more": "echo more"})
    assert "/run/own.sock" in host.asked["script"].prologue and "more" in host.asked["script"].steps
    assert "[ -w /run/own.sock ]" in host.asked["rights_check"]


def test_a_host_without_ctr_raises_in_facts_and_still_answers_in_survey(found: Found) -> None:
    host = found(CtrNotFound("no ctr found"))
    with pytest.raises(CtrNotFound):
        inspect.facts(cast(Host, host), [])
    error, answers = inspect.survey(cast(Host, host), [], {"more": "echo more"})
    assert isinstance(error, CtrNotFound) and answers["more"].ok


@pytest.mark.parametrize(("given", "used"), [("mine", "mine"), (None, "apps")])
def test_the_namespace_of_an_option_comes_before_the_inventorys(given: str | None, used: str) -> None:
    assert inspect.namespace(cast(Host, FakeHost()), given) == used
