"""`retag` gives, moves, refuses and reports names as it must, in cases that are hard to bring about on real hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
from letters import unhashed  # noqa: F401
from listed import FakeFleet
from retagging import (
    CHILD,
    CONFIG,
    INDEX,
    MANAGED,
    MANIFEST,
    NEW,
    OLD,
    OTHER,
    A,
    B,
    FakeHost,
    failing,
    image,
    retag,
    table,
)

from ctr_ferry import errors
from ctr_ferry.ctr.methods import Method
from ctr_ferry.oci.descriptor import OCI_INDEX
from ctr_ferry.oci.registry import Registries, Registry
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer
from ctr_ferry.ssh.target import Limits, Target
from tasks.retag import parse
from tasks.retag import retag as command


def test_a_name_is_given_and_what_the_host_says_afterwards_is_reported() -> None:
    host = FakeHost([image(OLD)], answers={"verify": table(image(NEW))})
    result = retag(host)
    assert result.status is Status.CHANGED
    (done,) = result.images
    assert (done.source, done.reference, done.digest, done.method) == (OLD, NEW, A, Method.TAG)
    assert len(host.scripts) == 1


@pytest.mark.parametrize("cri", [False, True])
def test_a_ctr_that_reports_success_is_not_believed(cri: bool) -> None:
    host = FakeHost([image(OLD)], cri=cri, answers={"verify": table()})
    with pytest.raises(errors.VerifyFailed, match="is not there"):
        retag(host)
    assert host.removed == []


@pytest.mark.parametrize("method", ["tag", "index"])
def test_a_name_that_another_run_gave_as_well_exists(method: str) -> None:
    host = FakeHost([image(OLD)], answers={"verify": table(image(NEW, B))})
    with pytest.raises(errors.ReferenceExists, match="another digest") as failed:
        retag(host, method=method)
    assert A in failed.value.detail and B in failed.value.detail


def test_a_name_that_somebody_else_moved_as_well_is_not_verified() -> None:
    host = FakeHost([image(OLD), image(NEW, B)], answers={"verify": table(image(NEW, OTHER))})
    with pytest.raises(errors.VerifyFailed, match="another digest"):
        retag(host, force=True)


def test_what_the_host_did_not_find_right_has_not_been_done() -> None:
    host = FakeHost([image(OLD)], answers={"verify": table(image(NEW)), "kept": Answer(0, b"", "")})
    with pytest.raises(errors.VerifyFailed, match="removed again"):
        retag(host)


def test_a_name_that_cri_does_not_notice_is_a_failure() -> None:
    host = FakeHost([image(OLD, A, MANAGED)], cri=True, answers={"verify": table(image(NEW))})
    with pytest.raises(errors.VerifyFailed, match="CRI did not label"):
        retag(host)


def test_cris_label_is_not_waited_for_outside_its_namespace() -> None:
    host = FakeHost([], elsewhere={"default": [image(OLD)]}, cri=True, answers={"verify": table(image(NEW))})
    assert retag(host, namespace="default").status is Status.CHANGED
    assert "sleep" not in host.scripts[-1].steps["verify"]


def test_a_name_that_somebody_gave_meanwhile_is_fine_where_it_is_the_same() -> None:
    answers = {"name-0": failing(f'image "{NEW}": already exists'), "verify": table(image(NEW))}
    host = FakeHost([image(OLD)], answers=dict(answers))
    result = retag(host)
    assert result.status is Status.UNCHANGED and "meanwhile" in result.images[0].notes[0]
    assert host.removed == []


def test_a_name_that_somebody_gave_meanwhile_to_another_image_exists() -> None:
    answers = {"name-0": failing(f'image "{NEW}": already exists'), "verify": table(image(NEW, B))}
    host = FakeHost([image(OLD)], answers=dict(answers))
    with pytest.raises(errors.ReferenceExists) as exists:
        retag(host)
    assert A in exists.value.detail and B in exists.value.detail
    assert host.removed == []


def failed_naming(text: str = "x") -> dict[str, Answer | Callable[[str], Answer]]:
    return {"name-0": failing(text), "verify": table(image(NEW)), "kept": Answer(0, b"", "")}


@pytest.mark.parametrize("version", ["1.2.6", "2.1.9"])
def test_a_failed_attempt_tells_ctrs_own_reason_and_asks_nothing_more(version: str) -> None:
    host = FakeHost([image(OLD)], version=version, answers=failed_naming(f"content digest {CONFIG}: not found"))
    with pytest.raises(errors.ContentMissing):
        retag(host, method="index")
    assert len(host.scripts) == 2


@pytest.mark.parametrize("method", ["auto", "tag", "index"])
@pytest.mark.parametrize("version", ["1.3.0", "1.6.20", "2.1.9"])
def test_a_name_that_exists_is_moved_in_one_go(version: str, method: str) -> None:
    host = FakeHost([image(OLD), image(NEW, B)], version=version, answers={"verify": table(image(NEW))})
    (done,) = retag(host, force=True, method=method).images
    assert (done.method, done.previous_digest) == (Method.INDEX, B)
    step = host.scripts[-1].steps["name-0"]
    assert " import " in step and " tag " not in step


def test_what_a_name_was_is_what_the_host_said_right_before_it_was_moved() -> None:
    answers = {"was": table(image(NEW, CHILD)), "verify": table(image(NEW))}
    host = FakeHost([image(OLD), image(NEW, B)], answers=dict(answers))
    result = retag(host, force=True)
    assert result.images[0].previous_digest == CHILD
    assert f"  replaces {CHILD}" in result.lines()
    dry = FakeHost([image(OLD), image(NEW, B)], dry_run=True)
    assert retag(dry, force=True).images[0].previous_digest == B
    new = FakeHost([image(OLD)], answers={"verify": table(image(NEW))})
    assert retag(new, force=True).images[0].previous_digest == ""


@pytest.mark.parametrize(
    ("now", "note"),
    [
        ((MANAGED, "io.cri-containerd.pinned=pinned", "a=b"), ""),
        ((MANAGED, "a=b"), "labels that are gone: io.cri-containerd.pinned=pinned"),
        ((), "labels that are gone: a=b, io.cri-containerd.pinned=pinned"),
    ],
)
def test_labels_that_a_moved_name_lost_are_reported(now: Sequence[str], note: str) -> None:
    was = image(NEW, B, MANAGED, "io.cri-containerd.pinned=pinned", "a=b")
    host = FakeHost([image(OLD), was], answers={"verify": table(image(NEW, A, *now))})
    assert retag(host, force=True).images[0].notes == ((note,) if note else ())


def test_an_existing_name_is_left_alone() -> None:
    same = FakeHost([image(OLD), image(NEW)])
    assert retag(same).status is Status.UNCHANGED
    different = FakeHost([image(OLD), image(NEW, B)])
    with pytest.raises(errors.ReferenceExists) as exists:
        retag(different)
    assert "--force" in exists.value.hint
    assert same.scripts == different.scripts == []


def test_a_wanted_platform_counts_although_the_name_is_there_for_the_whole_index() -> None:
    index = image(OLD, A, media_type=OCI_INDEX)
    host = FakeHost([index, image(NEW, A, media_type=OCI_INDEX)], blobs={A: INDEX, CHILD: MANIFEST, OTHER: MANIFEST})
    with pytest.raises(errors.ReferenceExists):
        retag(host, platform="linux/arm64")


@pytest.mark.parametrize(("version", "digest"), [("1.2.6", CHILD), ("1.1.8", A)])
def test_a_partial_index_is_named_as_far_as_a_ctr_can(version: str, digest: str) -> None:
    host = FakeHost(
        [image(OLD, A, media_type=OCI_INDEX)],
        version=version,
        blobs={A: INDEX, CHILD: MANIFEST},
        answers={"verify": table(image(NEW, digest))},
    )
    (done,) = retag(host, method="index").images
    assert (done.digest, done.source_digest) == (digest, A)
    assert bool(done.notes) is (digest == CHILD)


def test_two_images_that_would_become_one_name_are_both_refused_and_the_rest_is_done() -> None:
    images = [image("a.example/x:1"), image("b.example/x:1", B), image("a.example/y:1"), image(CONFIG, A)]
    host = FakeHost(images, answers={"verify": table(image("new.example/y:1"))})
    with pytest.raises(errors.SomeFailed, match="2 of 3") as some:
        retag(host, to_registry="new.example", match="*")
    by_source = {i.source: i for i in some.value.result.images}
    for name, rival in (("a.example/x:1", "b.example/x:1"), ("b.example/x:1", "a.example/x:1")):
        collided = by_source[name]
        assert collided.status is Status.FAILED
        assert collided.error and collided.error["kind"] == "reference-exists"
        assert rival in collided.error["message"]
    assert by_source["a.example/y:1"].status is Status.CHANGED
    assert some.value.result.status is Status.CHANGED
    assert not any("new.example/x" in text for text in host.changes)


def test_the_same_image_under_two_names_becomes_one_once() -> None:
    images = [image("a.example/x:1"), image("b.example/x:1")]
    host = FakeHost(images, answers={"verify": table(image("new.example/x:1"))})
    first, second = retag(host, to_registry="new.example", match="*").images
    assert (first.status, second.status) == (Status.CHANGED, Status.UNCHANGED)
    assert "a.example/x:1" in second.notes[0] and not second.method
    assert [name for name in host.steps if name.startswith("name-")] == ["name-0"]


def test_a_destination_that_is_the_source_of_another_line_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "map"  # only the host knows that the digest is r.example/b:1
    file.write_text(f"r.example/a:1 r.example/b:1\n{B} r.example/c:1\n")
    images = [image("r.example/a:1"), image("r.example/b:1", B)]
    host = FakeHost(images, answers={"verify": table(image("r.example/c:1", B))})
    with pytest.raises(errors.SomeFailed, match="1 of 2") as some:
        retag(host, map=str(file), force=True)
    refused, done = some.value.result.images
    assert refused.error and refused.error["kind"] == "reference-exists"
    assert "source of another line" in refused.error["message"]
    assert done.status is Status.CHANGED
    assert not any(" r.example/b:1" in text and "--force" in text for text in host.changes)


def test_moving_to_a_registry_leaves_out_what_is_there_and_what_is_pinned() -> None:
    images = [image("new.example/x:1"), image(f"a.example/p@{A}"), image("a.example/z:1")]
    host = FakeHost(images, answers={"verify": table(image("new.example/z:1"))})
    assert [i.reference for i in retag(host, to_registry="new.example", match="*").images] == ["new.example/z:1"]


def test_moving_to_a_registry_takes_names_with_a_digest_where_the_image_has_no_tag_there() -> None:
    images = [image(f"a.example/p@{A}"), image("other.example/x:1"), image("a.example/UPPER:1")]
    new = f"new.example/p@{A}"
    result = retag(FakeHost(images, answers={"verify": table(image(new))}), to_registry="new.example", match="a.*")
    assert [i.reference for i in result.images] == [new]
    (note,) = result.notes
    assert "a.example/UPPER:1" in note and "retag --src a.example/UPPER:1" in note and note in result.lines()


@pytest.mark.parametrize(("name", "fits"), [("new.example/x:1", True), ("other.example/x:1", False)])
def test_moving_to_a_registry_what_fits_nothing_anywhere_is_an_error(name: str, fits: bool) -> None:
    request = parse(to_registry="new.example", match="new.example/*")
    with nullcontext() if fits else pytest.raises(errors.NothingFound):
        command.body(FakeFleet(a=cast(Any, FakeHost([image(name)]))), request)


@pytest.mark.parametrize("src", ["r.example/MyApp:1", "<none>@<none>", "a b"])
def test_a_name_that_is_no_reference_is_a_source_by_its_exact_text(src: str) -> None:
    done = retag(FakeHost([image(src)], answers={"verify": table(image(NEW))}), src=src)
    assert [(i.source, i.reference, i.status) for i in done.images] == [(src, NEW, Status.CHANGED)]
    with pytest.raises(errors.ImageNotFound) as raised:
        retag(FakeHost([image(OLD)]), src=src)
    assert "no image reference" in raised.value.detail


@pytest.mark.parametrize(("digest", "kind"), [(A, None), (B, errors.Drift)])
def test_a_name_with_a_digest_is_given_to_that_image_alone(digest: str, kind: type[Exception] | None) -> None:
    dst = f"new.example/app@{digest}"
    host = FakeHost([image(OLD)], answers={"verify": table(image(dst))})
    with pytest.raises(kind) if kind else nullcontext():
        assert [i.reference for i in retag(host, dst=f"new.example/app:7@{digest}").images] == [dst]
    assert bool(host.changes) is (kind is None)


@pytest.mark.parametrize(("dst", "asks"), [("regsitry.example/app:1", True), ("registry2.example/app:1", False)])
def test_a_registry_that_is_nearly_one_of_the_inventory_is_asked_about(dst: str, asks: bool) -> None:
    known = Registries((Registry("registry.example"), Registry("registry1.example")))
    target = Target("n", "n", limits=Limits(probe=1), variables={Registries: known})
    host = FakeHost([image(OLD)], target=target, answers={"verify": table(image(dst))})
    (done,) = retag(host, dst=dst).images
    assert ("did you mean registry.example?" in str(done.notes)) is asks


def test_of_many_images_the_good_ones_are_done_and_each_bad_one_says_why(tmp_path: Path) -> None:
    file = tmp_path / "map"
    file.write_text("a.example/a:1 r.example/a:1\na.example/nosuch:1 r.example/n:1\na.example/b:1 r.example/b:1\n")
    answers = {"name-1": failing("something odd"), "verify": table(image("r.example/a:1"))}
    host = FakeHost([image("a.example/a:1"), image("a.example/b:1", B)], answers=dict(answers))
    with pytest.raises(errors.SomeFailed, match="2 of 3") as some:
        retag(host, map=str(file))
    result = some.value.result
    assert [(i.source.split("/")[1], i.status) for i in result.images] == [
        ("a:1", Status.CHANGED), ("b:1", Status.FAILED), ("nosuch:1", Status.FAILED),
    ]  # fmt: skip
    assert [i.error["kind"] for i in result.images if i.error] == ["command-failed", "image-not-found"]
    assert len(host.scripts) == 1
    assert any("image-not-found" in line for line in result.lines())


def test_the_error_for_a_missing_image_names_the_namespace_that_has_it() -> None:
    host = FakeHost([image("x.example/app:1")], elsewhere={"default": [image(OLD)]})
    with pytest.raises(errors.ImageNotFound) as missing:
        retag(host)
    assert "--namespace default" in missing.value.hint and host.changes == []
    with pytest.raises(errors.ImageNotFound) as missing:
        retag(host, src="old.example/zzz/app:1")
    assert "x.example/app:1" in missing.value.hint


DRY = [
    ({}, {}),
    ({}, {"version": "1.2.6"}),
    ({"method": "archive"}, {}),
    ({"namespace": "default", "to_namespace": "k8s.io"}, {"elsewhere": {"default": [image(OLD)]}}),
    ({"force": True, "dst": "busy.example/app:1"}, {}),
    ({"to_registry": "new.example", "match": "old*"}, {}),
]


@pytest.mark.parametrize(("options", "more"), DRY)
def test_a_dry_run_asks_nothing_that_changes_anything(options: dict[str, object], more: dict[str, object]) -> None:
    host = FakeHost([image(OLD), image("busy.example/app:1", B)], dry_run=True, **more)  # type: ignore[arg-type]
    result = retag(host, **options)
    assert host.changes == []
    assert result.status is Status.CHANGED
    assert "would move" in result.images[0].notes[0]
    wet = FakeHost([image(OLD), image("busy.example/app:1", B)], **more)  # type: ignore[arg-type]
    with pytest.raises(errors.FerryError):
        retag(wet, **options)
    assert wet.changes, "the same without --dry-run does change something"


def test_from_namespace_to_namespace_blobs_are_linked_and_protected_by_a_gc_root_meanwhile() -> None:
    host = FakeHost([], elsewhere={"default": [image(OLD)]}, answers={"verify": table(image(NEW))})
    (done,) = retag(host, namespace="default", to_namespace="k8s.io").images
    assert done.method == Method.LINK
    act = host.scripts[-1]
    assert f"--expected-digest {A}" in act.steps["link-0"]
    assert f"containerd.io/gc.root=ctr-ferry.{host.run_id}" in act.steps["link-0"]
    assert "content rm sha256:" in act.cleanup and f"content label {A}" not in act.cleanup


def test_where_linking_fails_the_stream_is_reported() -> None:
    answers = {"link-0": failing("unable to resume"), "verify": table(image(NEW))}
    host = FakeHost([], elsewhere={"default": [image(OLD)]}, answers=dict(answers))
    (done,) = retag(host, namespace="default", to_namespace="k8s.io").images
    assert done.method == "stream" and "unable to resume" in done.notes[0]


def test_a_digest_source_gives_its_name_no_tag_of_its_own() -> None:
    host = FakeHost([image(CONFIG, A)], answers={"verify": table(image("new.example/app:latest"))})
    assert [i.reference for i in retag(host, src=A, dst="new.example/app").images] == ["new.example/app:latest"]


def test_a_destination_without_a_tag_takes_the_sources() -> None:
    host = FakeHost([image(OLD)], answers={"verify": table(image(NEW))})
    assert retag(host, dst="new.example/app").images[0].reference == NEW


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs one of"),
        ({"src": "a"}, "--dst is missing"),
        ({"dst": "a"}, "--src is missing"),
        ({"src": "a", "dst": "b", "map": "m"}, "needs one of"),
        ({"src": "a", "dst": "b", "match": "m"}, "needs one of"),
        ({"to_registry": "r.example"}, "go together"),
        ({"match": "*"}, "go together"),
        ({"to_registry": "r", "match": "*"}, "no registry host"),
        ({"src": "a:1", "dst": "docker.io/library/a:1"}, "same name"),
        ({"src": "a", "dst": "b'c"}, "no image reference"),
        ({"src": "a", "dst": "b", "method": "magic"}, "'magic' is none of"),
        ({"src": "a", "dst": "b", "method": "link"}, "'link' is none of"),
        ({"src": "a", "dst": "b", "method": "tag", "to_namespace": "x"}, "within one namespace"),
        ({"src": "a", "dst": "b", "platform": "amd64"}, "--platform"),
        ({"src": "a", "dst": "b", "namespace": "a b"}, "--namespace 'a b'"),
        ({"src": "a", "dst": "b", "to_namespace": "../x"}, "--to-namespace"),
    ],
)
def test_a_wrong_command_line_is_refused_before_any_host_is_touched(options: dict[str, str], words: str) -> None:
    with pytest.raises(errors.UsageError) as refused:
        parse(**options)  # type: ignore[arg-type]
    assert words in refused.value.message
    assert refused.value.exit_code == 2


def test_the_same_name_is_a_destination_in_another_namespace() -> None:
    assert parse(src="a:1", dst="a:1", namespace="default", to_namespace="k8s.io").pairs[0].same
