"""Tar files are read as others write them, with nothing taken on trust, and written as others read them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import tracemalloc

import pytest
from archives import (
    opened,
    tarred,
)

from ctr_ferry.errors import ITSELF, BadArchive
from ctr_ferry.oci import tar

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class TestTars:
    def names(self, data: bytes) -> list[str]:
        stream = tar.Stream(opened(data))
        return [file.name for file in tar.members(stream)]

    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_are_read_as_every_tool_writes_them(self, form: int) -> None:
        buffer = io.BytesIO()
        long = "d/" * 60 + "ä" * 30 if form != tarfile.USTAR_FORMAT else "d/" * 60 + "end"
        with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
            for name in ("a", long, "b"):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = 700, 1.5 if form == tarfile.PAX_FORMAT else 1
                made.addfile(info, io.BytesIO(bytes(700)))
            made.addfile(tarfile.TarInfo("e"))
        assert self.names(buffer.getvalue()) == ["a", long, "b", "e"]

    def test_are_read_past_folders_and_devices(self) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as made:
            for name, kind in (("d", tarfile.DIRTYPE), ("p", tarfile.FIFOTYPE), ("c", tarfile.CHRTYPE)):
                info = tarfile.TarInfo(name)
                info.type = kind
                made.addfile(info)
            made.addfile(tarfile.TarInfo("f"))
        assert self.names(buffer.getvalue()) == ["f"]

    @pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
    def test_with_a_name_of_a_gigabyte_are_refused_unread(self, kind: bytes) -> None:
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 1 << 30
        with pytest.raises(BadArchive, match="claims 1073741824 bytes"):
            self.names(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 4096)

    @pytest.mark.parametrize("size", [b"-5", b"1e3", b"9" * 30, "٣".encode(), str(1 << 51).encode()])
    def test_with_a_size_in_their_records_that_is_none_are_refused(self, size: bytes) -> None:
        record = b" size=" + size + b"\n"
        length = next(n for n in range(200) if len(str(n)) + len(record) == n)
        body = str(length).encode() + record
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, len(body)
        with pytest.raises(BadArchive, match="claims a size"):
            self.names(info.tobuf() + body.ljust(512, b"\0") + tar.header("x", 0) + tar.END)

    @pytest.mark.parametrize("records", [b"x", b"99 a=b\n", b"1 a=b\n", b"-3 a=b\n", b"\xff a=b\n"])
    def test_with_broken_records_are_refused(self, records: bytes) -> None:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, len(records)
        with pytest.raises(BadArchive, match="broken records"):
            self.names(info.tobuf() + records.ljust(512, b"\0") + tar.header("x", 0) + tar.END)

    def test_with_a_length_of_thousands_of_digits_in_their_records_are_refused(self) -> None:
        records = b"9" * 5000 + b" path=x\n"
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, len(records)
        with pytest.raises(BadArchive, match="broken records"):
            self.names(info.tobuf() + records.ljust(5120, b"\0") + tar.header("x", 0) + tar.END)

    @pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
    @pytest.mark.parametrize("of", [tarfile.REGTYPE, tarfile.DIRTYPE])
    def test_with_long_names_for_whatever_are_refused_before_memory_is(self, kind: bytes, of: bytes) -> None:
        name, member = tarfile.TarInfo("x"), tarfile.TarInfo("y")
        name.type, name.size, member.type = kind, 1 << 16, of
        one = name.tobuf() + "\U0001f600".encode() * (1 << 14) + member.tobuf()
        data = gzip.compress(one * 300, 1)
        tracemalloc.start()
        with pytest.raises(BadArchive, match="longer names"):
            self.names(data)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 48 << 20

    @pytest.mark.parametrize(
        ("head", "name"),
        [
            (lzma.compress(b"x" * 600), "xz"),
            (bz2.compress(b"x"), "bzip2"),
            (b"\x04\x22\x4d\x18", "lz4"),
            (b"PK\3\4", "zip"),
        ],
    )
    def test_compressed_by_another_program_are_refused_by_its_name(self, head: bytes, name: str) -> None:
        with pytest.raises(BadArchive, match=f"compressed with {name}") as caught:
            self.names(head.ljust(600, b"x"))
        assert caught.value.hint.endswith(f" {ITSELF}")

    def test_of_several_frames_of_zstd_are_read(self) -> None:
        data = tarred({"a": b"a" * 3000, "b": b"b"})
        pzstd = bytes.fromhex("502a4d18 04000000 f5003000")  # a frame to be skipped, before each frame of data
        frames = (pzstd + zstd.compress(data[at : at + 1000]) for at in range(0, len(data), 1000))
        assert self.names(b"".join(frames)) == ["a", "b"]

    def test_that_go_on_behind_their_end_are_refused(self) -> None:
        with pytest.raises(BadArchive, match="behind its end"):
            self.names(tarred({"a": b""}) + bytes(20 << 20))

    def test_with_too_many_members_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tar, "_MOST_MEMBERS", 5)
        assert self.names(tarred({str(n): b"" for n in range(4)})) == ["0", "1", "2", "3"]
        with pytest.raises(BadArchive, match="more than 5 members"):
            self.names(tarred({str(n): b"" for n in range(9)}))

    def test_of_any_size_have_a_header_that_others_read(self) -> None:
        for size in (0, 511, (8 << 30) - 1, 8 << 30, 1 << 40):
            info = tarfile.TarInfo.frombuf(tar.header("blobs/sha256/" + "a" * 64, size), "utf-8", "strict")
            assert (info.size, info.mode, info.uid, info.mtime) == (size, 0o644, 0, 0)
        assert [len(tar.padding(n)) for n in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]
