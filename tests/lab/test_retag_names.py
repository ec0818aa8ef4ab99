"""`fab retag` finds the image that is meant, gives the right name, and says what stands in the way."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest
from accounts import counting
from ferry import PINS, Fab, Stage, has_cri, names_of

from lab.fleet import Fleet, Node
from lab.images import NATIVE, BuiltImage, build

OTHER = "linux/arm64" if NATIVE != "linux/arm64" else "linux/amd64"


@pytest.fixture
def stage(few: Stage) -> Stage:
    """Three kinds of ctr are enough."""
    return few


@pytest.fixture(scope="session")
def images(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltImage, BuiltImage]:
    """Two images of this session alone."""
    assert fleet.nodes
    folder, seed = tmp_path_factory.mktemp("images"), secrets.randbits(32)
    return build(folder, seed=seed, cmd=("/bin/echo", "hello")), build(folder, seed=seed + 1)


@pytest.fixture
def image(images: tuple[BuiltImage, BuiltImage]) -> BuiltImage:
    """One of them."""
    return images[0]


@pytest.fixture
def other(images: tuple[BuiltImage, BuiltImage]) -> BuiltImage:
    """The other one."""
    return images[1]


class TestTheSource:
    @pytest.mark.parametrize("form", ["{digest}", "{repository}@{digest}", "elsewhere.example/x@{digest}"])
    def test_may_be_a_digest(self, fab: Fab, stage: Stage, image: BuiltImage, form: str) -> None:
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(image, src)
        wanted = form.format(digest=image.target.digest, repository=src.rpartition(":")[0])
        run = fab.retag(stage.nodes, "--src", wanted, "--dst", dst)
        assert run.statuses == dict.fromkeys(stage.nodes, "changed")
        assert {n: run.image(n)["source"] for n in stage.nodes} == dict.fromkeys(stage.nodes, src)
        assert all(stage.records(n)[dst].digest == image.target.digest for n in stage.nodes.values())

    def test_may_be_short_and_so_may_the_destination(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        stage.seed(image, f"docker.io/library/{stage.token}:1")
        run = fab.retag(stage.nodes, "--src", f"{stage.token}:1", "--dst", f"{stage.token}/app")
        assert run.statuses == dict.fromkeys(stage.nodes, "changed")
        full = f"docker.io/{stage.token}/app:1"
        assert {n: run.image(n)["reference"] for n in stage.nodes} == dict.fromkeys(stage.nodes, full)
        assert all(full in stage.records(n) for n in stage.nodes.values())

    def test_is_the_exact_name_before_its_full_form(
        self, fab: Fab, stage: Stage, node3: Node, image: BuiltImage, other: BuiltImage
    ) -> None:
        short, dst = f"{stage.token}:1", stage.name()
        stage.seed(image, f"docker.io/library/{short}", nodes=[node3])
        stage.seed(other, short, nodes=[node3])
        assert fab.retag("node3", "--src", short, "--dst", dst).exit == 0
        assert stage.records(node3)[dst].digest == other.target.digest

    def test_that_is_absent_is_named_with_the_namespace_where_it_is(
        self, fab: Fab, stage: Stage, image: BuiltImage
    ) -> None:
        src, namespace = stage.name(), stage.namespace()
        stage.seed(image, src, namespace=namespace)
        run = fab.retag(stage.nodes, "--src", src, "--dst", stage.name(registry="new.example"))
        assert run.exit == 1
        assert run.statuses == dict.fromkeys(stage.nodes, "image-not-found")
        for outcome in run.outcomes.values():
            assert f"namespace {namespace}" in outcome["error"]["hint"]
        assert all(not stage.records(n) for n in stage.nodes.values())

    def test_that_is_absent_is_answered_with_close_names(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        stage.seed(image, stage.name(tag="1.1.3"))
        run = fab.retag(stage.nodes, "--src", stage.name(tag="1.1.2"), "--dst", "new.example/x:1")
        assert run.exit == 1
        assert all(stage.name(tag="1.1.3") in o["error"]["hint"] for o in run.outcomes.values())

    def test_that_is_no_reference_is_named_and_removed_and_passed_by(
        self, fab: Fab, stage: Stage, image: BuiltImage
    ) -> None:
        odd, new = stage.name("MyApp"), stage.name("my-app")
        stage.seed(image, odd)
        assert fab.retag(stage.nodes, "--src", odd, "--dst", new).statuses == dict.fromkeys(stage.nodes, "changed")
        source, *_ = hosts = list(stage.nodes)
        run = fab("-H", hosts[-1], "copy", "--from", source, "--ref", f"*{stage.token}*", "--json")
        assert (run.exit, [i["reference"] for i in run.images(hosts[-1])]) == (0, [new])
        assert odd in str(run.outcomes[hosts[-1]]["result"]["notes"])
        run = fab("-H", ",".join(hosts), "remove", "--ref", odd, "--yes", "--json")
        assert run.statuses == dict.fromkeys(hosts, "changed")
        assert {name for records in stage.on_each(stage.records).values() for name in records} == {new}

    def test_whose_content_is_not_all_there_can_still_be_named(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        # The name is as good as the old one: nothing is lost, and the index stays what it was.
        namespace, src, dst = stage.namespace(), stage.name(), stage.name(registry="new.example")
        stage.seed(image, src, namespace=namespace)
        layer = image.layers[NATIVE][0]
        stage.on_each(lambda n: n.real_ctr("content", "rm", layer, namespace=namespace))
        run = fab.retag(stage.nodes, "-n", namespace, "--src", src, "--dst", dst)
        for node in stage.nodes.values():
            status = run.statuses[node.name]
            names = set(stage.records(node, namespace))
            assert (status, names) in [("changed", {src, dst}), ("content-missing", {src})], node

    def test_whose_manifest_is_gone_is_refused_where_it_must_be_read(
        self, fab: Fab, stage: Stage, image: BuiltImage
    ) -> None:
        namespace, src, dst = stage.namespace(), stage.name(), stage.name(registry="new.example")
        stage.seed(image, src, namespace=namespace)
        digest = image.target.digest
        stage.on_each(lambda n: n.real_ctr("content", "rm", digest, namespace=namespace))
        run = fab.retag(stage.nodes, "-n", namespace, "--src", src, "--dst", dst, "--method", "index")
        assert run.statuses == dict.fromkeys(stage.nodes, "content-missing")
        assert all(set(stage.records(n, namespace)) == {src} for n in stage.nodes.values())


class TestTheDestination:
    @pytest.mark.parametrize("method", ["auto", "index", "archive"])
    def test_that_exists_with_another_digest_is_left_alone(
        self, fab: Fab, stage: Stage, image: BuiltImage, other: BuiltImage, method: str
    ) -> None:
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(image, src)
        stage.seed(other, dst)
        run = fab.retag(stage.nodes, "--src", src, "--dst", dst, "--method", method)
        assert (run.exit, run.statuses) == (1, dict.fromkeys(stage.nodes, "reference-exists"))
        for node in stage.nodes.values():
            detail = run.outcomes[node.name]["error"]["said"]
            assert image.target.digest in detail
            assert other.target.digest in detail
            assert stage.records(node)[dst].digest == other.target.digest

    @pytest.mark.parametrize("method", ["auto", "index", "archive"])
    def test_that_exists_with_another_digest_moves_when_forced(
        self, fab: Fab, stage: Stage, image: BuiltImage, other: BuiltImage, method: str
    ) -> None:
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(image, src)
        stage.seed(other, dst)
        stage.on_each(lambda node: node.real_ctr("images", "label", dst, *PINS))
        run = fab.retag(stage.nodes, "--src", src, "--dst", dst, "--method", method, "--force")
        assert (run.exit, run.statuses) == (0, dict.fromkeys(stage.nodes, "changed"))
        for node in stage.nodes.values():
            assert run.image(node.name)["previous_digest"] == other.target.digest
            assert set(PINS) <= set(stage.records(node)[dst].labels.split(",")), node
            assert stage.records(node)[dst].digest == image.target.digest
            assert stage.records(node)[dst].managed == has_cri(node)
            assert stage.records(node)[src].digest == image.target.digest

    def test_that_is_another_image_on_another_host_is_warned_of(
        self, fab: Fab, stage: Stage, images: tuple[BuiltImage, BuiltImage]
    ) -> None:
        hosts = list(stage.nodes)[:2]
        for host, image in zip(hosts, images, strict=True):
            stage.seed(image, stage.name(), nodes=[stage.nodes[host]])
        words = ("--src", stage.name(), "--dst", stage.name("new"))
        run = fab.retag(hosts, *words)
        assert (run.exit, run.statuses) == (0, dict.fromkeys(hosts, "changed"))
        (warning,) = run.document["commands"][0]["warnings"]
        assert warning["message"] == f"2 digests under this name: {stage.name('new')}"
        assert warning["digests"] == {i.target.digest: [host] for host, i in zip(hosts, images, strict=True)}
        assert f"warning: {warning['message']}" in fab("-H", ",".join(hosts), "retag", *words).err
        assert fab.retag(hosts[0], *words).document["commands"][0]["warnings"] == []

    def test_that_exists_with_this_digest_is_unchanged(self, fab: Fab, stage: Stage, image: BuiltImage) -> None:
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(image, src, dst)
        run = fab.retag(stage.nodes, "--src", src, "--dst", dst)
        assert (run.exit, run.statuses) == (0, dict.fromkeys(stage.nodes, "unchanged"))

    def test_that_is_the_source_is_refused(self, fab: Fab, stage: Stage) -> None:
        run = fab.retag("node3", "--src", f"{stage.token}:1", "--dst", f"docker.io/library/{stage.token}")
        assert (run.exit, run.error["kind"]) == (2, "bad-arguments")


class TestADryRun:
    @pytest.mark.parametrize(
        ("way", "method"),
        [("--dry-run", "auto"), ("--dry-run", "index"), ("--dry-run", "archive"), ("fab --dry", "auto")],
    )
    def test_changes_nothing_and_names_the_method(
        self, fab: Fab, stage: Stage, image: BuiltImage, way: str, method: str
    ) -> None:
        src, dst = stage.name(), stage.name(registry="new.example")
        stage.seed(image, src)
        before = stage.on_each(stage.records)
        words = ["retag", "--json", "--src", src, "--dst", dst, "--method", method]
        hosts = ",".join(stage.nodes)
        run = fab("--dry", "-H", hosts, *words) if way == "fab --dry" else fab("-H", hosts, *words, "--dry-run")
        assert (run.exit, run.statuses) == (0, dict.fromkeys(stage.nodes, "would-change"))
        assert run.document["commands"][0]["dry_run"] is True
        for node in stage.nodes.values():
            has_tag = method == "auto" and node.name != "node1"
            assert run.image(node.name)["method"] == ("tag" if has_tag else method.replace("auto", "index"))
            assert "would move" in str(run.image(node.name)["notes"])
            assert run.image(node.name)["status"] == "would-change"
        assert stage.on_each(stage.records) == before

    def test_is_reported_and_recorded_as_would_change(
        self, fab: Fab, stage: Stage, node3: Node, image: BuiltImage, tmp_path: Path
    ) -> None:
        stage.seed(image, stage.name(), nodes=[node3])
        own = {"FABRIC_FLEET_RUNS": str(tmp_path)}
        words = ("retag", "--src", stage.name(), "--dst", stage.name("new"))
        run = fab("-H", "node3", *words, "--dry-run", **own)
        assert run.exit == 0
        assert "would-change" in run.out and "changed" not in run.out
        (past,) = json.loads(fab("runs", "--json", **own).out)["commands"][0]["result"]["runs"]
        assert past["statuses"] == {"would-change": 1}
        done = fab("-H", "@changed", *words, **own)
        assert (done.exit, stage.records(node3).keys()) == (2, {stage.name()}), done.err
        done = fab("-H", "@would-change", *words, **own)
        assert (done.exit, stage.records(node3).keys()) == (0, {stage.name(), stage.name("new")}), done.err
        assert f"@would-change: run {past['id']} left node3 would-change" in done.err


class TestSudo:
    def test_without_a_password_is_enough(self, fab: Fab, stage: Stage, node3: Node, image: BuiltImage) -> None:
        stage.seed(image, stage.name(), nodes=[node3])
        run = fab.retag("node3-ops", "--src", stage.name(), "--dst", stage.name(registry="new.example"))
        assert run.statuses == {"node3-ops": "changed"}

    def test_with_the_right_password_is_enough(self, fab: Fab, stage: Stage, node3: Node, image: BuiltImage) -> None:
        stage.seed(image, stage.name(), nodes=[node3])
        words = ("--src", stage.name(), "--dst", stage.name(registry="new.example"))
        run = fab.retag("node3-ops2", *words, FABRIC_SUDO_PASSWORD="ops2-secret")
        assert run.statuses == {"node3-ops2": "changed"}
        assert "ops2-secret" not in run.out + run.err

    @pytest.mark.parametrize("password", ["wrong", ""])
    def test_with_another_password_is_refused(
        self, fab: Fab, stage: Stage, node3: Node, image: BuiltImage, password: str
    ) -> None:
        stage.seed(image, stage.name(), nodes=[node3])
        words = ("--src", stage.name(), "--dst", stage.name(registry="new.example"))
        run = fab.retag("node3-ops2", *words, **({"FABRIC_SUDO_PASSWORD": password} if password else {}))
        assert (run.exit, run.statuses) == (1, {"node3-ops2": "permission-denied"})
        assert "sudo" in run.error["message"]
        assert "FABRIC_SUDO_PASSWORD" in run.error["hint"]
        assert stage.name(registry="new.example") not in stage.records(node3)


class TestManyAtOnce:
    def test_a_map_of_fifty_lines_takes_three_remote_commands(
        self, fab: Fab, stage: Stage, image: BuiltImage, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        sources = [stage.name(f"app{n}") for n in range(50)]
        nodes = [stage.nodes["node1"], stage.nodes["node3"]]  # by index and by tag
        stage.seed(image, *sources, nodes=nodes)
        lines = [f"{s}   {s.replace('172.1.1.34:5000', 'new.example')}" for s in sources]
        file = tmp_path_factory.mktemp("map") / "names.map"
        file.write_text("# old  new\n\n" + "\n".join(lines) + "   # the last one\n")
        with counting(nodes) as counts:
            run = fab.retag(counts, "--map", str(file))
            assert all(0 < count() <= 3 for count in counts.values())
        assert run.exit == 0, run.out
        told = {host: [i["status"] for i in run.images(host)] for host in counts}
        assert told == dict.fromkeys(counts, ["changed"] * 50)
        for node in nodes:
            records = stage.records(node)
            assert {line.split()[1] for line in lines} <= records.keys(), node
            assert {r.digest for r in records.values()} == {image.target.digest}, node
            assert all(r.managed for r in records.values()) or not has_cri(node), node
        again = fab.retag(names_of(nodes), "--map", str(file))
        assert (again.exit, again.statuses) == (0, dict.fromkeys(names_of(nodes), "unchanged"))

    def test_a_map_does_what_it_can_and_names_what_it_could_not(
        self, fab: Fab, stage: Stage, image: BuiltImage, other: BuiltImage, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        stage.seed(image, stage.name("a"), stage.name("b"))
        stage.seed(other, stage.name("b", registry="new.example"))
        new = {letter: stage.name(letter, registry="new.example") for letter in "abc"}
        file = tmp_path_factory.mktemp("map") / "names.map"
        file.write_text("".join(f"{stage.name(letter)} {new[letter]}\n" for letter in "abc"))
        run = fab.retag(stage.nodes, "--map", str(file))
        assert (run.exit, run.statuses) == (1, dict.fromkeys(stage.nodes, "some-failed"))
        for node in stage.nodes.values():
            told = {i["reference"]: i["status"] for i in run.images(node.name)}
            assert told == {new["a"]: "changed", new["b"]: "failed", new["c"]: "failed"}
            records = stage.records(node)
            assert records[new["a"]].digest == image.target.digest
            assert records[new["b"]].digest == other.target.digest
            assert new["c"] not in records

    def test_a_map_with_wrong_lines_touches_no_host(
        self, fab: Fab, stage: Stage, node3: Node, image: BuiltImage, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        stage.seed(image, stage.name(), nodes=[node3])
        file = tmp_path_factory.mktemp("map") / "names.map"
        file.write_text(f"{stage.name()} new.example/a:1\nonly-one\n{stage.name()} new.example/UPPER:1\n")
        run = fab.retag("node3", "--map", str(file))
        assert (run.exit, run.error["kind"]) == (2, "bad-arguments")
        assert f"{file}:2" in run.error["said"]
        assert f"{file}:3" in run.error["said"]
        assert set(stage.records(node3)) == {stage.name()}

    def test_every_matching_image_moves_to_another_registry_in_three_remote_commands(
        self, fab: Fab, stage: Stage, image: BuiltImage, other: BuiltImage
    ) -> None:
        stage.seed(image, stage.name("a"), stage.name("b", "2"), stage.name("a", registry="live.example"))
        stage.seed(other, stage.name("c"))
        before = stage.on_each(stage.records)
        words = ("--to-registry", "new.example:5000", "--match", f"172.1.1.34:5000/{stage.token}/*")
        new = {stage.name(app, tag, "new.example:5000") for app, tag in (("a", "1"), ("b", "2"), ("c", "1"))}
        dry = fab.retag(stage.nodes, *words, "--dry-run")
        assert dry.exit == 0
        assert {n: {i["reference"] for i in dry.images(n)} for n in stage.nodes} == dict.fromkeys(stage.nodes, new)
        assert stage.on_each(stage.records) == before
        with counting(stage.nodes.values()) as counts:
            run = fab.retag(counts, *words)
            assert all(0 < count() <= 3 for count in counts.values())
        assert run.statuses == dict.fromkeys(counts, "changed")
        assert {host: {i["reference"] for i in run.images(host)} for host in counts} == dict.fromkeys(counts, new)
        for node in stage.nodes.values():
            records = stage.records(node)
            assert records.keys() == before[node.name].keys() | new, node
            assert records[stage.name("c", registry="new.example:5000")].digest == other.target.digest, node

    def test_a_glob_that_fits_nothing_changes_nothing_and_is_an_error(self, fab: Fab, stage: Stage) -> None:
        run = fab.retag(stage.nodes, "--to-registry", "new.example", "--match", f"*{stage.token}*")
        assert (run.exit, run.statuses) == (1, dict.fromkeys(stage.nodes, "unchanged"))

    def test_two_images_that_would_get_one_name_are_refused(
        self, fab: Fab, stage: Stage, image: BuiltImage, other: BuiltImage
    ) -> None:
        stage.seed(image, stage.name())
        stage.seed(other, stage.name(registry="second.example"))
        run = fab.retag(stage.nodes, "--to-registry", "new.example", "--match", f"*/{stage.token}/app:1")
        assert (run.exit, run.statuses) == (1, dict.fromkeys(stage.nodes, "some-failed"))
        for node in stage.nodes.values():
            told = [(i["status"], str(i["error"])) for i in run.images(node.name)]
            assert any(status == "failed" and "would both become" in error for status, error in told), told
