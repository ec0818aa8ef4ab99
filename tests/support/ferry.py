"""Helpers of the tests of commands: `fab` as a user types it, and a test's own images on the rehearsal fleet."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from forkserver import CLONE, ForkServer
from validation import validate

from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, seed_image

CRI_LABEL = "io.cri-containerd.image=managed"
LONGEST = 300  # seconds until a `fab` counts as hanging; a busy machine needed over 120 for 200 hosts
PINS = ("team=a", "io.cri-containerd.pinned=pinned")  # labels that others set on a name


def eventually(holds: Callable[[], Any], seconds: float = 60) -> bool:
    """Tell whether a condition becomes true within some seconds. The pauses between the checks grow."""
    pause, deadline = 0.05, time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)
    return True


def release(node: Node) -> tuple[int, int]:
    """Return major and minor number of the ctr that a user of this node gets."""
    major, minor = re.findall(r"\d+", node.version)[:2]
    return int(major), int(minor)


def has_cri(node: Node) -> bool:
    """Tell whether CRI labels names that appear in k8s.io, as it does from 1.2 on."""
    return node.cri and release(node) >= (1, 2)


@dataclass(frozen=True)
class Run:
    """One `fab` that has ended."""

    exit: int
    out: str
    err: str
    peak: int = 0  # KiB of memory

    @cached_property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        document: dict[str, Any] = json.loads(self.out)
        validate(document)
        return document

    @property
    def outcomes(self) -> dict[str, dict[str, Any]]:
        """The outcomes of the last command, by host."""
        return {outcome["host"]: outcome for outcome in self.document["commands"][-1]["outcomes"]}

    @property
    def statuses(self) -> dict[str, str]:
        """The status by host; if a host failed, the error's kind."""
        return {host: o.get("error", {}).get("kind", o["status"]) for host, o in self.outcomes.items()}

    @property
    def error(self) -> dict[str, str]:
        """The error of the command line, or of the first host that failed."""
        errors = [o["error"] for o in self.outcomes.values() if "error" in o] if self.document["commands"] else []
        error: dict[str, str] = self.document.get("error") or errors[0]
        return error

    def images(self, host: str) -> list[dict[str, Any]]:
        """Return the results of all images on one host."""
        images: list[dict[str, Any]] = self.outcomes[host]["result"]["images"]
        return images

    def image(self, host: str) -> dict[str, Any]:
        """Return the result of the only image on one host."""
        (image,) = self.images(host)
        return image


class Started(subprocess.Popen[str]):
    """A `fab` that was started. What it printed for scripts must be as the schemas say, also where it was cut off."""

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; return stdout and stderr."""
        out, err = super().communicate(input, timeout)
        if "--json" in self.args and out:  # type: ignore[operator]
            validate(json.loads(out))
        return out, err


class Fab:
    """The real `fab` in a process of its own, with an empty home and the fleet's inventory."""

    def __init__(self, inventory: Path, home: Path, server: ForkServer) -> None:
        self.inventory, self.home, self.server = inventory, home, server

    def argv(self, *words: str) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", "fabric", *words]

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of `fab`: the test's home and inventory, and `more`."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CTR_FERRY", "FABRIC", "INVOKE", "SSH_"))}
        ours = {"CTR_FERRY_INVENTORY": self.inventory, "HOME": self.home, "FABRIC_FLEET_RUNS": self.home / "runs"}
        return {**kept, **{name: str(path) for name, path in ours.items()}, **more}

    def __call__(self, *words: str, inventory: Path | str | None = None, **env: str) -> Run:
        """Run `fab WORDS…` to its end; it must never show a traceback."""
        env = {"CTR_FERRY_INVENTORY": str(inventory or self.inventory), **env}
        status, peak, out, err = self.server.run(words, self.environment(**env), LONGEST)
        assert "Traceback" not in out + err, out + err
        run = Run(status, out, err, peak)
        if "--json" in words and out:
            assert run.document["exit"] == status
        return run

    def retag(self, hosts: str | Iterable[str], *words: str, inventory: Path | str | None = None, **env: str) -> Run:
        """Run `fab -H HOSTS retag --json WORDS…`."""
        named = hosts if isinstance(hosts, str) else ",".join(hosts)
        return self("-H", named, "retag", "--json", *words, inventory=inventory, **env)

    def start(self, *words: str, inventory: Path | str | None = None, **env: str) -> Started:
        """Start `fab WORDS…` and return at once."""
        env = {"CTR_FERRY_INVENTORY": str(inventory or self.inventory), **env}
        # A background job's children inherit that SIGINT is ignored, and nohup's SIGHUP. On a terminal, none is.
        return Started(
            ["env", "--default-signal=INT,HUP", *self.argv(*words)],
            cwd=CLONE,
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@dataclass(frozen=True)
class Record:
    """One line of `images ls`."""

    digest: str
    labels: str

    @property
    def managed(self) -> bool:
        """Whether kubelet sees the name."""
        return CRI_LABEL in self.labels


class Stage:
    """One test's own names and namespaces on the fleet, or on some of its nodes. `close` removes them."""

    def __init__(self, fleet: Fleet, *names: str) -> None:
        self.token = f"t{uuid.uuid4().hex[:10]}"
        self.nodes = {name: node for name, node in fleet.nodes.items() if not names or name in names}
        self.namespaces = {"k8s.io"}

    def name(self, repository: str = "app", tag: str = "1", registry: str = "172.1.1.34:5000") -> str:
        """Return a full reference that no other test has."""
        return f"{registry}/{self.token}/{repository}:{tag}"

    def namespace(self, suffix: str = "") -> str:
        """Return a namespace that no other test has."""
        made = f"{self.token}{suffix}"
        self.namespaces.add(made)
        return made

    def on_each(self, work: Callable[[Node], Any], nodes: Iterable[Node] | None = None) -> dict[str, Any]:
        """Call a function for several nodes in parallel; return the results by node."""
        wanted = list(self.nodes.values() if nodes is None else nodes)
        with ThreadPoolExecutor(max(1, len(wanted))) as pool:
            return dict(zip([node.name for node in wanted], pool.map(work, wanted), strict=True))

    def seed(
        self,
        image: BuiltImage,
        *names: str,
        namespace: str = "k8s.io",
        blobs: Collection[str] | None = None,
        nodes: Iterable[Node] | None = None,
    ) -> None:
        """Give nodes an image, and wait until CRI has labelled its names."""

        if NATIVE not in image.manifests and any(release(node) < (1, 2) for node in nodes or self.nodes.values()):
            pytest.skip("ctr 1.0 and 1.1 cannot import another platform's image")

        def one(node: Node) -> None:
            manifests = set(image.manifests.values())
            absent = manifests - set(image.blobs if blobs is None else blobs)
            needed = absent if node.real_is_legacy else set()  # a real 1.2 imports an image only with all manifests
            seed_image(node, image, names, namespace, None if blobs is None else {*blobs, *needed})
            if needed:
                node.real_ctr("content", "rm", *needed, namespace=namespace)
            kept = manifests - absent if blobs is not None and not node.real_is_legacy else set()
            for number, digest in enumerate(kept):
                # From 1.3 on, an import does not keep the manifests of other platforms. 1.2 keeps them.
                reference = f"containerd.io/gc.ref.content.test.{number}={digest}"
                node.real_ctr("content", "label", image.target.digest, reference, namespace=namespace)
                ingest = ("content", "ingest", "--expected-digest", digest, f"{self.token}-{number}")
                node.real_ctr(*ingest, namespace=namespace, stdin=bytes(image.blobs[digest]))  # type: ignore[arg-type]
            if namespace == "k8s.io" and has_cri(node):
                assert eventually(lambda: self._managed(node) >= set(names)), node

        self.on_each(one, nodes)

    def _managed(self, node: Node) -> set[str]:
        return {name for name, record in self.records(node).items() if record.managed}

    def records(self, node: Node, namespace: str = "k8s.io", digests: Collection[str] = ()) -> dict[str, Record]:
        """Return the records of this test's names, of its namespaces, and of some digests."""
        found = {}
        ours = [f"name~={self.token}", *(f"target.digest=={digest}" for digest in digests)]
        filters = [] if namespace.startswith(self.token) else ours  # ctr reads much of every image that it lists
        for line in node.real_ctr("images", "ls", *filters, namespace=namespace).stdout.decode().splitlines()[1:]:
            words = line.split()
            if self.token in words[0] or namespace.startswith(self.token) or words[2] in digests:
                found[words[0]] = Record(words[2], words[-1])
        return found

    def check(self, node: Node, name: str, namespace: str = "k8s.io") -> str:
        """Return the word of `images check`: complete or incomplete."""
        detail = node.real_ctr("images", "check", f"name=={name}", namespace=namespace).stdout.decode()
        match = re.search(r"\b(in)?complete \(", detail)
        return match[0].rstrip(" (") if match else detail

    def hello(self, node: Node, name: str, namespace: str = "k8s.io") -> str:
        """Run a container of the image; return its output.

        ctr 1.4 sometimes loses the output of a container that ends at once, with exit status 0. Then the container
        runs again.
        """
        detail = ""
        for _ in range(3):
            identity = f"{self.token}-{node.name}-{uuid.uuid4().hex[:6]}"
            done = node.ctr("run", "--rm", name, identity, namespace=namespace, check=False)
            detail = (done.stdout or done.stderr).decode().strip()
            if done.stdout or done.returncode:
                break
        return detail

    def exported(self, node: Node, name: str, namespace: str = "k8s.io") -> set[str]:
        """Export the image; return the digests of all blobs in the archive."""
        flags = ("--local",) if release(node) >= (1, 7) else ()
        data = node.ctr("images", "export", *flags, "-", name, namespace=namespace).stdout
        with tarfile.open(fileobj=BytesIO(data)) as tar:
            names = tar.getnames()
        assert "index.json" in names
        return {f"sha256:{Path(name).name}" for name in names if name.startswith("blobs/sha256/") and len(name) > 20}

    def close(self) -> None:
        """Remove everything of this test from the nodes."""

        def one(node: Node) -> None:
            words = [self.token, *sorted(self.namespaces)]
            node.exec(["sh", "-c", _CLOSE.format(ctr=shlex.join(node.real_ctr_words)), "close", *words])

        self.on_each(one)


# Removes the test's own namespaces with all names and blobs; in other namespaces, the names that have its token.
_CLOSE = """token=$1; shift; set -f
for n in "$@"; do
  c() {{ {ctr} --namespace "$n" "$@"; }}
  case $n in $token*) mine= ;; *) mine=$token ;; esac
  names=$(c images ls -q | grep -e "$mine") && c images rm --sync $names
  [ -z "$mine" ] || continue
  blobs=$(c content ls -q) && [ -n "$blobs" ] && c content rm $blobs
  c namespaces rm "$n"
done >/dev/null 2>&1; true"""


def blob_file(node: Node, digest: str) -> str:
    """Return a blob's file inside the node."""
    return f"{node.root}/io.containerd.content.v1.content/blobs/{digest.replace(':', '/')}"


@contextmanager
def flipped(node: Node, digest: str) -> Iterator[None]:
    """Change the last byte of a blob's file during the block."""
    file = blob_file(node, digest)
    last = int(node.exec(["stat", "-c", "%s", file]).stdout) - 1

    def put(byte: bytes) -> None:
        node.exec(["dd", f"of={file}", "bs=1", f"seek={last}", "conv=notrunc"], stdin=byte)

    before = node.exec(["dd", f"if={file}", "bs=1", f"skip={last}"]).stdout
    put(bytes([before[0] ^ 1]))
    try:
        yield
    finally:
        put(before)


def blob_stats(node: Node, digests: Iterable[str]) -> dict[str, str]:
    """Return inode and time of blobs' files. Both change if a blob is written again."""
    wanted = sorted(digests)
    detail = node.exec(["stat", "-c", "%i %y", *(blob_file(node, digest) for digest in wanted)]).stdout.decode()
    return dict(zip(wanted, detail.splitlines(), strict=True))


def processes(node: Node) -> dict[int, str]:
    """Return the processes of a node that are neither its services nor containers: number on this machine -> argv."""
    space = Path(f"/proc/{node.pid}/ns/pid").readlink()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "ns/pid").readlink() == space:
                argv = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if argv and not re.match(r"\S*/containerd|\S*python\S* .*/node\.py|sshd: .*\[listener\]", argv):
                    found[int(folder.name)] = argv
        except OSError:
            continue
    return found


def leftovers(node: Node, namespaces: Iterable[str] = ("k8s.io",)) -> list[str]:
    """Return what ctr-ferry left on a node: temporary files, names, labels, ingests that are not complete."""
    words = [*namespaces]
    ours = " ".join(f"! -path {shlex.quote(str(folder))}" for folder in (CLONE, *CLONE.parents))
    script = _LEFTOVERS.format(ctr=shlex.join(node.real_ctr_words), but_clone=ours)
    done = node.exec(["sh", "-c", script, "leftovers", *words])
    return done.stdout.decode().splitlines()


_LEFTOVERS = """find /tmp /var/tmp /run -xdev -name '*ferry*' {but_clone}; find /tmp -name 'tmp.*'
seen=$(for n in "$@"; do
  for what in "images ls -q" "content ls" "content active"; do {ctr} --namespace "$n" $what || exit; done
done) || exit
printf '%s\n' "$seen" | grep ctr-ferry; true"""


def write_inventory(path: Path, fleet: Fleet, hosts: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write an inventory with the fleet's key and known hosts, and with the given hosts."""
    options = f"-o UserKnownHostsFile='{fleet.state}/ssh/known_hosts'"
    common = {
        "ansible_user": "root",
        "ansible_port": 2222,
        "ansible_ssh_private_key_file": str(fleet.state / "ssh/id_ed25519"),
        "ansible_ssh_common_args": options,
    }
    path.write_text(json.dumps({"all": {"vars": common, "hosts": hosts}}))  # JSON is YAML
    return path


def names_of(nodes: Sequence[Node]) -> list[str]:
    """Return the nodes' names."""
    return [node.name for node in nodes]
