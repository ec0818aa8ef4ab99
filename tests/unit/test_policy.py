"""Who is too slow for the other hosts, and who is detached: decided by the times that are given, not by a clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import pytest

from ctr_ferry.transfer.policy import Pace, Policy

CHUNK, QUEUE = 1, 16


def pace(*, waiting: int = 0, now: float = 0.0) -> Pace:
    made = Pace(now)
    if waiting:
        made.add(waiting, now)
    return made


class TestPace:
    def test_counts_what_waits(self) -> None:
        one = pace()
        one.add(5, 1.0)
        one.add(-2, 2.0)
        assert one.waiting == 3

    @pytest.mark.parametrize(("since", "now", "idle"), [(0, 3, 0.0), (4, 9, 4.0), (6, 9, 3.0), (0, 4, 0.0)])
    def test_is_idle_from_the_moment_when_nothing_waits(self, since: float, now: float, idle: float) -> None:
        one = pace(waiting=5)
        one.add(-5, 5.0)
        assert one.idle(since, now) == idle

    def test_is_not_idle_while_anything_waits(self) -> None:
        assert pace(waiting=1).idle(0, 100) == 0.0
        assert pace().idle(0, 100) == 100.0

    def test_is_unmoved_since_it_took_something_or_got_the_first(self) -> None:
        one = pace()
        one.add(5, 10.0)
        one.add(5, 12.0)
        assert one.unmoved(13) == 3.0
        one.add(-1, 14.0)
        assert one.unmoved(15) == 1.0

    def test_an_end_of_data_is_something_that_it_takes(self) -> None:
        one = pace()
        one.add(0, 7.0)
        assert (one.unmoved(8), one.idle(0, 8)) == (1.0, 8.0)

    def test_a_second_that_two_readers_report_counts_once(self) -> None:
        one = pace()
        one.charge(1, 3)
        one.charge(2, 4)
        one.charge(1, 4)
        assert one.delay == 3.0


class TestCharge:
    def charged(self, *others: Pace, since: float = 10.0, now: float = 14.0) -> float:
        behind = pace(waiting=QUEUE)
        Policy().charge([behind], others, since, now)
        return behind.delay

    def test_is_the_time_that_the_longest_idle_host_lost(self) -> None:
        late = pace(waiting=1)
        late.add(-1, 13.0)
        assert self.charged(pace(waiting=1), late) == 1.0
        assert self.charged(pace(), late) == 4.0

    def test_is_nothing_where_all_others_are_busy_or_there_are_none(self) -> None:
        assert self.charged(pace(waiting=1)) == 0.0
        assert self.charged() == 0.0

    def test_is_the_same_for_all_that_are_behind(self) -> None:
        behind = [pace(waiting=QUEUE), pace(waiting=QUEUE)]
        Policy().charge(behind, [pace()], 10.0, 14.0)
        assert [each.delay for each in behind] == [4.0, 4.0]


class TestTooSlow:
    @pytest.mark.parametrize(
        ("delay", "now", "slow"),
        [(10.0, 12.0, False), (10.1, 12.0, True), (10.1, 20.0, True), (20.0, 40.0, False), (20.1, 40.0, True)],
    )
    def test_is_who_cost_more_than_the_patience_and_half_of_the_time(
        self, delay: float, now: float, slow: bool
    ) -> None:
        one = pace()
        one.charge(0, delay)
        assert Policy().is_too_slow(one, 0.0, now) is slow


class TestDetach:
    @pytest.mark.parametrize(("detached", "may"), [(0, True), (2, True), (3, False), (5, False)])
    def test_a_host_that_moves_needs_a_free_slot(self, detached: int, may: bool) -> None:
        assert Policy().may_detach(pace(waiting=QUEUE), 5.0, full=True, detached=detached) is may

    def test_a_stuck_host_does_not(self) -> None:
        assert Policy().may_detach(pace(waiting=QUEUE), 5.1, full=True, detached=3)

    def test_a_host_whose_queue_has_room_is_not_stuck(self) -> None:
        assert not Policy().may_detach(pace(waiting=1), 100.0, full=False, detached=3)


def rounds(seconds: Mapping[str, float], chunks: int, patience: float) -> dict[str, int]:
    """One reader, and hosts that need so many seconds for a chunk.

    Returns:
        By host that was detached, how many chunks it had taken.
    """
    policy, now = Policy(patience=patience), 0.0
    paces = {name: Pace(0.0) for name in seconds}
    taken: dict[str, deque[float]] = {name: deque() for name in seconds}  # when each chunk that waits is taken
    count, detached = dict.fromkeys(seconds, 0), {}

    def settle() -> None:
        """All that hosts take until now."""
        events = sorted((at, name) for name in paces for at in taken[name] if at <= now)
        for at, name in events:
            taken[name].popleft()
            paces[name].add(-CHUNK, at)
            count[name] += 1

    for _ in range(chunks):
        for name in list(paces):
            while name in paces and paces[name].waiting >= QUEUE:
                since, now = now, taken[name][0]
                settle()
                behind = {each for each in paces if paces[each].waiting >= QUEUE} | {name}
                others = [paces[each] for each in paces if each not in behind]
                policy.charge([paces[each] for each in behind], others, since, now)
                for each in behind:
                    if policy.is_too_slow(paces[each], 0.0, now):
                        detached[each] = count[each]
                        del paces[each]
            if name in paces:
                paces[name].add(CHUNK, now)
                taken[name].append(max(now, taken[name][-1] if taken[name] else now) + seconds[name])
    return detached


class TestHostsThatAreServedTogether:
    @pytest.mark.parametrize("seconds", [0.003, 3.0])
    def test_stay_together_where_they_are_of_one_speed_though_the_source_is_faster(self, seconds: float) -> None:
        assert rounds(dict.fromkeys("abc", seconds), 300, patience=0.1) == {}

    def test_stay_together_where_one_is_a_little_slower_and_the_others_are_as_good_as_busy(self) -> None:
        assert rounds({"slow": 0.004, "quick": 0.003}, 300, patience=0.1) == {}

    def test_lose_a_much_slower_one_though_it_still_moves(self) -> None:
        detached = rounds({"slow": 0.02, "quick": 0.0}, 300, patience=0.2)
        assert list(detached) == ["slow"] and detached["slow"] < 150

    def test_lose_all_that_are_much_slower_and_no_other(self) -> None:
        assert rounds({"a": 0.02, "quick": 0.001, "b": 0.03}, 300, patience=0.2).keys() == {"a", "b"}
