"""Real shells on a pseudo-terminal complete lines of fab and ctr-ferry, and run nothing that a name has in it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompts import ROOT, Prompt

INVENTORY = """
all:
  children:
    workers:
      hosts:
        node1: {}
        other2: {}
        "2001:db8::7": {}
        "$(touch x)": {}
    legacy:
      hosts:
        box9: {ctr_registries: {"r.example:5000": {scheme: http}}}
"""
NAME = "r.example:5000/library/app:v1@sha256:" + "a" * 64
EVIL = [
    "evil.example/$(touch x):1",
    "evil.example/`touch x`:1",
    "evil.example/a b:1",
    "evil.example/\n:1",
    "evil.example/'\":1",
]


@pytest.fixture(scope="module", name="place")
def place_fixture(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An inventory, and the record of a run on one host, with names that a shell would run."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "hosts.yaml").write_text(INVENTORY)
    run = folder / "runs/20261124T031500Z-images-1f2e"
    run.mkdir(parents=True)
    results = [{"reference": name} for name in [NAME, *EVIL]]
    (run / "node1.jsonl").write_text(json.dumps({"command": 0, "result": {"images": results}}) + "\n")
    return {"CTR_FERRY_INVENTORY": str(folder / "hosts.yaml"), "FABRIC_FLEET_RUNS": str(folder / "runs")}


@pytest.fixture(scope="module", name="prompt", params=["bash", "zsh", "fish"])
def prompt_fixture(
    request: pytest.FixtureRequest, place: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prompt]:
    """Each shell in the folder of the project."""
    prompt = Prompt(request.param, tmp_path_factory.mktemp("home"), place)
    yield prompt
    prompt.close()


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("fab ret\t", ["retag"]),
        ("fab -H no\t", ["-H", "node1"]),
        ("fab -H leg\t", ["-H", "legacy"]),
        ("fab -H node1,oth\t", ["-H", "node1,other2"]),
        ("fab -H root@no\t", ["-H", "root@node1"]),
        ("fab -H 2001:d\t", ["-H", "2001:db8::7"]),
        ("fab -H node1,2001:db8:\t", ["-H", "node1,2001:db8::7"]),
        ("fab --hosts=oth\t", ["--hosts=other2"]),
        ("fab -H @unr\t", ["-H", "@unreachable"]),
        ("fab -H 'all,!leg\t", ["-H", "all,!legacy"]),
        ("fab -H node1 retag --meth\tar\t", ["-H", "node1", "retag", "--method", "archive"]),
        ("fab -H node1 check --ref r.e\t", ["-H", "node1", "check", "--ref", NAME]),
        ("fab -H node1 check --ref r.example:5000/lib\t", ["-H", "node1", "check", "--ref", NAME]),
        ("fab -H node1 retag --src r.example:5000/library/app:v1@\t", ["-H", "node1", "retag", "--src", NAME]),
        ("fab -H node1 retag --src=r.example\t", ["-H", "node1", "retag", f"--src={NAME}"]),
        ("fab show --run 2026\t", ["show", "--run", "20261124T031500Z-images-1f2e"]),
        ("fab -H node1 registry --name r\t", ["-H", "node1", "registry", "--name", "r.example:5000"]),
        ("fab -H node1 load --archive pyproj\t", ["-H", "node1", "load", "--archive", "pyproject.toml"]),
        ("fab -r docs/deci\t", ["-r", "docs/decisions"]),
    ],
)
def test_tab_completes(prompt: Prompt, typed: str, words: list[str]) -> None:
    assert [word.removesuffix("/") for word in prompt.words(typed)] == words


def test_tab_offers_no_name_that_a_shell_would_run(prompt: Prompt) -> None:
    assert prompt.words("fab -H node1 check --ref evil\t") == ["-H", "node1", "check", "--ref", "evil"]
    assert not (ROOT / "x").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_ctr_ferry_completes_in_any_folder(shell: str, place: dict[str, str], tmp_path: Path) -> None:
    prompt = Prompt(shell, tmp_path, place, "ctr-ferry", Path("/"))
    assert prompt.words("ctr-ferry -H oth\tret\t--to-r\tr\t") == [
        "-H",
        "other2",
        "retag",
        "--to-registry",
        "r.example:5000",
    ]
    prompt.close()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_wrong_inventory_leaves_the_line_as_it_is(shell: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("all: [")
    prompt = Prompt(shell, tmp_path, {"CTR_FERRY_INVENTORY": str(tmp_path / "wrong.yaml")})
    assert prompt.words("fab -H no\t") == ["-H", "no"]
    prompt.close()
    assert "rror" not in prompt.seen


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_project_that_is_gone_leaves_the_line_as_it_is(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    prompt = Prompt(shell, tmp_path, {})
    assert prompt.words("fab -H no\t") == ["-H", "no"]
    prompt.close()
    assert "/no/such" not in prompt.seen
