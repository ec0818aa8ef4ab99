"""What the newest records know, for the completion of a shell: names of images, and ids of runs.

A person waits for it at a prompt, so it reads few files, and little of each. Names come from hosts: only those that a
shell takes as plain text count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_RUN = re.compile(r"\d{8}T\d{6}Z-[\w-]+-[0-9a-f]{4}", re.ASCII)
_NAMED = re.compile(rb'"(?:reference|source|src|dst|as_)": "([A-Za-z0-9][A-Za-z0-9._:/@+-]{0,511})"')
_NAMED_AGAIN = re.compile(
    rb'"(?:ref|as)": \[("[A-Za-z0-9][A-Za-z0-9._:/@+-]*"(?:, "[A-Za-z0-9][A-Za-z0-9._:/@+-]*")*)\]'
)
_MOST_RUNS = 20  # whose files are read
_MOST_IDS = 50
_MOST_FILES = 200
_MOST_OF_A_FILE = 1 << 20  # bytes
_MOST_BYTES = 4 << 20
_MOST_NAMES = 300


def run_ids(root: Path) -> list[str]:
    """The ids of the newest runs, newest first; none where the folder cannot be read."""
    try:
        return sorted((path.name for path in root.iterdir() if _RUN.fullmatch(path.name)), reverse=True)[:_MOST_IDS]
    except OSError:
        return []


def image_names(root: Path) -> list[str]:
    """The names of images in the newest records, those of the newest run first."""
    found: dict[str, None] = {}
    for text in _texts(root):
        lists = b", ".join(match[1] for match in _NAMED_AGAIN.finditer(text))
        for name in [*_NAMED.findall(text), *re.findall(rb'"([^"]+)"', lists)]:
            if b"/" in name or b":" in name:
                found[name.decode()] = None
        if len(found) >= _MOST_NAMES:
            break
    return [name for name in found if not name.startswith("sha256:")][:_MOST_NAMES]


def _texts(root: Path) -> Iterator[bytes]:
    """What is read of the newest records: of each run the options and the results of its hosts."""
    left, files = _MOST_BYTES, _MOST_FILES
    for run in run_ids(root)[:_MOST_RUNS]:
        for file in _files(root / run):
            if left <= 0 or files <= 0:
                return
            try:
                with file.open("rb") as opened:
                    text = opened.read(min(left, _MOST_OF_A_FILE))
            except OSError:
                continue
            left, files = left - len(text), files - 1
            yield text


def _files(folder: Path) -> list[Path]:
    """A run's files with names of images; a named pipe would keep the reader waiting."""
    try:
        return [file for file in sorted(folder.iterdir()) if file.suffix in (".json", ".jsonl") and file.is_file()]
    except OSError:
        return []
