"""A command may work on hosts besides those of its command line, and on these over one connection each."""

from __future__ import annotations

from typing import Any, cast

import pytest
from scripted_fleet import Did, ScriptedFleet

from ctr_ferry import errors
from ctr_ferry.ssh.host import Host


def test_hosts_of_the_command_itself_are_asked_over_their_own_connection_which_stays_open() -> None:
    scripted = ScriptedFleet(2)
    fleet, own = scripted.begin(dry_run=True), scripted.machines["a"]
    asked = fleet.also(["ax"], lambda host: host)
    assert asked["a"] is cast(Any, own)
    assert cast(Any, asked["x"]).dry_run
    assert fleet.beside(["x", "b"], lambda host: host.name) == {"x": "x", "b": "b"}
    fleet.each(lambda _: Did())
    assert (own.closed, scripted.machines["b"].closed) == (0, 1)
    fleet.close()
    assert (own.closed, cast(Any, asked["x"]).closed) == (1, 1)


def test_a_later_command_of_the_line_finds_the_lines_hosts_still_connected() -> None:
    fleet = ScriptedFleet(1).begin(last=False)
    own, other = (cast(Any, host) for host in fleet.also(["ax"], lambda host: host).values())
    fleet.close()
    assert (own.closed, other.closed) == (0, 1)


def test_a_further_host_that_fails_has_its_error_and_no_outcome() -> None:
    def fail(_: Host) -> None:
        raise errors.Unreachable("it is down")

    scripted = ScriptedFleet(1)
    fleet = scripted.begin()
    assert isinstance(fleet.also(["x"], fail)["x"], errors.Unreachable)
    assert fleet.beside([], fail) == {}
    assert scripted.notebook.recorded == []


@pytest.mark.parametrize("close", [True, False])
def test_hosts_that_work_together_stay_connected_where_more_is_to_come(close: bool) -> None:
    class Together:
        def work(self, host: Host) -> Did:
            return Did(host.name)

        def gone(self, host: str) -> None:
            pass

    scripted = ScriptedFleet(2)
    scripted.begin().together(lambda _: Together(), close=close)
    assert [machine.closed for machine in scripted.machines.values()] == [int(close)] * 2
