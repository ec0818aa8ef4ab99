"""images, find and check report what the hosts have."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from letters import unhashed  # noqa: F401
from listed import APP, CONFIG, INDEX, A, B, C, FakeFleet, FakeHost, image
from records import VERSIONS, record

from ctr_ferry import errors
from ctr_ferry.ctr.checks import parse_checks
from ctr_ferry.ctr.listing import Image
from ctr_ferry.images.check_result import PLATFORM_MANIFEST
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST
from ctr_ferry.report import render
from ctr_ferry.report.outcome import Outcome
from ctr_ferry.shell import Answer
from tasks import check as check_command
from tasks import find as find_command
from tasks import images as images_command


def images(fleet: FakeFleet, **options: Any) -> dict[str, Any]:
    answers: dict[str, Any] = images_command.images.body(fleet, images_command.parse(**options))
    return answers


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_checks_of_every_version_are_parsed(version: str) -> None:
    cases = {
        "images check, a layer is missing": (False, "incomplete (3/4)"),
        "images check, the manifest is missing": (False, "unavailable (0/?)"),
        "images check, two-platform": (True, "complete (3/3)"),
        "images check name==REF": (True, "complete (4/4)"),
    }
    for case, expected in cases.items():
        found = parse_checks(record(version, case).stdout)
        assert found and {(c.complete, c.status) for c in found.values()} == {expected}, case
        assert all(name.startswith("localhost:5101/facts/") for name in found)
    assert all(
        c.complete and c.unpacked for c in parse_checks(record(version, "images check, complete").stdout).values()
    )
    assert parse_checks(record(version, "images check, empty namespace").stdout) == {}


def test_rows_of_every_status_are_parsed() -> None:
    found = parse_checks(
        f"REF TYPE DIGEST STATUS SIZE UNPACKED \na:1 t {A} incomplete (2/5) 1.0 MiB/4.0 MiB false\n"
        f"b:1 t {B} complete (4/4) 1 B/1 B true\nc:1 t {B} unavailable (0/?) 0.0 B/? false\nnoise {A}\n"
    )
    assert [(name, c.complete, c.unpacked, c.status) for name, c in found.items()] == [
        ("a:1", False, False, "incomplete (2/5)"),
        ("b:1", True, True, "complete (4/4)"),
        ("c:1", False, False, "unavailable (0/?)"),
    ]


def test_images_folds_cris_records_and_groups_equal_rows() -> None:
    held = {"k8s.io": [image(), image(CONFIG)]}
    one, two, part = FakeHost(held), FakeHost(held), FakeHost(held, status="incomplete (2/4)")
    answers = images(FakeFleet(a=one, b=two, c=part, d=errors.ConnectTimeout("dead")))
    table = images_command.tabulate(answers)
    assert [(row[0], row[-2], row[-1]) for row in table.rows] == [
        (APP, "complete (4/4)", "a, b"),
        (APP, "incomplete (2/4)", "c"),
    ]
    assert [row[-1] for row in table.apart] == ["a", "b", "c"]
    assert len(one.scripts) == 1


def test_images_of_all_namespaces_takes_one_command() -> None:
    host = FakeHost({"k8s.io": [image()], "default": [image(), image("other:1")]})
    answers = images(FakeFleet(a=host), all_namespaces=True, match="*/app:*")
    assert [(row.namespace, row.reference) for row in answers["a"].images] == [("k8s.io", APP), ("default", APP)]
    assert len(host.scripts) == 1
    with pytest.raises(errors.UsageError):
        images_command.parse(namespace="x", all_namespaces=True)


def test_csv_has_a_line_for_each_image_and_host(capsys: pytest.CaptureFixture[str]) -> None:
    held = {"k8s.io": [image()]}
    answers = images(FakeFleet(a=FakeHost(held), b=FakeHost(held), c=errors.ConnectTimeout("dead")))
    outcomes = [Outcome.of(name, 0.0, answer) for name, answer in answers.items()]
    render.table(render.Done("images", {"csv": True}, outcomes, table=images_command.tabulate(answers)))
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "reference,namespace,digest,size,platforms,complete,hosts",
        *(f"{APP},k8s.io,{A},3.0 MiB,linux/amd64,complete (4/4),{host}" for host in "ab"),
    ]
    assert "c: connect-timeout: dead" in err


def find(fleet: FakeFleet, match: str = "*/app:*") -> dict[str, Any]:
    answers: dict[str, Any] = find_command.find.body(fleet, find_command.parse(match=match))
    return answers


def test_find_lists_every_namespace_of_every_containerd() -> None:
    host = FakeHost({"default": [image()], "k8s.io": [image(CONFIG)]}, others={"/docker.sock": {"moby": [image()]}})
    answers = find(FakeFleet(a=host, b=FakeHost({"k8s.io": []})))
    assert [(p.socket, p.namespace, p.notes) for p in answers["a"].places] == [
        ("/x.sock", "default", ()),
        ("/docker.sock", "moby", ()),
    ]
    assert len(host.scripts) == 2
    assert answers["b"].places == ()


def test_find_notes_namespaces_that_kubelet_does_not_read() -> None:
    lost = FakeHost({"default": [image()], "k8s.io": []}, cri=True)
    fine = FakeHost({"default": [image()], "k8s.io": [image()]}, cri=True)
    table = find_command.tabulate(find(FakeFleet(a=lost, b=fine)))
    assert [(row[2], row[4], row[5]) for row in table.rows] == [
        ("default", "b", ""),
        ("default", "a", "kubelet does not read this namespace"),
        ("k8s.io", "b", ""),
    ]
    assert table.notes == (f"try: fab -H a retag --src {APP} --dst {APP} -n default --to-namespace k8s.io",)


def test_find_notes_a_containerd_that_kubelet_does_not_use() -> None:
    docker = {"/run/docker/containerd/containerd.sock": {"moby": [image()]}}
    lost = find(FakeFleet(a=FakeHost({"k8s.io": []}, cri=True, others=docker)))
    assert [p.notes for p in lost["a"].places] == [("kubelet reads another containerd",)]
    assert "set ctr_address: " in find_command.tabulate(lost).notes[0]
    k3s = {"/run/k3s/containerd/containerd.sock": {"k8s.io": [], "default": [image()]}}
    answers = find(FakeFleet(a=FakeHost({"default": [image()]}, others=k3s)))
    notes = [p.notes for p in answers["a"].places]
    assert notes == [("kubelet reads another containerd",), ("kubelet does not read this namespace",)]


@pytest.mark.parametrize(("text", "count"), [("app", 1), ("old.example", 1), ("p:1", 1), ("ap?:1", 0), ("nothing", 0)])
def test_a_text_without_glob_characters_is_searched_for_in_names(text: str, count: int) -> None:
    fleet = FakeFleet(a=FakeHost({"k8s.io": [image(), image(CONFIG)]}))
    assert len(images_command.tabulate(images(fleet, match=text)).rows) == count
    if count:
        assert len(find_command.tabulate(find(fleet, text)).rows) == count
    else:
        with pytest.raises(errors.NothingFound):
            find(fleet, text)


def test_find_proposes_no_retag_that_would_be_refused() -> None:
    lost = FakeHost({"default": [image("old.example/app x:1")], "k8s.io": []}, cri=True)
    table = find_command.tabulate(find(FakeFleet(a=lost), "*/app*"))
    assert len(table.rows) == 1 and table.notes == ()


def test_find_goes_on_if_one_namespace_cannot_be_read() -> None:
    host = FakeHost({"default": [image()], "broken": [image("one\ntwo/app:1")]})
    table = find_command.tabulate(find(FakeFleet(a=host)))
    assert [(row[0], row[2]) for row in table.rows] == [(APP, "default")]
    (note,) = table.notes
    assert note.startswith("a: not read: the images of namespace broken cannot be read") and "'one'" in note


def test_check_finds_a_missing_image_elsewhere_although_one_namespace_cannot_be_read() -> None:
    host = FakeHost({"k8s.io": [], "broken": [image("one\ntwo/app:1")], "default": [image()]})
    error = check(FakeFleet(a=host))["a"]
    assert error.kind == "image-not-found" and "--namespace default" in error.hint


def test_a_wrong_namespace_is_refused_before_any_host_is_asked() -> None:
    for parse in (images_command.parse, partial(check_command.parse, ref=[APP])):
        with pytest.raises(errors.UsageError, match="'x y' is no namespace"):
            parse(namespace="x y")


def test_find_reports_sockets_that_do_not_answer() -> None:
    class Deaf(FakeHost):
        def _answer(self, words: list[str]) -> Answer:
            if "/closed.sock" in words:
                return Answer(1, b"", "ctr: dial unix /closed.sock: connect: connection refused")
            return super()._answer(words)

    host = Deaf({"k8s.io": [image()]}, others={"/closed.sock": {}})
    (note,) = find_command.tabulate(find(FakeFleet(a=host))).notes
    assert note.startswith("a: not read: /closed.sock: ctr: dial unix") and len(host.scripts) == 2
    with pytest.raises(errors.NothingFound) as nothing:
        find(FakeFleet(a=host), "nosuch:*")
    assert "/closed.sock" in nothing.value.detail


def test_find_fails_if_no_host_has_the_image() -> None:
    with pytest.raises(errors.NothingFound) as nothing:
        find(FakeFleet(a=FakeHost({"k8s.io": [image()]}), b=errors.ConnectTimeout("dead")), "nosuch:*")
    assert list(nothing.value.result) == ["a", "b"]
    only_dead = find(FakeFleet(b=errors.ConnectTimeout("dead")))
    assert list(only_dead) == ["b"]
    with pytest.raises(errors.UsageError):
        find_command.parse()


def check(fleet: FakeFleet, **options: Any) -> dict[str, Any]:
    answers: dict[str, Any] = check_command.check.body(fleet, check_command.parse(ref=[APP], **options))
    return answers


def only(answer: Any) -> Any:
    """The one image of a host's answer, well or not."""
    result = answer.result if isinstance(answer, errors.FerryError) else answer
    return result.images[0]


def has(digest: str = A, **more: Any) -> FakeHost:
    return FakeHost({"k8s.io": [image(APP, digest)]}, **more)


def test_check_expects_the_digest_of_most_hosts() -> None:
    fleet = FakeFleet(a=has(), b=has(B), c=has(), d=FakeHost({"k8s.io": []}), e=errors.ConnectTimeout("dead"))
    answers = check(fleet)
    assert [getattr(answer, "kind", "ok") for answer in answers.values()] == [
        *("ok", "drift", "ok", "image-not-found", "connect-timeout")
    ]
    (absent,) = answers["d"].result.images
    assert (absent.reference, absent.namespace, absent.check) == ("old.example/app:1", "k8s.io", "absent")
    assert [(row[1], row[2], row[-1]) for row in check_command.tabulate(answers).rows] == [
        (A, "same", "a, c"),
        ("-", "-", "d"),
        (B, "other", "b"),
    ]
    assert fleet.hosts["b"].failed and not fleet.hosts["a"].failed  # type: ignore[union-attr]
    assert all(len(fleet.hosts[name].scripts) == 1 for name in "abc")  # type: ignore[union-attr]


def test_check_expects_the_digest_that_was_asked_for() -> None:
    answers = check(FakeFleet(a=has(), b=has(B), c=has()), digest=B)
    assert [getattr(answer, "kind", "ok") for answer in answers.values()] == ["drift", "ok", "drift"]
    assert answers["a"].detail.endswith(f"expected {B} (as on b)")
    for wrong in ({"ref": None}, {"ref": [APP], "digest": "sha256:12"}, {"ref": ["UPPER:1"]}):
        with pytest.raises(errors.UsageError):
            check_command.parse(**wrong)


@pytest.mark.parametrize("digests", [(A, B), (B, A), (A, B, B, A), (A, A, B, C)])
def test_check_fails_on_all_hosts_without_a_majority(digests: tuple[str, ...]) -> None:
    fleet = FakeFleet(**{name: has(digest) for name, digest in zip("abcd", digests, strict=False)})
    answers = check(fleet)
    assert {getattr(answer, "kind", "ok") for answer in answers.values()} == {"drift"}
    assert {(answer.hint, only(answer).verdict) for answer in answers.values()} == {
        ("choose the right digest with --digest", "no majority")
    }
    holders = {digest: ", ".join(n for n, d in zip("abcd", digests, strict=False) if d == digest) for digest in digests}
    assert set(answers["a"].detail.splitlines()) == {f"{digest} on {on}" for digest, on in holders.items()}
    assert all(host.failed for host in fleet.hosts.values())  # type: ignore[union-attr]
    chosen = check(FakeFleet(a=has(A), b=has(B)), digest=B)
    assert [getattr(answer, "kind", "ok") for answer in chosen.values()] == ["drift", "ok"]


def test_check_requires_complete_and_unpacked_images() -> None:
    fleet = FakeFleet(a=has(), b=has(status="incomplete (2/4)", unpacked=False), c=has(unpacked=False))
    answers = check(fleet)
    assert [getattr(answer, "kind", "ok") for answer in answers.values()] == ["ok", "content-missing", "not-unpacked"]
    assert only(answers["b"]).check == "incomplete (2/4)"


def test_check_names_the_blobs_that_are_missing() -> None:
    manifest = json.dumps({"config": {"digest": CONFIG, "size": 2}, "layers": [{"digest": C, "size": 3}]}).encode()
    part = {"status": "incomplete (1/3)", "unpacked": False}
    plain = has(blobs={A: manifest, CONFIG: b"{}"}, **part)
    index = FakeHost({"k8s.io": [image(APP, A, OCI_INDEX)]}, blobs={A: INDEX, B: manifest, C: b"l"}, **part)
    bare = FakeHost({"k8s.io": [image(APP, A, OCI_INDEX)]}, blobs={A: INDEX}, **part)
    answers = check(FakeFleet(a=plain, b=index, c=bare))
    assert [answers[name].kind for name in "abc"] == ["content-missing"] * 3
    assert [only(answers[name]).missing for name in "abc"] == [(C,), (CONFIG,), (B,)]
    assert answers["a"].detail.splitlines() == ["missing", C]
    assert [len(host.scripts) for host in (plain, index, bare)] == [1, 2, 1]


def test_check_reports_an_image_for_other_platforms() -> None:
    foreign = Image(APP, OCI_MANIFEST, A, "3.0 MiB", "linux/arm64", frozenset())
    answers = check(FakeFleet(a=FakeHost({"k8s.io": [foreign]}, unpacked=False)))
    assert answers["a"].kind == "platform-missing"
    assert "linux/arm64" in answers["a"].detail


def test_images_and_check_fail_if_containerd_does_not_answer() -> None:
    class Mute(FakeHost):
        def _answer(self, words: list[str]) -> Answer:
            return Answer(1, b"", "ctr: dial unix /x.sock: refused") if "check" in words else super()._answer(words)

    held = {"k8s.io": [image()]}
    assert check(FakeFleet(a=Mute(held)))["a"].kind == "daemon-unreachable"
    assert images(FakeFleet(a=Mute(held)))["a"].kind == "daemon-unreachable"


@pytest.mark.parametrize(("version", "verdict"), [("1.2.6", "ok"), ("1.6.20", "drift")])
def test_a_platforms_manifest_counts_as_the_same_if_ctr_can_name_no_more(version: str, verdict: str) -> None:
    whole = FakeHost({"k8s.io": [image(APP, A, OCI_INDEX)]}, blobs={A: INDEX})
    for options in ({}, {"digest": A}):
        fleet = FakeFleet(b=has(B, version=version), a=whole, c=whole)
        answers = check(fleet, **options)
        assert [getattr(answers[name], "kind", "ok") for name in "abc"] == ["ok", verdict, "ok"]
        if verdict == "ok":
            assert only(answers["b"]).verdict == "same (platform manifest)"


def test_old_hosts_do_not_outvote_the_index_of_a_new_one() -> None:
    whole = FakeHost({"k8s.io": [image(APP, A, OCI_INDEX)]}, blobs={A: INDEX})
    answers = check(FakeFleet(a=has(B, version="1.2.6"), b=has(B, version="1.2.6"), c=whole))
    assert [only(answer).verdict for answer in answers.values()] == [PLATFORM_MANIFEST] * 2 + ["same"]


def test_check_escapes_names_that_hosts_gave() -> None:
    disguised = "old.example/app\u202e:1"
    fleet = FakeFleet(
        a=FakeHost({"k8s.io": [image(disguised)]}), b=FakeHost({"k8s.io": [image(disguised)]}, unpacked=False)
    )
    answers = check_command.check.body(fleet, check_command.parse(ref=[A]))
    assert answers["a"].lines()[0].startswith(r"old.example/app\u202e:1 ")
    assert answers["b"].message.startswith(r"old.example/app\u202e:1 in namespace k8s.io is complete")
