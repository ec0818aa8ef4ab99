"""The settings of a run: from fabric.yaml, the environment and Fabric's own options."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ctr_ferry.errors import UsageError
from ctr_ferry.run.places import PROJECT
from ctr_ferry.ssh.local_path import local_path
from ctr_ferry.ssh.target import Limits, Trust


class FleetConfig(msgspec.Struct):
    """The ``fleet`` section of fabric.yaml."""

    inventory: str | None = None
    known_hosts: str = "~/.ssh/known_hosts"
    host_keys: Literal["strict", "accept-new"] = "strict"
    workers: Annotated[int, msgspec.Meta(ge=1, le=512)] = 32
    runs: str = "runs"
    keep_runs: Annotated[int, msgspec.Meta(ge=1)] = 100
    keep_days: Annotated[int, msgspec.Meta(ge=0, le=36500)] = 90

    @classmethod
    def of(cls, config: Any) -> FleetConfig:
        """Reads and checks the section.

        Args:
            config: Fabric's merged configuration.

        Raises:
            UsageError: a setting is wrong; the message names it.
        """
        kinds = {field.name: field.type for field in msgspec.structs.fields(cls)}
        values = {}
        for name, value in dict(config.get("fleet", {})).items():
            variable = f"FABRIC_FLEET_{name.upper()}"
            at = variable if variable in os.environ else f"fleet.{name} in fabric.yaml"
            try:
                if name not in kinds:
                    raise msgspec.ValidationError(f"there is no such setting; there are {', '.join(kinds)}")
                values[name] = msgspec.convert(value, kinds[name], strict=False)
            except msgspec.ValidationError as error:
                change = f"change the value {value!r} in fabric.yaml, then run the command again"
                hint = f"unset {variable}" if at == variable else change
                raise UsageError(f"{at} is wrong: {error}", hint=hint) from None
        return cls(**values)

    @property
    def trust(self) -> Trust:
        """Which host keys are trusted."""
        return Trust((PROJECT / local_path(self.known_hosts),), self.host_keys == "accept-new")

    @property
    def runs_folder(self) -> Path:
        """The folder with the records of all runs."""
        return PROJECT / local_path(self.runs)


_LEAST = {"idle": 30}  # seconds: two signs of life of a host at work


def limits(config: Any) -> Limits:
    """Time limits in seconds, from Fabric's ``-t`` and from ``timeouts`` in fabric.yaml; else our defaults.

    Raises:
        UsageError: a limit is no number of seconds, or there is no such limit.
    """
    names = [field.name for field in fields(Limits) if field.name != "retries"]
    option = config.connect_kwargs.get("timeout")
    given = {**config.timeouts, "connect": option or config.timeouts.connect}
    values = {}
    for name, value in given.items():
        variable = f"FABRIC_TIMEOUTS_{name.upper()}"
        if name not in names:
            raise UsageError(
                f"there is no timeouts.{name}, which fabric.yaml sets",
                hint=f"use one of {', '.join(names)} there, then run the command again",
            )
        if value is not None:
            least = _LEAST.get(name, 1)
            try:
                values[name] = msgspec.convert(value, Annotated[int, msgspec.Meta(ge=least)], strict=False)
            except msgspec.ValidationError:
                if option and name == "connect":
                    raise UsageError(
                        f"the limit of -t must be whole seconds, from 1, and is {value!r}",
                        hint=f"give another one: -t {Limits().connect}",
                    ) from None
                at = variable if variable in os.environ else f"timeouts.{name} in fabric.yaml"
                write = f"write {name}: {getattr(Limits(), name)} there, then run the command again"
                raise UsageError(
                    f"{at} must be whole seconds, from {least}, and is {value!r}",
                    hint=f"unset {variable}" if at == variable else write,
                ) from None
    return Limits(**values)
