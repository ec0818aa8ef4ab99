"""The settings of a run come from fabric.yaml; a wrong one is refused with its name."""

from __future__ import annotations

import pytest
from fabric import Config

from ctr_ferry.errors import UsageError
from ctr_ferry.run.settings import limits
from ctr_ferry.ssh.target import Limits


def configured(**sections: dict[str, object]) -> Config:
    return Config(overrides={"load_ssh_configs": False, **sections})


def test_every_limit_of_time_can_be_set() -> None:
    given = {"connect": 7, "command": 60, "idle": 300, "registry": "9"}
    assert limits(configured(timeouts=dict(given))) == Limits(connect=7, command=60, idle=300, registry=9)
    assert limits(configured()) == Limits()


@pytest.mark.parametrize("name", ["command", "idle", "registry"])
def test_a_limit_that_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="abc"):
        limits(configured(timeouts={name: "abc"}))
