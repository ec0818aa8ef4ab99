"""Validates the variables of one host: Ansible's connection variables and our own ``ctr_…``."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ctr_ferry.ctr.commands import KUBELETS, LONGEST_NAMESPACE, NAMESPACE
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.errors import BadInventory, BadReference, UsageError
from ctr_ferry.inventory.ansible import Variables
from ctr_ferry.inventory.contents import Vars
from ctr_ferry.inventory.place import Place
from ctr_ferry.inventory.templates import Templates
from ctr_ferry.oci import registry
from ctr_ferry.oci.reference import parse_domain
from ctr_ferry.secrets import Secret
from ctr_ferry.ssh.local_path import local_path
from ctr_ferry.ssh.target import Limits, Target, Trust, is_address

_Path = Annotated[str, msgspec.Meta(pattern=r"^/[\w./@+-]+\Z")]
_Words = Annotated[str, msgspec.Meta(pattern=r"^[\w./@+ -]+\Z")]
_Namespace = Annotated[str, msgspec.Meta(pattern=rf"^{NAMESPACE}\Z", max_length=LONGEST_NAMESPACE)]
_HTTP = Annotated[str, msgspec.Meta(pattern=r"^http://(?:[\w.-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}/?\Z")]  # without a password


class Registry(msgspec.Struct):
    """One registry of ``ctr_registries``."""

    scheme: Literal["http", "https"] = "https"
    ca_file: str | None = None
    skip_verify: bool = False
    username: str | None = None
    password_env: str | None = None


class HostVars(msgspec.Struct):
    """The variables that ctr-ferry reads. All others are Ansible's own and are ignored.

    Attributes:
        given: the variables that the inventory has for the host.
        opaque: those of them that only Ansible can read, with the error; here they have their defaults.
        where: the file and line of each variable that is known.
    """

    ansible_connection: str = "ssh"
    ansible_host: str | None = None
    ansible_port: int | None = None
    ansible_user: str | None = None
    ansible_password: str | None = None
    ansible_ssh_private_key_file: str | None = None
    ansible_become: bool = False
    ansible_become_method: str = "sudo"
    ansible_become_user: str = "root"
    ansible_become_password: str | None = None
    ansible_ssh_args: str = ""
    ansible_ssh_common_args: str = ""
    ansible_ssh_extra_args: str = ""
    ctr_command: _Words | None = None
    ctr_address: _Path | None = None
    ctr_namespace: _Namespace = KUBELETS
    ctr_root: _Path | None = None
    ctr_snapshotter: _Namespace | None = None
    ctr_registries: dict[str, Any] = {}
    ctr_proxy: _HTTP | None = None
    ctr_hosts_dir: _Path | None = None
    given: frozenset[str] = frozenset()
    opaque: Mapping[str, BadInventory] = {}
    where: Mapping[str, str] = {}

    def plain(self, variable: str) -> Any:
        """The value of a variable; raises BadInventory if only Ansible can read it."""
        if variable in self.opaque:
            raise self.opaque[variable]
        return getattr(self, variable)


_SSH_CONNECTIONS = ("ssh", "paramiko", "paramiko_ssh", "smart")
_SSH_ARGS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")  # in the order of Ansible's argv

_WAYS = ("proxyjump", "proxycommand")  # of both, the first one that is given counts (ssh_config(5))

_SSH_PARSER = argparse.ArgumentParser(add_help=False, exit_on_error=False)
_SSH_PARSER.add_argument("-J", dest="jump", default="")
_SSH_PARSER.add_argument("-o", dest="options", action="append", default=[])

# Ansible's older spellings, and what they mean.
_ALIASES = {
    "ansible_ssh_host": "ansible_host",
    "ansible_ssh_port": "ansible_port",
    "ansible_ssh_user": "ansible_user",
    "ansible_ssh_pass": "ansible_password",
    "ansible_ssh_password": "ansible_password",
    "ansible_private_key_file": "ansible_ssh_private_key_file",
    "ansible_become_pass": "ansible_become_password",
}


def _validate(host: str, variables: Vars, defaults: Vars, folder: Path) -> HostVars:
    """Checks one host's merged variables. An error has file and line and, for a misspelt ``ctr_…``, the right name."""
    magic = {
        "inventory_hostname": host,
        "inventory_hostname_short": host.partition(".")[0],
        "inventory_dir": str(folder),
    }
    templates = Templates(variables, magic)
    kinds = {field.name: field.type for field in msgspec.structs.fields(HostVars) if "_" in field.name}
    ours = [name for name in kinds if name.startswith("ctr_")]
    for name, var in variables.items():
        if name.startswith("ctr_"):
            Place(var.where, host).refuse_unknown("variable", name, ours)
    aliased = {_ALIASES[name]: var for name, var in reversed(variables.items()) if name in _ALIASES}  # the first counts
    every = aliased | {name: var for name, var in variables.items() if name not in _ALIASES}
    given = frozenset(kinds).intersection(every)
    known = {name: var for name, var in (defaults | every).items() if name in kinds}
    values, opaque = dict[str, Any](), dict[str, BadInventory]()
    for name, var in known.items():
        place = Place(var.where, host)
        try:
            value = templates.value(var.value)
        except BadInventory as error:
            opaque[name] = place.unread(name, error.message)
            if name in ours:
                raise opaque[name] from error
            continue
        values[name] = place.convert(name, value, kinds[name])
        if name == "ctr_registries":
            values[name] = _registries(place, values[name])
        elif name in _CHECKS and values[name] not in (None, ""):
            _CHECKS[name](place, name, values[name])
    return HostVars(**values, given=given, opaque=opaque, where={name: var.where for name, var in known.items()})


def _registries(place: Place, given: Mapping[str, Any]) -> dict[str, Registry]:
    """Checks ``ctr_registries``; its names become those that full references have."""
    if {"docker.io", "index.docker.io"} <= given.keys():
        what = "docker.io and index.docker.io are one registry; leave one of them out"
        raise place.wrong("ctr_registries", what, None)
    kinds = {field.name: field.type for field in msgspec.structs.fields(Registry)}
    found = {}
    for name, settings in given.items():
        path = f"ctr_registries.{name}"
        values = {}
        for key, value in place.convert(path, settings, dict[str, Any]).items():
            place.refuse_unknown(f"key of {path}", key, list(kinds))
            values[key] = place.convert(f"{path}.{key}", value, kinds[key])
        found[_domain(place, path, name)] = Registry(**values)
    return found


def _domain(place: Place, path: str, name: str) -> str:
    """A registry's name as full references have it: ``index.docker.io`` is ``docker.io``."""
    try:
        domain = parse_domain(name)
    except BadReference as error:
        raise place.wrong(path, f"{error.message}; {error.hint}", name) from error
    _check_port(place, path, domain)
    return {"index.docker.io": "docker.io"}.get(domain, domain)


def _check_port(place: Place, path: str, address: str) -> None:
    _, colon, port = address.removeprefix("http://").rstrip("/").rpartition(":")
    if colon and not port.endswith("]") and not 0 < int(port) < 1 << 16:
        raise place.wrong(path, "it has no port from 1 to 65535", address)


def _check_ssh_port(place: Place, path: str, port: int) -> None:
    if not 0 < port < 1 << 16:
        raise place.wrong(path, "it is no port from 1 to 65535", port)


def _check_address(place: Place, path: str, address: str) -> None:
    if not is_address(address):
        raise BadInventory(
            f"{place.where}: {path} of host {place.host!r} is wrong: it must be a name or an address alone",
            hint="give the user as ansible_user, and the port as ansible_port",
        )


_CHECKS: dict[str, Callable[[Place, str, Any], None]] = {
    "ansible_host": _check_address,
    "ansible_port": _check_ssh_port,
    "ctr_proxy": _check_port,
}


def other_connection(variables: Variables) -> str:
    """What Ansible reaches a host with, if it is not ssh, such as ``local``; empty for ssh."""
    given = str(variables.vars["ansible_connection"].value) if "ansible_connection" in variables.vars else "ssh"
    return "" if "{" in given or given.removeprefix("ansible.builtin.") in _SSH_CONNECTIONS else given


def target(
    name: str, variables: Variables, folder: Path, trust: Trust, limits: Limits, *, defaults: Vars | None = None
) -> tuple[Target, list[str]]:
    """Makes a host's target from its merged variables.

    Args:
        variables: the host's merged variables, and the files with more of them that only Ansible can read.
        folder: the inventory's folder, which relative paths start from.
        trust: the trust in host keys, unless the variables have ssh options about it.
        defaults: the variables that count where the inventory gives none.

    Returns notes as well, about what is not honoured; a note reads the same for every host. Raises BadInventory if a
    variable is wrong, or the connection needs a value that only Ansible can read. Such a password gives a note instead,
    since it may come from elsewhere.
    """
    host = _validate(name, variables.vars, defaults or {}, folder)
    if not (host.ansible_host or is_address(name)):
        hint = "write the port behind ':' as a number, or give the host its address as ansible_host"
        where = f"{variables.where}: " if variables.where else ""
        raise BadInventory(f"{where}the name of host {name!r} is no address", hint=hint)
    if host.ansible_connection.removeprefix("ansible.builtin.") not in _SSH_CONNECTIONS:
        connection = variables.vars["ansible_connection"]
        raise BadInventory(
            f"{connection.where}: host {name!r} has ansible_connection {connection.value!r}",
            hint="remove it: ctr-ferry connects over ssh alone, also to this machine",
        )
    plain = host.plain
    notes = _unread_passwords(host) + _unread_files(host, name, variables.encrypted)
    options = _ssh_options(host, name, notes)
    if plain("ansible_become"):
        _refuse_other_users(host, name)
    trust = _trust(options, trust, folder, name)
    key = plain("ansible_ssh_private_key_file")
    made = Target(
        name=name,
        address=plain("ansible_host") or name,
        port=plain("ansible_port"),
        user=plain("ansible_user"),
        key_file=folder / local_path(key) if key else None,
        password=_secret(host.ansible_password),
        become=plain("ansible_become"),
        become_password=_secret(host.ansible_become_password),
        trust=trust,
        limits=limits,
        variables=_for_other_rooms(host, folder),
    )
    return _behind(made, host, options), notes


def _for_other_rooms(host: HostVars, folder: Path) -> dict[type, object]:
    """The values of our own variables by their type, as `Target.variables` has them."""
    settings = Settings(**{each.name: getattr(host, f"ctr_{each.name}") for each in fields(Settings)})
    known = tuple(_registry(name, given, folder) for name, given in host.ctr_registries.items())
    proxy = host.ctr_proxy.rstrip("/") if host.ctr_proxy else None
    return {Settings: settings, registry.Registries: registry.Registries(known, proxy, host.ctr_hosts_dir)}


def _registry(name: str, given: Registry, folder: Path) -> registry.Registry:
    made = registry.Registry(name, **msgspec.structs.asdict(given))
    return replace(made, ca_file=str(folder / local_path(made.ca_file))) if made.ca_file else made


def _secret(value: str | None) -> Secret | None:
    return Secret(value) if value else None


def _unread_passwords(host: HostVars) -> list[str]:
    """Notes about passwords that only Ansible can read, and how to give them otherwise."""
    instead = {
        "ansible_password": "--prompt-for-login-password",
        "ansible_become_password": "FABRIC_SUDO_PASSWORD or --prompt-for-sudo-password",
    }
    return [
        f"{variable} is a template or a vault, which only Ansible can read: if a host asks for it, give it with {way}"
        for variable, way in instead.items()
        if variable in host.opaque
    ]


def _unread_files(host: HostVars, name: str, files: Sequence[str]) -> list[str]:
    """Notes about files that only Ansible can read. Plain variables must give the login user and the jump host."""
    if not files:
        return []
    needed = {"ansible_user": ("ansible_user",), "ansible_ssh_common_args": _SSH_ARGS}
    missing = [variable for variable, any_of in needed.items() if not host.given.intersection(any_of)]
    are = f"{', '.join(files)} {'is' if len(files) == 1 else 'are'} encrypted"
    if missing:
        raise BadInventory(
            f"{are}, and may name another user or a jump host for host {name!r}",
            hint=f"give {' and '.join(missing)} in plain words ('' for no jump host), "
            "or encrypt single values: ansible-vault encrypt_string",
        )
    return [f"{are}: ctr-ferry cannot read the variables in it (user, jump host, become)"]


def _refuse_other_users(host: HostVars, name: str) -> None:
    """Refuses a become method or user other than sudo and root: that work must not be done as root."""
    wanted = {
        "ansible_become_method": ("sudo", "ctr-ferry becomes root through sudo alone"),
        "ansible_become_user": ("root", "containerd obeys root alone"),
    }
    for variable, (value, reason) in wanted.items():
        given = str(host.plain(variable))
        if given.removeprefix("ansible.builtin.") != value:
            raise BadInventory(
                f"{host.where[variable]}: host {name!r} has {variable} {given!r}",
                hint=f"write {variable}: {value} for this host, since {reason}",
            )


def _behind(made: Target, host: HostVars, options: Mapping[str, str]) -> Target:
    """The host behind the gateway that its options name. ``none`` is none, also where ssh_config has one."""
    command, hops = options["proxycommand"], options["proxyjump"]
    if "none" in (command.lower(), hops.lower()):
        return replace(made, gateway="")
    if command:
        return replace(made, gateway=command)
    try:
        return made.behind(hops) if hops else made
    except UsageError as error:
        variable = next(each for each in _SSH_ARGS if hops in getattr(host, each))
        raise BadInventory(
            f"{host.where[variable]}: {variable} of host {made.name!r} is wrong: {error.message}", hint=error.hint
        ) from error


def _trust(options: Mapping[str, str], trust: Trust, folder: Path, host: str) -> Trust:
    files = tuple(folder / local_path(word) for word in options["userknownhostsfile"].split())
    checking = options["stricthostkeychecking"]
    made = Trust(files or trust.known_hosts, checking == "accept-new" if checking else trust.accept_new)
    if made.accept_new and made.known_hosts[0].exists() and not made.known_hosts[0].is_file():
        raise BadInventory(
            f"host {host!r} accepts new host keys, but {made.known_hosts[0]} cannot store them",
            hint="name a regular file: -o UserKnownHostsFile=FILE",
        )
    return made


def _ssh_options(host: HostVars, name: str, notes: list[str]) -> dict[str, str]:
    """The honoured ssh options of a host, empty if not given. As in OpenSSH, the first value of an option counts.

    ``notes`` gets a note about each option that is not honoured.
    """
    found = dict.fromkeys(("proxyjump", "proxycommand", "userknownhostsfile", "stricthostkeychecking"), "")
    for variable in _SSH_ARGS:
        try:
            known, unknown = _SSH_PARSER.parse_known_args(shlex.split(str(host.plain(variable))))
        except (argparse.ArgumentError, ValueError) as error:
            raise BadInventory(
                f"{host.where[variable]}: {variable} of host {name!r} cannot be parsed: {error}",
                hint="check its quotes and options",
            ) from error
        found["proxyjump"] = found["proxyjump"] or known.jump
        for option in known.options:
            word, *rest = re.split(r"\s*=\s*|\s+", option.strip(), maxsplit=1)
            key, value = word.lower(), "".join(rest)
            if key not in found:
                notes.append(f"ssh option {option!r} is not honoured")
            elif key == "stricthostkeychecking" and value not in ("accept-new", "yes", "ask"):
                notes.append(f"StrictHostKeyChecking={value} is not obeyed: host keys are always checked")
            elif key in _WAYS and any(found[way] for way in _WAYS):
                continue
            else:
                found[key] = found[key] or value
        notes += [f"ssh option {word!r} is not honoured" for word in unknown]
    return found
