"""The files of an image archive, hashed as they are read, and the JSON in them."""

from __future__ import annotations

import hashlib
import heapq
import json
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

from ctr_ferry.errors import BadArchive
from ctr_ferry.oci import tar

MOST_JSON = 4 << 20  # bytes of one document; registries take no larger manifest (distribution-spec)
MOST_DOCUMENTS = 64 << 20  # bytes of all indexes, manifests and configs that images have
MOST_KEPT = 32 << 20  # bytes of what may be documents, kept so that they are not read once more
CUT = "the archive was cut off or put together wrongly: save it again"
_MOST_LINKS = 16
_BLOBS = "blobs/sha256/"


@dataclass(frozen=True, slots=True)
class File:
    """One file: its digest, its place in the decompressed tar, whether it may be JSON, and how it is compressed."""

    digest: str
    offset: int
    size: int
    may_be_json: bool = False
    packed: str = ""


class Files:
    """The files of a tar by name, links resolved; every byte is read and hashed once.

    Raises:
        BadArchive: a blob has another digest than its name says, or a name has two contents.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._files: dict[str, File] = {}
        self._links: dict[str, str] = {}
        self._kept: dict[str, bytes] = {}
        self._largest: list[tuple[int, str]] = []  # a heap of what is kept
        self._bytes_kept = 0
        stream = tar.Stream(file)
        for member in tar.members(stream):
            self._add(member, stream)

    def _add(self, member: tar.Member, stream: tar.Stream) -> None:
        if member.link:
            self._links[member.name] = member.link
            return
        file = self._read(member, stream)
        if member.name.startswith(_BLOBS) and f"sha256:{member.name.removeprefix(_BLOBS)}" != file.digest:
            raise BadArchive(
                "a blob is not what its name says",
                detail=f"its name is {member.name}\nits digest is {file.digest}",
                hint="the archive was damaged or changed: copy or save it again",
            )
        if self._files.setdefault(member.name, file).digest != file.digest:
            raise BadArchive(f"it has {member.name!r} twice, with different content")

    def _read(self, member: tar.Member, stream: tar.Stream) -> File:
        sha, head, kept = hashlib.sha256(), b"", []
        may_be_json = False
        for chunk in stream.chunks(member.size):
            sha.update(chunk)
            if not head:
                head = chunk[:64]
                may_be_json = member.size <= MOST_JSON and head.lstrip()[:1] in (b"{", b"[")
            if may_be_json:
                kept.append(chunk)
        digest = f"sha256:{sha.hexdigest()}"
        if may_be_json:
            self._keep(digest, b"".join(kept))
        return File(digest, member.offset, member.size, may_be_json, tar.compression(head))

    def _keep(self, digest: str, data: bytes) -> None:
        """Keeps what may be a document; the largest go first, as they are hardly manifests: SBOMs have megabytes."""
        if digest not in self._kept:
            self._kept[digest] = data
            self._bytes_kept += len(data)
            heapq.heappush(self._largest, (-len(data), digest))
        while self._bytes_kept > MOST_KEPT:
            _, largest = heapq.heappop(self._largest)
            self._bytes_kept -= len(self._kept.pop(largest))

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def _find(self, name: str) -> File | None:
        for _ in range(_MOST_LINKS):
            if name not in self._links:
                return self._files.get(name)
            name = self._links[name]
        raise BadArchive(f"the links of {name!r} have no end")

    def named(self, name: str) -> File:
        """Returns the file that manifest.json names; raises BadArchive if there is none."""
        if found := self._find(posixpath.normpath(name)):
            return found
        raise BadArchive(f"manifest.json names {name[:200]!r}, which is not in the archive", hint=CUT)

    def json_named(self, name: str) -> File:
        """Returns a file that manifest.json names; raises BadArchive if there is no such file, or if it is no JSON."""
        file = self.named(name)
        if not file.may_be_json:
            raise BadArchive(f"{name[:200]} is no JSON, or larger than {MOST_JSON >> 20} MiB")
        return file

    def document(self, name: str) -> bytes:
        """Returns the bytes of a JSON document; raises as `json_named`."""
        file = self.json_named(name)
        return self.documents([file])[file.digest]

    def documents(self, files: Iterable[File], had: int = 0) -> dict[str, bytes]:
        """Returns by digest the bytes of those files that may be JSON; reads once more what was not kept, in one go.

        Args:
            had: bytes of the documents that the caller has already.

        Raises:
            BadArchive: they would have more than `MOST_DOCUMENTS` bytes in all. A small archive may decompress to them.
        """
        wanted = {file.digest: file for file in files if file.may_be_json}
        if had + sum(file.size for file in wanted.values()) > MOST_DOCUMENTS:
            raise BadArchive(f"its manifests and configs have more than {MOST_DOCUMENTS >> 20} MiB")
        found = {digest: self._kept[digest] for digest in wanted if digest in self._kept}
        again = [file for digest, file in wanted.items() if digest not in found]
        stream = tar.Stream(self._file)
        for file in sorted(again, key=lambda file: file.offset):
            stream.skip_to(file.offset)
            found[file.digest] = b"".join(stream.chunks(file.size))
            if f"sha256:{hashlib.sha256(found[file.digest]).hexdigest()}" != file.digest:
                raise BadArchive("it changed while it was read", hint="run the command again")
        return found

    @property
    def blobs(self) -> dict[str, File]:
        """The files below blobs/sha256/, by digest."""
        return {file.digest: file for name, file in self._files.items() if name.startswith(_BLOBS)}


class Part:
    """One file of the archive, read from its start; the stream must not be behind it."""

    def __init__(self, stream: tar.Stream, part: File) -> None:
        self._stream = stream
        self._stream.skip_to(part.offset)
        self._end = part.offset + part.size

    def read(self, size: int = -1, /) -> bytes:
        """Returns the next bytes, at most ``size``; all that are left if it is negative."""
        left = self._end - self._stream.at
        return self._stream.take(left if size < 0 else min(size, left))


def json_value(raw: bytes, what: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadArchive(f"{what} is broken JSON", detail=str(error)) from error


def json_object(raw: bytes, what: str) -> dict[str, Any]:
    data = json_value(raw, what)
    if not isinstance(data, dict):
        raise BadArchive(f"{what} is no JSON object")
    return data


def json_list(data: Any, what: str) -> list[Any]:
    if not isinstance(data, list):
        raise BadArchive(f"{what}: not a list")
    return data
