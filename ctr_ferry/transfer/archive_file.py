"""The file of an archive, or a folder that has the same files: opened, and read as one stream."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from ctr_ferry.errors import BadArchive
from ctr_ferry.oci import tar

_MOST_FILES = 100_000


def opened(file: Path) -> io.BufferedReader:
    """Opens an archive, or a folder as the tar that has the folder's files.

    Raises:
        OSError: it cannot be read.
        BadArchive: the folder is none of an image.
    """
    return io.BufferedReader(FolderTar(file)) if file.is_dir() else file.open("rb")


class FolderTar(io.RawIOBase):
    """A tar that is never written: it is made of the files of a folder as it is read."""

    def __init__(self, folder: Path) -> None:
        if not any((folder / name).is_file() for name in ("index.json", "manifest.json")):
            raise BadArchive(
                "it is a folder with neither an index.json nor a manifest.json",
                hint="name the folder of an OCI layout, or an archive that fab save or docker save wrote",
            )
        self._pieces: list[bytes | Path] = []
        self._starts = [0]
        for file, name in _files(folder):
            size = file.stat().st_size
            try:
                header = tar.header(name, size)
            except ValueError:  # no file of an image has such a name
                continue
            for piece, length in ((header, len(header)), (file, size), (padding := tar.padding(size), len(padding))):
                self._add(piece, length)
        self._add(tar.END, len(tar.END))
        self._at = 0
        self._open: tuple[Path, io.FileIO] | None = None

    def _add(self, piece: bytes | Path, length: int) -> None:
        if length:
            self._pieces.append(piece)
            self._starts.append(self._starts[-1] + length)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to an offset from the start, from here or from the end."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._starts[-1]}[whence]
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Reads no further than to the end of a header, of a file or of its padding."""
        if self._at >= self._starts[-1]:
            return 0
        number = bisect_right(self._starts, self._at) - 1
        begin, most = self._at - self._starts[number], min(len(buffer), self._starts[number + 1] - self._at)
        piece = self._pieces[number]
        data = piece[begin : begin + most] if isinstance(piece, bytes) else self._of_file(piece, begin, most)
        if not data:
            raise BadArchive(f"{piece!s} became shorter while it was read", hint="run the command again")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _of_file(self, file: Path, begin: int, most: int) -> bytes:
        if self._open is None or self._open[0] != file:
            self._close_file()
            self._open = file, io.FileIO(file)
        self._open[1].seek(begin)
        return self._open[1].read(most)

    def _close_file(self) -> None:
        if self._open:
            self._open[1].close()
        self._open = None

    def close(self) -> None:
        """Closes the file that was read last."""
        self._close_file()
        super().close()


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yields each file and its name in the folder, always in the same order; links must not lead out of it."""
    real, count = folder.resolve(), 0
    for where, folders, names in os.walk(folder):
        folders.sort()
        for file in (Path(where, name) for name in sorted(names)):
            name = file.relative_to(folder).as_posix()
            if file.is_symlink() and not file.resolve().is_relative_to(real):
                raise BadArchive(
                    f"{name!r} leads out of the folder",
                    hint="do not trust the source of this folder: no tool that saves images makes such a link",
                )
            if not file.is_file():
                continue
            count += 1
            if count > _MOST_FILES:
                raise BadArchive(f"it has more than {_MOST_FILES} files, which no image has")
            yield file, name
