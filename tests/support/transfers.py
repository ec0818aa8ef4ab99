"""The output of pushes and pulls of real ctrs from 1.0.3 to 2.3.4.

tests/data/transfers has one file for each version. Long outputs lack whole lines in the middle.
"""

from __future__ import annotations

import json

from records import DATA, Record

TRANSFERS = [
    Record(file.stem, **json.loads(line))
    for file in sorted((DATA / "transfers").glob("*.jsonl"))
    for line in file.read_text().splitlines()
]


def detail(record: Record) -> str:
    """Return the stream with ctr's errors. On a terminal, stdout and stderr are one stream."""
    return record.stdout if "typed at the prompt" in record.case else record.stderr
