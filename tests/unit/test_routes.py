"""The way of an image to each host is decided by what was found, before anything changes: one line for each case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from ctr_ferry.delivery import steps
from ctr_ferry.delivery.request import Via
from ctr_ferry.delivery.routes import Choice, Decision, Holder, Question, Route, Target, View, decide
from ctr_ferry.errors import ContentMissing, FerryError, ReferenceExists, RegistryUnreachable

NAME, DIGEST, OTHER = "r.example/app:1", f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
CASES = json.loads((Path(__file__).parents[1] / "data/routes.json").read_text())
MOVED = {"targets": {"a": "lacks"}, "holders": {"src": "other"}}
VIEWS = {
    "has": View(DIGEST),
    "lacks": View(),
    "other": View(OTHER),
    "dead": View(error=RegistryUnreachable("the registry refuses the connection")),
}


def target(host: str, state: str) -> Target:
    """A target in words: `there`, `named`, or how it sees the registry; `incomplete` if the sources do not suffice."""
    words = set(state.split())
    return Target(
        host=host,
        route=next((route for route in (Route.THERE, Route.NAMED) if route in words), None),
        view=next((view for word, view in VIEWS.items() if word in words), None),
        pushes="pushless" not in words,
        error=ContentMissing("the source lacks blobs") if "incomplete" in words else None,
    )


def question(case: Mapping[str, Any]) -> Question:
    return Question(
        reference=NAME,
        digest=DIGEST,
        targets=tuple(target(host, state) for host, state in case["targets"].items()),
        holders=tuple(Holder(host, VIEWS[view]) for host, view in case.get("holders", {}).items()),
        publishes=case.get("publishes", False),
        unpushable=case.get("unpushable", ""),
        giver="src",
        via=Via(case.get("via", "auto")),
        force=case.get("force", False),
        refusal=ReferenceExists("taken at the source") if case.get("taken") else None,
    )


def told(decision: Decision) -> dict[str, str]:
    """The way to each host, or the kind of its error."""
    return {host: way.kind if isinstance(way, FerryError) else str(way.route) for host, way in decision.choices.items()}


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_each_host_gets_the_cheapest_way_that_leads_there(case: Mapping[str, Any]) -> None:
    decision = decide(question(case))
    assert told(decision) == case["ways"]
    assert (decision.pusher, decision.relay) == (case.get("pusher"), case.get("relay", False))


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_every_way_says_why(case: Mapping[str, Any]) -> None:
    for way in decide(question(case)).choices.values():
        assert way.why if isinstance(way, Choice) else way.message


@pytest.mark.parametrize("targets", [{}, {"a": "dead incomplete"}], ids=str)
def test_nobody_pushes_what_no_host_gets(targets: dict[str, str]) -> None:
    decision = decide(question({"publishes": True, "targets": targets, "holders": {"src": "lacks"}}))
    assert steps.pushes_to_make({cast(Any, "the image"): decision}) == []


def test_the_reason_names_who_pushes_and_who_gives() -> None:
    case = {"targets": {"a": "lacks", "b": "dead"}, "holders": {"src": "lacks"}}
    ways = decide(question(case)).choices
    assert ways == {
        "a": Choice(Route.REGISTRY, "src pushes it to the registry first"),
        "b": Choice(Route.SSH, "from src: the registry refuses the connection"),
    }


def test_an_image_that_keeps_its_name_leaves_a_tag_that_moved_and_says_so() -> None:
    decision = decide(question(MOVED))
    assert (told(decision), decision.pusher) == ({"a": "ssh"}, None)
    (way,) = decision.choices.values()
    assert isinstance(way, Choice) and "another digest under that name, as src sees it" in way.why


def test_a_conflict_in_the_registry_names_both_digests_and_who_sees_it() -> None:
    (error,) = decide(question({**MOVED, "publishes": True})).choices.values()
    assert isinstance(error, ReferenceExists)
    assert OTHER in error.detail and DIGEST in error.detail and "src" in error.detail
    assert error.hint.index("--via ssh") < error.hint.index("--force")  # the command to paste has the first one
