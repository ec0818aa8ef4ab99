"""The login for a registry: the inventory's ``username`` and ``password_env``, else Docker's config and its helpers.

All of these are on the control machine. A password that the inventory names must exist before any host is touched.
Docker's config is read only once a registry wants a login.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from ctr_ferry.ctr.push_pull import MOST_TYPED, can_be_typed
from ctr_ferry.errors import UsageError
from ctr_ferry.oci.registry import Login, Registry
from ctr_ferry.secrets import Secret
from ctr_ferry.ssh.local_path import local_path

_DOCKER_HUB = "https://index.docker.io/v1/"  # docker.io's key in Docker's config
_PATIENCE = 30  # seconds for a credential helper
_NO_LOGIN = "credentials not found"  # the words of helpers (docker-credential-helpers, credentials/error.go)
_reading = Lock()  # many hosts ask at the same time, and a helper runs once


def check(registries: Iterable[Registry]) -> None:
    """Checks the logins that the inventory names; raises UsageError where one is missing, or cannot be used."""
    for registry in registries:
        if registry.username or registry.password_env:
            login(registry)


def login(registry: Registry) -> Login | None:
    """The login for a registry, looked up once; None where there is none.

    Raises UsageError where the login that was named is missing, cannot be read or cannot be used.
    """
    with _reading:
        found = _found(registry)
    if isinstance(found, UsageError):
        raise UsageError(found.message, detail=found.detail, hint=found.hint)
    return found


@cache
def _found(registry: Registry) -> Login | UsageError | None:
    try:
        return _login(registry)
    except UsageError as error:
        return error


def _login(registry: Registry) -> Login | None:
    found = _named(registry) if registry.password_env else _of_docker(registry)
    if registry.username and (found is None or found.username != registry.username):
        raise UsageError(
            f"there is no password for {registry.username} at registry {registry.name}; no host was touched",
            hint=f"docker login --username {registry.username} {registry.name}; or give password_env in ctr_registries",
        )
    if found and (":" in found.username or not can_be_typed(found.password.reveal())):
        raise UsageError(
            f"the login for registry {registry.name} cannot be typed at ctr's prompt",
            hint=f"use a user name without ':', and a password of at most {MOST_TYPED} bytes, all of them printable, "
            "then run the command again",
        )
    return found


def _named(registry: Registry) -> Login:
    password = os.environ.get(str(registry.password_env))
    if not registry.username:
        what = f"registry {registry.name} has password_env and no username"
        raise UsageError(what, hint="write username beside it in ctr_registries, then run the command again")
    if not password:
        raise UsageError(
            f"the environment has no {registry.password_env}, the password for registry {registry.name}",
            hint=f"read -rs {registry.password_env} && export {registry.password_env}",
        )
    return Login(registry.username, Secret(password))


def _of_docker(registry: Registry) -> Login | None:
    file = local_path(os.environ.get("DOCKER_CONFIG") or "~/.docker") / "config.json"
    try:
        config = _object(json.loads(file.read_text(encoding="utf-8")))
        helpers, entries = _object(config.get("credHelpers", {})), _object(config.get("auths", {}))
        keys = _keys(registry)
        entry = _object(next((entries[key] for key in keys if entries.get(key)), {}))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        hint = "mend the file, or name the folder of another one with DOCKER_CONFIG, then run the command again"
        raise UsageError(f"{file} cannot be read: {error}", hint=hint) from error
    if helper := next((helpers[key] for key in keys if key in helpers), config.get("credsStore")):
        return next((found for key in keys if (found := _ask(str(helper), key, file))), None)
    return _entry(entry, registry, file)


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is expected")
    return value


def _keys(registry: Registry) -> list[str]:
    if registry.name == "docker.io":
        return [_DOCKER_HUB, "index.docker.io", "docker.io"]
    return [registry.name, f"https://{registry.name}", f"https://{registry.name}/v1/", f"http://{registry.name}"]


def _entry(entry: Mapping[str, Any], registry: Registry, file: Path) -> Login | None:
    if entry.get("identitytoken"):
        raise UsageError(
            f"{file} has an identity token for {registry.name}, and ctr takes none",
            hint="write username and password_env into ctr_registries, then run the command again",
        )
    if entry.get("username") and entry.get("password"):
        return Login(str(entry["username"]), Secret(str(entry["password"])))
    if not entry.get("auth"):
        return None
    try:
        name, colon, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name = colon = password = ""
    if not colon:
        what = f"{file}: the auth of {registry.name} is no base64 of user:password"
        raise UsageError(what, hint=f"docker login {registry.name}")
    return Login(name, Secret(password.rstrip("\0")))


def _ask(helper: str, key: str, file: Path) -> Login | None:
    """Asks ``docker-credential-HELPER get``, which runs on the control machine."""
    program = f"docker-credential-{helper}"
    named, attempt = f"{file} names {program} for {key}", f"try: echo {key} | {program} get"
    try:
        done = subprocess.run([program, "get"], input=key.encode(), capture_output=True, timeout=_PATIENCE, check=False)
    except FileNotFoundError as error:
        hint = f"install {program}, or remove it from that file, then run the command again"
        raise UsageError(f"{named}, which is not there", hint=hint) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{named}, which does not answer", detail=type(error).__name__, hint=attempt) from error
    if done.returncode:
        detail = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        if _NO_LOGIN in detail:
            return None
        raise UsageError(f"{named}, which fails", detail=detail[:400], hint=attempt)
    try:
        answer = _object(json.loads(done.stdout))
        username, password = str(answer["Username"]), Secret(str(answer["Secret"]))
    except (ValueError, KeyError, RecursionError) as error:
        raise UsageError(f"{named}, whose answer is no login", hint=attempt) from error
    if username == "<token>":
        raise UsageError(
            f"{named}, which has an identity token, and ctr takes none",
            hint="log in there with a password, then run the command again",
        )
    return Login(username, password) if username else None
