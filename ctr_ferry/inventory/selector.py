"""Which hosts ``-H`` means: names, groups and globs of the inventory, exclusions, and plain addresses."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from ctr_ferry.errors import BadInventory, NoHosts, UnknownHost, UsageError
from ctr_ferry.inventory.ansible import Inventory, expand
from ctr_ferry.inventory.host_vars import target
from ctr_ferry.ssh.target import Limits, Target, Trust, parse_address
from ctr_ferry.text import names

_RANGE_LIKE = re.compile(r"\[[^]]*:[^]]*\]")  # no host's name has a colon, so that no character class needs one


class HostsOfRun(Protocol):
    """What a pattern such as ``@failed`` means: hosts of an earlier run.

    Attributes:
        hosts: their names.
        note: one sentence that says which run and hosts these are.
    """

    @property
    def hosts(self) -> list[str]: ...
    @property
    def note(self) -> str: ...


class HostSelector:
    """Turns patterns into targets. The inventory is read only when a name needs it.

    Args:
        file: the inventory.
        trust, limits: for every host.
        alias: whether ssh_config has a Host entry for a name.
        past: the hosts that ``@failed`` and its like mean.
    """

    def __init__(
        self,
        file: Path,
        trust: Trust,
        limits: Limits,
        alias: Callable[[str], bool],
        past: Callable[[str], HostsOfRun] | None = None,
    ) -> None:
        self._file = file
        self._trust = trust
        self._limits = limits
        self._alias = alias
        self._past = past
        self._inventory: Inventory | None = None
        self._notes: dict[str, list[str]] = {}  # hosts by what is to be known of them

    @property
    def inventory(self) -> Inventory:
        """The inventory, read once.

        Raises:
            BadInventory.
        """
        if self._inventory is None:
            self._inventory = Inventory(self._file)
        return self._inventory

    @property
    def file(self) -> Path:
        """The inventory's file."""
        return self._file

    @property
    def notes(self) -> list[str]:
        """What the operator should know of the inventory, each thing once, with the hosts that it is about."""
        return [f"{names(hosts)}: {note}" if hosts else note for note, hosts in self._notes.items()]

    def groups_of(self, name: str) -> list[str]:
        """The groups of an inventory host, but ``all``; none for an address."""
        if not self._file.exists():
            return []
        inventory = self.inventory
        return [group for group in inventory.groups if group != "all" and name in inventory.members_of(group)]

    def select(self, patterns: Iterable[str]) -> list[Target]:
        """The targets of all patterns, each host once, in the order given.

        Raises:
            UnknownHost: with the nearest names; BadInventory; UsageError where nothing is left.
        """
        return [self.target(name) for name in self.names(patterns)]

    def names(self, patterns: Iterable[str]) -> list[str]:
        """Which hosts all patterns mean, as `target` takes them; what the inventory says of each is not read.

        Raises:
            As `select`, but for what is wrong with one host's variables.
        """
        asked = [word.strip() for word in patterns if word.strip()]
        chosen: dict[str, None] = {}
        for word in asked:
            if not word.startswith("!"):
                chosen |= dict.fromkeys(name for each in self._expanded(word) for name in self._match(each))
        for word in asked:
            if word.startswith("!"):
                known = word.startswith("!@")  # hosts of an earlier run, which need not be among these
                for name in self._expanded(word):
                    for out in self._excluded(name[1:], chosen, known=known):
                        chosen.pop(out)
        if not chosen and any(word.startswith("@") for word in asked):
            notes = "\n".join(note for note in self._notes if note.startswith("@"))
            raise NoHosts(
                f"-H {','.join(asked)} leaves no host", detail=notes, hint="fab show --run RUN tells what it did"
            )
        if not chosen:
            raise UsageError(f"-H {','.join(asked)} leaves no host", hint="name at least one host or group")
        return list(chosen)

    def _expanded(self, word: str) -> list[str]:
        """A word as the words that it stands for: hosts of an earlier run, or all of a range; ``!`` stays before each.

        Raises:
            UsageError: a range that is none, which as a character class would mean other hosts.
        """
        sign, name = ("!", word[1:].strip()) if word.startswith("!") else ("", word)
        if name.startswith("@") and self._past:
            past = self._past(name)
            self._notes.setdefault(f"{name}: {past.note}", [])
            return [f"{sign}{host}" for host in past.hosts]
        try:
            found = list(expand(name))
        except BadInventory as error:
            raise UsageError(f"-H {word}: {error.message}", hint=error.hint) from error
        if any(not _is_ipv6(bracket) for each in found for bracket in _RANGE_LIKE.findall(each)):
            raise UsageError(f"-H {word} has a range that is none", hint="a range looks like node[01:20] or db[a:f]")
        return [f"{sign}{each}" for each in found]

    def _excluded(self, word: str, chosen: Collection[str], *, known: bool) -> list[str]:
        """Those of the chosen that a word excludes: a host by its name also where user or port stand with it.

        A misspelt exclusion, or a host by another name than its own, would leave a host in that was meant to be out.
        """
        inside = self._inventory_names(word)
        meant = {word, *inside}
        found = [each for each in chosen if each in meant or parse_address(each)[1] in meant]
        if found or known or inside or not chosen:
            return found
        if self._is_elsewhere(word):
            raise UnknownHost(
                f"-H !{word} excludes no host",
                hint=f"name it as it is chosen, which is {names(chosen)}, or leave it out",
            )
        if isinstance(error := self._unknown(word), UnknownHost):
            raise error
        return []

    def _is_elsewhere(self, word: str) -> bool:
        """Whether it says where it is by itself, without the inventory."""
        user, host, port = parse_address(word)
        return bool(user or port or _is_address(host) or self._alias(host))

    def _match(self, word: str) -> list[str]:
        if found := self._inventory_names(word):
            if found == [word] and word in self.inventory.groups:
                self._notes.setdefault(f"{word} is a host and a group of {self._file}: the host is taken", [])
            return found
        _, host, _ = parse_address(word)
        if self._inventory_names(host) == [host] or self._is_elsewhere(word):
            return [word]
        raise self._unknown(word)

    def target(self, name: str) -> Target:
        """How one of `names` is reached.

        Raises:
            BadInventory: where the inventory says something of it that is wrong, or that only Ansible can read.
        """
        if self._inventory_names(name) == [name]:
            return self._of_inventory(name)
        user, host, port = parse_address(name)
        if self._inventory_names(host) == [host]:
            known = self._of_inventory(host)
            return replace(known, name=name, user=user or known.user, port=port or known.port)
        return Target(name, host, port, user, trust=self._trust, limits=self._limits)

    def _inventory_names(self, word: str) -> list[str]:
        """Names by the inventory; without one, or with a broken one, none: an address works without it."""
        if not self._file.exists():
            return []
        try:
            return self._names(word)
        except BadInventory as error:
            if not self._is_elsewhere(word):
                raise
            self._notes.setdefault(f"{error.message} (not needed for {word})", [])
            return []

    def _names(self, word: str) -> list[str]:
        inventory = self.inventory
        if word in inventory.hosts:
            return [word]
        if word == "all" or word in inventory.groups:
            return inventory.members(word)
        if any(c in word for c in "*?["):
            groups = [name for name in inventory.groups if fnmatchcase(name, word)]
            inside = {host for name in groups for host in inventory.members(name)}
            return [host for host in inventory.hosts if fnmatchcase(host, word) or host in inside]
        return []

    def _of_inventory(self, name: str) -> Target:
        folder = self._file.resolve().parent
        inventory = self.inventory
        encrypted = inventory.encrypted(name)
        found, notes = target(name, inventory.hosts[name], folder, self._trust, self._limits, encrypted=encrypted)
        for note in notes:
            about = self._notes.setdefault(note, [])
            about += [name] if name not in about else []
        return found

    def _unknown(self, word: str) -> UsageError:
        inventory = self.inventory  # raises what is wrong with it, since this name needs it
        if word == "all" or word in inventory.groups:
            return UsageError(f"group {word!r} has no host", hint=f"look at {self._file}")
        known = [*inventory.hosts, *inventory.groups]
        if any(c in word for c in "*?["):
            return UnknownHost(f"{word!r} fits no host and no group of {self._file}")
        near = difflib.get_close_matches(word, known, n=3)
        return UnknownHost(
            f"{word!r} is no host or group of {self._file}, no address and no Host of ssh_config",
            hint=f"did you mean {' or '.join(near)}?" if near else f"for a plain host name write user@{word}",
        )


def _is_ipv6(word: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(word.strip("[]")))
    except ValueError:
        return False


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word.strip("[]"))
    except ValueError:
        return "." in word.strip(".") and not any(c in word for c in "*?[] /")
    return True


def inventory_file(configured: str | None, folder: Path) -> Path:
    """``CTR_FERRY_INVENTORY``, else ``fleet.inventory`` of fabric.yaml, else ``hosts.yaml`` beside fabfile.py.

    Raises:
        BadInventory: where a file that was named is not there.
    """
    named = os.environ.get("CTR_FERRY_INVENTORY")
    file = Path(named).expanduser() if named else folder / Path(configured or "hosts.yaml").expanduser()
    if named and not file.exists():
        raise BadInventory(f"CTR_FERRY_INVENTORY names {file}, which is not there")
    return file
