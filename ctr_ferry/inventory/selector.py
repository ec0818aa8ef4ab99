"""The host selector of ``-H``: names, groups and globs of the inventory, exclusions, and plain addresses."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from pathlib import Path

from ctr_ferry.errors import BadInventory, NoHosts, UnknownHost, UsageError
from ctr_ferry.inventory import ansible_cfg
from ctr_ferry.inventory.ansible import Inventory, Variables
from ctr_ferry.inventory.contents import MOST_HOSTS, Vars, expand
from ctr_ferry.inventory.host_vars import other_connection, target
from ctr_ferry.ranges import folded, written_out
from ctr_ferry.ssh.target import Limits, Target, Trust, parse_address
from ctr_ferry.text import names

# People mean these as ranges, but they would be character classes: host names have no colon, and a class has single
# digits. Without its other bracket, a bracket is one of two patterns that a comma parts.
_RANGE_LIKE = re.compile(r"\[[^]]*(?:[:,]|\.\.|[0-9]{2,}-|-[0-9]{2,})[^]]*\]|\[[^]]*$|^[^[]*\]")

_CLASS = re.compile(r"\[[0-9]-[0-9]\]")  # a range that is a class of a glob, too


class HostSelector:
    """Turns the patterns of ``-H`` into targets. The inventory is read only if a name needs it.

    Args:
        file: the inventory.
        trust, limits: the trust in host keys and the time limits, for every host.
        alias: whether ssh_config has a Host entry for a name.
        past: finds the hosts that a pattern such as ``@failed`` means, and a sentence about their run.
    """

    def __init__(
        self,
        file: Path,
        trust: Trust,
        limits: Limits,
        alias: Callable[[str], bool],
        past: Callable[[str], tuple[list[str], str]] | None = None,
    ) -> None:
        self.file, self._trust, self._limits, self._alias, self._past = file, trust, limits, alias, past
        self._notes: dict[str, dict[str, None]] = {}  # each note, with the hosts that it is about
        self._merged: dict[str, Variables] = {}
        self._named: set[str] = set()  # the hosts that are named, not meant by a group or a glob

    @property
    def inventory(self) -> Inventory:
        """The inventory, read once. A missing or wrong one raises BadInventory."""
        if isinstance(self._read, BadInventory):
            raise self._read
        return self._read

    @cached_property
    def _read(self) -> Inventory | BadInventory:
        try:
            return Inventory(self.file)
        except BadInventory as error:
            return error

    @cached_property
    def _defaults(self) -> Vars:
        found, notes = ansible_cfg.defaults(self.file.parent)
        self._notes |= {note: {} for note in notes}
        return found

    @property
    def notes(self) -> list[str]:
        """What the operator should know of the inventory: each note once, with the hosts that it is about."""
        return [f"{names(hosts)}: {note}" if hosts else note for note, hosts in self._notes.items()]

    def groups_of(self, name: str) -> list[str]:
        """The groups of a host, without ``all``; none for an address."""
        with contextlib.suppress(BadInventory):  # its other users tell it
            return self.inventory.groups_of(name)[1:]
        return []

    def select(self, patterns: Iterable[str]) -> list[Target]:
        """The targets of all patterns, each host once, in the order given.

        A host of a group that Ansible does not reach over ssh, such as localhost, is left out with a note.

        Raises:
            UnknownHost: a pattern fits no host; the hint has the nearest names.
            BadInventory: the inventory is missing or wrong.
            UsageError: no host is left.
        """
        asked = tuple(patterns)
        found = [self.target(name) for name in self.names(asked) if not self.leaves_out(name)]
        if not found:
            raise UsageError(
                f"-H {','.join(asked)} leaves no host",
                detail="\n".join(self.notes),
                hint="list the hosts and how each is reached: fab hosts",
            )
        return found

    def leaves_out(self, name: str) -> bool:
        """Whether a host is not worked with unless it is named, since Ansible does not reach it over ssh."""
        if name in self._named or self._inventory_names(name) != [name]:
            return False
        if connection := other_connection(self._variables(name)):
            note = f"ansible_connection is {connection}, and ctr-ferry connects over ssh alone: left out"
            self._notes.setdefault(note, {})[name] = None
        return bool(connection)

    def names(self, patterns: Iterable[str]) -> list[str]:
        """The names of the hosts that the patterns mean, as `target` takes them. The hosts' variables are not checked.

        Raises:
            FerryError: as `select`, except for wrong variables of one host.
        """
        asked = [word.strip() for word in patterns if word.strip()]
        chosen: dict[str, None] = {}
        for word in asked:
            if not word.startswith("!"):
                chosen |= dict.fromkeys(name for each in self._expanded(word) for name in self._match(each))
        for word in asked:
            if word.startswith("!"):
                known = word.startswith("!@")  # hosts of an earlier run need not be among the chosen
                for name in self._expanded(word):
                    for out in self._excluded(name, chosen, known=known):
                        chosen.pop(out)
        if chosen:
            return list(chosen)
        message = f"-H {','.join(asked)} leaves no host"
        if any(word.startswith("@") for word in asked):
            notes = "\n".join(note for note in self._notes if note.startswith("@"))
            raise NoHosts(message, detail=notes, hint="list the runs, and what became of their hosts: fab runs")
        raise UsageError(message, hint="name at least one host or group, such as -H all")

    def _expanded(self, word: str) -> list[str]:
        """Expands a pattern, without its ``!``, to the hosts of an earlier run or of a range."""
        name = word.removeprefix("!").strip()
        if name.startswith("@") and self._past:
            hosts, note = self._past(name)
            self._notes.setdefault(f"{name}: {note}", {})
            return hosts
        try:
            found = [host for each in self._ranges(name) for host in expand(each)]
        except BadInventory as error:
            raise UsageError(f"-H {word}: {error.message}", hint=error.hint) from error
        range_like = (bracket for each in found for bracket in _RANGE_LIKE.findall(each))
        if not all(isinstance(_address(bracket), IPv6Address) for bracket in range_like):
            raise UsageError(
                f"-H {word} has a wrong range",
                hint="write a range like node[1-3,7], node[01:20] or db[a:f], or names; see them: fab hosts",
            )
        return found

    def _ranges(self, pattern: str) -> list[str]:
        """Writes out ranges such as ``node[1-3,7]``; ``node[1-9]`` stays a glob where only some of the nine exist."""
        found = list(islice(written_out(pattern), MOST_HOSTS + 1))
        if len(found) > MOST_HOSTS:
            raise BadInventory(f"{pattern!r} is more than {MOST_HOSTS} hosts", hint="write a smaller range")
        if _CLASS.search(pattern) and not all(
            self._inventory_names(each) or self._is_elsewhere(each) for each in found
        ):
            return [pattern]
        return found

    def _excluded(self, word: str, chosen: Collection[str], *, known: bool) -> list[str]:
        """The chosen hosts that a pattern excludes; a host's name excludes it with any user and port.

        A pattern that excludes nothing may be misspelt, and would leave a host in by mistake. A pattern of an earlier
        run (``known``) may exclude nothing.
        """
        inside = self._inventory_names(word)
        meant = {word, *inside}
        found = [each for each in chosen if each in meant or parse_address(each)[1] in meant]
        if found or known or inside or not chosen:
            return found
        if self._is_elsewhere(word):
            raise UnknownHost(
                f"-H !{word} excludes no host",
                hint=f"use the names of the chosen hosts ({names(chosen)}), or leave out !{word}, "
                f"such as -H {','.join(folded(chosen))}",
            )
        if isinstance(error := self._unknown(word), UnknownHost):
            raise error
        return []

    def _is_elsewhere(self, word: str) -> bool:
        """Whether a word can be reached without the inventory: it has a user or port, or is an address or an alias."""
        user, host, port = parse_address(word)
        is_domain = "." in host.strip(".") and not any(c in host for c in "*?[] /")
        return bool(user or port or _address(host) or is_domain or self._alias(host))

    def _match(self, word: str) -> list[str]:
        if found := self._inventory_names(word):
            self._named |= {word}.intersection(found)
            if found == [word] and word in self.inventory.groups:
                self._notes.setdefault(f"{word} is a host and a group of {self.file}: the host was chosen", {})
            return found
        _, host, _ = parse_address(word)
        if self._inventory_names(host) == [host] or self._is_elsewhere(word):
            return [word]
        raise self._unknown(word)

    def target(self, name: str) -> Target:
        """The target of one of `names`.

        Raises:
            BadInventory: a variable of the host is wrong, or only Ansible can read it.
        """
        if self._inventory_names(name) == [name]:
            return self._of_inventory(name)
        user, host, port = parse_address(name)
        if self._inventory_names(host) == [host]:
            known = self._of_inventory(host)
            return replace(known, name=name, user=user or known.user, port=port or known.port)
        return replace(self._outside(host), name=name, port=port, user=user)

    def _outside(self, host: str) -> Target:
        """The target of a host that is not in the inventory: it has our own variables of the group ``all``."""
        plain = Target(name=host, address=host, trust=self._trust, limits=self._limits)
        if not self.file.exists():
            return plain
        try:
            of_all = self.inventory.of_all()
            ours = Variables({n: var for n, var in of_all.vars.items() if not n.startswith("ansible_")})
            found, _ = target(host, ours, self.file.resolve().parent, self._trust, self._limits)
        except BadInventory as error:
            self._notes.setdefault(f"{error.message} (not needed for {host})", {})
            return plain
        for file in of_all.encrypted:
            self._notes.setdefault(f"{file} is encrypted: ctr-ferry cannot read the variables in it", {})[host] = None
        return found

    def _variables(self, name: str) -> Variables:
        """The variables of a host of the inventory, merged once."""
        if name not in self._merged:
            self._merged[name] = self.inventory.variables(name)
        return self._merged[name]

    def _inventory_names(self, word: str) -> list[str]:
        """The inventory's hosts that a word means; none if the inventory is absent, or is broken and not needed."""
        if not self.file.exists():
            return []
        try:
            return self._names(word)
        except BadInventory as error:
            if not self._is_elsewhere(word):
                raise
            self._notes.setdefault(f"{error.message} (not needed for {word})", {})
            return []

    def _names(self, word: str) -> list[str]:
        inventory = self.inventory
        if word in inventory.hosts:
            return [word]
        if word in inventory.groups:
            return inventory.members(word)
        if any(c in word for c in "*?["):
            found = {name for name in (*inventory.hosts, *inventory.groups) if fnmatchcase(name, word)}
            return [host for host in inventory.hosts if not found.isdisjoint((host, *inventory.groups_of(host)))]
        return []

    def _of_inventory(self, name: str) -> Target:
        folder = self.file.resolve().parent
        found, notes = target(name, self._variables(name), folder, self._trust, self._limits, defaults=self._defaults)
        for note in notes:
            self._notes.setdefault(note, {})[name] = None
        return found

    def _unknown(self, word: str) -> UsageError:
        inventory = self.inventory  # raises if the inventory is wrong, since this name needs it
        if word in inventory.groups:
            return UsageError(
                f"group {word!r} has no host", hint=f"add hosts to the group in {self.file}, then run the command again"
            )
        known = [*inventory.hosts, *inventory.groups]
        if any(c in word for c in "*?["):
            return UnknownHost(f"{word!r} fits no host and no group of {self.file}", hint="list both: fab hosts")
        near = difflib.get_close_matches(word, known, n=3)
        return UnknownHost(
            f"{word!r} is no host or group of {self.file}, no address and no Host of ssh_config",
            hint=f"did you mean {' or '.join(near)}? with {near[0]} in place of {word}"
            if near
            else f"use it as a plain host name, with {word}:22 in place of {word}",
        )


def _address(word: str) -> IPv4Address | IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ip_address(word.strip("[]"))
    return None
