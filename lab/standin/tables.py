"""The tables of `content ls` and `content active` in the layout of ctr 1.2.6."""

from __future__ import annotations

import re


def content_table(text: str) -> str:
    """Return a table in 1.2.6's words: `1.049 MB`, `1 seconds`, plain numbers in the labels of children."""
    rows = [[_old_cell(cell) for cell in re.split(r"\t+", line)] for line in text.splitlines()]
    return _tabulate(rows)


def _old_cell(cell: str) -> str:
    cell = re.sub(r"^([\d.e+]+)([kMGTPEZY]?B)$", r"\1 \2", cell)
    cell = re.sub(r"^1 second$", "1 seconds", cell)
    cell = re.sub(r"(?<=containerd\.io/gc\.ref\.content\.)config=", "0=", cell)
    cell = re.sub(r"(?<=containerd\.io/gc\.ref\.content\.)m\.(\d+)=", r"\1=", cell)
    return re.sub(r"(?<=containerd\.io/gc\.ref\.content\.)l\.(\d+)=", lambda match: f"{int(match[1]) + 1}=", cell)


def _tabulate(rows: list[list[str]]) -> str:
    """Align rows as Go's text/tabwriter does: a column has the width of its widest cell, rounded up to a tab of 8."""
    columns = max((len(row) for row in rows), default=1) - 1
    tabs = [max(len(row[column]) for row in rows) // 8 + 1 for column in range(columns)]
    lines = []
    for row in rows:
        cells = [cell + "\t" * (tabs[i] - len(cell) // 8) for i, cell in enumerate(row[:-1])]
        lines.append("".join(cells) + row[-1] + "\n")
    return "".join(lines)
