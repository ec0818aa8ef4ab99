"""Tar files are read as others write them, with nothing taken on trust, and written as others read them."""

from __future__ import annotations

import io
import tarfile

import pytest
from archives import (
    opened,
    tarred,
)

from ctr_ferry.errors import BadArchive
from ctr_ferry.oci import tar


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
