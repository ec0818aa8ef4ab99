"""`remove` removes the names that are meant, and reports what the host says afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from removing import CONFIG, ONE, TWO, FakeHost, record, run, statuses
from retagging import A, B, image

from ctr_ferry import errors
from ctr_ferry.ctr import remove as ctr_remove
from ctr_ferry.report.outcome import Status, as_dry_run
from ctr_ferry.shell import Answer
from tasks.remove import Request, apply, plan


class TestTheCommandLine:
    @pytest.mark.parametrize("options", [{}, {"ref": []}, {"ref": [ONE], "match": "*"}])
    def test_needs_names_or_a_glob(self, options: dict[str, Any]) -> None:
        with pytest.raises(errors.UsageError, match="--ref"):
            Request(**options)

    def test_refuses_a_glob_that_is_no_reference(self) -> None:
        with pytest.raises(errors.BadReference):
            Request(ref=["r.example/*"])

    def test_takes_each_name_once(self) -> None:
        assert Request(ref=[ONE, TWO, ONE]).refs == (ONE, TWO)


class TestNames:
    def test_that_are_no_references_go_by_their_exact_text(self) -> None:
        odd = ["r.example/MyApp:1", "<none>@<none>", "Not A Name"]
        host = FakeHost([*map(image, odd), image(ONE), record()])
        assert statuses(run(host, ref=odd)) == dict.fromkeys(odd, Status.CHANGED)
        assert [i.name for i in host.images] == [ONE, CONFIG]
        (absent,) = run(host, ref=["r.example/MyApp:2"]).images
        assert absent.status is Status.UNCHANGED and "no image reference" in absent.notes[0]

    def test_one_of_two_leaves_the_image_and_cris_record(self) -> None:
        host = FakeHost([image(ONE), image(TWO), record()])
        result = run(host, ref=[ONE])
        assert statuses(result) == {ONE: Status.CHANGED}
        assert TWO in result.images[0].notes[0]
        assert [i.name for i in host.images] == [TWO, CONFIG]
        assert len(host.scripts) == 1  # nobody is asked what is in use

    def test_the_last_takes_cris_record_with_it(self) -> None:
        host = FakeHost([image(ONE), record(), image(TWO, B), record(f"sha256:{'9' * 64}", B)])
        result = run(host, ref=[ONE])
        assert result.images[0].records == (CONFIG,)
        assert [i.name for i in host.images] == [TWO, f"sha256:{'9' * 64}"]
        assert len(host.scripts) == 2

    def test_both_together_are_the_last(self) -> None:
        host = FakeHost([image(ONE), image(TWO), record()])
        assert statuses(run(host, ref=[ONE, TWO])) == {ONE: Status.CHANGED, TWO: Status.CHANGED}
        assert not host.images

    def test_elsewhere_than_in_kubelets_namespace_a_digest_as_a_name_is_left_alone(self) -> None:
        host = FakeHost([image(ONE), record()], namespace="other")
        run(host, ref=[ONE])
        assert [i.name for i in host.images] == [CONFIG]

    def test_a_digest_is_all_of_its_names_and_cris_record_by_itself_where_they_are_gone(self) -> None:
        for digest in (A, CONFIG):
            host = FakeHost([image(ONE), image(TWO), record(), image("x/y:1", B)])
            assert set(statuses(run(host, ref=[digest]))) == {ONE, TWO}
            assert [i.name for i in host.images] == ["x/y:1"]
            host = FakeHost([record(), image("x/y:1", B)])
            assert set(statuses(run(host, ref=[digest]))) == {CONFIG}
            assert [i.name for i in host.images] == ["x/y:1"]

    def test_what_cri_pulled_by_digest_goes_with_the_last_tag_of_its_repository(self) -> None:
        pulled = f"r.example/app@{A}"
        host = FakeHost([image(ONE), image(TWO), record(pulled), record()])
        run(host, ref=[ONE, TWO])
        assert not host.images
        host = FakeHost([image(ONE), record(pulled), image("s.example/app:1"), record()])
        run(host, ref=[ONE])
        assert {i.name for i in host.images} == {pulled, "s.example/app:1", CONFIG}

    def test_a_name_by_digest_that_nobody_of_cri_gave_stays(self) -> None:
        given = f"r.example/app@{A}"
        host = FakeHost([image(ONE), image(given), record()])
        run(host, ref=[ONE])
        assert {i.name for i in host.images} == {given, CONFIG}

    def test_repository_at_digest_never_means_another_repository(self) -> None:
        host = FakeHost([image("s.example/app:1")])
        assert statuses(run(host, ref=[f"r.example/app@{A}"])) == {f"r.example/app@{A}": Status.UNCHANGED}

    def test_absent_names_change_nothing(self) -> None:
        host = FakeHost([image(ONE)])
        assert run(host, ref=[TWO]).status is Status.UNCHANGED
        assert run(host, match="nothing*").lines() == ["no name in namespace k8s.io fits"]
        assert not host.scripts

    def test_a_glob_never_names_cris_record(self) -> None:
        host = FakeHost([image(ONE), image(TWO, B), record(), record(f"sha256:{'9' * 64}", B)])
        assert set(statuses(run(host, match="*"))) == {ONE, TWO}

    def test_a_dry_run_only_says_it(self) -> None:
        host = FakeHost([image(ONE), record()], dry_run=True)
        result = run(host, ref=[ONE])
        assert (result.status, len(host.images)) == (Status.CHANGED, 2)
        several = FakeHost([image(ONE), image(TWO)], dry_run=True)
        assert [
            line.split("  ")[1] for line in as_dry_run(run(several, match="*")).lines() if "  " in line.strip()
        ] == ["would-change"] * 2


class TestWhatTheHostSaysAfterwards:
    def test_decides(self) -> None:
        host = FakeHost([image(ONE), record()], stubborn=[CONFIG])
        with pytest.raises(errors.VerifyFailed, match=CONFIG):
            run(host, ref=[ONE])

    def test_with_the_reason_that_ctr_gave(self) -> None:
        host = FakeHost([image(ONE)], answers={"remove": Answer(1, b"", "ctr: transport is closing: unavailable")})
        with pytest.raises(errors.DaemonUnreachable):
            run(host, ref=[ONE])

    def test_and_ctrs_failure_does_not_matter_where_the_name_is_gone(self) -> None:
        host = FakeHost([image(ONE)])
        made = plan(host, Request(ref=[ONE]))  # type: ignore[arg-type]
        host.images, host.answers = [], {"remove": Answer(1, b"", "ctr: not found")}
        assert apply(host, made).status is Status.CHANGED  # type: ignore[arg-type]

    def test_a_container_that_came_meanwhile_is_in_use(self) -> None:
        taken = Answer(ctr_remove.TAKEN_UP, b"", f"container c9 uses {ONE}")
        host = FakeHost([image(ONE)], answers={"remove": taken})
        with pytest.raises(errors.InUse) as caught:
            run(host, ref=[ONE])
        assert "c9" in caught.value.detail
