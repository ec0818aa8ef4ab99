"""A registry: as the inventory describes it, and what can be seen of it from a host. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from ctr_ferry.secrets import Secret

_PORTS = {"http": 80, "https": 443}
_DOCKER_HUB = {"docker.io": "registry-1.docker.io"}  # whose API is elsewhere than its name says


@dataclass(frozen=True, slots=True)
class Registry:
    """How a registry is reached.

    Attributes:
        name: as references begin, with its port where it has one.
        ca_file: of whoever signed its certificate, on the control machine.
        password_env: the environment variable that holds the password.
    """

    name: str
    scheme: str = "https"
    ca_file: str | None = None
    skip_verify: bool = False
    username: str | None = None
    password_env: str | None = None

    @property
    def host(self) -> str:
        """Its host name or address, without brackets."""
        return self._parts[0]

    @property
    def port(self) -> int:
        """Its port, by default the scheme's."""
        return int(self._parts[1] or _PORTS[self.scheme])

    @property
    def local(self) -> bool:
        """Whether Go takes it for the machine itself: no proxy, and with some ctrs another scheme."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def url(self) -> str:
        """Where its API is, without a slash at the end."""
        host, port = self._parts
        shown = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{shown}:{port}" if port else f"{self.scheme}://{shown}"

    @property
    def _parts(self) -> tuple[str, str]:
        host, colon, port = self.name.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = self.name, ""
        return _DOCKER_HUB.get(host, host).strip("[]"), port


@dataclass(frozen=True, slots=True)
class Registries:
    """What the inventory says about a host's registries.

    Attributes:
        known: the registries that the inventory describes.
        proxy: ``http://host:port`` that the host's ctr reaches registries through.
    """

    known: tuple[Registry, ...] = ()
    proxy: str | None = None

    def named(self, domain: str) -> Registry:
        """The registry of references that begin with ``domain``. An undescribed one has the defaults."""
        return next((registry for registry in self.known if registry.name == domain), Registry(domain))


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to a registry."""

    username: str
    password: Secret


class RegistryState(Enum):
    """What a registry's answer, or its silence, means."""

    OPEN = "reachable"
    LOGIN = "reachable, needs a login"
    NOT_CHECKED = "not checked"
    NO_TIME = "not checked: those before it took too long"
    UNRESOLVED = "its name does not resolve"
    REFUSED = "it refuses the connection"
    NO_ANSWER = "no answer"
    NO_TLS = "it does not speak TLS"
    WANTS_TLS = "it speaks TLS alone"
    UNKNOWN_CA = "its certificate is signed by nobody known"
    EXPIRED = "its certificate has expired"
    NOT_YET = "its certificate is not valid yet"
    WRONG_NAME = "its certificate is for another name"
    TLS_FAILED = "TLS fails"
    CA_FILE = "its ca_file cannot be read"
    NO_REGISTRY = "what answers there is no registry"
    UNAUTHORIZED = "it refuses the login"
    DENIED = "it denies access"
    NOT_FOUND = "it has no such repository or tag"
    FAILED = "it fails"
    BROKEN_OFF = "it broke off in the middle"


REMEDIES = {
    RegistryState.UNRESOLVED: "give the host a name server or a line of /etc/hosts that knows it",
    RegistryState.REFUSED: "check that the registry runs, and its port",
    RegistryState.NO_ANSWER: "check routes and firewalls between that host and the registry",
    RegistryState.NO_TLS: "set scheme: http for it in ctr_registries, if plain http is what you want",
    RegistryState.WANTS_TLS: "leave scheme: http for it out of ctr_registries",
    RegistryState.UNKNOWN_CA: "name its CA's certificate with ca_file in ctr_registries",
    RegistryState.EXPIRED: "have its certificate renewed",
    RegistryState.NOT_YET: "check this machine's clock, then its certificate",
    RegistryState.WRONG_NAME: "call it by a name that its certificate has",
    RegistryState.TLS_FAILED: "look at it with openssl s_client",
    RegistryState.CA_FILE: "mend ca_file in ctr_registries",
    RegistryState.NO_REGISTRY: "check name, port and scheme in ctr_registries",
    RegistryState.NO_TIME: "mend the registries that do not answer, and run it again",
    RegistryState.NOT_CHECKED: "let sshd there forward (AllowTcpForwarding, PermitOpen), or look with curl on the host",
    RegistryState.UNAUTHORIZED: "check username and password_env in ctr_registries, or ~/.docker/config.json",
    RegistryState.DENIED: "ask whoever runs the registry for that right",
    RegistryState.NOT_FOUND: "check repository and tag",
    RegistryState.FAILED: "look at the registry's log; run it again later",
    RegistryState.BROKEN_OFF: "run it again: what the registry has is not sent twice",
}


_LONGEST = 8 << 10  # characters of a WWW-Authenticate that are read at all
_MOST_HEAD = 64 << 10  # characters of all headers of one answer
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r'[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in which a registry takes a login (RFC 9110, section 11; distribution, spec/auth/token)."""

    scheme: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """The one of ``WWW-Authenticate`` that we take: Bearer before Basic; empty where there is none."""
        return min(cls.parse_all(header), key=cls._rank, default=cls("", {}))

    def _rank(self) -> int:
        if self.scheme.lower() == "bearer":
            return 0 if self.parameters.get("realm") else 2
        return 1 if self.scheme.lower() == "basic" else 3

    @classmethod
    def parse_all(cls, header: str) -> tuple[Challenge, ...]:
        """All challenges of ``WWW-Authenticate``, in one pass; none of a header that is too long to be meant."""
        found: list[tuple[str, dict[str, str]]] = []
        at, text = 0, header if len(header) <= _LONGEST else ""
        while word := _TOKEN.search(text, at):
            value, at = _VALUE.match(text, word.end()), word.end()
            if value is None:
                found.append((word[0], {}))
                continue
            at = value.end()
            if found:
                quoted, bare = value.groups()
                told = bare if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
                found[-1][1].setdefault(word[0].lower(), told)
        return tuple(cls(scheme, parameters) for scheme, parameters in found)


def headers(fields: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    """Header lines by name, in lower case; None where they are more than an answer has room for.

    Challenges may come in several lines, which mean the same as one (RFC 9110, section 5.3).
    """
    found: dict[str, str] = {}
    left = _MOST_HEAD
    for written, value in fields:
        name = written.lower()
        left -= len(name) + len(value)
        if left < 0:
            return None
        found[name] = f"{found[name]}, {value}" if name == "www-authenticate" and name in found else value
    return found
