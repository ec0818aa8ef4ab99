"""One line works on many hosts at once, within limits, over one connection each, and the record has all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ferry import Fab, Run
from forkserver import ForkServer
from run_records import whole

from lab.crowd import Crowd
from lab.fleet import Fleet

TIMES = "date +%s%N; sleep 0.5; date +%s%N"


class Runs(Fab):
    """`fab` over a crowd, with records of its own."""

    def __init__(self, crowd: Crowd, folder: Path, server: ForkServer) -> None:
        super().__init__(crowd.inventory, folder, server)
        self.crowd, self.runs = crowd, folder / "runs"

    def records(self) -> list[dict[str, Any]]:
        """Return every record, oldest first."""
        return [whole(folder) for folder in sorted(self.runs.iterdir())]

    def record(self) -> dict[str, Any]:
        """Return the only record."""
        (record,) = self.records()
        return record


@pytest.fixture(scope="module")
def crowd(fleet: Fleet) -> Iterator[Crowd]:
    """Twelve hosts, the last of them dead."""
    if "node3" not in fleet.nodes:
        pytest.skip("a crowd needs node3")
    with Crowd(fleet, 12, dead=[12]) as crowd:
        yield crowd


@pytest.fixture
def runs(crowd: Crowd, tmp_path: Path, fab: Fab) -> Runs:
    """`fab` over the crowd."""
    return Runs(crowd, tmp_path, fab.server)


def hosts(numbers: range) -> str:
    """Return the crowd's hosts as -H takes them."""
    return ",".join(f"h{number:03}" for number in numbers)


def most_at_once(run: Run) -> int:
    """Return how many hosts were at work at the same time, by what TIMES said."""
    spans = [tuple(map(int, o["result"]["stdout"].split())) for o in run.outcomes.values()]
    return max(sum(start <= begin < end for start, end in spans) for begin, _ in spans)


def test_all_hosts_work_at_once_up_to_the_number_of_workers(runs: Runs) -> None:
    eight = hosts(range(1, 9))
    assert most_at_once(runs("-H", eight, "run", "--json", TIMES)) > 3
    assert most_at_once(runs("-H", eight, "run", "--json", TIMES, FABRIC_FLEET_WORKERS="2")) <= 2


def test_serial_takes_so_many_hosts_at_a_time_one_batch_after_the_other(runs: Runs) -> None:
    run = runs("-H", hosts(range(1, 7)), "run", "--json", "--serial", "2", TIMES)
    assert most_at_once(run) == 2
    spans = {host: tuple(map(int, o["result"]["stdout"].split())) for host, o in run.outcomes.items()}
    for first, second in (("h001", "h003"), ("h002", "h003"), ("h003", "h005"), ("h004", "h006")):
        assert spans[first][1] < spans[second][0], spans


@pytest.mark.parametrize(("limit", "failed"), [("2", 2), ("20%", 2), ("1", 1), ("1%", 1)])
def test_no_host_is_started_once_enough_have_failed(runs: Runs, limit: str, failed: int) -> None:
    run = runs("-H", hosts(range(1, 11)), "run", "--json", "--serial", "1", "--limit-failures", limit, "exit 3")
    assert run.exit == 1
    assert list(run.statuses.values()) == ["command-failed"] * failed + ["not-started"] * (10 - failed)
    assert [o["status"] for o in run.outcomes.values()][failed:] == ["skipped"] * (10 - failed)


def test_an_unreachable_host_counts_as_failed(runs: Runs) -> None:
    run = runs("-H", "h012,h001", "run", "--json", "--serial", "1", "--limit-failures", "1", "true")
    assert run.exit == 4
    assert run.statuses == {"h012": "host-unreachable", "h001": "not-started"}


def test_a_limit_that_is_not_reached_stops_no_host(runs: Runs) -> None:
    run = runs("-H", "h012,h001,h002", "run", "--json", "--serial", "1", "--limit-failures", "2", "true")
    assert run.statuses == {"h012": "host-unreachable", "h001": "ok", "h002": "ok"}


def test_a_failed_host_is_skipped_for_later_commands_of_the_line(fab: Fab, fleet: Fleet) -> None:
    named = ",".join(list(fleet.nodes)[-2:])
    first, second = list(fleet.nodes)[-2:]
    run = fab("-H", named, "run", "--json", f'[ "$(hostname)" = {second} ]', "run", "echo again")
    assert run.exit == 1
    told = [{o["host"]: o["status"] for o in command["outcomes"]} for command in run.document["commands"]]
    assert told == [{first: "failed", second: "ok"}, {first: "skipped", second: "ok"}]


def test_a_host_is_connected_to_once_however_many_commands_the_line_has(runs: Runs) -> None:
    before = runs.crowd.connections()
    run = runs("-H", hosts(range(1, 9)), "run", "--json", "true", "run", "true", "run", "true")
    assert run.exit == 0
    assert len(run.document["commands"]) == 3
    assert runs.crowd.connections() - before == dict.fromkeys(hosts(range(1, 9)).split(","), 1)


def test_the_record_has_every_command_host_and_word(runs: Runs) -> None:
    run = runs("-H", "h001,h002,h012", "run", "--json", "echo out; echo err >&2", "run", "exit 7")
    record = runs.record()
    assert record["exit"] == run.exit == 1
    assert record["hosts"] == ["h001", "h002", "h012"]
    assert record["commands_asked"] == ["run", "run"]
    assert [o.pop("lines") for o in record["commands"][0]["outcomes"]][:2] == [["out", "err"], ["out", "err"]]
    for command in record["commands"][1:]:
        assert [o.pop("lines") for o in command["outcomes"]] == [[], [], []]  # the error says it
    assert [c["outcomes"] for c in record["commands"]] == [c["outcomes"] for c in run.document["commands"]]
    assert record["started"] <= record["ended"]
    (folder,) = runs.runs.iterdir()
    log = (folder / "h001.log").read_text()
    assert "echo out" in log and "--- stdout" in log and "err" in log and "exit 7" in log


def test_two_runs_at_once_do_not_disturb_each_other(runs: Runs) -> None:
    started = [runs.start("-H", hosts(range(1, 9)), "run", "--json", f"echo {n}; sleep 1") for n in range(2)]
    ended = [process.communicate(timeout=60) for process in started]
    for number, (process, (out, err)) in enumerate(zip(started, ended, strict=True)):
        run = Run(process.returncode, out, err)
        assert run.exit == 0, err
        assert [o["result"]["stdout"] for o in run.outcomes.values()] == [f"{number}\n"] * 8
    told = [[o["result"]["stdout"] for o in r["commands"][0]["outcomes"]] for r in runs.records()]
    assert sorted(told) == [["0\n"] * 8, ["1\n"] * 8]
    assert all(record["exit"] == 0 for record in runs.records())


def test_two_hundred_hosts_with_dead_and_hanging_ones(fab: Fab, fleet: Fleet, crowd: Crowd, tmp_path: Path) -> None:
    assert crowd.good  # up, beside this one
    loopback, _, third = fleet.network.rpartition(".")
    network = f"{loopback}.{int(third) + 11}"
    with Crowd(fleet, 200, dead=[50, 100, 150], hanging=[4], network=network) as many:
        runs = Runs(many, tmp_path, fab.server)
        run = runs("-H", "all", "doctor", "--json")
        assert run.exit == 4
        bad = {h: kind for h, kind in run.statuses.items() if kind != "ok"}
        assert bad == {"h004": "connect-timeout", **dict.fromkeys(many.dead, "host-unreachable")}
        assert [h for h, kind in run.statuses.items() if kind == "ok"] == many.good
        assert all("1.6" in json.dumps(run.outcomes[h]["result"]) for h in many.good)
        assert many.connections() == dict.fromkeys([*many.good, *many.hanging], 1)
        assert 0 < run.peak < 250 << 10
        assert len(run.err.splitlines()) == 200  # a line a host
        again = runs("-H", "@last:unreachable", "run", "--json", "true")
        assert set(again.outcomes) == set(bad)
