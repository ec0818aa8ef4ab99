"""What a command gets that connects to no host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.fleet.record import Runs

if TYPE_CHECKING:  # what reads inventories is no part of a listing
    from tasks.fleet.roster import Roster


@dataclass(frozen=True, slots=True)
class Desk:
    """The control machine's own knowledge.

    Attributes:
        patterns: of ``-H``; may be empty.
        runs: the records of past runs.
    """

    roster: Roster
    patterns: tuple[str, ...]
    runs: Runs
