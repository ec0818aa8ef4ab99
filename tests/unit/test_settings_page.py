"""docs/settings.md has every setting, with its default and its variable, and every status."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import yaml

from ctr_ferry.report.outcome import Status
from ctr_ferry.run.command import CommonOptions
from ctr_ferry.run.settings import FleetConfig
from ctr_ferry.ssh.target import Limits

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/settings.md").read_text()
ROWS = re.findall(r"^\| `((?:fleet|timeouts)\.\w+)` \| `(\w+)`[^|]*\| `?([^|`]+)`? \|", PAGE, re.MULTILINE)


def settings() -> dict[str, Any]:
    """Every setting with its default."""
    fleet = {f"fleet.{each.name}": each.default for each in msgspec.structs.fields(FleetConfig)}
    limits = {f"timeouts.{each.name}": each.default for each in fields(Limits) if each.name != "retries"}
    return fleet | {"fleet.inventory": "hosts.yaml"} | limits


def test_the_page_has_every_setting_with_its_default() -> None:
    assert {name: default.strip() for name, _, default in ROWS} == {k: str(v) for k, v in settings().items()}


def test_fabric_yaml_has_the_same_defaults() -> None:
    file = yaml.safe_load((ROOT / "fabric.yaml").read_text())
    given = {f"{part}.{name}": value for part in ("fleet", "timeouts") for name, value in file[part].items()}
    assert given == settings()


def test_a_setting_is_named_in_the_environment_as_fabric_names_it() -> None:
    assert [variable for _, variable, _ in ROWS] == [f"FABRIC_{n.replace('.', '_').upper()}" for n, _, _ in ROWS]


def test_the_page_has_every_status() -> None:
    section = PAGE.partition("\n## Status of a host\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)) == set(Status)


def test_the_page_has_the_options_of_every_command() -> None:
    section = PAGE.partition("\n## Options of every command\n")[2].partition("\n## ")[0]
    common = {f"--{each.name.replace('_', '-')}" for each in fields(CommonOptions)}
    assert set(re.findall(r"^\| `(--[\w-]+)", section, re.MULTILINE)) == common
