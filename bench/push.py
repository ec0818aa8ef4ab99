"""`make bench-push`: bare `ssh node ctr images push` against `fab push`, to two registries of the lab."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Contender, alternate, report, ssh
from lab.fleet import Fleet, Node
from lab.images import build, seed_image
from lab.registries import Registries, Registry

FAB = str(Path(sys.executable).with_name("fab"))
NAMESPACE = "bench-push"
NAME, PUSHED = "172.1.1.34:5000/bench/image:1", "bench/image:1"
LOGIN = ", TLS and a login"
CA = "/var/tmp/bench-push-ca.pem"
MIB = 1 << 20


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=64, help="size of the image (default 64)")
    parser.add_argument("--node", default="node3", help="the node that pushes (default node3)")
    options = parser.parse_args()
    if not shutil.which("ssh"):
        sys.exit("bench-push needs the ssh client: apt-get install openssh-client")
    fleet = Fleet()
    fleet.up()
    node = fleet.nodes[options.node]
    with Registries(fleet) as registries, bench(fleet, node, registries, options.mib) as contenders:
        alternate(contenders, options.rounds)
    medians = {each.name: each.median for each in contenders}
    added = {login: medians[f"fab push{login}"] - medians[f"ctr push{login}"] for login in ("", LOGIN)}
    notes = [
        f"The image has {options.mib} MiB in 4 layers. The registry has nothing of it before each push.",
        f"Whole processes, from start to exit, over SSH on loopback; {node.name}'s ctr {node.version}.",
        "ctr push: ssh and bare ctr, which inspects nothing before and after. Its password is on its command line.",
    ]
    if node.model.legacy and not node.real_is_legacy:
        notes.append("Its ctr is the stand-in for 1.2.6.")
    report(
        "push",
        contenders,
        {
            "added_s": max(added.values()),
            "added_s, plain http": added[""],
            "added_s, TLS and a login": added[LOGIN],
            "ours/bare": medians["fab push"] / medians["ctr push"],
        },
        notes,
    )


@contextmanager
def bench(fleet: Fleet, node: Node, registries: Registries, mib: int) -> Iterator[list[Contender]]:
    """Yield the contenders. The node has the image during the block."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=fleet.state))
    image = build(folder, layers=[mib * MIB // 4] * 4, seed=94)
    variables = {"ctr_registries": registries.settings(), "ctr_namespace": NAMESPACE}
    lines = "".join(f"    {name}: {json.dumps(value)}\n" for name, value in variables.items())
    inventory = folder / "hosts.yaml"
    inventory.write_text(fleet.inventory.read_text().replace("  vars:\n", f"  vars:\n{lines}", 1))
    env = {"CTR_FERRY_INVENTORY": str(inventory), **registries.environment}

    def pair(registry: Registry, name: str) -> list[Contender]:
        def after() -> None:
            assert registry.server.digest(PUSHED) == image.target.digest, "the registry does not have the image"

        goal = f"{registry.name}/{PUSHED}"
        bare, before = ssh(fleet, node, _bare(node, registry, goal)), registry.server.empty
        ours = [FAB, "-H", node.name, "push", "--ref", NAME, "--as", goal]
        return [
            Contender(f"ctr push{name}", bare, before, after),
            Contender(f"fab push{name}", ours, before, after, env),
        ]

    try:
        seed_image(node, image, [NAME], namespace=NAMESPACE)
        node.exec(["sh", "-c", f"cat >{CA}"], stdin=(registries.folder / "ca.pem").read_bytes())
        yield [*pair(registries.http, ""), *pair(registries.basic, LOGIN)]
    finally:
        node.real_ctr("images", "rm", "--sync", NAME, namespace=NAMESPACE)
        if blobs := node.real_ctr("content", "ls", "-q", namespace=NAMESPACE).stdout.decode().split():
            node.real_ctr("content", "rm", *blobs, namespace=NAMESPACE)
        node.real_ctr("namespaces", "rm", NAMESPACE)
        node.exec(["rm", "-f", CA])
        shutil.rmtree(folder)


def _bare(node: Node, registry: Registry, goal: str) -> str:
    """Return the command line that people type today."""
    flags = []
    if registry.scheme == "http":
        flags.append("--plain-http")
    if registry.username:
        flags += ["--user", f"{registry.username}:{registry.password}"]
    line = shlex.join([*node.model.ctr, "-n", NAMESPACE, "images", "push", *flags, goal, NAME])
    return f"SSL_CERT_FILE={CA} {line}" if registry.ca_file else line


if __name__ == "__main__":
    main()
