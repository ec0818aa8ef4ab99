"""``hosts``: the inventory as ctr-ferry understands it; connects to no host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ctr_ferry.ctr.probe import Settings
from ctr_ferry.errors import BadInventory
from ctr_ferry.oci.registry import Registries
from ctr_ferry.report.documents import InventoryData, InventoryHost
from ctr_ferry.report.outcome import Table, View
from ctr_ferry.run.command import ControlMachine, on_control_machine
from ctr_ferry.text import names

if TYPE_CHECKING:
    from ctr_ferry.inventory.selector import HostSelector


def parse() -> None:
    """The command has no options of its own."""


@on_control_machine(parse, help={})
def hosts(control_machine: ControlMachine, _: None) -> View:
    """Show the inventory as ctr-ferry understands it: hosts, groups, how each host is reached. Connects to nothing."""
    selector = control_machine.selector
    data = [_as_data(selector, name) for name in selector.names(control_machine.patterns or ("all",))]
    rows = tuple(map(_row, data))
    columns = ("HOST", "ADDRESS", "GROUPS", "CTR", "GATEWAY", "REGISTRIES")
    shown = InventoryData(inventory=str(selector.file), hosts=data, notes=list(selector.notes))
    return View(shown, Table(columns, rows, tuple(selector.notes)), failure=_failure(selector, data))


def _failure(selector: HostSelector, data: Sequence[InventoryHost]) -> BadInventory | None:
    """What is wrong with the hosts, each fault once; None if nothing is."""
    faults: dict[tuple[str, str], list[str]] = {}
    for each in data:
        if "error" in each:
            message = each["error"]["message"].replace(f"host {each['host']!r}", "the host")
            faults.setdefault((message, each["error"]["hint"]), []).append(each["host"])
    if not faults:
        return None
    lines = [f"{names(hosts)}: {message}" for (message, _), hosts in faults.items()]
    if len(lines) == 1:
        return BadInventory(lines[0], hint=f"{next(iter(faults))[1]}; then: fab hosts")
    return BadInventory(
        f"{selector.file} has {len(lines)} faults", detail="\n".join(lines), hint="correct them, then try: fab hosts"
    )


def _as_data(selector: HostSelector, name: str) -> InventoryHost:
    """A host as data, with passwords only as whether there is one; if its variables are wrong, their error."""
    groups = selector.groups_of(name)
    try:
        if selector.leaves_out(name):
            return {"host": name, "groups": groups, "left_out": True}
        target = selector.target(name)
    except BadInventory as error:
        return {"host": name, "groups": groups, "error": error.to_json()}
    gateway = target.gateway
    return {
        "host": target.name,
        "address": target.address,
        "port": target.port,
        "user": target.user,
        "groups": groups,
        "become": target.become,
        "password": target.password is not None,
        "become_password": target.become_password is not None,
        "gateway": gateway if gateway is None or isinstance(gateway, str) else gateway.name,
        "known_hosts": [str(file) for file in target.trust.known_hosts],
        "accept_new": target.trust.accept_new,
        "ctr": {key: value for key, value in asdict(target.variables_of(Settings)).items() if value},
        "registries": [registry.name for registry in target.variables_of(Registries).known],
    }


def _row(each: InventoryHost) -> tuple[str, ...]:
    groups = ", ".join(each["groups"])
    if "error" in each or "left_out" in each:
        return (each["host"], "(left out)" if "left_out" in each else f"({each['error']['kind']})", groups, "", "", "")
    user = f"{each['user']}@" if each["user"] else ""
    port = f":{each['port']}" if each["port"] else ""
    address = f"[{each['address']}]" if ":" in each["address"] and port else each["address"]
    ctr = ", ".join(f"{key}={value}" for key, value in each["ctr"].items())
    return (
        each["host"],
        f"{user}{address}{port}",
        groups,
        ctr,
        each["gateway"] or "",
        ", ".join(each["registries"]),
    )
