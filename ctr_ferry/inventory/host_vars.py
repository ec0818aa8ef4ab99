"""Validates the variables of one host: Ansible's connection variables and our own ``ctr_…``."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ctr_ferry.ctr.commands import KUBELETS, LONGEST_NAMESPACE, NAMESPACE
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.errors import BadInventory, BadReference
from ctr_ferry.inventory.ansible import Opaque, Variables, Vars
from ctr_ferry.oci import registry
from ctr_ferry.oci.reference import parse_domain
from ctr_ferry.secrets import Secret
from ctr_ferry.ssh.target import Limits, Target, Trust

_Path = Annotated[str, Field(pattern=r"^/[\w./@+-]+$")]
_Words = Annotated[str, Field(pattern=r"^[\w./@+ -]+$")]
_Namespace = Annotated[str, Field(pattern=f"^{NAMESPACE}$", max_length=LONGEST_NAMESPACE)]


def _text(value: Any) -> Any:
    """Turns a number into text: YAML reads names and passwords such as 12345 and 1.2 as numbers."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


_Text = Annotated[str, BeforeValidator(_text)]


def _domain(name: str) -> str:
    """A registry's name as full references have it: ``index.docker.io`` is ``docker.io``."""
    try:
        domain = parse_domain(name)
    except BadReference as error:
        raise ValueError(f"{error.message}; {error.hint}") from error
    return {"index.docker.io": "docker.io"}.get(domain, _with_port(domain))


def _with_port(address: str) -> str:
    _, colon, port = address.rstrip("/").rpartition(":")
    if colon and not port.endswith("]") and not 0 < int(port) < 1 << 16:
        raise ValueError(f"{address} has no port from 1 to 65535")
    return address


def _once(value: Any) -> Any:
    if isinstance(value, dict) and {"docker.io", "index.docker.io"} <= value.keys():
        raise ValueError("docker.io and index.docker.io are one registry; leave one of them out")
    return value


_Domain = Annotated[str, AfterValidator(_domain)]
_HTTP = r"^http://(?:[\w.-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}/?$"  # without a password
_Proxy = Annotated[str, Field(pattern=_HTTP), AfterValidator(_with_port)]


class Registry(BaseModel):
    """One registry of ``ctr_registries``."""

    model_config = ConfigDict(extra="forbid")
    scheme: Literal["http", "https"] = "https"
    ca_file: str | None = None
    skip_verify: bool = False
    username: _Text | None = None
    password_env: str | None = None


class HostVars(BaseModel):
    """The variables that ctr-ferry reads. All others are Ansible's own and are ignored."""

    model_config = ConfigDict(extra="ignore", arbitrary_types_allowed=True)
    ansible_connection: str = "ssh"
    ansible_host: _Text | Opaque | None = None
    ansible_port: int | Opaque | None = None
    ansible_user: _Text | Opaque | None = None
    ansible_password: _Text | Opaque | None = None
    ansible_ssh_private_key_file: str | Opaque | None = None
    ansible_become: bool | Opaque = False
    ansible_become_method: str | Opaque = "sudo"
    ansible_become_user: _Text | Opaque = "root"
    ansible_become_password: _Text | Opaque | None = None
    ansible_ssh_args: str | Opaque = ""
    ansible_ssh_common_args: str | Opaque = ""
    ansible_ssh_extra_args: str | Opaque = ""
    ctr_command: _Words | None = None
    ctr_address: _Path | None = None
    ctr_namespace: _Namespace = KUBELETS
    ctr_root: _Path | None = None
    ctr_snapshotter: _Namespace | None = None
    ctr_registries: Annotated[dict[_Domain, Registry], BeforeValidator(_once)] = Field(default_factory=dict)
    ctr_proxy: _Proxy | None = None

    def plain(self, host: str, variable: str) -> Any:
        """The value of a variable of a host; raises BadInventory if only Ansible can read it."""
        value = getattr(self, variable)
        if isinstance(value, Opaque):
            raise BadInventory(
                f"{variable} of host {host!r} is a template or a vault, which only Ansible can read",
                hint="give its value in plain words in the inventory",
            )
        return value


_SSH_CONNECTIONS = ("ssh", "paramiko", "paramiko_ssh", "smart")
_SSH_ARGS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")  # in the order of Ansible's argv

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


def _validate(host: str, variables: Vars) -> HostVars:
    """Checks one host's merged variables. An error has file and line and, for a misspelt ``ctr_…``, the right name."""
    ours = [name for name in HostVars.model_fields if name.startswith("ctr_")]
    for name, var in variables.items():
        if name.startswith("ctr_") and name not in ours:
            near = difflib.get_close_matches(name, ours, n=1)
            raise BadInventory(
                f"{var.where}: unknown variable {name!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(ours)}",
            )
    aliased = {_ALIASES[name]: var for name, var in reversed(variables.items()) if name in _ALIASES}  # the first counts
    known = aliased | {name: var for name, var in variables.items() if name not in _ALIASES}
    try:
        return HostVars(**{n: v.value for n, v in known.items() if n in HostVars.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        path = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("is-instance", "function")))
        has_login = "pass" in path or "@" in str(first["input"])  # as in http://user:password@proxy
        shown = isinstance(first["input"], (str, int, float)) and not has_login
        raise BadInventory(
            f"{known[name].where}: {path} of host {host!r} is wrong: {first['msg']}",
            hint=f"change the value {first['input']!r}" if shown else "",
        ) from None


def target(name: str, variables: Variables, folder: Path, trust: Trust, limits: Limits) -> tuple[Target, list[str]]:
    """Makes a host's target from its merged variables.

    Args:
        variables: the host's merged variables, and the files with more of them that only Ansible can read.
        folder: the inventory's folder, which relative paths start from.
        trust: the trust in host keys, unless the variables have ssh options about it.

    Returns notes as well, about what is not honoured; a note reads the same for every host. Raises BadInventory if a
    variable is wrong, or the connection needs a value that only Ansible can read. Such a password gives a note instead,
    since it may come from elsewhere.
    """
    host = _validate(name, variables.vars)
    if host.ansible_connection not in _SSH_CONNECTIONS:
        connection = variables.vars["ansible_connection"]
        raise BadInventory(
            f"{connection.where}: host {name!r} has ansible_connection {connection.value!r}",
            hint="remove it: ctr-ferry connects over ssh alone, also to this machine",
        )
    plain = partial(host.plain, name)
    notes = _unread_passwords(host) + _unread_files(host, name, variables.encrypted)
    options = _ssh_options(name, plain, notes)
    if plain("ansible_become"):
        _refuse_other_users(name, str(plain("ansible_become_method")), str(plain("ansible_become_user")))
    trust = _trust(options, trust, folder, name)
    key = plain("ansible_ssh_private_key_file")
    made = Target(
        name=name,
        address=plain("ansible_host") or name,
        port=plain("ansible_port"),
        user=plain("ansible_user"),
        key_file=folder / Path(key).expanduser() if key else None,
        password=_secret(host.ansible_password),
        become=plain("ansible_become"),
        become_password=_secret(host.ansible_become_password),
        trust=trust,
        limits=limits,
        variables=_for_other_rooms(host, folder),
    )
    return _behind(made, options), notes


def _for_other_rooms(host: HostVars, folder: Path) -> dict[type, object]:
    """The values of our own variables by their type, as `Target.variables` has them."""
    settings = Settings(**{each.name: getattr(host, f"ctr_{each.name}") for each in fields(Settings)})
    known = tuple(_registry(name, given, folder) for name, given in host.ctr_registries.items())
    proxy = host.ctr_proxy.rstrip("/") if host.ctr_proxy else None
    return {Settings: settings, registry.Registries: registry.Registries(known, proxy)}


def _registry(name: str, given: Registry, folder: Path) -> registry.Registry:
    made = registry.Registry(name, **dict(given))
    return replace(made, ca_file=str(folder / Path(made.ca_file).expanduser())) if made.ca_file else made


def _secret(value: str | Opaque | None) -> Secret | None:
    return Secret(value) if value and not isinstance(value, Opaque) else None


def _unread_passwords(host: HostVars) -> list[str]:
    """Notes about passwords that only Ansible can read, and how to give them otherwise."""
    instead = {
        "ansible_password": "--prompt-for-login-password",
        "ansible_become_password": "FABRIC_SUDO_PASSWORD or --prompt-for-sudo-password",
    }
    return [
        f"{variable} is a template or a vault, which only Ansible can read: if a host asks for it, give it with {way}"
        for variable, way in instead.items()
        if isinstance(getattr(host, variable), Opaque)
    ]


def _unread_files(host: HostVars, name: str, files: Sequence[str]) -> list[str]:
    """Notes about files that only Ansible can read. Plain variables must give the login user and the jump host."""
    if not files:
        return []
    needed = {"ansible_user": ("ansible_user",), "ansible_ssh_common_args": _SSH_ARGS}
    missing = [variable for variable, any_of in needed.items() if not host.model_fields_set.intersection(any_of)]
    are = f"{', '.join(files)} {'is' if len(files) == 1 else 'are'} encrypted"
    if missing:
        raise BadInventory(
            f"{are}, and may name another user or a jump host for host {name!r}",
            hint=f"give {' and '.join(missing)} in plain words ('' for no jump host), "
            "or encrypt single values: ansible-vault encrypt_string",
        )
    return [f"{are}: ctr-ferry cannot read the variables in it (user, jump host, become)"]


def _refuse_other_users(host: str, method: str, user: str) -> None:
    """Refuses a become method or user other than sudo and root: that work must not be done as root."""
    if method.rpartition(".")[2] != "sudo":
        raise BadInventory(
            f"host {host!r} has ansible_become_method {method!r}",
            hint="set it to sudo for this host: ctr-ferry becomes root through sudo alone",
        )
    if user != "root":
        raise BadInventory(
            f"host {host!r} has ansible_become_user {user!r}",
            hint="set it to root for this host: containerd obeys root alone",
        )


def _behind(made: Target, options: Mapping[str, str]) -> Target:
    if (command := options["proxycommand"]).lower() not in ("", "none"):
        return replace(made, gateway=command)
    return made.behind(options["proxyjump"]) if options["proxyjump"].lower() not in ("", "none") else made


def _trust(options: Mapping[str, str], trust: Trust, folder: Path, host: str) -> Trust:
    files = tuple(folder / Path(word).expanduser() for word in options["userknownhostsfile"].split())
    checking = options["stricthostkeychecking"]
    made = Trust(files or trust.known_hosts, checking == "accept-new" if checking else trust.accept_new)
    if made.accept_new and made.known_hosts[0].exists() and not made.known_hosts[0].is_file():
        raise BadInventory(
            f"host {host!r} accepts new host keys, but {made.known_hosts[0]} cannot store them",
            hint="name a regular file: -o UserKnownHostsFile=FILE",
        )
    return made


def _ssh_options(host: str, plain: Callable[[str], Any], notes: list[str]) -> dict[str, str]:
    """The honoured ssh options of a host, empty if not given. As in OpenSSH, the first value of an option counts.

    ``plain`` gives the value of a variable; ``notes`` gets a note about each option that is not honoured.
    """
    found = dict.fromkeys(("proxyjump", "proxycommand", "userknownhostsfile", "stricthostkeychecking"), "")
    for variable in _SSH_ARGS:
        try:
            known, unknown = _SSH_PARSER.parse_known_args(shlex.split(str(plain(variable))))
        except (argparse.ArgumentError, ValueError) as error:
            raise BadInventory(
                f"{variable} of host {host!r} cannot be parsed: {error}", hint="check its quotes and options"
            ) from error
        found["proxyjump"] = found["proxyjump"] or known.jump
        for option in known.options:
            name, *rest = re.split(r"\s*=\s*|\s+", option.strip(), maxsplit=1)
            key, value = name.lower(), "".join(rest)
            if key not in found:
                notes.append(f"ssh option {option!r} is not honoured")
            elif key == "stricthostkeychecking" and value not in ("accept-new", "yes", "ask"):
                notes.append(f"StrictHostKeyChecking={value} is not obeyed: host keys are always checked")
            else:
                found[key] = found[key] or value
        notes += [f"ssh option {word!r} is not honoured" for word in unknown]
    return found
