"""What real ctrs from 1.0.3 to 2.1.9 printed while they pushed and pulled.

tests/data/transfers has one file for each version. Long outputs are cut in the middle, at the ends of lines.
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
    """Returns what ctr printed of a failure. On a terminal, stdout and stderr are one stream."""
    return record.stdout if "typed at the prompt" in record.case else record.stderr
