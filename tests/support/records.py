"""The answers of real ctrs from 1.0.3 to 2.3.4, word for word. tests/data/ctr has one file for each version."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Record:
    version: str
    case: str
    argv: list[str]
    exit: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"{self.version}: {self.case}"


RECORDS = [
    Record(file.stem, **json.loads(line))
    for file in sorted((DATA / "ctr").glob("*.jsonl"))
    for line in file.read_text().splitlines()
]
VERSIONS = list(dict.fromkeys(record.version for record in RECORDS))


def record(version: str, case: str) -> Record:
    return next(r for r in RECORDS if (r.version, r.case) == (version, case))


def listings() -> list[Record]:
    """Return the records of every `images ls` that printed its table."""
    return [r for r in RECORDS if {"images", "ls"} <= set(r.argv) and "-q" not in r.argv and r.exit == 0]
