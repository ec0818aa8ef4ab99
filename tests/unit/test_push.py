"""What push decides, on hosts and registries that only answer: what is hard to bring about on real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from letters import unhashed  # noqa: F401
from retagging import CHILD, CONFIG, OTHER, A, B, image
from scripted_registry import (
    OK,
    REF,
    Answering,
    Host,
    ScriptedFleet,
    answering_fixture,  # noqa: F401
    index_host,
    pushed,
)

from ctr_ferry import errors
from ctr_ferry.oci.registry import RegistryState
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer
from tasks import push

NO = Answer(1, b"", "ctr: something\n")


class TestPush:
    def test_nothing_is_pushed_where_the_registry_has_the_digest(self, answering: Answering) -> None:
        registry, host = answering(A), Host([image(REF, A)])
        assert pushed(host).status is Status.UNCHANGED
        assert "push" not in host.texts
        assert registry.asked == 1

    def test_the_registry_is_asked_before_and_after(self, answering: Answering) -> None:
        registry, host = answering(None, A), Host([image(REF, A)], answers={"push": OK})
        result = pushed(host)
        assert (result.status, result.method, result.verified, result.digest) == (Status.CHANGED, "push", "digest", A)
        assert registry.asked == 2

    @pytest.mark.parametrize("labelled", [True, False])
    def test_a_push_that_may_not_mount_is_made_once_more_without(self, answering: Answering, *, labelled: bool) -> None:
        answering(None, A)
        denied = Answer(1, b"", "ctr: unexpected status: 403 Forbidden\n")
        source = f"{CONFIG}\t1 B\t1 day\tcontainerd.io/distribution.source.r.example=team/secret\n" if labelled else ""
        answers = [denied, OK]
        given = {"push": lambda _: answers.pop(0), "sources": Answer(0, source.encode(), "")}
        host = Host([image(REF, A)], answers=given)
        if not labelled:
            with pytest.raises(errors.RegistryDenied):
                pushed(host)
            return
        result = pushed(host)
        assert result.status is Status.CHANGED
        assert "uploaded, since" in "\n".join(result.lines())
        first, second = [script for script in host.scripts if "push" in script.steps]
        assert "distribution.source" not in first.render("x")
        assert "distribution.source.r.example=\n" in second.steps["push"].replace(";", "\n").replace("'", "")
        assert "distribution.source.r.example=team/secret" in second.cleanup

    def test_another_digest_afterwards_is_an_error(self, answering: Answering) -> None:
        answering(None, B)
        with pytest.raises(errors.VerifyFailed) as caught:
            pushed(Host([image(REF, A)], answers={"push": OK}))
        assert A in caught.value.detail and B in caught.value.detail

    @pytest.mark.parametrize("why", [RegistryState.NOT_CHECKED, RegistryState.DENIED, RegistryState.UNCLEAR])
    def test_a_registry_that_cannot_be_asked_makes_the_result_unverified(
        self, answering: Answering, why: RegistryState
    ) -> None:
        answering(why)
        result = pushed(Host([image(REF, A)], answers={"push": OK}), force=True)
        assert (result.status, result.verified) == (Status.CHANGED, "unverified")
        assert result.notes[0] in "\n".join(result.lines())
        host = Host([image(REF, A)], answers={"push": OK})
        with pytest.raises(errors.MethodUnsupported, match="it is unknown what") as caught:
            pushed(host)  # it might be something else
        assert "--force" in caught.value.hint
        assert ("username" in caught.value.hint) == (why is RegistryState.DENIED)  # there is no login here
        assert "push" not in host.texts

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_a_name_with_another_digest_in_the_registry_stays_without_force(
        self, answering: Answering, *, dry_run: bool
    ) -> None:
        answering(B)
        host = Host([image(REF, A)], answers={"push": OK}, dry_run=dry_run)
        with pytest.raises(errors.ReferenceExists) as caught:
            pushed(host)
        assert A in caught.value.detail and B in caught.value.detail
        assert "--force" in caught.value.hint
        assert "push" not in host.texts

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_force_reports_the_digest_that_was_replaced(self, answering: Answering, *, dry_run: bool) -> None:
        answering(B, A)
        result = pushed(Host([image(REF, A)], answers={"push": OK}, dry_run=dry_run), force=True)
        assert result.previous_digest == B
        assert any(B in line for line in result.lines())
        answering(None, A)
        assert not pushed(Host([image(REF, A)], answers={"push": OK}), force=True).previous_digest

    @pytest.mark.parametrize(
        ("state", "kind"),
        [(RegistryState.UNKNOWN_CA, errors.RegistryTls), (RegistryState.UNRESOLVED, errors.RegistryUnresolved)],
    )
    def test_a_registry_that_cannot_be_reached_gets_nothing(
        self, answering: Answering, state: RegistryState, kind: type[errors.FerryError]
    ) -> None:
        answering(state)
        host = Host([image(REF, A)])
        with pytest.raises(kind):
            pushed(host)
        assert "push" not in host.texts

    def test_a_registry_that_reports_its_own_failure_is_tried_again_a_few_times(self, answering: Answering) -> None:
        answering(RegistryState.FAILED, RegistryState.FAILED, None, A)
        busy = Answer(1, b"", "ctr: unexpected response: 503 Service Unavailable\n")
        host = Host([image(REF, A)], answers={"push": busy})
        with pytest.raises(errors.RegistryFailed):
            pushed(host)
        assert host.pauses == [0.5, 1.0, 0.5, 1.0, 2.0]
        assert sum("push" in script.steps for script in host.scripts) == 4

    def test_another_failure_is_not_tried_again(self, answering: Answering) -> None:
        answering(None)
        host = Host([image(REF, A)], answers={"push": NO})
        with pytest.raises(errors.CommandFailed):
            pushed(host)
        assert host.pauses == []

    def test_a_partial_index_is_pushed_as_the_hosts_platform(self, answering: Answering) -> None:
        answering(None, CHILD)
        host = index_host(answers={"push": OK})
        result = pushed(host)
        assert (result.digest, result.source_digest, result.method) == (CHILD, B, "platform")
        assert B in result.notes[0] and "linux/amd64" in result.notes[0]
        assert "--platform=linux/amd64" in host.texts["push"]

    def test_without_the_platform_flag_a_temporary_name_is_pushed(self, answering: Answering) -> None:
        answering(None, CHILD)
        host = index_host(answers={"push": OK}, version="1.2.6", cri=True)
        assert pushed(host).method == "stage"
        (script,) = [script for script in host.scripts if "push" in script.steps]
        assert "--platform" not in script.steps["push"]
        assert "images rm ctr-ferry.invalid/ctr-ferry.20260101t000000z-abcd:0" in script.cleanup

    def test_one_platform_replaces_the_whole_index_only_with_force(self, answering: Answering) -> None:
        answering(B, CHILD)
        with pytest.raises(errors.ReferenceExists):
            pushed(index_host(), platform="linux/amd64")

    def test_a_registry_that_has_the_whole_index_keeps_it(self, answering: Answering) -> None:
        answering(B)
        host = index_host()
        result = pushed(host)
        assert (result.status, result.digest) == (Status.UNCHANGED, B)
        assert "push" not in host.texts

    def test_all_platforms_or_nothing_names_what_is_absent(self, answering: Answering) -> None:
        registry = answering(None)
        with pytest.raises(errors.PlatformMissing, match="linux/arm64"):
            pushed(index_host(), all_platforms=True)
        assert registry.asked == 0

    def test_a_whole_index_is_pushed_whole_except_by_1_0(self, answering: Answering) -> None:
        answering(None, B)
        assert pushed(index_host(absent=(), answers={"push": OK})).digest == B
        with pytest.raises(errors.MethodUnsupported):
            pushed(index_host(absent=(), version="1.0.3"), all_platforms=True)

    def test_1_0_pushes_no_platform_but_its_own(self, answering: Answering) -> None:
        registry = answering(None)
        with pytest.raises(errors.MethodUnsupported):
            pushed(index_host(absent=(), version="1.0.3"), platform="linux/arm64")
        assert registry.asked == 0

    def test_a_platform_that_the_image_is_not_for_is_refused(self, answering: Answering) -> None:
        answering(None)
        with pytest.raises(errors.PlatformMissing):
            pushed(Host([image(REF, A)]), platform="linux/arm64")
        with pytest.raises(errors.PlatformMissing):
            pushed(index_host(), platform="linux/arm64")

    def test_a_dry_run_sends_nothing(self, answering: Answering) -> None:
        answering(None)
        host = Host([image(REF, A)], dry_run=True)
        assert pushed(host).status is Status.CHANGED
        assert "push" not in host.texts

    def test_as_gives_the_name_in_the_registry_alone(self, answering: Answering) -> None:
        answering(None, A)
        host = Host([image("app:1", A)], answers={"push": OK})
        assert pushed(host, ref="app:1", as_="r.example:5000/b").reference == "r.example:5000/b:1"
        assert "r.example:5000/b:1 app:1 &" in host.texts["push"]

    def test_a_name_of_the_host_is_shown_with_what_is_invisible_escaped(self, answering: Answering) -> None:
        answering(A)
        result = replace(pushed(Host([image(REF, A)])), source="app\u202e:1")
        assert result.lines()[0] == f"app\\u202e:1 -> {REF}"

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"ref": [REF], "as_": f"r/a@{A}"},
            {"ref": [REF], "platform": "linux/amd64", "all_platforms": True},
            {"ref": [A]},
            {"ref": [f"r.example/a@{A}"]},
            {"ref": [REF, f"r.example/a@{A}"]},
            {"ref": [REF, "r.example/b"], "as_": "r/a:1"},
        ],
    )
    def test_options_that_contradict_each_other_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(errors.UsageError):
            push.parse(**options)


FOREIGN = "sha256:" + "7" * 64
FOREIGN_TYPE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
WITH_FOREIGN = json.dumps(
    {
        "config": {"digest": CONFIG, "size": 2},
        "layers": [{"digest": FOREIGN, "size": 1000, "mediaType": FOREIGN_TYPE}],
    }
).encode()


class TestForeignLayers:
    @staticmethod
    def host(push_answer: Answer = OK, version: str = "1.6.20") -> Host:
        return Host([image(REF, A)], answers={"push": push_answer}, blobs={A: WITH_FOREIGN}, version=version)

    @pytest.mark.parametrize(
        ("version", "asked", "flag"), [("1.6.20", False, False), ("1.6.20", True, True), ("1.5.18", True, False)]
    )
    def test_are_pushed_where_that_is_asked_for_or_ctr_always_does(
        self, answering: Answering, version: str, *, asked: bool, flag: bool
    ) -> None:
        answering(None, A).stored = frozenset({FOREIGN})
        host = self.host(version=version)
        result = pushed(host, foreign_layers=asked)
        assert ("--allow-non-distributable-blobs" in host.texts["push"]) is flag
        assert (result.size, result.notes) == (len(WITH_FOREIGN) + 2 + (1000 if asked else 0), ())

    def test_that_the_registry_lacks_afterwards_are_told_or_where_they_were_pushed_an_error(
        self, answering: Answering
    ) -> None:
        answering(None, A).stored = frozenset()
        result = pushed(self.host())
        assert "1 foreign layer (1000 B)" in result.notes[-1] and result.notes[-1] in "\n".join(result.lines())
        answering(None, A).stored = frozenset()
        with pytest.raises(errors.VerifyFailed, match="foreign"):
            pushed(self.host(), foreign_layers=True)

    def test_are_pushed_later_to_a_registry_that_has_the_rest(self, answering: Answering) -> None:
        registry = answering(A)
        registry.stored = frozenset()
        assert pushed(self.host()).status is Status.UNCHANGED
        host = self.host()
        with pytest.raises(errors.VerifyFailed):
            pushed(host, foreign_layers=True)
        assert "push" in host.texts
        registry.stored = frozenset({FOREIGN})
        assert pushed(self.host(), foreign_layers=True).status is Status.UNCHANGED

    def test_that_a_registry_wants_get_a_hint(self, answering: Answering) -> None:
        answering(None)
        refused = Answer(1, b"", 'ctr: failed commit on ref "manifest-x": unexpected status: 400 Bad Request\n')
        with pytest.raises(errors.FerryError) as caught:
            pushed(self.host(refused))
        assert "--foreign-layers" in caught.value.hint


def pusher(digest: str = A, **more: Any) -> Host:
    return Host([image(REF, digest)], answers={"push": OK}, **more)


class TestSeveralHosts:
    @pytest.mark.parametrize("options", [{}, {"force": True}])
    @pytest.mark.parametrize("dry_run", [False, True])
    @pytest.mark.parametrize("there", [None, OTHER])
    def test_that_would_give_one_name_different_digests_give_it_none(
        self, answering: Answering, *, options: dict[str, Any], dry_run: bool, there: str | None
    ) -> None:
        answering(there)
        scripted_fleet = ScriptedFleet(*(pusher(digest, dry_run=dry_run) for digest in (A, CHILD, A)))
        answers = scripted_fleet.push(**options)
        exists = there and not options
        assert {type(answer) for answer in answers} == {errors.ReferenceExists if exists else errors.Drift}
        if not exists:
            assert f"{A} on 0, 2\n{CHILD} on 1" in answers[0].detail
        assert scripted_fleet.pushed == [False] * 3
        assert all(host.failed for host in scripted_fleet)

    def test_push_although_one_of_them_cannot(self, answering: Answering) -> None:
        answering(None, None, None, A)
        scripted_fleet = ScriptedFleet(Host([]), pusher(), pusher())
        refused, changed, unchanged = scripted_fleet.push()
        assert isinstance(refused, errors.ImageNotFound)
        assert (changed.status, unchanged.status) == (Status.CHANGED, Status.UNCHANGED)
        assert scripted_fleet.pushed == [False, True, False]  # once is enough

    def test_a_name_that_changes_after_the_inspection_is_not_moved(self, answering: Answering) -> None:
        answering(None, None, B)
        scripted_fleet = ScriptedFleet(pusher(), pusher())
        assert {type(answer) for answer in scripted_fleet.push()} == {errors.ReferenceExists}
        assert scripted_fleet.pushed == [False, False]

    def test_a_manifest_that_an_old_ctr_tags_before_the_index_is_no_other_image(self, answering: Answering) -> None:
        # ctr up to 1.2 lets the tag point at each manifest of an index. Others may see that while it pushes.
        answering(None, None, CHILD, CHILD, B, B, B)
        scripted_fleet = ScriptedFleet(*(index_host(absent=(), answers={"push": OK}) for _ in range(2)))
        assert [answer.status for answer in scripted_fleet.push()] == [Status.CHANGED, Status.UNCHANGED]

    def test_are_verified_once_more_when_all_are_done(self, answering: Answering) -> None:
        # Two inspections, one push and its check, one host with nothing to do; then the digest has changed.
        answering(None, None, None, A, A, B)
        scripted_fleet = ScriptedFleet(pusher(), pusher())
        answers = scripted_fleet.push()
        assert scripted_fleet.pushed == [True, False]
        assert {type(answer) for answer in answers} == {errors.VerifyFailed}
        images = [image for answer in answers for image in answer.result.images]
        assert [(image.status, image.method) for image in images] == [(Status.FAILED, "push"), (Status.FAILED, "")]
        assert all(A in answer.detail and B in answer.detail for answer in answers)

    def test_that_are_only_one_ask_the_registry_twice(self, answering: Answering) -> None:
        registry = answering(None, A)
        assert [answer.status for answer in ScriptedFleet(pusher()).push()] == [Status.CHANGED]
        assert registry.asked == 2
