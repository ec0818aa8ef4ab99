"""On a host with k3s and Docker, images come to the containerd that kubelet uses, and the user is told of both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ferry import Fab, Stage

from lab.fleet import Node
from lab.images import build

SOCKET = "/run/containerd/containerd.sock"
# As Docker's packages leave it. The image that it has comes over from k3s.
_START = """set -e; cp {programs}/ctr {programs}/containerd /usr/bin/
printf '%s\\n' 'disabled_plugins = ["io.containerd.grpc.v1.cri"]' 'version = 2' 'root = "/var/lib/containerd"' \
  'state = "/run/containerd"' '[grpc]' 'address = "{socket}"' > /tmp/dockers.toml
setsid /usr/bin/containerd --config /tmp/dockers.toml >/dev/null 2>&1 & echo $! > /tmp/dockers.pid
n=0; until /usr/bin/ctr version >/dev/null 2>&1 || [ $n = 100 ]; do n=$((n+1)); sleep 0.1; done
k3s ctr images export - {name} | /usr/bin/ctr -n k8s.io images import -"""
_STOP = """kill "$(cat /tmp/dockers.pid)"; while [ -d "/proc/$(cat /tmp/dockers.pid)" ]; do sleep 0.1; done
rm -rf /tmp/dockers.* /usr/bin/ctr /usr/bin/containerd /run/containerd /var/lib/containerd"""


@pytest.fixture
def app(stage: Stage, node4: Node, tmp_path: Path) -> Iterator[str]:
    """An image that both containerds of node4 have under this name."""
    name = stage.name()
    stage.seed(build(tmp_path, layers=(1000,)), name, nodes=[node4])
    node4.exec(["sh", "-c", _START.format(programs=node4.model.programs, socket=SOCKET, name=name)])
    yield name
    node4.exec(["sh", "-c", _STOP])


def test_kubelets_containerd_gets_images_and_the_choice_is_shown(fab: Fab, stage: Stage, node4: Node, app: str) -> None:
    dst = stage.name("new")
    run = fab("-H", "node4", "retag", "--json", "--src", app, "--dst", dst)
    assert run.statuses == {"node4": "changed"}, run.out
    assert stage.records(node4)[dst].managed
    (warning,) = run.document["commands"][0]["warnings"]
    assert (warning["kind"], warning["hosts"]) == ("host-note", ["node4"])
    assert warning["message"].startswith(f"of 2 containerds, kubelet's is used: {node4.socket}, not {SOCKET}")
    assert "note: node4: of 2 containerds" in fab("-H", "node4", "images", "--ref", app).err

    places = fab("-H", "node4", "find", "--json", "--match", app).image("node4")["places"]
    assert {place["socket"] for place in places} == {node4.socket, SOCKET}
    findings = fab("-H", "node4", "doctor", "--json").outcomes["node4"]["result"]["findings"]
    (found,) = [each for each in findings if each["check"] == "socket"]
    assert (found["status"], f"ctr_address: {node4.socket}" in found["hint"]) == ("warn", True)
