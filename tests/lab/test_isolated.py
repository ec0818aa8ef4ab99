"""Namespaces may share no content (`content_sharing_policy`): then blobs are sent that another one has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from delivering import Make, make_fixture  # noqa: F401
from ferry import Fab, Stage, leftovers

from lab.fleet import Node


@contextmanager
def isolated(node: Node) -> Iterator[None]:
    """Let the namespaces of a node share no content during the block."""
    file = "/etc/containerd/config.toml"
    policy = '[plugins."io.containerd.metadata.v1.bolt"]\ncontent_sharing_policy = "isolated"\n'
    before = node.exec(["cat", file]).stdout
    node.exec(["sh", "-c", f"cat >>{file}"], stdin=policy.encode())
    try:
        node.restart_containerd()
        yield
    finally:
        node.exec(["sh", "-c", f"cat >{file}"], stdin=before)
        node.restart_containerd()


def test_a_namespace_that_shares_nothing_is_sent_what_another_one_has(
    fab: Fab, few: Stage, make: Make, node3: Node, node5: Node
) -> None:
    """Up to ctr 1.6 blobs come by ingest, from 1.7 on by import."""
    image, there, targets = make(), few.namespace(), [node3, node5]
    few.seed(image, few.name())
    with ExitStack() as stack:
        for node in targets:
            stack.enter_context(isolated(node))
        words = ("--from", "node1", "--to-namespace", there, "--ref", few.name())
        dry = fab("-H", "node3", "copy", "--json", "--dry-run", *words)
        assert dry.image("node3")["blobs"] == len(image.blobs), dry.out
        run = fab("-H", "node3,node5", "copy", "--json", *words)
        assert run.statuses == {"node3": "changed", "node5": "changed"}, run.out
        for node in targets:
            told = run.image(node.name)
            assert (told["method"], told["blobs"], told["blobs_there"]) == ("blobs", len(image.blobs), 0)
            assert set(image.blobs) <= set(
                node.real_ctr("content", "ls", "-q", namespace=there).stdout.decode().split()
            )
            assert few.hello(node, few.name(), there) == "hello"
            assert leftovers(node, ["k8s.io", there]) == []
