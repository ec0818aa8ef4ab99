"""`fab images`, `find` and `check` report what the nodes have."""

from __future__ import annotations

import csv
import io
import secrets
from typing import Any

import pytest
from accounts import counting
from ferry import Fab, Stage, release, write_inventory

from ctr_ferry.text import names
from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"


@pytest.fixture(scope="module")
def built(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltImage]:
    """Small images that nobody else has."""
    assert fleet.nodes
    folder, seed = tmp_path_factory.mktemp("images"), secrets.randbits(32)
    return {
        "plain": build(folder, layers=(1000, 2000), seed=seed),
        "another": build(folder, layers=(1000, 2000), seed=seed + 1),
        "both": build(folder, layers=(1000, 2000), platforms=(NATIVE, OTHER), seed=seed + 2),
        "foreign": build(folder, platforms=(OTHER,), seed=seed + 3),
        "docker": build(folder, platforms=(NATIVE, OTHER), media="docker", seed=seed + 4),
    }


def everywhere(stage: Stage) -> str:
    """Return all nodes as -H takes them."""
    return ",".join(stage.nodes)


class TestImages:
    def test_shows_what_each_node_has_and_folds_cris_own_records(
        self, fab: Fab, stage: Stage, built: dict[str, BuiltImage]
    ) -> None:
        plain, both = built["plain"], built["both"]
        app, multi = stage.name(), stage.name("multi")
        stage.seed(plain, app)
        stage.seed(both, multi)
        run = fab("-H", everywhere(stage), "images", "--json", "--match", f"*{stage.token}*")
        assert run.exit == 0
        for name in stage.nodes:
            rows = {row["reference"]: row for row in run.images(name)}
            assert set(rows) == {app, multi}
            assert (rows[app]["digest"], rows[multi]["digest"]) == (plain.target.digest, both.target.digest)
            assert all(row["complete"] and row["unpacked"] for row in rows.values())
            assert set(rows[multi]["platforms"]) == {NATIVE, OTHER}
        everything = fab("-H", everywhere(stage), "images", "--json")
        assert not any(
            row["reference"].startswith("sha256:") for name in stage.nodes for row in everything.images(name)
        )

    def test_one_row_for_hosts_that_are_alike_and_a_line_each_in_csv(
        self, fab: Fab, stage: Stage, built: dict[str, BuiltImage]
    ) -> None:
        app = stage.name()
        stage.seed(built["plain"], app)
        words = ("-H", everywhere(stage), "images", "--match", app)
        (row,) = [line for line in fab(*words).out.splitlines() if app in line]
        assert row.endswith(names(stage.nodes))
        rows = list(csv.DictReader(io.StringIO(fab(*words, "--csv").out)))
        assert sorted(row["hosts"] for row in rows) == sorted(stage.nodes)
        assert {row["reference"] for row in rows} == {app}

    def test_a_missing_layer_makes_the_image_incomplete(
        self, fab: Fab, stage: Stage, built: dict[str, BuiltImage]
    ) -> None:
        app = stage.name()
        stage.seed(built["plain"], app)
        stage.on_each(lambda node: node.real_ctr("content", "rm", built["plain"].layers[NATIVE][1]))
        run = fab("-H", everywhere(stage), "images", "--json", "--match", app)
        told = {name: (run.image(name)["complete"], run.image(name)["check"]) for name in stage.nodes}
        assert told == dict.fromkeys(stage.nodes, (False, "incomplete (2/3)"))

    def test_a_disguised_name_looks_different_and_can_be_removed(
        self, fab: Fab, stage: Stage, node3: Node, built: dict[str, BuiltImage]
    ) -> None:
        app = stage.name()
        stage.seed(built["plain"], app, nodes=[node3])
        disguised = [f"{app}\x1b[8m-old\x1b[0m", f"{app}\u200b", f"{app}\u202eold", f"{app}\\u200b", f"{app}\u2028"]
        for name in disguised:
            node3.real_ctr("images", "tag", app, name)
        words = ("-H", "node3", "images", "--match", f"*{stage.token}*")
        shown = fab(*words).out
        assert shown.isascii() and "\x1b" not in shown
        for text in (r"\x1b[8m-old", r":1\u200b", r"\u202eold", r":1\\u200b", r":1\u2028"):
            assert shown.count(text) == 1
        names = {row["reference"] for row in fab(*words, "--json").images("node3")}
        assert names == {app, *disguised}
        for name in disguised:
            assert fab("-H", "node3", "remove", "--match", name.replace("[", "[[]"), "--yes").exit == 0
        assert {row["reference"] for row in fab(*words, "--json").images("node3")} == {app}

    def test_all_namespaces_are_listed(self, fab: Fab, stage: Stage, built: dict[str, BuiltImage]) -> None:
        app, namespace = stage.name(), stage.namespace()
        stage.seed(built["plain"], app)
        stage.seed(built["another"], app, namespace=namespace)
        words = ("-H", everywhere(stage), "images", "--json", "--match", app)
        everything, one = fab(*words, "--all-namespaces"), fab(*words, "-n", namespace)
        for name in stage.nodes:
            rows = {row["namespace"]: row["digest"] for row in everything.images(name)}
            assert rows == {"k8s.io": built["plain"].target.digest, namespace: built["another"].target.digest}
            assert one.image(name)["digest"] == built["another"].target.digest


class TestFind:
    @pytest.fixture
    def stage(self, few: Stage) -> Stage:
        """Three kinds of ctr are enough."""
        return few

    def test_says_where_and_that_kubelet_does_not_read_it_there(
        self, fab: Fab, stage: Stage, built: dict[str, BuiltImage]
    ) -> None:
        app, namespace = stage.name(), stage.namespace()
        stage.seed(built["plain"], app, namespace=namespace)
        run = fab("-H", everywhere(stage), "find", "--json", "--match", f"*/{stage.token}/app:*")
        assert run.exit == 0
        for node in stage.nodes.values():
            (place,) = run.image(node.name)["places"]
            assert (place["reference"], place["namespace"], place["socket"]) == (app, namespace, node.socket)
            assert bool(place["notes"]) == node.cri
        detail = fab("-H", everywhere(stage), "find", "--match", app).out
        assert f"-n {namespace} --to-namespace k8s.io" in detail

    def test_nothing_anywhere_fails(self, fab: Fab, stage: Stage) -> None:
        run = fab("-H", everywhere(stage), "find", "--json", "--match", f"*{stage.token}*")
        assert (run.exit, set(run.statuses.values())) == (1, {"ok"})

    def test_nothing_anywhere_fails_and_dead_hosts_are_still_reported(
        self,
        fab: Fab,
        stage: Stage,
        fleet: Fleet,
        built: dict[str, BuiltImage],
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        alive = list(stage.nodes.values())[-1]
        there = {"ansible_host": alive.address}
        hosts: dict[str, dict[str, Any]] = {"alive": there, "dead": {**there, "ansible_port": 1}}
        file = write_inventory(tmp_path_factory.mktemp("inventory") / "hosts.yaml", fleet, hosts)
        run = fab("-H", "all", "find", "--json", "--match", f"*{stage.token}*", inventory=file)
        assert (run.exit, run.document["commands"][0]["error"]["kind"]) == (1, "nothing-found")
        assert run.statuses == {"alive": "ok", "dead": "host-unreachable"}
        stage.seed(built["plain"], stage.name(), nodes=[alive])
        assert fab("-H", "all", "find", "--json", "--match", f"*{stage.token}*", inventory=file).exit == 4


class TestCheck:
    def test_the_same_everywhere_is_fine(self, fab: Fab, stage: Stage, built: dict[str, BuiltImage]) -> None:
        for kind in ("plain", "both"):
            app = stage.name(kind)
            stage.seed(built[kind], app)
            for digest in ((), ("--digest", built[kind].target.digest)):
                run = fab("-H", everywhere(stage), "check", "--json", "--ref", app, *digest)
                assert run.exit == 0
                assert {run.image(host)["verdict"] for host in run.outcomes} == {"same"}

    def test_a_host_with_another_digest_drifts(self, fab: Fab, stage: Stage, built: dict[str, BuiltImage]) -> None:
        app = stage.name()
        *most, odd = stage.nodes.values()
        stage.seed(built["plain"], app, nodes=most)
        stage.seed(built["another"], app, nodes=[odd])
        run = fab("-H", everywhere(stage), "check", "--json", "--ref", app)
        assert run.exit == 1
        assert run.statuses == {**{node.name: "ok" for node in most}, odd.name: "drift"}
        asked = ("--digest", built["another"].target.digest)
        run = fab("-H", everywhere(stage), "check", "--json", "--ref", app, *asked)
        assert run.statuses == {**{node.name: "drift" for node in most}, odd.name: "ok"}

    @pytest.mark.parametrize("kind", ["plain", "both"])
    def test_the_blobs_that_are_missing_are_named(
        self, fab: Fab, stage: Stage, built: dict[str, BuiltImage], kind: str
    ) -> None:
        app, layer = stage.name(), built[kind].layers[NATIVE][1]
        stage.seed(built[kind], app)
        stage.on_each(lambda node: node.real_ctr("content", "rm", layer))
        with counting(stage.nodes.values()) as counts:
            run = fab("-H", ",".join(counts), "check", "--json", "--ref", app)
            asked = {login: count() for login, count in counts.items()}
        assert asked == dict.fromkeys(counts, 3 if kind == "both" else 2)
        assert (run.exit, run.statuses) == (1, dict.fromkeys(counts, "content-missing"))
        assert [run.image(host)["missing"] for host in run.outcomes] == [[layer]] * len(counts)

    def test_an_absent_manifest_is_missing_content(self, fab: Fab, stage: Stage, built: dict[str, BuiltImage]) -> None:
        for kind in ("plain", "both"):
            app, manifest = stage.name(kind), built[kind].manifests[NATIVE]
            stage.seed(built[kind], app)
            stage.on_each(lambda node, digest=manifest: node.real_ctr("content", "rm", digest))  # type: ignore[misc]
            run = fab("-H", everywhere(stage), "check", "--json", "--ref", app)
            assert (run.exit, run.statuses) == (1, dict.fromkeys(stage.nodes, "content-missing"))
            missing = {name: run.image(name)["missing"] for name in run.outcomes}
            assert missing == {key: [manifest] for key in stage.nodes}

    def test_an_image_for_another_platform_is_reported_as_such(
        self, fab: Fab, stage: Stage, built: dict[str, BuiltImage]
    ) -> None:
        app = stage.name()
        stage.seed(built["foreign"], app)
        run = fab("-H", everywhere(stage), "check", "--json", "--ref", app)
        assert (run.exit, run.statuses) == (1, dict.fromkeys(stage.nodes, "platform-missing"))

    def test_an_image_that_is_whole_but_not_unpacked_fails(
        self, fab: Fab, stage: Stage, node3: Node, built: dict[str, BuiltImage]
    ) -> None:
        app, namespace = stage.name(), stage.namespace()
        with (stage_archive := io.BytesIO()):
            built["plain"].write_archive(stage_archive, [app])
            data = stage_archive.getvalue()
        node3.ctr("images", "import", "--no-unpack", "-", namespace=namespace, stdin=data)
        run = fab("-H", "node3", "check", "--json", "--ref", app, "-n", namespace)
        assert (run.exit, run.error["kind"]) == (1, "not-unpacked")

    def test_a_host_without_it_says_where_it_is(self, fab: Fab, stage: Stage, built: dict[str, BuiltImage]) -> None:
        app, namespace = stage.name(), stage.namespace()
        stage.seed(built["plain"], app, namespace=namespace)
        run = fab("-H", everywhere(stage), "check", "--json", "--ref", app)
        assert (run.exit, run.statuses) == (1, dict.fromkeys(stage.nodes, "image-not-found"))
        assert all(f"--namespace {namespace}" in outcome["error"]["hint"] for outcome in run.outcomes.values())

    def test_the_platforms_manifest_of_a_ctr_that_can_name_no_more_is_no_drift(
        self, fab: Fab, stage: Stage, built: dict[str, BuiltImage]
    ) -> None:
        image = built["docker"]
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(image, src, blobs=image.of(NATIVE))
        assert fab.retag(stage.nodes, "--src", src, "--dst", dst).exit == 0
        run = fab("-H", everywhere(stage), "check", "--json", "--ref", dst)
        verdicts = {name: run.image(name)["verdict"] for name in run.outcomes}
        part = "same (platform manifest)"
        assert verdicts == {n.name: part if release(n) == (1, 2) else "same" for n in stage.nodes.values()}
        assert run.exit == 0


def test_each_command_takes_a_probe_and_at_most_two_more_remote_commands(
    fab: Fab, stage: Stage, built: dict[str, BuiltImage]
) -> None:
    app = stage.name()
    stage.seed(built["both"], app)
    for words, most in (
        (("images",), 2),
        (("images", "--all-namespaces"), 2),
        (("find", "--match", app), 2),
        (("check", "--ref", app), 2),
        (("check", "--ref", "no.example/such:1"), 2),
    ):
        with counting(stage.nodes.values()) as counts:
            fab("-H", ",".join(counts), *words, "--json")
            asked = {login: count() for login, count in counts.items()}
        assert all(1 <= times <= most for times in asked.values()), (words, asked)
