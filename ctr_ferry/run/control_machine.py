"""What a command gets that connects to no host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry.report.record import Runs

if TYPE_CHECKING:  # what reads inventories is no part of a listing
    from ctr_ferry.inventory.selector import HostSelector


@dataclass(frozen=True, slots=True)
class ControlMachine:
    """The control machine's own knowledge.

    Attributes:
        patterns: of ``-H``; may be empty.
        runs: the records of past runs.
    """

    selector: HostSelector
    patterns: tuple[str, ...]
    runs: Runs
