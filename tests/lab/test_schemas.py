"""What every command prints with `--json`, checked against its schema: successes, dry runs and failures.

`Fab` checks the output of every other test as well.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import validation
from delivering import DeliveryScene, Make, make_fixture, scene_fixture  # noqa: F401
from ferry import Run
from schemas import RESULTS

from lab.fleet import Node

ABSENT = "no.example/such/app:1"


class Checked:
    """The lines of one test, each checked by the files that are published as well."""

    def __init__(self, scene: DeliveryScene) -> None:
        self.scene, self.inventory = scene, scene.inventory()

    def __call__(self, hosts: str, *words: str, **env: str) -> Run:
        run = self.scene.run([hosts], *words, "--json", inventory=self.inventory, **env)
        validation.published().validate(json.loads(run.out))
        return run


def test_every_command_prints_what_its_schema_says(
    scene: DeliveryScene, make: Make, node3: Node, tmp_path: Path
) -> None:
    validation.validated.clear()
    fab, stage = Checked(scene), scene.stage
    src, new, pushed = stage.name(), stage.name("new"), scene.name(scene.registries.http, "pushed")
    stage.seed(make(), src, nodes=[node3])
    archive, plan = str(tmp_path / "app.tar"), str(tmp_path / "plan")
    lines: list[tuple[str, ...]] = [
        ("node3", "retag", "--src", src, "--dst", new, "--dry-run"),
        ("node3", "retag", "--src", src, "--dst", new),
        ("node3", "push", "--ref", src, "--as", pushed),
        ("node2", "pull", "--ref", pushed),
        ("node2", "pull", "--ref", pushed, "--ref", ABSENT),
        ("node3", "save", "--ref", src, "--out", archive),
        ("node2", "load", "--archive", archive),
        ("node1,node4", "copy", "--from", "node3", "--ref", src),
        ("node5", "deliver", "--ref", src, "--from", "node3", "--plan", plan),
        ("node5", "apply", "--plan", plan, "--dry-run"),
        ("node5", "apply", "--plan", plan),
        ("node3,node5", "check", "--ref", src, "check", "--ref", src, "--ref", new),
        ("node3,node2", "find", "--match", src, "find", "--ref", src, "--ref", ABSENT),
        ("node3,node5", "images", "--ref", src, "--ref", ABSENT),
        ("node3,node4", "needs"),
        ("node3,node2", "doctor"),
        ("node3", "registry"),
        ("node3", "run", "exit 3"),
        ("node3", "remove", "--ref", new, "--ref", ABSENT, "--yes"),
        ("node3", "hosts", "runs", "show", "completion", "fish"),
    ]
    for line in lines:
        fab(*line)
    others = ("hosts", "runs", "show", "completion", "run", "apply", "doctor", "registry")
    failing = [name for name in RESULTS if name not in others]
    options = {"retag": ("--src", ABSENT, "--dst", new), "load": ("--archive", archive), "find": ("--match", ABSENT)}
    options |= {
        "save": ("--ref", ABSENT, "--out", str(tmp_path / "x.tar")),
        "copy": ("--ref", ABSENT, "--from", "node3"),
    }
    options |= {"needs": (), "remove": ("--ref", ABSENT, "--yes")}
    for name in failing:  # a name that no host has, and a host that nobody reaches
        fab("node3,127.255.255.254:1", name, *options.get(name, ("--ref", ABSENT)), FABRIC_TIMEOUTS_CONNECT="1")
    assert validation.validated == set(RESULTS)


@pytest.mark.parametrize("words", ["images --ref A:b", "check", "show --run nosuch", "apply --plan nosuch"])
def test_a_line_that_starts_nothing_prints_such_a_document(scene: DeliveryScene, words: str) -> None:
    run = Checked(scene)("node3", *words.split())
    assert (run.exit, run.document["commands"], run.document["run"]) == (2, [], None)
    assert run.document["error"]["kind"]
