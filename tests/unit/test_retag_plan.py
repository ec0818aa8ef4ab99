"""retag's decisions, on hosts that only answer: the branches that are hard to bring about on real ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from letters import unhashed  # noqa: F401
from records import record

from ctr_ferry import errors
from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.listing import Image, Listing
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, Platform
from ctr_ferry.report.outcome import Status
from ctr_ferry.shell import Answer, Script
from ctr_ferry.ssh.target import Limits, Target
from tasks.retag import Job, Method, RetagResult, parse

A, B, CHILD, OTHER = (f"sha256:{letter * 64}" for letter in "abcd")
CONFIG = "sha256:" + "e" * 64
MANAGED = "io.cri-containerd.image=managed"
OLD, NEW = "old.example/app:1", "new.example/app:1"


def image(name: str, digest: str = A, *labels: str, media_type: str = OCI_MANIFEST) -> Image:
    platforms = "linux/amd64,linux/arm64" if media_type == OCI_INDEX else "linux/amd64"
    return Image(name, media_type, digest, "3.0 MiB", platforms, frozenset(labels))


def table(*images: Image) -> Answer:
    rows = [f"{i.name} {i.media_type} {i.digest} {i.size} {i.platforms} {','.join(i.labels) or '-'}" for i in images]
    return Answer(0, "\n".join(["REF TYPE DIGEST SIZE PLATFORMS LABELS", *rows, ""]).encode(), "")


MANIFEST = json.dumps({"config": {"digest": CONFIG, "size": 2}, "layers": []}).encode()
INDEX = json.dumps(
    {
        "manifests": [
            {"mediaType": OCI_MANIFEST, "digest": CHILD, "size": 5, "platform": {"os": "linux", "architecture": arch}}
            | ({"digest": OTHER} if arch == "arm64" else {})
            for arch in ("amd64", "arm64")
        ]
    }
).encode()


@dataclass
class FakeHost:
    """Answers what it is told to: by step, or by the rest of what is asked; keeps all that it was asked."""

    images: Sequence[Image]
    version: str = "1.6.20"
    elsewhere: Mapping[str, Sequence[Image]] = field(default_factory=dict)
    blobs: Mapping[str, bytes] = field(default_factory=lambda: {A: MANIFEST, B: MANIFEST, CHILD: MANIFEST})
    absent: Sequence[str] = ()
    there: Sequence[str] = ()
    cri: bool = False
    dry_run: bool = False
    answers: dict[str, Answer | Callable[[str], Answer]] = field(default_factory=dict)
    scripts: list[Script] = field(default_factory=list)
    name: str = "node1"
    run_id: str = "20260101T000000Z-abcd"
    target: Target = field(default_factory=lambda: Target("n", "n", limits=Limits(probe=1)))

    def facts(self, namespaces: Sequence[str]) -> Facts:
        parsed = Version.parse(record(self.version, "--version").stdout)
        assert parsed
        all_of_it = {"k8s.io": self.images, **self.elsewhere}
        return Facts(
            user="root",
            sudo=False,
            ctr=Ctr(("ctr",), "/x.sock", Capabilities.of_version(parsed)),
            client=parsed.text,
            server=parsed.text,
            sockets=("/x.sock",),
            namespaces=tuple(all_of_it),
            listings={name: Listing(name, tuple(all_of_it.get(name, ()))) for name in namespaces},
            cri=self.cri,
            content_root="/root",
            platform=Platform.parse("linux/amd64"),
        )

    def survey(self, namespaces: Sequence[str], more: Mapping[str, str]) -> tuple[Facts, dict[str, Answer]]:
        return self.facts(namespaces), {name: self._answer(name, text) for name, text in more.items()}

    def ask(self, script: Script, **_: object) -> dict[str, Answer]:
        self.scripts.append(script)
        return {name: self._answer(name, text) for name, text in script.steps.items()}

    def _answer(self, name: str, text: str) -> Answer:
        if name in self.answers:
            answer = self.answers[name]
            return answer if isinstance(answer, Answer) else answer(text)
        lists = {
            "visible": {*self.blobs, CONFIG} - {*self.absent},
            "there": self.there,
            "kept": re.findall(r"echo (\d+)", text),
        }
        if name in lists:
            return Answer(0, "\n".join(lists[name]).encode(), "")
        if name.startswith("get-"):
            digest = text.partition(" | ")[0].rsplit(maxsplit=1)[-1]
            known = digest in self.blobs
            return Answer(
                0 if known else 1, self.blobs.get(digest, b""), "" if known else f"content digest {digest}: not found"
            )
        if name == "was":
            return table(*self.images)
        if name.startswith("in-"):
            return table(*self.elsewhere[text.split("--namespace ")[1].split(maxsplit=1)[0]])
        return Answer(0, b"", "")

    @property
    def steps(self) -> list[str]:
        return [name for script in self.scripts for name in script.steps]

    @property
    def removed(self) -> list[str]:
        texts = [text for script in self.scripts for name, text in script.steps.items() if name.startswith("rm-")]
        return [text.split()[-1] for text in texts]

    @property
    def changes(self) -> list[str]:
        """Every command asked for that could change something."""
        verbs = (" tag ", " import ", " rm ", " ingest ", " label ")
        return [
            text for script in self.scripts for text in script.steps.values() if any(v in f"{text} " for v in verbs)
        ]


def retag(host: FakeHost, **options: object) -> RetagResult:
    if "to_registry" not in options and "map" not in options:
        options = {"src": OLD, "dst": NEW, **options}
    return Job(host, parse(**options)).run()  # type: ignore[arg-type]


def test_a_name_is_given_and_what_the_host_says_afterwards_is_reported() -> None:
    host = FakeHost([image(OLD)], answers={"verify": table(image(NEW))})
    result = retag(host)
    assert result.status is Status.CHANGED
    (done,) = result.images
    assert (done.src, done.dst, done.digest, done.method) == (OLD, NEW, A, Method.TAG)
    assert len(host.scripts) == 1


@pytest.mark.parametrize("cri", [False, True])
def test_a_ctr_that_reports_success_is_not_believed(cri: bool) -> None:
    host = FakeHost([image(OLD)], cri=cri, answers={"verify": table()})
    with pytest.raises(errors.VerifyFailed, match="is not there"):
        retag(host)
    assert host.removed == []


@pytest.mark.parametrize("method", ["tag", "index"])
def test_a_name_that_another_run_gave_as_well_exists(method: str) -> None:
    host = FakeHost([image(OLD)], answers={"verify": table(image(NEW, B))})
    with pytest.raises(errors.ReferenceExists, match="another digest") as failed:
        retag(host, method=method)
    assert A in failed.value.detail and B in failed.value.detail


def test_a_name_that_somebody_else_moved_as_well_is_told_apart() -> None:
    host = FakeHost([image(OLD), image(NEW, B)], answers={"verify": table(image(NEW, OTHER))})
    with pytest.raises(errors.VerifyFailed, match="another digest"):
        retag(host, force=True)


def test_what_the_host_did_not_find_right_has_not_been_done() -> None:
    host = FakeHost([image(OLD)], answers={"verify": table(image(NEW)), "kept": Answer(0, b"", "")})
    with pytest.raises(errors.VerifyFailed, match="removed again"):
        retag(host)


def test_a_name_that_cri_does_not_notice_is_a_failure() -> None:
    host = FakeHost([image(OLD, A, MANAGED)], cri=True, answers={"verify": table(image(NEW))})
    with pytest.raises(errors.VerifyFailed, match="CRI did not label"):
        retag(host)


def test_cris_label_is_not_waited_for_outside_its_namespace() -> None:
    host = FakeHost([], elsewhere={"default": [image(OLD)]}, cri=True, answers={"verify": table(image(NEW))})
    assert retag(host, namespace="default").status is Status.CHANGED
    assert "sleep" not in host.scripts[-1].steps["verify"]


def failing(text: str) -> Answer:
    return Answer(1, b"", f"ctr: {text}")


def test_a_name_that_somebody_gave_meanwhile_is_fine_where_it_is_the_same() -> None:
    answers = {"name-0": failing(f'image "{NEW}": already exists'), "verify": table(image(NEW))}
    host = FakeHost([image(OLD)], answers=dict(answers))
    result = retag(host)
    assert result.status is Status.UNCHANGED and "meanwhile" in result.images[0].note
    assert host.removed == []


def test_a_name_that_somebody_gave_meanwhile_to_another_image_exists() -> None:
    answers = {"name-0": failing(f'image "{NEW}": already exists'), "verify": table(image(NEW, B))}
    host = FakeHost([image(OLD)], answers=dict(answers))
    with pytest.raises(errors.ReferenceExists) as exists:
        retag(host)
    assert A in exists.value.detail and B in exists.value.detail
    assert host.removed == []


def failed_naming(text: str = "x") -> dict[str, Answer | Callable[[str], Answer]]:
    return {"name-0": failing(text), "verify": table(image(NEW)), "kept": Answer(0, b"", "")}


@pytest.mark.parametrize("version", ["1.2.6", "2.1.9"])
def test_a_failed_attempt_tells_ctrs_own_reason_and_asks_nothing_more(version: str) -> None:
    host = FakeHost([image(OLD)], version=version, answers=failed_naming(f"content digest {CONFIG}: not found"))
    with pytest.raises(errors.ContentMissing):
        retag(host, method="index")
    assert len(host.scripts) == 2


@pytest.mark.parametrize("method", ["auto", "tag", "index"])
@pytest.mark.parametrize("version", ["1.3.0", "1.6.20", "2.1.9"])
def test_a_name_that_exists_is_moved_in_one_go(version: str, method: str) -> None:
    host = FakeHost([image(OLD), image(NEW, B)], version=version, answers={"verify": table(image(NEW))})
    (done,) = retag(host, force=True, method=method).images
    assert (done.method, done.previous_digest) == (Method.INDEX, B)
    step = host.scripts[-1].steps["name-0"]
    assert " import " in step and " tag " not in step


def test_what_a_name_was_is_what_the_host_said_right_before_it_was_moved() -> None:
    answers = {"was": table(image(NEW, CHILD)), "verify": table(image(NEW))}
    host = FakeHost([image(OLD), image(NEW, B)], answers=dict(answers))
    result = retag(host, force=True)
    assert result.images[0].previous_digest == CHILD
    assert f"  replaces {CHILD}" in result.lines()
    dry = FakeHost([image(OLD), image(NEW, B)], dry_run=True)
    assert retag(dry, force=True).images[0].previous_digest == B
    new = FakeHost([image(OLD)], answers={"verify": table(image(NEW))})
    assert retag(new, force=True).images[0].previous_digest == ""


@pytest.mark.parametrize(
    ("now", "note"),
    [
        ((MANAGED, "io.cri-containerd.pinned=pinned", "a=b"), ""),
        ((MANAGED, "a=b"), "labels that are gone: io.cri-containerd.pinned=pinned"),
        ((), "labels that are gone: a=b, io.cri-containerd.pinned=pinned"),
    ],
)
def test_labels_that_a_moved_name_lost_are_told(now: Sequence[str], note: str) -> None:
    was = image(NEW, B, MANAGED, "io.cri-containerd.pinned=pinned", "a=b")
    host = FakeHost([image(OLD), was], answers={"verify": table(image(NEW, A, *now))})
    assert retag(host, force=True).images[0].note == note


def test_an_existing_name_is_left_alone() -> None:
    same = FakeHost([image(OLD), image(NEW)])
    assert retag(same).status is Status.UNCHANGED
    different = FakeHost([image(OLD), image(NEW, B)])
    with pytest.raises(errors.ReferenceExists) as exists:
        retag(different)
    assert "--force" in exists.value.hint
    assert same.scripts == different.scripts == []


def test_a_wanted_platform_counts_although_the_name_is_there_for_the_whole_index() -> None:
    index = image(OLD, A, media_type=OCI_INDEX)
    host = FakeHost([index, image(NEW, A, media_type=OCI_INDEX)], blobs={A: INDEX, CHILD: MANIFEST, OTHER: MANIFEST})
    with pytest.raises(errors.ReferenceExists):
        retag(host, platform="linux/arm64")


@pytest.mark.parametrize(("version", "digest"), [("1.2.6", CHILD), ("1.1.8", A)])
def test_a_partial_index_is_named_as_far_as_a_ctr_can(version: str, digest: str) -> None:
    host = FakeHost(
        [image(OLD, A, media_type=OCI_INDEX)],
        version=version,
        blobs={A: INDEX, CHILD: MANIFEST},
        answers={"verify": table(image(NEW, digest))},
    )
    (done,) = retag(host, method="index").images
    assert (done.digest, done.src_digest) == (digest, A)
    assert bool(done.note) is (digest == CHILD)


CROSSING = {"namespace": "default", "to_namespace": "k8s.io"}
WHOLE_INDEX = {A: INDEX, CHILD: MANIFEST, OTHER: MANIFEST}


@pytest.mark.parametrize("version", ["1.3.0", "1.6.20", "2.1.9"])
@pytest.mark.parametrize("method", ["index", "archive"])
def test_before_a_partial_index_is_imported_again_what_is_there_of_other_platforms_is_kept(
    version: str, method: str
) -> None:
    other = json.dumps({"config": {"digest": CONFIG, "size": 2}, "layers": [{"digest": B, "size": 3}]}).encode()
    blobs = {A: INDEX, CHILD: MANIFEST, OTHER: other, CONFIG: b"{}"}
    index = image(OLD, A, media_type=OCI_INDEX)
    host = FakeHost([index], version=version, blobs=blobs, answers={"verify": table(image(NEW, A))})
    assert retag(host, method=method).status is Status.CHANGED
    step = host.scripts[-1].steps["name-0"]
    assert f"content label {A} containerd.io/gc.ref.content.rest.0={OTHER}" in step
    assert f"content label {OTHER} containerd.io/gc.ref.content.rest.0={CONFIG}" in step
    assert step.index("content label") < step.index("import")
    assert "--all-platforms" not in step


@pytest.mark.parametrize("version", ["1.2.6", "1.6.20", "2.1.9"])
@pytest.mark.parametrize(
    "options", [{"method": "index"}, {"method": "archive"}, {"method": "archive", **CROSSING}, CROSSING]
)
def test_a_whole_index_is_named_with_all_its_platforms(version: str, options: dict[str, str]) -> None:
    index = image(OLD, A, media_type=OCI_INDEX)
    host = FakeHost(
        [] if "namespace" in options else [index],
        version=version,
        blobs=WHOLE_INDEX,
        elsewhere={"default": [index]},
        answers={"verify": table(image(NEW, A, media_type=OCI_INDEX))},
    )
    (done,) = retag(host, **options).images
    step = host.scripts[-1].steps["name-0"]
    lines = [part for part in step.split("| ") if " import " in part]
    assert lines and all(("--all-platforms" in line) is (version != "1.2.6") for line in lines)
    assert " export " not in step or ("--all-platforms=true" in step) is (version != "1.2.6")
    assert done.digest == A


def test_a_tag_needs_no_whole_index() -> None:
    host = FakeHost(
        [image(OLD, A, media_type=OCI_INDEX)], blobs={A: INDEX, CHILD: MANIFEST}, answers={"verify": table(image(NEW))}
    )
    assert retag(host, method="tag").status is Status.CHANGED
    assert len(host.scripts) == 1, "nor does it read any content"


def test_of_a_linked_partial_index_the_rest_is_kept() -> None:
    index = image(OLD, A, media_type=OCI_INDEX)
    two = json.dumps({"config": {"digest": B, "size": 2}, "layers": [{"digest": CONFIG, "size": 3}]}).encode()
    host = FakeHost(
        [], blobs=WHOLE_INDEX | {OTHER: two}, elsewhere={"default": [index]}, answers={"verify": table(image(NEW))}
    )
    assert retag(host, **CROSSING).status is Status.CHANGED
    step = host.scripts[-1].steps["name-0"]
    assert f"content label {A} containerd.io/gc.ref.content.rest.0={OTHER}" in step
    assert f"content label {OTHER} containerd.io/gc.ref.content.rest.0={CONFIG}" in step
    assert "--all-platforms" not in step
    assert f"--expected-digest {B}" not in host.scripts[-1].steps["link-0"]


def test_of_a_linked_whole_index_nothing_needs_to_be_kept() -> None:
    index = image(OLD, A, media_type=OCI_INDEX)
    host = FakeHost([], blobs=WHOLE_INDEX, elsewhere={"default": [index]}, answers={"verify": table(image(NEW))})
    retag(host, **CROSSING)
    assert ".rest." not in host.scripts[-1].steps["name-0"]


def test_content_tells_what_a_platform_needs_and_what_is_there_besides() -> None:
    content = Content(frozenset({A, CHILD, OTHER}), {A: INDEX, CHILD: MANIFEST, OTHER: MANIFEST})
    index, amd64 = Descriptor(OCI_INDEX, A, len(INDEX)), Platform.parse("linux/amd64")
    assert [blob.digest for blob in content.needed(index, amd64)] == [A, CHILD, CONFIG]
    arm64 = content.needed(index, Platform.parse("linux/arm64"))
    assert [blob.digest for blob in arm64] == [A, OTHER, CONFIG]
    s390x = content.needed(index, Platform.parse("linux/s390x"))
    assert [blob.digest for blob in s390x] == [A, CHILD, OTHER, CONFIG]
    manifest = Descriptor(OCI_MANIFEST, CHILD, 5)
    assert [blob.digest for blob in content.needed(manifest, Platform.parse("linux/s390x"))] == [CHILD, CONFIG]
    assert content.rest(index, amd64) == {A: (OTHER,), OTHER: ()}
    content.visible |= {CONFIG}
    assert content.rest(index, amd64) == {A: (OTHER,), OTHER: (CONFIG,)}
    content.visible -= {OTHER}
    assert content.rest(index, amd64) == {A: ()}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("method", ["auto", "archive"])
@pytest.mark.parametrize("absent", [CONFIG, CHILD])
def test_what_is_not_all_there_is_not_named_in_another_namespace(dry_run: bool, method: str, absent: str) -> None:
    index = image(OLD, A, media_type=OCI_INDEX)
    host = FakeHost([], blobs=WHOLE_INDEX, absent=[absent], elsewhere={"default": [index]}, dry_run=dry_run)
    with pytest.raises(errors.ContentMissing) as missing:
        retag(host, method=method, **CROSSING)
    assert absent in missing.value.detail
    assert host.changes == []


def test_what_another_platform_lacks_does_not_matter_from_namespace_to_namespace() -> None:
    index = image(OLD, A, media_type=OCI_INDEX)
    host = FakeHost(
        [], blobs=WHOLE_INDEX, absent=[OTHER], elsewhere={"default": [index]}, answers={"verify": table(image(NEW))}
    )
    assert retag(host, **CROSSING).status is Status.CHANGED


@pytest.mark.parametrize("there", [[A, CONFIG], [A], [CONFIG], []])
def test_a_name_in_another_namespace_is_right_only_with_its_content(there: list[str]) -> None:
    host = FakeHost(
        [image(NEW)], there=there, elsewhere={"default": [image(OLD)]}, answers={"verify": table(image(NEW))}
    )
    result = retag(host, **CROSSING)
    if len(there) == 2:
        assert result.status is Status.UNCHANGED and "already" in result.images[0].note
        assert host.changes == []
    else:
        assert result.status is Status.CHANGED
        assert "staged_0=1" in host.scripts[-1].steps["name-0"]


@pytest.mark.parametrize("options", [CROSSING, {"method": "archive"}, {"method": "archive", **CROSSING}])
def test_moving_a_name_goes_through_one_of_our_own(options: dict[str, str]) -> None:
    host = FakeHost(
        [image(OLD), image(NEW, B)], elsewhere={"default": [image(OLD)]}, answers={"verify": table(image(NEW))}
    )
    with pytest.raises(errors.ReferenceExists):
        retag(host, **options)
    assert host.changes == []
    assert retag(host, force=True, **options).status is Status.CHANGED
    stage = f"ctr-ferry.invalid/ctr-ferry.{host.run_id.lower()}:0"
    assert " tag " not in host.scripts[-1].steps["name-0"]
    assert host.scripts[-1].steps["name-0"].count(" import ") >= 2
    assert stage in host.scripts[-1].cleanup


def test_the_sources_own_name_is_taken_out_of_a_namespace_that_did_not_have_it() -> None:
    for images, removed in (([], True), ([image(OLD)], False)):
        host = FakeHost(images, elsewhere={"default": [image(OLD)]}, answers={"verify": table(image(NEW))})
        retag(host, method="archive", **CROSSING)
        assert (f"images rm {OLD}" in host.scripts[-1].cleanup) is removed
    host = FakeHost([], elsewhere={"default": [image(OLD)]}, answers={"verify": table(image(OLD))})
    retag(host, dst=OLD, method="archive", **CROSSING)
    assert f"images rm {OLD}" not in host.scripts[-1].cleanup, "it is the wanted name"


@pytest.mark.parametrize("method", ["auto", "archive"])
def test_another_image_of_the_sources_name_is_not_replaced_by_a_stream(method: str) -> None:
    host = FakeHost([image(OLD, B)], elsewhere={"default": [image(OLD)]}, answers={"verify": table(image(NEW))})
    retag(host, method=method, **CROSSING)
    step = host.scripts[-1].steps["name-0"]
    assert f"{OLD} is another image in k8s.io" in step and " export " not in step
    assert f"images rm {OLD}" not in host.scripts[-1].cleanup


def test_the_platforms_manifest_of_an_index_is_the_same_on_1_2() -> None:
    images = [image(OLD, A, media_type=OCI_INDEX), image(NEW, CHILD)]
    host = FakeHost(images, version="1.2.6", blobs={A: INDEX, CHILD: MANIFEST})
    result = retag(host)
    assert result.status is Status.UNCHANGED and "platform manifest" in result.images[0].note
    assert host.changes == []


def test_a_platform_that_is_not_there_is_named_with_those_that_are() -> None:
    host = FakeHost([image(OLD, A, media_type=OCI_INDEX)], version="1.2.6", blobs={A: INDEX, CHILD: MANIFEST})
    with pytest.raises(errors.PlatformMissing) as missing:
        retag(host, platform="linux/arm64")
    assert "linux/amd64" in missing.value.detail and host.changes == []


def test_an_image_without_its_manifest_is_not_named_again_by_index() -> None:
    host = FakeHost([image(OLD)], version="1.2.6", blobs={})
    with pytest.raises(errors.ContentMissing):
        retag(host)
    assert host.changes == []


def test_two_images_that_would_become_one_name_are_both_refused_and_the_rest_is_done() -> None:
    images = [image("a.example/x:1"), image("b.example/x:1", B), image("a.example/y:1"), image(CONFIG, A)]
    host = FakeHost(images, answers={"verify": table(image("new.example/y:1"))})
    with pytest.raises(errors.SomeFailed, match="2 of 3") as some:
        retag(host, to_registry="new.example", match="*")
    by_source = {i.src: i for i in some.value.result.images}
    for name, rival in (("a.example/x:1", "b.example/x:1"), ("b.example/x:1", "a.example/x:1")):
        collided = by_source[name]
        assert collided.status is Status.FAILED
        assert collided.error and collided.error["kind"] == "reference-exists"
        assert rival in collided.error["message"]
    assert by_source["a.example/y:1"].status is Status.CHANGED
    assert some.value.result.status is Status.CHANGED
    assert not any("new.example/x" in text for text in host.changes)


def test_the_same_image_under_two_names_becomes_one_once() -> None:
    images = [image("a.example/x:1"), image("b.example/x:1")]
    host = FakeHost(images, answers={"verify": table(image("new.example/x:1"))})
    first, second = retag(host, to_registry="new.example", match="*").images
    assert (first.status, second.status) == (Status.CHANGED, Status.UNCHANGED)
    assert "a.example/x:1" in second.note and not second.method
    assert [name for name in host.steps if name.startswith("name-")] == ["name-0"]


def test_a_destination_that_is_the_source_of_another_line_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "map"  # only the host knows that the digest is r.example/b:1
    file.write_text(f"r.example/a:1 r.example/b:1\n{B} r.example/c:1\n")
    images = [image("r.example/a:1"), image("r.example/b:1", B)]
    host = FakeHost(images, answers={"verify": table(image("r.example/c:1", B))})
    with pytest.raises(errors.SomeFailed, match="1 of 2") as some:
        retag(host, map=str(file), force=True)
    refused, done = some.value.result.images
    assert refused.error and refused.error["kind"] == "reference-exists"
    assert "source of another line" in refused.error["message"]
    assert done.status is Status.CHANGED
    assert not any(" r.example/b:1" in text and "--force" in text for text in host.changes)


def test_moving_to_a_registry_leaves_out_what_is_there_and_what_is_pinned() -> None:
    images = [image("new.example/x:1"), image(f"a.example/p@{A}"), image("a.example/z:1")]
    host = FakeHost(images, answers={"verify": table(image("new.example/z:1"))})
    assert [i.dst for i in retag(host, to_registry="new.example", match="*").images] == ["new.example/z:1"]


def test_of_many_images_the_good_ones_are_done_and_each_bad_one_says_why(tmp_path: Path) -> None:
    file = tmp_path / "map"
    file.write_text("a.example/a:1 r.example/a:1\na.example/nosuch:1 r.example/n:1\na.example/b:1 r.example/b:1\n")
    answers = {"name-1": failing("something odd"), "verify": table(image("r.example/a:1"))}
    host = FakeHost([image("a.example/a:1"), image("a.example/b:1", B)], answers=dict(answers))
    with pytest.raises(errors.SomeFailed, match="2 of 3") as some:
        retag(host, map=str(file))
    result = some.value.result
    assert [(i.src.split("/")[1], i.status) for i in result.images] == [
        ("a:1", Status.CHANGED), ("b:1", Status.FAILED), ("nosuch:1", Status.FAILED),
    ]  # fmt: skip
    assert [i.error["kind"] for i in result.images if i.error] == ["command-failed", "image-not-found"]
    assert len(host.scripts) == 1
    assert any("image-not-found" in line for line in result.lines())


def test_a_missing_image_is_told_with_the_namespace_that_has_it() -> None:
    host = FakeHost([image("x.example/app:1")], elsewhere={"default": [image(OLD)]})
    with pytest.raises(errors.ImageNotFound) as missing:
        retag(host)
    assert "--namespace default" in missing.value.hint and host.changes == []
    with pytest.raises(errors.ImageNotFound) as missing:
        retag(host, src="old.example/zzz/app:1")
    assert "x.example/app:1" in missing.value.hint


DRY = [
    ({}, {}),
    ({}, {"version": "1.2.6"}),
    ({"method": "archive"}, {}),
    ({"namespace": "default", "to_namespace": "k8s.io"}, {"elsewhere": {"default": [image(OLD)]}}),
    ({"force": True, "dst": "busy.example/app:1"}, {}),
    ({"to_registry": "new.example", "match": "old*"}, {}),
]


@pytest.mark.parametrize(("options", "more"), DRY)
def test_a_dry_run_asks_nothing_that_changes_anything(options: dict[str, object], more: dict[str, object]) -> None:
    host = FakeHost([image(OLD), image("busy.example/app:1", B)], dry_run=True, **more)  # type: ignore[arg-type]
    result = retag(host, **options)
    assert host.changes == []
    assert result.status is Status.CHANGED
    assert "would move" in result.images[0].note
    wet = FakeHost([image(OLD), image("busy.example/app:1", B)], **more)  # type: ignore[arg-type]
    with pytest.raises(errors.FerryError):
        retag(wet, **options)
    assert wet.changes, "the same without --dry-run does change something"


def test_from_namespace_to_namespace_blobs_are_linked_and_held_by_a_root_that_goes_again() -> None:
    host = FakeHost([], elsewhere={"default": [image(OLD)]}, answers={"verify": table(image(NEW))})
    (done,) = retag(host, namespace="default", to_namespace="k8s.io").images
    assert done.method == Method.LINK
    act = host.scripts[-1]
    assert f"--expected-digest {A}" in act.steps["link-0"]
    assert f"containerd.io/gc.root=ctr-ferry.{host.run_id}" in act.steps["link-0"]
    assert "content rm sha256:" in act.cleanup and f"content label {A}" not in act.cleanup


def test_where_linking_fails_the_stream_is_reported() -> None:
    answers = {"link-0": failing("unable to resume"), "verify": table(image(NEW))}
    host = FakeHost([], elsewhere={"default": [image(OLD)]}, answers=dict(answers))
    (done,) = retag(host, namespace="default", to_namespace="k8s.io").images
    assert done.method == "stream" and "unable to resume" in done.note


def test_a_digest_source_gives_its_name_no_tag_of_its_own() -> None:
    host = FakeHost([image(CONFIG, A)], answers={"verify": table(image("new.example/app:latest"))})
    assert [i.dst for i in retag(host, src=A, dst="new.example/app").images] == ["new.example/app:latest"]


def test_a_destination_without_a_tag_takes_the_sources() -> None:
    host = FakeHost([image(OLD)], answers={"verify": table(image(NEW))})
    assert retag(host, dst="new.example/app").images[0].dst == NEW


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs one of"),
        ({"src": "a"}, "--dst is missing"),
        ({"dst": "a"}, "--src is missing"),
        ({"src": "a", "dst": "b", "map": "m"}, "needs one of"),
        ({"src": "a", "dst": "b", "match": "m"}, "needs one of"),
        ({"to_registry": "r.example"}, "go together"),
        ({"match": "*"}, "go together"),
        ({"to_registry": "r", "match": "*"}, "no registry host"),
        ({"src": "a:1", "dst": "docker.io/library/a:1"}, "same name"),
        ({"src": "a:1", "dst": f"b@{A}"}, "has a digest"),
        ({"src": "$(touch /tmp/x)", "dst": "b"}, "no image reference"),
        ({"src": "a", "dst": "b'c"}, "no image reference"),
        ({"src": "a", "dst": "b", "method": "magic"}, "'magic' is none of"),
        ({"src": "a", "dst": "b", "method": "link"}, "'link' is none of"),
        ({"src": "a", "dst": "b", "method": "tag", "to_namespace": "x"}, "within one namespace"),
        ({"src": "a", "dst": "b", "platform": "amd64"}, "--platform"),
        ({"src": "a", "dst": "b", "namespace": "a b"}, "--namespace 'a b'"),
        ({"src": "a", "dst": "b", "to_namespace": "../x"}, "--to-namespace"),
    ],
)
def test_a_wrong_command_line_is_refused_before_any_host_is_touched(options: dict[str, str], words: str) -> None:
    with pytest.raises(errors.UsageError) as refused:
        parse(**options)  # type: ignore[arg-type]
    assert words in refused.value.message
    assert refused.value.exit_code == 2


def test_the_same_name_is_a_destination_in_another_namespace() -> None:
    assert parse(src="a:1", dst="a:1", namespace="default", to_namespace="k8s.io").pairs[0].same
