"""A plan is never written over another file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr_ferry.delivery.plan_file import DeliveryPlan, Request, refuse_to_replace
from ctr_ferry.delivery.request import Via
from ctr_ferry.errors import UsageError
from tasks.deliver import parse

ASKED = Request(
    images=(),
    sources=("any",),
    archive=None,
    via=Via.AUTO,
    namespace=None,
    platform=None,
    digest=None,
    force=False,
    words=(),
)


def test_a_new_file_and_an_older_plan_may_become_a_plan(tmp_path: Path) -> None:
    refuse_to_replace(str(tmp_path / "new"))
    (tmp_path / "plan").write_bytes(DeliveryPlan(1, ASKED, {}, ()).to_json())
    refuse_to_replace(str(tmp_path / "plan"))


def test_another_file_a_folder_and_a_place_that_is_none_are_refused_before_any_host_is_touched(tmp_path: Path) -> None:
    (tmp_path / "site.images").write_text("r.example/app:1\n")
    for file, said in (
        (tmp_path / "site.images", "is no plan"),
        (tmp_path, "is no plan"),
        (tmp_path / "no/plan", "mkdir"),
    ):
        with pytest.raises(UsageError) as refused:
            parse(ref=["r.example/app:1"], plan=str(file))
        assert said in f"{refused.value.message} {refused.value.hint}"
    assert (tmp_path / "site.images").read_text() == "r.example/app:1\n"
