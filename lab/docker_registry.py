"""One docker-registry, Debian's package, as a process of the lab."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import cgroups
from lab.certificates import Authority
from lab.fleet import DETACH, LabError, demand_free
from lab.images import BuiltImage

PORT = 5000
PATIENCE = 20.0  # seconds for a registry to start or to end


class DockerRegistry:
    """One docker-registry, Debian's package.

    Args:
        folder: where the registry writes everything. What it stores outlives a stop.
        address: the address on which the registry listens.
        group: the registry's control group.
        names: the names in the registry's certificate; without any, the registry speaks plain HTTP.
        days: for how many days the certificate is valid; below 0, it has expired so many days ago.
        auth: the part `auth` of the registry's configuration.
        port: the port on which the registry listens.
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
        port: int = PORT,
    ) -> None:
        self.folder, self.address, self.port, self.names = folder, address, port, names
        self._group, self._days, self._auth = group, days, auth
        self._program = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, program: Path, authority: Authority) -> None:
        """Write what the registry needs: a configuration, a certificate and, unless it has one, an empty storage."""
        self._program = program
        (self._storage / "repositories").mkdir(parents=True, exist_ok=True)
        http: dict[str, Any] = {"addr": f"{self.address}:{self.port}", "secret": secrets.token_hex()}
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
        """Start the registry, unless it runs, and wait until it accepts connections; raise LabError."""
        if self._process:
            return
        self._process = process = self._popen([])
        self._wait(lambda: process.poll() is None)

    def launch(self) -> None:
        """Start the registry so that it outlives this process, unless it runs; raise LabError.

        The registry must be alone in its control group, by which later processes find it.
        """
        if cgroups.members(self._group):
            return
        demand_free(self.address, self.port)
        self._popen(["sh", "-c", DETACH, "detach"]).wait(PATIENCE)
        self._wait(lambda: bool(cgroups.members(self._group)))

    def _popen(self, how: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start the registry in its control group. `how` is the beginning of its command line."""
        argv = [*how, str(self._program), "serve", str(self.folder / "config.yml")]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                cgroups.joining(cgroups.create(self._group), argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, runs: Callable[[], bool]) -> None:
        """Wait until the registry accepts connections; raise LabError if it has ended, or takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if not runs() or time.monotonic() > deadline:
                lines = (self.folder / "log").read_text(errors="replace").strip().splitlines() or ["no output"]
                raise LabError(f"docker-registry at {self.address}:{self.port} did not start: {lines[-1]}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        """Return whether the registry's address accepts connections."""
        with socket.socket() as probe:
            return probe.connect_ex((self.address, self.port)) == 0

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the registry with a signal, if it runs, and wait for its end."""
        if self._process:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None

    def kill(self) -> None:
        """End the registry at once, whatever it is doing."""
        self.stop(signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Keep the registry from answering during the block. Its connections stay open."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def requests(self) -> list[str]:
        """Return the access log: one line per request that the registry has answered."""
        return [line for line in (self.folder / "log").read_text().splitlines() if ' HTTP/1.1" ' in line]

    def digest(self, name: str) -> str | None:
        """Return the digest of a `repository:tag`; None if the registry has no such tag."""
        repository, _, tag = name.rpartition(":")
        link = self._repository(repository) / f"_manifests/tags/{tag}/current/link"
        return link.read_text() if link.exists() else None

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository."""
        return sorted(path.name for path in self._repository(repository).glob("_manifests/tags/*"))

    def blobs(self, repository: str) -> set[str]:
        """Return the digests of all layers and configs of a repository."""
        return {f"sha256:{link.parent.name}" for link in self._repository(repository).glob("_layers/sha256/*/link")}

    def put(self, image: BuiltImage, *names: str, blobs: Sequence[str] | None = None) -> None:
        """Write an image straight into the registry's storage.

        Args:
            names: the image's names, as repository:tag.
            blobs: the digests of the blobs to write; None is all.
        """
        given = set(image.blobs if blobs is None else blobs)
        manifests = {image.target.digest, *image.manifests.values()} & given
        for digest in given:
            file = self._storage / f"blobs/sha256/{_hex(digest)[:2]}/{_hex(digest)}/data"
            file.parent.mkdir(parents=True, exist_ok=True)
            blob = image.blobs[digest]
            if isinstance(blob, bytes):
                file.write_bytes(blob)
            else:
                shutil.copyfile(blob, file)
        for name in names:
            repository, _, tag = name.rpartition(":")
            for digest in given:
                kind = "_manifests/revisions" if digest in manifests else "_layers"
                self._link(repository, f"{kind}/sha256/{_hex(digest)}", digest)
            target = image.target.digest
            self._link(repository, f"_manifests/tags/{tag}/index/sha256/{_hex(target)}", target)
            self._link(repository, f"_manifests/tags/{tag}/current", target)

    def empty(self) -> None:
        """Empty the registry's storage, whether the registry runs or not."""
        shutil.rmtree(self._storage)
        (self._storage / "repositories").mkdir(parents=True)

    def forget(self, repository: str) -> None:
        """Remove a repository from the registry's storage, if it has one."""
        shutil.rmtree(self._repository(repository), ignore_errors=True)

    @property
    def _storage(self) -> Path:
        return self.folder / "storage/docker/registry/v2"

    def _repository(self, repository: str) -> Path:
        return self._storage / "repositories" / repository

    def _link(self, repository: str, path: str, digest: str) -> None:
        folder = self._repository(repository) / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "link").write_text(digest)


def _hex(digest: str) -> str:
    """Return a digest without its algorithm."""
    return digest.removeprefix("sha256:")
