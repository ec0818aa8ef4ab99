"""`fab doctor` finds what is wrong, names it, says what to do about it, and removes leftovers of killed runs."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shlex
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ferry import Fab, Run, Stage, counting, eventually, has_cri, leftovers, write_inventory

from lab.fleet import Fleet, Node
from lab.images import build

RUN = "ctr-ferry.20260101T000000Z-retag-dead"
PULL = "ctr-ferry.20260101T000000Z-pull-dead"
NOW = datetime.datetime.now(datetime.UTC)


def doctor(fab: Fab, hosts: str, *words: str, inventory: Path | None = None, **env: str) -> Run:
    """Run `fab -H HOSTS doctor --json WORDS…`."""
    return fab("-H", hosts, "doctor", "--json", *words, inventory=inventory, **env)


def seen(run: Run, host: str) -> dict[str, dict[str, str]]:
    """Return a host's findings by what was looked at."""
    return {finding["what"]: finding for finding in run.outcomes[host]["result"]["findings"]}


def health(run: Run, host: str) -> dict[str, str]:
    """Return what is not ok."""
    return {what: f["health"] for what, f in seen(run, host).items() if f["health"] != "ok"}


Hosts = Callable[..., Path]


@pytest.fixture
def hosts(fleet: Fleet, node3: Node, tmp_path: Path) -> Hosts:
    """Writes an inventory with node3 as `n`, and variables of the test's own."""

    def write(**variables: Any) -> Path:
        made = {"n": {"ansible_host": node3.address, **variables}}
        return write_inventory(tmp_path / "hosts.yaml", fleet, made)

    return write


class TestAHealthyHost:
    def test_of_any_kind_has_nothing_to_mend(self, fab: Fab, stage: Stage, tmp_path: Path) -> None:
        stage.seed(build(tmp_path, layers=(1000,)), stage.name())  # or other namespaces alone might have images
        run = doctor(fab, ",".join(stage.nodes))
        assert (run.exit, set(run.statuses.values())) == (0, {"ok"})
        for node in stage.nodes.values():
            found = seen(run, node.name)
            assert health(run, node.name).keys() <= {"content store", "leftovers"}  # the machine's disk, other tests
            assert node.version.lstrip("v") in found["version"]["text"]
            assert node.socket in found["socket"]["text"]
            assert node.root in found["content store"]["text"]
            assert (found["CRI"]["text"] == "on") == has_cri(node)
            assert " ".join(node.model.ctr).split(" --")[0].rpartition("/")[2] in found["ctr"]["text"]

    def test_shows_all_of_one_host_and_of_many_only_what_is_to_be_mended(self, fab: Fab) -> None:
        one, many = fab("-H", "node3", "doctor"), fab("-H", "node2,node3", "doctor")
        assert "platform" in one.out and "linux/" in one.out
        assert "platform" not in many.out
        assert "platform" in fab("-H", "node2,node3", "doctor", "--all").out

    def test_whose_listing_has_a_line_break_gets_a_finding(
        self, fab: Fab, stage: Stage, node3: Node, tmp_path: Path
    ) -> None:
        namespace, name = stage.namespace(), stage.name()
        stage.seed(build(tmp_path, layers=(1000,)), name, namespace=namespace, nodes=[node3])
        node3.ctr("images", "label", name, "note=two\nlines", namespace=namespace)
        try:
            run = doctor(fab, "node3")
            found = seen(run, "node3")["listings"]
            assert (run.exit, found["health"]) == (1, "fail")
            assert f"in {namespace} '{name}" in found["text"] and "note=two' is no row" in found["text"]
            assert namespace in found["todo"]
            run = fab("-H", "node3", "images", "--json", "-n", namespace)
            assert (run.exit, run.error["kind"]) == (1, "garbled-answer")
            assert namespace in run.error["message"] and name in run.error["said"]
            run = fab("-H", "node3", "find", "--json", "--match", name)
            assert (run.exit, run.document["commands"][0]["error"]["kind"]) == (1, "nothing-found")
            assert namespace in run.document["commands"][0]["error"]["said"]
        finally:
            node3.ctr("images", "rm", name, namespace=namespace)

    def test_whose_ctr_is_no_ctr_gets_a_finding(self, fab: Fab, hosts: Hosts) -> None:
        inventory = hosts(ctr_command="true")
        found = seen(doctor(fab, "n", inventory=inventory), "n")["ctr"]
        assert (found["health"], found["text"]) == ("fail", "'true' is no ctr")
        run = fab("-H", "n", "images", "--json", inventory=inventory)
        assert run.statuses == {"n": "ctr-not-found"}

    def test_costs_one_remote_command(self, fab: Fab, fleet: Fleet, node3: Node, tmp_path: Path) -> None:
        with counting([node3]) as counts:
            ((login, commands),) = counts.items()
            found = {"n": {"ansible_host": node3.address, "ansible_user": login.partition("@")[0]}}
            assert doctor(fab, "n", inventory=write_inventory(tmp_path / "hosts.yaml", fleet, found)).exit == 0
            assert commands() == 1

    def test_counts_images_as_people_do(
        self, fab: Fab, stage: Stage, tmp_path_factory: pytest.TempPathFactory, node3: Node
    ) -> None:
        image, namespace = build(tmp_path_factory.mktemp("images")), stage.namespace()
        stage.seed(image, stage.name("a"), stage.name("b"), namespace=namespace, nodes=[node3])
        assert f"{namespace} (2 images)" in seen(doctor(fab, "node3"), "node3")["namespaces"]["text"]

    def test_uses_sudo_where_it_must(self, fab: Fab) -> None:
        run = doctor(fab, "node3-ops,ops@node3")
        assert run.exit == 0
        assert all(seen(run, host)["sudo"]["text"] == "used by ops" for host in ("node3-ops", "ops@node3"))
        run = doctor(fab, "node3-ops2", FABRIC_SUDO_PASSWORD="ops2-secret")
        assert (run.exit, seen(run, "node3-ops2")["sudo"]["text"]) == (0, "used by ops2, with a password")


class TestWhatIsBroken:
    def test_no_ctr_is_a_finding_among_others(self, fab: Fab, hosts: Hosts) -> None:
        run = doctor(fab, "n", inventory=hosts(ctr_command="/nowhere/ctr"))
        assert (run.exit, run.statuses) == (1, {"n": "unhealthy"})
        found = seen(run, "n")
        assert found["ctr"]["health"] == "fail"
        assert "ctr_command" in found["ctr"]["todo"]
        assert {found[what]["health"] for what in ("reachable", "clock", "content store")} <= {"ok", "warn"}

    def test_a_missing_socket_is_a_finding(self, fab: Fab, hosts: Hosts) -> None:
        run = doctor(fab, "n", inventory=hosts(ctr_address="/run/nowhere.sock"))
        assert (run.exit, health(run, "n")["socket"]) == (1, "fail")

    def test_a_stopped_containerd_is_a_finding(self, fab: Fab, node2: Node) -> None:
        node2.stop_containerd()
        try:
            run = doctor(fab, "node2")
        finally:
            node2.start_containerd()
        assert (run.exit, health(run, "node2")["socket"]) == (1, "fail")
        assert "start containerd" in seen(run, "node2")["socket"]["todo"]

    def test_a_sudo_that_lets_nobody_through_is_a_finding(self, fab: Fab) -> None:
        run = doctor(fab, "node3-ops2,node3")
        assert (run.exit, run.statuses) == (1, {"node3-ops2": "unhealthy", "node3": "ok"})
        assert health(run, "node3-ops2") == {"sudo": "fail"}

    def test_a_host_that_is_not_there_is_unreachable(self, fab: Fab, hosts: Hosts) -> None:
        run = doctor(fab, "n", inventory=hosts(ansible_port=1))
        assert (run.exit, run.statuses) == (4, {"n": "host-unreachable"})

    def test_a_clock_that_is_off_is_a_finding(self, fab: Fab, node3: Node) -> None:
        real = node3.exec(["sh", "-c", "command -v date"]).stdout.decode().strip()
        fake = f'#!/bin/sh\n[ "$*" = +%s ] && exec {real} -d "2 minutes ago" +%s\nexec {real} "$@"\n'
        node3.exec(["sh", "-c", "cat >/usr/local/sbin/date; chmod 755 /usr/local/sbin/date"], stdin=fake.encode())
        try:
            run = doctor(fab, "node3")
        finally:
            node3.exec(["rm", "/usr/local/sbin/date"])
        assert (run.exit, health(run, "node3")["clock"]) == (0, "warn")
        assert "behind" in seen(run, "node3")["clock"]["text"]

    @pytest.mark.parametrize(("free", "health_"), [(20, "ok"), (10, "warn"), (3, "fail")])
    def test_a_full_disk_is_a_finding(self, fab: Fab, node3: Node, free: int, health_: str) -> None:
        row = f"/dev/a b 100000 {100 - free}000 {free}000 {100 - free}% /var"
        fake = f"#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted on'\necho '{row}'\n"
        node3.exec(["sh", "-c", "cat >/usr/local/sbin/df; chmod 755 /usr/local/sbin/df"], stdin=fake.encode())
        try:
            run = doctor(fab, "node3")
        finally:
            node3.exec(["rm", "/usr/local/sbin/df"])
        assert run.exit == int(health_ == "fail")
        assert health(run, "node3").get("content store", "ok") == health_


@pytest.fixture
def mess(stage: Stage, tmp_path: Path) -> Iterator[str]:
    """What a run that was killed in its middle may leave on every node, in a namespace of this test."""
    namespace, image = stage.namespace(), build(tmp_path, seed=11)

    def one(node: Node) -> None:
        on_its_way = f"{stage.name().rpartition(':')[0]}:{PULL}@{image.target.digest}"
        ours = ("ctr-ferry.invalid/ctr-ferry.x:0", on_its_way, stage.name())
        stage.seed(image, *ours, namespace=namespace, nodes=[node])
        labels = (f"containerd.io/gc.root={RUN}", f"containerd.io/gc.ref.content.{RUN}.0={image.target.digest}")
        node.real_ctr("content", "label", next(iter(image.configs.values())), *labels, namespace=namespace)
        ingest = shlex.join(node.real_ctr_argv("content", "ingest", f"{RUN}-0123", namespace=namespace))
        node.exec(["sh", "-c", f"umask 077; echo PEM >/tmp/{RUN}.a1B2c3"])
        node.exec(
            ["sh", "-c", f"(head -c 9000 /dev/zero; exec sleep 1) | {{ {ingest} <&3 & sleep 0.5; kill -9 $!; }} 3<&0"]
        )

    stage.on_each(one)
    yield namespace

    def end(node: Node) -> None:
        ingest = shlex.join(node.real_ctr_argv("content", "ingest", f"{RUN}-0123", namespace=namespace))
        node.exec(["sh", "-c", f"f=$(mktemp); {ingest} <$f; rm -f $f /tmp/{RUN}.a1B2c3"])

    stage.on_each(end)


class TestWhatAKilledRunLeft:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_is_found_and_stays_without_clean(self, fab: Fab, stage: Stage, mess: str) -> None:
        namespace = mess
        before = stage.on_each(lambda node: [line.split()[0] for line in leftovers(node, [namespace])])
        for words in ((), ("--clean", "--dry-run")):
            run = doctor(fab, ",".join(stage.nodes), *words)
            assert run.exit == 0
            for node in stage.nodes.values():
                text = seen(run, node.name)["leftovers"]["text"]
                assert f"{RUN}-0123" in text and "ctr-ferry.invalid" in text and "labels" in text, text
                assert f":{PULL}@sha256:" in text
                assert f"/tmp/{RUN}.a1B2c3" in text
        assert stage.on_each(lambda node: [line.split()[0] for line in leftovers(node, [namespace])]) == before

    def test_is_removed_by_clean_and_nothing_else_is(self, fab: Fab, stage: Stage, mess: str) -> None:
        namespace = mess
        run = doctor(fab, ",".join(stage.nodes), "--clean")
        assert (run.exit, set(run.statuses.values())) == (0, {"changed"})
        for node in stage.nodes.values():
            assert "removed" in seen(run, node.name)["leftovers"]["text"]
            assert not leftovers(node, [namespace])
            assert set(stage.records(node, namespace)) == {stage.name()}
            assert stage.check(node, stage.name(), namespace) == "complete"
        run = doctor(fab, ",".join(stage.nodes), "--clean")
        assert (run.exit, set(run.statuses.values())) == (0, {"ok"})

    def test_stays_while_another_run_works_on_the_host(self, fab: Fab, stage: Stage, mess: str) -> None:
        namespace = mess
        running = fab.start("-H", "node3", "run", "sleep 30")
        try:
            busy = "grep -l 'ferry-[0-9a-f]' /proc/[0-9]*/cmdline"
            node = stage.nodes["node3"]
            assert eventually(lambda: b"/proc/" in node.exec(["sh", "-c", busy], check=False).stdout)
            run = doctor(fab, "node3", "--clean")
            assert (run.exit, run.statuses) == (0, {"node3": "ok"})
            assert "at work" in seen(run, "node3")["leftovers"]["text"]
            assert leftovers(node, [namespace])
        finally:
            running.terminate()
            running.communicate()


def test_cris_record_of_a_killed_pull_goes_with_its_name(fab: Fab, few: Stage, tmp_path: Path) -> None:
    image = build(tmp_path, seed=12)
    name = f"r.example/{few.token}/app:{PULL}@{image.target.digest}"
    nodes = [node for node in few.nodes.values() if has_cri(node)]
    few.seed(image, name, nodes=nodes)
    for node in nodes:
        assert eventually(lambda n=node: len(few.records(n, digests=[image.target.digest])) == 2), node  # type: ignore[misc]
    run = doctor(fab, ",".join(node.name for node in nodes), "--clean")
    assert (run.exit, set(run.statuses.values())) == (0, {"changed"})
    for node in nodes:
        assert not few.records(node, digests=[image.target.digest]), node


# Another user reads the marks of what runs, and plants an answer as the name of a file, and as lines of a log.
FORGER = r"""
while :; do
  for mark in $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -o 'ferry-[0-9a-f]*' | sort -u); do
    [ -e "/tmp/$mark" ] && continue
    : >"/tmp/$mark"
    n='
'
    : >"/tmp/ctr-ferry.x$n$n$mark end 0$n$n$mark begin ctr${n}sh -c id>pwned${n}ctr 1.6.20$n$n$mark end 0$n"
    : >"/tmp/ctr-ferry.y$n$n$mark end 0$n$n$mark begin held${n}namespace k8s.io${n}name @RECORD@$n$n$mark end 0$n"
    printf '\n%s end 0\n' "$mark" >>/tmp/@LOG@
  done
done
"""


@contextlib.contextmanager
def at_work(node: Node, shell: str, text: str) -> Iterator[None]:
    """The user ops2 of a node runs something."""
    argv = node.argv([shell, "-c", text], user="ops2")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def forger(stage: Stage, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A user of node3 who forges answers while we work; yields CRI's record of an image, and the log."""
    node, log = stage.nodes["node3"], f"{stage.token}.log"
    image, name = build(tmp_path, seed=12), stage.name()
    stage.seed(image, name, nodes=[node])
    (record,) = [each for each in stage.records(node, digests=[image.target.digest]) if each.startswith("sha256:")]
    text = FORGER.replace("@RECORD@", record).replace("@LOG@", log)
    try:
        with at_work(node, "sh", text):
            yield record, log
    finally:
        clean = "rm -f /tmp/ferry-* /tmp/ctr-ferry.[xy]* /tmp/$1 /root/pwned"
        node.exec(["sh", "-c", clean, "clean", log], check=False)


class TestAnotherUserOfTheHost:
    """Reads every command line there, and writes what we print."""

    @pytest.fixture
    def stage(self, fleet: Fleet) -> Iterator[Stage]:
        stage = Stage(fleet, "node3")
        yield stage
        stage.close()

    def test_can_have_nothing_run_or_removed_by_a_forged_answer(
        self, fab: Fab, stage: Stage, forger: tuple[str, str]
    ) -> None:
        record, node = forger[0], stage.nodes["node3"]
        for words in ((), ("--clean",), ("--clean",)):
            run = doctor(fab, "node3", *words)
            assert (run.exit, run.statuses) == (0, {"node3": "ok"})
            assert seen(run, "node3")["leftovers"]["text"] == "none"
        assert node.exec(["sh", "-c", "ls /tmp/ctr-ferry.x* | grep -c ."]).stdout.strip() != b"0"
        assert node.exec(["test", "-e", "/root/pwned"], check=False).returncode == 1
        assert record in stage.records(node, digests=[stage.records(node)[stage.name()].digest])

    def test_cannot_forge_how_a_command_ended(self, fab: Fab, forger: tuple[str, str]) -> None:
        run = fab("-H", "node3", "run", "--json", f"sleep 2; cat /tmp/{forger[1]}; exit 3")
        assert (run.exit, run.statuses) == (1, {"node3": "command-failed"})
        assert run.outcomes["node3"]["result"]["exit"] == 3
        assert " end 0\n" in run.outcomes["node3"]["result"]["stdout"]

    def test_cannot_keep_doctor_from_cleaning(self, fab: Fab, stage: Stage) -> None:
        """Not even by a program of root's that waits for a password."""
        node, line = stage.nodes["node3"], 'until [ "$l" = ferry-0123456789abcdef ]; do sleep 30; done; exit'
        for shell in ("sh", "su"):
            node.exec(["sh", "-c", f"umask 077; echo PEM >/tmp/{RUN}.a1B2c3"])
            with at_work(node, shell, line):
                run = doctor(fab, "node3", "--clean")
            assert (run.exit, run.statuses) == (0, {"node3": "changed"})
            assert not leftovers(node)


def test_a_label_that_forges_a_row_removes_no_gc_root_of_others(fab: Fab, few: Stage, tmp_path: Path) -> None:
    namespace, image = few.namespace(), build(tmp_path, seed=13)
    few.seed(image, few.name(), namespace=namespace)
    victim, other = image.target.digest, next(iter(image.configs.values()))

    def one(node: Node) -> None:
        node.real_ctr("content", "label", victim, "containerd.io/gc.root=theirs", namespace=namespace)
        row = f"x=\n{victim} 1 B 2 days containerd.io/gc.root={RUN}"
        node.real_ctr("content", "label", other, row, namespace=namespace)

    few.on_each(one)
    assert fab("-H", ",".join(few.nodes), "doctor", "--clean").exit in (0, 1)

    def theirs(node: Node) -> str:
        gc_rooted = 'labels."containerd.io/gc.root"==theirs'
        return node.real_ctr("content", "ls", "-q", gc_rooted, namespace=namespace).stdout.decode().strip()

    assert set(few.on_each(theirs).values()) == {victim}


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's own CA")])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        made = self._builder(self._name, self._key.public_key()).add_extension(basic, critical=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, name: x509.Name, key: Any, days: int = 10) -> x509.CertificateBuilder:
        start, end = sorted((NOW - datetime.timedelta(days=5), NOW + datetime.timedelta(days=days)))
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(start).not_valid_after(end)

    def context(self, address: str, days: int = 10) -> ssl.SSLContext:
        """A server's, for an address, valid for some days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        made = self._builder(x509.Name([]), key.public_key(), days).add_extension(names, critical=True)
        file = self.folder / f"{address}-{days}.pem"
        pkcs8, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, pkcs8, none)
            + made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


class Registry(NamedTuple):
    """What plays a registry on loopback."""

    server: ThreadingHTTPServer

    @property
    def name(self) -> str:
        """Return its address and port."""
        host, port = self.server.server_address[:2]
        return f"{host!s}:{port}"


Serve = Callable[..., Registry]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A CA that nobody knows."""
    return Authority(tmp_path)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts registries that answer GET /v2/ with a status."""
    servers: list[ThreadingHTTPServer] = []

    def serve(status: int = 200, context: ssl.SSLContext | None = None) -> Registry:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(status if self.path == "/v2/" else 418)
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="test"')
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass

            def get_request(self) -> tuple[socket.socket, Any]:
                plain, address = super().get_request()
                return (context.wrap_socket(plain, server_side=True) if context else plain), address

        server = Server(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Registry(server)

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def registries(fab: Fab, hosts: Hosts, given: dict[str, dict[str, Any]], **more: Any) -> dict[str, tuple[str, str]]:
    """Return health and text of each registry as node3 sees it."""
    found = seen(doctor(fab, "n", inventory=hosts(ctr_registries=given, **more)), "n")
    return {name: (found[f"registry {name}"]["health"], found[f"registry {name}"]["text"]) for name in given}


class TestRegistries:
    def test_are_reported_as_the_host_sees_them(
        self, fab: Fab, hosts: Hosts, serve: Serve, authority: Authority
    ) -> None:
        ca = {"ca_file": str(authority.file)}
        good, login = authority.context("127.0.0.1"), authority.context("127.0.0.1")
        plain, tls, asks, odd = serve(), serve(200, good), serve(401, login), serve(404)
        with socket.create_server(("127.0.0.1", 0)) as closed:
            refused = f"127.0.0.1:{closed.getsockname()[1]}"
        expired = serve(200, authority.context("127.0.0.1", -1))
        wrong = serve(200, authority.context("127.0.0.9"))
        unknown, unchecked, no_tls = serve(200, good), serve(200, good), serve()
        found = registries(fab, hosts, {
            plain.name: {"scheme": "http"},
            tls.name: ca,
            asks.name: ca,
            odd.name: {"scheme": "http"},
            refused: {"scheme": "http"},
            "no-such-host.invalid:5000": {"scheme": "http"},
            expired.name: ca,
            wrong.name: ca,
            unknown.name: {},
            unchecked.name: {"skip_verify": True},
            no_tls.name: {},
        })  # fmt: skip
        assert found == {
            plain.name: ("ok", "reachable"),
            tls.name: ("ok", "reachable"),
            asks.name: ("ok", "reachable, needs a login (Basic)"),
            odd.name: ("fail", found[odd.name][1]),
            refused: ("fail", "it refuses the connection (Connection refused)"),
            "no-such-host.invalid:5000": ("fail", found["no-such-host.invalid:5000"][1]),
            expired.name: ("fail", "its certificate has expired (certificate has expired)"),
            wrong.name: ("fail", found[wrong.name][1]),
            unknown.name: ("fail", found[unknown.name][1]),
            unchecked.name: ("ok", "reachable"),
            no_tls.name: ("fail", found[no_tls.name][1]),
        }
        assert "404" in found[odd.name][1]
        assert "does not resolve" in found["no-such-host.invalid:5000"][1]
        assert "for another name" in found[wrong.name][1]
        assert "signed by nobody known" in found[unknown.name][1]
        assert "does not speak TLS" in found[no_tls.name][1]

    def test_that_never_answer_are_given_up(self, fab: Fab, hosts: Hosts) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            name = f"127.0.0.1:{silent.getsockname()[1]}"
            found = registries(fab, hosts, {name: {}})
        assert found[name][0] == "fail"
        assert "no answer" in found[name][1] and "10 s" in found[name][1]

    def test_are_not_checked_where_sshd_forbids_it(
        self, fab: Fab, hosts: Hosts, serve: Serve, node3: Node, tmp_path: Path
    ) -> None:
        key, file = tmp_path / "key", "/etc/ssh/authorized_keys"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        line = f"no-port-forwarding {key.with_suffix('.pub').read_text()}"
        before = node3.exec(["cat", file]).stdout
        node3.exec(["sh", "-c", f"cat >>{file}"], stdin=line.encode())
        try:
            name = serve().name
            found = registries(fab, hosts, {name: {"scheme": "http"}}, ansible_ssh_private_key_file=str(key))
        finally:
            node3.exec(["sh", "-c", f"cat >{file}"], stdin=before)
        assert found[name][0] == "warn"
        assert found[name][1].startswith("not checked")
