"""A plan is a file that others may have written. What `deliver` refuses on its command line, a plan may not have."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_ferry import errors
from tasks import apply

DIGEST = f"sha256:{'a' * 64}"
PLAN: dict[str, Any] = {
    "version": 2,
    "request": {
        "images": [{"source": "r.example/app:1", "reference": "r.example/new:1"}],
        "sources": ["any"],
        "archive": None,
        "via": "auto",
        "namespace": None,
        "platform": None,
        "digest": None,
        "force": False,
        "words": ["--src", "r.example/app:1", "--dst", "r.example/new:1"],
    },
    "hosts": {"a": {"ctr": "1.7.24", "containerd": "1.7.24", "namespace": "k8s.io", "images": []}},
    "names": [],
    "pushes": [],
}


def parsed(tmp_path: Path, text: str) -> apply.Request:
    file = tmp_path / "plan.json"
    file.write_text(text)
    return apply.parse(plan=str(file))


def test_a_plan_says_what_was_asked_for_and_for_which_hosts(tmp_path: Path) -> None:
    request = parsed(tmp_path, json.dumps(PLAN))
    assert apply.hosts(request) == ["a"]
    assert [(each.ref, str(each.dst)) for each in request.delivery.selectors] == [
        ("r.example/app:1", "r.example/new:1")
    ]


@pytest.mark.parametrize(
    "edit",
    [
        lambda plan: plan["request"].update(namespace="../../x"),
        lambda plan: plan["request"].update(namespace="--all"),
        lambda plan: plan["request"].update(digest="sha256:1"),
        lambda plan: plan["request"].update(platform="linux;amd64"),
        lambda plan: plan["request"].update(via="pigeon"),
        lambda plan: plan["request"].update(images=[]),
        lambda plan: plan["request"].update(sources=[]),
        lambda plan: plan["request"].update(archive="a\0b"),
        lambda plan: plan["request"].update(archive=""),
        lambda plan: plan["request"]["images"][0].update(source=""),
        lambda plan: plan["request"]["images"][0].update(source="a b"),
        lambda plan: plan["hosts"]["a"].update(images=5),
        lambda plan: plan.update(hosts=[]),
        lambda plan: plan.update(hosts={}),
        lambda plan: plan.update(remove=["r.example/app:1"]),
        lambda plan: plan.update(version=2, steps=[]),
        lambda plan: plan.pop("names"),
    ],
)
def test_a_wrong_plan_is_refused(edit: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    plan = copy.deepcopy(PLAN)
    edit(plan)
    with pytest.raises(errors.UsageError):
        parsed(tmp_path, json.dumps(plan))


def test_a_plan_of_another_version_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="is a plan of version 1, and"):
        parsed(tmp_path, json.dumps({"version": 1, "steps": []}))


@pytest.mark.parametrize("text", ["", "[]", "NaN", '{"version": 2, "x": ' + "[" * 200_000, '"\ud800"'])
def test_a_file_that_is_no_plan_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(errors.UsageError, match="no plan of deliver"):
        apply.parse(plan=str(tmp_path / "plan.json"))
