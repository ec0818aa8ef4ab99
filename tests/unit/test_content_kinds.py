"""What a host has is known for what it is: an index of indexes, a manifest without a platform, an artifact."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from archives import as_json, described
from two_platforms import ALL, AMD, AMD64, ARM, ARM64, BLOBS, INDEX, NAME, digest, listed

from ctr_ferry.ctr.failures import failure
from ctr_ferry.ctr.listing import Image
from ctr_ferry.ctr.probe import Facts
from ctr_ferry.ctr.version import Capabilities, Version
from ctr_ferry.errors import ContentCorrupt, ContentMissing, MethodUnsupported, PlatformMissing
from ctr_ferry.images.check_result import CheckResult, fault
from ctr_ferry.images.content import Content
from ctr_ferry.images.item import refuse_artifact
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, SCHEMA_1, Descriptor, Platform
from ctr_ferry.registry import push_content
from ctr_ferry.shell import Answer
from ctr_ferry.transfer import archive_writer
from tasks.check import Seen

CONFIG = "application/vnd.oci.image.config.v1+json"
OUTER = as_json({"manifests": [listed(OCI_INDEX, INDEX)]})
CHART = as_json({"config": described(b"{}", "application/vnd.cncf.helm.config.v1+json"), "layers": []})
ODD = b"odd"


def facts(version: str) -> Facts:
    able = Capabilities.of_version(cast(Version, Version.parse(version)))
    return cast(Facts, SimpleNamespace(ctr=SimpleNamespace(capabilities=able), client=version, platform=AMD))


def image(raw: bytes, media_type: str = OCI_INDEX, platforms: str = "linux/amd64,linux/arm64") -> Image:
    return Image(NAME, media_type, digest(raw), "1 KiB", platforms, frozenset())


def content(*documents: bytes, more: Any = ALL, absent: tuple[bytes, ...] = ()) -> Content:
    """A host that has all but some, and the documents that were read of it."""
    there = {digest(raw) for raw in documents} | set(more)
    return Content(frozenset(there - {digest(raw) for raw in absent}), {digest(raw): raw for raw in documents})


@pytest.mark.parametrize(("version", "whole"), [("1.2.6", False), ("1.4.13", True), ("2.1.9", True)])
def test_an_index_with_a_type_that_nobody_knows_is_named_in_part_by_ctr_1_2(version: str, whole: bool) -> None:
    """Its import says: unexpected media type … not found (seen on 1.2.6)."""
    raw = as_json(
        {"manifests": [*json.loads(INDEX)["manifests"], listed("application/vnd.oci.artifact.manifest", ODD)]}
    )
    found = content(raw, AMD64, ARM64, more={*ALL, digest(ODD)})
    able = facts(version).ctr.capabilities.partial_index
    choice = found.choose(image(raw), None, AMD, partial_index=able)
    assert choice.target.digest == digest(raw if whole else AMD64)
    assert ("types that nobody knows" in choice.note) == (not whole)


class TestAnIndexOfIndexes:
    TARGET = Descriptor(OCI_INDEX, digest(OUTER), len(OUTER))
    WHOLE = (OUTER, INDEX, AMD64, ARM64)

    def test_needs_the_way_to_a_platform_and_the_platform(self) -> None:
        needed = content(*self.WHOLE).needed(self.TARGET, ARM)
        assert [blob.digest for blob in needed] == [digest(raw) for raw in (OUTER, INDEX, ARM64, *BLOBS[2:])]

    @pytest.mark.parametrize("version", ["1.2.6", "1.6.20", "2.1.9"])
    def test_gets_a_name_and_so_does_each_of_its_platforms(self, version: str) -> None:
        able = facts(version).ctr.capabilities.partial_index
        found = content(*self.WHOLE)
        assert found.choose(image(OUTER), None, AMD, partial_index=able).target == self.TARGET
        assert found.choose(image(OUTER), ARM, AMD, partial_index=able).target.digest == digest(ARM64)
        with pytest.raises(PlatformMissing, match="s390x") as raised:
            found.choose(image(OUTER), Platform("linux", "s390x"), AMD, partial_index=able)
        assert raised.value.detail == "there: linux/amd64, linux/arm64"

    def test_with_a_platform_absent_is_named_by_the_hosts_own_where_ctr_needs_it_whole(self) -> None:
        found = content(OUTER, INDEX, AMD64, absent=(ARM64, *BLOBS[2:]))
        assert found.choose(image(OUTER), None, AMD, partial_index=False).target.digest == digest(AMD64)

    def test_is_saved_whole_or_refused_where_all_of_it_is_asked_for(self) -> None:
        made = archive_writer.plan([image(OUTER)], content(*self.WHOLE), AMD, every=True)
        assert {blob.digest for blob in made.blobs} == {*ALL, digest(OUTER)}
        assert made.images[0].platforms == ("linux/amd64", "linux/arm64")
        (docker,) = json.loads(made.documents["manifest.json"])
        assert docker["Config"].endswith(digest(BLOBS[0])[7:])
        with pytest.raises(ContentMissing) as raised:
            archive_writer.plan([image(OUTER)], content(*self.WHOLE, absent=(BLOBS[3],)), AMD, every=True)
        assert raised.value.detail == digest(BLOBS[3])

    def test_has_each_of_its_manifests_as_a_part_that_an_old_ctr_may_name(self) -> None:
        seen = Seen()
        seen.read(content(*self.WHOLE))
        assert seen.indexes[digest(OUTER)] == tuple(map(digest, (INDEX, AMD64, ARM64)))

    def test_is_kept_at_every_level_where_a_platform_is_absent(self) -> None:
        rest = content(OUTER, INDEX, AMD64, ARM64, absent=(BLOBS[0],)).rest(self.TARGET, AMD)
        assert rest == {
            digest(OUTER): (digest(INDEX),),
            digest(INDEX): (digest(ARM64),),
            digest(ARM64): tuple(map(digest, BLOBS[2:])),
        }

    def test_is_pushed_whole_and_a_platform_of_it_under_a_temporary_name(self) -> None:
        found = content(*self.WHOLE)
        whole = push_content.choose(facts("1.6.20"), image(OUTER), found, None, all_platforms=True)
        assert (whole.target.digest, whole.platform, whole.notices) == (digest(OUTER), None, ())
        one = push_content.choose(facts("1.6.20"), image(OUTER), found, ARM, all_platforms=False)
        assert (one.target.digest, one.listed) == (digest(ARM64), False), "ctr push --platform looks at one level"
        flat = push_content.choose(facts("1.6.20"), image(INDEX), found, ARM, all_platforms=False)
        assert (flat.target.digest, flat.listed) == (digest(ARM64), True)


class TestAManifestWithoutAPlatform:
    CONFIGS = tuple(as_json({"os": "linux", "architecture": name}) for name in ("amd64", "arm64"))
    MANIFESTS = tuple(as_json({"config": described(config, CONFIG), "layers": []}) for config in CONFIGS)
    BARE = as_json({"manifests": [listed(OCI_MANIFEST, raw) for raw in MANIFESTS]})

    def found(self, *answers: bytes) -> Content:
        found = content(self.BARE, *self.MANIFESTS, more=map(digest, self.CONFIGS))
        assert found.untold() == [digest(config) for config in self.CONFIGS]
        for config, answer in zip(self.CONFIGS, answers, strict=False):
            found.take_config(digest(config), Answer(0, answer, ""))
        return found

    def test_has_that_of_its_config(self) -> None:
        found = self.found(*self.CONFIGS)
        assert found.untold() == [] and not found.tells_platforms
        for platform, raw in zip((AMD, ARM), self.MANIFESTS, strict=True):
            assert found.choose(image(self.BARE), platform, AMD, partial_index=True).target.digest == digest(raw)
            pushed = push_content.choose(facts("1.6.20"), image(self.BARE), found, platform, all_platforms=False)
            assert (pushed.target.digest, pushed.listed) == (digest(raw), False)

    def test_has_none_where_its_config_is_another_or_absent(self) -> None:
        found = self.found(self.CONFIGS[0] + b" ")
        with pytest.raises(PlatformMissing, match="amd64"):
            found.choose(image(self.BARE), AMD, AMD, partial_index=True)


class TestAnArtifact:
    TARGET = Descriptor(OCI_MANIFEST, digest(CHART), len(CHART))

    def test_is_known_by_its_config_alone_or_in_an_index(self) -> None:
        index = as_json({"manifests": [listed(OCI_MANIFEST, CHART), listed("application/x-odd", ODD)]})
        found = content(CHART, index, AMD64)
        assert found.is_artifact(self.TARGET)
        assert found.is_artifact(Descriptor(OCI_INDEX, digest(index), 0))
        assert not found.is_artifact(Descriptor(OCI_MANIFEST, digest(ARM64), 0)), "nobody knows what was not read"

    def test_is_saved_and_is_nothing_for_docker(self) -> None:
        found = content(CHART, more=[digest(b"{}")])
        made = archive_writer.plan([image(CHART, OCI_MANIFEST, "-")], found, AMD)
        assert {blob.digest for blob in made.blobs} == {digest(CHART), digest(b"{}")}
        assert json.loads(made.documents["manifest.json"]) == []

    @pytest.mark.parametrize(
        ("version", "able"), [("1.0.3", True), ("1.2.6", False), ("1.4.13", True), ("2.1.9", True)]
    )
    def test_is_refused_where_ctr_unpacks_all_that_it_names(self, version: str, able: bool) -> None:
        if able:
            refuse_artifact(NAME, facts(version))
        else:
            with pytest.raises(MethodUnsupported, match="an artifact, not an image"):
                refuse_artifact(NAME, facts(version))

    def test_is_whole_without_being_unpacked(self) -> None:
        words = {
            "reference": NAME,
            "namespace": "k8s.io",
            "digest": digest(CHART),
            "platforms": "-",
            "platform": "linux/x",
        }
        state = CheckResult(**words, check="complete (2/2)", complete=True, unpacked=False, artifact=True)
        assert fault(state, digest(CHART), "") is None
        assert "an artifact, not an image" in state.lines()[0] and state.cell == "artifact"


def test_an_unknown_manifest_beside_a_good_one_is_saved_like_a_layer() -> None:
    raw = as_json(
        {"manifests": [listed("application/vnd.oci.artifact.manifest.v1+json", ODD), *json.loads(INDEX)["manifests"]]}
    )
    made = archive_writer.plan([image(raw)], content(raw, AMD64, ARM64, more=[*ALL, digest(ODD)]), AMD, every=True)
    assert digest(ODD) in {blob.digest for blob in made.blobs}
    assert len(json.loads(made.documents["manifest.json"])) == 1


@pytest.mark.parametrize("kind", [*sorted(SCHEMA_1), "application/x-unknown"])
def test_what_is_no_image_to_containerd_is_told_as_what_it_is(kind: str) -> None:
    with pytest.raises(MethodUnsupported, match=r"schema 1|x-unknown"):
        content(AMD64).choose(image(AMD64, kind), None, AMD, partial_index=True)


def test_documents_that_contradict_one_another_are_no_image() -> None:
    wrong = as_json({"manifests": [listed(OCI_INDEX, AMD64)]})
    with pytest.raises(ContentCorrupt, match="no image") as raised:
        content(wrong, AMD64).needed(Descriptor(OCI_INDEX, digest(wrong), 0), AMD)
    assert digest(AMD64) in raised.value.detail


def test_a_failed_command_is_not_told_as_a_name_that_was_given() -> None:
    error = failure(Answer(1, b"", f"ctr: content digest {digest(ODD)}: not found\n"), "r.example/new:1")
    assert isinstance(error, ContentMissing) and "named" not in error.message and digest(ODD) in error.detail
