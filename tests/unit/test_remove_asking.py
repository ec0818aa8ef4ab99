"""`remove` asks once before it removes what may not be meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from removing import ONE, TWO, FakeHost
from retagging import B, image

from ctr_ferry import errors
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer
from tasks import remove as remove_command
from tasks.remove import Request


@dataclass
class FakeFleet:
    """Hosts, one after the other, and somebody at the terminal or not."""

    hosts: Mapping[str, FakeHost]
    at_terminal: bool = False
    answer: bool = False
    asked: list[str] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def each(self, work: Callable[[Any], Any], **_: object) -> dict[str, Any]:
        for name, host in self.hosts.items():
            if not host.failed:
                try:
                    self.answers[name] = work(host)
                except errors.FerryError as error:
                    host.failed, self.answers[name] = True, error
        return dict(self.answers)

    def confirm(self, question: str) -> bool:
        self.asked.append(question)
        return self.answer

    def __iter__(self) -> Any:
        return iter(self.hosts.values())


def fleet(**more: Any) -> FakeFleet:
    return FakeFleet({n: FakeHost([image(ONE), image(TWO, B)], name=n) for n in ("a", "b")}, **more)


def command(fleet: FakeFleet, **options: Any) -> dict[str, Any]:
    body: Any = remove_command.remove.body
    answers: dict[str, Any] = body(fleet, Request(**options))
    return answers


class TestAsking:
    @pytest.mark.parametrize("options", [{"ref": [ONE]}, {"match": "*"}])
    def test_nobody_is_there_so_nothing_is_removed_without_yes(self, options: dict[str, Any]) -> None:
        scripted_fleet = fleet()
        with pytest.raises(errors.UsageError) as caught:
            command(scripted_fleet, **options)
        assert f"{ONE} on a, b" in caught.value.detail
        assert "--yes" in caught.value.hint
        assert all(len(host.images) == 2 and host.failed for host in scripted_fleet)
        assert {type(answer) for answer in scripted_fleet.answers.values()} == {errors.NotStarted}

    def test_one_name_of_one_host_at_a_terminal_is_meant(self) -> None:
        scripted_fleet = FakeFleet(
            {"a": FakeHost([image(ONE)], name="a"), "b": FakeHost([], name="b")}, at_terminal=True
        )
        answers = command(scripted_fleet, ref=[ONE])
        assert [answer.status for answer in answers.values()] == [Status.CHANGED, Status.UNCHANGED]
        assert not scripted_fleet.asked

    @pytest.mark.parametrize(("hosts", "options"), [("ab", {"ref": [ONE]}), ("a", {"match": "*app*"})])
    def test_one_name_of_several_hosts_or_by_a_glob_is_asked_about(self, hosts: str, options: dict[str, Any]) -> None:
        scripted_fleet = FakeFleet({n: FakeHost([image(ONE)], name=n) for n in hosts}, at_terminal=True, answer=True)
        command(scripted_fleet, **options)
        (question,) = scripted_fleet.asked
        assert f"Remove 1 name from {', '.join(hosts)}?" in question and ONE in question

    @pytest.mark.parametrize("answer", [True, False])
    def test_several_names_at_a_terminal_are_asked_about_once(self, answer: bool) -> None:
        scripted_fleet = fleet(at_terminal=True, answer=answer)
        if answer:
            command(scripted_fleet, match="*")
        else:
            with pytest.raises(errors.NotStarted, match=r"^Nothing was removed\.$") as told:
                command(scripted_fleet, match="*")
            assert told.value.exit_code == 1 and not told.value.hint
        (question,) = scripted_fleet.asked
        assert "Remove 2 names from a, b?" in question and f"{TWO} on a, b" in question
        assert {len(host.images) for host in scripted_fleet} == {0 if answer else 2}

    def test_yes_asks_nothing(self) -> None:
        scripted_fleet = fleet(at_terminal=True)
        assert {a.status for a in command(scripted_fleet, match="*", yes=True).values()} == {Status.CHANGED}
        assert not scripted_fleet.asked

    def test_a_glob_that_fits_nothing_anywhere_is_an_error(self) -> None:
        empty = {n: FakeHost([image(ONE)], name=n) for n in "ab"}
        with pytest.raises(errors.NothingFound, match="no image fits '\\*/nothing:1'") as raised:
            command(FakeFleet(empty), match="*/nothing:1", yes=True)
        assert [a.images for a in raised.value.result.values()] == [(), ()]
        assert "find --match nothing" in raised.value.hint
        some = {"a": FakeHost([image(ONE)], name="a"), "b": FakeHost([image(TWO, B)], name="b")}
        answers = command(FakeFleet(some), match=ONE, yes=True)
        assert [a.status for a in answers.values()] == [Status.CHANGED, Status.UNCHANGED]

    def test_where_nothing_goes_nothing_is_asked(self) -> None:
        scripted_fleet = fleet()
        assert {a.status for a in command(scripted_fleet, ref=["x/y:1"]).values()} == {Status.UNCHANGED}

    def test_a_host_that_failed_at_inspection_stays_failed(self) -> None:
        scripted_fleet = fleet()
        scripted_fleet.hosts["a"].answers = {"containers": Answer(1, b"", "ctr: boom")}
        answers = command(scripted_fleet, ref=[ONE], yes=True)
        assert isinstance(answers["a"], errors.CommandFailed)
        assert answers["b"].status is Status.CHANGED
