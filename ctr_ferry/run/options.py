"""Options that several commands share: from text to value, checked before any host is touched."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from ctr_ferry import shell
from ctr_ferry.ctr.commands import LONGEST_NAMESPACE, NAMESPACE
from ctr_ferry.errors import BadReference, UsageError
from ctr_ferry.oci import image_set
from ctr_ferry.oci.descriptor import Platform
from ctr_ferry.oci.reference import Reference, is_digest, is_glob
from ctr_ferry.ssh.local_path import local_path, ls_line

SET_HELP = "File with images: one reference a line, or YAML of Kubernetes or Hauler; - is stdin; may be repeated."


def references(ref: Iterable[str] | None, set_: Iterable[str] | None) -> tuple[str, ...]:
    """Returns the images that ``--ref`` and ``--set`` name, as they are written there, each once.

    ``--ref`` may also be a digest or a glob; the command says where it takes none. If ``--set`` was given, or several
    images are named, a command's result has a list of images, else the fields of the one image.

    Raises:
        BadReference: a ``--ref`` is no reference.
        UsageError: a set cannot be read, has wrong lines or names no image.
    """
    found: dict[str, str] = {}
    for text in [*(ref or ()), *(each for file in set_ or () for each in read_set(file))]:
        found.setdefault(text if is_digest(text) or is_glob(text) else _full_name(text), text)
    return tuple(found.values())


def _full_name(text: str) -> str:
    try:
        return image_set.full_name(text)
    except BadReference as error:
        mended = re.sub(r"^[a-z]+://|[\s\x00-\x1f\x7f]", "", text)
        try:
            words = shell.join(["fab", "-H", "HOST", "retag", "--src", text, "--dst", image_set.full_name(mended)])
        except BadReference:
            match = [f"--match={text}"] if text.startswith("-") else ["--match", text]
            words = shell.join(["fab", "-H", "HOST", "find", *match])
        raise BadReference(error.message, hint=f"{error.hint}; where a host has this very name: {words}") from error


def naming(ref: Iterable[str] | None, set_: Iterable[str] | None) -> list[str]:
    """Returns the words of a command line that name the same images, for a hint; FILE stands for what stdin had."""
    refs = [word for text in ref or () for word in ("--ref", text)]
    return refs + [word for file in set_ or () for word in ("--set", "FILE" if file == "-" else file)]


def read_set(file: str, option: str = "--set") -> tuple[str, ...]:
    """Returns the references of a set of images; ``-`` is stdin. Raises UsageError, which names file and line."""
    try:
        text = _stdin() if file == "-" else local_path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(
            f"{option} {file} cannot be read: {why}", hint=f"see what is there: {ls_line(file)}"
        ) from error
    return image_set.parse(text, "stdin" if file == "-" else file)


def file_to_write(text: str, option: str, head: str) -> Path:
    """Returns the file that gets what begins with ``head``.

    Raises UsageError where there is no such folder, or where the file has something else: a wrong word must not cost
    an inventory.
    """
    file = local_path(text)
    if not file.parent.is_dir():
        raise UsageError(
            f"{option} {text}: there is no folder {file.parent}",
            hint=f"make it first: mkdir -p {shell.join([str(file.parent)])}",
        )
    begin: bytes | None = b""
    try:
        if file.exists():
            begin = _beginning(file, len(head)) if file.is_file() else None
    except OSError:
        begin = None
    if begin is None or begin not in (b"", head.encode()):
        raise UsageError(
            f"{option} {text} is there, and has something else",
            hint=f"choose another file, or look at this one: ls -l {shell.join([text])}",
        )
    return file


def _beginning(file: Path, size: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(size)


@cache
def _stdin() -> str:
    """All of stdin, read once, so that several commands of one line may take the same set."""
    return sys.stdin.buffer.read().decode("utf-8-sig")


def namespace(text: str | None, option: str = "--namespace") -> str | None:
    """Checks a containerd namespace; None if the option was not given; UsageError if the text is none."""
    if text is not None and (not re.fullmatch(NAMESPACE, text) or len(text) > LONGEST_NAMESPACE):
        raise UsageError(
            f"{option} {text!r} is no namespace",
            hint="use letters and digits, with single '.', '_' or '-' between them; "
            "those that are there: fab -H HOST images --all-namespaces",
        )
    return text


def new_name(text: str | None) -> Reference | None:
    """Parses a new name for an image; None if the option was not given. Raises BadReference for other text."""
    return None if text is None else Reference.parse(text).for_cri


def platform(text: str | None, *, every: bool = False) -> Platform | None:
    """Parses a platform such as linux/arm64; None if the option was not given.

    Raises UsageError for other text, and if ``--all-platforms`` was given as well (``every``).
    """
    if text and every:
        raise UsageError("--platform and --all-platforms exclude each other", hint="leave --platform out")
    try:
        return Platform.parse(text) if text is not None else None
    except ValueError as error:
        raise UsageError(f"--platform: {error}", hint="such as with --platform linux/amd64") from error


def choice(text: str | None, option: str, choices: Sequence[str]) -> str:
    """Returns the choice, by default the first one; raises UsageError for a text that is none of the choices."""
    if text is not None and text not in choices:
        raise UsageError(
            f"{option} {text!r} is none of {', '.join(choices)}",
            hint=f"give one of these, such as {option} {choices[0]}",
        )
    return text or choices[0]
