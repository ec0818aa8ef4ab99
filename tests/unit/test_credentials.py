"""The login for a registry: the environment, Docker's config and its helpers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ctr_ferry.errors import UsageError
from ctr_ferry.oci.registry import Registry
from ctr_ferry.registry import credentials
from ctr_ferry.registry.credentials import login

NAME = "r.example:5000"


class Home:
    """A user's home, with programs of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def config(self, document: Any) -> None:
        (self.folder / ".docker").mkdir()
        text = document if isinstance(document, str) else json.dumps(document)
        (self.folder / ".docker/config.json").write_text(text)

    def helper(self, name: str, text: str) -> None:
        program = self.folder / "bin" / f"docker-credential-{name}"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    credentials._found.cache_clear()
    yield Home(tmp_path)
    credentials._found.cache_clear()


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def found(registry: Registry) -> tuple[str, str] | None:
    who = login(registry)
    return (who.username, who.password.reveal()) if who else None


def test_the_inventorys_environment_variable_comes_first(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.config({"auths": {NAME: auth("docker:other")}})
    monkeypatch.setenv("R_PASSWORD", "s3cret")
    who = login(Registry(NAME, username="ann", password_env="R_PASSWORD"))
    assert who and (who.username, who.password.reveal()) == ("ann", "s3cret")
    assert "s3cret" not in repr(who)


@pytest.mark.parametrize(
    ("registry", "words"),
    [
        (Registry(NAME, username="ann", password_env="R_PASSWORD"), "has no R_PASSWORD"),
        (Registry(NAME, password_env="R_PASSWORD"), "no username"),
        (Registry(NAME, username="ann"), "there is no password"),
    ],
)
def test_a_login_that_the_inventory_names_must_be_there(home: Home, registry: Registry, words: str) -> None:  # noqa: ARG001
    with pytest.raises(UsageError, match=words) as caught:
        login(registry)
    assert caught.value.hint


@pytest.mark.parametrize("key", [NAME, f"https://{NAME}", f"https://{NAME}/v1/"])
def test_dockers_config_is_read_as_docker_writes_it(home: Home, key: str) -> None:
    home.config({"auths": {"other": auth("x:y"), key: auth("ann:pa:ss")}})
    assert found(Registry(NAME)) == ("ann", "pa:ss")


def test_docker_hub_has_a_key_of_its_own(home: Home) -> None:
    home.config({"auths": {"https://index.docker.io/v1/": auth("ann:p")}})
    assert found(Registry("docker.io")) == ("ann", "p")


def test_without_any_login_there_is_none(home: Home) -> None:
    assert found(Registry(NAME)) is None
    home.config({"auths": {NAME: {}}})
    credentials._found.cache_clear()
    assert found(Registry(NAME)) is None


def test_a_helper_is_asked_for_its_registry(home: Home) -> None:
    home.config({"credHelpers": {NAME: "mine"}, "credsStore": "other"})
    home.helper("mine", f'read -r key; [ "$1 $key" = "get {NAME}" ] && echo \'{{"Username": "ann", "Secret": "p"}}\'')
    assert found(Registry(NAME)) == ("ann", "p")


def test_a_store_is_asked_for_all_others(home: Home) -> None:
    home.config({"credsStore": "all"})
    home.helper("all", 'read -r key; case $key in https://*) echo \'{"Username": "ann", "Secret": "p"}\';;'
                ' *) echo "credentials not found in native keychain"; exit 1;; esac')  # fmt: skip
    assert found(Registry(NAME)) == ("ann", "p")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is not there"),
        ("echo broken >&2; exit 3", "which fails"),
        ("echo no json", "no login"),
        ("echo '[]'", "no login"),
        ('echo \'{"Username": "<token>", "Secret": "t"}\'', "identity token"),
        ("exec sleep 300", "does not answer"),
    ],
)
def test_a_helper_that_gives_no_login_is_named(
    home: Home, monkeypatch: pytest.MonkeyPatch, text: str | None, words: str
) -> None:
    monkeypatch.setattr(credentials, "_PATIENCE", 0.2 if words == "does not answer" else None)
    home.config({"credsStore": "mine"})
    if text:
        home.helper("mine", text)
    with pytest.raises(UsageError, match=words) as caught:
        login(Registry(NAME))
    assert "docker-credential-mine" in caught.value.message


@pytest.mark.parametrize("well", [True, False])
def test_a_helper_is_run_once_however_many_hosts_ask(home: Home, *, well: bool) -> None:
    home.config({"credHelpers": {NAME: "mine"}})
    answer = """echo '{"Username": "ann", "Secret": "p"}'""" if well else "exit 3"
    home.helper("mine", f"echo run >>{home.folder}/runs; sleep 0.1; {answer}")

    def ask(_: int) -> object:
        try:
            return found(Registry(NAME))
        except UsageError as error:
            return error.message

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, range(8)))
    assert len(answers) == 1
    assert (home.folder / "runs").read_text() == "run\n"


def test_check_reads_only_logins_that_the_inventory_names(home: Home) -> None:
    home.config("{")  # Docker's config is broken, and is not read yet
    credentials.check([Registry(NAME)])
    for named in (Registry(NAME, username="ann", password_env="R_PASSWORD"), Registry(NAME, password_env="R_PASSWORD")):
        with pytest.raises(UsageError):
            credentials.check([named])


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("[" * 100_000, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ({"auths": []}, "cannot be read"),
        ({"auths": {NAME: {"auth": "%%%"}}}, "no base64"),
        ({"auths": {NAME: auth("nocolon")}}, "no base64"),
        ({"auths": {NAME: {"identitytoken": "t"}}}, "identity token"),
    ],
)
def test_a_broken_config_is_named(home: Home, document: Any, words: str) -> None:
    home.config(document)
    with pytest.raises(UsageError, match=words) as caught:
        login(Registry(NAME))
    assert "config.json" in caught.value.message


@pytest.mark.parametrize("password", ["s3\x03cret", "cret" * 1024])
def test_a_password_that_cannot_be_typed_is_refused_and_not_shown(
    home: Home,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    password: str,
) -> None:
    monkeypatch.setenv("R_PASSWORD", password)
    with pytest.raises(UsageError, match="cannot be typed") as caught:
        login(Registry(NAME, username="ann", password_env="R_PASSWORD"))
    assert "cret" not in str(caught.value.to_json())
