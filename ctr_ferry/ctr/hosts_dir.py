"""containerd's ``hosts.toml`` on a host: which servers ctr and kubelet ask in a registry's place. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from ctr_ferry import shell
from ctr_ferry.oci.registry import Registry
from ctr_ferry.shell import Answer

DEFAULT = "/etc/containerd/certs.d"
_OWN = {word: f"/var/lib/rancher/{word}/agent/etc/containerd/certs.d" for word in ("k3s", "rke2")}
_FILE = "hosts.toml"
_ALL = ("pull", "resolve", "push")
_MOST = 64 << 10  # bytes of a hosts.toml that are read
_MOST_SERVERS = 20
_MOST_NAMES = 2000  # registries of one folder
_NAME = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~%+-]+)*")


@dataclass(frozen=True, slots=True)
class Server:
    """One server that ctr asks.

    Attributes:
        registry: how the server is reached.
        abilities: what it is asked for: ``pull``, ``resolve``, ``push``.
        closed: whether ctr shows it a header or a client certificate of the file, which ctr-ferry does not have.
    """

    registry: Registry
    abilities: frozenset[str]
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of a host's registry configuration, and the names of the folders in it."""

    path: str
    names: frozenset[str]

    def of(self, registry: str) -> str | None:
        """The path of the folder for a registry's name, as containerd chooses it; None if there is none."""
        host, colon, port = registry.rpartition(":")
        names = [f"{host}_{port}_"] if colon and port.isdecimal() else []
        return next((f"{self.path}/{name}" for name in (*names, registry, "_default") if name in self.names), None)


def question(given: str | None) -> str:
    """The step, as sh text behind the probe's prologue, that prints the folder and the names in it.

    Args:
        given: the inventory's folder; None is that of k3s or RKE2 for their ctr, else containerd's usual one.
    """
    own = " ".join(f"*{word}*) own={shell.join([path])};;" for word, path in _OWN.items())
    places = shell.join([given]) if given else f'"$own" {DEFAULT}'
    return f"""(own=; case $ctr in {own} esac
for d in {places}; do [ -d "$d" ] && {{ echo "$d"; ls "$d" | head -n {_MOST_NAMES}; exit; }}; done; :)"""


def folder(answer: Answer) -> Folder | None:
    """Reads the answer to `question`; None where there is no folder."""
    path, *names = answer.text.splitlines() or [""]
    return Folder(path, frozenset(names)) if answer.ok and path.startswith("/") else None


def read(path: str) -> str:
    """Prints a registry's hosts.toml behind the word ``file``, else the names of the certificates there; as sh text."""
    file = shell.join([f"{path}/{_FILE}"])
    return f"if [ -f {file} ]; then echo file; head -c {_MOST} {file}; else echo folder; ls {shell.join([path])}; fi"


def parse(answer: Answer, path: str, registry: Registry, *, wants_tables: bool) -> tuple[Server, ...]:
    """The servers, in ctr's order; the last one is the registry's own, or what the file names for it.

    Args:
        answer: to `read` of ``path``.
        registry: as the inventory describes it.
        wants_tables: whether this ctr passes over a file that has no ``[host]`` table.

    Raises:
        ValueError: ctr does not heed the file; says why.
    """
    kind, _, text = answer.text.partition("\n")
    if kind != "file":
        found = tuple(f"{path}/{name}" for name in text.splitlines() if name.endswith(".crt"))
        return (Server(replace(registry, cas_there=found), frozenset(_ALL)),)
    try:
        document = tomllib.loads(text)
        tables = document.get("host", {})
        if wants_tables and not tables:
            raise ValueError("it has no [host] table")
        servers = [(str(url), table) for url, table in tables.items()][:_MOST_SERVERS]
        last = document.get("server") or ""
        found_servers = [_server(url, table, registry, path) for url, table in servers]
        return (*found_servers, _server(str(last), document, registry, path))
    except (AttributeError, TypeError, RecursionError) as error:
        raise ValueError("its tables have another form") from error


def _server(url: str, table: Mapping[str, Any], registry: Registry, path: str) -> Server:
    made = registry
    if url:
        parts = urlsplit(url if url.startswith("http") else f"https://{url}")
        way = parts.path.rstrip("/")
        if not (parts.scheme in ("http", "https") and _NAME.fullmatch(parts.netloc) and _PATH.fullmatch(way)):
            raise ValueError(f"{url[:80]!r} is no address of a server")
        root = way if table.get("override_path") or way.endswith("/v2") else f"{way}/v2"
        own = parts.netloc in (registry.name, urlsplit(registry.url).netloc)
        made = Registry(parts.netloc, parts.scheme, root=root, mirrors="" if own else registry.name)
    authorities = tuple(name if name.startswith("/") else f"{path}/{name}" for name in _words(table.get("ca", ())))
    skip = table.get("skip_verify")
    made = replace(made, cas_there=authorities, skip_verify=made.skip_verify if skip is None else bool(skip))
    abilities = frozenset(_words(table.get("capabilities", _ALL)))
    return Server(made, abilities, closed=bool(table.get("header") or table.get("client")))


def _words(value: str | Sequence[Any]) -> Iterator[str]:
    return map(str, [value] if isinstance(value, str) else value)
