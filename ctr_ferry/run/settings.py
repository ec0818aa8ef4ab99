"""The settings of a run: from fabric.yaml, the environment and Fabric's own options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ctr_ferry.errors import UsageError
from ctr_ferry.ssh.target import Limits, Trust

PROJECT = Path(__file__).resolve().parents[2]  # where fabfile.py lies


class FleetConfig(BaseModel):
    """The ``fleet`` section of fabric.yaml."""

    model_config = ConfigDict(extra="forbid")
    inventory: str | None = None
    known_hosts: str = "~/.ssh/known_hosts"
    host_keys: Literal["strict", "accept-new"] = "strict"
    workers: int = Field(32, ge=1, le=512)
    runs: str = "runs"
    keep_runs: int = Field(100, ge=1)

    @classmethod
    def of(cls, config: Any) -> FleetConfig:
        """Reads and checks the section.

        Args:
            config: Fabric's merged configuration.

        Raises:
            UsageError: a setting is wrong; the message names it.
        """
        try:
            return cls(**config.get("fleet", {}))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            variable = f"FABRIC_FLEET_{where.upper()}"
            at = variable if variable in os.environ else f"fleet.{where} in fabric.yaml"
            raise UsageError(f"{at} is wrong: {first['msg']}", hint=f"change the value {first['input']!r}") from None

    @property
    def trust(self) -> Trust:
        """Which host keys are trusted."""
        return Trust((PROJECT / Path(self.known_hosts).expanduser(),), self.host_keys == "accept-new")

    @property
    def runs_folder(self) -> Path:
        """The folder with the records of all runs."""
        return PROJECT / Path(self.runs).expanduser()


def limits(config: Any) -> Limits:
    """Time limits in seconds, from Fabric's ``-t`` and from ``timeouts`` in fabric.yaml; else our defaults.

    Raises:
        UsageError: a limit is no number.
    """
    timeouts, default = config.timeouts, Limits()
    try:
        connect = int(config.connect_kwargs.get("timeout") or timeouts.connect or default.connect)
        command = int(timeouts.command or default.command)
        return Limits(connect=connect, command=command, registry=int(timeouts.get("registry") or default.registry))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"timeouts in fabric.yaml must be whole seconds: {error}",
            hint="write each as a number, such as command: 3600",
        ) from error
