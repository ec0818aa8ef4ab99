"""Passwords are in no log and no repr."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import fabric
import pytest
from invoke.util import debug

import tasks  # noqa: F401  (filters Invoke's log)
from ctr_ferry.secrets import Secret, redact

ROOT = Path(__file__).parents[2]

NASTY = [
    "plain",
    "it's",
    'say "x"',
    "both ' and \"",
    "back\\slash'",
    "comma, 'user': 'x",
    "{brace}",
    "ünï",
    "a\nb",
    "None",
]


@pytest.mark.parametrize("secret", NASTY)
@pytest.mark.parametrize("key", ["password", "passphrase", "FABRIC_SUDO_PASSWORD", "sudo_pass", "secret", "token"])
@pytest.mark.parametrize(
    "form", ["{{'a': 1, {key!r}: {value!r}, 'user': None}}", "<Config: {{'s': {{{key!r}: {value!r}}}}}>"]
)
def test_a_password_is_removed_from_a_printed_dictionary(secret: str, key: str, form: str) -> None:
    shown = redact(form.format(key=key, value=secret))
    assert shown == re.sub("'VALUE'", "***", form.format(key=key, value="VALUE"))


@pytest.mark.parametrize("value", [12345, b"bytes", 1.5, ("a", "b"), ["a", {"b": "c"}], {"x": "hunter2"}])
def test_a_password_that_is_no_text_is_removed(value: Any) -> None:
    shown = redact(repr({"password": value, "user": "ann"}))
    assert shown == "{'password': ***, 'user': 'ann'}"


@pytest.mark.parametrize(
    "text", ["", "{'user': 'ann'}", "{'prompt': '[sudo] password: '}", "{'password': None}", "passwords"]
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_a_long_log_line_is_filtered_in_linear_time() -> None:
    redact("'password': '" * 50_000)
    redact("'password': [" * 50_000)
    redact("\\" * 500_000 + "'pass" * 50_000)


def test_invokes_debug_log_has_no_password(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABRIC_SUDO_PASSWORD", "hunter2")
    with caplog.at_level(logging.DEBUG, "invoke"):
        overrides = {
            "sudo": {"user": "ann"},
            "connect_kwargs": {"password": "hunter4", "passphrase": "hunter5"},
        }
        config = fabric.Config(overrides={**overrides, "load_ssh_configs": False})
        config.load_shell_env()
        config.clone()
        debug("a template: %s", {"password": "hunter6"})
    assert config.sudo.password == "hunter2"
    assert "'password': ***" in caplog.text and "hunter" not in caplog.text


@pytest.mark.parametrize("way", [["-d"], []], ids=["fab -d", "INVOKE_DEBUG"])
def test_fab_prints_no_password_when_it_debugs(tmp_path: Path, way: list[str]) -> None:
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text("all: {hosts: {n: {ansible_password: hunter3, ansible_become_password: hunter4}}}")
    given = {"FABRIC_SUDO_PASSWORD": "hunter2", "CTR_FERRY_INVENTORY": str(inventory)}
    environment = {**os.environ, **given, **({} if way else {"INVOKE_DEBUG": "1"})}
    argv = [sys.executable, "-m", "fabric", *way, "hosts"]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "'password': ***" in done.stderr
    assert "hunter" not in done.stderr + done.stdout


def test_a_secret_is_shown_as_stars() -> None:
    assert f"{Secret('hunter2')} {Secret('hunter2')!r} {[Secret('hunter2')]}" == "*** *** [***]"
