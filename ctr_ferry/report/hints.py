"""Hints that can be pasted: what an error says to do next ends with a command line that does it. Pure.

A hint of the code may have a command line of its own, in which ``fab -H HOST`` means the host of the error. Any other
hint gets the user's own command line: without the options that the hint says to leave out, or with those to add.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctr_ferry import shell
from ctr_ferry.errors import RegistryTimeout, RegistryUnreachable, RegistryUnresolved
from ctr_ferry.ranges import folded

if TYPE_CHECKING:
    from ctr_ferry.report.outcome import Outcome

_AWAY = {each.kind for each in (RegistryUnresolved, RegistryUnreachable, RegistryTimeout)}
HOST = "HOST"  # stands for the hosts until they are known
_HERE = f"fab -H {HOST} "
_ANY_HERE = re.compile(rf"\b(fab|ctr-ferry) -H {HOST} ")
_MOST_NAMED = 8  # hosts or ranges of a command line; more are @failed or the like
PASTEABLE = re.compile(r"\bfab (?:-H|--list|(?:apply|completion|hosts|runs|show)\b)")
_PROGRAM = re.compile(r"\bfab (?=-|(?:apply|completion|hosts|run|runs|save|show)\b)")
_SHELL = re.compile(
    r"(?:^|: )(?:bzip2|chmod|docker|echo|env|ls -l|lz4|mkdir|mv|read -rs|rm|ssh-keygen|unset|unzip|xz) "
)
_HOSTS = re.compile(r"such as -H (\S+)")
_INSTEAD = re.compile(r"with (\S+) in place of (\S+)$")
_LEFT_OUT = re.compile(r"leave ((?:--[a-z-]+(?:, | and | or )?)+) ?out")
_ADDED = re.compile(
    r"(?:(?:with|such as) )?"
    r"--(?:force|yes|foreign-layers|all-platforms|all-namespaces|prompt-for-[a-z-]+)\b(?! out)"
    r"|--via ssh|(?:with|such as) --[a-z-]+ [^ ,;]+"
)
_ON_IMAGES = re.compile(r"\bfab -H .* (?:(?:check|copy|deliver|images|pull|push|remove|save) (?:.* )?--ref |images$)")
_LIMIT = re.compile(r"-t \d+")
_FABRICS = ("--prompt-for-sudo-password", "--prompt-for-login-password", "--prompt-for-passphrase")
_IMAGES = ("ref", "set", "match", "map", "src", "dst", "as", "to_registry")  # options that say which images

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A command line as the user gave it.

    Attributes:
        commands: the name of each command, and its options as Invoke gives them.
        hosts: the value of ``-H``; empty without one.
        fabrics: the words of Fabric's own options besides ``-H``.
    """

    commands: Sequence[tuple[str, Arguments]]
    hosts: str = ""
    fabrics: tuple[str, ...] = ()

    def line(self, *more: str, without: Sequence[str] = ()) -> str:
        """The command line, with further words, and without some options."""
        words = ["fab", *(("-H", self.hosts) if self.hosts else ()), *self.fabrics]
        for name, arguments in self.commands:
            words += [name, *options(arguments, (*more, *without))]
        return shell.join([*words, *more])

    def takes(self, option: str) -> bool:
        """Whether the one command, or Fabric itself, has the option."""
        known = {_option(name) for _, arguments in self.commands for name in arguments}
        return option in _FABRICS or (len(self.commands) == 1 and option in known)

    def finish(self, hint: str, *, repeat: bool = True, one_of_several: bool = False) -> str:
        """A hint with the command line that follows it.

        Args:
            repeat: whether the command line may be right as it is, once the hint is followed; else it is wrong itself.
            one_of_several: whether the error of all images says how to go on.
        """
        if PASTEABLE.search(hint) or not self.commands:
            return self._filled(hint)
        if line := self._changed(hint):
            return f"{hint}: {line}"
        if _SHELL.search(hint) or one_of_several:
            return hint
        if hint.endswith(" again"):
            return f"{hint}: {self.line()}"
        if not repeat:
            return f"{hint}; what is there: {self._look()}" if hint else self._look()
        return f"{hint}; then: {self.line()}" if hint else self.line()

    def over_ssh(self, kind: str, hint: str) -> str:
        """A hint that names `copy` besides, where a host cannot reach the registry that it was to use."""
        name, arguments = self.commands[0]
        if name not in ("pull", "push") or kind not in _AWAY or PASTEABLE.search(hint):
            return hint
        images = {key: value for key, value in arguments.items() if key in ("ref", "set_", "namespace")}
        copy = replace(self, commands=[("copy", {"from": "any", **images})])
        if name == "pull":
            return f"{hint}; or bring it over SSH from a host that has it: {copy.line()}"
        return f"{hint}; or bring it to all hosts over SSH: {replace(copy, hosts='all').line()}"

    def _changed(self, hint: str) -> str:
        """The command line as a hint says to change it; empty where the hint changes nothing of it."""
        if hosts := _HOSTS.search(hint):
            return replace(self, hosts=hosts[1]).line()
        if instead := _INSTEAD.search(hint):
            return self._with_host(*instead.groups()).line()
        if limit := _LIMIT.search(hint):
            kept = re.sub(r"--connect-timeout[\0=][^\0]*\0?", "", "\0".join(self.fabrics)).split("\0")
            return replace(self, fabrics=(*filter(None, kept), *limit[0].split())).line()
        if left_out := _LEFT_OUT.search(hint):
            return self.line(without=re.findall("--[a-z-]+", left_out[1]))
        added = _ADDED.search(hint)
        words = added[0][added[0].index("--") :].split() if added else []
        without = ["--set"] if words[:1] == ["--ref"] else []  # else the set would still be asked for
        return self.line(*words, without=without) if words and self.takes(words[0]) else ""

    def _look(self) -> str:
        """The command line that shows what a wrong one may mean: images of its hosts, or what its command lists."""
        name, arguments = self.commands[0]
        if "serial" not in arguments:  # on the control machine
            return f"fab {name}" if name in ("runs", "show") else "fab hosts"
        given = {"namespace": arguments.get("namespace")}
        return replace(self, commands=[("images", given)], hosts=self.hosts or "all").line()

    def _with_host(self, host: str, word: str) -> Asked:
        """The command line with a host in place of a word of ``-H``, or else of ``--from``."""
        hosts = re.sub(rf"(?<![^,!@\s]){re.escape(word)}(?![^,\s])", lambda _: host, self.hosts)
        if hosts != self.hosts:
            return replace(self, hosts=hosts)
        sources = [[host if each == word else each for each in given.get("from_") or ()] for _, given in self.commands]
        commands = [(name, {**given, "from_": sources[at]}) for at, (name, given) in enumerate(self.commands)]
        return replace(self, commands=commands)

    def _filled(self, hint: str) -> str:
        """A hint with a command line of its own, on the hosts and in the namespace of this one."""
        here = f"fab {shell.join(['-H', self.hosts or 'all', *self.fabrics])} "
        hint = hint if here in hint else hint.replace(_HERE, here)
        namespace: str = next((a["namespace"] for _, a in self.commands if a.get("namespace")), "")
        named = not namespace or re.search("-n |namespace|--set ", hint) or not _ON_IMAGES.search(hint)
        return hint if named else f"{hint} --namespace {shell.join([namespace])}"


def options(arguments: Arguments, without: Sequence[str] = ()) -> list[str]:
    """The words of a command's options, as they are typed."""
    return [
        word
        for name, value in arguments.items()
        if value not in (None, False, []) and (option := _option(name)) not in without
        for each in (value if isinstance(value, list) else [value])
        for word in ([option] if each is True else _with_value(option, str(each)))
    ]


def _with_value(option: str, value: str) -> list[str]:
    return [f"{option}={value}"] if value.startswith("-") else [option, value]


def _option(name: str) -> str:
    return f"--{name.rstrip('_').replace('_', '-')}"


def finish(outcome: Outcome, asked: Asked) -> Outcome:
    """Finishes the hints of one command's outcome, in place: that of its error, and those of its images."""
    here = replace(asked, hosts=HOST)
    if outcome.error:
        outcome.error.hint = here.over_ssh(outcome.error.kind, outcome.error.hint)
        outcome.error.hint = here.finish(outcome.error.hint)
    for image in _failed_images(outcome.result):
        one = replace(here, commands=[(name, _of_one(arguments, image)) for name, arguments in asked.commands])
        image.error["hint"] = one.over_ssh(image.error["kind"], image.error["hint"])
        image.error["hint"] = one.finish(image.error["hint"], repeat=False, one_of_several=True)
    return outcome


def _failed_images(result: Any) -> list[Any]:
    if not is_dataclass(result):
        return []
    lists = [getattr(result, field.name) for field in fields(result)]
    found = (each for value in lists if isinstance(value, list | tuple) for each in value)
    return [each for each in found if isinstance(getattr(each, "error", None), dict)]


def _of_one(arguments: Arguments, image: Any) -> Arguments:
    """The options of a command for one of its images."""
    sources = (getattr(image, name, None) for name in ("source", "asked", "reference"))
    src = next((str(each) for each in sources if each), "")
    dst = str(getattr(image, "reference", None) or src)
    others = {name: value for name, value in arguments.items() if name.rstrip("_") not in _IMAGES}
    if "dst" in arguments:
        return {"src": src, "dst": dst, **others}
    return {"ref": [src], **({"as_": dst} if dst != src and "as_" in arguments else {}), **others}


def at_hosts(text: str, hosts: Iterable[str], status: str = "") -> str:
    """A text with the hosts in the place of ``HOST``.

    Args:
        status: what stands for very many hosts, such as ``failed``: a pattern of the last run.
    """
    if f" -H {HOST} " not in text:
        return as_started(text)
    named = folded(hosts)
    pattern = shell.join([f"@{status}" if status and len(named) > _MOST_NAMED else ",".join(named)])
    return as_started(_ANY_HERE.sub(lambda found: f"{found[1]} -H {pattern} ", text))


def as_started(text: str) -> str:
    """A text with the name of the program as it was started: ``fab`` or ``ctr-ferry``."""
    program = Path(sys.argv[0]).name
    return _PROGRAM.sub(f"{program} ", text) if program == "ctr-ferry" else text


def document_as_started(value: Any) -> Any:
    """A JSON document, in whose hints the program has the name that it was started by."""
    if isinstance(value, list | tuple):
        return [document_as_started(each) for each in value]
    if isinstance(value, dict):
        return {
            key: as_started(each) if key in ("hint", "todo") and isinstance(each, str) else document_as_started(each)
            for key, each in value.items()
        }
    return value


def for_host(outcome: dict[str, Any], host: str) -> dict[str, Any]:
    """An outcome as JSON, with the host in the place of ``HOST`` in all its hints."""
    lists = [value for value in (outcome.get("result") or {}).values() if isinstance(value, list | tuple)]
    holders = [outcome, *(each for value in lists for each in value if isinstance(each, dict))]
    errors = [error for holder in holders if isinstance(error := holder.get("error"), dict)]
    for each in (*holders, *errors):
        if isinstance(each.get("hint"), str):
            each["hint"] = at_hosts(each["hint"], [host])
    return outcome
