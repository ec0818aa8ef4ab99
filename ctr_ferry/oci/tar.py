"""Tar streams, plain or compressed: read front to back in bounded memory, written piece by piece. Pure.

An archive may come from anywhere. `tarfile` would read a name as long as its header claims, take an archive that was
cut off between two members for a whole one, and keep every member in memory.
"""

from __future__ import annotations

import gzip
import posixpath
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from ctr_ferry.errors import ITSELF, BadArchive

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

END = bytes(2 * tarfile.BLOCKSIZE)
READ = ("gzip", "zstd")  # the compressions that are read, as containerd reads them

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_MOST_HEADER = 1 << 16  # bytes of a long name or of pax records
_MOST_DIGITS = 8  # of a record's length, and the space behind it
_MOST_SIZE = 1 << 50  # bytes of one file
_MOST_MEMBERS = 100_000
_MOST_NAMES = 16 << 20  # bytes of all names, links and records; the name of a blob has 77
_WITHOUT_DATA = {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE}
_RECORDS = {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE}
_MORE = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK} | _RECORDS  # headers before a member's own
_KEYS = ("path", "linkpath", "size", "GNU.sparse.major")  # the pax records that are read
_MOST_BEHIND = 16 << 20  # bytes behind the end; tar fills up to a record, by default of 10 KiB
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"BZh": "bzip2",
    b"PK\3\4": "zip",
} | {bytes((low, 0x2A, 0x4D, 0x18)): "zstd" for low in range(0x50, 0x60)}  # pzstd begins with a frame to be skipped
_MAGIC_SIZE = max(map(len, _MAGIC))
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, zstd.ZstdError)


@dataclass(frozen=True, slots=True)
class Member:
    """A file or a link of a tar.

    Attributes:
        name: its path in the archive, without ``./``; it never leads out of the archive.
        offset, size: of its bytes in the decompressed tar.
        link: the path that a link refers to; empty for a file.
    """

    name: str
    offset: int
    size: int
    link: str = ""


def compression(head: bytes) -> str:
    """Returns the name of the compression that the first bytes of a file tell; an empty one for none that is known."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def unpacked(file: IO[bytes], kind: str) -> IO[bytes]:
    """Returns the plain bytes of a file that one of `READ` compressed; read it in a block `unpacking`."""
    return gzip.GzipFile(fileobj=file) if kind == "gzip" else zstd.ZstdFile(file)  # type: ignore[return-value]


@contextmanager
def unpacking(what: str) -> Iterator[None]:
    """A block that reads compressed data: what is wrong with the data is raised as BadArchive, which names it."""
    try:
        yield
    except _BROKEN as error:
        if "too much memory" in str(error):  # zstd's own limit, as its command has it
            raise BadArchive(
                f"{what} is compressed so that reading takes more than 128 MiB of memory",
                detail=str(error),
                hint="compress it with a window of 128 MiB at most, as zstd does without --ultra --long=28 or more",
            ) from error
        raise BadArchive(
            f"the compressed data of {what} is broken or cut off", detail=str(error), hint=_AGAIN
        ) from error


class Stream:
    """The bytes of a file from its start, decompressed if its first bytes are those of gzip or zstd.

    Attributes:
        at: how many bytes were read or skipped.
    """

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        kind = compression(file.read(_MAGIC_SIZE))
        file.seek(0)
        self._plain = None if kind in READ else file
        self._file = self._plain or unpacked(file, kind)
        self.at = 0

    def take(self, most: int) -> bytes:
        """Returns the next bytes, at most ``most``; none at the end. Raises BadArchive if compressed data is broken."""
        with unpacking("the archive"):
            data = self._file.read(most)
        self.at += len(data)
        return data

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yields the next ``size`` bytes in chunks; raises BadArchive if there are fewer."""
        while size:
            data = self.take(min(size, _CHUNK))
            if not data:
                raise BadArchive("it is cut off", detail=f"it ends after {self.at} bytes", hint=_AGAIN)
            size -= len(data)
            yield data

    def skip_to(self, offset: int) -> None:
        """Skips forward to an offset."""
        if self._plain:
            self.at = self._plain.seek(offset)
        for _ in self.chunks(offset - self.at):
            pass


def members(stream: Stream) -> Iterator[Member]:
    """Yields every file and link, in order. The caller may read a file's bytes from the stream; the rest is skipped.

    Raises:
        BadArchive: it is no tar, is cut off, or has names or links that lead out of it.
    """
    named: dict[str, str] = {}
    names = 0  # a small file may decompress to very many
    for _ in range(_MOST_MEMBERS):
        info = _header(stream)
        if info is None:
            _end(stream)
            return
        data = 0 if info.type in _WITHOUT_DATA else info.size
        start = stream.at
        names += len(info.name) + (_claimed(data) if info.type in _MORE else 0)
        if names > _MOST_NAMES:
            raise BadArchive("its members have longer names than those of any image")
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            key = "path" if info.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
            named.setdefault(key, b"".join(stream.chunks(data)).partition(b"\0")[0].decode("utf-8", "replace"))
        elif info.type in _RECORDS:
            records = _pax(b"".join(stream.chunks(data)))
            if info.type != tarfile.XGLTYPE:
                named |= records
        else:
            data = _size(named.get("size"), data)
            if member := _member(info, named, start, data):
                yield member
            named = {}
        stream.skip_to(start + _round_up(data))
    raise BadArchive(f"it has more than {_MOST_MEMBERS} members, which no image has")


def _header(stream: Stream) -> tarfile.TarInfo | None:
    """Reads the next header; None for the block of zeros that ends a tar."""
    first = stream.at == 0
    block = stream.take(_BLOCK) if first else b"".join(stream.chunks(_BLOCK))
    if first and not block:
        raise BadArchive("it is empty", hint=_AGAIN)
    if len(block) == _BLOCK and not any(block):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError as error:
        if first and (kind := compression(block)):
            raise BadArchive(
                f"it is compressed with {kind}, which is not read",
                hint=f"decompress it first: {_UNPACK[kind]} {ITSELF}",
            ) from error
        if first:
            raise BadArchive(
                "it is no tar, neither plain nor compressed with gzip or zstd", detail=str(error), hint=_WRITERS
            ) from error
        raise BadArchive(f"its tar is broken at byte {stream.at - _BLOCK}", detail=str(error), hint=_AGAIN) from error


def _claimed(size: int) -> int:
    if not 0 <= size <= _MOST_HEADER:
        raise BadArchive(f"a header of its tar claims {size} bytes, more than a name or its records can have")
    return size


def _pax(records: bytes) -> dict[str, str]:
    """Parses ``LENGTH key=value`` lines; the length is that of the whole line (POSIX pax, extended header)."""
    found = {}
    at = 0
    while at < len(records):
        length, _, _ = records[at : at + _MOST_DIGITS].partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(records) - at:
            raise BadArchive("a header of its tar has broken records")
        key, _, value = records[at + len(length) + 1 : at + int(length)].rstrip(b"\n").partition(b"=")
        if (name := key.decode("utf-8", "replace")) in _KEYS:
            found[name] = value.decode("utf-8", "replace")
        at += int(length)
    return found


def _size(record: str | None, size: int) -> int:
    """The size by its pax record, else by the header."""
    if record is not None and not (record.isascii() and record.isdigit() and len(record) < 20):
        raise BadArchive(f"a header of its tar claims a size of {record[:40]!r}")
    size = int(record) if record is not None else size
    if not 0 <= size <= _MOST_SIZE:
        raise BadArchive(f"a header of its tar claims a size of {size} bytes")
    return size


def _member(info: tarfile.TarInfo, named: dict[str, str], offset: int, size: int) -> Member | None:
    """Makes a member of a header; None for what is neither a file nor a link, which is ignored."""
    name = named.get("path", info.name)
    if info.issym() or info.islnk():
        target = named.get("linkpath", info.linkname)
        from_here = posixpath.join(posixpath.dirname(name), target) if info.issym() else target
        link = _inside(from_here, f"{name} -> {target}")
        return Member(name=_inside(name), offset=offset, size=0, link=link)
    if info.issparse() or "GNU.sparse.major" in named:
        raise BadArchive(f"{name[:200]!r} is a sparse file, which images do not have")
    return Member(_inside(name), offset, size) if info.isreg() else None


def _inside(path: str, shown: str = "") -> str:
    plain = posixpath.normpath(path)
    climbs = ".." in path.split("/") if not shown else plain.split("/")[0] == ".."
    if plain.startswith("/") or climbs:
        raise BadArchive(
            f"{(shown or path)[:200]!r} leads out of the archive",
            hint="no tool that saves images writes such a path: do not trust the source of this archive",
        )
    return plain


def _end(stream: Stream) -> None:
    """Reads past the end of the tar, so that the decompressor compares its checksum."""
    most = stream.at + _MOST_BEHIND
    while stream.take(_CHUNK):
        if stream.at > most:
            raise BadArchive(f"it goes on for more than {_MOST_BEHIND >> 20} MiB behind its end")


def header(name: str, size: int) -> bytes:
    """Builds a file's header: mode 0644, no owner and no time, so that equal files give equal bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    # ustar has no room for 8 GiB. Go, Python and every tar read GNU's form of large numbers.
    return info.tobuf(tarfile.USTAR_FORMAT if size < 8 << 30 else tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """Returns the zeros that fill a file of this size up to whole blocks."""
    return bytes(_round_up(size) - size)


def _round_up(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


_WRITERS = "name an archive that fab save, docker save or ctr images export wrote"
_UNPACK = {"xz": "xz -dk", "lz4": "lz4 -d", "bzip2": "bzip2 -dk", "zip": "unzip"}
_AGAIN = "copy or save it again"
