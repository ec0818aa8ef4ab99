"""A registry: how it is reached, what states it may be in, and how it asks for a login. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from ctr_ferry.secrets import Secret
from ctr_ferry.text import printable

_DOCKER_HUB = {"docker.io": "registry-1.docker.io"}  # its API has another host name
_DIGITS = re.compile(r"\d+")
_MOST_DETAIL = 600  # characters of an error's detail


@dataclass(frozen=True, slots=True)
class Registry:
    """How a registry is reached.

    Attributes:
        name: as in references, with the port if it has one.
        scheme: ``https`` or ``http``.
        ca_file: path of a CA certificate on the control machine.
        skip_verify: whether the registry's certificate is not checked.
        password_env: the environment variable that has the password.
        root: the path of its API.
        mirrors: the registry that it is asked for in place of; empty where it is asked for itself.
        cas_there: files of CA certificates on the host that is asked through.
    """

    name: str
    scheme: str = "https"
    ca_file: str | None = None
    skip_verify: bool = False
    username: str | None = None
    password_env: str | None = None
    root: str = "/v2"
    mirrors: str = ""
    cas_there: tuple[str, ...] = ()

    @property
    def local(self) -> bool:
        """Whether Go takes the name for the machine itself: then Go uses no proxy, and some ctrs use another scheme."""
        name = self._parts[0].lower().removesuffix(".")
        try:
            address = ip_address(name)
        except ValueError:
            return name == "localhost"
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback  # as Go's net.IP.IsLoopback

    @property
    def url(self) -> str:
        """The URL of its API, without a slash at the end."""
        host, port = self._parts
        shown = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{shown}:{port}" if port else f"{self.scheme}://{shown}"

    def at(self, path: str) -> str:
        """The URL of a path below the root of its API, as containerd asks for it."""
        mirrored = f"?ns={self.mirrors}" if self.mirrors and path else ""
        return f"{self.url}{self.root}{path}{mirrored}"

    @property
    def _parts(self) -> tuple[str, str]:
        """Host name or address without brackets, and port, if the name has one."""
        host, colon, port = self.name.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = self.name, ""
        return _DOCKER_HUB.get(host, host).strip("[]"), port


@dataclass(frozen=True, slots=True)
class Registries:
    """What the inventory says about a host's registries.

    Attributes:
        proxy: ctr reaches them through it, ``http://host:port``.
        hosts_dir: the host's folder with hosts.toml files; None is the usual one, if it is there.
    """

    known: tuple[Registry, ...] = ()
    proxy: str | None = None
    hosts_dir: str | None = None

    def named(self, domain: str) -> Registry:
        """The registry of references that begin with ``domain``. An undescribed one has the defaults."""
        return next((registry for registry in self.known if registry.name == domain), Registry(domain))

    def instead_of(self, domain: str) -> str:
        """The described registry that was probably meant by the name of an undescribed one; empty for none."""
        names = [registry.name for registry in self.known]
        close = "" if domain in names else next(iter(difflib.get_close_matches(domain, names, n=1, cutoff=0.9)), "")
        # registry1 and registry2 are more probably two registries
        return close if _DIGITS.sub("", close) != _DIGITS.sub("", domain) else ""


@dataclass(frozen=True, slots=True)
class Login:
    """Username and password for a registry."""

    username: str
    password: Secret


class RegistryState(Enum):
    """What a registry's answer, or a missing answer, means: in words, and what to do about it; empty for nothing."""

    def __init__(self, words: str, remedy: str = "") -> None:
        self.words, self.remedy = words, remedy

    OPEN = "reachable"
    LOGIN = "reachable, needs a login"
    NOT_CHECKED = "not checked", "let sshd there forward (AllowTcpForwarding, PermitOpen), or run curl there by hand"
    NO_TIME = (
        "not checked: the registries before it took too long",
        "repair the registries that do not answer, then run the command again",
    )
    UNRESOLVED = (
        "its name does not resolve",
        "make its name resolve on the host: add a name server, or a line in /etc/hosts",
    )
    REFUSED = "it refuses the connection", "check that the registry runs, and that the port is right"
    NO_ANSWER = "no answer", "check routes and firewalls between that host and the registry"
    NO_TLS = "it does not speak TLS", "set scheme: http for it in ctr_registries, if plain http is what you want"
    PLAIN_TOKENS = (
        "its token service does not speak TLS, so no login was sent",
        "have whoever runs the registry give its token service an https address",
    )
    WANTS_TLS = "it speaks only TLS", "remove its scheme: http from ctr_registries"
    UNKNOWN_CA = (
        "its certificate is signed by an unknown CA",
        "name its CA's certificate with ca_file in ctr_registries",
    )
    EXPIRED = "its certificate has expired", "have its certificate renewed"
    NOT_YET = "its certificate is not valid yet", "check the clock of this machine, then the registry's certificate"
    WRONG_NAME = "its certificate is for another name", "use a name that its certificate has"
    TLS_FAILED = "TLS fails", "have whoever runs it check its TLS (openssl s_client shows what it offers)"
    CA_FILE = "its ca_file cannot be read", "correct ca_file in ctr_registries"
    CLOSED = (
        "ctr alone can ask it: its hosts.toml has a header, a client certificate or a CA",
        "let the host's sshd forward connections (for a CA), or pull by digest: then ctr alone asks it",
    )
    NO_REGISTRY = "what answers there is no registry", "check name, port and scheme in ctr_registries"
    UNAUTHORIZED = "it refuses the login", "check username and password_env in ctr_registries, or ~/.docker/config.json"
    DENIED = "it denies access", "ask whoever runs the registry for that right"
    UNCLEAR = (
        "its answer does not tell whether it has that tag",
        "ask it with curl; check name, port and scheme in ctr_registries",
    )
    NOT_FOUND = (
        "it has no such repository or tag",
        "check repository and tag; some registries want a repository to be made before the first push",
    )
    REJECTED = (
        "it refuses that request",
        "read its own words, or its log: it may want another form of the repository, such as project/name",
    )
    NOT_TAKEN = (
        "it does not take what was sent",
        "read its own words, or its log; where the tag may not be moved, push under another one with --as",
    )
    IMMUTABLE = "it has that tag, and does not let it be moved", "push under another tag with --as"
    RULE = (
        "a rule of it forbids that",
        "ask whoever runs it which rule: an immutable tag, a quota or a scan; another tag is given with --as",
    )
    NO_PUSH = (
        "it does not allow such a request",
        "push to a registry that takes pushes: this one may be a mirror, a cache or read-only",
    )
    TOO_LARGE = (
        "it, or a proxy before it, takes no blob of that size",
        "have whoever runs it raise that limit (nginx: client_max_body_size)",
    )
    MEDIA_TYPE = (
        "it does not take images of that media type",
        "push to a registry that takes OCI images, or have the image built with Docker's media types",
    )
    CLEAR_UPLOAD = (
        "it speaks TLS, but wants uploads at an http address",
        "have whoever runs it set X-Forwarded-Proto: https in the proxy before it, or its own https address",
    )
    QUOTA = "its quota is used up", "have whoever runs it raise the quota, or remove images there"
    RATE_LIMITED = (
        "it gets too many requests",
        "a login may have a higher limit; after the time that it names, run the command again",
    )
    FAILED = "it fails", "read the registry's log; later, run the command again"
    RACE = (
        "this ctr came into its own way during the upload",
        "blobs that have arrived are not sent again: run the command again",
    )
    BROKEN_OFF = "it broke off in the middle", "blobs that have arrived are not sent again: run the command again"


class RegistryStateError(Exception):
    """A registry gave no usable answer.

    Has the state that this means, the words of registry, host, TLS or network, and how many seconds to wait for a
    better answer, where the registry told that.
    """

    def __init__(self, state: RegistryState, detail: object = "", wait: int = 0) -> None:
        super().__init__(state)
        self.state, self.detail, self.wait = state, printable(str(detail)[:_MOST_DETAIL]), wait


_LONGEST = 8 << 10  # characters; a longer WWW-Authenticate is ignored
_MOST_HEAD = 64 << 10  # characters of all headers of one answer
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r'[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in which a registry accepts a login (RFC 9110, section 11; distribution, spec/auth/token)."""

    scheme: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """Chooses a challenge of ``WWW-Authenticate``: Bearer before Basic; an empty one if there is none."""
        return min(cls.parse_all(header), key=cls._rank, default=cls("", {}))

    def _rank(self) -> int:
        if self.scheme.lower() == "bearer":
            return 0 if self.parameters.get("realm") else 2
        return 1 if self.scheme.lower() == "basic" else 3

    @classmethod
    def parse_all(cls, header: str) -> tuple[Challenge, ...]:
        """Parses all challenges of ``WWW-Authenticate`` in one pass; a header that is too long has none."""
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
                parameter = bare if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
                found[-1][1].setdefault(word[0].lower(), parameter)
        return tuple(cls(scheme, parameters) for scheme, parameters in found)


def plain_realm(header: str) -> str:
    """Returns the first token service of ``WWW-Authenticate`` that has no https address; empty if there is none."""
    bearers = [each for each in Challenge.parse_all(header) if each.scheme.lower() == "bearer"]
    realms = [each.parameters.get("realm", "") for each in bearers]
    return next((realm for realm in realms if realm and not realm.lower().startswith("https://")), "")


def headers(fields: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    """Returns headers by name in lower case; None if they are longer than any real answer.

    Challenges in several lines mean the same as in one line (RFC 9110, section 5.3), so these lines are joined.
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
