"""A warning comes if hosts gave one name to different images, and only then."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ctr_ferry import errors
from ctr_ferry.images.item import ImageResult
from ctr_ferry.images.retag import RetagResult
from ctr_ferry.registry.results import PullResult, PushResult
from ctr_ferry.report import render
from ctr_ferry.report.agreement import disagreements
from ctr_ferry.report.outcome import Outcome, Status
from ctr_ferry.report.past_runs import Runs
from ctr_ferry.report.record import Record
from ctr_ferry.transfer.copy_result import CopiedImage, CopyResult
from tasks.show import show as show_command

REF = "r.example/app:1"
A, B, C, INDEX = (f"sha256:{c * 64}" for c in "abc1")


def retagged(host: str, digest: str, source: str = "", status: Status = Status.CHANGED, name: str = REF) -> Outcome:
    image = ImageResult("old", name, digest, source or digest, status=status)
    return Outcome.of(host, 1.0, RetagResult("k8s.io", "k8s.io", "1.6", "1.6", (image,)))


def digests_by_host(*outcomes: Outcome) -> list[dict[str, list[str]]]:
    return [each.digests for each in disagreements(outcomes)]


def test_one_image_everywhere_gives_no_warning() -> None:
    assert digests_by_host(retagged("a", A), retagged("b", A, status=Status.UNCHANGED)) == []
    assert digests_by_host(Outcome.of("a", 1.0, errors.Unreachable("no"))) == []


def test_one_name_for_different_images_gives_a_warning_with_the_hosts_of_each() -> None:
    (one,) = disagreements([retagged("a", A), retagged("b", B, status=Status.UNCHANGED), retagged("c", B)])
    assert one.message == f"2 digests under this name: {REF}"
    (disguised,) = disagreements([retagged("a", A, name="app\u202e"), retagged("b", B, name="app\u202e")])
    assert disguised.message.endswith(r": app\u202e") and disguised.reference == "app\u202e"
    assert one.lines() == [f"warning: {one.message}", f"  {B} on b, c", f"  {A} on a"]
    assert digests_by_host(retagged("a", A, status=Status.WOULD_CHANGE), retagged("b", B, status=Status.WOULD_CHANGE))
    assert list(digests_by_host(retagged("a", A), retagged("b", B), retagged("c", C))[0]) == [A, B, C]


def test_a_name_that_was_not_given_gives_no_warning() -> None:
    assert digests_by_host(retagged("a", A), retagged("b", B, status=Status.FAILED)) == []
    assert digests_by_host(retagged("a", A), retagged("b", B, name="r.example/other:1")) == []
    assert digests_by_host(retagged("a", A), retagged("b", "")) == []
    error = errors.SomeFailed("1 of 2", result=retagged("b", B).result)
    assert digests_by_host(retagged("a", A), Outcome.of("b", 1.0, error)) == [{A: ["a"], B: ["b"]}]


@pytest.mark.parametrize("order", [1, -1])
def test_an_index_and_its_platforms_manifests_count_as_one_image(order: int) -> None:
    hosts = [retagged("a", INDEX), retagged("b", A, INDEX), retagged("c", B, INDEX)]
    assert digests_by_host(*hosts[::order]) == []
    assert digests_by_host(*[retagged("a", A, INDEX), retagged("b", A, C)][::order]) == []
    assert digests_by_host(*[*hosts, retagged("d", C)][::order]) != []


def test_every_command_that_gives_names_is_compared() -> None:
    image = CopiedImage("old", REF, A, INDEX, status=Status.CHANGED)
    common: Any = {"reference": REF, "namespace": "k8s.io", "digest": A, "status": Status.CHANGED, "ctr": "1.6"}
    results: list[Any] = [
        CopyResult("a", "k8s.io", "1.6", "1.6", (image,)),
        PullResult(**common),
        PushResult(**common, source="old", source_digest=INDEX),
    ]
    for result in results:
        assert digests_by_host(Outcome.of("a", 1.0, result), retagged("b", B)) == [{A: ["a"], B: ["b"]}]


def test_the_warning_is_in_the_table_in_json_and_in_the_record(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    outcomes = [retagged("a", A), retagged("b", B)]
    warnings = disagreements(outcomes)
    done = render.Done("retag", {}, outcomes, warnings=warnings)
    render.table(done)
    assert capsys.readouterr().err.splitlines() == warnings[0].lines()
    expected = [
        {"kind": "digests-differ", "message": warnings[0].message, "reference": REF, "digests": {A: ["a"], B: ["b"]}}
    ]
    render.document([done, render.Done("retag", {}, outcomes[:1])], 0)
    assert [c["warnings"] for c in json.loads(capsys.readouterr().out)["commands"]] == [expected, []]
    record = Record(tmp_path / "20261124T031500Z-retag-1f2e", {"hosts": ["a", "b"]}, print)
    record.command("retag", {}, dry_run=True)
    record.outcomes(outcomes, [warning.to_json() for warning in warnings])
    record.end(0)
    (run,) = Runs(tmp_path).all()
    assert run.data["commands"][0]["warnings"] == expected
    control_machine = SimpleNamespace(runs=Runs(tmp_path))
    text = show_command.body(cast(Any, control_machine), show_command.parse()).text
    assert f"  warning: {warnings[0].message}\n    {A} on a\n    {B} on b" in text
    assert "a dry run: nothing was done" in text
