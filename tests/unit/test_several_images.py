"""find, check and images take several images, from --ref and --set, and tell of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from letters import unhashed  # noqa: F401
from listed import APP, CONFIG, INDEX, A, B, C, FakeFleet, FakeHost, image

from ctr_ferry import errors
from ctr_ferry.images.check_result import PLATFORM_MANIFEST
from ctr_ferry.oci.descriptor import OCI_INDEX
from ctr_ferry.run import options
from tasks import check as check_command
from tasks import find as find_command
from tasks import images as images_command

OTHER, GONE = "old.example/other:1", "old.example/gone:1"


def check_several(fleet: FakeFleet, *refs: str) -> dict[str, Any]:
    answers: dict[str, Any] = check_command.check.body(fleet, check_command.parse(ref=list(refs)))
    return answers


def test_check_of_several_images_tells_of_each_how_it_is_on_each_host() -> None:
    both = FakeHost({"k8s.io": [image(), image(OTHER)]})
    fleet = FakeFleet(a=both, b=both, c=FakeHost({"k8s.io": [image(APP, B), image(OTHER)]}), d=FakeHost({"k8s.io": []}))
    answers = check_several(fleet, APP, OTHER)
    assert [getattr(answer, "kind", "ok") for answer in answers.values()] == ["ok", "ok", "some-failed", "some-failed"]
    assert answers["c"].message == "1 of 2 images are not as they should be"
    assert answers["c"].detail.startswith("drift: old.example/app:1 in namespace k8s.io has another digest")
    assert answers["c"].hint == f"bring them there: fab -H c deliver --ref {APP} --ref {OTHER}"
    assert "fab -H d deliver" in answers["d"].hint
    told = {
        name: [(i.asked, i.status, i.verdict) for i in getattr(a, "result", a).images] for name, a in answers.items()
    }
    assert told["a"] == [(APP, "ok", "same"), (OTHER, "ok", "same")]
    assert told["c"] == [(APP, "failed", "other"), (OTHER, "ok", "same")]
    assert told["d"] == [(APP, "failed", ""), (OTHER, "failed", "")]
    assert [image.error["kind"] for image in answers["d"].result.images] == ["image-not-found"] * 2
    table = check_command.tabulate(answers)
    assert [(row[0], row[1], row[3], row[-1]) for row in table.rows] == [
        (APP, A, "complete (4/4)", "a, b"),
        (OTHER, A, "complete (4/4)", "a, b, c"),
        (APP, "-", "absent", "d"),
        (APP, B, "complete (4/4)", "c"),
        (OTHER, "-", "absent", "d"),
    ]
    assert table.notes == ("0 of 2 images are the same, complete and unpacked on 4 hosts",)
    assert [host.failed for host in fleet.hosts.values()] == [False, False, True, True]  # type: ignore[union-attr]


def test_hosts_with_the_same_error_get_one_command_for_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "set").write_text(f"{APP}\n{GONE}\n")
    request = check_command.parse(set_=[str(tmp_path / "set")], namespace="apps")
    held = {"apps": [image()]}
    answers = check_command.check.body(FakeFleet(a=FakeHost(held), b=FakeHost(held), c=FakeHost({"apps": []})), request)
    command = f"deliver --set {tmp_path}/set --namespace apps"
    assert [answer.hint for answer in answers.values()] == [
        f"bring them there: fab -H {hosts} {command}" for hosts in ("a,b", "a,b", "c")
    ]
    assert options.naming([APP], ["-"]) == ["--ref", APP, "--set", "FILE"]


def test_a_set_of_one_image_has_a_list_as_well(tmp_path: Path) -> None:
    (tmp_path / "set").write_text(APP)
    request = check_command.parse(set_=[str(tmp_path / "set")])
    answers = check_command.check.body(FakeFleet(a=FakeHost({"k8s.io": [image()]})), request)
    assert [image.asked for image in answers["a"].images] == [APP]
    with pytest.raises(errors.UsageError, match="--digest is for one --ref"):
        check_command.parse(set_=[str(tmp_path / "set")], digest=A)


def test_check_of_many_images_takes_one_remote_command_and_reads_no_manifest() -> None:
    held = [image(f"old.example/app:{n}") for n in range(300)]
    host = FakeHost({"k8s.io": held})
    answers = check_several(FakeFleet(a=host, b=host), *(each.name for each in held))
    assert [len(answer.images) for answer in answers.values()] == [300, 300]
    assert [set(script.steps) for script in host.scripts] == [{"visible", "check"}] * 2  # one for each host


def test_check_of_several_images_names_the_blobs_that_are_missing() -> None:
    manifest = json.dumps({"config": {"digest": CONFIG, "size": 2}, "layers": [{"digest": C, "size": 3}]}).encode()
    held = {"k8s.io": [image(), image(OTHER)]}
    host = FakeHost(held, blobs={A: manifest, CONFIG: b"{}"}, status="incomplete (1/3)", unpacked=False)
    answers = check_several(FakeFleet(a=host), APP, OTHER)
    assert [(i.missing, i.error["kind"]) for i in answers["a"].result.images] == [((C,), "content-missing")] * 2
    assert len(host.scripts) == 2


def test_check_of_several_images_knows_the_platforms_manifest_of_an_old_ctr() -> None:
    whole = FakeHost({"k8s.io": [image(APP, A, OCI_INDEX), image(OTHER)]}, blobs={A: INDEX})
    part = FakeHost({"k8s.io": [image(APP, B), image(OTHER)]}, version="1.2.6")
    answers = check_several(FakeFleet(a=part, b=part, c=whole), APP, OTHER)
    assert [answer.images[0].verdict for answer in answers.values()] == [PLATFORM_MANIFEST] * 2 + ["same"]
    assert (len(part.scripts), len(whole.scripts)) == (3, 2)  # one more reads the index, the other what is no index


def test_find_of_several_images_tells_of_each_where_it_is() -> None:
    here, there = FakeHost({"k8s.io": [image()], "default": [image(OTHER)]}), FakeHost({"k8s.io": [image()]})
    request = find_command.parse(ref=[APP, "*/other:*", A])
    answers = find_command.find.body(FakeFleet(a=here, b=there), request)
    assert [(found.asked, [(p.reference, p.namespace) for p in found.places]) for found in answers["a"].images] == [
        (APP, [(APP, "k8s.io")]),
        ("*/other:*", [(OTHER, "default")]),
        (A, [(APP, "k8s.io"), (OTHER, "default")]),
    ]
    assert [(row[0], row[2], row[4]) for row in find_command.tabulate(answers).rows] == [
        (APP, "k8s.io", "a, b"),
        (OTHER, "default", "a"),
    ]


def test_find_of_several_images_fails_for_those_that_no_host_has() -> None:
    with pytest.raises(errors.NothingFound, match="1 of 2 images are on no host") as nothing:
        find_command.find.body(
            FakeFleet(a=FakeHost({"k8s.io": [image()]}), b=FakeHost({"k8s.io": []})),
            find_command.parse(ref=[APP, GONE]),
        )
    assert nothing.value.detail == GONE
    assert [[len(i.places) for i in answer.images] for answer in nothing.value.result.values()] == [[1, 0], [0, 0]]
    for wrong in ({"match": "*", "ref": [APP]}, {"ref": []}):
        with pytest.raises(errors.UsageError, match="find needs"):
            find_command.parse(**wrong)


def test_images_of_a_set_are_listed_and_those_that_are_absent_are_named() -> None:
    full, half = FakeHost({"k8s.io": [image(), image(OTHER), image(CONFIG)]}), FakeHost({"k8s.io": [image(OTHER)]})
    answers = images_command.images.body(FakeFleet(a=full, b=half), images_command.parse(ref=[APP, "*/other:1", GONE]))
    assert [(row.reference, answers["a"].absent) for row in answers["a"].images] == [(APP, (GONE,)), (OTHER, (GONE,))]
    assert answers["b"].absent == (APP, GONE)
    table = images_command.tabulate(answers)
    assert [(row[0], row[-1]) for row in table.rows] == [(APP, "a"), (OTHER, "a, b")]
    assert table.notes == (f"{GONE} is not on a, b", f"{APP} is not on b")
    with pytest.raises(errors.UsageError, match="--match excludes"):
        images_command.parse(ref=[APP], match="*")
