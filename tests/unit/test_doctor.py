"""What `doctor` finds, how it shows findings, and when it cleans."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from visits import DF, MINE, RUN, answer, facts, finding, visit

from ctr_ferry import errors
from ctr_ferry.ctr import health
from ctr_ferry.ctr.health import Finding, Health, Visit
from ctr_ferry.report.outcome import Outcome, Status
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.target import Target
from tasks import doctor as doctor_command
from tasks.doctor import DoctorResult, Request, tabulate


class TestFindings:
    def test_a_well_host_has_nothing_but_ok(self) -> None:
        assert {f.status for f in health.findings(visit())} == {Health.OK}

    def test_whatever_is_not_ok_says_what_to_do(self) -> None:
        bad = [
            visit(errors.CtrNotFound("no ctr", hint="set ctr_command")),
            visit(errors.DaemonUnreachable("down", detail="dial", hint="start it")),
            visit(errors.PermissionDenied("no", hint="sudo")),
            visit(errors.GarbledAnswer("odd", hint="look")),
            visit(facts("2.1.9", "1.6.20")),
            visit(facts("weird", "1.6.20")),
            visit(space=DF.format(size=1000, free=100)),
            visit(space=DF.format(size=1000, free=10)),
            visit(space="df: no such thing"),
            visit(clock="900"),
            visit(clock=""),
            visit(leftovers=f"namespace a\nimages 1\ningest {RUN}-1\n"),
        ]
        for each in bad:
            found = [f for f in health.findings(each) if f.status is not Health.OK]
            assert found and all(f.hint for f in found), found

    def test_a_listing_that_cannot_be_read(self) -> None:
        assert finding(visit(), "listings").status is Health.OK
        found = finding(visit(leftovers="namespace a\nimages 1\nnamespace k8s.io\nodd two,x=y\nodd \n"), "listings")
        assert (found.status, found.message) == (Health.FAIL, "in k8s.io 'two,x=y' is no row")
        assert "--namespace k8s.io images ls | cat -A" in found.hint

    @pytest.mark.parametrize(
        ("client", "server", "expected"),
        [
            ("1.6.20", "1.6.20", Health.OK),
            ("1.2.6", "1.6.20", Health.OK),
            ("1.6.20", "", Health.OK),
            ("2.1.9", "1.7.24", Health.OK),
            ("2.1.9", "1.6.20", Health.WARN),
            ("devel", "1.6.20", Health.WARN),
        ],
    )
    def test_versions(self, client: str, server: str, expected: Health) -> None:
        found = finding(visit(facts(client, server)), "version")
        assert found.status is expected
        assert client in found.message

    @pytest.mark.parametrize(
        ("free", "expected"), [(1000, "ok"), (150, "ok"), (149, "warn"), (50, "warn"), (49, "fail"), (-1, "fail")]
    )
    def test_space(self, free: int, expected: str) -> None:
        found = finding(visit(space=DF.format(size=1000, free=free)), "content store")
        assert found.status == expected
        assert "/root/content" in found.message and "on /va r" in found.message

    @pytest.mark.parametrize(
        ("there", "text", "expected"),
        [
            (1000, "as here", "ok"),
            (1001, "as here", "ok"),
            (1030, "29 s ahead of", "ok"),
            (1062, "61 s ahead of", "warn"),
            (940, "59 s behind", "ok"),
            (930, "69 s behind", "warn"),
        ],
    )
    def test_a_clock_is_off_only_outside_of_the_time_that_asking_took(
        self, there: int, text: str, expected: str
    ) -> None:
        found = finding(visit(clock=str(there)), "clock")
        assert (found.status, text in found.message) == (expected, True), found

    def test_images_where_kubelet_does_not_look(self) -> None:
        there = "namespace k8s.io\nnamespace moby\nimages 4\nnamespace x\nimages 1\n"
        found = finding(visit(leftovers=there), "namespaces")
        assert found.status is Health.WARN
        assert "fab -H HOST images --namespace moby" in found.hint
        assert finding(visit(facts(cri=False), leftovers=there), "namespaces").status is Health.OK

    @pytest.mark.parametrize(
        ("sockets", "told", "expected"),
        [
            (("/x.sock",), False, "ok"),
            (("/x.sock", "/y.sock"), False, "warn"),
            (("/x.sock", "/y.sock"), True, "ok"),
            (("/run/k3s/containerd/containerd.sock", "/x.sock"), True, "warn"),
        ],
    )
    def test_other_containerds_are_named(self, sockets: tuple[str, ...], told: bool, expected: str) -> None:
        found = finding(visit(facts(sockets=sockets, told=told)), "socket")
        assert (found.status, "ctr_address" in found.hint) == (expected, expected == "warn")
        assert all(socket in found.message + found.hint for socket in sockets)

    def test_retags_method(self) -> None:
        assert finding(visit(facts("1.6.20")), "retag").message == "by tag"
        assert "index" in finding(visit(facts("1.2.6")), "retag").message

    def test_what_a_run_at_work_has_is_not_left_over(self) -> None:
        there = f"namespace k8s.io\ningest {RUN}-1\n"
        assert finding(visit(leftovers=there), "leftovers").status is Health.WARN
        busy = visit(leftovers=there, sessions="2\n")
        assert busy.others_at_work
        assert finding(busy, "leftovers").status is Health.OK


WELL, ILL = Finding("a", Health.OK, "x"), Finding("b", Health.FAIL, "y", "do z")


class TestTheTable:
    def test_of_one_host_shows_what_is_ok_only_when_asked(self) -> None:
        ill = ("h", "b", "fail", "y", "do z")
        assert tabulate({"h": DoctorResult((WELL, ILL))}).rows == (ill,)
        assert tabulate({"h": DoctorResult((WELL, ILL), everything=True)}).rows == (("h", "a", "ok", "x", ""), ill)

    def test_of_many_only_what_is_to_be_mended_with_alike_hosts_in_one_row(self) -> None:
        many = {f"h{n}": DoctorResult((WELL, ILL)) for n in range(5)} | {"g": DoctorResult((WELL,))}
        table = tabulate(many)
        assert table.rows == (("h[0-4]", "b", "fail", "y", "do z"),)
        assert table.notes == ("nothing is wrong on g",)

    def test_of_many_shows_all_when_asked(self) -> None:
        assert len(tabulate({n: DoctorResult((WELL,), everything=True) for n in "ab"}).rows) == 1

    def test_takes_findings_out_of_errors_too(self) -> None:
        error = errors.Unhealthy("ill", result=DoctorResult((ILL,)))
        assert len(tabulate({"a": error, "b": errors.Unreachable("gone")}).rows) == 1

    def test_data_has_all_findings_and_nothing_of_what_is_shown(self) -> None:
        data = Outcome.of("h", 1.0, DoctorResult((WELL, ILL), everything=True)).to_json()["result"]
        assert [f["check"] for f in data["findings"]] == ["a", "b"]
        assert set(data) == {"findings", "cleaned", "status"}


class FakeHost:
    """Answers the doctor's one question with a visit's answers."""

    def __init__(
        self, visit: Visit | errors.FerryError, late: Visit | errors.FerryError | None = None, *, dry_run: bool = False
    ) -> None:
        self._visit, self._late, self.dry_run, self.asked = visit, late or visit, dry_run, 0
        self.scripts: list[Script] = []
        self.where = "root@h:22"
        self.has_sudo_password, self.run_id = False, MINE.removeprefix("ctr-ferry.")
        self.target = Target("h", "h")
        self.left = "namespace k8s.io\n"

    def open(self) -> None:
        pass

    def survey(self, *_: object) -> tuple[Any, Any]:
        self.asked += 1
        visit, self._visit = self._visit, self._late
        if isinstance(visit, errors.FerryError):
            raise visit
        return visit.facts, dict(visit.answers)

    def ask(self, script: Script) -> dict[str, Answer]:
        self.asked += 1
        self.scripts.append(script)
        return {name: answer(self.left if name == "leftovers" else "") for name in script.steps}


def examine(host: FakeHost, **options: bool) -> DoctorResult:
    body: Any = doctor_command.doctor.body
    result: DoctorResult = body(host, Request(**options))
    return result


class TestTheCommand:
    MESS = f"namespace k8s.io\nimages 1\ningest {RUN}-1\n"

    def leftovers(self, result: DoctorResult) -> Finding:
        return next(f for f in result.findings if f.check == "leftovers")

    def test_inspects_in_one_remote_command(self) -> None:
        host = FakeHost(visit(clock="0"))
        assert examine(host).status is Status.OK
        assert host.asked == 1

    def test_inspects_again_before_it_cleans(self) -> None:
        host = FakeHost(visit(leftovers=self.MESS))
        result = examine(host, clean=True)
        assert (result.status, host.asked) == (Status.CHANGED, 3)
        assert self.leftovers(result).message == f"removed in k8s.io: unfinished ingest {RUN}-1"

    def test_cleans_nothing_in_a_dry_run_nor_under_a_run_at_work(self) -> None:
        host = FakeHost(visit(leftovers=self.MESS), dry_run=True)
        assert (examine(host, clean=True).status, host.asked) == (Status.CHANGED, 1)
        host = FakeHost(visit(leftovers=self.MESS, sessions="2"))
        assert (examine(host, clean=True).status, host.asked) == (Status.OK, 1)

    def test_cleans_only_what_the_second_inspection_finds_and_by_its_ctr(self) -> None:
        other = replace(facts().ctr, argv=("/usr/bin/ctr",))
        late = visit(replace(facts(), ctr=other), leftovers=f"namespace k8s.io\ningest {RUN}-2\n")
        host = FakeHost(visit(leftovers=self.MESS), late)
        assert examine(host, clean=True).cleaned == (f"in k8s.io: unfinished ingest {RUN}-2",)
        (done,) = host.scripts
        assert "/usr/bin/ctr --timeout" in done.steps["clean-0"] and f"{RUN}-1" not in done.steps["clean-0"]

    @pytest.mark.parametrize("late", [visit(), visit(leftovers=MESS, sessions="2"), errors.RemoteTimeout("slow")])
    def test_cleans_nothing_if_the_second_inspection_finds_nothing_or_a_run_at_work(
        self, late: Visit | errors.FerryError
    ) -> None:
        host = FakeHost(visit(leftovers=self.MESS), late)
        with contextlib.suppress(errors.Unhealthy):
            assert examine(host, clean=True).status is Status.OK
        assert host.scripts == []

    def test_says_what_could_not_be_cleaned(self) -> None:
        host = FakeHost(visit(leftovers=self.MESS))
        host.left = self.MESS
        with pytest.raises(errors.Unhealthy, match="leftovers") as caught:
            examine(host, clean=True)
        assert self.leftovers(caught.value.result).status is Health.FAIL

    def test_a_fail_is_an_error_that_has_all_findings(self) -> None:
        with pytest.raises(errors.Unhealthy, match="ctr") as caught:
            examine(FakeHost(visit(errors.CtrNotFound("no ctr", hint="x"))))
        assert {"reachable", "clock", "content store"} <= {f.check for f in caught.value.result.findings}

    @pytest.mark.parametrize("error", [errors.PermissionDenied("no", detail="sudo: no"), errors.RemoteTimeout("slow")])
    def test_a_host_that_answers_nothing_is_a_finding(self, error: errors.FerryError) -> None:
        with pytest.raises(errors.Unhealthy) as caught:
            examine(FakeHost(error))
        assert [f.status for f in caught.value.result.findings] == [Health.OK, Health.FAIL]

    def test_an_unreachable_host_stays_unreachable(self) -> None:
        with pytest.raises(errors.ConnectionLost):
            examine(FakeHost(errors.ConnectionLost("gone")))
