"""Copy, without hosts: options, whose image is meant, which name it gets, what a host lacks, and the scripts."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from ctr_ferry.ctr import gc_root, ingest
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.free_space import Room, Space
from ctr_ferry.ctr.gc_root import Root
from ctr_ferry.ctr.ingest import Load, Store
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.naming import Place
from ctr_ferry.ctr.probe import Settings
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.errors import (
    BadReference,
    CommandFailed,
    ContentCorrupt,
    ContentMissing,
    DaemonUnreachable,
    DiskFull,
    Drift,
    FerryError,
    ImageNotFound,
    SourceLost,
    Unreachable,
    UsageError,
    VerifyFailed,
)
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, Platform
from ctr_ferry.oci.reference import Reference
from ctr_ferry.report.outcome import Status
from ctr_ferry.ssh.host import Host
from ctr_ferry.transfer.copy import Job, Plan
from ctr_ferry.transfer.copy_request import Delivered, ImageCopy, blobs_to_copy
from ctr_ferry.transfer.sources import Sources
from tasks import copy
from tasks.copy import ImageSelector, Request, SourceInventory

AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def blob(number: int, kind: str = "layer", platform: Platform | None = None) -> Descriptor:
    return Descriptor(kind, digest(number), number * 10, platform)


def manifest(*blobs: Descriptor) -> bytes:
    listed = [{"mediaType": b.media_type, "digest": b.digest, "size": b.size} for b in blobs]
    return json.dumps({"config": listed[0], "layers": listed[1:]}).encode()


def index(children: Mapping[Platform, Descriptor]) -> bytes:
    listed = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": child.digest,
            "size": child.size,
            "platform": {"os": platform.os, "architecture": platform.architecture},
        }
        for platform, child in children.items()
    ]
    return json.dumps({"manifests": listed}).encode()


class Two:
    """An image of two platforms: index 1, manifests 2 and 3, configs 4 and 5, layers 6 and 7."""

    top, amd, arm = blob(1, OCI_INDEX), blob(2, OCI_MANIFEST, AMD), blob(3, OCI_MANIFEST, ARM)
    documents: ClassVar = {
        digest(1): index({AMD: blob(2), ARM: blob(3)}),
        digest(2): manifest(blob(4), blob(6)),
        digest(3): manifest(blob(5), blob(7)),
    }

    @classmethod
    def content(cls, *visible: int) -> Content:
        return Content(frozenset(map(digest, visible)), dict(cls.documents))


def image(name: str = "r.example/app:1", number: int = 1, media_type: str = OCI_INDEX) -> Image:
    return Image(name, media_type, digest(number), "1 MiB", "linux/amd64,linux/arm64", frozenset())


class TestOptions:
    def test_the_namespace_is_that_of_both_ends_unless_told_otherwise(self) -> None:
        both = copy.parse(from_=["a"], ref=["x"], namespace="here")
        apart = copy.parse(from_=["a"], ref=["x"], namespace="here", to_namespace="there")
        assert (both.namespace, both.to_namespace) == ("here", "here")
        assert (apart.namespace, apart.to_namespace) == ("here", "there")

    @pytest.mark.parametrize(
        "options",
        [
            {"ref": ["x"]},
            {"from_": ["a"]},
            {"from_": ["a"], "ref": ["x"], "map": "file"},
            {"from_": ["a"], "ref": ["x", "y"], "as_": "z:1"},
            {"from_": ["a"], "ref": ["x*"], "as_": "z:1"},
            {"from_": ["a"], "ref": ["x"], "as_": f"z@{digest(1)}"},
            {"from_": ["a"], "ref": ["x"], "platform": "linux/arm64", "all_platforms": True},
            {"from_": ["a"], "ref": ["x"], "namespace": "a/b"},
        ],
    )
    def test_what_contradicts_itself_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            copy.parse(**options)

    def test_a_word_that_is_no_reference_is_refused(self) -> None:
        with pytest.raises(BadReference):
            copy.parse(from_=["a"], ref=["not a name"])


class TestNames:
    @pytest.mark.parametrize(
        ("selector", "name", "expected"),
        [
            (ImageSelector("app:1"), "r.example/app:1", "r.example/app:1"),
            (ImageSelector("busybox"), "busybox:1", "docker.io/library/busybox:1"),
            (ImageSelector("app:1", Reference.parse("new.example/b:2")), "r.example/app:1", "new.example/b:2"),
            (ImageSelector("app:1", Reference.parse("new.example/b")), "r.example/app:7", "new.example/b:7"),
            (ImageSelector(digest(1), Reference.parse("new.example/b")), digest(9), "new.example/b:latest"),
        ],
    )
    def test_an_image_keeps_its_name_or_gets_the_one_asked_for(
        self, selector: ImageSelector, name: str, expected: str
    ) -> None:
        (image_copy,) = copy._image_copies({selector: [image(name)]})
        assert str(image_copy.dst) == expected

    @pytest.mark.parametrize("name", [digest(5), f"r.example/app@{digest(1)}", "Not A Name"])
    def test_an_image_without_a_name_needs_one(self, name: str) -> None:
        with pytest.raises(UsageError, match="no tag"):
            list(copy._image_copies({ImageSelector("x"): [image(name)]}))

    def test_two_images_under_one_name_are_refused_and_one_under_two_wishes_is_not(self) -> None:
        with pytest.raises(UsageError, match="two images"):
            list(copy._image_copies({ImageSelector("a"): [image()], ImageSelector("b"): [image(number=2)]}))
        assert len(list(copy._image_copies({ImageSelector("a"): [image()], ImageSelector("b"): [image()]}))) == 2


class Named:
    """As much of a host as an error needs."""

    def __init__(self, name: str) -> None:
        self.name = name


def source_inventory(
    name: str, selector: ImageSelector, *images: Image, content: Content | None = None
) -> SourceInventory:
    facts = cast(Any, type("Facts", (), {"platform": AMD}))
    found = {selector: images} if images else {}
    return SourceInventory(cast(Host, Named(name)), facts, Listing("k8s.io", images), content or Content(), found)


class TestWhoHasIt:
    request = copy.parse(from_=["any"], ref=["r.example/*"])
    selector = ImageSelector("r.example/*")

    def test_the_first_source_named_decides(self) -> None:
        request = copy.parse(from_=["a", "b"], ref=["r.example/*"])
        source_inventories = [
            source_inventory("a", self.selector, image(number=1)),
            source_inventory("b", self.selector, image(number=2), image("r.example/b:1")),
        ]
        found = copy._resolve(self.selector, source_inventories, request, {})
        assert [(each.name, each.digest) for each in found] == [
            ("r.example/app:1", digest(1)),
            ("r.example/b:1", digest(1)),
        ]

    def test_where_any_will_do_they_must_agree(self) -> None:
        source_inventories = [
            source_inventory("a", self.selector, image(number=1)),
            source_inventory("b", self.selector, image(number=2)),
        ]
        with pytest.raises(Drift) as raised:
            copy._resolve(self.selector, source_inventories, self.request, {})
        assert raised.value.detail.splitlines() == [f"a {digest(1)}", f"b {digest(2)}"]

    def test_one_platforms_manifest_of_the_index_that_others_have_is_the_same_image(self) -> None:
        part, whole = image(number=2, media_type=OCI_MANIFEST), image()
        source_inventories = [
            source_inventory("old", self.selector, part),
            source_inventory("new", self.selector, whole, content=Two.content(1, 2)),
        ]
        assert copy._resolve(self.selector, source_inventories, self.request, {}) == (whole,)

    def test_what_nobody_has_is_told_with_who_could_not_be_asked(self) -> None:
        with pytest.raises(ImageNotFound) as raised:
            copy._resolve(
                self.selector, [source_inventory("a", self.selector)], self.request, {"b": Unreachable("no connection")}
            )
        assert "a" in raised.value.message and "b: no connection" in raised.value.detail

    def test_any_takes_the_one_that_has_it_whole_and_else_all(self) -> None:
        half = source_inventory("half", self.selector, image(), content=Two.content(1, 2, 4))
        whole = source_inventory("whole", self.selector, image(), content=Two.content(1, 2, 4, 6))
        assert [s.host.name for s in copy._used([half, whole], [image()], self.request)] == ["whole"]
        assert [s.host.name for s in copy._used([half, half], [image()], self.request)] == ["half", "half"]
        insisting = copy.parse(from_=["any"], ref=["r.example/*"], all_platforms=True)
        assert len(copy._used([half, whole], [image()], insisting)) == 2

    def test_a_source_that_is_unreachable_is_no_unreachable_destination(self) -> None:
        told = copy._of_source("a", Unreachable("no connection", detail="refused", hint="look"))
        assert isinstance(told, SourceLost)
        assert (told.message, told.detail, told.hint) == ("the source a: no connection", "refused", "look")


class TestBlobsToCopy:
    def numbers(self, content: Content, **options: Any) -> list[int]:
        found = blobs_to_copy(content, image(), Two.top, **{"platform": AMD, "every": False, **options})
        return [int(each.digest[7:], 16) for each in found]

    def test_all_platforms_that_are_whole_come_and_of_the_others_the_manifest(self) -> None:
        assert self.numbers(Two.content(1, 2, 3, 4, 5, 6, 7)) == [1, 2, 3, 4, 6, 5, 7]
        assert self.numbers(Two.content(1, 2, 3, 4, 5, 6)) == [1, 2, 3, 4, 6]
        assert self.numbers(Two.content(1, 2, 4, 6)) == [1, 2, 4, 6]

    def test_the_hosts_own_platform_must_be_whole(self) -> None:
        with pytest.raises(ContentMissing) as raised:
            self.numbers(Two.content(1, 2, 3, 4, 5, 7))
        assert raised.value.detail == digest(6)
        assert self.numbers(Two.content(1, 2, 3, 4, 5, 7), platform=ARM) == [1, 2, 3, 5, 7]

    def test_all_platforms_must_be_whole_where_that_is_asked(self) -> None:
        with pytest.raises(ContentMissing) as raised:
            self.numbers(Two.content(1, 2, 4, 6), every=True)
        assert raised.value.detail.splitlines() == [digest(3), digest(5), digest(7)]

    def test_one_manifest_comes_with_its_blobs(self) -> None:
        found = blobs_to_copy(Two.content(1, 2, 4, 6), image(), Two.amd, AMD, every=False)
        assert [each.digest for each in found] == [digest(2), digest(4), digest(6)]


CTR = Ctr(("ctr",), "/run/c.sock", Capabilities.of_version(cast(Version, Version.parse("1.6.20"))))
PLACE = Place(CTR, "k8s.io", "k8s.io", "/var/content", "ctr-ferry.20261124T000000Z-copy-12ab", cri_managed=True)
LOAD = Load((Two.top, Two.amd, blob(4), blob(6)), Two.documents)


NOW = datetime(2026, 11, 24, tzinfo=UTC)
OLD, YOUNG = "ctr-ferry.20261121T000000Z-copy-12ab.1f.1", "ctr-ferry.20261123T000000Z-copy-12ab.1f.1"


class TestStore:
    def test_what_each_namespace_has_and_what_expired_runs_have_left_are_told_apart(self) -> None:
        def held(owner: str) -> str:
            return f"containerd.io/gc.root={owner},containerd.io/gc.ref.content.{owner}.0=sha256:00"

        text = "\n".join(
            [
                "namespace default",
                digest(9),
                f"{digest(8)} 1MB 2 days {held(OLD)}",
                "namespace k8s.io",
                digest(4),
                f"{digest(1)}  491B   2 minutes  a=b,{held(OLD)}",
                f"{digest(2)} 1.049 MB 3 hours {held(YOUNG)}",
                f"{digest(3)} 1B 3 hours containerd.io/gc.root=2024-01-01T00:00:00Z,x={OLD}",
            ]
        )
        active = f"REF SIZE AGE\n{OLD}-0f-0 1MB 2 days\n{YOUNG}-0f-0 1MB 1 day\ntheirs 1B 9 days\nctr-ferry.x 1B 9 days"
        store = ingest.parse_store(text, active, "k8s.io", NOW)
        assert store.here == {digest(1), digest(2), digest(3), digest(4)}
        assert store.elsewhere == {digest(8), digest(9)}
        assert store.labels == {digest(1): ("containerd.io/gc.root", f"containerd.io/gc.ref.content.{OLD}.0")}
        assert store.ingests == (f"{OLD}-0f-0",)

    def test_only_what_is_nowhere_goes_over_the_wire_and_documents_never(self) -> None:
        store = Store(here=frozenset({digest(4)}), elsewhere=frozenset({digest(9)}))
        assert ingest.to_send([LOAD, LOAD], store) == [blob(6)]

    def test_the_question_reduces_thousands_of_rows_to_digests(self, tmp_path: Any) -> None:
        rows = [
            f"{digest(4)}\t1MB\t2 days\tcontainerd.io/distribution.source.x=y",
            f"{digest(1)}\t1B\t1 s\ta.ctr-ferry.z=1",
            "namespace moby containerd.io/gc.root=x",  # behind a line break in a label
            f"name {digest(6)} a.ctr-ferry.z=1",
        ]
        fake = tmp_path / "ctr"
        fake.write_text(
            '#!/bin/sh\ncase "$*" in *namespaces*) echo k8s.io;; *) printf "DIGEST\\tSIZE\\n%s\\n" "$ROWS";; esac\n'
        )
        fake.chmod(0o755)
        step = ingest.questions(Settings(), "k8s.io", [])["store"]
        sh = f"ready() {{ :; }}; ctr={fake}; address=/s\n{step}"
        detail = subprocess.run(
            ["sh", "-c", sh],
            env={"ROWS": "\n".join(rows), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert detail.stdout.splitlines() == ["namespace k8s.io", digest(4), rows[1]]


class Held:
    """A hold that runs against a ctr which writes down what it is told."""

    def __init__(self, folder: Path, active: str = "") -> None:
        self.folder, fake = folder, folder / "ctr"
        (folder / "active").write_text(active)
        fake.write_text(
            f"""#!/bin/sh
here={folder}
echo "$*" | sed 's/.*--namespace k8s.io //' >>$here/log
case "$*" in
*active*) cat $here/active;;
*ingest*) cat >/dev/null; for key; do :; done; sed -i "/^$key/d" $here/active;;
*label*=ctr-ferry*) [ ! -e $here/unlabelled ] || {{ echo "ctr: no label" >&2; exit 1; }};;
esac
"""
        )
        fake.chmod(0o755)
        self.place = replace(PLACE, ctr=replace(CTR, argv=(str(fake),)))

    def run(self, detail: bytes, *loads: Load, store: Store = Store()) -> tuple[dict[str, bool], list[str]]:  # noqa: B008
        """Which images are held, and what ctr was told after the end of stdin."""
        script = ingest.hold(self.place, loads or (LOAD,), store)
        script = replace(script, steps={**script.steps, "wait": "echo waits >>" + f"{self.folder}/log; read -r named"})
        done = subprocess.run(["sh", "-c", script.render("M")], input=detail, capture_output=True, check=False)
        answers = script.read("M", done.stdout, done.stderr)
        log = (self.folder / "log").read_text().splitlines()
        return {n: a.ok for n, a in answers.items() if n != "wait"}, log[log.index("waits") + 1 :]


ROOT = Root(CTR, "k8s.io", PLACE.owner, tuple(each.digest for each in LOAD.blobs))


class TestTheHold:
    def test_a_root_of_the_runs_own_holds_all_blobs_before_they_are_taken(self) -> None:
        prepare = ingest.hold(PLACE, [LOAD], Store()).steps["prepare-0"]
        label = prepare.index(f"content label {ROOT.digest} containerd.io/gc.root={PLACE.owner} ")
        assert (
            prepare.index(f"--expected-digest {ROOT.digest}") < label < prepare.index(f"--expected-digest {digest(1)}")
        )
        assert all(f".{n}={digest(held)}" in prepare[label:] for n, held in enumerate((1, 2, 4, 6)))
        assert prepare.count("content label") == 1  # nobody else's blob gets one
        assert prepare.count("content ingest") == 1 + 2  # the documents; what is to be sent comes later

    def test_what_another_namespace_has_is_linked(self) -> None:
        prepare = ingest.hold(PLACE, [LOAD], Store(elsewhere=frozenset({digest(4), digest(6)}))).steps["prepare-0"]
        assert prepare.count("<&5") == 2

    def test_each_image_has_a_root_of_its_own(self) -> None:
        steps = ingest.hold(PLACE, [LOAD, LOAD], Store()).steps
        assert ROOT.digest in steps["prepare-0"] and ROOT.digest not in steps["prepare-1"]

    def test_when_all_is_named_the_root_goes_and_nobody_elses_is_touched(self, tmp_path: Path) -> None:
        theirs = f"{PLACE.owner[:-1]}x-0f-0 1MB 1 day\n"
        prepared, told = Held(tmp_path, theirs).run(ingest.NAMED)
        assert prepared == {"prepare-0": True}
        assert told == ["content active", f"content rm {ROOT.digest}", "content active"]
        assert (tmp_path / "active").read_text() == theirs

    def test_when_it_breaks_off_the_labels_go_and_the_runs_own_ingests_end(self, tmp_path: Path) -> None:
        mine, other = f"{PLACE.owner}-0f-0", "ctr-ferry.20261124T000000Z-copy-ffff.1f.1-0f-0"
        held = Held(tmp_path, f"REF SIZE\n{mine} 1MB\n{other} 1MB\n")
        _, told = held.run(b"")
        off = [f"containerd.io/gc.ref.content.{PLACE.owner}.{n}=" for n in range(4)]
        assert told[1] == " ".join(["content label", ROOT.digest, "containerd.io/gc.root=", *off])
        assert [line for line in told if "ingest" in line] == [f"content ingest {mine}"]
        assert other in (tmp_path / "active").read_text()

    def test_what_a_first_attempt_left_unfinished_ends_though_the_second_went_well(self, tmp_path: Path) -> None:
        mine = f"{PLACE.owner}-0f-0"
        _, told = Held(tmp_path, f"{mine} 0B\n").run(ingest.NAMED)
        assert f"content ingest {mine}" in told

    def test_what_expired_runs_have_left_goes_with_it(self, tmp_path: Path) -> None:
        old = "containerd.io/gc.ref.content.ctr-ferry.old.0"
        store = Store(labels={digest(1): ("containerd.io/gc.root", old)}, ingests=(f"{OLD}-0f-0",))
        _, told = Held(tmp_path).run(ingest.NAMED, store=store)
        assert f"content label {digest(1)} containerd.io/gc.root= {old}=" in told
        assert f"content ingest {OLD}-0f-0" in told

    def test_a_root_that_takes_no_label_is_told_and_nothing_is_taken_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gc_root, "_TRIES", 2)
        held = Held(tmp_path)
        (tmp_path / "unlabelled").touch()
        prepared, _ = held.run(b"")
        assert prepared == {"prepare-0": False}
        assert digest(1) not in "".join(w for w in (tmp_path / "log").read_text().splitlines() if "ingest" in w)

    def test_a_transfer_has_as_much_time_as_its_size_needs(self) -> None:
        assert ingest.time_for(0, 60) == 60
        assert ingest.time_for(64 << 30, 60) > 86400


class TestTheIntake:
    def test_to_1_6_the_daemon_is_told_what_to_expect(self) -> None:
        intake = ingest.intake(PLACE, blob(6), 3)
        assert f"--expected-digest {digest(6)} --expected-size 60" in intake.step
        assert intake.step.endswith("-3") and intake.head == intake.tail == b""

    def test_from_1_7_on_it_is_the_only_blob_of_an_archive_without_images(self) -> None:
        modern = replace(CTR, capabilities=Capabilities.of_version(cast(Version, Version.parse("1.7.24"))))
        data = b"x" * 1000
        layer = Descriptor("layer", f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
        intake = ingest.intake(replace(PLACE, ctr=modern), layer, 0)
        with tarfile.open(fileobj=io.BytesIO(intake.head + data + intake.tail)) as archive:
            assert archive.getnames() == ["oci-layout", f"blobs/{layer.digest.replace(':', '/')}", "index.json"]
            assert archive.extractfile(archive.getmembers()[1]).read() == data  # type: ignore[union-attr]
            assert json.load(archive.extractfile("index.json"))["manifests"] == []  # type: ignore[arg-type]

    @pytest.mark.parametrize("there", [True, False])
    def test_what_counts_is_whether_the_blob_is_there_afterwards(self, tmp_path: Any, there: bool) -> None:
        modern = replace(CTR, capabilities=Capabilities.of_version(cast(Version, Version.parse("2.1.0"))))
        fake = tmp_path / "ctr"
        shown = f"echo {digest(6)}" if there else ":"
        fake.write_text(
            f'#!/bin/sh\ncase "$*" in *import*) cat >/dev/null; echo no image >&2; exit 1;; *) {shown};; esac\n'
        )
        fake.chmod(0o755)
        step = ingest.intake(replace(PLACE, ctr=replace(modern, argv=(str(fake),))), blob(6), 0).step
        done = subprocess.run(["sh", "-c", step], input=b"data", capture_output=True, check=False)
        assert (done.returncode == 0, done.stderr) == (there, b"" if there else b"no image\n")


def test_requests_are_values() -> None:
    assert copy.parse(from_=["a"], ref=["x"]) == Request(("a",), (ImageSelector("x"),))
    assert issubclass(SourceLost, FerryError)


class TestOnceMore:
    """What a second attempt ends with."""

    def job(self, look: FerryError | None, bring: FerryError | None, *done: Plan) -> Job:
        job = Job.__new__(Job)

        def act(error: FerryError | None, *_: object, **__: object) -> None:
            for plan in done:
                plan.done = True
            if error:
                raise error

        job._look = partial(act, look)  # type: ignore[assignment]
        job._bring = partial(act, bring)  # type: ignore[method-assign]
        return job

    def plan(self, reason: FerryError) -> Plan:
        name = "r.example/app:1"
        report = Delivered(name, name, digest(1), digest(1), status=Status.CHANGED)
        return Plan(report, ImageCopy(image(), Reference.parse(name)), None, again=reason)

    def test_is_told_and_not_what_the_first_did(self) -> None:
        plan, gone = self.plan(VerifyFailed("vanished")), DaemonUnreachable("gone")
        self.job(gone, None)._once_more([plan])
        assert plan.error is gone

    def test_leaves_what_is_done_and_what_failed_for_its_own_reason(self) -> None:
        done, corrupt, open_ = (self.plan(VerifyFailed("vanished")) for _ in range(3))
        own, gone = ContentCorrupt("wrong"), CommandFailed("ended")
        corrupt.fail(own)
        self.job(None, gone, done)._once_more([done, corrupt, open_])
        assert (done.error, corrupt.error, open_.error) == (None, own, gone)


class TestTheRoom:
    """What is said where all that comes does not, or may not, fit."""

    def job(self, free: int, *, dry_run: bool = False) -> Job:
        job = Job.__new__(Job)
        space = Space(1000, free, free, "/")
        job.room, job.host = Room(space, space), cast(Any, SimpleNamespace(dry_run=dry_run))
        job.notices = ()
        layer = Descriptor("layer+gzip", digest(7), 10)
        job._to_unpack = lambda todo: [layer] if todo else []  # type: ignore[method-assign]
        return job

    def plan(self, size: int) -> Plan:
        report = Delivered("a", "a", digest(1), digest(1), status=Status.CHANGED, bytes_sent=size)
        return Plan(report, ImageCopy(image(), Reference.parse("r.example/app:1")), None)

    def test_all_that_is_to_be_sent_is_refused_where_it_does_not_fit_together(self) -> None:
        plans = [self.plan(60), self.plan(60), self.plan(0)]
        self.job(100)._make_sure_it_fits(plans)
        assert [type(plan.error) for plan in plans] == [DiskFull, DiskFull, type(None)]
        assert "120 bytes are needed, and 100 are free on /" in str(plans[0].error)

    @pytest.mark.parametrize(("free", "notices"), [(149, 1), (150, 0)])
    def test_what_may_not_fit_unpacked_is_told(self, free: int, notices: int) -> None:
        job, plans = self.job(free), [self.plan(120)]
        job._make_sure_it_fits(plans)
        assert (plans[0].error, len(job.notices)) == (None, notices)

    def test_a_dry_run_tells_what_is_needed_and_free(self) -> None:
        job = self.job(150, dry_run=True)
        job._make_sure_it_fits([self.plan(120)])
        assert job.notices == ("120 bytes, and about 30 more when unpacked are needed, and 150 are free on /",)
        job._make_sure_it_fits([])
        assert job.notices == ()


class Giver:
    """A source that gives its pieces, and then fails or not."""

    def __init__(self, name: str, *pieces: bytes, error: FerryError | None = None) -> None:
        self.name, self._pieces, self._error = name, pieces, error

    def chunks(self, _: Descriptor) -> Iterator[bytes]:
        yield from self._pieces
        if self._error:
            raise self._error


class TestSeveralSources:
    def sources(self, *givers: Giver) -> Sources:
        return Sources(cast(Any, givers), {digest(6): cast(Any, givers)})

    def test_the_next_is_asked_where_one_gives_nothing_and_is_the_one_that_is_told(self) -> None:
        lost = SourceLost("gone")
        sources = self.sources(Giver("a", error=lost), Giver("b", b"x"))
        assert sources.holder(blob(6)) == "a"
        ((_, chunks),) = sources.read([blob(6)])
        assert list(chunks) == [b"x"]
        assert sources.holder(blob(6)) == "b"

    def test_the_last_ones_trouble_is_told(self) -> None:
        ((_, chunks),) = self.sources(Giver("a", error=SourceLost("gone"))).read([blob(6)])
        with pytest.raises(SourceLost, match="gone"):
            list(chunks)

    def test_two_lanes_may_find_out_the_same(self) -> None:
        sources = self.sources(Giver("a", error=SourceLost("gone")), Giver("b", b"x"))
        (_, one), (_, other) = sources.read([blob(6), blob(6)])
        assert [*one, *other] == [b"x", b"x"]
