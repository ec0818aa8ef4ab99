"""What a new name points at, and what of an image must be there, within a namespace and from one to another."""

from __future__ import annotations

import json
import re

import pytest
from letters import unhashed  # noqa: F401
from retagging import (
    CHILD,
    CONFIG,
    CROSSING,
    INDEX,
    MANIFEST,
    NEW,
    OLD,
    OTHER,
    WHOLE_INDEX,
    A,
    B,
    FakeHost,
    image,
    retag,
    table,
)

from ctr_ferry import errors
from ctr_ferry.images.content import Content
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, Platform
from ctr_ferry.report.outcome import Status


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
    assert re.search(rf"content label {A} containerd.io/gc.ref.content.rest.[0-9a-f]{{8}}.0={OTHER}", step)
    assert re.search(rf"content label {OTHER} containerd.io/gc.ref.content.rest.[0-9a-f]{{8}}.0={CONFIG}", step)
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
    assert re.search(rf"content label {A} containerd.io/gc.ref.content.rest.[0-9a-f]{{8}}.0={OTHER}", step)
    assert re.search(rf"content label {OTHER} containerd.io/gc.ref.content.rest.[0-9a-f]{{8}}.0={CONFIG}", step)
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
        assert result.status is Status.UNCHANGED and "already" in result.images[0].notes[0]
        assert host.changes == []
    else:
        assert result.status is Status.CHANGED
        assert "staged_0=1" in host.scripts[-1].steps["name-0"]


@pytest.mark.parametrize("options", [CROSSING, {"method": "archive"}, {"method": "archive", **CROSSING}])
def test_moving_a_name_goes_through_a_temporary_name(options: dict[str, str]) -> None:
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


def test_the_sources_own_name_is_removed_from_a_namespace_that_did_not_have_it() -> None:
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
    assert result.status is Status.UNCHANGED and "platform manifest" in result.images[0].notes[0]
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
