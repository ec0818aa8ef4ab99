"""Archives as ctr 1.2.6 reads and writes them. They are changed while they stream to or from the real ctr.

Import: 1.2.6 walks every platform, so 1.4 gets --all-platforms. 1.2.6 does not know the annotation
io.containerd.image.name (A), so A is masked in index.json where it would change a name. Export: 1.2.6 writes all
platforms, no manifest.json, and only the tag in org.opencontainers.image.ref.name (R).
"""

from __future__ import annotations

import json
import os
import signal
import sys

from lab.standin.real import Beneath, Run, fail, in_old_words, refuse, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

A = "io.containerd.image.name"
A_MASKED = "io.containerd.image.____"
R = "org.opencontainers.image.ref.name"
BLOCK = 512
CHUNK = 1 << 18
INDEX_LIMIT = 32 << 20

IMPORT_RULES = [
    (
        r'(?m)^(ctr: failed to ingest "[^"]*"): failed commit on ref .* failed size validation: .*$',
        r"\1: failed to copy: unexpected EOF",
    ),
    (
        r"(failed to extract layer sha256:[0-9a-f]{64}: )(?=failed to get reader)",
        r"\1mount callback failed on /var/lib/containerd/tmpmounts/containerd-mount126126126: ",
    ),
]


class NotCovered(Exception):
    """The archive asks for something that the stand-in does not do."""


class Entry:
    """One header of a tar stream."""

    def __init__(self, header: bytes) -> None:
        self.header = header
        self.name = header[:100].rstrip(b"\0").removeprefix(b"./").decode("utf-8", "replace")
        size = header[124:136]
        self.size = int.from_bytes(size[1:], "big") if size[0] & 0x80 else int(size.strip(b"\0 ") or b"0", 8)
        self.is_file = header[156:157] in (b"0", b"\0")

    @staticmethod
    def of(header: bytes) -> Entry | None:
        """Return the entry; None if the header is not valid. The real ctr then reports the fault."""
        try:
            stated = int(header[148:156].strip(b"\0 "), 8)
            blanked = header[:148] + b" " * 8 + header[156:]
            return Entry(header) if len(header) == BLOCK and sum(blanked) == stated else None
        except ValueError:
            return None

    def resized(self, size: int) -> bytes:
        """Return the header for content of another size."""
        header = self.header[:124] + b"%011o\0" % size + self.header[136:148] + b" " * 8 + self.header[156:]
        return header[:148] + b"%06o\0 " % sum(header) + header[156:]


class Pipe:
    """Bytes from one descriptor to another, counted in tar blocks."""

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target = target

    def read(self, count: int) -> bytes:
        """Read `count` bytes; fewer only at the end."""
        data = b""
        while len(data) < count and (more := os.read(self.source, min(CHUNK, count - len(data)))):
            data += more
        return data

    def write(self, data: bytes) -> None:
        """Write all bytes."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.target, view) :]

    def copy(self, count: int | None) -> None:
        """Pass on `count` bytes; None is all bytes up to the end."""
        while count is None or count:
            data = os.read(self.source, CHUNK if count is None else min(CHUNK, count))
            if not data:
                return
            self.write(data)
            count = None if count is None else count - len(data)

    def skip(self, count: int) -> None:
        """Read `count` bytes and drop them."""
        while count and (data := os.read(self.source, min(CHUNK, count))):
            count -= len(data)


def padded(size: int) -> int:
    """Return a size, rounded up to whole tar blocks."""
    return -(-size // BLOCK) * BLOCK


def import_archive(ctr: Beneath, flags: list[tuple[str, str]], name: str) -> NoReturn:
    """Run `images import`: stream the archive through the stand-in into the real ctr."""
    source = 0
    if name != "-":
        try:
            source = os.open(name, os.O_RDONLY)
        except OSError:
            ctr.become(["images", "import", "--", name])  # the real ctr reports the fault in 1.2.6's words
    values = dict(flags)
    readable, writable = os.pipe()
    words = [f"--{flag}={value}" for flag, value in flags]
    run = ctr.start(["images", "import", "--all-platforms=true", *words, "--", "-"], stdin=readable)
    os.close(readable)
    problem = _feed(Pipe(source, writable), values.get("base-name", ""), "index-name" in values)
    os.close(writable)
    status, errors = run.end()
    if problem:
        refuse(problem)
    say(2, in_old_words(errors, IMPORT_RULES))
    sys.exit(status)


def _feed(pipe: Pipe, base_name: str, index_named: bool) -> str:
    """Pass an archive to the real ctr, with the names that 1.2.6 reads; return what is not covered, or ""."""
    try:
        _pass_archive(pipe, base_name, index_named)
    except BrokenPipeError:
        pass  # the real ctr has ended, and its exit status and stderr say why
    except NotCovered as error:
        pipe.write(b"\xff" * BLOCK)  # this is no valid header, so the real ctr fails and keeps nothing
        return str(error)
    return ""


def _pass_archive(pipe: Pipe, base_name: str, index_named: bool) -> None:
    docker = layout = False
    while header := pipe.read(BLOCK):
        if not header.strip(b"\0"):
            if docker and not layout:
                raise NotCovered("import of a docker archive (manifest.json without oci-layout)")
            pipe.write(header + pipe.read(BLOCK))
            return  # 1.2.6 does not read past the end mark, either
        entry = Entry.of(header)
        if entry is None:
            pipe.write(header)
            pipe.copy(None)
            return
        docker |= entry.name == "manifest.json"
        layout |= entry.name == "oci-layout"
        pipe.write(header)
        if entry.is_file and entry.name == "index.json":
            if entry.size > INDEX_LIMIT:
                raise NotCovered(f"import with an index.json of {entry.size} bytes")
            data = pipe.read(entry.size)
            pipe.write(old_index(data, base_name, index_named))
            pipe.copy(padded(entry.size) - entry.size)
        else:
            pipe.copy(padded(entry.size))


def old_index(data: bytes, base_name: str, index_named: bool) -> bytes:
    """Return an index.json of the same length, in which 1.4 finds the names that 1.2.6 finds in `data`."""
    try:
        manifests = json.loads(data)["manifests"]
        annotations = [manifest.get("annotations") or {} for manifest in manifests]
    except (ValueError, KeyError, TypeError, AttributeError):
        return data
    if all(A not in notes or _named_alike(notes, base_name) for notes in annotations):
        return data
    if index_named:
        raise NotCovered(f"import --index-name where {A} has to be masked (the index's digest changes)")
    masked = data.replace(A.encode(), A_MASKED.encode())
    if any(A in (manifest.get("annotations") or {}) for manifest in json.loads(masked)["manifests"]):
        raise NotCovered(f"import with an escaped {A} in index.json")
    return masked


def _named_alike(notes: dict[str, str], base_name: str) -> bool:
    """Tell whether 1.4, which reads A, gives the same name as 1.2.6, which reads R."""
    full = notes.get(R, "")
    return notes[A] == full and not base_name and any(mark in full for mark in "/:@")


def export_archive(ctr: Beneath, out: str, reference: str, ref_name: str) -> NoReturn:
    """Run `images export`: stream the real ctr's archive through the stand-in, which gives it 1.2.6's form."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    readable, writable = os.pipe()
    words = ["--all-platforms=true", "--skip-manifest-json=true", "--", "-", reference]
    run = ctr.start(["images", "export", *words], stdout=writable)
    os.close(writable)
    source = Pipe(readable, -1)
    first = source.read(BLOCK)
    if not first:
        _nothing_exported(run, out, reference)
    target = _create(out)
    if target is None:
        run.kill()
        sys.exit(0)
    source.target = target
    _pass_export(source, first, ref_name or oci_ref_name(reference))
    status, errors = run.end()
    say(2, _export_errors(errors))
    sys.exit(status)


def _nothing_exported(run: Run, out: str, reference: str) -> NoReturn:
    """End an export for which an image or a manifest is absent. Without a manifest, 1.2.6 writes an empty tar."""
    status, errors = run.end()
    absent = f'ctr: image "{reference}": not found'
    if absent in errors:
        fail(f'ctr: unable to resolve image to manifest: image "{reference}": not found', status)
    target = _create(out)
    if target is None:
        sys.exit(0)
    Pipe(-1, target).write(bytes(2 * BLOCK))
    say(2, _export_errors(errors))
    sys.exit(status)


def _create(out: str) -> int | None:
    """Open the file to write; return None if that fails. 1.2.6 then ends with exit status 0."""
    try:
        return 1 if out == "-" else os.open(out, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError:
        return None


def _pass_export(pipe: Pipe, header: bytes, ref_name: str) -> None:
    """Pass the real ctr's archive on with 1.2.6's index.json and without manifest.json.

    1.4.13 writes manifest.json in spite of --skip-manifest-json. But with that flag, it takes names such as `h:x/a`.
    """
    while header:
        entry = Entry.of(header)
        if entry is None:
            pipe.write(header)
        elif entry.name == "index.json":
            data = exported_index(pipe.read(entry.size), ref_name)
            pipe.skip(padded(entry.size) - entry.size)
            pipe.write(entry.resized(len(data)) + data + bytes(padded(len(data)) - len(data)))
        elif entry.name == "manifest.json":
            pipe.skip(padded(entry.size))
        else:
            pipe.write(header)
            pipe.copy(padded(entry.size))
        header = pipe.read(BLOCK)


def exported_index(data: bytes, ref_name: str) -> bytes:
    """Return 1.2.6's index.json: the image's own descriptor, with R as the only annotation."""
    index = json.loads(data)
    for manifest in index["manifests"]:
        manifest.pop("annotations", None)
        if ref_name:
            manifest["annotations"] = {R: ref_name}
    return json.dumps(index, separators=(",", ":"), ensure_ascii=False).encode()


def oci_ref_name(reference: str) -> str:
    """Return the tag that 1.2.6 takes from a name: with the `@` before a digest; empty if the name has no path."""
    path = reference.partition("/")[2]
    marks = [path.index(mark) for mark in ":@" if mark in path]
    if not marks:
        return ""
    rest = path[min(marks) :].removeprefix(":")
    return rest[: rest.index("@") + 1] if "@" in rest else rest


def _export_errors(errors: str) -> str:
    return in_old_words(errors, [(r"(?m)^ctr: (?!export failed)", "ctr: export failed: ")])
