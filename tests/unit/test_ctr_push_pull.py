"""The command lines of push and pull, for every ctr. Settings that a ctr would ignore are refused."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from records import VERSIONS

from ctr_ferry.ctr import push_pull
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.progress import Progress
from ctr_ferry.ctr.push_pull import Route
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.errors import MethodUnsupported
from ctr_ferry.oci.descriptor import OCI_MANIFEST, Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.oci.registry import Registry

HTTP, HTTPS = Registry("r.example:5000", scheme="http"), Registry("r.example:5000")
ARM = Platform("linux", "arm64")


def ctr(version: str, snapshotter: str | None = None) -> Ctr:
    parsed = Version.parse(version)
    assert parsed
    return Ctr(("ctr",), "/run/c.sock", Capabilities.of_version(parsed), snapshotter)


def words(step: str) -> list[str]:
    line = step.removeprefix("{ ").partition(" & ctr_pid=")[0]
    return shlex.split(line)[5:]  # behind ctr, its address and its namespace


@pytest.mark.parametrize("version", VERSIONS)
def test_flags_come_first_and_local_is_given_where_ctr_has_it(version: str) -> None:
    local = ["--local"] if version in ("1.7.24", "2.1.9", "2.2.7", "2.3.4") else []
    pushed = push_pull.push(ctr(version), "k8s.io", Route(HTTP, "ann"), ("r.example:5000/a:1", "b:1"))
    assert words(pushed) == [
        *["images", "push", *local, "--plain-http", "--user", "ann"],
        *["r.example:5000/a:1", "b:1"],
    ]
    pulled = push_pull.pull(ctr(version, "native"), "k8s.io", Route(HTTPS), "r.example:5000/a:1", platform=ARM)
    assert words(pulled) == [
        *["images", "pull", *local, "--snapshotter", "native", "--platform=linux/arm64"],
        "r.example:5000/a:1",
    ]


def test_no_flag_is_given_that_is_not_needed() -> None:
    assert words(push_pull.pull(ctr("1.6.20"), "k8s.io", Route(HTTPS), "r/a:1")) == ["images", "pull", "r/a:1"]


def test_skip_verify_is_for_tls_alone() -> None:
    lax = {scheme: Registry("r:5000", scheme=scheme, skip_verify=True) for scheme in ("http", "https")}
    lines = {s: words(push_pull.pull(ctr("1.6.20"), "n", Route(r), "r:5000/a:1")) for s, r in lax.items()}
    assert "--skip-verify" in lines["https"]
    assert "--skip-verify" not in lines["http"]


def test_the_password_is_asked_for_on_the_terminal() -> None:
    line = push_pull.push(ctr("1.2.6"), "n", Route(HTTP, "ann", terminal="/dev/pts/3"), ("r/a:1", "a:1"))
    assert line.endswith(" </dev/pts/3")


def test_a_proxy_is_in_ctrs_environment() -> None:
    line = push_pull.pull(ctr("1.6.20"), "n", Route(HTTPS, proxy="http://p:3128"), "r/a:1")
    assert shlex.split(line)[:4] == ["env", "HTTP_PROXY=http://p:3128", "HTTPS_PROXY=http://p:3128", "ctr"]


def test_certificates_are_on_the_host_while_the_step_runs_and_for_its_owner_alone(tmp_path: Path) -> None:
    fake = tmp_path / "ctr"
    fake.write_text('#!/bin/sh\ncat "$SSL_CERT_FILE"; stat -c %a "$SSL_CERT_FILE"; ls "$TMPDIR"\n')
    fake.chmod(0o755)
    route = Route(HTTPS, authorities=b"-----BEGIN it's ours-----\n", owner="ctr-ferry.run-1")
    line = push_pull.pull(ctr("1.6.20"), "n", route, "r/a:1")
    shell = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    text = f"umask 000\n{line}\n{route.cleanup}"
    done = subprocess.run(["/bin/sh", "-c", text], env=shell, capture_output=True, text=True, check=True)
    certificates, _, rest = done.stdout.rpartition("-----BEGIN it's ours-----\n")
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    assert certificates.strip() == (system.read_text().strip() if system.exists() else "")
    mode, name = rest.split()
    assert mode == "600"
    assert name.startswith("ctr-ferry.run-1.")
    assert not list((tmp_path / "tmp").iterdir())


def test_with_a_password_the_hosts_own_certificates_do_not_count(tmp_path: Path) -> None:
    fake = tmp_path / "ctr"
    fake.write_text('#!/bin/sh\ncat "$SSL_CERT_FILE"; echo "$SSL_CERT_DIR"\n')
    fake.chmod(0o755)
    ours = b"-----BEGIN ours-----\n"
    route = Route(HTTPS, "ann", ours, exclusive=True, proxy="http://p:3128", owner="ctr-ferry.run-1")
    shell = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    for line in (
        push_pull.pull(ctr("1.6.20"), "n", route, "r/a:1"),
        push_pull.push(ctr("1.6.20"), "n", route, ("r/a:1", "a:1")),
    ):
        text = f"{line}\n{route.cleanup}"
        done = subprocess.run(["/bin/sh", "-c", text], env=shell, capture_output=True, text=True, check=True)
        assert done.stdout == "-----BEGIN ours-----\n/dev/null\n"
    assert {file.name for file in tmp_path.iterdir()} == {"ctr"}


def test_a_ctr_that_prints_little_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    until_measured = 'until [ -e "$0.measured" ]; do sleep 0.1; done'
    for name, text in (
        ("ctr", f'head -c 5000 /dev/zero | wc -c >/dev/null; read -r word; echo "got $word"; {until_measured}; exit 3'),
        ("sed", f'PATH=/usr/bin:/bin; sed "$@"; touch {tmp_path}/ctr.measured'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "tty").write_text("typed\n")
    step = push_pull.push(ctr("1.7.24"), "n", Route(HTTP, terminal=str(tmp_path / "tty")), ("r/a:1", "a:1"))
    done = subprocess.run(
        ["/bin/sh", "-c", step], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert done.returncode == 3
    progress = Progress({"sha256:a": 10_000_000})
    assert progress.feed(done.stdout) == b"got typed\n"
    assert 0 < progress.read == progress.done
    assert progress.total == 10_000_000
    assert "ctr_pid" not in push_pull.push(ctr("1.4.13"), "n", Route(HTTP), ("r/a:1", "a:1"))


@pytest.mark.parametrize(
    ("version", "registry", "words"),
    [
        ("1.2.6", Registry("r:5000", skip_verify=True), "checks the certificate"),
        ("1.0.3", Registry("r:5000", skip_verify=True), "checks the certificate"),
        ("1.2.6", Registry("localhost:5000"), "speaks plain http"),
        ("1.6.20~ds1", Registry("127.0.0.1:5000"), "speaks plain http"),
        ("v1.7.2-k3s1", Registry("localhost:5000"), "checks no certificate"),
    ],
)
def test_a_setting_that_ctr_would_ignore_is_refused_with_a_hint(version: str, registry: Registry, words: str) -> None:
    with pytest.raises(MethodUnsupported, match=words) as caught:
        push_pull.refuse(ctr(version), version, Route(registry))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("version", "registry"),
    [
        ("1.3.0", Registry("r:5000", skip_verify=True)),
        ("1.2.6", Registry("r:5000", scheme="http", skip_verify=True)),
        ("1.4.13", Registry("localhost:5000")),
        ("1.2.6", Registry("localhost:5000", scheme="http")),
        ("v1.7.2-k3s1", Registry("localhost:5000", skip_verify=True)),
        ("1.2.6", Registry("r:5000")),
    ],
)
def test_a_setting_that_ctr_heeds_is_not_refused(version: str, registry: Registry) -> None:
    push_pull.refuse(ctr(version), version, Route(registry))


def test_a_stage_is_always_removed_and_cri_gets_its_record_back() -> None:
    child = Descriptor(OCI_MANIFEST, f"sha256:{'a' * 64}", 500)
    stage = Reference.parse("ctr-ferry.invalid/ctr-ferry.run:0")
    place = Place(ctr("1.2.6"), "k8s.io", "k8s.io", "/root", "ctr-ferry.run", cri_managed=True)
    step, cleanup = push_pull.stage(place, "r/a:1", stage, child, foreign=False)
    assert "ctr-ferry.invalid/ctr-ferry.run:0" in step
    state, gone = "grep -c io.cri-containerd.image=managed", "images rm ctr-ferry.invalid/ctr-ferry.run:0"
    touched = "images label r/a:1 io.cri-containerd.image="
    assert cleanup.index(state) < cleanup.index(gone) < cleanup.index(touched)
    unwatched = Place(ctr("1.2.6"), "n", "n", "/root", "ctr-ferry.run", cri_managed=False)
    assert "label" not in push_pull.stage(unwatched, "r/a:1", stage, child, foreign=False)[1]


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("localhost", True),
        ("LOCALHOST:5000", True),
        ("localhost.", True),
        ("localhost.:5000", True),
        ("127.0.0.1", True),
        ("127.1.2.3:5000", True),
        ("[::1]:5000", True),
        ("[0:0:0:0:0:0:0:1]:5000", True),
        ("[0000:0000:0000:0000:0000:0000:0000:0001]", True),
        ("[::ffff:127.0.0.1]:5000", True),
        ("[::FFFF:7f00:1]:5000", True),
        ("127.example:5000", False),
        ("127.0.0.1.example", False),
        ("localhost.example", False),
        ("128.0.0.1", False),
        ("[::2]:5000", False),
        ("[::ffff:128.0.0.1]:5000", False),
    ],
)
def test_a_registry_is_the_host_itself_where_go_takes_it_for_that(name: str, *, local: bool) -> None:
    registry = Registry(name)
    assert registry.local is local
    for version in ("1.2.6", "1.6.20", "1.7.2", "2.1.9"):
        if local:
            with pytest.raises(MethodUnsupported):
                push_pull.refuse(ctr(version), version, Route(registry))
        else:
            push_pull.refuse(ctr(version), version, Route(registry))


@pytest.mark.parametrize(
    ("password", "fits"),
    [("pässword $'\"\\", True), ("a\nb", False), ("a\x03", False), ("x" * 4095, True), ("x" * 4096, False)],
)
def test_only_a_password_that_a_terminal_passes_on_can_be_typed(password: str, fits: bool) -> None:
    assert push_pull.can_be_typed(password) is fits
