"""``ctr images check``: whether an image's content is there and unpacked. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ctr_ferry.ctr.commands import Ctr
from ctr_ferry.ctr.listing import split_row
from ctr_ferry.text import shown

_STATUS = re.compile(r"(complete|incomplete|unavailable|error)(?: \([^)]{0,40}\))?")


@dataclass(frozen=True, slots=True)
class Check:
    """One image's state for the host's own platform; ``status`` has ctr's words, such as ``incomplete (2/5)``."""

    complete: bool
    unpacked: bool
    status: str


UNKNOWN = Check(False, False, "unknown")


def command(ctr: Ctr, namespace: str, *names: str) -> str:
    """Builds ``images check`` for a whole namespace, or for exactly these names, as sh text."""
    return ctr.line(namespace, "images", "check", *ctr.unpacking, *(f'name=="{name}"' for name in names))


def parse_checks(text: str) -> dict[str, Check]:
    """Parses ``images check``, REF TYPE DIGEST STATUS SIZE UNPACKED, and returns the states by name.

    Lines of another shape are left out. So are names with a digest in them: such a row can be split in two ways, and no
    other image must get that state.
    """
    found = {}
    for line in text.split("\n"):
        row = split_row(line)
        if row and (status := _STATUS.match(" ".join(row[3]))):
            found[row[0]] = Check(status[1] == "complete", row[3][-1] == "true", shown(status[0]))
    return found
