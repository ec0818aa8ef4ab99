"""`load` finds out which images of an archive get which names before it touches a host, and refuses what is wrong."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from archives import NAME, REF, Image, described, digest, index_of, layout, listing, path, tarred
from loading import file_fixture, names, refused  # noqa: F401
from reading_archives import ARM, FULL, IMAGE

from ctr_ferry.errors import BadReference
from ctr_ferry.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, Platform
from tasks.load import parse

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.fixture
def nameless(tmp_path: Path) -> Path:
    made = tmp_path / "nameless.tar.gz"
    made.write_bytes(gzip.compress(tarred(IMAGE.layout())))
    return made


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """An index whose arm64 was not saved."""
    raw, entry = index_of(IMAGE, ARM)
    made = tmp_path / "both.tar"
    made.write_bytes(tarred(layout({**IMAGE.blobs, path(raw): raw}, entry)))
    return made


def test_all_images_of_an_archive_are_loaded_under_their_names(file: Path) -> None:
    assert names(parse(archive=str(file))) == [FULL, "docker.io/library/app:2", "r.example/arm:1"]


@pytest.mark.parametrize(
    ("refs", "chosen"),
    [
        ([FULL], [FULL]),
        (["app:2"], ["docker.io/library/app:2"]),
        (["r.example/*"], [FULL, "r.example/arm:1"]),
        (["app:2", "*arm*"], ["docker.io/library/app:2", "r.example/arm:1"]),
        ([digest(IMAGE.manifest)], [FULL, "docker.io/library/app:2"]),
        ([f"x/y:1@{digest(IMAGE.manifest)}"], [f"docker.io/x/y@{digest(IMAGE.manifest)}"]),
    ],
)
def test_some_can_be_chosen(file: Path, refs: list[str], chosen: list[str]) -> None:
    assert names(parse(archive=str(file), ref=refs)) == chosen


def test_what_is_not_there_is_refused_with_what_is(file: Path) -> None:
    error = refused(file, ref=["r.example/app:3"])
    assert error.message == f"{file}: it has no image r.example/app:3"
    assert "docker.io/library/app:2" in error.detail


def test_one_image_can_get_another_name(file: Path, nameless: Path) -> None:
    assert names(parse(archive=str(nameless), as_="new:1")) == ["docker.io/library/new:1"]
    pinned = f"r.example/new@{digest(IMAGE.manifest)}"
    assert names(parse(archive=str(file), ref=[FULL], as_=pinned)) == [pinned]
    (image_copy,) = parse(archive=str(file), ref=[FULL], as_="new:1").copy_request.image_copies
    assert (image_copy.image.name, image_copy.image.platforms) == (FULL, "linux/amd64")
    assert "one image, and there are 2" in refused(file, as_="new:1").message


@pytest.mark.parametrize(
    ("refs", "tag", "note"),
    [
        ([FULL], "1", ""),
        (["r.example/arm:1"], "1", ""),
        (["*app*"], "latest", "has several: 1, 2"),
        (None, "latest", "neither has its image"),
    ],
)
def test_a_new_name_without_a_tag_takes_the_images_own_else_latest_with_a_note(
    file: Path, nameless: Path, refs: list[str] | None, tag: str, note: str
) -> None:
    request = parse(archive=str(file if refs else nameless), ref=refs, as_="r.example/new")
    assert names(request) == [f"r.example/new:{tag}"]
    assert len(request.notes) == bool(note) and all(note in each and "new:latest" in each for each in request.notes)


class TestWhatIsOdd:
    """It does not refuse the rest: of what nobody chose, it is passed by with a note."""

    ODD: ClassVar = {
        "nameless": ARM.entry(),
        "tagged": ARM.entry(**{REF: "v2"}),
        "misnamed": ARM.entry(**{NAME: "R.example/App:1"}),
        "of another digest": ARM.entry(**{NAME: f"r.example/arm@{digest(b'x')}"}),
        "an sbom": {**described(b"{}", "application/x.sbom"), "annotations": {NAME: "r.example/sbom:1"}},
        "not there": {**described(b"x", OCI_INDEX), "annotations": {NAME: "r.example/arm:1"}},
    }

    def archive(self, folder: Path, odd: str, *more: dict[str, Any]) -> str:
        file = folder / "odd.tar"
        blobs = {**IMAGE.blobs, **ARM.blobs, path(b"{}"): b"{}"}
        file.write_bytes(tarred(layout(blobs, self.ODD[odd], *more)))
        return str(file)

    @pytest.mark.parametrize("odd", [each for each in ODD if each != "not there"])
    def test_is_passed_by_with_a_note_unless_it_is_chosen(self, tmp_path: Path, odd: str) -> None:
        file, wanted = self.archive(tmp_path, odd, IMAGE.entry(**{NAME: FULL})), self.ODD[odd]["digest"]
        for ref in (None, ["*"], [FULL], [digest(IMAGE.manifest)]):
            request = parse(archive=file, ref=ref)
            assert names(request) == [FULL]
            assert [wanted in note for note in request.notes] == ([True] if ref in (None, ["*"]) else [])
        assert refused(Path(file), ref=[wanted]).kind == "bad-archive"

    @pytest.mark.parametrize("odd", ODD)
    def test_is_refused_alone(self, tmp_path: Path, odd: str) -> None:
        assert refused(Path(self.archive(tmp_path, odd))).exit_code == 2

    def test_is_refused_where_a_blob_of_it_is_absent_and_all_are_wanted(self, tmp_path: Path) -> None:
        file = self.archive(tmp_path, "not there", IMAGE.entry(**{NAME: FULL}))
        assert "not whole" in refused(Path(file)).message
        assert names(parse(archive=file, ref=[FULL])) == [FULL]

    @pytest.mark.parametrize("odd", ["nameless", "tagged", "misnamed", "of another digest"])
    def test_can_be_chosen_by_its_digest_and_named(self, tmp_path: Path, odd: str) -> None:
        file = self.archive(tmp_path, odd, IMAGE.entry(**{NAME: FULL}))
        assert names(parse(archive=file, ref=[digest(ARM.manifest)], as_="x/arm:1")) == ["docker.io/x/arm:1"]

    def test_is_noted_ten_times_at_most(self, tmp_path: Path) -> None:
        extra = [{**ARM.entry(), "platform": {"os": "linux", "architecture": f"a{n}"}} for n in range(20)]
        notes = parse(archive=self.archive(tmp_path, "nameless", IMAGE.entry(**{NAME: FULL}), *extra)).notes
        assert len(notes) == 11
        assert "11 more" in notes[-1]


class TestTags:
    """Images that an archive calls by a tag alone, as skopeo and buildah do."""

    @pytest.fixture
    def tagged(self, tmp_path: Path) -> str:
        entries = (IMAGE.entry(**{REF: "v1"}), ARM.entry(**{REF: "v2"}), IMAGE.entry(**{NAME: FULL}))
        file = tmp_path / "tagged.tar"
        file.write_bytes(tarred(layout(IMAGE.blobs | ARM.blobs, *entries)))
        return str(file)

    def test_choose_an_image(self, tagged: str) -> None:
        (found,) = parse(archive=tagged, ref=["v2"], as_="x/y:1").copy_request.image_copies
        assert (found.image.digest, str(found.dst)) == (digest(ARM.manifest), "docker.io/x/y:1")
        assert names(parse(archive=tagged, ref=["v2"], as_="x/y")) == ["docker.io/x/y:v2"]
        assert "--base-name" in refused(Path(tagged), ref=["v2"]).hint

    def test_are_in_the_repository_that_is_given(self, tagged: str) -> None:
        repository = "r.example/based"
        assert names(parse(archive=tagged, base_name=repository)) == [f"{repository}:v1", f"{repository}:v2", FULL]
        for ref in ("v2", f"{repository}:v2", "*v2"):
            assert names(parse(archive=tagged, base_name=repository, ref=[ref])) == [f"{repository}:v2"]

    @pytest.mark.parametrize("base", ["r.example/x:1", f"r.example/x@{digest(b'')}", "A b", ""])
    def test_take_a_repository_alone(self, tagged: str, base: str) -> None:
        assert refused(Path(tagged), base_name=base).exit_code == 2

    def test_are_named_in_one_way(self, tagged: str) -> None:
        assert "exclude each other" in refused(Path(tagged), base_name="r.example/x", as_="y:1").message


def test_layers_with_zstd_are_known_though_their_type_does_not_tell_it(tmp_path: Path) -> None:
    image = Image(packed=True, pack=zstd.compress)
    file = tmp_path / "docker.tar"
    file.write_bytes(tarred(image.saved(FULL)))
    assert parse(archive=str(file)).copy_request.content.zstd == {digest(layer) for layer in image.stored}


def test_two_entries_of_one_digest_are_one_image(tmp_path: Path) -> None:
    file = tmp_path / "twice.tar"
    second = {**IMAGE.entry(**{NAME: FULL}), "platform": {"os": "linux", "architecture": "amd64"}}
    file.write_bytes(tarred(layout(IMAGE.blobs, IMAGE.entry(**{NAME: FULL}), second)))
    assert names(parse(archive=str(file))) == [FULL]
    assert names(parse(archive=str(file), as_="x:1")) == ["docker.io/library/x:1"]


def test_one_name_is_not_given_to_two_images(tmp_path: Path) -> None:
    file = tmp_path / "both.tar"
    entries = [image.entry(**{NAME: FULL}) for image in (IMAGE, ARM)]
    file.write_bytes(tarred(layout(IMAGE.blobs | ARM.blobs, *entries)))
    assert f"two images under the name {FULL}" in refused(file).message
    assert names(parse(archive=str(file), ref=[digest(ARM.manifest)])) == [FULL]


def test_platforms_without_a_word_in_the_index_are_those_of_their_configs(tmp_path: Path) -> None:
    raw, entry = listing(*(described(image.manifest, OCI_MANIFEST) for image in (IMAGE, ARM)))
    file = tmp_path / "untold.tar"
    file.write_bytes(tarred(layout({**IMAGE.blobs, **ARM.blobs, path(raw): raw}, entry)))
    request = parse(archive=str(file), platform="linux/arm64")
    assert [copy.image.platforms for copy in request.copy_request.image_copies] == ["linux/amd64,linux/arm64"]
    content, target = request.copy_request.content, Descriptor(OCI_INDEX, digest(raw), len(raw))
    needed = {blob.digest for blob in content.needed(target, Platform("linux", "arm64"))}
    assert needed == {digest(raw), *map(digest, ARM.blobs.values())}


def test_an_archive_without_a_name_needs_one(nameless: Path) -> None:
    error = refused(nameless)
    assert (error.kind, error.exit_code) == ("bad-archive", 2)
    assert "--as" in error.hint


@pytest.mark.parametrize("name", ["A b", "", f"r.example/app@{digest(b'x')}"])
def test_a_name_that_cannot_be_given_is_refused(nameless: Path, name: str) -> None:
    assert refused(nameless, as_=name).exit_code == 2


class TestPlatforms:
    def test_are_asked_of_the_archive(self, file: Path, both: Path) -> None:
        assert parse(
            archive=str(file), ref=["*arm*"], platform="linux/arm64"
        ).copy_request.options.platform == Platform("linux", "arm64")
        assert "not for linux/arm64" in refused(file, ref=[FULL], platform="linux/arm64").message
        assert parse(archive=str(both), platform="linux/amd64").copy_request.image_copies
        assert "not for plan9/mips" in refused(both, platform="plan9/mips").message

    def test_that_were_not_saved_are_refused_where_they_are_asked_for(self, both: Path) -> None:
        for options in ({"platform": "linux/arm64"}, {"all_platforms": True}):
            error = refused(both, **options)
            assert "not in the archive" in error.message
            assert digest(ARM.manifest) in error.detail

    def test_are_either_one_or_all(self, both: Path) -> None:
        assert "exclude each other" in refused(both, platform="linux/amd64", all_platforms=True).message


def test_a_reference_that_is_none_is_refused(file: Path) -> None:
    with pytest.raises(BadReference):
        parse(archive=str(file), ref=["A B"])


def test_a_layer_that_is_json_is_no_document(tmp_path: Path) -> None:
    image = Image(layers=(b'{"weights": []}', *IMAGE.layers))
    index, entry = index_of(image)
    file = tmp_path / "artifact.tar"
    file.write_bytes(tarred(layout({**image.blobs, path(index): index}, entry)))
    content = parse(archive=str(file), as_=FULL).copy_request.content
    assert set(content.blobs) == {digest(index), digest(image.manifest)}
    assert {digest(image.config), digest(image.layers[0])} < content.visible
