"""`load` reads its archive before it touches a host, and says what is wrong with it."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
from archives import NAME, Image, digest, index_of, layout, path, tarred

from ctr_ferry.errors import BadArchive, BadReference, SourceLost, UsageError
from ctr_ferry.oci.descriptor import Descriptor, Platform
from ctr_ferry.transfer.sources import ArchiveSource
from tasks.load import Request, parse

IMAGE = Image()
ARM = Image(layers=(tarred({"etc/arm": b"arm"}),), platform={"os": "linux", "architecture": "arm64"})
FULL = "r.example/app:1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An archive of two images: one with two names, one for arm64."""
    entries = [IMAGE.entry(**{NAME: FULL}), IMAGE.entry(**{NAME: "docker.io/library/app:2"})]
    made = tmp_path / "app.tar"
    made.write_bytes(tarred(layout(IMAGE.blobs | ARM.blobs, *entries, ARM.entry(**{NAME: "r.example/arm:1"}))))
    return made


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


def names(request: Request) -> list[str]:
    return [str(image_copy.dst) for image_copy in request.copy_request.image_copies]


def refused(file: Path, **options: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(archive=str(file), **options)  # type: ignore[arg-type]
    return caught.value


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
    assert names(parse(archive=str(file), ref=["*app*"], as_="r.example/new")) == ["r.example/new:latest"]
    pinned = f"r.example/new@{digest(IMAGE.manifest)}"
    assert names(parse(archive=str(file), ref=[FULL], as_=pinned)) == [pinned]
    (image_copy,) = parse(archive=str(file), ref=[FULL], as_="new:1").copy_request.image_copies
    assert (image_copy.image.name, image_copy.image.platforms) == (FULL, "linux/amd64")
    assert "one image, and there are 2" in refused(file, as_="new:1").message


def test_an_archive_without_a_name_needs_one(nameless: Path) -> None:
    error = refused(nameless)
    assert (error.kind, error.exit_code) == ("bad-archive", 2)
    assert "--as" in error.hint


@pytest.mark.parametrize("name", ["A b", "", f"r.example/app@{digest(b'x')}"])
def test_a_name_that_cannot_be_given_is_refused(nameless: Path, name: str) -> None:
    assert refused(nameless, as_=name).exit_code == 2


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.tar") in refused(tmp_path / "none.tar").message
    assert "folder with neither an index.json" in refused(tmp_path).message
    with pytest.raises(UsageError, match="needs --archive"):
        parse()


def test_a_broken_archive_is_named_with_what_is_wrong(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3000])
    error = refused(file)
    assert isinstance(error, BadArchive)
    assert error.message == f"{file}: it is cut off"
    assert error.hint


class TestTheSumBeside:
    def sum_of(self, file: Path) -> str:
        return hashlib.sha256(file.read_bytes()).hexdigest()

    @pytest.mark.parametrize("line", ["{sum}  app.tar\n", "{sum} *app.tar\n", "{other}  b.tar\n{sum}  ./x/app.tar\n"])
    def test_is_read_as_sha256sum_writes_it(self, file: Path, line: str) -> None:
        beside = file.with_name("app.tar.sha256")
        beside.write_text(line.format(sum=self.sum_of(file), other="0" * 64))
        assert names(parse(archive=str(file)))

    def test_is_checked_before_anything_else(self, file: Path) -> None:
        beside = file.with_name("app.tar.sha256")
        beside.write_text(f"{self.sum_of(file)}  app.tar\n")
        file.write_bytes(b"something else")
        error = refused(file)
        assert "does not match app.tar.sha256" in error.message
        assert self.sum_of(file) in error.detail

    @pytest.mark.parametrize("text", ["", "0" * 64 + "  other.tar\n", "garbage\n", "\xff\xfe"])
    def test_that_does_not_tell_of_the_archive_is_refused(self, file: Path, text: str) -> None:
        file.with_name("app.tar.sha256").write_text(text, encoding="latin-1")
        assert "does not name this archive" in refused(file).message


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


class TestTheArchiveAsASource:
    def test_gives_what_is_wanted_to_one_at_a_time(self, file: Path) -> None:
        request = parse(archive=str(file))
        source = ArchiveSource(file, request.images.archive)
        wanted = [blob for blob in described(request) if blob.digest != digest(IMAGE.config)]
        given = {blob.digest: b"".join(chunks) for blob, chunks in source.read(iter(wanted))}
        assert given == {blob.digest: ALL[blob.digest] for blob in wanted}
        assert (source.readers, source.holder(wanted[0])) == (1, str(file))

    def test_reports_that_the_file_is_not_what_it_was(self, file: Path) -> None:
        request = parse(archive=str(file))
        source = ArchiveSource(file, request.images.archive)
        file.write_bytes(file.read_bytes()[:6000])
        with pytest.raises(BadArchive, match="cut off"):
            read_all(source, described(request))
        file.unlink()
        with pytest.raises(SourceLost) as caught:
            read_all(source, described(request))
        assert str(file) in caught.value.message


ALL = {digest(blob): blob for image in (IMAGE, ARM) for blob in image.blobs.values()}


def described(request: Request) -> list[Descriptor]:
    """Every blob of the archive."""
    return [Descriptor("", digest, request.images.archive.size(digest)) for digest in request.images.archive.digests]


def read_all(source: ArchiveSource, wanted: list[Descriptor]) -> None:
    for _, chunks in source.read(wanted):
        for _ in chunks:
            pass


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
