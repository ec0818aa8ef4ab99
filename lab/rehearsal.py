"""What people rehearse on: the fleet, two registries, and the images of README.md's story on some nodes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build, seed_image
from lab.standing import DEMO, StandingRegistries

OLD = "172.1.1.34:5000/library/cambricon-k8s-device-plugin:v1.1.3"
NEW = f"{DEMO}/library/cambricon-k8s-device-plugin:v1.1.3"
OTHER = "172.1.1.34:5000/library/node-exporter:v1.3.1"  # only the oldest host has it
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
    listed, _, _ = fleet.inventory.read_text().partition("    sudoers:\n")
    inventory(fleet).write_text(listed)
    say(f"{len(fleet.nodes)} nodes are up ({time.monotonic() - began:.1f} s): {', '.join(fleet.nodes)}")
    if "CTR_FERRY_LAB" in os.environ:  # hosts.yaml has the fleet of this clone
        say(f"their inventory: export CTR_FERRY_INVENTORY={inventory(fleet)}")


def inventory(fleet: Fleet) -> Path:
    """Return the inventory that `up` writes for people: like the tracked hosts.yaml, without node3's sudo users."""
    return fleet.state / "rehearsal.yaml"


def begin_again(fleet: Fleet) -> Node:
    """Undo what earlier runs of the story did; return the node that alone has the image, under its old name."""
    image = _image(fleet)
    for node in fleet.nodes.values():  # CRI names an image by its config as well
        node.real_ctr("images", "rm", "--sync", OLD, NEW, image.configs[NATIVE], check=False)
    StandingRegistries(fleet).tls.forget(NEW.removeprefix(f"{DEMO}/").rpartition(":")[0])
    holder = _holders(fleet)[0]
    seed_image(holder, image, [OLD])
    return holder


def _holders(fleet: Fleet) -> list[Node]:
    """Return the nodes that have the story's image at its beginning, the oldest first."""
    return [fleet.nodes[name] for name in ("node1", "node3") if name in fleet.nodes]


def _image(fleet: Fleet) -> BuiltImage:
    """Return the story's image."""
    return build(fleet.state / "images", layers=(3_000_000, 2_000_000))


def _seed(fleet: Fleet, holders: list[Node]) -> None:
    """Give the holders the story's image under its old name, and the first of them the page's other images."""
    lost = build(fleet.state / "images", layers=(1_000_000,), seed=1)
    other = build(fleet.state / "images", layers=(1_500_000,), seed=2)
    for node in holders:
        seed_image(node, _image(fleet), [OLD])
    seed_image(holders[0], other, [OTHER])
    seed_image(holders[0], lost, [f"docker.io/library/{LOST}"], namespace="default")
