"""The settings of a run come from fabric.yaml; a wrong one is refused with its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields

import msgspec
import pytest
from fabric import Config

from ctr_ferry.errors import UsageError
from ctr_ferry.run.places import PROJECT
from ctr_ferry.run.settings import FleetConfig, limits
from ctr_ferry.ssh.target import Limits


def configured(**sections: dict[str, object]) -> Config:
    return Config(overrides={"load_ssh_configs": False, **sections})


def test_every_limit_of_time_can_be_set() -> None:
    given = {"connect": 7, "probe": 8, "command": 60, "idle": 300, "registry": "9"}
    expected = Limits(connect=7, probe=8, command=60, idle=300, registry=9)
    assert limits(configured(timeouts=dict(given))) == expected
    assert limits(configured()) == limits(configured(timeouts={"idle": None})) == Limits()
    assert limits(configured(timeouts={"connect": 7}, connect_kwargs={"timeout": 20})).connect == 20


@pytest.mark.parametrize("name", ["connect", "command", "probe", "idle", "registry"])
@pytest.mark.parametrize("value", ["abc", -5, 0, 1.5, True, [60]])
def test_a_limit_that_is_no_number_of_seconds_is_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"timeouts\.{name} .*{re.escape(repr(value))}") as refused:
        limits(configured(timeouts={name: value}))
    assert f"{name}: {getattr(Limits(), name)} " in refused.value.hint


def test_a_wrong_limit_of_the_command_line_is_not_blamed_on_fabric_yaml() -> None:
    with pytest.raises(UsageError, match=r"of -t must be .* -1$") as refused:
        limits(configured(connect_kwargs={"timeout": -1}))
    assert refused.value.hint == f"give another one: -t {Limits().connect}"


def test_a_host_at_work_may_miss_one_sign_of_life() -> None:
    assert limits(configured(timeouts={"idle": 30})).idle == 30
    with pytest.raises(UsageError, match=r"timeouts\.idle .* from 30, and is 29"):
        limits(configured(timeouts={"idle": 29}))


def test_a_limit_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no timeouts\.idel") as refused:
        limits(configured(timeouts={"idel": 60}))
    assert "idle" in refused.value.hint


def test_what_fabric_yaml_of_the_project_sets_are_the_defaults() -> None:
    document = msgspec.yaml.decode((PROJECT / "fabric.yaml").read_bytes())
    assert limits(configured(timeouts=document["timeouts"])) == Limits()
    assert {field.name for field in fields(Limits)} == {*document["timeouts"], "retries"}
    assert FleetConfig.of({"fleet": document["fleet"]}) == FleetConfig(inventory="hosts.yaml")


@pytest.mark.parametrize(
    ("variable", "read"), [("FABRIC_TIMEOUTS_IDLE", limits), ("FABRIC_FLEET_WORKERS", FleetConfig.of)]
)
def test_a_wrong_value_of_a_variable_is_blamed_on_the_variable(
    variable: str, read: Callable[[Config], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "0")
    config = configured()
    config.load_collection({"timeouts": {"idle": 60}, "fleet": {"workers": 32}})
    config.load_shell_env()
    with pytest.raises(UsageError, match=rf"^{variable} .*") as refused:
        read(config)
    assert refused.value.hint == f"unset {variable}"
    assert "fabric.yaml" not in refused.value.message
