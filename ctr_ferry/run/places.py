"""Where a user of the command ``ctr-ferry`` has the inventory, the records of runs and own settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ctr_ferry import shell
from ctr_ferry.errors import UsageError
from ctr_ferry.ssh.local_path import local_path

NAME = "ctr-ferry"
PROJECT = Path(__file__).resolve().parents[2]  # where fabfile.py lies
_PATHS = ("inventory", "known_hosts", "runs")  # settings of `fleet` that start from the folder of their file


def own_places() -> dict[str, Any]:
    """Where a user has the inventory and the records of runs, as settings."""
    here = Path("hosts.yaml")
    inventory = here.absolute() if here.is_file() else _folder("XDG_CONFIG_HOME", "~/.config") / "hosts.yaml"
    return {"fleet": {"inventory": str(inventory), "runs": str(_folder("XDG_STATE_HOME", "~/.local/state") / "runs")}}


def own_settings() -> dict[str, Any]:
    """The settings of the user's own fabric.yaml; empty without such a file.

    Raises:
        UsageError: the file cannot be read, or is no mapping.
    """
    file = _folder("XDG_CONFIG_HOME", "~/.config") / "fabric.yaml"
    if not file.is_file():
        return {}
    import yaml

    try:
        settings = yaml.safe_load(file.read_text()) or {}
        fleet = settings.get("fleet", {})
        fleet |= {name: str(file.parent / local_path(fleet[name])) for name in _PATHS if name in fleet}
    except (OSError, ValueError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
    except (AttributeError, TypeError):
        problem = "it must have sections such as fleet, each with its settings"
    else:
        return dict(settings)
    raise UsageError(
        f"{file} cannot be read: {problem}",
        hint=f"correct it, or move it away: {shell.join(['mv', str(file), f'{file}.old'])}",
    )


def _folder(variable: str, usual: str) -> Path:
    """Our folder in one of the user's base directories. As the standard says, a relative path does not count."""
    given = os.environ.get(variable, "")
    return (Path(given) if given.startswith("/") else local_path(usual)) / NAME
