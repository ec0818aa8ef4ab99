"""Reads what an ``ansible.cfg`` beside the inventory says of connections: what counts where the inventory is silent."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from ctr_ferry.errors import BadInventory
from ctr_ferry.inventory.contents import Var, Vars, read_text

_HONOURED = {
    ("defaults", "remote_user"): "ansible_user",
    ("defaults", "remote_port"): "ansible_port",
    ("defaults", "private_key_file"): "ansible_ssh_private_key_file",
    ("privilege_escalation", "become"): "ansible_become",
    ("privilege_escalation", "become_method"): "ansible_become_method",
    ("privilege_escalation", "become_user"): "ansible_become_user",
}
_NAMED = ("ssh_args", "ssh_common_args", "ssh_extra_args")
_JUMPS = re.compile(r"(?i:proxy)|-J")


def defaults(folder: Path) -> tuple[Vars, list[str]]:
    """The variables that hosts have unless the inventory gives them others, and notes about what is not honoured.

    Raises:
        BadInventory: the file cannot be read.
    """
    file = folder / "ansible.cfg"
    if not file.is_file():
        return {}, []
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",), strict=False)
    try:
        parser.read_string(read_text(file))
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next(iter(getattr(error, "errors", ())), ("?",))[0]
        raise BadInventory(
            f"{file}:{line}: no INI file", hint="write settings as name = value, below [section]"
        ) from error
    found = {}
    for (section, key), name in _HONOURED.items():
        if value := parser.get(section, key, fallback="").strip().strip("'\""):
            found[name] = Var(value, f"{file} [{section}]")
    ways = [key for key in _NAMED if _JUMPS.search(parser.get("ssh_connection", key, fallback=""))]
    return found, [f"{key} of {file} is not honoured: give its jump host in ansible_{key}" for key in ways]
