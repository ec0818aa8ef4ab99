"""Registries for the rehearsal fleet: real ones of every kind, and servers that stand in front of them or fail."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import bcrypt

from lab import cgroups, debian
from lab.certificates import Authority
from lab.docker_registry import PORT, DockerRegistry
from lab.fleet import Fleet, LabError, Node
from lab.layout import NAMES
from lab.standing import DEMO, DEMO_NODES, StandingRegistries, demo_name

__all__ = ["DEMO", "DEMO_NODES", "Registries", "Registry"]

CLONE = Path(__file__).resolve().parents[1]
DOMAIN = "registry.demo"
TOKEN_PORT = 5001
# Each kind has an address of its own, from NETWORK.200 on.
KINDS = ("http", "tls", "basic", "token", "expired", "wrong", "silent", "slow", "flaky", "proxy", "absent")


@dataclass(frozen=True)
class Registry:
    """A registry as a user knows it.

    Attributes:
        name: `host:port`, the beginning of the registry's references.
        address: the address of that name; "" if the name has none.
        scheme: http or https.
        ca_file: the certificate of the CA, on this machine; None for plain HTTP.
        username, password: the registry's login; None for none.
        real: the docker-registry at that name, or behind the server at that name; None for none.
    """

    name: str
    address: str
    scheme: str
    ca_file: Path | None = None
    username: str | None = None
    password: str | None = None
    real: DockerRegistry | None = None

    @property
    def server(self) -> DockerRegistry:
        """The docker-registry at that name, or behind the server at that name; AssertionError if there is none."""
        assert self.real, f"no docker-registry is at {self.name}"
        return self.real

    @property
    def password_env(self) -> str:
        """The environment variable that holds the user's password."""
        return f"LAB_PASSWORD_{(self.username or '').upper()}"

    def settings(self, **changed: Any) -> dict[str, Any]:
        """Return the registry's entry for `ctr_registries`, with some keys changed; None removes a key."""
        given = {"scheme": self.scheme, "ca_file": str(self.ca_file) if self.ca_file else None}
        if self.username:
            given |= {"username": self.username, "password_env": self.password_env}
        return {key: value for key, value in {**given, **changed}.items() if value is not None}


class Registries:
    """The lab's registries. They are up during the `with` block.

    Every node resolves their names in its own /etc/hosts, except `nowhere` and `hidden`. Only DEMO_NODES resolve
    `demo`. The fleet's standing registries, if they run, are set aside meanwhile: some names are the same.

    Args:
        fleet: the fleet whose nodes get the names. The fleet must be up. The registries listen on the fleet's
            network, from .200 on.

    Attributes:
        http: plain HTTP, no login.
        tls: TLS, with a certificate of the lab's CA.
        demo: `tls` as docker-registry.i.demo, for some nodes only.
        basic: TLS and a password (htpasswd).
        token: TLS and a token server (bearer tokens). A request without a user gets a token that allows nothing.
        reader: `token` with the login of a user who may pull, but not push; the password is as long as ctr takes one.
        slow: `basic` behind a server that can limit the bytes per second (see `throttled`).
        flaky: `http` behind a server that can answer with faults (see `failing`).
        silent: accepts connections and never answers.
        absent: an address on which nothing listens.
        nowhere: a name that no node can resolve.
        expired: TLS, with a certificate that was valid until yesterday.
        wrong: TLS, with a certificate for another name.
        hidden: `tls` under a name that only `proxy` resolves.
        obscure: `http` under a name that only `proxy` resolves; not in `all`.
        proxy: an HTTP proxy, as http://host:port.
        secret: a text that is in every password here and nowhere else, so that tests can search for it.
        folder: where the registries write everything; removed at the end.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.folder, self._group = fleet, fleet.state / "registries", f"{fleet.group}/registries"
        self._address = {kind: f"{fleet.network}.{200 + place}" for place, kind in enumerate(KINDS)}
        self._fronts: subprocess.Popen[str] | None = None
        self._standing, self._aside = StandingRegistries(fleet), False
        self.secret = secrets.token_hex(12)
        self._ca = self.folder / "ca.pem"
        # A shell, a YAML file or a careless split would break this password.
        owner = ("pusher", f"p '\"$x`:%\\{self.secret}")
        self._rights = {owner[0]: (owner[1], ("pull", "push")), "reader": (self.secret.ljust(4095, "r"), ("pull",))}
        self.http = self._registry("http", self._server("http"))
        tls = self._server("tls", _host("tls"), DEMO, _host("hidden"))
        self.tls = self._registry("tls", tls)
        self.demo = replace(self.tls, name=f"{DEMO}:{PORT}")
        self.hidden = self._registry("hidden", tls)
        self.obscure = self._registry("obscure", self.http.server)
        htpasswd = {"htpasswd": {"realm": "lab", "path": str(self.folder / "htpasswd")}}
        basic = self._server("basic", _host("basic"), _host("slow"), auth=htpasswd)
        self.basic = self._registry("basic", basic, *owner)
        self.slow = self._registry("slow", basic, *owner)
        token = self._server("token", _host("token"), auth={"token": self._tokens()})
        self.token = self._registry("token", token, *owner)
        self.reader = self._registry("token", token, "reader", self._rights["reader"][0])
        self.expired = self._registry("expired", self._server("expired", _host("expired"), days=-1))
        self.wrong = self._registry("wrong", self._server("wrong", "other.example"))
        self.flaky = self._registry("flaky", self.http.server)
        self.silent, self.absent, self.nowhere = (self._registry(kind) for kind in ("silent", "absent", "nowhere"))
        self.proxy = f"http://{_host('proxy')}:{PORT}"

    @property
    def all(self) -> list[Registry]:
        """All registries, except `reader` and `obscure`, which are `token` and `http` once more."""
        found = [self.http, self.tls, self.demo, self.basic, self.token, self.expired, self.wrong]
        return [*found, self.slow, self.flaky, self.silent, self.absent, self.nowhere, self.hidden]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that hold the passwords."""
        return {each.password_env: each.password for each in (*self.all, self.reader) if each.password}

    def settings(self, *registries: Registry) -> dict[str, dict[str, Any]]:
        """Return a correct `ctr_registries` of an inventory, for these registries or, without any, for all."""
        return {registry.name: registry.settings() for registry in registries or self.all}

    @contextlib.contextmanager
    def throttled(self, bytes_per_second: float) -> Iterator[None]:
        """Limit the rate of `slow` during the block: bytes per second each way, for all connections together."""
        self._ask("slow", rate=bytes_per_second)
        try:
            yield
        finally:
            self._ask("slow", rate=None)

    @contextlib.contextmanager
    def failing(
        self,
        status: str,
        times: int = 1,
        *,
        code: str = "UNAVAILABLE",
        message: str = "",
        methods: Sequence[str] = (),
        within: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Callable[[], int]]:
        """Let `flaky` answer with a fault; yield a function that returns how many faults it has given.

        Args:
            status: such as "503 Service Unavailable".
            times: how many requests get the fault. Later requests are answered well.
            code, message: the error in the answer's body.
            methods: only requests of these methods get the fault; empty is all.
            within: only requests whose target has this text get the fault.
            headers: further headers of the answer.
        """
        fault = (status, headers or {}, {"errors": [{"code": code, "message": message}]})
        before: int = self._ask("flaky", fault=fault, times=times, methods=methods, within=within)["answered"]
        try:
            yield lambda: self._ask("flaky")["answered"] - before
        finally:
            self._ask("flaky", times=0)

    def seen(self, front: str) -> dict[str, Any]:
        """Return what the server `slow`, `flaky`, `silent`, `proxy` or `tokens` has counted.

        All count `connections` and `sent` (bytes from clients). `slow` also counts `got` (bytes to clients), `flaky`
        `answered` (faults), and `proxy` lists `asked` (each host:port that clients asked for).
        """
        return self._ask(front)

    def __enter__(self) -> Registries:
        if not self.fleet.nodes:
            raise LabError("the registries need a fleet, and it is down: start it with `make lab-up`")
        self._aside = self._standing.down()
        cgroups.destroy(self._group)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _start(self) -> None:
        """Start all servers at the same time, and give their names to the nodes; raise LabError."""
        try:
            program = debian.unpacked(["docker-registry"], self.fleet.cache) / "usr/bin/docker-registry"
        except debian.Unavailable as error:
            raise LabError(f"the registries need Debian's package docker-registry: {error}") from error
        authority = Authority(self._ca)
        (self.folder / "htpasswd").write_text(_htpasswd({name: word for name, (word, _) in self._rights.items()}))
        authority.issue(self.folder / "tokens.pem", [_host("token")])
        servers = {registry.real for registry in self.all if registry.real}
        for server in servers:
            server.prepare(program, authority)
        cgroups.create(self._group)
        self._fronts = self._start_fronts()
        with ThreadPoolExecutor(len(servers) + len(self.fleet.nodes)) as pool:
            named = pool.map(self._tell, self.fleet.nodes.values())
            list(pool.map(DockerRegistry.start, servers))
            list(named)
        if (answer := self._line()) != "ready":
            raise LabError(f"the servers in front of the registries did not start: {answer or 'no output'}")

    def _end(self) -> None:
        """End all servers, and remove their names from the nodes."""
        cgroups.destroy(self._group)
        for registry in self.all:
            if registry.real:
                registry.real.kill()
        if self._fronts:
            with self._fronts:
                self._fronts.communicate()
        for node in self.fleet.nodes.values():
            node.resolve({})
        shutil.rmtree(self.folder)
        if self._aside:
            self._standing.up()

    def _server(self, kind: str, *names: str, days: int = 10, auth: Mapping[str, Any] | None = None) -> DockerRegistry:
        return DockerRegistry(self.folder / kind, self._address[kind], self._group, names=names, days=days, auth=auth)

    def _registry(
        self, kind: str, real: DockerRegistry | None = None, username: str | None = None, password: str | None = None
    ) -> Registry:
        plain = kind in ("http", "flaky", "obscure")
        scheme, ca_file = ("http", None) if plain else ("https", self._ca)
        address = self._address.get(kind, "")
        return Registry(f"{_host(kind)}:{PORT}", address, scheme, ca_file, username, password, real)

    def _tokens(self) -> dict[str, str]:
        """Return the settings that the registry and the token server share."""
        realm = f"https://{_host('token')}:{TOKEN_PORT}/token"
        return {"realm": realm, "service": "lab", "issuer": "lab tokens", "rootcertbundle": str(self._ca)}

    def _start_fronts(self) -> subprocess.Popen[str]:
        """Start `lab.fronts`. Its first line of output tells whether it started."""
        at, tokens = self._address, self._tokens()
        names = {self.hidden.name: (at["tls"], PORT), self.obscure.name: (at["http"], PORT)}
        fronts: dict[str, dict[str, Any]] = {
            "silent": {"kind": "Silent"},
            "slow": {"kind": "Slow", "target": (at["basic"], PORT)},
            "flaky": {"kind": "Flaky", "target": (at["http"], PORT)},
            "proxy": {"kind": "Proxy", "names": names},
        }
        for name, front in fronts.items():
            front |= {"host": at[name], "port": PORT}
        fronts["names"] = {"kind": "Names", "host": f"{self.fleet.network}.{NAMES}", "port": 53}
        fronts["tokens"] = {
            "kind": "Tokens",
            "host": at["token"],
            "port": TOKEN_PORT,
            "issuer": tokens["issuer"],
            "service": tokens["service"],
            "rights": self._rights,
            "pem": str(self.folder / "tokens.pem"),
        }
        spec = self.folder / "fronts.json"
        spec.write_text(json.dumps({"groups": [str(path) for path in cgroups.create(self._group)], "fronts": fronts}))
        return subprocess.Popen(
            [sys.executable, "-m", "lab.fronts", str(spec)],
            cwd=CLONE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _ask(self, front: str, **changed: Any) -> dict[str, Any]:
        """Change attributes of a front, where some are given; return what the front has counted."""
        assert self._fronts and self._fronts.stdin
        self._fronts.stdin.write(json.dumps({"front": front, "set": changed}) + "\n")
        self._fronts.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def _line(self) -> str:
        """Return the next line of `lab.fronts`."""
        assert self._fronts and self._fronts.stdout
        return self._fronts.stdout.readline().strip()

    def _tell(self, node: Node) -> None:
        """Write the registries' names to a node's /etc/hosts."""
        names = {_host(kind): address for kind, address in self._address.items()}
        node.resolve({**names, **demo_name(node.name, self._address["tls"], self._address["absent"])})


def _host(kind: str) -> str:
    """Return the host name of a registry."""
    return f"{kind}.{DOMAIN}"


def _htpasswd(passwords: Mapping[str, str]) -> str:
    """Return the text of an htpasswd file. The hashes are cheap (every request checks one); bcrypt takes 72 bytes."""
    hashes = {name: bcrypt.hashpw(word.encode()[:72], bcrypt.gensalt(4)).decode() for name, word in passwords.items()}
    return "".join(f"{name}:{hashed}\n" for name, hashed in hashes.items())
