"""Registries for the rehearsal fleet: real ones of every kind, and what only looks like one."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import bcrypt

from lab import cgroups, debian
from lab.certificates import Authority
from lab.fleet import Fleet, LabError, Node
from lab.images import BuiltImage
from lab.layout import NAMES

CLONE = Path(__file__).resolve().parents[1]
DEMO = "docker-registry.i.demo"
DEMO_NODES = ("node1", "node2", "node3")  # that reach it; node4 is refused, node5 cannot resolve it
DOMAIN = "registry.demo"
PORT, TOKEN_PORT = 5000, 5001
PATIENCE = 20.0
MARK = "# registries"  # at the end of our lines in a node's /etc/hosts
# Each has an address of its own, from NETWORK.200 on.
KINDS = ("http", "tls", "basic", "token", "expired", "wrong", "silent", "slow", "flaky", "proxy", "absent")


class Server:
    """One docker-registry, as Debian has it.

    Args:
        folder: all that it writes; what it stores outlives a stop.
        address: where it listens, on PORT.
        group: its control group.
        names: what its certificate is for; none: it speaks plain HTTP.
        days: how long its certificate is valid; below 0: since when it no longer is.
        auth: its configuration's part of that name.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        group: str,
        *,
        names: Sequence[str] = (),
        days: int = 10,
        auth: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.address, self.names = folder, address, names
        self._group, self._days, self._auth = group, days, auth
        self._program = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, program: Path, authority: Authority) -> None:
        """Write what it needs: a configuration, a certificate, and room to store things."""
        self._program = program
        (self._storage / "repositories").mkdir(parents=True)
        http: dict[str, Any] = {"addr": f"{self.address}:{PORT}", "secret": secrets.token_hex()}
        if self.names:
            pem = str(authority.issue(self.folder / "server.pem", self.names, self._days))
            http["tls"] = {"certificate": pem, "key": pem}
        config = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "storage")}, "delete": {"enabled": True}},
            "http": http,
            **({"auth": self._auth} if self._auth else {}),
        }
        (self.folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML

    def start(self) -> None:
        """Start it, unless it runs, and wait until it accepts connections; raise LabError."""
        if self._process:
            return
        argv = [str(self._program), "serve", str(self.folder / "config.yml")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                cgroups.joining(cgroups.create(self._group), argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not _answers(self.address):
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = (self.folder / "log").read_text(errors="replace").strip().splitlines() or ["no word"]
                raise LabError(f"docker-registry at {self.address} did not start: {words[-1]}")
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it with a signal, if it runs, and wait until it has ended."""
        if self._process:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        self.stop(signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it say nothing more, with all its connections open."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def requests(self) -> list[str]:
        """Return its access log: a line per request that it has answered."""
        return [line for line in (self.folder / "log").read_text().splitlines() if ' HTTP/1.1" ' in line]

    def digest(self, name: str) -> str | None:
        """Return what repository:tag names here, None when it names nothing."""
        repository, _, tag = name.rpartition(":")
        link = self._repository(repository) / f"_manifests/tags/{tag}/current/link"
        return link.read_text() if link.exists() else None

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository."""
        return sorted(path.name for path in self._repository(repository).glob("_manifests/tags/*"))

    def blobs(self, repository: str) -> set[str]:
        """Return the digests of the layers and configs that a repository has."""
        return {f"sha256:{link.parent.name}" for link in self._repository(repository).glob("_layers/sha256/*/link")}

    def put(self, image: BuiltImage, *names: str, blobs: Sequence[str] | None = None) -> None:
        """Give it an image under some names (repository:tag), straight into its storage.

        Args:
            blobs: the digests of those that it gets; all when None.
        """
        given = set(image.blobs if blobs is None else blobs)
        manifests = {image.target.digest, *image.manifests.values()} & given
        for digest in given:
            file = self._storage / f"blobs/sha256/{_hex(digest)[:2]}/{_hex(digest)}/data"
            file.parent.mkdir(parents=True, exist_ok=True)
            blob = image.blobs[digest]
            file.write_bytes(blob) if isinstance(blob, bytes) else shutil.copyfile(blob, file)
        for name in names:
            repository, _, tag = name.rpartition(":")
            for digest in given:
                kind = "_manifests/revisions" if digest in manifests else "_layers"
                self._link(repository, f"{kind}/sha256/{_hex(digest)}", digest)
            target = image.target.digest
            self._link(repository, f"_manifests/tags/{tag}/index/sha256/{_hex(target)}", target)
            self._link(repository, f"_manifests/tags/{tag}/current", target)

    def empty(self) -> None:
        """Take all that it has away from it, while it runs or not."""
        shutil.rmtree(self._storage)
        (self._storage / "repositories").mkdir(parents=True)

    @property
    def _storage(self) -> Path:
        return self.folder / "storage/docker/registry/v2"

    def _repository(self, repository: str) -> Path:
        return self._storage / "repositories" / repository

    def _link(self, repository: str, path: str, digest: str) -> None:
        folder = self._repository(repository) / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "link").write_text(digest)


@dataclass(frozen=True)
class Registry:
    """A registry as a user knows it.

    Attributes:
        name: as references begin, `host:port`.
        address: where that is; "" where the name leads nowhere.
        scheme: http or https.
        ca_file: who has signed its certificate, if it has one; on this machine.
        username, password: who may push.
        real: the docker-registry that it is, or that is behind it.
    """

    name: str
    address: str
    scheme: str
    ca_file: Path | None = None
    username: str | None = None
    password: str | None = None
    real: Server | None = None

    @property
    def server(self) -> Server:
        """The docker-registry that answers here, where one does."""
        assert self.real, f"no docker-registry is at {self.name}"
        return self.real

    @property
    def password_env(self) -> str:
        """The environment variable for its user's password."""
        return f"LAB_PASSWORD_{(self.username or '').upper()}"

    def settings(self, **changed: Any) -> dict[str, Any]:
        """Return its entry for `ctr_registries`, with some of it changed; None takes a part out."""
        given = {"scheme": self.scheme, "ca_file": str(self.ca_file) if self.ca_file else None}
        if self.username:
            given |= {"username": self.username, "password_env": self.password_env}
        return {key: value for key, value in {**given, **changed}.items() if value is not None}


class Registries:
    """The lab's registries, up as long as the `with` block.

    Every node resolves all of them but `nowhere` and `hidden`, in its own /etc/hosts; `demo` only DEMO_NODES.

    Args:
        fleet: the fleet whose nodes are to know their names; it must be up. They listen on its network, from .200 on.

    Attributes:
        http: plain HTTP, no login.
        tls: TLS, with a certificate of the lab's CA.
        demo: the same one as docker-registry.i.demo, for some nodes only.
        basic: TLS and a password (htpasswd).
        token: TLS and a token server (bearer tokens); who says no name gets a token that allows nothing.
        reader: the same one as somebody sees it who may pull, not push.
        slow: `basic` behind something that can pass so many bytes a second only (see `throttled`).
        flaky: `http` behind something that can answer with faults (see `failing`).
        silent: accepts, and never answers.
        absent: an address where nothing listens.
        nowhere: a name that no node can resolve.
        expired: TLS, with a certificate that was good until yesterday.
        wrong: TLS, with a certificate for another name.
        hidden: `tls` under a name that only `proxy` resolves.
        obscure: `http` under a name that only `proxy` resolves; in no list of all.
        proxy: an HTTP proxy, as http://host:port.
        secret: what is in every password of theirs and nowhere else, to search for.
        folder: all that they write; gone with them.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.folder, self._group = fleet, fleet.state / "registries", f"{fleet.group}/registries"
        self._address = {kind: f"{fleet.network}.{200 + place}" for place, kind in enumerate(KINDS)}
        self._fronts: subprocess.Popen[str] | None = None
        self.secret = secrets.token_hex(12)
        self._ca = self.folder / "ca.pem"
        # A shell, a YAML file and a careless split all stumble over this one.
        owner = ("pusher", f"p '\"$x`:%\\{self.secret}")
        self._rights = {owner[0]: (owner[1], ("pull", "push")), "reader": (f"r{self.secret}", ("pull",))}
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
        """All of them but `reader` and `obscure`, which are `token` and `http` once more."""
        found = [self.http, self.tls, self.demo, self.basic, self.token, self.expired, self.wrong]
        return [*found, self.slow, self.flaky, self.silent, self.absent, self.nowhere, self.hidden]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that hold the passwords."""
        return {each.password_env: each.password for each in (*self.all, self.reader) if each.password}

    def settings(self, *registries: Registry) -> dict[str, dict[str, Any]]:
        """Return the `ctr_registries` of an inventory that describes them (all by default) as they are."""
        return {registry.name: registry.settings() for registry in registries or self.all}

    @contextlib.contextmanager
    def throttled(self, bytes_per_second: float) -> Iterator[None]:
        """Let `slow` pass so many bytes a second each way, all its connections together; else all it can."""
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
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Callable[[], int]]:
        """Let `flaky` answer with a fault; yields what tells how often it has.

        Args:
            status: such as "503 Service Unavailable".
            times: how many requests get it before all is well again.
            code, message: the error in the answer's body.
            methods: only such requests get it; any when empty.
            headers: more headers of the answer.
        """
        fault = (status, headers or {}, {"errors": [{"code": code, "message": message}]})
        before: int = self._ask("flaky", fault=fault, times=times, methods=methods)["answered"]
        try:
            yield lambda: self._ask("flaky")["answered"] - before
        finally:
            self._ask("flaky", times=0)

    def seen(self, front: str) -> dict[str, Any]:
        """Return what `slow`, `flaky`, `silent`, `proxy` or `tokens` has seen: `connections`, `sent` (bytes) and more.

        `got`: bytes that clients of slow have got. `answered`: how many faults flaky has given. `asked`: the
        host:port that proxy was asked for.
        """
        return self._ask(front)

    def __enter__(self) -> Registries:
        if not self.fleet.nodes:
            raise LabError("the registries are for a fleet's nodes, and it is down")
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
        """Start all of them at once and tell the nodes; raise LabError."""
        try:
            program = debian.unpacked(["docker-registry"], self.fleet.cache) / "usr/bin/docker-registry"
        except debian.Unavailable as error:
            raise LabError(f"no registry without Debian's docker-registry: {error}") from error
        authority = Authority(self._ca)
        (self.folder / "htpasswd").write_text(_htpasswd({name: word for name, (word, _) in self._rights.items()}))
        authority.issue(self.folder / "tokens.pem", [_host("token")])
        servers = {registry.real for registry in self.all if registry.real}
        for server in servers:
            server.prepare(program, authority)
        cgroups.create(self._group)
        self._fronts = self._start_fronts()
        with ThreadPoolExecutor(len(servers) + len(self.fleet.nodes)) as pool:
            told = pool.map(self._tell, self.fleet.nodes.values())
            list(pool.map(Server.start, servers))
            list(told)
        if (answer := self._line()) != "ready":
            raise LabError(f"what stands before the registries did not start: {answer or 'no word'}")

    def _end(self) -> None:
        """End all of them, and let the nodes forget them."""
        cgroups.destroy(self._group)
        for registry in self.all:
            if registry.real:
                registry.real.kill()
        if self._fronts:
            with self._fronts:
                self._fronts.communicate()
        for node in self.fleet.nodes.values():
            _forget(node)
        shutil.rmtree(self.folder)

    def _server(self, kind: str, *names: str, days: int = 10, auth: Mapping[str, Any] | None = None) -> Server:
        return Server(self.folder / kind, self._address[kind], self._group, names=names, days=days, auth=auth)

    def _registry(
        self, kind: str, real: Server | None = None, username: str | None = None, password: str | None = None
    ) -> Registry:
        plain = kind in ("http", "flaky", "obscure")
        scheme, ca_file = ("http", None) if plain else ("https", self._ca)
        address = self._address.get(kind, "")
        return Registry(f"{_host(kind)}:{PORT}", address, scheme, ca_file, username, password, real)

    def _tokens(self) -> dict[str, str]:
        """Return what the registry and the token server must agree on."""
        realm = f"https://{_host('token')}:{TOKEN_PORT}/token"
        return {"realm": realm, "service": "lab", "issuer": "lab tokens", "rootcertbundle": str(self._ca)}

    def _start_fronts(self) -> subprocess.Popen[str]:
        """Start `lab.fronts`; its first line will say how that went."""
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
        """Change attributes of a front, where some are given; return what it has seen."""
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
        """Let a node resolve the names."""
        _forget(node)
        names = {_host(kind): address for kind, address in self._address.items()}
        if node.name in DEMO_NODES:
            names[DEMO] = self._address["tls"]
        elif node.name == "node4":
            names[DEMO] = self._address["absent"]
        lines = "".join(f"{address} {name} {MARK}\n" for name, address in names.items())
        node.exec(["sh", "-c", "cat >>/etc/hosts"], stdin=lines.encode())


def _forget(node: Node) -> None:
    """Take our lines out of a node's /etc/hosts."""
    node.exec(["sed", "-i", f"/{MARK}$/d", "/etc/hosts"])


def _host(kind: str) -> str:
    """Return the host name of a registry."""
    return f"{kind}.{DOMAIN}"


def _hex(digest: str) -> str:
    """Return a digest without its algorithm."""
    return digest.removeprefix("sha256:")


def _htpasswd(passwords: Mapping[str, str]) -> str:
    """Return an htpasswd file; the hashes are cheap ones, since every request checks one."""
    hashes = {name: bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode() for name, word in passwords.items()}
    return "".join(f"{name}:{hashed}\n" for name, hashed in hashes.items())


def _answers(address: str) -> bool:
    """Tell whether something accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex((address, PORT)) == 0
