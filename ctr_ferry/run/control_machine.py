"""The control machine, as commands see it that connect to no host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctr_ferry.report.record import Runs

if TYPE_CHECKING:  # reads inventories, which a listing does not need
    from ctr_ferry.inventory.selector import HostSelector


@dataclass(frozen=True, slots=True)
class ControlMachine:
    """What is known without a connection.

    Attributes:
        selector: knows the inventory.
        patterns: the words of ``-H``; may be empty.
        runs: the records of past runs.
    """

    selector: HostSelector
    patterns: tuple[str, ...]
    runs: Runs
