"""An archive of `load` is a file or a folder that agrees with the sum beside it, and gives blobs as they are in it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from archives import NAME, digest, path
from loading import file_fixture, names, refused  # noqa: F401
from reading_archives import ARM, FULL, IMAGE

from ctr_ferry.errors import BadArchive, SourceLost, UsageError
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.transfer import archive_file
from ctr_ferry.transfer.fan_out import Source
from ctr_ferry.transfer.sources import ArchiveSource
from tasks.load import Request, parse


class TestAFolder:
    @pytest.fixture(params=["an OCI layout", "what docker save wrote"])
    def folder(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        files = IMAGE.layout(**{NAME: FULL}) if "OCI" in request.param else IMAGE.saved(FULL)
        return written(tmp_path / "folder", {**files, "d/" + "x" * 300: b"no file of an image"})

    def test_is_read_as_the_archive_that_has_its_files(self, folder: Path) -> None:
        request = parse(archive=f"{folder}/")
        assert names(request) == [FULL]
        blobs = described_blobs(request)
        given = {blob.digest: b"".join(chunks) for blob, chunks in request.images.source.read(blobs)}
        assert {digest(data) for data in given.values()} == given.keys() == {blob.digest for blob in blobs}

    def test_is_as_good_as_its_blobs(self, tmp_path: Path) -> None:
        files = {**IMAGE.layout(**{NAME: FULL}), path(IMAGE.layers[1]): b"other"}
        assert "not what its name says" in refused(written(tmp_path / "a", files)).message
        del files[path(IMAGE.layers[1])]
        assert "not whole" in refused(written(tmp_path / "b", files)).message

    def test_may_have_links_that_stay_in_it(self, tmp_path: Path) -> None:
        folder = written(tmp_path / "folder", IMAGE.saved(FULL))
        (folder / "layer1" / "layer.tar").rename(folder / "moved")
        (folder / "layer1" / "layer.tar").symlink_to("../moved")
        assert names(parse(archive=str(folder))) == [FULL]
        (folder / "moved").rename(tmp_path / "moved")
        (folder / "layer1" / "layer.tar").unlink()
        (folder / "layer1" / "layer.tar").symlink_to("../../moved")
        assert "leads out" in refused(folder).message

    def test_that_changes_meanwhile_is_told(self, tmp_path: Path) -> None:
        folder = written(tmp_path / "folder", IMAGE.layout(**{NAME: FULL}))
        request = parse(archive=str(folder))
        (folder / path(IMAGE.layers[1])).write_bytes(b"short")
        with pytest.raises(BadArchive, match="cut off"):
            read_all(request.images.source, described_blobs(request))
        with archive_file.opened(folder) as opened, pytest.raises(BadArchive, match="shorter"):
            (folder / "index.json").write_bytes(b"")
            opened.read()

    def test_is_read_from_any_offset_as_a_tar_is(self, tmp_path: Path) -> None:
        folder = written(tmp_path / "folder", IMAGE.layout(**{NAME: FULL}))
        with archive_file.opened(folder) as opened:
            data = opened.read()
            with tarfile.open(fileobj=io.BytesIO(data)) as made:
                assert {name: (folder / name).read_bytes() for name in made.getnames()} == IMAGE.layout(**{NAME: FULL})
            for offset in (0, 511, 512, 700, len(data) - 1, len(data)):
                opened.seek(offset)
                assert opened.read(1000) == data[offset : offset + 1000]
            assert opened.seek(-5, io.SEEK_END) == len(data) - 5


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name[:240]).parent.mkdir(parents=True, exist_ok=True)
        (folder / name[:240]).write_bytes(data)
    return folder


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


def test_the_program_that_decompresses_it_gets_its_name(tmp_path: Path) -> None:
    file = tmp_path / "an archive.tar.xz"
    file.write_bytes(b"\xfd7zXZ\0" + bytes(600))
    assert refused(file).hint == f"decompress it first: xz -dk '{file}'"


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


class TestTheArchiveAsASource:
    def test_gives_what_is_wanted_to_one_at_a_time(self, file: Path) -> None:
        request = parse(archive=str(file))
        source = ArchiveSource(file, request.images.archive)
        wanted = [blob for blob in described_blobs(request) if blob.digest != digest(IMAGE.config)]
        given = {blob.digest: b"".join(chunks) for blob, chunks in source.read(iter(wanted))}
        assert given == {blob.digest: ALL[blob.digest] for blob in wanted}
        assert (source.readers, source.holder(wanted[0])) == (1, str(file))

    def test_reports_that_the_file_is_not_what_it_was(self, file: Path) -> None:
        request = parse(archive=str(file))
        source = ArchiveSource(file, request.images.archive)
        file.write_bytes(file.read_bytes()[:6000])
        with pytest.raises(BadArchive, match="cut off"):
            read_all(source, described_blobs(request))
        file.unlink()
        with pytest.raises(SourceLost) as caught:
            read_all(source, described_blobs(request))
        assert str(file) in caught.value.message


ALL = {digest(blob): blob for image in (IMAGE, ARM) for blob in image.blobs.values()}


def described_blobs(request: Request) -> list[Descriptor]:
    """Every blob of the archive."""
    return [Descriptor("", digest, request.images.archive.size(digest)) for digest in request.images.archive.digests]


def read_all(source: Source, wanted: list[Descriptor]) -> None:
    for _, chunks in source.read(wanted):
        for _ in chunks:
            pass
