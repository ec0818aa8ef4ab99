"""New files on the control machine, in folders where others may write as well."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from ctr_ferry.errors import CannotWrite

_UMASK = os.umask(0o077)  # only setting it tells the old value, so it is set before there are threads
os.umask(_UMASK)


@contextmanager
def trouble(file: Path) -> Iterator[None]:
    """Turns an OSError of the control machine's disk into CannotWrite."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"{file} cannot be written on the control machine",
            detail=error.strerror or str(error),
            hint="make room there, or choose another file",
        ) from error


@contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """Opens a new file beside ``file``. The new file takes the place of ``file`` once it is on the disk, or is removed.

    Nobody can guess the name of the new file, and it is created exclusively: no link or file that somebody put there
    is written to. Until the file is whole, nobody else can open it, nor lock it: whoever may read a file may lock it.

    Raises:
        CannotWrite: the disk refuses it, or another run is writing the same file.
    """
    with trouble(file):
        if file.exists() and not file.is_file():  # such as /dev/null, which root could replace
            raise CannotWrite(f"{file} is no regular file", hint="choose another file")
        part = file.with_name(f"{file.name}.{secrets.token_hex(8)}.part")
        opened = open(part, "xb", opener=partial(os.open, mode=0o600))  # noqa: SIM115
    with opened:
        try:
            with trouble(file):
                _refuse_others(file, part, opened)
            yield opened
            with trouble(file):
                opened.flush()
                os.fsync(opened.fileno())
                os.fchmod(opened.fileno(), 0o666 & ~_UMASK)
                opened.close()  # some file systems report only now that they are full
                part.rename(file)
                _sync_folder(file.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            with suppress(OSError):  # a full disk refuses the rest of the buffer once more
                opened.close()
            raise


def _refuse_others(file: Path, part: Path, opened: IO[bytes]) -> None:
    """Locks the new file. Of other new files of this kind, a locked one is being written; the rest were left behind."""
    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    form = re.compile(rf"{re.escape(file.name)}\.[0-9a-f]{{16}}\.part")
    others = [other for other in file.parent.iterdir() if form.fullmatch(other.name) and other != part]
    if not part.exists() or any(_is_at_work(other) for other in others):
        raise CannotWrite(f"another run is writing {file}", hint="wait until it has ended")


def _is_at_work(other: Path) -> bool:
    """Tells whether a run of this user is writing a file; removes it if that run was killed."""
    try:
        descriptor = os.open(other, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # it is a link, or belongs to another user, or was removed
        return False
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other.unlink(missing_ok=True)
    except BlockingIOError:
        return not status.st_mode & 0o077  # a file that others may open, others may have locked
    finally:
        os.close(descriptor)
    return False


def _sync_folder(folder: Path) -> None:
    """Writes the new name to the disk, too, if the file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
