"""What people rehearse on: the fleet, two registries, and the images of README.md's story on some nodes."""

from __future__ import annotations

import sys
import time

from lab.fleet import Fleet, Node
from lab.images import build, seed_image
from lab.standing import DEMO, StandingRegistries

OLD = "172.1.1.34:5000/library/cambricon-k8s-device-plugin:v1.1.3"
NEW = f"{DEMO}/library/cambricon-k8s-device-plugin:v1.1.3"
LOST = "lost:1"  # this image is in the wrong namespace, which is the most common mistake


def say(text: str) -> None:
    """Tell what the lab is doing."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def up(fleet: Fleet, extra: int = 0) -> None:
    """Bring everything up, and tell each step; raise LabError.

    Args:
        fleet: the fleet to bring up.
        extra: the number of further nodes like node3.
    """
    began = time.monotonic()
    fleet.tell = say
    fleet.up(extra)
    if fleet.missing:
        say(f"some nodes may be missing: {'; '.join(fleet.missing)}")
    say("bringing up two registries: one speaks plain HTTP, the other TLS")
    StandingRegistries(fleet).up()
    holders = _holders(fleet)
    say(f"giving {' and '.join(node.name for node in holders)} the images of the story")
    _seed(fleet, holders)
    say(f"{len(fleet.nodes)} nodes are up ({time.monotonic() - began:.1f} s): {', '.join(fleet.nodes)}")


def begin_again(fleet: Fleet) -> list[Node]:
    """Undo what earlier runs of the story did; return the nodes that have the image under its old name alone."""
    for node in fleet.nodes.values():
        node.real_ctr("images", "rm", "--sync", NEW)
    StandingRegistries(fleet).tls.empty()
    _seed(fleet, _holders(fleet))
    return _holders(fleet)


def _holders(fleet: Fleet) -> list[Node]:
    """Return the nodes that have the story's image at its beginning."""
    return [fleet.nodes[name] for name in ("node1", "node3") if name in fleet.nodes]


def _seed(fleet: Fleet, holders: list[Node]) -> None:
    """Give the holders the story's image under its old name, and the first of them an image in the wrong namespace."""
    image = build(fleet.state / "images", layers=(3_000_000, 2_000_000))
    lost = build(fleet.state / "images", layers=(1_000_000,), seed=1)
    for node in holders:
        seed_image(node, image, [OLD])
    seed_image(holders[0], lost, [f"docker.io/library/{LOST}"], namespace="default")
