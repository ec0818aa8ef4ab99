"""needs lists what containers use by real names, each host's sandbox image, and what manifests name."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from letters import unhashed  # noqa: F401
from listed import APP, CONFIG, B, FakeFleet, FakeHost, image

from ctr_ferry import errors
from ctr_ferry.ctr import sandbox
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.version import Capabilities
from ctr_ferry.run import options
from ctr_ferry.shell import Answer
from tasks import needs as needs_command

PAUSE, LAYERS = "registry.k8s.io/pause:3.9", f"sha256:{'e' * 64}"
LABELS = (
    f"{B}\t551 B\t2 minutes\tcontainerd.io/gc.ref.content.config={CONFIG}\n"
    f"{CONFIG}\t1 B\t2 minutes\tcontainerd.io/gc.ref.snapshot.overlayfs={LAYERS}\n"
)


@dataclass
class Running(FakeHost):
    """A host with containers: their ids and the names of their images; ``c1`` has a snapshot of the image `B`."""

    containers: tuple[tuple[str, str], ...] = ()
    pause: str = PAUSE

    def _answer(self, words: list[str]) -> Answer:
        if "containers" in words:
            rows = [f"{identity} {name} io.containerd.runc.v2" for identity, name in self.containers]
            return Answer(0, "\n".join(["CONTAINER IMAGE RUNTIME", *rows, ""]).encode(), "")
        if words[-2:] == ["content", "ls"]:
            return Answer(0, f"DIGEST SIZE AGE LABELS\n{LABELS}".encode(), "")
        if "snapshots" in words:
            return Answer(0, f"KEY PARENT KIND\nc1 {LAYERS} Active\n".encode(), "")
        return Answer(0, f"{self.pause}\n".encode(), "") if "named" in " ".join(words) else super()._answer(words)


def needs(fleet: FakeFleet, **more: Any) -> dict[str, Any]:
    answers: dict[str, Any] = needs_command.needs.body(fleet, needs_command.parse(**more))
    return answers


def told(result: Any) -> dict[str, tuple[str, ...]]:
    return {image.reference: image.by for image in result.images}


def test_containers_sandbox_and_manifests_are_put_together(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text("kind: Pod\nspec: {containers: [{image: r.example/new:1}, {image: busybox}]}\n")
    held = {"k8s.io": [image()]}
    host = Running(held, cri=True, containers=(("c0", APP), ("c2", PAUSE), ("c3", "-"), ("c4", "busybox:latest")))
    answers = needs(FakeFleet(a=host, b=Running(held)), manifests=[str(tmp_path / "pod.yaml")])
    assert told(answers["a"]) == {
        "docker.io/library/busybox:latest": ("container", "manifest"),
        APP: ("container",),
        "r.example/new:1": ("manifest",),
        PAUSE: ("container", "sandbox"),
    }
    assert told(answers["b"]) == {"docker.io/library/busybox:latest": ("manifest",), "r.example/new:1": ("manifest",)}
    assert len(host.scripts) == 1  # behind the probe
    table = needs_command.tabulate(answers)
    assert table.rows == () and list(table.notes[2:]) == sorted(told(answers["a"]))


@pytest.mark.parametrize("name", [CONFIG, "r.example/App:1"])
@pytest.mark.parametrize("record", [True, False], ids=["with CRI's record", "without"])
def test_the_id_of_an_image_becomes_its_name(name: str, record: bool) -> None:
    other = [image("r.example/other@" + B, B), image("r.example/other:1", B), *([image(CONFIG, B)] if record else [])]
    host = Running({"k8s.io": [image(), *other]}, containers=(("c1", name),))
    assert told(needs(FakeFleet(a=host))["a"]) == {"r.example/other:1": ("container",)}
    pinned = replace(host, images={"k8s.io": [other[0]]})
    assert told(needs(FakeFleet(a=pinned))["a"]) == {f"r.example/other@{B}": ("container",)}


def test_an_image_without_a_name_and_a_host_that_is_down_stand_in_comments() -> None:
    lost = Running({"k8s.io": []}, cri=True, pause="", containers=(("c1", CONFIG), ("c2", APP)))
    answers = needs(FakeFleet(a=lost, b=errors.ConnectTimeout("b did not answer")))
    assert told(answers["a"]) == {APP: ("container",)}
    assert needs_command.tabulate(answers).notes[1:] == (
        "# Hosts: a",
        "# b did not tell: b did not answer",
        f"# a: container c1 uses {CONFIG}, which has no name there that another host could take",
        "# a: containerd's configuration names no sandbox image",
        APP,
    )


def test_the_file_is_a_set_and_is_written_again_but_nothing_else_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "site.images"
    fleet = FakeFleet(a=Running({"k8s.io": [image()]}, cri=True, containers=(("c0", APP),)))
    for made in (None, ""):
        if made is not None:
            file.write_text(made)
        answers = needs(fleet, out=str(file))
        assert options.references(None, [str(file)]) == (APP, PAUSE)
        assert answers["a"].out == str(file)
        assert needs_command.tabulate(answers).notes == (f"{file} has 2 images that a needs",)
    before = file.read_text()
    needs(fleet, out=str(file))
    assert file.read_text() == before
    fleet.dry_run = True
    file.unlink()
    assert needs(fleet, out=str(file))["a"].out == "" and not file.exists()


def test_hosts_that_need_nothing_fail_and_write_no_file(tmp_path: Path) -> None:
    with pytest.raises(errors.NothingFound, match="no container of a uses an image"):
        needs(FakeFleet(a=Running({"k8s.io": [image()]})), out=str(tmp_path / "set"))
    assert not (tmp_path / "set").exists()
    down = FakeFleet(a=errors.ConnectTimeout("dead"))
    assert needs(down, out=str(tmp_path / "set"))["a"].kind == "connect-timeout"
    assert not (tmp_path / "set").exists() and needs_command.tabulate(needs(down)).notes == ()


def test_a_wrong_manifest_is_told_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text("kind: Pod\nspec:\n  image: 'a b'\n")
    with pytest.raises(errors.UsageError) as wrong:
        needs_command.parse(manifests=[str(tmp_path / "pod.yaml")])
    assert "pod.yaml:3:" in wrong.value.detail
    with pytest.raises(errors.UsageError, match=r"--manifests .* cannot be read"):
        needs_command.parse(manifests=[str(tmp_path / "nosuch")])


OLD = '[plugins]\n  [plugins."io.containerd.grpc.v1.cri"]\n    sandbox_image = "{}"\n    other = "x"\n'
NEW = "[plugins.'io.containerd.cri.v1.images'.pinned_images]\n      sandbox = '{}'\n      sandboxer = 'podsandbox'\n"


class TestSandbox:
    @pytest.fixture
    def asked(self, tmp_path: Path) -> Any:
        """The answer to the question on this machine, where a program ``containerd`` may be first in the path."""

        def asked(ctr: Ctr, root: Path, question: Any = sandbox.question, **commands: str) -> str:
            folder = tmp_path / "bin"
            folder.mkdir(exist_ok=True)
            cases = "".join(f"{name}) cat <<'EOF'\n{text}EOF\n;; " for name, text in commands.items())
            (folder / "containerd").write_text(f'#!/bin/sh\ncase $2 in {cases}*) echo "unknown" >&2; exit 1 ;; esac\n')
            (folder / "containerd").chmod(0o755)
            text = question(ctr, f"{root}/io.containerd.content.v1.content")
            path = {"PATH": f"{folder}:{os.environ['PATH']}"}
            done = subprocess.run(["sh", "-euc", text], env=path, capture_output=True, text=True, check=True)
            assert not done.stderr
            return done.stdout.strip()

        return asked

    def ctr(self, address: str, *argv: str) -> Ctr:
        return Ctr(argv or ("ctr",), address, Capabilities.of_help(""))

    @pytest.mark.parametrize("config", [OLD, NEW], ids=["1.x", "2.x"])
    def test_containerd_prints_its_configuration(self, asked: Any, config: str, tmp_path: Path) -> None:
        plain = self.ctr("/run/containerd/containerd.sock")
        assert asked(plain, tmp_path, dump=config.format(PAUSE), default=config.format("wrong")) == PAUSE

    def test_it_says_whether_namespaces_share_content(self, asked: Any, tmp_path: Path) -> None:
        plain, bolt = self.ctr("/run/containerd/containerd.sock"), "[plugins]\n    content_sharing_policy = {}\n"
        for policy in ('"isolated"', "'shared'"):
            assert asked(plain, tmp_path, sandbox.sharing, dump=bolt.format(policy)) == policy[1:-1]

    def test_k3s_and_rke2_have_it_beside_containerds_root(self, asked: Any, tmp_path: Path) -> None:
        file = tmp_path / "agent/etc/containerd/config.toml"
        file.parent.mkdir(parents=True)
        file.write_text(OLD.format("rancher/mirrored-pause:3.6"))
        k3s = self.ctr("/run/k3s/containerd/containerd.sock", "k3s", "ctr")
        assert asked(k3s, tmp_path / "agent/containerd", dump=OLD.format("wrong")) == "rancher/mirrored-pause:3.6"

    def test_another_containerds_configuration_is_not_asked(self, asked: Any, tmp_path: Path) -> None:
        assert asked(self.ctr("/run/k3s/containerd/containerd.sock"), tmp_path, dump=OLD.format("wrong")) == ""

    def test_a_ctr_with_a_path_has_its_containerd_beside_it(self, asked: Any, tmp_path: Path) -> None:
        plain = self.ctr("/run/containerd/containerd.sock", f"{tmp_path}/bin/ctr")
        assert asked(plain, tmp_path, dump=OLD.format(PAUSE)) == PAUSE
